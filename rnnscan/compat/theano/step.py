"""Theano's step function, `fn(*sequence slices, *past outputs, *non_sequences)`, and what it may return."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._errors import CellOutputError
from ..._inputs import is_value
from ..._tree import describe
from ..._types import name_of


class until:
    """The last thing a step returns to say when to stop: after the first step whose `condition` is true."""

    def __init__(self, condition: Any):
        self.condition = condition


OF_UNTIL = {"n_steps", "stopped"}
"""The keys of `updates` after `until`."""


class Returned(NamedTuple):
    """What a step returned, taken apart."""

    outputs: tuple[Any, ...]
    condition: Any  # None without `until`


def read_returned(fn: Any, returned: Any) -> Returned:
    """`outputs`, `(outputs, updates)`, `(outputs, until)` or `(outputs, updates, until)`, as Theano orders them."""
    parts = list(returned) if isinstance(returned, list | tuple) else [returned]
    condition = None
    if parts and isinstance(parts[-1], until):
        condition = _condition(fn, parts.pop().condition)
    if parts and _is_updates(parts):
        _refuse_updates(fn, parts.pop())
    if len(parts) == 1 and isinstance(parts[0], list | tuple):
        parts = list(parts[0])
    for part in parts:
        if isinstance(part, list | tuple | dict) or not is_value(part):
            raise CellOutputError(
                f"`{name_of(fn)}` must return outputs (one array or a list), then updates if any, then until(cond) if "
                f"any, each at most once and in this order; got {_shown(returned)}."
            )
    return Returned(tuple(parts), condition)


def _condition(fn: Any, condition: Any) -> Any:
    if jnp.shape(condition) != () or jnp.result_type(condition) != jnp.bool_:
        came = describe(jnp.asarray(condition))
        raise CellOutputError(f"`{name_of(fn)}` must return until(cond) with a scalar bool, got {came}.")
    return condition


def _is_updates(parts: list[Any]) -> bool:
    """Whether the last part is a dict, or stands behind the outputs as a list of pairs."""
    last = parts[-1]
    pairs = isinstance(last, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in last)
    return isinstance(last, dict) or len(parts) == 2 and pairs


def _refuse_updates(fn: Any, updates: Any) -> None:
    """Raises for updates that update something; what `until` left in those of a scan inside `fn` is dropped."""
    updated = [key for key, _ in (updates.items() if isinstance(updates, dict) else updates)]
    names = {key for key in updated if isinstance(key, str)}
    if names >= OF_UNTIL:
        updated = [key for key in updated if not isinstance(key, str) or key not in OF_UNTIL]
    if not updated:
        return
    hint = ""
    if all(isinstance(key, str) for key in updated):
        hint = " If these were meant as outputs: return a list, a dict is taken for updates."
    raise TypeError(
        f"`{name_of(fn)}` returned updates for {len(updated)} shared variable{'s' * (len(updated) > 1)}; arrays "
        "do not change in JAX. Make each a state: its value goes into outputs_info, its new value is returned "
        f"among the outputs, and the last row of that output is what Theano would have stored.{hint}"
    )


def _shown(returned: Any) -> str:
    if isinstance(returned, list | tuple):
        inner = ", ".join(map(_shown, returned))
        return f"[{inner}]" if isinstance(returned, list) else f"({inner})"
    if isinstance(returned, until):
        return "until"
    return describe(returned) if is_value(returned) or not isinstance(returned, dict) else "a dict of updates"


@dataclass(frozen=True)
class Step:
    """Theano's step as one of `scan_taps`: `(non_sequences, past, x) -> (outputs, condition)`."""

    fn: Callable[..., Any]

    @property
    def __name__(self) -> str:
        return name_of(self.fn)

    def __call__(self, non_sequences: Any, past: Any, x: Any) -> tuple[Any, Any]:
        returned = read_returned(self.fn, self.fn(*(x or ()), *jax.tree.leaves(past), *non_sequences))
        return returned.outputs, returned.condition


def fired(past: Any, y: Any) -> Any:
    """The `until` of `scan_until`: what the step itself said."""
    del past
    return y[1]

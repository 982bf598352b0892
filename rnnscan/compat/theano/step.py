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
    if updates:
        raise TypeError(
            f"`{name_of(fn)}` returned updates for {len(updates)} shared variable{'s' * (len(updates) > 1)}; arrays "
            "do not change in JAX. Make each a state: its value goes into outputs_info, its new value is returned "
            "among the outputs, and the last row of that output is what Theano would have stored."
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


def look(fn: Any, arguments: list[Any], names: list[str], strict: bool) -> tuple[int, bool]:
    """`(how many outputs, whether it ends with until)`, from one call with shapes.

    An error in it says what each argument was, since their order is what goes wrong most. With `strict` it raises if
    `fn` reads arrays that are not among its arguments.
    """
    seen = []

    def record(*arguments: Any) -> Any:
        returned = read_returned(fn, fn(*arguments))
        seen.append((len(returned.outputs), returned.condition is not None))
        return tuple(returned)

    try:
        closed = jax.make_jaxpr(record)(*arguments)
    except Exception as error:
        given = ", ".join(
            f"{n}: {describe(a if hasattr(a, 'shape') else jnp.asarray(a))}"
            for n, a in zip(names, arguments, strict=True)
        )
        error.add_note(f"raised by `{name_of(fn)}`, which `theano.scan` called with {len(names)} arguments: {given}")
        raise
    hidden = [leaf for leaf in closed.consts if isinstance(leaf, jax.Array)]
    if strict and hidden:
        raise ValueError(
            f"strict=True, but `{name_of(fn)}` reads {', '.join(map(describe, hidden))} that is not among its "
            "arguments. Pass every array in non_sequences, or leave strict=False."
        )
    return seen[-1]

"""`Loop`, the record that rewrites and runners speak."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp


def _itself(state: Any) -> Any:
    return state


def _as_they_are(state: Any, outputs: Any) -> tuple[Any, Any]:
    return state, outputs


@dataclass(frozen=True)
class Loop:
    """A recurrence ready to run; a rewrite takes one and returns one, a runner takes one and runs it.

    For `t` in `range(n_steps)`, from the last to the first where `reverse`:

        state, outputs[t] = step(params, state, inputs[t], t)

    and then `carry, ys = finish(state, outputs)`. At first the state is the user's carry and the inputs are the
    user's xs; a rewrite may wrap both, and unwraps them again in `finish` and `carry_of`.
    """

    step: Callable[[Any, Any, Any, Any], tuple[Any, Any]]
    params: Any
    state: Any
    inputs: Any  # time is the first axis of every leaf
    output: Any  # shapes and dtypes of what one step puts out
    n_steps: int
    reverse: bool
    uses_t: bool = False  # whether `step` reads `t`; where it does not, a runner passes None
    carry_of: Callable[[Any], Any] = _itself
    finish: Callable[[Any, Any], tuple[Any, Any]] = _as_they_are

    def wrap(self, **changes: Any) -> "Loop":
        """The same loop with some fields replaced."""
        return replace(self, **changes)

    def run_empty(self) -> tuple[Any, Any]:
        """What no step at all gives: the state as it stands, and outputs with a time axis of length 0."""
        return self.finish(self.state, jax.tree.map(lambda y: jnp.zeros((0, *y.shape), y.dtype), self.output))

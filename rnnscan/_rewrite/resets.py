"""Boundaries inside a sequence at which the carry starts afresh."""

from typing import Any

import jax
import jax.numpy as jnp

from .. import _tree
from .._loop import Loop


def resets(loop: Loop, flags: jax.Array, reset_carry: Any) -> Loop:
    """`flags[t]` is a boundary between `t - 1` and `t`: the step after it in scan order starts from `reset_carry`.

    Forward that is step `t`; backward it is step `t - 1`, so there the flags move one place to the left. This is the
    innermost rewrite: the state it sees is the bare carry.
    """
    if loop.reverse:
        flags = jnp.concatenate([flags[1:], jnp.zeros_like(flags[:1])])

    def step(params: Any, carry: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        params, fresh = params
        x, boundary = inputs
        return loop.step(params, _tree.where(boundary, fresh, carry), x, t)

    return loop.wrap(step=step, params=(loop.params, reset_carry), inputs=(loop.inputs, flags))

"""One compiled step, repeated by `jax.lax.scan`: compile time and code size do not grow with the number of steps."""

from typing import Any

import jax
import jax.numpy as jnp

from .. import _tree
from .._jaxpr.versions import match_varying
from .._loop import Loop


def sequential(loop: Loop, unroll: int | bool = 1) -> tuple[Any, Any]:
    """Runs a loop with `lax.scan`; `unroll` steps are written out in each iteration."""
    t = jnp.arange(loop.n_steps, dtype=jnp.int32) if loop.uses_t else None

    def body(state: Any, inputs_and_t: Any) -> tuple[Any, Any]:
        return loop.step(loop.params, state, *inputs_and_t)

    inputs = (loop.inputs, t)
    state = match_varying(lambda state, inputs: body(state, _tree.at_time(inputs, 0))[0], loop.state, inputs)
    state, outputs = jax.lax.scan(body, state, inputs, loop.n_steps, reverse=loop.reverse, unroll=unroll)
    return loop.finish(state, outputs)

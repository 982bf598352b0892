"""The plain Python loop that defines what a scan means."""

from typing import Any

import jax.numpy as jnp

from .. import _tree
from .._loop import Loop


def reference(loop: Loop) -> tuple[Any, Any]:
    """Runs a loop step by step, outputs kept at the place of their inputs."""
    state, outputs = loop.state, [None] * loop.n_steps
    order = range(loop.n_steps)
    for t in reversed(order) if loop.reverse else order:
        t_array = jnp.asarray(t, jnp.int32) if loop.uses_t else None
        state, outputs[t] = loop.step(loop.params, state, _tree.at_time(loop.inputs, t), t_array)
    return loop.finish(state, _tree.stack(outputs))

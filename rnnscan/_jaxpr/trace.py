"""A step, traced once."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from .. import _tree
from .._loop import Loop
from .depend import Step
from .graph import Builder, new_inputs


@dataclass(frozen=True)
class Traced:
    """A step as a jaxpr of (params, carry, inputs), all flat; what the cell closes over are its constants."""

    closed: Any
    n_params: int
    carry_tree: Any
    output_tree: Any

    @classmethod
    def of(cls, loop: Loop, state: Any, inputs: Any) -> "Traced":
        trees = (jax.tree.map(jnp.asarray, loop.params), state, _tree.at_time(inputs, 0))
        closed, (_, output) = jax.make_jaxpr(lambda p, s, x: loop.step(p, s, *x), return_shape=True)(*trees)
        return cls(closed, len(jax.tree.leaves(loop.params)), jax.tree.structure(state), jax.tree.structure(output))

    def again(self, params: Any, state: Any, inputs: Any, t: Any) -> tuple[Any, Any]:
        """The step once more, without tracing the user's code again."""
        leaves = jax.tree.leaves((params, state, inputs, t))
        out = core.jaxpr_as_fun(self.closed)(*leaves)
        n = self.carry_tree.num_leaves
        return jax.tree.unflatten(self.carry_tree, out[:n]), jax.tree.unflatten(self.output_tree, out[n:])

    def graph(self, build: Builder) -> Step:
        values = new_inputs(self.closed.in_avals)
        consts = new_inputs(map(jax.typeof, self.closed.consts))
        outputs = build.graph(self.closed, values, consts)
        n, m = self.n_params, self.carry_tree.num_leaves
        return Step(
            (*consts, *values[:n]), tuple(values[n : n + m]), tuple(values[n + m :]),
            tuple(outputs[:m]), tuple(outputs[m:]), tuple(build.effects),
        )  # fmt: skip

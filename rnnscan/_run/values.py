"""A run of which no derivative is asked for: it keeps nothing, and writes each output once.

`lax.scan` over pieces of time writes an output twice, in its piece and then in the whole. Without a derivative the
loops can write to the whole themselves; with one they cannot, as JAX would keep the whole anew for each step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._jaxpr.many import moves


Arrays = list[Any]


def computed_by(value: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays that is computed as `value` where no derivative is asked for."""

    def rule(primals: Any, tangents: Any) -> Any:
        leaves, tree = jax.tree.flatten(primals)
        of_leaves = tree.flatten_up_to(tangents)
        which = [i for i, d in enumerate(of_leaves) if moves(d)]

        def of_moving(*moving: Any) -> Any:
            given = dict(zip(which, moving, strict=True))
            return function(*tree.unflatten([given.get(i, leaf) for i, leaf in enumerate(leaves)]))

        return jax.jvp(of_moving, [leaves[i] for i in which], [of_leaves[i] for i in which])

    made = jax.custom_jvp(value)
    made.defjvp(rule, symbolic_zeros=True)
    return made


def loop_into(
    body: Callable[..., Any], consts: Arrays, state: Arrays, seqs: Arrays, into: dict[int, Any], first: Any, **how: Any
) -> tuple[Arrays, Arrays, dict[int, Any]]:
    """`plain_loop`, with the value i of each step written to `into[i]`, whose index `first` is for the first step."""

    def step(carry: tuple[Arrays, dict[int, Any]], x: Any) -> Any:
        (state, into), (t, x) = carry, x
        state, found = body(consts, state, x)
        into = {i: lax.dynamic_update_index_in_dim(whole, found[i], t, 0) for i, whole in into.items()}
        return (state, into), [None if i in into else y for i, y in enumerate(found)]

    t = first + jnp.arange(how["length"], dtype=jnp.int32) if into else None
    (state, into), rest = lax.scan(step, (state, into), (t, seqs), **how)
    return state, rest, into

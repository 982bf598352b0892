"""Differences between JAX releases, each with the release that ends it."""

from collections.abc import Callable
from typing import Any

import jax
from jax._src import core


def _varying(aval: Any) -> frozenset[str]:
    """Mesh axes over which a value differs inside `shard_map`; empty outside."""
    if hasattr(aval, "vma"):  # before jax 0.10.2
        return frozenset(aval.vma)
    return frozenset(getattr(getattr(aval, "manual_axis_type", None), "varying", ()))


def match_varying(step: Callable[[Any, Any], Any], state: Any, inputs: Any) -> Any:
    """`state` marked as varying over every mesh axis over which `step(state, inputs)` varies.

    Inside `shard_map`, `lax.scan` refuses a carry that starts out equal on all devices (zeros, say) and then depends
    on sharded data. Outside it nothing changes.
    """
    leaves, structure = jax.tree.flatten(state)
    if not any(_varying(jax.typeof(leaf)) for leaf in [*leaves, *jax.tree.leaves(inputs)]):
        return state
    for _ in range(len(leaves) + 1):  # one leaf may make another vary a step later
        avals = jax.make_jaxpr(step)(jax.tree.unflatten(structure, leaves), inputs).out_avals
        missing = [_varying(b) - _varying(jax.typeof(a)) for a, b in zip(leaves, avals, strict=True)]
        if not any(missing):
            break
        leaves = [jax.lax.pcast(a, tuple(m), to="varying") if m else a for a, m in zip(leaves, missing, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def under_jit() -> bool:
    """Whether a program is being traced that will be compiled once, rather than run now, differentiated or not."""
    ask = getattr(core, "unsafe_am_i_under_a_jit", None)  # no public function tells
    return bool(ask()) if ask is not None else not core.trace_state_clean()

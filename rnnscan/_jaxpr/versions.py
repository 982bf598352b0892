"""Differences between JAX releases, each with the release that ends it."""

from collections.abc import Callable
from typing import Any

import jax


def _varying(leaf: Any) -> frozenset[str]:
    """Mesh axes over which a value differs inside `shard_map`; empty outside."""
    return frozenset(getattr(jax.typeof(leaf), "vma", ()))


def match_varying(step: Callable[[Any], Any], state: Any) -> Any:
    """`state` marked as varying over every mesh axis over which `step(state)` varies.

    Inside `shard_map`, `lax.scan` refuses a carry that starts out equal on all devices (zeros, say) and then depends
    on sharded data. Outside it nothing changes.
    """
    for _ in range(len(jax.tree.leaves(state)) + 1):
        after = jax.make_jaxpr(step, return_shape=False)(state).out_avals if _in_shard_map() else None
        if after is None:
            return state
        leaves, structure = jax.tree.flatten(state)
        missing = [frozenset(getattr(b, "vma", ())) - _varying(a) for a, b in zip(leaves, after, strict=True)]
        if not any(missing):
            return state
        cast = [jax.lax.pcast(a, tuple(m), to="varying") if m else a for a, m in zip(leaves, missing, strict=True)]
        state = jax.tree.unflatten(structure, cast)
    return state


def _in_shard_map() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return bool(mesh.manual_axes)

"""A warning where a carry is too coarse for the number of steps."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from . import _tree
from ._notes import users_line


_low_precision_told: set[str] = set()


def warn_of_low_precision(cell: Any, carry: Any, n_steps: int) -> None:
    """Says once for each dtype that a sum of ones would stop growing within this many steps.

    A cell says with `bounded`, a bool or a tree of them like its carry, which leaves sum nothing up: they are left out.
    """
    for (name, leaf), bounded in zip(_tree.named_leaves("carry", carry), _bounded(cell, carry), strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            most, what = 2 ** (jnp.finfo(leaf.dtype).nmant + 1), "stop growing"
            wider = "Keep the carry wider, `carry_dtype=jnp.float32`." if most < 2**24 else "Keep the carry in float64."
        elif jnp.issubdtype(leaf.dtype, jnp.integer):
            most, what = int(jnp.iinfo(leaf.dtype).max), "wrap around"
            wider = "Start from a wider dtype, jnp.int32 for example."
        else:
            continue
        if n_steps > most and not bounded and str(leaf.dtype) not in _low_precision_told:
            _low_precision_told.add(str(leaf.dtype))
            warnings.warn(
                f"`{name}` is {leaf.dtype} and T = {n_steps} > {most}: sums of ones {what} at {most}. {wider}",
                stacklevel=users_line(),
            )


def _bounded(cell: Any, carry: Any) -> list[bool]:
    """For each leaf of the carry whether the cell says that it stays within bounds."""
    says = getattr(cell, "bounded", False)
    try:
        return [leaf is True for leaf in jax.tree.leaves(jax.tree.broadcast(says, carry))]
    except ValueError:  # an attribute of the user's own that means something else
        return [False] * len(jax.tree.leaves(carry))

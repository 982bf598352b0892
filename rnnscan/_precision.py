"""A warning where a carry is too coarse for the number of steps."""

import warnings
from typing import Any

import jax.numpy as jnp

from . import _tree


_low_precision_told: set[str] = set()


def warn_of_low_precision(carry: Any, n_steps: int) -> None:
    """Says once for each dtype that a sum of ones would stop growing within this many steps."""
    for name, leaf in _tree.named_leaves("carry", carry):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            most, what = 2 ** (jnp.finfo(leaf.dtype).nmant + 1), "stop growing"
        elif jnp.issubdtype(leaf.dtype, jnp.integer):
            most, what = int(jnp.iinfo(leaf.dtype).max), "wrap around"
        else:
            continue
        if n_steps > most and str(leaf.dtype) not in _low_precision_told:
            _low_precision_told.add(str(leaf.dtype))
            warnings.warn(
                f"`{name}` is {leaf.dtype} and T = {n_steps} > {most}: sums of ones {what} at {most}. Accumulate in a "
                "wider dtype, jnp.float32 for example.",
                stacklevel=2,
            )

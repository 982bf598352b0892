"""Products in a narrow dtype whose sums are kept in a wide one: the mixed precision of the library's cells."""

from typing import Any

import jax
import jax.numpy as jnp

from .._options import floating


def narrow(value: Any) -> Any:
    """A cell's setting `compute_dtype` in one form, a NumPy dtype or None, for `_types.settle`."""
    return floating("compute_dtype", value)


def product(x: Any, w: Any, compute_dtype: Any = None) -> jax.Array:
    r"""`x @ w`; with a `compute_dtype`, `round(x) @ round(w)` with both rounded to it and the sums kept wide.

    The result and the sums in it have the dtype that `x @ w` has; where x and w differ, as in bfloat16 input for
    float32 weights, that is the wider one, also under `jax_numpy_dtype_promotion="strict"`.

    Derivatives are JAX's, with the cotangent `g` of the result in the wide dtype:

        dL/dx = round(g @ round(w)^T),    dL/dw = round(round(x)^T @ g),

    sums in the wide dtype again, each sum then rounded once to `compute_dtype`, and given back in the dtype of x or w.

    Raises TypeError if the operands are not real floating numbers, or if their dtype is no wider than `compute_dtype`.
    """
    if compute_dtype is None:
        return x @ w
    x, w = jnp.asarray(x), jnp.asarray(w)
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(x.dtype, w.dtype)
    if not jnp.issubdtype(wide, jnp.floating):
        raise TypeError(f"`compute_dtype={compute_dtype}` is for real floating numbers; got {x.dtype} @ {w.dtype}.")
    if compute_dtype != wide and compute_dtype.itemsize >= wide.itemsize:
        raise TypeError(
            f"`compute_dtype={compute_dtype}` is no narrower than {wide}, the dtype of params and carry, in which sums "
            "are kept, so it would lose digits or gain nothing. Leave it out, or make params and carry wider: "
            "`cell.init(key, jnp.float32)`."
        )
    return jnp.matmul(x.astype(compute_dtype), w.astype(compute_dtype), preferred_element_type=wide)

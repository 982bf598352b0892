"""How the library's cells start: dtypes, input weights, recurrent weights and zero states."""

import operator
from typing import Any

import jax
import jax.numpy as jnp


def size(value: Any) -> int:
    """A number of features as an int of at least 1, for `_types.settle`."""
    value = operator.index(value)
    if value < 1:
        raise ValueError(f"a cell's size counts features and must be at least 1; got {value}. Write a positive int.")
    return value


def float_dtype(dtype: Any = None, params: Any = None) -> Any:
    """The dtype asked for; for None the one of params' first floating leaf; without one JAX's default float."""
    if dtype is None:
        dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(params)]
        dtype = next((d for d in dtypes if jnp.issubdtype(d, jnp.floating)), jnp.result_type(float))
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"weights and states are real floating numbers; got dtype {jnp.dtype(dtype).name}. "
            "Write `jnp.float32`, `jnp.float64` or `jnp.bfloat16`, or leave `dtype` out for JAX's default float."
        )
    return jnp.dtype(dtype)


def input_weights(key: jax.Array, in_size: int, out_size: int, dtype: Any) -> jax.Array:
    """`(in_size, out_size)` normal with variance `1 / in_size` (LeCun et al. 1998, "Efficient BackProp", eq. 16).

    The variance knows nothing of `out_size`, so the blocks of several gates side by side start as each would alone.
    (Keras draws Glorot-uniform over the whole block, torch uniform in `+-1/sqrt(hidden_size)` for every array.)
    """
    return jax.nn.initializers.lecun_normal()(key, (in_size, out_size), dtype)


def recurrent_weights(key: jax.Array, hidden_size: int, gates: int, dtype: Any) -> jax.Array:
    """`(hidden_size, gates * hidden_size)`, every gate's block an orthogonal matrix of its own.

    A block's product then keeps the length of `h` (Saxe et al. 2014, arXiv:1312.6120). Keras makes the
    rows of the whole array orthonormal instead, which shrinks each gate's block.
    """
    # QR has no half-precision form: draw in float32 at least, then round
    draw = dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
    orthogonal = jax.nn.initializers.orthogonal()
    blocks = [orthogonal(k, (hidden_size, hidden_size), draw) for k in jax.random.split(key, gates)]
    return jnp.concatenate(blocks, axis=1).astype(dtype)


def zero_state(batch_shape: Any, hidden_size: int, dtype: Any = None, params: Any = None) -> jax.Array:
    """Zeros `(*batch_shape, hidden_size)` in `float_dtype(dtype, params)`."""
    return jnp.zeros((*batch_shape, hidden_size), float_dtype(dtype, params))

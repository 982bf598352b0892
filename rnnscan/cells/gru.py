"""Gated recurrent unit, in the form of the paper and in the form that torch, Keras and cuDNN compute."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._inputs import check_key
from .._types import settle
from . import initial
from .product import narrow, product


@dataclass(frozen=True)
class GRU:
    r"""Gated recurrent unit, `y_t = h_t`, with `W = [W_r W_z W_n]`, `U = [U_r U_z U_n]`:

        r_t = sigmoid(x_t W_r + b_r + h_{t-1} U_r + b_hr)
        z_t = sigmoid(x_t W_z + b_z + h_{t-1} U_z + b_hz)
        n_t = tanh(x_t W_n + b_n + r_t * (h_{t-1} U_n + b_hn))     reset_after=True
        n_t = tanh(x_t W_n + b_n + (r_t * h_{t-1}) U_n)            reset_after=False, where b_h is left out everywhere
        h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    Shapes: `x (..., in_size)`, `h` and `y` `(..., hidden_size)`, any leading batch axes.
    Params: `w_x (in_size, 3 * hidden_size)` is W, `w_h (hidden_size, 3 * hidden_size)` is U, `b (3 * hidden_size,)`,
    and with `reset_after` `b_h (3 * hidden_size,)`; the blocks are in the order r z n (torch's; Keras has z r h).
    Carry: `h`, zeros at the start.

    Main arguments
      `in_size`, `hidden_size`: features of `x` and of `h`.
    Other arguments
      `reset_after`: True (default) resets after the product, as torch, Keras and cuDNN do: `h U` is one product, and
      torch's weights map one to one. False resets before it, as the paper does.
      `compute_dtype`: None, or a narrower floating dtype, `jnp.bfloat16` for example, to which the operands of the
      products are rounded, params, x and h. Sums, gates, carry and `y` stay in the dtype of params and carry.

    Source: Cho et al. 2014, arXiv:1406.1078, eq. 5-8 (reset before the product); its z weighs the old state, as here,
    while Chung et al. 2014, arXiv:1412.3555, eq. 4, has z weigh the new one.
    """

    in_size: int
    hidden_size: int
    reset_after: bool = True
    compute_dtype: Any = None
    x_ndim: ClassVar[int] = 1
    float_input: ClassVar[bool] = True
    recurrent: ClassVar[bool] = True
    bounded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self, in_size=initial.size, hidden_size=initial.size, reset_after=bool, compute_dtype=narrow)

    @property
    def out_size(self) -> int:
        return self.hidden_size

    def init(self, key: jax.Array, dtype: Any = None) -> dict[str, jax.Array]:
        """`w_x` LeCun normal, `w_h` orthogonal gate by gate, biases zero."""
        dtype = initial.float_dtype(dtype)
        key_x, key_h = jax.random.split(check_key(key))
        params = {
            "w_x": initial.input_weights(key_x, self.in_size, 3 * self.hidden_size, dtype),
            "w_h": initial.recurrent_weights(key_h, self.hidden_size, 3, dtype),
            "b": jnp.zeros(3 * self.hidden_size, dtype),
        }
        return params | {"b_h": jnp.zeros(3 * self.hidden_size, dtype)} if self.reset_after else params

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> jax.Array:
        return initial.zero_state(batch_shape, self.hidden_size, dtype, params)

    def __call__(self, params: Any, h_tm1: Any, x_t: Any) -> tuple[jax.Array, jax.Array]:
        dtype = self.compute_dtype
        x_r, x_z, x_n = jnp.split(product(x_t, params["w_x"], dtype) + params["b"], 3, axis=-1)
        if self.reset_after:
            h_r, h_z, h_n = jnp.split(product(h_tm1, params["w_h"], dtype) + params["b_h"], 3, axis=-1)
            r_t = jax.nn.sigmoid(x_r + h_r)
            n_t = jnp.tanh(x_n + r_t * h_n)
        else:
            u_rz, u_n = jnp.split(params["w_h"], [2 * self.hidden_size], axis=-1)
            h_r, h_z = jnp.split(product(h_tm1, u_rz, dtype), 2, axis=-1)
            r_t = jax.nn.sigmoid(x_r + h_r)
            n_t = jnp.tanh(x_n + product(r_t * h_tm1, u_n, dtype))
        z_t = jax.nn.sigmoid(x_z + h_z)
        h_t = (1 - z_t) * n_t + z_t * h_tm1
        return h_t, h_t

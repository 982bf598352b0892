"""The linear recurrence, the smallest recurrent network: it can count."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from .._inputs import check_key
from .._types import settle
from . import initial
from .product import narrow, product


@dataclass(frozen=True)
class Linear:
    r"""`s_t = s_{t-1} w_h + x_t w_x`, `y_t = s_t`.

    Shapes: `x (..., in_size)`, `s` and `y` `(..., hidden_size)`, any leading batch axes.
    Params: `w_x (in_size, hidden_size)`, `w_h (hidden_size, hidden_size)`; there is no bias.
    Carry: `s`, zeros at the start.
    With both sizes 1 and both weights 1 it counts the ones in its input; backpropagation through it gives
    `dL/ds_{t-1} = dL/ds_t w_h^T`, which vanishes or explodes with the powers of `w_h`
    (Pascanu et al. 2013, arXiv:1211.5063, section 2.1).

    Main arguments
      `in_size`, `hidden_size`: features of `x` and of `s`.
    Other arguments
      `compute_dtype`: None, or a narrower floating dtype, `jnp.bfloat16` for example, to which the operands of both
      products are rounded, params, x and s. Sums, carry and `y` stay in the dtype of params and carry.
    """

    in_size: int
    hidden_size: int
    compute_dtype: Any = None
    x_ndim: ClassVar[int] = 1
    float_input: ClassVar[bool] = True
    recurrent: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self, in_size=initial.size, hidden_size=initial.size, compute_dtype=narrow)

    @property
    def out_size(self) -> int:
        return self.hidden_size

    def init(self, key: jax.Array, dtype: Any = None) -> dict[str, jax.Array]:
        """`w_x` LeCun normal, `w_h` orthogonal."""
        dtype = initial.float_dtype(dtype)
        key_x, key_h = jax.random.split(check_key(key))
        return {
            "w_x": initial.input_weights(key_x, self.in_size, self.hidden_size, dtype),
            "w_h": initial.recurrent_weights(key_h, self.hidden_size, 1, dtype),
        }

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> jax.Array:
        return initial.zero_state(batch_shape, self.hidden_size, dtype, params)

    def __call__(self, params: Any, s_tm1: Any, x_t: Any) -> tuple[jax.Array, jax.Array]:
        dtype = self.compute_dtype
        s_t = product(s_tm1, params["w_h"], dtype) + product(x_t, params["w_x"], dtype)
        return s_t, s_t

"""Long short-term memory with a forget gate."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._inputs import check_key
from .._types import settle
from . import initial
from .product import narrow, product


@dataclass(frozen=True)
class LSTM:
    r"""Long short-term memory, `y_t = h_t`:

        i, f, g, o = split(x_t W_x + h_{t-1} W_h + b)
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    Shapes: `x (..., in_size)`, `h`, `c` and `y` `(..., hidden_size)`, any leading batch axes.
    Params: `w_x (in_size, 4 * hidden_size)`, `w_h (hidden_size, 4 * hidden_size)`, `b (4 * hidden_size,)`; the blocks
    are the gates in the order i f g o (torch's; Keras has i f c o, TF1 i j f o).
    Carry: `(h, c)`, zeros at the start (TF1 has `(c, h)`).

    Main arguments
      `in_size`, `hidden_size`: features of `x` and of `h`.
    Other arguments
      `forget_bias`: what `init` puts in the f block of `b`; 1.0 lets a fresh cell remember (Jozefowicz et al. 2015).
      It is not added in the step, so trained weights are complete; TF1 and Haiku add it there. torch starts at random.
      `compute_dtype`: None, or a narrower floating dtype, `jnp.bfloat16` for example, to which the operands of both
      products are rounded, params, x and h. Sums, gates, carry and `y` stay in the dtype of params and carry.

    Source: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000, without peepholes.
    """

    in_size: int
    hidden_size: int
    forget_bias: float = 1.0
    compute_dtype: Any = None
    x_ndim: ClassVar[int] = 1
    float_input: ClassVar[bool] = True
    bounded: ClassVar[bool] = True  # c too: the forget gate is below 1, so that c is a leaky sum
    recurrent: ClassVar[tuple[bool, bool]] = (True, False)  # h is read out; c is memory, which dropout leaves alone

    def __post_init__(self) -> None:
        settle(self, in_size=initial.size, hidden_size=initial.size, forget_bias=float, compute_dtype=narrow)

    @property
    def out_size(self) -> int:
        return self.hidden_size

    def init(self, key: jax.Array, dtype: Any = None) -> dict[str, jax.Array]:
        """`w_x` LeCun normal, `w_h` orthogonal gate by gate, `b` zero but for `forget_bias` in the f block."""
        dtype = initial.float_dtype(dtype)
        key_x, key_h = jax.random.split(check_key(key))
        n = self.hidden_size
        return {
            "w_x": initial.input_weights(key_x, self.in_size, 4 * n, dtype),
            "w_h": initial.recurrent_weights(key_h, n, 4, dtype),
            "b": jnp.zeros(4 * n, dtype).at[n : 2 * n].set(self.forget_bias),
        }

    def initial_carry(
        self, batch_shape: Any = (), dtype: Any = None, params: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        # two arrays rather than one twice: a caller may donate the carry's buffers
        h, c = (initial.zero_state(batch_shape, self.hidden_size, dtype, params) for _ in range(2))
        return h, c

    def __call__(self, params: Any, carry: Any, x_t: Any) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        h_tm1, c_tm1 = carry
        dtype = self.compute_dtype
        a_t = product(x_t, params["w_x"], dtype) + product(h_tm1, params["w_h"], dtype) + params["b"]
        i, f, g, o = jnp.split(a_t, 4, axis=-1)
        c_t = jax.nn.sigmoid(f) * c_tm1 + jax.nn.sigmoid(i) * jnp.tanh(g)
        h_t = jax.nn.sigmoid(o) * jnp.tanh(c_t)
        return (h_t, c_t), h_t

"""Long short-term memory as TensorFlow 1 computed it: one kernel, gates i j f o, the forget bias added in the step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ....cells import initial
from .base import LSTMStateTuple, RNNCell, check_state
from .fields import activate, settle_cell
from .variables import dtype_of, features, linear, only, variable


def split_state(cell: Any, state: Any, sizes: tuple[int, int]) -> tuple[Any, Any]:
    """`(c, h)` from a state that is a pair or, with state_is_tuple=False, one array `[c, h]`."""
    if not cell.state_is_tuple:
        if jnp.ndim(state) == 0 or jnp.shape(state)[-1] != sum(sizes):
            raise ValueError(
                f"`{cell}` keeps c and h in one array of {sum(sizes)} features; got shape {jnp.shape(state)}."
            )
        return state[..., : sizes[0]], state[..., sizes[0] :]
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise TypeError(
            f"`{cell}` takes its state as `LSTMStateTuple(c, h)`; got a {type(state).__name__}. "
            "`cell.zero_state(batch_size)` makes one; cells are called `cell(params, inputs, state)`."
        )
    return state[0], state[1]


def join_state(cell: Any, c: Any, h: Any) -> Any:
    """The state in the form the cell keeps."""
    return LSTMStateTuple(c, h) if cell.state_is_tuple else jnp.concatenate([c, h], axis=-1)


@dataclass(frozen=True, repr=False)
class BasicLSTMCell(RNNCell):
    r"""Long short-term memory, output `h_t`, state `(c_t, h_t)`, with s the logistic function:

        i, j, f, o = split([x_t; h_{t-1}] kernel + bias)
        c_t = s(f + forget_bias) * c_{t-1} + s(i) * g(j)
        h_t = s(o) * g(c_t)

    Shapes: `x (..., input_size)`, `c` and `h` `(..., num_units)`, any leading batch axes.
    Params: `kernel (input_size + num_units, 4 * num_units)`, `bias (4 * num_units,)`.

    `num_units`: features of `c` and `h`. `forget_bias`: added in the step and not stored, so `bias` starts at zero; 0.0
    for weights that have it already. `state_is_tuple`: False keeps the state as one array `[c, h]`.
    `activation`: `g`, tanh by default; a name or a function. `reuse`, `name`, `dtype`: as in `BasicRNNCell`.
    Initial params: kernel Glorot-uniform, bias zero, as TensorFlow's.
    Source: `tf.nn.rnn_cell.BasicLSTMCell`; Zaremba et al. 2014, arXiv:1409.2329.
    """

    num_units: int
    forget_bias: float = 1.0
    state_is_tuple: bool = True
    activation: str | Callable[[Any], Any] | None = None
    reuse: bool | None = None
    name: str | None = None
    dtype: Any = None
    float_input = True

    def __post_init__(self) -> None:
        settle_cell(self, num_units=initial.size, forget_bias=float, state_is_tuple=bool)

    @property
    def state_size(self) -> Any:  # type: ignore[override]
        return LSTMStateTuple(self.num_units, self.num_units) if self.state_is_tuple else 2 * self.num_units

    @property
    def output_size(self) -> int:  # type: ignore[override]
        return self.num_units

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> dict[str, jax.Array]:
        dtype, n = dtype_of(self, dtype), self.num_units
        kernel = variable(None, key, (features(input_size) + n, 4 * n), dtype)
        return {"kernel": kernel, "bias": jnp.zeros(4 * n, dtype)}

    def __call__(self, params: Any, inputs: Any, state: Any = None) -> tuple[jax.Array, Any]:
        check_state(self, state)
        only(self, params, ("kernel", "bias"))
        c_tm1, h_tm1 = split_state(self, state, (self.num_units, self.num_units))
        i, j, f, o = jnp.split(linear(self, params, inputs, h_tm1, units=4 * self.num_units), 4, axis=-1)
        keep, write = jax.nn.sigmoid(f + self.forget_bias), jax.nn.sigmoid(i)
        c_t = keep * c_tm1 + write * activate(self.activation, j)
        h_t = jax.nn.sigmoid(o) * activate(self.activation, c_t)
        return h_t, join_state(self, c_t, h_t)

"""The simple recurrent cell of TensorFlow 1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ....cells import initial
from .base import RNNCell, check_state
from .fields import activate, settle_cell
from .variables import dtype_of, features, linear, only, variable


@dataclass(frozen=True, repr=False)
class BasicRNNCell(RNNCell):
    r"""`h_t = f([x_t; h_{t-1}] kernel + bias)`, output and state both `h_t`.

    Shapes: `x (..., input_size)`, `h (..., num_units)`, any leading batch axes.
    Params: `kernel (input_size + num_units, num_units)`, `bias (num_units,)`.

    `num_units`: features of `h`. `activation`: `f`, tanh by default; a name or a function.
    `reuse`: None or False; anything else raises, see `params`. `name`: the variable scope, read by `checkpoint`.
    `dtype`: of new params and states; None is JAX's default float.
    Initial params: kernel Glorot-uniform, bias zero, as TensorFlow's.
    Source: `tf.nn.rnn_cell.BasicRNNCell`.
    """

    num_units: int
    activation: str | Callable[[Any], Any] | None = None
    reuse: bool | None = None
    name: str | None = None
    dtype: Any = None
    float_input = True

    def __post_init__(self) -> None:
        settle_cell(self, num_units=initial.size)

    @property
    def state_size(self) -> int:  # type: ignore[override]
        return self.num_units

    @property
    def output_size(self) -> int:  # type: ignore[override]
        return self.num_units

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> dict[str, jax.Array]:
        dtype, shape = dtype_of(self, dtype), (features(input_size) + self.num_units, self.num_units)
        return {"kernel": variable(None, key, shape, dtype), "bias": jnp.zeros(self.num_units, dtype)}

    def __call__(self, params: Any, inputs: Any, state: Any = None) -> tuple[jax.Array, jax.Array]:
        check_state(self, state)
        only(self, params, ("kernel", "bias"))
        h_t = activate(self.activation, linear(self, params, inputs, state, units=self.num_units))
        return h_t, h_t

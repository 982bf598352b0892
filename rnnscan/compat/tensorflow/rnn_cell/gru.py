"""Gated recurrent unit as TensorFlow 1 computed it: reset before the product, u weighs the old state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ....cells import initial
from .base import RNNCell, check_state
from .fields import activate, settle_cell
from .variables import dtype_of, features, linear, only, split, variable


@dataclass(frozen=True, repr=False)
class GRUCell(RNNCell):
    r"""Gated recurrent unit, output and state both `h_t`, with s the logistic function:

        r, u = split(s([x_t; h_{t-1}] gates/kernel + gates/bias))
        c = f([x_t; r * h_{t-1}] candidate/kernel + candidate/bias)
        h_t = u * h_{t-1} + (1 - u) * c

    Shapes: `x (..., input_size)`, `h (..., num_units)`, any leading batch axes.
    Params: `gates: {kernel (input_size + num_units, 2 * num_units), bias (2 * num_units,)}`,
    `candidate: {kernel (input_size + num_units, num_units), bias (num_units,)}`.

    `num_units`: features of `h`. `activation`: `f`, tanh by default; a name or a function.
    `kernel_initializer`, `bias_initializer`: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`, for both
    kernels and both biases; None is Glorot-uniform, 1 for the bias of the gates (a fresh cell keeps its state) and 0
    for that of the candidate. `reuse`, `name`, `dtype`: as in `BasicRNNCell`.
    Source: `tf.nn.rnn_cell.GRUCell`; Cho et al. 2014, arXiv:1406.1078, eq. 5-8.
    """

    num_units: int
    activation: str | Callable[[Any], Any] | None = None
    reuse: bool | None = None
    kernel_initializer: Callable[..., Any] | None = None
    bias_initializer: Callable[..., Any] | None = None
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

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> dict[str, dict[str, jax.Array]]:
        dtype, n, rows = dtype_of(self, dtype), self.num_units, features(input_size) + self.num_units
        keys = split(key, 4)
        biases = {"gates": jnp.ones(2 * n, dtype), "candidate": jnp.zeros(n, dtype)}
        if self.bias_initializer is not None:
            make = self.bias_initializer
            biases = {
                "gates": variable(make, keys[2], (2 * n,), dtype),
                "candidate": variable(make, keys[3], (n,), dtype),
            }
        return {
            part: {"kernel": variable(self.kernel_initializer, k, (rows, biases[part].shape[0]), dtype),
                   "bias": biases[part]}
            for part, k in zip(("gates", "candidate"), keys, strict=False)
        }  # fmt: skip

    def __call__(self, params: Any, inputs: Any, state: Any = None) -> tuple[jax.Array, jax.Array]:
        check_state(self, state)
        only(self, params, ("gates", "candidate"))
        r, u = jnp.split(jax.nn.sigmoid(self._linear(params, "gates", 2 * self.num_units, inputs, state)), 2, axis=-1)
        c = activate(self.activation, self._linear(params, "candidate", self.num_units, inputs, r * state))
        h_t = u * state + (1 - u) * c
        return h_t, h_t

    def _linear(self, params: Any, part: str, units: int, *inputs: Any) -> jax.Array:
        own = only(self, params[part], ("kernel", "bias"), part)
        return linear(self, own, *inputs, units=units, scope=part)

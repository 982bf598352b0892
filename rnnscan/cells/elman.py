"""Elman's simple recurrent network, with a choice of activation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._inputs import check_key
from .._types import settle
from . import initial
from .product import narrow, product


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "identity": lambda a: a,
}


def _activation(value: Any) -> Any:
    if isinstance(value, str) and value in ACTIVATIONS:
        return value
    if isinstance(value, str) or not callable(value):
        names = ", ".join(map(repr, ACTIVATIONS))
        raise (ValueError if isinstance(value, str) else TypeError)(
            f"`Elman` takes activation={names} or a function of an array such as `jax.nn.elu`; got {value!r}."
        )
    return value


@dataclass(frozen=True)
class Elman:
    r"""`h_t = f(x_t W_x + h_{t-1} W_h + b)`, `y_t = h_t`.

    Shapes: `x (..., in_size)`, `h` and `y` `(..., hidden_size)`, any leading batch axes.
    Params: `w_x (in_size, hidden_size)`, `w_h (hidden_size, hidden_size)`, `b (hidden_size,)`.
    Carry: `h`, zeros at the start.

    Main arguments
      `in_size`, `hidden_size`: features of `x` and of `h`.
      `activation`: `f`; "tanh" (default), "relu", "identity", or an elementwise function. A function is compared
      by identity, so define it once.
    Other arguments
      `double_bias`: adds `b_h (hidden_size,)` to params and to the sum, as torch's `b_hh`, so that torch's weights map
      one to one. The two biases have the same gradient; training both doubles the step on their sum.
      `compute_dtype`: None, or a narrower floating dtype, `jnp.bfloat16` for example, to which the operands of both
      products are rounded, params, x and h. Sums, activation, carry and `y` stay in the dtype of params and carry.

    Raises ValueError for an unknown name, TypeError for an activation that is neither a name nor callable.
    Source: Elman 1990, "Finding structure in time", Cognitive Science 14(2).
    """

    in_size: int
    hidden_size: int
    activation: str | Callable[[Any], Any] = "tanh"
    double_bias: bool = False
    compute_dtype: Any = None
    x_ndim: ClassVar[int] = 1
    float_input: ClassVar[bool] = True
    recurrent: ClassVar[bool] = True

    @property
    def bounded(self) -> bool:
        return self.activation == "tanh"

    def __post_init__(self) -> None:
        sizes = {"in_size": initial.size, "hidden_size": initial.size}
        settle(self, **sizes, activation=_activation, double_bias=bool, compute_dtype=narrow)

    @property
    def out_size(self) -> int:
        return self.hidden_size

    def init(self, key: jax.Array, dtype: Any = None) -> dict[str, jax.Array]:
        """`w_x` LeCun normal, `w_h` orthogonal, biases zero."""
        dtype = initial.float_dtype(dtype)
        key_x, key_h = jax.random.split(check_key(key))
        params = {
            "w_x": initial.input_weights(key_x, self.in_size, self.hidden_size, dtype),
            "w_h": initial.recurrent_weights(key_h, self.hidden_size, 1, dtype),
            "b": jnp.zeros(self.hidden_size, dtype),
        }
        return params | {"b_h": jnp.zeros(self.hidden_size, dtype)} if self.double_bias else params

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> jax.Array:
        return initial.zero_state(batch_shape, self.hidden_size, dtype, params)

    def __call__(self, params: Any, h_tm1: Any, x_t: Any) -> tuple[jax.Array, jax.Array]:
        dtype = self.compute_dtype
        a_t = product(x_t, params["w_x"], dtype) + product(h_tm1, params["w_h"], dtype) + params["b"]
        if self.double_bias:
            a_t = a_t + params["b_h"]
        f = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        h_t = f(a_t)
        return h_t, h_t

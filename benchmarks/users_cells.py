"""Three cells that no library has, each written in a few plain lines by somebody who never thought about speed.

They are what the general rewrites of `rs.scan` are measured on: nothing in them was arranged for it. Each is
`(params, carry, x) -> (carry, y)` with a function that makes params and one that makes the first carry.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class UsersCell(NamedTuple):
    """A step and where it starts: `init(key, in_size, hidden_size) -> params`, `carry((batch, hidden_size), dtype)`."""

    step: Callable[[Any, Any, Any], tuple[Any, Any]]
    init: Callable[[jax.Array, int, int], dict[str, jax.Array]]
    carry: Callable[[tuple[int, int], Any], Any]


def concat_lstm(params, carry, x):
    """The LSTM of TensorFlow 1: one product with `[x, h]`, gates i j f o, a forget bias of 1 in the step."""
    c, h = carry
    z = jnp.concatenate([x, h], -1) @ params["kernel"] + params["bias"]
    i, j, f, o = jnp.split(z, 4, -1)
    c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (c, h), h


def leaky_integrator(params, r, x):
    """Rates that leak towards a target, which two layers make of input and rates; a softmax reads them out."""
    a = jnp.tanh(x @ params["w_in"] + r @ params["w_rec"] + params["b"])
    target = jnp.tanh(a @ params["w_mid"] + params["b_mid"])
    r = r + 0.2 * (target - r)
    return r, jax.nn.softmax(r @ params["w_out"] + params["b_out"])


def norm_gru(params, h, x):
    """A GRU with layer normalisation of what comes from the input and of what comes from the state."""
    r_x, z_x, n_x = jnp.split(normed(x @ params["w"], params["scale_w"], params["shift_w"]), 3, -1)
    r_h, z_h, n_h = jnp.split(normed(h @ params["u"], params["scale_u"], params["shift_u"]), 3, -1)
    r = jax.nn.sigmoid(r_x + r_h)
    z = jax.nn.sigmoid(z_x + z_h)
    n = jnp.tanh(n_x + r * n_h)
    h = (1 - z) * n + z * h
    return h, h


def normed(a, scale, shift):
    a = a - a.mean(-1, keepdims=True)
    return a / jnp.sqrt((a**2).mean(-1, keepdims=True) + 1e-5) * scale + shift


def draws(**shapes: tuple[int, ...]) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """`key -> params`: matrices of variance 1 / inputs, vectors of 0.1; nothing is zero, so every weight matters."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        size = lambda shape: shape[0] ** -0.5 if len(shape) > 1 else 0.1
        normal = lambda name, shape: size(shape) * jax.random.normal(keys[name], shape, jnp.float32)
        return {name: normal(name, shape) for name, shape in shapes.items()}

    return draw


def _concat_lstm_init(key: jax.Array, n_in: int, n: int) -> dict[str, jax.Array]:
    return draws(kernel=(n_in + n, 4 * n), bias=(4 * n,))(key)


def _leaky_init(key: jax.Array, n_in: int, n: int) -> dict[str, jax.Array]:
    """It predicts the next input, one of `in_size` symbols."""
    layers = draws(w_in=(n_in, n), w_rec=(n, n), b=(n,), w_mid=(n, n), b_mid=(n,), w_out=(n, n_in), b_out=(n_in,))
    return layers(key)


def _norm_gru_init(key: jax.Array, n_in: int, n: int) -> dict[str, jax.Array]:
    vectors = {name: (3 * n,) for name in ("scale_w", "shift_w", "scale_u", "shift_u")}
    params = draws(w=(n_in, 3 * n), u=(n, 3 * n), **vectors)(key)
    return params | {name: 1 + params[name] for name in ("scale_w", "scale_u")}


def _zeros(shape: tuple[int, int], dtype: Any) -> jax.Array:
    return jnp.zeros(shape, dtype)


def _two_zeros(shape: tuple[int, int], dtype: Any) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)


USERS_CELLS = {
    "concat-lstm": UsersCell(concat_lstm, _concat_lstm_init, _two_zeros),
    "leaky": UsersCell(leaky_integrator, _leaky_init, _zeros),
    "norm-gru": UsersCell(norm_gru, _norm_gru_init, _zeros),
}

"""Three cells as a user writes them and no library has them, with their params; hidden size 5, input size 3."""

import jax
import jax.numpy as jnp
import numpy as np


IN, HIDDEN, WIDE, OUT = 3, 5, 7, 3


def matrices(**shapes):
    """Normal numbers scaled by the square root of each matrix's rows, biases and all, the same on every call."""
    numbers = np.random.default_rng(0)
    scale = lambda shape: (shape[0] if len(shape) > 1 else 4) ** -0.5
    return {name: jnp.asarray(numbers.normal(size=shape) * scale(shape)) for name, shape in shapes.items()}


def tf_lstm(params, carry, x):
    """An LSTM as TensorFlow 1 writes it: one product of input and state side by side, gates i j f o."""
    c, h = carry
    i, j, f, o = jnp.split(jnp.concatenate([x, h], axis=-1) @ params["kernel"] + params["bias"], 4, axis=-1)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (c, h), h


TF_LSTM = matrices(kernel=(IN + HIDDEN, 4 * HIDDEN), bias=(4 * HIDDEN,))


def leaky(params, h, x):
    """A leaky integrator driven by two layers, with the probabilities that its softmax reads out."""
    wide = jax.nn.relu(x @ params["w_in"] + h @ params["w_1"] + params["b_1"])
    leak = jax.nn.sigmoid(params["leak"])
    h = (1 - leak) * h + leak * jnp.tanh(wide @ params["w_2"] + params["b_2"])
    return h, jax.nn.softmax(h @ params["w_out"] + params["b_out"])


LEAKY = matrices(
    w_in=(IN, WIDE), w_1=(HIDDEN, WIDE), b_1=(WIDE,), w_2=(WIDE, HIDDEN), b_2=(HIDDEN,), leak=(HIDDEN,),
    w_out=(HIDDEN, OUT), b_out=(OUT,),
)  # fmt: skip


def layer_norm(x, scale):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return scale * centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)


def norm_gru(params, h, x):
    """A GRU whose two products are each normalised over the features."""
    x_r, x_z, x_n = jnp.split(layer_norm(x @ params["w_x"], params["scale_x"]) + params["b"], 3, axis=-1)
    h_r, h_z, h_n = jnp.split(layer_norm(h @ params["w_h"], params["scale_h"]), 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    h = (1 - z) * jnp.tanh(x_n + r * h_n) + z * h
    return h, h


NORM_GRU = matrices(
    w_x=(IN, 3 * HIDDEN), w_h=(HIDDEN, 3 * HIDDEN), b=(3 * HIDDEN,), scale_x=(3 * HIDDEN,), scale_h=(3 * HIDDEN,)
)

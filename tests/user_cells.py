"""The benchmark's users' cells with small params; hidden size 5, input size 3, float64."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.users_cells import USERS_CELLS


IN, HIDDEN, OUT = 3, 5, 3


def matrices(**shapes):
    """Normal numbers scaled by the square root of each matrix's rows, biases and all, the same on every call."""
    numbers = np.random.default_rng(0)
    scale = lambda shape: (shape[0] if len(shape) > 1 else 4) ** -0.5
    return {name: jnp.asarray(numbers.normal(size=shape) * scale(shape)) for name, shape in shapes.items()}


def users(name):
    """A cell and its params."""
    cell = USERS_CELLS[name]
    return cell.step, jax.tree.map(lambda p: p.astype(jnp.float64), cell.init(jax.random.key(0), IN, HIDDEN))


concat_lstm, CONCAT_LSTM = users("concat-lstm")
leaky, LEAKY = users("leaky")
norm_gru, NORM_GRU = users("norm-gru")

"""TensorFlow 1's loops as its documentation states them, step by step and row by row, and a cell with every feature."""

import jax
import jax.numpy as jnp
import numpy as np


class Busy:
    """A user's cell: nested inputs and outputs, a nested state with a scalar in it that all rows share."""

    state_size, output_size = {"h": 4, "n": 1}, (4, 2)

    def __call__(self, params, inputs, state):
        x, z = inputs
        h = jnp.tanh(x @ params["w"] + params["u"] * state["h"] + z.sum(-1, keepdims=True) + 0.3 * state["n"])
        return (2 * h, h[:, 1:3]), {"h": h, "n": state["n"] + 1}

    def zero_state(self, batch_size, dtype):
        return {"h": jnp.zeros((batch_size, 4), dtype), "n": jnp.zeros((), dtype)}

    def init(self, key, input_size):
        return {"w": jax.random.normal(key, (input_size, 4)), "u": jnp.array([0.4, -0.7, 1.1, 0.6])}


def rnn_step(time, sequence_length, zero_output, state, call_cell):
    """`_rnn_step` of TensorFlow, from its docstring: past its length a row gets zeros and its old state."""
    if time >= max(sequence_length, default=0):
        return zero_output, state
    new_output, new_state = call_cell()
    done = [time >= n for n in sequence_length]

    def some(old, new):
        if jnp.ndim(new) == 0:  # scalars are passed through
            return new
        return jnp.stack([old[row] if end else new[row] for row, end in enumerate(done)]) if done else new

    return jax.tree.map(some, zero_output, new_output), jax.tree.map(some, state, new_state)


def loop(cell, params, steps, sequence_length, state):
    """`(outputs, state)` of a list of steps; outputs is a list."""
    zero_output = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(cell, params, steps[0], state)[0]
    )
    outputs = []
    for time, inputs in enumerate(steps):
        call_cell = lambda: cell(params, inputs, state)  # noqa: B023
        output, state = rnn_step(time, sequence_length, zero_output, state, call_cell)
        outputs.append(output)
    return outputs, state


def steps_of(inputs, time_major=True):
    """A nest with time on axis 0 (or 1) as a list of nests."""
    axis = 0 if time_major else 1
    n_steps = jax.tree.leaves(inputs)[0].shape[axis]
    return [jax.tree.map(lambda leaf: jnp.take(leaf, t, axis), inputs) for t in range(n_steps)]  # noqa: B023


def stacked(steps, time_major=True):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, 0 if time_major else 1), *steps)


def reversed_rows(steps, sequence_length):
    """`reverse_sequence`: each row's first steps in the opposite order, the rest where it was."""
    order = [[n - 1 - t if t < n else t for n in sequence_length] for t in range(len(steps))]
    pick = lambda *leaves: [jnp.stack([leaves[s][b] for b, s in enumerate(row)]) for row in order]
    parts = [pick(*leaves) for leaves in zip(*map(jax.tree.leaves, steps), strict=True)]
    return [jax.tree.unflatten(jax.tree.structure(steps[0]), leaves) for leaves in zip(*parts, strict=True)]


def weighted(tree):
    """A loss that no two steps, rows or units enter alike."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum(
        jnp.sum(jnp.cos(leaf) * jnp.asarray(np.linspace(0.3, 1.7, leaf.size)).reshape(leaf.shape)) for leaf in leaves
    )

"""The TensorFlow tutorial's programs, as `examples/from_tensorflow.py` ports them, against NumPy's formulas."""

import jax
import jax.numpy as jnp
import numpy as np

import rnnscan as rs
from examples import from_tensorflow
from examples.from_tensorflow import SEQ_LENGTH, X0_BATCH, X1_BATCH
from rnnscan.compat.tensorflow import dynamic_rnn, rnn_cell, static_rnn
from tests.helpers import assert_close


FLOAT = jnp.float64
X0, X1 = X0_BATCH.astype(float) / 10, X1_BATCH.astype(float) / 10  # so that tanh is not saturated


def filled(cell, input_size):
    """Params of a cell, all of them random, biases too."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), input_size))
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def tanh_rnn(params, X, f=np.tanh):
    """All outputs of a BasicRNNCell for `X (rows, steps, features)`."""
    h, ys = np.zeros((len(X), len(params["bias"]))), []
    for x in np.moveaxis(X, 1, 0):
        h = f(np.concatenate([x, h], 1) @ params["kernel"] + params["bias"])
        ys.append(h)
    return np.stack(ys, 1)


def test_static_rnn_on_two_steps():
    cell = rnn_cell.BasicRNNCell(num_units=5)
    params = filled(cell, 3)
    (Y0, Y1), states = static_rnn(cell, params, [X0, X1], dtype=FLOAT)
    want = tanh_rnn(params, np.stack([X0, X1], 1))
    assert_close((Y0, Y1, states), (want[:, 0], want[:, 1], want[:, 1]))


def test_dynamic_rnn_with_sequence_length():
    cell = rnn_cell.BasicRNNCell(num_units=5)
    params, X = filled(cell, 3), np.stack([X0, X1], 1)
    outputs, states = dynamic_rnn(cell, params, X, sequence_length=SEQ_LENGTH, dtype=FLOAT)
    want = tanh_rnn(params, X)
    assert (np.asarray(outputs[1, 1]) == 0).all()
    assert_close(states, np.where(SEQ_LENGTH[:, None] == 1, want[:, 0], want[:, 1]))
    assert_close(outputs, np.where((np.arange(2) < SEQ_LENGTH[:, None])[..., None], want, 0))


def test_lstm_has_one_kernel_and_adds_one_to_the_forget_gate():
    cell = rnn_cell.BasicLSTMCell(num_units=4)
    params, X = filled(cell, 3), np.stack([X0, X1], 1)
    assert {name: leaf.shape for name, leaf in params.items()} == {"kernel": (3 + 4, 16), "bias": (16,)}
    outputs, states = dynamic_rnn(cell, params, X, dtype=FLOAT)
    c = h = np.zeros((4, 4))
    for t in range(2):
        i, j, f, o = np.split(np.concatenate([X[:, t], h], 1) @ params["kernel"] + params["bias"], 4, axis=1)
        c = c * sigmoid(f + 1) + sigmoid(i) * np.tanh(j)
        h = np.tanh(c) * sigmoid(o)
        assert_close(outputs[:, t], h)
    assert_close(states, rnn_cell.LSTMStateTuple(c, h))


def test_layers_have_states_of_their_own():
    cell = rnn_cell.MultiRNNCell([rnn_cell.BasicRNNCell(num_units=n) for n in (4, 2, 3)])
    params, X = filled(cell, 3), np.stack([X0, X1], 1)
    outputs, states = dynamic_rnn(cell, params, X, dtype=FLOAT)
    want = X
    for i in range(3):
        want = tanh_rnn(params[f"cell_{i}"], want)
        assert_close(states[i], want[:, -1])
    assert_close(outputs, want)


def test_output_projection_gives_one_value_a_step():
    cell = rnn_cell.OutputProjectionWrapper(rnn_cell.BasicRNNCell(num_units=5, activation="relu"), output_size=1)
    params, X = filled(cell, 1), np.linspace(-1, 1, 24).reshape(4, 6, 1)
    outputs, states = dynamic_rnn(cell, params, X, dtype=FLOAT)
    hidden = tanh_rnn(params["basic_rnn_cell"], X, lambda a: np.maximum(a, 0))
    assert_close(outputs, hidden @ params["kernel"] + params["bias"])
    assert_close(states, hidden[:, -1])


def test_dropout_is_on_with_a_key_and_off_in_the_deterministic_cell():
    cell = rnn_cell.DropoutWrapper(rnn_cell.BasicRNNCell(num_units=5), input_keep_prob=0.5)
    params, X = filled(cell, 3), np.stack([X0, X1], 1)
    quiet, _ = dynamic_rnn(rs.wrap.deterministic(cell), params, X, dtype=FLOAT)
    assert_close(quiet, tanh_rnn(params, X))
    noisy, _ = dynamic_rnn(cell, params, np.ones((50, 1, 3)), dtype=FLOAT, key=jax.random.key(0))
    masks = 2.0 * np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, 8).T
    possible = np.tanh(masks @ params["kernel"][:3] + params["bias"])
    apart = np.abs(np.asarray(noisy) - possible).max(-1)  # (rows, possible masks)
    assert (apart.min(1) < 1e-12).all() and len(set(apart.argmin(1))) == 8


def test_merit_is_missed_where_one_difference_is_large():
    assert from_tensorflow.exact("near", [0.0, 1e-6]).met
    assert not from_tensorflow.exact("far off", [0.0, 1e-4]).met

"""Params of another cell, size or kind are refused by every TensorFlow cell, variable by variable."""

import jax
import jax.numpy as jnp
import pytest

import rnnscan as rs
from rnnscan.compat.tensorflow import dynamic_rnn
from rnnscan.compat.tensorflow import rnn_cell as tf


IN = N = 4
KEY = jax.random.key(0)
X = jnp.linspace(0.2, 1.4, 2 * IN).reshape(2, IN)
GRU = tf.GRUCell(N)
CELLS = [
    tf.BasicRNNCell(N),
    tf.BasicLSTMCell(N),
    tf.LSTMCell(N, use_peepholes=True, num_proj=3),
    GRU,
    tf.LayerNormBasicLSTMCell(N),
    tf.LayerNormBasicLSTMCell(N, layer_norm=False),
    tf.MultiRNNCell([tf.BasicRNNCell(N), GRU]),
    tf.DropoutWrapper(GRU),
    tf.HighwayWrapper(GRU, False),
    tf.InputProjectionWrapper(GRU, 3),
    tf.OutputProjectionWrapper(GRU, 3),
    tf.EmbeddingWrapper(GRU, 5, 3),
    tf.AttentionCellWrapper(GRU, 2),
]
OTHERS = {  # what an array can be instead; all but "ints" would broadcast somewhere
    "one number": lambda a: a[..., :1],
    "scalar": lambda a: a.reshape(-1)[0],
    "another axis": lambda a: a[None],
    "twice": lambda a: jnp.concatenate([a, a], -1),
    "ints": lambda a: jnp.round(a).astype(jnp.int32),
    "a Python number": lambda a: 1.0,
}


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_every_variable_has_exactly_one_shape_and_is_floating(cell):
    """Traced, since all of it shows in shapes and dtypes."""
    params, state = cell.init(KEY, IN), cell.zero_state(2)
    x = jnp.array([1, 4]) if isinstance(cell, tf.EmbeddingWrapper) else X
    jax.eval_shape(cell, params, x, state)
    leaves, structure = jax.tree.flatten(params)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    for i, leaf in enumerate(leaves):
        name = paths[i][-1].key
        for what, change in OTHERS.items():
            wrong = jax.tree.unflatten(structure, [*leaves[:i], change(leaf), *leaves[i + 1 :]])
            with pytest.raises(rs.ParamsError, match=rf"{name}`.* expected .*\("):
                jax.eval_shape(lambda: cell(wrong, x, state))  # noqa: B023
                pytest.fail(f"{name} as {what} was taken")


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_a_variable_too_many_or_too_few_is_named(cell):
    params, state = cell.init(KEY, IN), cell.zero_state(2)
    x = jnp.array([1, 4]) if isinstance(cell, tf.EmbeddingWrapper) else X
    with pytest.raises(rs.ParamsError, match="was given 'w_k' too. Are these another cell's params"):
        cell(params | {"w_k": X}, x, state)
    for name in params:
        with pytest.raises(rs.ParamsError, match=f"takes params as a dict with '{name}'"):
            cell({other: value for other, value in params.items() if other != name}, x, state)
        if isinstance(params[name], dict):
            with pytest.raises(rs.ParamsError, match="'w_k' too"):
                cell(params | {name: params[name] | {"w_k": X}}, x, state)


def test_params_of_other_settings_are_refused_by_the_loop():
    with pytest.raises(rs.ParamsError, match=r"`kernel` is float64\[8,4\], expected floats of shape \(8, 16\)"):
        dynamic_rnn(tf.BasicLSTMCell(N), tf.BasicRNNCell(N).init(KEY, IN), X[None], dtype=jnp.float64)
    peeping = tf.LSTMCell(N, use_peepholes=True).init(KEY, IN)
    with pytest.raises(rs.ParamsError, match="given 'w_f_diag', 'w_i_diag', 'w_o_diag' too"):
        tf.LSTMCell(N)(peeping, X, tf.LSTMCell(N).zero_state(2))
    uncoupled = tf.HighwayWrapper(GRU, False).init(KEY, IN)
    with pytest.raises(rs.ParamsError, match="given 'transform_b', 'transform_w' too"):
        tf.HighwayWrapper(GRU)(uncoupled, X, GRU.zero_state(2))


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_a_seed_is_no_key(cell):
    with pytest.raises(ValueError, match=r"`key` must be jax.random.key\(seed\), got int 0"):
        cell.init(0, IN)


def test_a_checkpoint_is_read_as_a_whole():
    """All that stands in the cell's scope is read or refused, but for what an optimiser keeps below a variable."""
    cell = tf.LSTMCell(N)
    params = cell.init(KEY, IN)
    saved = tf.to_variables(cell, params)
    slots = {f"{name}/{slot}": X for name in saved for slot in ("Adam", "Adam_1", "RMSProp", "Momentum")}
    others = {"dense/kernel": X, "beta1_power": X, "rnn/lstm_cell_1/kernel": X}
    read = tf.from_variables(cell, saved | slots | others, IN)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), read, params))
    peeping = tf.to_variables(tf.LSTMCell(N, use_peepholes=True), tf.LSTMCell(N, use_peepholes=True).init(KEY, IN))
    with pytest.raises(rs.ParamsError, match="no use for rnn/lstm_cell/w_f_diag, rnn/lstm_cell/w_i_diag"):
        tf.from_variables(cell, peeping, IN)
    uncoupled = tf.HighwayWrapper(GRU, False)
    variables = tf.to_variables(uncoupled, uncoupled.init(KEY, IN)) | {"rnn/softmax_w": X}  # its scope is not its own
    with pytest.raises(rs.ParamsError, match=r"no use for rnn/transform_b, rnn/transform_w, which stand"):
        tf.from_variables(tf.HighwayWrapper(GRU), variables, IN)
    with pytest.raises(rs.ParamsError, match="kernel` is int64, expected floats"):
        tf.from_variables(cell, saved | {"rnn/lstm_cell/kernel": jnp.ones((IN + N, 4 * N), int)}, IN)


def test_a_checkpoint_of_another_scope_or_cell_is_told_apart():
    saved = tf.to_variables(GRU, GRU.init(KEY, IN), scope="bidirectional_rnn/fw")
    with pytest.raises(
        rs.ParamsError, match=r"Is it `scope='bidirectional_rnn/fw'`\? That has `gru_cell/candidate/bias`"
    ):
        tf.from_variables(GRU, saved, IN)
    with pytest.raises(rs.ParamsError, match="Scope 'bidirectional_rnn/fw' has 'gru_cell': is the cell of another cl"):
        tf.from_variables(tf.BasicRNNCell(N), saved, IN, scope="bidirectional_rnn/fw")
    with pytest.raises(rs.ParamsError, match="Is `scope='rnn'` the one around the cell"):
        tf.from_variables(tf.BasicRNNCell(N), {"w": X}, IN)

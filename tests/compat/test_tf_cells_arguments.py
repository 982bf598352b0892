"""Every argument of every TensorFlow cell, changed once: params, output or state change, or an error comes."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat.tensorflow import rnn_cell as tf


IN = N = 4  # one size and another, 3, wherever a size is changed: eager steps of few shapes compile little
L, F = tf.BasicLSTMCell(N), tf.BasicLSTMCell(N, state_is_tuple=False)
HALF = {"input_keep_prob": 0.5, "output_keep_prob": 0.5, "state_keep_prob": 0.5}
VARIATIONAL = HALF | {"variational_recurrent": True, "input_size": IN, "dtype": jnp.float32}


def ones(key, shape, dtype):
    return jnp.ones(shape, dtype)


def all_of_it(state):
    return True


# class: its arguments; then argument: new value, with the other arguments it needs
TABLE = {
    tf.BasicRNNCell: ({"num_units": N}, {"num_units": 3, "activation": "relu", "reuse": True, "name": "a",
                                         "dtype": jnp.float16}),
    tf.BasicLSTMCell: ({"num_units": N}, {"num_units": 3, "forget_bias": 0.0, "state_is_tuple": False,
                       "activation": "relu", "reuse": True, "name": "a", "dtype": jnp.float16}),
    tf.LSTMCell: ({"num_units": N}, {"num_units": 3, "use_peepholes": True, "cell_clip": 0.01, "initializer": ones,
                  "num_proj": 3, "proj_clip": ({"num_proj": 3}, 0.01), "num_unit_shards": 2, "num_proj_shards": 2,
                  "forget_bias": 0.0, "state_is_tuple": False, "activation": "relu", "reuse": True, "name": "a",
                  "dtype": jnp.float16}),
    tf.GRUCell: ({"num_units": N}, {"num_units": 3, "activation": "relu", "reuse": True, "kernel_initializer": ones,
                 "bias_initializer": ones, "name": "a", "dtype": jnp.float16}),
    tf.LayerNormBasicLSTMCell: ({"num_units": N}, {"num_units": 3, "forget_bias": 0.0, "input_size": IN,
                                "activation": "relu", "layer_norm": False, "norm_gain": 0.5, "norm_shift": 0.5,
                                "dropout_keep_prob": 0.5, "dropout_prob_seed": ({"dropout_keep_prob": 0.5}, 7),
                                "reuse": True}),
    tf.MultiRNNCell: ({"cells": [F]}, {"cells": [F, F], "state_is_tuple": False}),
    tf.DropoutWrapper: ({"cell": L}, {"cell": tf.GRUCell(N), "input_keep_prob": 0.5, "output_keep_prob": 0.5,
                        "state_keep_prob": 0.5, "variational_recurrent": (VARIATIONAL, False),
                        "input_size": IN + 1, "dtype": (HALF, jnp.float16), "seed": (HALF, 7),
                        "dropout_state_filter_visitor": (HALF, all_of_it)}),
    tf.ResidualWrapper: ({"cell": tf.GRUCell(IN)}, {"cell": tf.BasicRNNCell(IN), "residual_fn": jnp.multiply}),
    tf.HighwayWrapper: ({"cell": tf.GRUCell(IN)}, {"cell": tf.BasicRNNCell(IN), "couple_carry_transform_gates": False,
                                                   "carry_bias_init": 0.5}),
    tf.InputProjectionWrapper: ({"cell": L, "num_proj": N}, {"cell": tf.GRUCell(N), "num_proj": 3, "activation": "relu",
                                                             "input_size": IN, "reuse": True}),
    tf.OutputProjectionWrapper: ({"cell": L, "output_size": N}, {"cell": tf.GRUCell(N), "output_size": 3,
                                 "activation": "sigmoid", "reuse": True}),
    tf.EmbeddingWrapper: ({"cell": L, "embedding_classes": 8, "embedding_size": N}, {"cell": tf.GRUCell(N),
                          "embedding_classes": 7, "embedding_size": 3, "initializer": ones, "reuse": True}),
    tf.AttentionCellWrapper: ({"cell": F, "attn_length": 2}, {"cell": tf.GRUCell(N), "attn_length": 3, "attn_size": 3,
                              "attn_vec_size": 3, "input_size": 3, "state_is_tuple": False, "reuse": True}),
}  # fmt: skip
CHANGES = [(kind, name) for kind, (_, changes) in TABLE.items() for name in changes]


def result(cell):
    """Everything a cell makes, by TensorFlow's names: its first params, its state, and what two steps give."""
    params = cell.init(jax.random.key(0, impl="rbg"), IN)  # its programs are small
    dtype = jax.tree.leaves(params)[0].dtype
    rng = rs.Rng(jax.random.key(3, impl="rbg"), jnp.asarray(1))
    x = jnp.array([1, 5]) if isinstance(cell, tf.EmbeddingWrapper) else jnp.asarray([[0.8] * IN] * 2, dtype)
    state, outs = cell.zero_state(2, dtype), []
    for _ in range(2):
        out, state = rs._types.call(cell, params, x, state, rng)
        outs.append(out)
    named = {name: np.asarray(value) for name, value in tf.to_variables(cell, params).items()}
    return named, [np.asarray(leaf) for leaf in jax.tree.leaves((outs, state))], jax.tree.structure(state)


def same(a, b):
    if a[0].keys() != b[0].keys() or a[2] != b[2]:
        return False
    pairs = [*((a[0][name], b[0][name]) for name in a[0]), *zip(a[1], b[1], strict=True)]
    return all(x.shape == y.shape and x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(autouse=True, scope="module")
def single_precision():
    """In float32 a dtype asked for differs from JAX's default float, here float64."""
    with jax.enable_x64(False) if hasattr(jax, "enable_x64") else jax.experimental.disable_x64():
        yield


def test_the_table_names_every_argument():
    for kind, (_, changes) in TABLE.items():
        assert list(inspect.signature(kind).parameters) == list(changes)


@pytest.mark.parametrize(("kind", "name"), CHANGES, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_an_argument_changes_the_result_or_raises(kind, name):
    arguments, changes = TABLE[kind]
    value = changes[name]
    if isinstance(value, tuple):  # with the other arguments it needs
        others, value = value
        arguments = arguments | others
    before = result(kind(**arguments))
    assert same(before, result(kind(**arguments)))  # nothing but the argument can make the difference
    try:
        after = result(kind(**arguments | {name: value}))
    except (TypeError, ValueError, NotImplementedError) as error:
        assert name in str(error) or str(value) in str(error) or jnp.dtype(value).name in str(error)
    else:
        assert not same(before, after)


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_the_defaults_are_tensorflows(kind):
    """Names, order and defaults as `tf.nn.rnn_cell` and `tf.contrib.rnn` of TensorFlow 1.15 have them."""
    cell_arguments = {"reuse": None, "name": None, "dtype": None}
    required, nothing = inspect.Parameter.empty, None
    want = {
        tf.BasicRNNCell: {"num_units": required, "activation": None} | cell_arguments,
        tf.BasicLSTMCell: {"num_units": required, "forget_bias": 1.0, "state_is_tuple": True, "activation": None}
        | cell_arguments,
        tf.LSTMCell: {"num_units": required, "use_peepholes": False}
        | dict.fromkeys(["cell_clip", "initializer", "num_proj", "proj_clip", "num_unit_shards", "num_proj_shards"])
        | {"forget_bias": 1.0, "state_is_tuple": True, "activation": None}
        | cell_arguments,
        tf.GRUCell: {"num_units": required, "activation": None, "reuse": None}
        | dict.fromkeys(["kernel_initializer", "bias_initializer", "name", "dtype"]),
        tf.LayerNormBasicLSTMCell: {"num_units": required, "forget_bias": 1.0, "input_size": nothing,
                                    "activation": "tanh", "layer_norm": True, "norm_gain": 1.0, "norm_shift": 0.0,
                                    "dropout_keep_prob": 1.0, "dropout_prob_seed": nothing, "reuse": nothing},
        tf.MultiRNNCell: {"cells": required, "state_is_tuple": True},
        tf.DropoutWrapper: {"cell": required, "input_keep_prob": 1.0, "output_keep_prob": 1.0, "state_keep_prob": 1.0,
                            "variational_recurrent": False, "input_size": None, "dtype": None, "seed": None,
                            "dropout_state_filter_visitor": None},
        tf.ResidualWrapper: {"cell": required, "residual_fn": None},
        tf.HighwayWrapper: {"cell": required, "couple_carry_transform_gates": True, "carry_bias_init": 1.0},
        tf.InputProjectionWrapper: {"cell": required, "num_proj": required, "activation": None, "input_size": None,
                                    "reuse": None},
        tf.OutputProjectionWrapper: {"cell": required, "output_size": required, "activation": None, "reuse": None},
        tf.EmbeddingWrapper: {"cell": required, "embedding_classes": required, "embedding_size": required,
                              "initializer": None, "reuse": None},
        tf.AttentionCellWrapper: {"cell": required, "attn_length": required, "attn_size": None, "attn_vec_size": None,
                                  "input_size": None, "state_is_tuple": True, "reuse": None},
    }[kind]  # fmt: skip
    parameters = inspect.signature(kind).parameters.items()
    assert [(name, parameter.default) for name, parameter in parameters] == list(want.items())


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: tf.BasicLSTMCell(0), ValueError, "at least 1"),
        (lambda: tf.BasicLSTMCell(N, forget_bias=jnp.ones(())), TypeError, "Put it in params"),
        (lambda: tf.GRUCell(N, activation="tahn"), ValueError, "'tanh'"),
        (lambda: tf.GRUCell(N, activation=3), TypeError, "a function of an array"),
        (lambda: tf.GRUCell(N, name=3), TypeError, "variable scope"),
        (lambda: tf.GRUCell(N, dtype=jnp.int32), TypeError, "floating"),
        (lambda: tf.GRUCell(N, bias_initializer=1.0), TypeError, r"`\(key, shape, dtype\) -> array`"),
        (lambda: tf.GRUCell(N, None, None, jax.nn.initializers.orthogonal).init(jax.random.key(0), IN), ValueError,
         r"gave a function for \(8, 8\)"),
        (lambda: tf.OutputProjectionWrapper(tf.GRUCell(N, name="kernel"), 2), ValueError, "another `name`"),
        (lambda: tf.LSTMCell(N, cell_clip=-1), ValueError, ">= 0"),
        (lambda: tf.LSTMCell(N, proj_clip=1.0), ValueError, "`num_proj`"),
        (lambda: tf.LSTMCell(N, num_unit_shards=2), NotImplementedError, "sharding"),
        (lambda: tf.LayerNormBasicLSTMCell(N, layer_norm=False, norm_gain=2.0), ValueError, "layer_norm=False"),
        (lambda: tf.DropoutWrapper(L, 1.5), ValueError, r"`input_keep_prob` in \[0, 1\]"),
        (lambda: tf.DropoutWrapper(L, float("nan")), ValueError, "the share that is kept"),
        (lambda: tf.DropoutWrapper(L, "half"), TypeError, "a number"),
        (lambda: tf.DropoutWrapper(L, 0.5, variational_recurrent=True), ValueError, "needs `dtype`"),
        (lambda: tf.DropoutWrapper(L, 0.5, variational_recurrent=True, dtype=float), ValueError, "needs `input_size`"),
        (lambda: tf.DropoutWrapper(L, dropout_state_filter_visitor=3), TypeError, "function of the state"),
        (lambda: tf.ResidualWrapper(L, 3), TypeError, "function of"),
        (lambda: tf.MultiRNNCell([]), ValueError, "at least one cell"),
        (lambda: tf.MultiRNNCell(L), TypeError, r"Write `\[cell\]`"),
        (lambda: tf.MultiRNNCell([L], state_is_tuple=False), ValueError, "LSTMStateTuple"),
        (lambda: tf.MultiRNNCell([tf.BasicLSTMCell]), TypeError, r"Write `BasicLSTMCell\(...\)`"),
        (lambda: tf.AttentionCellWrapper(L, 2, state_is_tuple=False), ValueError, "LSTMStateTuple"),
        (lambda: tf.AttentionCellWrapper(L, 0), ValueError, "at least 1"),
        (lambda: tf.ResidualWrapper(rs.cells.LSTM(3, 4)), TypeError, "a cell of `rs.cells`"),
        (lambda: tf.HighwayWrapper(L).init(jax.random.key(0), 3), ValueError, "OutputProjectionWrapper"),
        (lambda: tf.DeviceWrapper(L, "/gpu:0"), NotImplementedError, "rs.distributed"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_raises(make, error, says):
    with pytest.raises(error, match=says):
        make()

"""What people who know TensorFlow 1 try first: it works, or the error says what to write instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat import tensorflow as tf
from rnnscan.compat.tensorflow import rnn_cell
from tests.faults import fails, refused
from tests.helpers import assert_close


B, T, IN, N = 2, 3, 3, 4
KEY, FLOAT = jax.random.key(0), jnp.float64
XS = jnp.linspace(-0.9, 1.1, B * T * IN).reshape(B, T, IN)
GRU, LSTM = rnn_cell.GRUCell(N), rnn_cell.BasicLSTMCell(N)
PARAMS, STATE = GRU.init(KEY, IN), GRU.zero_state(B)
EMBEDDED = rnn_cell.EmbeddingWrapper(GRU, 5, IN)
TABLE = EMBEDDED.init(KEY)


class Old(rnn_cell.RNNCell):
    """`__call__` as TensorFlow's tutorials write it."""

    state_size = output_size = N

    def __call__(self, inputs, state, scope=None):
        return inputs @ state, state


class Reusing(Old):
    def __init__(self, reuse=None):
        super().__init__(_reuse=reuse)


class Keras(rnn_cell.RNNCell):
    state_size = output_size = N

    def build(self, shape):
        """No variables are made."""

    def call(self, inputs, state):
        return state, state


class Bare(rnn_cell.RNNCell):
    state_size = output_size = N

    def __call__(self, params, inputs, state):
        return state + 1, state + 1


def dynamic(cell, params, inputs=XS, **options):
    return tf.dynamic_rnn(cell, params, inputs, **{"dtype": FLOAT} | options)


def ids(*rows):
    return np.array(rows)[..., None]


ORDER = "Params come after the cell, `{0}(cell, params, ...)`; `cell.init(key, input_size)` makes them"
FAULTS = [
    fails("old order", TypeError, lambda: dynamic(Old(), {}), "Params are an argument here: put them first"),
    fails("_reuse", TypeError, Reusing, "`RNNCell.__init__` of `Reusing` takes nothing; got _reuse=None. Write "
          "`super().__init__()`"),
    fails("Keras style", TypeError, lambda: dynamic(Keras(), {}), "TensorFlow's `call(inputs, state)` is "
          "`__call__(params, inputs, state)` here"),
    fails("no init", TypeError, lambda: Bare().init(KEY, IN), "has no `init`...in place of TensorFlow's `build`"),
    *(fails(f"by hand, {type(cell).__name__}", TypeError, lambda cell=cell: cell(XS[:, 0], STATE), "is called "
            "`cell(params, inputs, state)`, params first, and got no state")
      for cell in (rnn_cell.BasicRNNCell(N), GRU, LSTM, rnn_cell.LSTMCell(N), rnn_cell.LayerNormBasicLSTMCell(N),
                   rnn_cell.MultiRNNCell([GRU]), rnn_cell.DropoutWrapper(GRU), rnn_cell.HighwayWrapper(GRU),
                   rnn_cell.ResidualWrapper(GRU), rnn_cell.AttentionCellWrapper(GRU, 2), EMBEDDED,
                   rnn_cell.OutputProjectionWrapper(GRU, 2), rnn_cell.InputProjectionWrapper(GRU, 2))),
    fails("noise by hand", TypeError, lambda: rnn_cell.DropoutWrapper(GRU, 0.5)(PARAMS, XS[:, 0], STATE),
          "Called by hand it takes `rng=rs.Rng(jax.random.key(seed), t)`"),
    fails("keep_prob is an array", TypeError, lambda: rnn_cell.DropoutWrapper(GRU, output_keep_prob=jnp.float32(0.5)),
          "`output_keep_prob` as a Python number...for testing run `rs.wrap.deterministic(cell)`"),
    fails("keep_prob is traced", TypeError, lambda: jax.jit(lambda p: rnn_cell.DropoutWrapper(GRU, p))(0.5),
          "`input_keep_prob` as a Python number"),
    fails("keep_prob of the LSTM is traced", TypeError, lambda: jax.jit(
          lambda p: rnn_cell.LayerNormBasicLSTMCell(N, dropout_keep_prob=p))(0.5), "`dropout_keep_prob` as a Python"),
    fails("no params", TypeError, lambda: tf.dynamic_rnn(cell=GRU, inputs=XS), "`dynamic_rnn` was called without "
          "`params`. " + ORDER.format("dynamic_rnn")),
    fails("no params for steps", TypeError, lambda: tf.static_rnn(GRU, inputs=[XS[:, 0]]), "`static_rnn` was called "
          "without `params`"),
    fails("no params for two", TypeError, lambda: tf.bidirectional_dynamic_rnn(GRU, GRU, inputs=XS), "without "
          "`params`. Params come after the cell, `bidirectional_dynamic_rnn(cell_fw, cell_bw, params, ...)`"),
    fails("no params for a stack", TypeError, lambda: tf.stack_bidirectional_dynamic_rnn([GRU], [GRU], inputs=XS),
          "`stack_bidirectional_dynamic_rnn(cells_fw, cells_bw, params, ...)`"),
    fails("None for params", rs.ParamsError, lambda: dynamic(rnn_cell.DropoutWrapper(GRU), None),
          "got params=None...`cell.init(key, input_size)` makes them"),
    fails("integers", rs.SequenceError, lambda: dynamic(GRU, PARAMS, jnp.ones((B, T, IN), int)),
          "`dynamic_rnn`: `inputs` is int64, but cell `GRUCell(4)` works on floats"),
    *(fails(f"id {bad}", ValueError, lambda bad=bad: dynamic(EMBEDDED, TABLE, ids([0, 1], [2, bad])),
            f"looks ids up in [0, 5); got values from {min(bad, 0)} to {max(bad, 2)}") for bad in (5, -1)),
    fails("id inside wrappers", ValueError, lambda: dynamic(rnn_cell.MultiRNNCell([rnn_cell.DropoutWrapper(EMBEDDED)]),
          {"cell_0": TABLE}, ids([0, 9])), "looks ids up in [0, 5)"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "pattern", "call"), FAULTS)
def test_it_is_told_what_to_write(error, pattern, call):
    refused(error, pattern, call)


def test_ids_of_the_padding_may_be_anything():
    outputs, _ = dynamic(EMBEDDED, TABLE, ids([3, -1], [2, 4]), sequence_length=[1, 2])
    want, _ = dynamic(EMBEDDED, TABLE, ids([3, 0], [2, 4]), sequence_length=[1, 2])
    assert_close(outputs, want)
    assert np.isfinite(outputs).all() and np.all(outputs[1, 1] != 0)


def test_states_may_be_plain_tuples_and_lists():
    c, h = jnp.linspace(-1, 1, B * N).reshape(2, B, N // 2).repeat(2, -1) * jnp.array([0.5, 0.9])[:, None, None]
    params = LSTM.init(KEY, IN)
    named = dynamic(LSTM, params, initial_state=rnn_cell.LSTMStateTuple(c, h))
    for state in ((c, h), [c, h]):
        outputs, last = dynamic(LSTM, params, initial_state=state, sequence_length=[T, T])
        assert_close((outputs, last), named)
        assert isinstance(last, rnn_cell.LSTMStateTuple)
    stack = rnn_cell.MultiRNNCell([LSTM, GRU])
    params = stack.init(KEY, IN)
    want = dynamic(stack, params, initial_state=(rnn_cell.LSTMStateTuple(c, h), h))
    assert_close(dynamic(stack, params, initial_state=[(c, h), h]), want)
    with pytest.raises(rs.CarryError, match="must be like"):
        dynamic(stack, params, initial_state=[(c, h, h), h])


def test_a_cell_of_ones_own_may_have_no_params():
    assert_close(dynamic(Bare(), None)[1], np.full((B, N), 3.0))


def test_names_stand_where_tensorflow_had_them():
    assert tf.nn.dynamic_rnn is tf.dynamic_rnn and tf.nn.rnn_cell is rnn_cell and tf.nn.raw_rnn is tf.raw_rnn
    assert tf.contrib.rnn.static_rnn is tf.static_rnn
    for name, value in vars(rnn_cell).items():
        if isinstance(value, type) and value is not rnn_cell.TFCell:
            assert getattr(tf.contrib.rnn, name) is value


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        (tf, "static_state_saving_rnn", "'rnnscan.compat.tensorflow' has no attribute .* `initial_state` of the next"),
        (tf.nn, "static_state_saving_rnn", "tensorflow.nn' has no attribute .*`rs.scan_chunks`"),
        (tf.contrib.rnn, "stack_bidirectional_rnn", "contrib.rnn' .* write `stack_bidirectional_dynamic_rnn`"),
        (tf, "placeholder", "arguments of a function take its place"),
        (tf, "Session", "there is no graph and no session"),
        (tf, "Variable", r"`cell.init\(key, input_size\)` makes a dict of arrays"),
        (tf.contrib, "seq2seq", "has no attribute 'seq2seq'$"),
    ],
)
def test_a_name_that_is_not_here_says_what_to_write(module, name, says):
    with pytest.raises(AttributeError, match=says):
        getattr(module, name)
    assert not hasattr(module, name)

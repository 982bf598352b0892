"""TensorFlow's cells in use: cells of one's own, `rs.scan`, dropout, checkpoints, and what wrong calls are told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat.tensorflow import rnn_cell as tf
from tests.helpers import assert_close, count_compiles


ROWS, IN, N = 2, 3, 4
LSTM = tf.BasicLSTMCell(N)
KEY = jax.random.key(0)
X = jnp.linspace(0.2, 1.4, ROWS * IN).reshape(ROWS, IN)


def at(t, key=KEY):
    return rs.Rng(key, jnp.asarray(t))


class Leaky:
    """A cell as TensorFlow asks for one, derived from nothing: a nested state with a counter that has no features."""

    state_size = {"h": N, "n": jax.ShapeDtypeStruct((), jnp.int32)}
    output_size = N

    def __call__(self, params, inputs, state):
        h = 0.5 * state["h"] + inputs @ params["w"]
        return jnp.tanh(h), {"h": h, "n": state["n"] + 1}


class Drawing(tf.RNNCell):
    """One that derives from `RNNCell`, has params of its own and asks for randomness."""

    def __init__(self, units):
        self.state_size = self.output_size = units

    def init(self, key, input_size, dtype=None):
        return {"w": jnp.full((input_size, self.output_size), 0.3, dtype)}

    def __call__(self, params, inputs, state, rng):
        state = state + inputs @ params["w"] * jax.random.normal(rng.per_step(), (), inputs.dtype)
        return state, state


W = {"w": jnp.linspace(-1, 1, IN * N).reshape(IN, N)}


def leaky(h, x):
    h = 0.5 * h + x @ W["w"]
    return np.tanh(h), h


def test_a_cell_of_ones_own_runs_in_scan_and_in_every_wrapper():
    xs, cell = jnp.stack([X, -X, 2 * X]), Leaky()
    h, wanted = np.zeros((ROWS, N)), []
    for x in xs:
        y, h = leaky(h, np.asarray(x))
        wanted.append(y)
    state, outs = rs.scan(tf.as_cell(cell), W, None, xs)
    assert_close((np.asarray(outs), np.asarray(state["h"])), (np.stack(wanted), h))
    np.testing.assert_array_equal(state["n"], np.array([3, 3]))
    assert state["n"].dtype == jnp.int32

    start = tf.zero_state(cell, ROWS)
    inside = {
        tf.MultiRNNCell([cell]): ({"cell_0": W}, (start,)),
        tf.ResidualWrapper(cell, lambda x, y: y): (W, start),
        tf.DropoutWrapper(cell): (W, start),
        tf.OutputProjectionWrapper(cell, N): ({"kernel": jnp.eye(N), "bias": jnp.zeros(N), "leaky": W}, start),
        tf.InputProjectionWrapper(cell, IN): ({"kernel": jnp.eye(IN), "bias": jnp.zeros(IN), "leaky": W}, start),
    }
    for wrapper, (params, state) in inside.items():
        np.testing.assert_allclose(wrapper(params, X, state)[0], wanted[0], rtol=1e-12)
        assert jax.tree.map(jnp.shape, wrapper.zero_state(ROWS)) == jax.tree.map(jnp.shape, state)
    with pytest.raises(TypeError, match="has no `init`"):
        tf.MultiRNNCell([cell]).init(KEY, IN)


def test_a_cell_of_ones_own_gets_its_share_of_the_randomness():
    cell = tf.MultiRNNCell([tf.DropoutWrapper(Drawing(N), seed=3), tf.GRUCell(2)])
    params, state = cell.init(KEY, IN), cell.zero_state(ROWS)
    out = cell(params, X, state, at(1))[0]
    assert (out == cell(params, X, state, at(1))[0]).all() and (out != cell(params, X, state, at(2))[0]).any()
    drawn = X @ params["cell_0"]["w"] * jax.random.normal(at(1).child(0).child(0).per_step(), ())
    np.testing.assert_allclose(cell(params, X, state, at(1))[1][0], drawn, rtol=1e-12)
    with pytest.raises(TypeError, match="called without `rng`"):
        cell(params, X, state)


def test_equal_cells_share_a_program_and_the_first_state_follows_params():
    xs = jnp.stack([X, -X])
    first = tf.as_cell(tf.ResidualWrapper(tf.GRUCell(IN)), in_size=IN)
    params = first.init(KEY, jnp.float32)
    rs.scan(first, params, None, xs.astype(jnp.float32))
    with count_compiles() as compiled:
        again = tf.as_cell(tf.ResidualWrapper(tf.GRUCell(IN)), in_size=IN)
        state, _ = rs.scan(again, params, None, xs.astype(jnp.float32))
    assert compiled == [] and state.dtype == jnp.float32 and first == again
    assert first.initial_carry((ROWS,), params=params).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"`lengths` has shape \(3,\), expected \(B,\) = \(2,\)"):
        rs.scan(first, params, None, xs, lengths=[1, 2, 2])
    with pytest.raises(TypeError, match="in_size=n"):
        tf.as_cell(LSTM).init(KEY)


def test_states_can_be_made_for_any_batch_axes_and_dtypes():
    state = tf.MultiRNNCell([LSTM, tf.GRUCell(2)]).zero_state((5, 2), jnp.float32)
    assert isinstance(state[0], tf.LSTMStateTuple)
    got = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name, float(abs(leaf).max())), state)
    assert got == (tf.LSTMStateTuple(*[((5, 2, N), "float32", 0.0)] * 2), ((5, 2, 2), "float32", 0.0))
    assert tf.GRUCell(2, dtype=jnp.float16).zero_state(3).dtype == jnp.float16
    params, x = LSTM.init(KEY, IN), jnp.stack([X] * 5)  # leading axes are batch axes, one or many
    out = LSTM(params, x, LSTM.zero_state((5, ROWS)))[0]
    np.testing.assert_allclose(out, np.stack([LSTM(params, X, LSTM.zero_state(ROWS))[0]] * 5), rtol=1e-14)


def test_the_memory_of_an_lstm_is_dropped_only_where_the_visitor_says_so():
    one = tf.LSTMStateTuple(jnp.ones((ROWS, 50)), jnp.ones((ROWS, 50)))
    state = (one, {"a": jnp.ones((ROWS, 50)), "b": one})

    class Keep(tf.RNNCell):
        state_size = (tf.LSTMStateTuple(50, 50), {"a": 50, "b": tf.LSTMStateTuple(50, 50)})
        output_size = IN

        def __call__(self, params, inputs, state):
            return inputs, state

    def no_dict(state):
        return not isinstance(state, dict)

    def nowhere(state):
        return False

    def first_only(state):
        return (True, False) if type(state) is tuple else True

    answers = {None: [0, 1, 1, 0, 1], no_dict: [1, 1, 0, 0, 0], first_only: [1, 1, 0, 0, 0], nowhere: [0] * 5}
    for visitor, touched in answers.items():
        cell = tf.DropoutWrapper(Keep(), state_keep_prob=0.5, dropout_state_filter_visitor=visitor)
        ((c, h), rest) = cell(None, X, state, at(0))[1]
        dropped = [bool((leaf == 0).any()) for leaf in (c, h, rest["a"], *rest["b"])]
        assert dropped == touched
        assert visitor is not no_dict or (c != h).any()  # masks of their own
    cell = tf.DropoutWrapper(Keep(), state_keep_prob=0.5, dropout_state_filter_visitor=lambda s: "yes")
    with pytest.raises(TypeError, match="answers a bool"):
        cell(None, X, state, at(0))
    leaves = tf.DropoutWrapper(tf.GRUCell(N), state_keep_prob=0.5, dropout_state_filter_visitor=lambda s: (True,))
    with pytest.raises(TypeError, match="answers a bool"):
        leaves(leaves.init(KEY, IN), X, leaves.zero_state(ROWS), at(0))
    with pytest.raises(TypeError, match="must be floating; got int32"):
        tf.DropoutWrapper(Leaky(), state_keep_prob=0.5)(W, X, tf.zero_state(Leaky(), ROWS), at(0))


def test_dropout_in_scan_is_the_same_whichever_way_it_runs_and_can_be_switched_off():
    xs = jnp.stack([X] * 3)
    wrapped = tf.DropoutWrapper(LSTM, 0.8, 0.7, 0.6)
    cell = tf.as_cell(tf.MultiRNNCell([wrapped, tf.LayerNormBasicLSTMCell(2, dropout_keep_prob=0.5)]), in_size=IN)
    params = cell.init(KEY)
    runs = [rs.scan(cell, params, None, xs, key=KEY, method=m) for m in ("sequential", "reference")]
    assert_close(*runs)
    state, outs = cell.initial_carry((ROWS,)), []
    for t in range(3):  # the state that leaves a step is the one that was dropped
        out, state = cell.cell(params, xs[t], state, at(t))
        outs.append(out)
    assert_close(runs[0], (state, jnp.stack(outs)))
    assert (np.asarray(runs[0][0][0].h) == 0).any() and (np.asarray(runs[0][0][0].c) != 0).all()
    quiet = rs.wrap.deterministic(cell)
    plain = tf.as_cell(tf.MultiRNNCell([LSTM, tf.LayerNormBasicLSTMCell(2)]), in_size=IN)
    assert_close(rs.scan(quiet, params, None, xs), rs.scan(plain, params, None, xs))
    with pytest.raises(ValueError, match="needs `key="):
        rs.scan(cell, params, None, xs)


def test_variational_dropout_keeps_one_mask_for_all_steps_and_rows():
    x, state = jnp.ones((ROWS, 50)), jnp.ones((ROWS, 50))
    options = {"variational_recurrent": True, "input_size": 50, "dtype": jnp.float64}
    for n, variational in ((1, True), (4, False)):

        class Copy(tf.RNNCell):
            state_size = output_size = 50

            def __call__(self, params, inputs, state):
                return inputs, state

        more = options if variational else {}
        seen = set()
        for where in ("input", "output", "state"):
            cell = tf.DropoutWrapper(Copy(), **{f"{where}_keep_prob": 0.5}, **more)
            shown = [cell(None, x, state, at(t))[where == "state"] for t in (0, 1)]
            np.testing.assert_array_equal(np.unique(shown), [0, 2])  # a kept number is divided by keep_prob
            masks = [a != 0 for a in shown]
            rows = {tuple(row.tolist()) for mask in masks for row in np.asarray(mask)}
            assert len(rows) == n  # all of two rows and two steps alike, or all different
            seen |= rows
        assert len(seen) == 3 * n  # input, output and state have masks of their own
        again = [tf.DropoutWrapper(Copy(), 0.5, seed=seed, **more)(None, x, state, at(0))[0] for seed in (1, 1, 2)]
        assert (again[0] == again[1]).all() and (again[0] != again[2]).any()


def test_our_own_dropout_of_the_state_leaves_the_memory_of_these_cells_alone():
    stack = tf.MultiRNNCell([LSTM, tf.GRUCell(2), tf.BasicLSTMCell(2, state_is_tuple=False)])
    assert tf.as_cell(stack).recurrent == (tf.LSTMStateTuple(False, True), True, True)

    class Show(tf.RNNCell):
        state_size, output_size = tf.LSTMStateTuple(50, 50), 50

        def __call__(self, params, inputs, state):
            return state.c * 10 + state.h, state

    cell = rs.wrap.Dropout(tf.as_cell(Show()), state=0.5)
    ones = tf.LSTMStateTuple(jnp.ones((1, 50)), jnp.ones((1, 50)))
    shown = rs.scan(cell, None, ones, jnp.ones((1, 1, 1)), key=KEY)[1]
    np.testing.assert_array_equal(np.unique(shown), [10, 12])


def test_dropout_holds_its_declarations():
    state = LSTM.zero_state(ROWS)
    params = LSTM.init(KEY, IN)
    with pytest.raises(ValueError, match=r"made for inputs with features \(7,\)"):
        tf.DropoutWrapper(LSTM, input_size=7)(params, X, state)
    with pytest.raises(TypeError, match="made for float32, but `inputs` is float64"):
        tf.DropoutWrapper(LSTM, 0.5, dtype=jnp.float32)(params, X, state, at(0))


def test_params_go_to_tensorflows_names_and_back():
    inner = tf.OutputProjectionWrapper(tf.DropoutWrapper(tf.GRUCell(2, name="mine"), 0.5), IN)
    cell = tf.MultiRNNCell([LSTM, tf.HighwayWrapper(tf.BasicRNNCell(N)), inner])
    params = cell.init(KEY, IN)
    variables = tf.to_variables(cell, params, scope="decoder/rnn")
    stem = "decoder/rnn/multi_rnn_cell/"
    assert sorted(variables) == [
        stem + name
        for name in (
            *(f"cell_0/basic_lstm_cell/{leaf}" for leaf in ("bias", "kernel")),
            *(f"cell_1/basic_rnn_cell/{leaf}" for leaf in ("bias", "kernel")),
            *(f"cell_1/carry_{leaf}" for leaf in ("b", "w")),
            "cell_2/output_projection_wrapper/bias",
            "cell_2/output_projection_wrapper/kernel",
            *(f"cell_2/output_projection_wrapper/mine/candidate/{leaf}" for leaf in ("bias", "kernel")),
            *(f"cell_2/output_projection_wrapper/mine/gates/{leaf}" for leaf in ("bias", "kernel")),
        )
    ]
    of_a_checkpoint = {f"{name}:0": np.asarray(value) for name, value in variables.items()} | {"global_step": 3}
    assert_close(tf.from_variables(cell, of_a_checkpoint, IN, scope="decoder/rnn"), params, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"not given: rnn/multi_rnn_cell/cell_0.* Is it `scope='decoder/rnn'`"):
        tf.from_variables(cell, of_a_checkpoint, IN)
    with pytest.raises(ValueError, match=r"cell_0/basic_lstm_cell/kernel` has shape \(7, 16\), expected \(9, 16\)"):
        tf.from_variables(cell, of_a_checkpoint, 5, scope="decoder/rnn")


def test_a_wrapper_takes_the_dtype_of_the_cell_inside():
    cell = tf.OutputProjectionWrapper(tf.DropoutWrapper(tf.GRUCell(N, dtype=jnp.float32)), 2)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((cell.init(KEY, IN), cell.zero_state(2)))} == {"float32"}


def test_a_cell_written_as_tensorflow_had_it_is_told_where_params_go():
    class Old(tf.RNNCell):
        state_size = output_size = N

        def __call__(self, inputs, state):
            return inputs, state

    for wrap in (tf.as_cell, tf.ResidualWrapper, lambda cell: tf.MultiRNNCell([cell])):
        with pytest.raises(TypeError, match=r"takes \(inputs, state\). Params are an argument here: put them first"):
            wrap(Old())


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p, s: rs.scan(LSTM, p, s, X[None]), TypeError, r"as in TensorFlow. Write `rnn_cell.as_cell\(cell\)`"),
        (lambda p, s: rs.wrap.Residual(LSTM), TypeError, "`Residual` needs .* `BasicLSTMCell\\(4\\)` takes"),
        (lambda p, s: LSTM.init(KEY, X), TypeError, r"`inputs.shape\[-1\]`; got an array of shape \(2, 3\)"),
        (lambda p, s: LSTM(p, X, s.h), TypeError, r"`LSTMStateTuple\(c, h\)`; got a"),
        (lambda p, s: LSTM(X, p, s), ValueError, "called `cell\\(params, inputs, state\\)`"),
        (lambda p, s: LSTM({"kernel": p["kernel"]}, X, s), ValueError, r"with 'bias'.*keys \['kernel'\]"),
        (lambda p, s: LSTM(p, X[:, :2], s), ValueError, r"2 \+ 4 features by `kernel` of shape \(7, 16\)"),
        (lambda p, s: LSTM(p, X.astype(int), s), TypeError, "works on floats"),
        (lambda p, s: tf.MultiRNNCell([LSTM])({"cell_0": p}, X, s), TypeError, "one entry a cell, 1 in all"),
        (lambda p, s: tf.MultiRNNCell([LSTM])({"cell_1": p}, X, (s,)), ValueError, "with 'cell_0'"),
        (lambda p, s: tf.BasicLSTMCell(N, state_is_tuple=False)(p, X, s.h), ValueError, "one array of 8 features"),
        (lambda p, s: tf.ResidualWrapper(LSTM)(p, X, s), ValueError, r"one shape; got \(2, 3\) and \(2, 4\)"),
        (lambda p, s: tf.EmbeddingWrapper(LSTM, 3, IN)({"embedding": X}, X, s), TypeError, "integers"),
        (lambda p, s: tf.EmbeddingWrapper(LSTM, 3, IN)({"embedding": X}, jnp.ones(5, int), s), ValueError, "one id a"),
        (lambda p, s: tf.LayerNormBasicLSTMCell(N, dropout_keep_prob=0.5)(p, X, s), TypeError, "without `rng`"),
    ],
)
def test_a_wrong_call_is_told_what_came_and_what_to_write(call, error, says):
    with pytest.raises(error, match=says):
        call(LSTM.init(KEY, IN), LSTM.zero_state(ROWS))

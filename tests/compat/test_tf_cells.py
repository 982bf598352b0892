"""TensorFlow's cells and wrappers against NumPy written from TensorFlow's rules: outputs, states, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat.tensorflow import rnn_cell as tf
from tests.compat import tf_cells_numpy as plain
from tests.helpers import assert_close, compile_quickly


ROWS, IN, N = 3, 4, 5
LSTM, GRU = tf.BasicLSTMCell, tf.GRUCell


def joined(step, *sizes):
    """A NumPy step on a state kept in one array."""

    def run(params, x, state):
        out, parts = step(params, x, tuple(np.split(state, np.cumsum(sizes)[:-1], axis=-1)))
        return out, np.concatenate(parts, axis=-1)

    return run


def stacked(params, x, state):
    below, first = plain.basic_lstm(params["cell_0"], x, state[0])
    out, second = plain.gru(params["cell_1"], below, state[1])
    return out, (first, second)


def stacked_parts(params, x, state):
    out, (first, second) = stacked(params, x, ((state[0], state[1]), state[2]))
    return out, (*first, second)


def around(step, name, before=lambda p, x: x, after=lambda p, x, y: y):
    """A NumPy step inside a wrapper that keeps the cell's params under `name`, or has none of its own."""

    def run(params, x, state):
        out, state = step(params[name] if name else params, before(params, x), state)
        return after(params, x, out), state

    return run


def with_(step, **options):
    return lambda params, x, state: step(params, x, state, **options)


relu = lambda a: np.maximum(a, 0)
table = lambda p, ids: p["embedding"][ids.reshape(ROWS)]
# cell, NumPy step, size or kind of the input
CASES = {
    "BasicRNN": (tf.BasicRNNCell(N), plain.basic_rnn),
    "BasicRNN relu": (tf.BasicRNNCell(N, activation="relu"), with_(plain.basic_rnn, f=relu)),
    "BasicLSTM": (LSTM(N), plain.basic_lstm),
    "BasicLSTM sin": (LSTM(N, 0.3, activation=jnp.sin), with_(plain.basic_lstm, forget_bias=0.3, f=np.sin)),
    "BasicLSTM one array": (LSTM(N, state_is_tuple=False), joined(plain.basic_lstm, N, N)),
    "LSTM": (tf.LSTMCell(N, forget_bias=0.2), with_(plain.lstm, forget_bias=0.2)),
    "LSTM peepholes": (tf.LSTMCell(N, use_peepholes=True), with_(plain.lstm, peepholes=True)),
    "LSTM all": (
        tf.LSTMCell(N, True, 0.5, num_proj=2, proj_clip=0.3, activation=jnp.sin),
        with_(plain.lstm, peepholes=True, cell_clip=0.5, proj_clip=0.3, f=np.sin),
    ),
    "LSTM projected one array": (tf.LSTMCell(N, num_proj=2, state_is_tuple=False), joined(plain.lstm, N, 2)),
    "GRU": (GRU(N), plain.gru),
    "GRU softsign": (GRU(N, activation="softsign"), with_(plain.gru, f=lambda a: a / (1 + abs(a)))),
    "LayerNorm": (tf.LayerNormBasicLSTMCell(N, 0.4), with_(plain.layer_norm_lstm, forget_bias=0.4)),
    "LayerNorm off": (tf.LayerNormBasicLSTMCell(N, layer_norm=False), plain.basic_lstm),
    "Multi": (tf.MultiRNNCell([LSTM(N), GRU(3)]), stacked),
    "Multi one array": (
        tf.MultiRNNCell([LSTM(N, state_is_tuple=False), GRU(3)], state_is_tuple=False),
        joined(stacked_parts, N, N, 3),
    ),
    "Dropout keeps all": (tf.DropoutWrapper(LSTM(N)), plain.basic_lstm),
    "Residual": (tf.ResidualWrapper(LSTM(IN)), around(plain.basic_lstm, None, after=lambda p, x, y: x + y)),
    "Residual function": (
        tf.ResidualWrapper(LSTM(N), lambda x, y: x[..., :1] * y),
        around(plain.basic_lstm, None, after=lambda p, x, y: x[:, :1] * y),
    ),
    "Highway": (tf.HighwayWrapper(LSTM(IN)), around(plain.basic_lstm, "basic_lstm_cell", after=plain.highway)),
    "Highway uncoupled": (
        tf.HighwayWrapper(GRU(IN), False),
        around(plain.gru, "gru_cell", after=lambda p, x, y: plain.highway(p, x, y, coupled=False)),
    ),
    "InputProjection": (
        tf.InputProjectionWrapper(LSTM(N), 3, activation="relu"),
        around(plain.basic_lstm, "basic_lstm_cell", before=lambda p, x: relu(plain.dense(p, x))),
    ),
    "OutputProjection": (
        tf.OutputProjectionWrapper(LSTM(N), 2),
        around(plain.basic_lstm, "basic_lstm_cell", after=lambda p, x, y: plain.dense(p, y)),
    ),
    "Embedding": (tf.EmbeddingWrapper(LSTM(N), 7, IN), around(plain.basic_lstm, "basic_lstm_cell", before=table)),
    "Attention": (
        tf.AttentionCellWrapper(GRU(N), 3),
        lambda p, x, state: plain.attention(p, x, state, plain.gru, 3, "gru_cell"),
    ),
    "Attention sizes": (
        tf.AttentionCellWrapper(LSTM(N), 2, attn_size=3, attn_vec_size=6, input_size=2),
        lambda p, x, state: plain.attention(p, x, state, plain.basic_lstm, 2, "basic_lstm_cell"),
    ),
}


def random_like(tree, seed):
    """The same tree with every number drawn anew; data without zeros."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape) * 0.7, tree)


def make(cell, seed=0):
    params = random_like(jax.eval_shape(lambda: cell.init(jax.random.key(0), IN)), seed)
    state = random_like(cell.zero_state(ROWS), seed + 1)
    x = (
        np.array([[2], [6], [0]])
        if isinstance(cell, tf.EmbeddingWrapper)
        else random_like(jnp.ones((ROWS, IN)), seed + 2)
    )
    return params, x, state


def bare(tree):
    """States as plain tuples of NumPy arrays: `LSTMStateTuple` is compared by its order alone."""
    return tuple(map(bare, tree)) if isinstance(tree, tuple) else np.asarray(tree)


def loss(lib, out, state):
    """Uneven weights, so that a gradient at the wrong place shows."""
    leaves = (out, *jax.tree.leaves(state))
    return sum((lib.cos(a) * np.linspace(0.3, 1.7, a.size).reshape(a.shape)).sum() for a in leaves)


@pytest.mark.parametrize("name", CASES)
def test_output_state_and_slope_follow_the_formula(name):
    """The slope is that along a random direction, and comes from the NumPy step by central differences."""
    cell, step = CASES[name]
    params, x, state = make(cell)
    floats = (params, state) if isinstance(cell, tf.EmbeddingWrapper) else (params, state, x)

    def ours(floats):
        params, state, *rest = floats
        results = cell(params, *rest or (x,), state)
        return loss(jnp, *results), results

    grads, (out, new_state) = compile_quickly(jax.grad(ours, has_aux=True))(floats)
    assert jax.tree.structure(new_state) == jax.tree.structure(state) and out.shape == (ROWS, cell.output_size)
    assert_close((np.asarray(out), bare(new_state)), step(params, x, bare(state)), rtol=1e-11)

    direction = random_like(floats, 20)
    slope = sum((g * d).sum() for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True))

    def moved(by):
        p, c, *rest = jax.tree.map(lambda a, d: a + by * d, floats, direction)
        return loss(np, *step(p, *rest or (x,), bare(c)))

    h = 1e-4  # fourth order: the error is of order h**4, rounding of order 1e-16 / h
    want = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    np.testing.assert_allclose(slope, want, rtol=1e-8)


def test_the_kernel_of_an_lstm_holds_four_gates_over_input_and_state():
    params = LSTM(N).init(jax.random.key(0), IN)
    assert jax.tree.map(jnp.shape, params) == {"kernel": (IN + N, 4 * N), "bias": (4 * N,)}


def test_one_is_added_to_the_forget_gate_and_not_stored():
    """With all weights zero `c' = s(1) c` and, without the forget bias, `s(0) c`."""
    params, c = {"kernel": jnp.zeros((IN + N, 4 * N)), "bias": jnp.zeros(4 * N)}, jnp.full((ROWS, N), 2.0)
    state = tf.LSTMStateTuple(c, jnp.zeros_like(c))
    for cell, kept in ((LSTM(N), 2 / (1 + np.exp(-1))), (LSTM(N, forget_bias=0.0), 1.0)):
        np.testing.assert_allclose(cell(params, jnp.ones((ROWS, IN)), state)[1].c, np.full((ROWS, N), kept), rtol=1e-15)


def test_the_gates_are_in_the_order_i_j_f_o():
    """A bias shuts one gate: without i or j nothing is written, without f nothing kept, without o nothing shown."""
    x, ones = jnp.ones((1, IN)), jnp.ones((1, N))
    for gate, shut in enumerate([-50.0, 0.0, -50.0, -50.0]):
        bias = jnp.full((4, N), 50.0).at[gate].set(shut).reshape(-1)
        h, (c, _) = LSTM(N)({"kernel": jnp.zeros((IN + N, 4 * N)), "bias": bias}, x, tf.LSTMStateTuple(ones, ones))
        want = {0: (1, np.tanh(1)), 1: (1, np.tanh(1)), 2: (1, np.tanh(1)), 3: (2, 0)}[gate]
        np.testing.assert_allclose([c[0, 0], h[0, 0]], want, atol=1e-12)


def test_the_clip_of_the_memory_comes_before_the_output_and_the_projection_has_one_of_its_own():
    cell = tf.LSTMCell(N, cell_clip=0.1, num_proj=2, proj_clip=0.01)
    params, x, state = make(cell)
    m, (c, _) = cell(params, x, state)
    assert np.abs(c).max() == 0.1 and np.abs(m).max() == 0.01
    assert np.abs(tf.LSTMCell(N, cell_clip=0.1, num_proj=2)(params, x, state)[0]).max() > 0.01


NORMED = ("input", "transform", "forget", "output", "state")
FIRST = (  # cell; constants; bounds of uniform numbers, Glorot's sqrt(6 / (fan_in + fan_out)) but for the embedding
    (tf.BasicLSTMCell(40), {"bias": 0.0}, {"kernel": 6 / (40 + IN + 160)}),
    (GRU(40), {"gates/bias": 1.0, "candidate/bias": 0.0}, {"candidate/kernel": 6 / (80 + IN)}),
    (
        tf.LSTMCell(400, True, num_proj=3),
        {"bias": 0.0},
        {"w_f_diag": 3 / 400, "w_i_diag": 3 / 400, "w_o_diag": 3 / 400, "projection/kernel": 6 / 403},
    ),
    (
        tf.LayerNormBasicLSTMCell(40, norm_gain=0.7, norm_shift=0.2),
        {f"{part}/gamma": 0.7 for part in NORMED} | {f"{part}/beta": 0.2 for part in NORMED},
        {"kernel": 6 / (40 + IN + 160)},
    ),
    (tf.LayerNormBasicLSTMCell(100, layer_norm=False), {}, {"bias": 3 / 400}),  # `get_variable`'s default
    (tf.HighwayWrapper(GRU(40), False, 0.6), {"carry_b": 0.6, "transform_b": -0.6}, {"transform_w": 6 / 80}),
    (tf.OutputProjectionWrapper(GRU(40), 9), {"bias": 0.0, "gru_cell/gates/bias": 1.0}, {"kernel": 6 / 49}),
    (tf.InputProjectionWrapper(GRU(2), 90), {"bias": 0.0}, {"kernel": 6 / (90 + IN)}),
    (tf.EmbeddingWrapper(GRU(2), 90, 7), {}, {"embedding": 3.0}),
    (
        tf.AttentionCellWrapper(GRU(40), 2),
        {"bias": 0.0, "attention/bias": 0.0, "attn_output_projection/bias": 0.0},
        {"attention/attn_w": 6 / 80, "attention/attn_v": 3 / 40, "attn_output_projection/kernel": 6 / 120},
    ),
)


@pytest.mark.parametrize(("cell", "constants", "squares"), FIRST, ids=lambda v: type(v).__name__)
def test_first_params_are_tensorflows(cell, constants, squares):
    """Constants are exact; of uniform numbers in +-a the least and the largest of many are near -a and a."""
    params = cell.init(jax.random.key(1), 40 if isinstance(cell, tf.HighwayWrapper) else IN)
    found = lambda path: functools.reduce(lambda tree, key: tree[key], path.split("/"), params)
    for path, value in constants.items():
        np.testing.assert_array_equal(found(path), np.full(found(path).shape, value))
    for path, square in squares.items():
        bound, got = np.sqrt(square), found(path)
        assert -bound <= got.min() < -0.9 * bound and 0.9 * bound < got.max() <= bound, path


def test_one_object_given_twice_has_params_of_its_own_each_time():
    params = tf.MultiRNNCell([GRU(IN)] * 2).init(jax.random.key(0), IN)
    assert (params["cell_0"]["gates"]["kernel"] != params["cell_1"]["gates"]["kernel"]).all()


def test_an_id_outside_the_table_raises_or_gives_nan():
    cell = tf.EmbeddingWrapper(tf.GRUCell(N), 3, 2)
    params, state = cell.init(jax.random.key(0)), cell.zero_state(2)
    for ids in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match=r"ids up in \[0, 3\)"):
            cell(params, jnp.array(ids), state)
        out = jax.jit(cell)(params, jnp.array(ids), state)[0]
        assert (np.isnan(out).all(1) == [i in (-1, 3) for i in ids]).all()
    ids = jnp.array([[0, 2], [1, 1]])
    flat = rs.scan(tf.as_cell(cell), params, None, ids)[1]
    assert_close(rs.scan(tf.as_cell(cell, x_ndim=1), params, None, ids[..., None])[1], flat)
    np.testing.assert_allclose(flat[0], cell(params, ids[0], state)[0], rtol=1e-14)


def test_scan_of_a_cell_is_the_loop_over_its_steps():
    cell = tf.as_cell(CASES["Multi"][0], in_size=IN)
    params, x, state = make(cell.cell)
    xs = np.stack([x, x[::-1], x * 0.5, -x])
    last, ys = rs.scan(cell, params, state, xs, lengths=[4, 2, 0])
    wanted = []
    for b, length in enumerate([4, 2, 0]):
        c = jax.tree.map(lambda leaf: leaf[b : b + 1], bare(state))  # noqa: B023
        for t in range(4):
            if t < length:
                out, c = stacked(params, xs[t, b : b + 1], c)
            np.testing.assert_allclose(ys[t, b], out[0] if t < length else np.zeros(3), rtol=1e-11)
        wanted.append(c)
    assert_close(bare(last), jax.tree.map(lambda *rows: np.concatenate(rows), *wanted), rtol=1e-11)

"""Where Flax and Haiku are wrong: what they do, so that a mended release shows, and what rnnscan does instead."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rnnscan as rs
from tests.helpers import assert_close


T, B, IN, HIDDEN = 4, 2, 3, 5
XS = np.random.default_rng(0).normal(size=(T, B, IN))
RNNS = {
    "linen": lambda cell, **options: lambda *a, **k: nn.RNN(cell, **options).apply({}, *a, **k),
    "nnx": nnx.RNN,
}
each_flax = pytest.mark.parametrize("flax", RNNS)


def add(params, h, x):
    del params
    return h + x[..., 0], h[..., None] + x


class LinenAdd(nn.RNNCellBase):
    def __call__(self, carry, x):
        return add(None, carry, x)

    @property
    def num_feature_axes(self):
        return 1


class NnxAdd(nnx.RNNCellBase):
    def __call__(self, carry, x):
        return add(None, carry, x)

    @property
    def num_feature_axes(self):
        return 1


CELLS = {"linen": LinenAdd(), "nnx": NnxAdd()}
COUNT = np.arange(1.0, T + 1)[:, None, None] * np.ones((1, B, 1))  # x = 1, 2, 3, 4 in both rows
START = np.full(B, 100.0)


@each_flax
def test_a_row_of_length_0(flax):
    """features.md bug 14: index -1 picks the state after all the padding. Ours is the carry the row began with."""
    rnn = RNNS[flax](CELLS[flax], time_major=True, return_carry=True)
    carry, _ = rnn(COUNT, initial_carry=START, seq_lengths=np.array([2, 0]))
    assert carry.tolist() == [103.0, 110.0]
    assert rs.scan(add, None, START, COUNT, lengths=[2, 0])[0].tolist() == [103.0, 100.0]


@each_flax
def test_lengths_above_T(flax):
    """features.md bug 14: with `reverse` a length of T + 1 rotates the row, x = 1, 4, 3, 2. Ours raises, or clips."""
    rnn = RNNS[flax](CELLS[flax], time_major=True, return_carry=True, reverse=True)
    _, ys = rnn(COUNT, initial_carry=START, seq_lengths=np.array([T + 1, T]))
    assert ys[:, 0, 0].tolist() == [101.0, 105.0, 108.0, 110.0]
    with pytest.raises(rs.LengthError, match=r"`lengths\[0\]` = 5 exceeds T = 4"):
        rs.scan(add, None, START, COUNT, lengths=[T + 1, T], reverse=True)
    scan = lambda lengths: rs.scan(add, None, START, COUNT, lengths=lengths, reverse=True)
    assert_close(jax.jit(scan)(np.array([T + 1, T])), scan([T, T]))


@each_flax
def test_lengths_with_two_batch_axes(flax):
    """features.md bug 14: the carry comes back in another shape, without an error. Ours is that of each row."""
    xs, start, lengths = COUNT.reshape(T, 2, 1, 1), START.reshape(2, 1), np.array([[2], [3]])
    rnn = RNNS[flax](CELLS[flax], time_major=True, return_carry=True)
    carry, _ = rnn(xs, initial_carry=start, seq_lengths=lengths)
    assert carry.shape != (2, 1)
    assert rs.scan(add, None, start, xs, lengths=lengths)[0].tolist() == [[103.0], [106.0]]


@each_flax
def test_lengths_of_another_batch(flax):
    """Without `return_carry` a wrong `seq_lengths` is read by nobody. Ours raises always."""
    RNNS[flax](CELLS[flax], time_major=True)(COUNT, initial_carry=START, seq_lengths=np.array([1, 2, 3]))
    with pytest.raises(rs.LengthError, match=r"`lengths` has shape \(3,\), expected \(B,\) = \(2,\)"):
        rs.scan(add, None, START, COUNT, lengths=[1, 2, 3])


def test_nan_in_padding_poisons_the_gradients_of_flax():
    """features.md bug 13: outputs in padding are dropped with `where`, but still differentiated."""
    cell, lengths = nn.GRUCell(HIDDEN, param_dtype=jnp.float64), np.array([3, 2])
    valid = (np.arange(T)[:, None] < lengths)[..., None]
    xs = np.where(valid, XS, np.nan)
    start = jnp.zeros((B, HIDDEN))
    params = cell.init(jax.random.key(0), start, xs[0])
    theirs = lambda params: nn.RNN(cell, time_major=True).apply({"params": {"cell": params["params"]}}, xs)
    step = lambda params, carry, x: cell.apply(params, carry, x)
    ours = lambda params: rs.scan(step, params, start, xs, lengths=lengths)[1]
    loss = lambda ys: jnp.sum(jnp.where(valid, jnp.cos(ys), 0))
    bad, good = (jax.grad(lambda params, f=f: loss(f(params)))(params) for f in (theirs, ours))
    assert all(np.isnan(leaf).any() for leaf in jax.tree.leaves(bad))
    rows = lambda params: sum(
        jnp.sum(jnp.cos(rs.scan(step, params, start[b], XS[:n, b])[1])) for b, n in enumerate(lengths)
    )
    assert_close(good, jax.grad(rows)(params))


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell"])
def test_bfloat16_is_bfloat16(name):
    """features.md bug 15: `dtype=bfloat16` gives float32, since the carry is float32. Ours takes the inputs' dtype."""
    xs = jnp.asarray(XS, jnp.bfloat16)
    rnn = nn.RNN(getattr(nn, name)(HIDDEN, dtype=jnp.bfloat16), time_major=True)
    with jax.numpy_dtype_promotion("standard"):
        ys = rnn.init_with_output(jax.random.key(0), xs)[0]
    assert ys.dtype == jnp.float32
    cell = getattr(rs.cells, name.removesuffix("Cell"))(IN, HIDDEN)
    carry, ys = rs.scan(cell, cell.init(jax.random.key(0), jnp.bfloat16), None, xs)
    assert {leaf.dtype for leaf in jax.tree.leaves((carry, ys))} == {jnp.dtype(jnp.bfloat16)}


def test_a_simple_cell_in_bfloat16():
    """features.md bug 15: `SimpleCell(dtype=bfloat16)` does not run at all."""
    xs = jnp.asarray(XS, jnp.bfloat16)
    rnn = nn.RNN(nn.SimpleCell(HIDDEN, dtype=jnp.bfloat16), time_major=True)
    with jax.numpy_dtype_promotion("standard"), pytest.raises(TypeError, match="carry"):
        rnn.init(jax.random.key(0), xs)
    cell = rs.cells.Elman(IN, HIDDEN)
    assert rs.scan(cell, cell.init(jax.random.key(0), jnp.bfloat16), None, xs)[1].dtype == jnp.bfloat16


def test_nnx_gru_has_no_hidden_bias():
    """features.md bug 16 (flax#5594): linen's `hn` bias, torch's `b_hn`, has no place in nnx; in our `b_h` it has."""
    linen = nn.GRUCell(HIDDEN, param_dtype=jnp.float64).init(jax.random.key(0), jnp.zeros(HIDDEN), XS[0, 0])["params"]
    there = nnx.GRUCell(IN, HIDDEN, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    assert "bias" in linen["hn"] and there.dense_h.bias is None
    w_x, w_h, b = there.dense_i.kernel[...], there.dense_h.kernel[...], jnp.linspace(-0.5, 0.7, 3 * HIDDEN)
    there.dense_i.bias[...] = b
    cell, without = rs.cells.GRU(IN, HIDDEN), {"w_x": w_x, "w_h": w_h, "b": b, "b_h": jnp.zeros(3 * HIDDEN)}
    ys = nnx.RNN(there, time_major=True)(XS)
    assert_close(rs.scan(cell, without, None, XS)[1], ys)
    with_bias = without | {"b_h": jnp.zeros(3 * HIDDEN).at[2 * HIDDEN :].set(0.5)}
    assert np.abs(rs.scan(cell, with_bias, None, XS)[1] - ys).min() > 1e-4


def test_a_static_unroll_of_no_step():
    """features.md bug 17: Haiku's static unroll fails on T = 0, while its dynamic one returns the first state."""
    core = lambda x, state: (state[..., None] + x, state + x[..., 0])
    with pytest.raises(TypeError):
        hk.static_unroll(core, COUNT[:0], START)
    ys, state = hk.dynamic_unroll(core, COUNT[:0], START)
    for method in ("sequential", "unrolled", "reference"):
        assert_close(rs.scan(add, None, START, COUNT[:0], method=method), (state, ys))

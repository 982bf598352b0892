"""`dynamic_rnn`, `static_rnn` and their bidirectional forms against TensorFlow's documented rule, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat.tensorflow import (
    bidirectional_dynamic_rnn,
    dynamic_rnn,
    rnn_cell,
    stack_bidirectional_dynamic_rnn,
    static_bidirectional_rnn,
    static_rnn,
)
from tests.compat import tf_rule
from tests.compat.tf_rule import Busy, reversed_rows, stacked, steps_of, weighted
from tests.helpers import assert_close, count_compiles


B, T, DEPTH = 3, 3, 3
LENGTHS = np.array([2, 3, 0])
FLOAT = jnp.float64
CELLS = {"lstm": rnn_cell.BasicLSTMCell(4), "gru": rnn_cell.GRUCell(4), "busy": Busy()}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def setting(name, time_major=True):
    """A cell, its params, inputs and an initial state."""
    cell, axes = CELLS[name], (T, B) if time_major else (B, T)
    inputs = normal(1, *axes, DEPTH)
    if name == "busy":
        inputs = (inputs, normal(2, *axes, 2))
    params = jax.tree.map(lambda leaf: leaf.astype(FLOAT) + 0.1, cell.init(jax.random.key(0), DEPTH))
    state = jax.tree.map(lambda leaf: normal(3, *leaf.shape), cell.zero_state(B, FLOAT))
    return cell, params, inputs, state


def graded(function):
    """Its loss, its result and all its gradients."""
    return jax.value_and_grad(lambda *args: (weighted(result := function(*args)), result), (0, 1, 2), True)


@pytest.mark.parametrize(("name", "time_major"), [("lstm", False), ("busy", True)])
def test_dynamic_rnn_follows_the_documented_rule(name, time_major):
    cell, *arrays = setting(name, time_major)

    def ours(params, inputs, state):
        return dynamic_rnn(cell, params, inputs, LENGTHS, state, time_major=time_major)

    def rule(params, inputs, state):
        outputs, state = tf_rule.loop(cell, params, steps_of(inputs, time_major), LENGTHS, state)
        return stacked(outputs, time_major), state

    got, want = jax.jit(lambda *given: (graded(ours)(*given), graded(rule)(*given)))(*arrays)
    assert_close(got, want)


@pytest.mark.parametrize("name", ["gru", "busy"])
def test_static_rnn_follows_the_documented_rule_with_and_without_lengths(name):
    cell, params, inputs, _ = setting(name)
    steps, zero = steps_of(inputs), cell.zero_state(B, FLOAT)

    @jax.jit
    def both(params, steps):
        given = [static_rnn(cell, params, steps, dtype=FLOAT, sequence_length=n) for n in (LENGTHS, None)]
        return given, [tf_rule.loop(cell, params, steps, n, zero) for n in (LENGTHS, [T] * B)]

    got, want = both(params, steps)
    assert isinstance(got[0][0], list)
    assert_close(got, want)


def test_scalar_state_stays_as_it_was_where_no_row_has_a_step():
    cell, params, inputs, state = setting("busy")
    _, end = dynamic_rnn(cell, params, inputs, [0, 0, 0], state, time_major=True)
    assert_close(end, state)


@pytest.mark.parametrize("name", ["lstm", "busy"])
def test_no_rows(name):
    cell, params, inputs, state = setting(name)
    inputs = jax.tree.map(lambda leaf: leaf[:, :0], inputs)
    state = jax.tree.map(lambda leaf: leaf[:0] if leaf.ndim else leaf, state)
    for lengths in (None, []):
        outputs, end = dynamic_rnn(cell, params, inputs, lengths, state, time_major=True)
        assert {leaf.shape[:2] for leaf in jax.tree.leaves(outputs)} == {(T, 0)}
        assert jax.tree.map(jnp.shape, end) == jax.tree.map(jnp.shape, state)
    if name == "busy":
        assert float(end["n"]) == float(state["n"])


@pytest.mark.parametrize("lengths", [None, [0, 0, 0]])
def test_no_steps(lengths):
    cell, params, inputs, state = setting("lstm", time_major=False)
    run = lambda state: dynamic_rnn(cell, params, inputs[:, :0], lengths, state)
    outputs, end = run(state)
    assert outputs.shape == (B, 0, 4) and outputs.dtype == FLOAT
    assert_close(end, state)
    slope = jax.grad(lambda state: run(state)[1].c.sum())(state)
    assert_close(slope, type(state)(jnp.ones((B, 4)), jnp.zeros((B, 4))))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_padding_reaches_neither_values_nor_gradients(bad):
    cell, params, inputs, _ = setting("gru", time_major=False)
    valid = np.arange(T) < LENGTHS[:, None]
    padded = jnp.where(valid[..., None], inputs, bad)

    @jax.jit
    def both(params, inputs):
        loss = lambda p, x: weighted(bidirectional_dynamic_rnn(cell, cell, (p, p), x, LENGTHS, dtype=FLOAT))
        return jax.value_and_grad(loss, (0, 1))(params, inputs)

    got = both(params, padded)
    assert_close(got, both(params, inputs))
    assert not np.any(np.asarray(got[1][1])[~valid])


def test_bidirectional_rnns_follow_the_documented_rule():
    (fw, params_fw, inputs, first), (bw, params_bw, _, _) = setting("lstm"), setting("gru")
    steps = steps_of(inputs)

    def rule(params, lengths):
        out_fw, end_fw = tf_rule.loop(fw, params[0], steps, lengths, first)
        out_bw, end_bw = tf_rule.loop(bw, params[1], reversed_rows(steps, lengths), lengths, bw.zero_state(B, FLOAT))
        return (out_fw, reversed_rows(out_bw, lengths)), (end_fw, end_bw)

    @jax.jit
    def all_of_them(params):
        results = []
        for given, lengths in ((LENGTHS, LENGTHS), (None, [T] * B)):
            outputs, ends = bidirectional_dynamic_rnn(
                fw, bw, params, stacked(steps, False), given, initial_state_fw=first, dtype=FLOAT
            )
            joined, *static_ends = static_bidirectional_rnn(
                fw, bw, params, steps, initial_state_fw=first, dtype=FLOAT, sequence_length=given
            )
            want, want_ends = rule(params, lengths)
            want_joined = [jnp.concatenate([f, b], 1) for f, b in zip(*want, strict=True)]
            results.append([(outputs, (stacked(want[0], False), stacked(want[1], False))), (joined, want_joined),
                            (ends, want_ends), (tuple(static_ends), want_ends)])  # fmt: skip
        return results

    for pairs in all_of_them((params_fw, params_bw)):
        for got, want in pairs:
            assert_close(got, want)


def test_backward_cell_starts_every_row_at_its_first_iteration():
    """A scalar that counts iterations tells: aligned at the end of the padding it would be late for short rows."""
    cell, params, inputs, _ = setting("busy")
    x, z = inputs
    step = lambda p, inputs, state: ((out := cell(p, inputs, state))[0][0], out[1])
    single = type("Single", (), {"state_size": Busy.state_size, "output_size": 4, "zero_state": cell.zero_state,
                                 "__call__": lambda self, *given: step(*given)})()  # fmt: skip
    (_, got), (_, end) = bidirectional_dynamic_rnn(
        single, single, (params, params), inputs, LENGTHS, dtype=FLOAT, time_major=True
    )
    flipped = reversed_rows(steps_of((x, z)), LENGTHS)
    want, want_end = jax.jit(lambda p: tf_rule.loop(single, p, flipped, LENGTHS, single.zero_state(B, FLOAT)))(params)
    assert_close(got, stacked(reversed_rows(want, LENGTHS)))
    assert_close(end, want_end)


def test_stack_is_layer_upon_layer_of_bidirectional():
    cells_fw, cells_bw = [CELLS["lstm"], rnn_cell.GRUCell(2)], [CELLS["gru"], rnn_cell.BasicRNNCell(3)]
    keys, sizes = jax.random.split(jax.random.key(0), 4), (DEPTH, 8)
    params = tuple(
        [cell.init(k, size, FLOAT) for cell, k, size in zip(cells, part, sizes, strict=True)]
        for cells, part in ((cells_fw, keys[:2]), (cells_bw, keys[2:]))
    )
    inputs, first = normal(1, B, T, DEPTH), [normal(2, B, 4), normal(3, B, 3)]

    @jax.jit
    def both(params, inputs):
        got = stack_bidirectional_dynamic_rnn(
            cells_fw, cells_bw, params, inputs, initial_states_bw=first, dtype=FLOAT, sequence_length=LENGTHS
        )
        ends = []
        for i in range(2):
            pair = (params[0][i], params[1][i])
            outputs, end = bidirectional_dynamic_rnn(
                cells_fw[i], cells_bw[i], pair, inputs, LENGTHS, None, first[i], FLOAT
            )
            inputs, ends = jnp.concatenate(outputs, 2), [*ends, end]
        return got, (inputs, *zip(*ends, strict=True))

    got, want = both(params, inputs)
    assert_close(got, want)


def noisy():
    cell = rnn_cell.DropoutWrapper(rnn_cell.GRUCell(4), output_keep_prob=0.5)
    return cell, setting("gru")[1], jnp.ones((B, T, DEPTH))


def test_dropout_takes_a_key_and_one_key_gives_one_result():
    cell, params, inputs = noisy()
    run = lambda cell, key: np.asarray(dynamic_rnn(cell, params, inputs, dtype=FLOAT, key=key)[0])
    first, again, other = (run(cell, jax.random.key(seed)) for seed in (0, 0, 1))
    quiet = run(rs.wrap.deterministic(cell), None)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    kept = first != 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(first[kept], 2 * quiet[kept], rtol=1e-12)  # the cell's own state is not dropped


def test_every_loop_hands_the_key_on():
    cell, params, inputs = noisy()
    steps, pair, key = steps_of(inputs, False), (params, params), jax.random.key(0)
    first = np.asarray(static_rnn(cell, params, steps, dtype=FLOAT, key=key)[0][0])
    np.testing.assert_array_equal(first, dynamic_rnn(cell, params, inputs, dtype=FLOAT, key=key)[0][:, 0])
    (fw, bw), _ = bidirectional_dynamic_rnn(cell, cell, pair, inputs, dtype=FLOAT, key=key)
    forward = dynamic_rnn(cell, params, inputs, dtype=FLOAT, key=jax.random.fold_in(key, 0))[0]
    np.testing.assert_array_equal(fw, forward)
    assert ((bw == 0) != (fw == 0)).any()  # each direction has noise of its own
    quiet = rnn_cell.GRUCell(4)
    (fw, _), _ = bidirectional_dynamic_rnn(quiet, cell, pair, inputs, dtype=FLOAT, key=key)
    assert (np.asarray(fw) != 0).all()
    layers = stack_bidirectional_dynamic_rnn([cell], [cell], ([params], [params]), inputs, dtype=FLOAT, key=key)
    assert 0.2 < np.mean(np.asarray(layers[0]) == 0) < 0.8


@pytest.mark.parametrize("loop", [dynamic_rnn, static_rnn])
def test_second_call_compiles_nothing(loop):
    cell, params, inputs, _ = setting("gru", time_major=False)
    given = inputs if loop is dynamic_rnn else steps_of(inputs, False)
    run = lambda: loop(rnn_cell.GRUCell(4), params, given, sequence_length=LENGTHS, dtype=FLOAT)
    run()
    with count_compiles() as compiled:
        run()
    assert compiled == []


def test_traced_lengths_are_clipped():
    cell, params, inputs, _ = setting("gru", time_major=False)
    run = lambda lengths: dynamic_rnn(cell, params, inputs, lengths, dtype=FLOAT)
    assert_close(jax.jit(run)(jnp.array([9, -2, 1])), run(jnp.array([T, 0, 1])))

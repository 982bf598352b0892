"""The lines of the contract that a table of options does not show: compiling, devices, dtypes, keys, batch axes."""

import gc
import sys
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import rnnscan as rs
from rnnscan._jaxpr.cost import flops
from rnnscan._options import METHODS
from tests.helpers import CELLS, ROWS, assert_close, count_compiles, library


progress_rewrite = sys.modules["rnnscan._rewrite.progress"]  # the package has a function of that name

XS = 0.2 + jnp.arange(30.0).reshape(5, 2, 3) / 20


def elman(params, h, x):
    h = jnp.tanh(x @ params["w_x"] + h @ params["w_h"])
    return h, h


ELMAN_PARAMS = {"w_x": jnp.arange(12.0).reshape(3, 4) / 10 - 0.5, "w_h": jnp.eye(4) * 0.7 + 0.1}


# Line 9: nothing is compiled twice, and nothing dead is kept.


@pytest.mark.parametrize("method", ["sequential", "unrolled"])
@pytest.mark.parametrize(
    "again", [lambda: rs.cells.LSTM(3, 4), lambda: elman], ids=["an equal cell", "the same function"]
)
def test_a_second_call_compiles_nothing(again, method):
    cell = again()
    params = cell.init(jax.random.key(0)) if cell is not elman else ELMAN_PARAMS
    carry = None if cell is not elman else jnp.zeros((2, 4))

    def loss(params, cell):
        return rs.scan(cell, params, carry, XS, lengths=jnp.array([5, 2]), method=method)[1].sum()

    call = lambda: jax.block_until_ready((loss(params, again()), jax.grad(loss)(params, again())))
    call()
    with count_compiles() as compiled:
        call()
    assert compiled == []
    with count_compiles() as compiled:
        rs.scan(again(), params, carry, XS[:4], method=method)
    assert compiled  # the counter counts


def test_a_second_call_does_not_trace_the_cell_again():
    traces = []

    def cell(params, h, x):
        traces.append(1)
        return h + params * x, h

    rs.scan(cell, 2.0, 0.0, XS[:, 0, 0])
    once = len(traces)
    rs.scan(cell, 2.0, 0.0, XS[:, 0, 1])
    assert 1 <= once <= 3 and len(traces) == once


def test_other_values_of_lengths_compile_nothing():
    run = lambda lengths: rs.scan(elman, ELMAN_PARAMS, jnp.zeros((2, 4)), XS, lengths=lengths)
    run(np.array([5, 5]))
    with count_compiles() as compiled:
        run(np.array([0, 3]))
    assert compiled == []


def test_a_dead_closure_is_not_kept_alive():
    def make(scale):
        def cell(params, h, x):
            return h + scale * x, h

        return cell

    cell = make(jnp.asarray(2.0))
    integrator = rs.ode.Euler(partial(lambda scale, params, t, y, u: scale * y + u, 2.0), 0.1)
    rs.scan(cell, None, 0.0, XS[:, 0, 0])
    rs.scan(integrator, None, integrator.start(0.0), XS[:, 0, 0])
    watched = [weakref.ref(cell), weakref.ref(integrator.field)]
    del cell, integrator
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


def test_closed_over_values_that_change_are_seen():
    weights = {"w": 2.0}
    scale = jnp.asarray(1.0)

    def cell(params, h, x):
        return h + weights["w"] * scale * x, h

    run = lambda: float(rs.scan(cell, None, 0.0, jnp.ones(3))[0])
    assert run() == 6.0
    weights["w"] = 5.0
    assert run() == 15.0
    scale = jnp.asarray(2.0)
    assert run() == 30.0


def test_a_numpy_array_changed_in_place_is_seen():
    """`w -= rate * gradient`: the same object, other numbers; the same numbers compile nothing."""
    w = np.array([2.0, 1.0])
    step = lambda params, h, x: (h + w[0] * x, h)
    run = lambda: float(rs.scan(step, None, 0.0, jnp.ones(3))[0])
    stop = lambda: int(rs.scan_until(step, None, 0.0, jnp.ones(3), until=lambda h, y: h > w[1]).n_steps)
    assert (run(), stop()) == (6.0, 1)
    w -= np.array([1.0, -1.0])
    assert (run(), stop()) == (3.0, 3)
    w += 0.0
    with count_compiles() as compiled:
        run()
    assert compiled == []


# Line 12: closed-over arrays get gradients, eagerly and compiled; jax.grad meets them as tracers.


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_closed_over_arrays_get_gradients(wrap):
    class Layer:
        """A step in the manner of Keras: the weights are attributes."""

        def step(self, params, h, x):
            return elman({"w_x": self.w_x, "w_h": self.w_h}, h, x)

    layer = Layer()

    def closed(weights):
        layer.w_x, layer.w_h = weights["w_x"], weights["w_h"]
        return jnp.sum(jnp.cos(rs.scan(layer.step, None, jnp.zeros((2, 4)), XS)[1]))

    def passed(weights):
        return jnp.sum(jnp.cos(rs.scan(elman, weights, jnp.zeros((2, 4)), XS)[1]))

    assert_close(wrap(jax.value_and_grad(closed))(ELMAN_PARAMS), jax.value_and_grad(passed)(ELMAN_PARAMS))
    assert_close(closed(ELMAN_PARAMS), passed(ELMAN_PARAMS))  # and afterwards without a gradient


# Lines 3 and 4: what stands in padding, rows and steps that are not there.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_of_any_kind_changes_nothing(bad, reverse):
    lengths = jnp.array([2, 5])
    valid = (jnp.arange(5)[:, None] < lengths)[..., None]
    spoilt = jnp.where(valid, XS, bad)

    def loss(params, xs, h):
        carry, ys = rs.scan(elman, params, h, xs, lengths=lengths, reverse=reverse)
        return jnp.sum(jnp.cos(ys)) + jnp.sum(carry**2)

    run = jax.value_and_grad(loss, argnums=(0, 1, 2))
    assert_close(
        run(ELMAN_PARAMS, spoilt, jnp.ones((2, 4))), run(ELMAN_PARAMS, jnp.where(valid, XS, 0.7), jnp.ones((2, 4)))
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("n_steps", [0, 3])
def test_no_rows_and_no_steps_also_without_jit(n_steps, rows, method):
    cell = rs.cells.LSTM(3, 4)
    params = cell.init(jax.random.key(1))
    xs = jnp.ones((n_steps, rows, 3))
    lengths = jnp.zeros(rows, jnp.int32)
    run = lambda params: rs.scan(cell, params, None, xs, lengths=lengths, method=method)
    with jax.disable_jit():
        (h, c), ys = run(params)
        gradient = jax.grad(lambda params: run(params)[1].sum())(params)
    assert h.shape == c.shape == (rows, 4) and ys.shape == (n_steps, rows, 4)
    assert h.dtype == ys.dtype == jnp.float64
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves((h, c, ys, gradient)))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_any_batch_axes(batch):
    cell = rs.cells.GRU(3, 4)
    params = cell.init(jax.random.key(0))
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(5, *batch, 3)))
    lengths = jnp.asarray(np.resize([3, 0, 5], batch).astype(np.int32))
    h, ys = rs.scan(cell, params, None, xs, lengths=lengths)
    for row in np.ndindex(batch):
        n = int(lengths[row])
        want_h, want_ys = rs.scan(cell, params, None, xs[(slice(n), *row)], method="reference")
        assert_close((h[row], ys[(slice(n), *row)]), (want_h, want_ys))
        assert np.all(ys[(slice(n, None), *row)] == 0)


# Line 5: the carry's dtypes.


def in_dtype(tree, dtype):
    """A tree with its floats in a dtype."""
    kind = lambda leaf: dtype if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.dtype
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).astype(kind(leaf))), tree)


@pytest.mark.parametrize("case", CELLS, ids=repr)
def test_low_precision_is_kept_and_close_and_compiled_once(case):
    noise = jax.random.key(3) if case.stochastic else None
    rounded = case.make(jax.random.key(0), 5, jnp.bfloat16)  # the same numbers in each dtype
    results = {}
    for dtype in (jnp.float64, jnp.float32, jnp.bfloat16):
        params, carry, xs = in_dtype(rounded, dtype)
        cell, params = case.bind(case.cell, params)
        run = partial(rs.scan, cell, params, carry, xs, n_steps=5, lengths=jnp.array([5, 0, 3]), key=noise)
        results[dtype] = jax.tree.leaves(run())
        with count_compiles() as compiled:
            run()
        assert compiled == []
    for dtype, low in results.items():
        assert {a.dtype for a in low if jnp.issubdtype(a.dtype, jnp.inexact)} == {jnp.dtype(dtype)}
        if case.stochastic:
            continue  # other dtypes draw other numbers
        for a, b in zip(low, results[jnp.float64], strict=True):
            scale = float(jnp.finfo(dtype).eps) if jnp.issubdtype(a.dtype, jnp.inexact) else 0
            np.testing.assert_allclose(
                np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=30 * scale, atol=30 * scale
            )


def test_weak_leaves_are_promoted_to_a_fixpoint():
    def chain(params, carry, x):  # each leaf takes its type from the one before, one step later
        a, b, c, d = carry
        return (a + x, a, b, c), d

    carry, ys = rs.scan(chain, None, (0, 0, 0, 0), jnp.ones(6, jnp.float32))
    assert [leaf.dtype for leaf in carry] == [jnp.float32] * 4
    np.testing.assert_array_equal(ys, np.array([0, 0, 0, 0, 1, 2], np.float32))


# Line 6: derivatives under the transformations.


def loss_of_rows(params, xs, carry):
    ys = rs.scan(elman, params, carry, xs, lengths=jnp.full(xs.shape[1:2], 4))[1]
    return jnp.sum(jnp.cos(ys))


def test_gradients_under_vmap_and_of_vmap():
    xs = jnp.stack([XS, XS[::-1], XS * 0.5])
    carry = jnp.zeros((2, 4))
    one_by_one = [jax.value_and_grad(loss_of_rows)(ELMAN_PARAMS, x, carry) for x in xs]
    together = jax.vmap(jax.value_and_grad(loss_of_rows), (None, 0, None))(ELMAN_PARAMS, xs, carry)
    assert_close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one))
    total = jax.grad(lambda p: jax.vmap(loss_of_rows, (None, 0, None))(p, xs, carry).sum())(ELMAN_PARAMS)
    assert_close(total, jax.tree.map(lambda *leaves: sum(leaves), *(g for _, g in one_by_one)))


@pytest.mark.parametrize("carry", [None, "zeros"])
@pytest.mark.parametrize("method", METHODS)
def test_rows_split_over_devices(method, carry):
    """Inside `shard_map` a carry of zeros is the same on all devices, and the loop makes it differ."""
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    cell = rs.cells.LSTM(3, 4)
    params = cell.init(jax.random.key(0))
    lengths = jnp.array([3, 5])

    def local(params, xs, lengths):
        start = None if carry is None else cell.initial_carry((xs.shape[1],), params=params)
        ys = rs.scan(cell, params, start, xs, lengths=lengths, method=method, masked_output="hold")[1]
        return jax.lax.psum(jnp.sum(jnp.cos(ys)), "rows")

    sharded = jax.shard_map(local, mesh=mesh, in_specs=(P(), P(None, "rows"), P("rows")), out_specs=P())
    whole = lambda params, xs, lengths: jnp.sum(
        jnp.cos(rs.scan(cell, params, None, xs, lengths=lengths, masked_output="hold")[1])
    )
    got, want = (jax.jit(jax.value_and_grad(f))(params, XS, lengths) for f in (sharded, whole))
    assert_close(got, want)


# Line 11: randomness.


def test_noise_is_drawn_from_the_key_and_the_absolute_step():
    def cell(params, carry, x, rng):
        return carry, (jax.random.normal(rng.per_step()), jax.random.normal(rng.per_sequence()))

    key = jax.random.key(5)
    want = [jax.random.normal(jax.random.fold_in(key, t)) for t in range(6)], [jax.random.normal(key)] * 6
    for options in ({}, {"unroll": 4}, {"reverse": True}, {"method": "unrolled"}, {"method": "reference"}):
        _, ys = rs.scan(cell, None, None, None, n_steps=6, key=key, **options)
        assert_close(ys, tuple(map(jnp.stack, want)))


def test_children_and_their_steps_have_keys_of_their_own():
    rng = rs.Rng(jax.random.key(0), jnp.asarray(2, jnp.int32))
    want = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 2)
    assert jax.random.key_data(rng.child(1).per_step()).tolist() == jax.random.key_data(want).tolist()


# Line 8: what `debug` finds, and `progress` shows.


def root(params, h, x):
    h = {"h": jnp.sqrt(x - h["h"])}
    return h, {"y": h["h"] * params}


def test_debug_names_step_row_and_leaf():
    xs = jnp.full((6, 3), 2.0).at[4, 1].set(-1.0)
    with pytest.raises(rs.NonFiniteError, match=r"`carry\['h'\]` is nan at step 4, row 1"):
        rs.scan(root, 1.0, {"h": jnp.zeros(3)}, xs, lengths=jnp.array([6, 6, 6]), debug=True)
    with pytest.raises(rs.NonFiniteError, match=r"`ys\['y'\]` is inf at step 0, row 0"):
        rs.scan(root, 1.7e308, {"h": jnp.zeros(3)}, xs, lengths=jnp.array([6, 6, 6]), debug=True)
    with pytest.raises(rs.NonFiniteError, match=r"`xs\['a'\]` is nan at step 2 \(index \(1,\)\).*the data hold it"):
        rs.scan(lambda p, c, x: (c, x["a"]), None, None, {"a": jnp.ones((4, 2)).at[2, 1].set(jnp.nan)}, debug=True)
    with pytest.raises(rs.NonFiniteError, match=r"`carry\['h'\]` is inf.*before the first step"):
        rs.scan(root, 1.0, {"h": jnp.full(3, -jnp.inf)}, xs, debug=True)
    with pytest.raises(rs.NonFiniteError, match=r"`params\['b'\]` is nan \(index \(2,\)\) before the first step"):
        rs.scan(lambda p, c, x: (c + p["b"] * x, c), {"b": jnp.array([1, 1, jnp.nan])}, jnp.zeros(3), xs, debug=True)
    rs.scan(root, 1.0, {"h": jnp.zeros(3)}, xs, lengths=jnp.array([6, 4, 6]), debug=True)  # the bad step is padding


@pytest.mark.parametrize("under", [jax.jit, jax.grad], ids=["jit", "grad of jit"])
def test_debug_prints_once_under_a_transformation(under, capsys):
    xs = jnp.full((6, 3), 2.0).at[4, 1].set(-1.0)
    run = jax.jit(lambda p: rs.scan(root, p, {"h": jnp.zeros(3)}, xs, debug=True)[1]["y"].sum())
    jax.block_until_ready(under(run)(1.0))
    jax.effects_barrier()
    printed = capsys.readouterr().out
    assert printed.count("`carry['h']` is nan at step 4") == 1 and printed.count("\n") == 1


@pytest.mark.parametrize("under", [lambda f: f, jax.jit, jax.grad], ids=["eager", "jit", "grad"])
def test_progress_reaches_the_end(under, capsys):
    run = partial(rs.scan, lambda p, h, x: (jnp.cos(p * h), None), xs=None, n_steps=250, progress=True)
    jax.block_until_ready(under(lambda p: run(p, 0.5)[0])(0.9))
    jax.effects_barrier()
    shown = capsys.readouterr().err
    assert "250/250" in shown and "100%" in shown


def test_progress_and_debug_change_no_result():
    case = library(rs.cells.GRU(3, 4))
    params, _, xs = case.make(jax.random.key(0), 5)
    want = rs.scan(case.cell, params, None, xs)
    assert_close(rs.scan(case.cell, params, None, xs, progress=True, debug=True), want)
    assert want[1].shape == (5, ROWS, 4)


@pytest.mark.parametrize("reverse", [False, True])
def test_progress_moves_inside_a_loop_that_takes_long(reverse, capsys, monkeypatch):
    """Made to believe that every step takes long, the bar moves inside the loop, where it asks at each step."""
    cell = lambda p, h, x: (jnp.cos(p * h + x), h)
    run = lambda **options: rs.scan(cell, 0.9, 0.5, jnp.arange(40.0), reverse=reverse, **options)
    conds = lambda **options: str(jax.make_jaxpr(lambda: run(**options))()).count("cond[")
    want = run()
    assert conds(progress=True) == 0  # over in no time: nothing is asked
    monkeypatch.setattr(progress_rewrite, "_SECONDS_A_STEP", 1.0)
    monkeypatch.setattr(progress_rewrite, "_SECONDS_UNSEEN", 0.0)
    cell = lambda p, h, x: (jnp.cos(p * h + x), h)  # a new cell, a new program
    assert conds(progress=True) == 1
    assert_close(run(progress=True), want)
    jax.effects_barrier()
    assert "40/40" in capsys.readouterr().err


def test_flops_counts_products_and_loops():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert flops(lambda a, b: a @ b, a, b) == 2 * 3 * 4 * 5
    assert flops(lambda a, b: jnp.tanh(a @ b), a, b) == 2 * 3 * 4 * 5 + 15
    assert flops(lambda a, b: jax.lax.scan(lambda c, _: (c, a @ b), 0.0, None, 7)[1], a, b) == 7 * 2 * 3 * 4 * 5


class Nested:
    """Weights at the end of several attributes, as in layers of layers."""

    def __init__(self, w):
        self.inner = type("Inner", (), {})()
        self.inner.parts = [{"w": w}]

    def set(self, w):
        self.inner.parts[0]["w"] = w

    def step(self, params, h, x):
        return h + self.inner.parts[0]["w"] * x, h


MODEL = Nested(jnp.ones(3))


def reads_a_global(params, h, x):
    return MODEL.step(params, h, x)


@pytest.mark.parametrize(
    "make",
    [lambda m: m.step, lambda m: lambda p, h, x: m.step(p, h, x), lambda m: reads_a_global, lambda m: partial(m.step)],
    ids=["method", "closure over an object", "global object", "partial"],
)
def test_weights_inside_objects_are_seen_and_get_gradients(make):
    cell, xs = make(MODEL), jnp.ones((2, 3))

    def loss(w):
        MODEL.set(w)
        return rs.scan(cell, None, jnp.zeros(3), xs)[0].sum()

    assert loss(jnp.ones(3)) == 6  # eagerly first, so that a program is there
    for _ in range(2):
        np.testing.assert_array_equal(jax.grad(loss)(jnp.ones(3)), np.full(3, 2.0))
        assert jax.jit(loss)(jnp.full(3, 4.0)) == 24
    assert loss(jnp.full(3, 5.0)) == 30

"""The lines of the contract that a table of options does not show: padding, dtypes, transformations, randomness."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import rnnscan as rs
from rnnscan._options import METHODS
from tests.helpers import CELLS, ELMAN_PARAMS, XS, assert_close, count_compiles, elman


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

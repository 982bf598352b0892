"""`tbptt` against its definition: each block's loss differentiated over its own window, by a plain Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.helpers import ROWS, assert_close, compile_quickly, count_compiles, library


T = 5
GRU = library(rs.cells.GRU(3, 4))
PARAMS, _, XS = GRU.make(jax.random.key(0), T)
CARRY = 0.3 + jnp.arange(12.0).reshape(ROWS, 4) / 9
VALID = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
RESETS = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]], bool)


def noisy(params, h, x, rng):
    h, y = GRU.cell(params, h, x)
    return h + 0.1 * jax.random.normal(rng.per_step(), h.shape), y


def run_plainly(cell, params, carry, fresh, xs, steps, flags, key):
    """The steps of one window in a Python loop: the carry after it, and each step's output."""
    valid, resets = flags
    ys = []
    for t in steps:
        start = carry if resets is None else jnp.where(resets[t][:, None], fresh, carry)
        new, y = cell(params, start, xs[t]) if key is None else cell(params, start, xs[t], rs.Rng(key, jnp.int32(t)))
        counts = jnp.ones(ROWS, bool) if valid is None else jnp.asarray(valid[t])
        carry = jnp.where(counts[:, None], new, carry)
        ys.append(jnp.where(counts[:, None], y, 0.0))
    return carry, ys


def weighed(ys, first):
    """A curved sum with a weight for every number, the one of step `first` being the first."""
    weights = 1 + jnp.arange(float(T * ROWS * 4)).reshape(T, ROWS, 4) / 7
    return sum(jnp.sum(weights[first + i] * jnp.cos(y + 0.3)) for i, y in enumerate(ys))


def by_definition(cell, k1, k2, flags, key):
    """Value and gradient: block by block, window by window, with the carry before the window as a constant."""

    def window_loss(params, carry, xs, j, cut):
        end = min((j + 1) * k1, T)
        start = max(0, end - k2)
        fresh = carry
        if start > 0:
            carry, _ = run_plainly(cell, params, carry, fresh, xs, range(start), flags, key)
            carry = jax.lax.stop_gradient(carry) if cut else carry
        last, ys = run_plainly(cell, params, carry, fresh, xs, range(start, end), flags, key)
        value = weighed(ys[j * k1 - start :], j * k1)
        return value + (jnp.sum(jnp.sin(last)) if end == T else 0.0)

    def total(params, carry, xs):
        return sum(window_loss(params, carry, xs, j, True) for j in range(-(-T // k1)))

    return jax.value_and_grad(total, (0, 1, 2))


def ours(cell, k1, k2, options):
    def loss(params, carry, xs):
        carry, ys = rs.train.tbptt(cell, params, carry, xs, k1=k1, k2=k2, **options)
        return weighed(list(ys), 0) + jnp.sum(jnp.sin(carry))

    return jax.value_and_grad(loss, (0, 1, 2))


CASES = [
    (1, 1, {}),
    (2, 2, {"mask": VALID}),
    (2, 3, {"resets": RESETS}),
    (3, 4, {"mask": VALID, "resets": RESETS}),
    (1, 3, {"key": jax.random.key(2)}),
    (2, 9, {"lengths": np.array([5, 2, 0])}),
]


@pytest.mark.parametrize(("k1", "k2", "options"), CASES, ids=lambda v: str(v) if isinstance(v, int) else "+".join(v))
def test_equals_the_definition(k1, k2, options):
    cell = noisy if "key" in options else GRU.cell
    valid = options.get("mask")
    if "lengths" in options:
        valid = np.arange(T)[:, None] < options["lengths"]
    flags = (valid, options.get("resets"))
    want = compile_quickly(by_definition(cell, k1, k2, flags, options.get("key")))(PARAMS, CARRY, XS)
    assert_close(compile_quickly(ours(cell, k1, k2, options))(PARAMS, CARRY, XS), want)


def test_windows_over_the_whole_are_full_backpropagation():
    def loss(params, carry, xs):
        carry, ys = rs.scan(GRU.cell, params, carry, xs)
        return weighed(list(ys), 0) + jnp.sum(jnp.sin(carry))

    want = compile_quickly(jax.value_and_grad(loss, (0, 1, 2)))(PARAMS, CARRY, XS)
    for k1, k2 in ((5, 5), (2, 5), (3, 9)):
        assert_close(compile_quickly(ours(GRU.cell, k1, k2, {}))(PARAMS, CARRY, XS), want)


def test_a_closed_form():
    """h_t = w h_{t-1} + x_t, y_t = h_t: with k1 = 1 only the last k2 inputs reach the gradient of y_t."""
    w, xs = 0.7, np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    cell = lambda w, h, x: (w * h + x, w * h + x)
    for k2 in (1, 2, 3):
        got = jax.jacobian(lambda xs: rs.train.tbptt(cell, w, 3.0, xs, k1=1, k2=k2)[1])(xs)  # noqa: B023
        want = [[w ** (t - s) if 0 <= t - s < k2 else 0.0 for s in range(5)] for t in range(5)]
        assert_close(got, jnp.array(want))


def test_no_derivative_leaves_through_what_the_cell_closes_over():
    def loss(w, passed):
        cell = (lambda p, h, x: (p * h + x, h)) if passed else (lambda _, h, x: (w * h + x, h))
        return jnp.sum(rs.train.tbptt(cell, w if passed else None, 1.0, jnp.arange(1.0, 6.0), k1=2, k2=3)[1] ** 2)

    for derivative in (jax.grad, jax.hessian, jax.jacfwd):
        assert_close(derivative(loss)(0.7, False), derivative(loss)(0.7, True))
    assert jax.grad(loss)(0.7, True) != jax.grad(lambda w: jnp.sum(
        rs.scan(lambda p, h, x: (p * h + x, h), w, 1.0, jnp.arange(1.0, 6.0))[1] ** 2))(0.7)  # fmt: skip


def test_shapes_no_steps_no_rows_no_input_and_another_time_axis():
    count = lambda params, n, x: (n + 1, 10 * n)
    assert_close(rs.train.tbptt(count, None, 0, k1=2, k2=3, n_steps=5),
                 (jnp.array(5, int), jnp.array([0, 10, 20, 30, 40], int)))  # fmt: skip
    carry, ys = rs.train.tbptt(GRU.cell, PARAMS, None, XS[:0], k1=2, k2=3)
    assert_close((carry, ys), (jnp.zeros((ROWS, 4)), jnp.zeros((0, ROWS, 4))))
    carry, ys = rs.train.tbptt(GRU.cell, PARAMS, None, XS[:, :0], k1=2, k2=3, lengths=np.zeros(0, int))
    assert_close((carry, ys), (jnp.zeros((0, 4)), jnp.zeros((T, 0, 4))))
    got = rs.train.tbptt(GRU.cell, PARAMS, None, jnp.swapaxes(XS, 0, 1), k1=2, k2=3, time_axis=1)
    carry, ys = rs.scan(GRU.cell, PARAMS, None, XS)
    assert_close(got, (carry, jnp.swapaxes(ys, 0, 1)))


def test_rows_split_over_devices():
    """The carry that a window starts from is found by a loop of its own, which differs from device to device."""
    mesh = jax.make_mesh((ROWS,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))

    def loss(params, xs):
        ys = rs.train.tbptt(GRU.cell, params, jnp.zeros((xs.shape[1], 4)), xs, k1=1, k2=2)[1]
        return jnp.sum(jnp.cos(ys))

    local = lambda params, xs: jax.lax.psum(loss(params, xs), "rows")
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(jax.P(), jax.P(None, "rows")), out_specs=jax.P())
    got, want = (jax.jit(jax.value_and_grad(f))(PARAMS, XS) for f in (sharded, loss))
    assert_close(got, want)


def test_windows_hold_no_steps_that_do_not_exist():
    """However far back k2 and k1 would reach."""
    run = lambda k1, k2: str(jax.make_jaxpr(lambda p: rs.train.tbptt(GRU.cell, p, CARRY, XS, k1=k1, k2=k2))(PARAMS))
    assert run(2, 10_000) == run(2, T)
    assert run(10_000, 10_000) == run(T, T)


def test_a_second_call_compiles_nothing():
    run = lambda: rs.train.tbptt(GRU.cell, PARAMS, CARRY, XS, k1=2, k2=3)
    run()
    with count_compiles() as compiled:
        run()
    assert not compiled


BAD = [
    ({"k1": 0}, ValueError, "`k1` must be >= 1, got 0"),
    ({"k2": 2.5}, TypeError, "`k2` must be an int.*2.5"),
    ({"k1": 3, "k2": 2}, ValueError, "first 1 steps of each block would get no derivative"),
    ({"reverse": True}, ValueError, "does not take `reverse=True`"),
    ({"outputs": "last"}, ValueError, "rs.last_valid"),
    ({"masked_output": "hold"}, ValueError, "masked step is zero here"),
    ({"window": 3}, TypeError, "unexpected keyword argument `window`"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        rs.train.tbptt(GRU.cell, PARAMS, CARRY, XS, **{"k1": 2, "k2": 3, **change})

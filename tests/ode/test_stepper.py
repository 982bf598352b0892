"""Integrators as cells: their formulas, convergence orders, clock, batches, derivatives and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnscan.ode import RK4, Euler, Heun, Midpoint, RungeKutta, Tableau


METHODS = {"Euler": (Euler, 1), "Midpoint": (Midpoint, 2), "Heun": (Heun, 2), "RK4": (RK4, 4)}
every_method = pytest.mark.parametrize(("method", "order"), METHODS.values(), ids=METHODS)


def bend(p, t, y, u):
    """`dy/dt = p cos(t) y^2`, with the solution `y = 1 / (1/y0 - p sin(t))`."""
    del u
    return p * jnp.cos(t) * y**2


def driven(p, t, y, u):
    return jnp.sin(p * t) * y**2 + u


def integrate(cell, params, carry, n, us=None):
    return jax.jit(lambda carry: jax.lax.scan(lambda c, u: cell(params, c, u), carry, us, length=n))(carry)


@every_method
def test_the_error_falls_with_the_order_of_the_method(method, order):
    # to t = 1, before the error's leading terms cancel in part as the solution turns back
    y0, t_end, errors = 0.5, 1.0, []
    for n in (64, 128):
        cell = method(bend, t_end / n)
        (k, y), _ = integrate(cell, 1.0, cell.start(y0), n)
        assert int(k) == n
        errors.append(abs(float(y) - 1 / (1 / y0 - np.sin(t_end))))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.1


def by_hand(name, f, t, y, dt):
    """One step, written out as in a textbook."""
    if name == "Euler":
        return y + dt * f(t, y)
    if name == "Midpoint":
        return y + dt * f(t + dt / 2, y + dt / 2 * f(t, y))
    if name == "Heun":
        return y + dt / 2 * (f(t, y) + f(t + dt, y + dt * f(t, y)))
    k1 = f(t, y)
    k2 = f(t + dt / 2, y + dt / 2 * k1)
    k3 = f(t + dt / 2, y + dt / 2 * k2)
    k4 = f(t + dt, y + dt * k3)
    return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


@pytest.mark.parametrize("name", METHODS)
def test_steps_with_input_equal_the_textbook(name):
    dt, t0, p = -0.3, 0.7, 1.3
    cell = METHODS[name][0](driven, dt, t0)
    y = want = np.asarray([0.4, -0.9])
    carry = cell.start(y)
    for k, u in enumerate([0.2, -0.5, 1.1]):
        carry, y = cell(p, carry, jnp.asarray(u))
        want = by_hand(name, lambda t, y, u=u: np.sin(p * t) * y**2 + u, t0 + k * dt, want, dt)
        np.testing.assert_allclose(y, want, rtol=1e-13)
        np.testing.assert_array_equal(carry[1], y)


@every_method
def test_integrating_there_and_back_returns_to_the_start(method, order):
    there, back = method(bend, 0.01), method(bend, -0.01, t0=1.0)
    (_, y), _ = integrate(there, 1.0, there.start(0.5), 100)
    (_, y), _ = integrate(back, 1.0, back.start(y), 100)
    assert abs(float(y) - 0.5) < 0.01**order


def slope_is_time(p, t, y, u):
    return t + jnp.zeros_like(y)


def test_time_does_not_drift():
    n, dt = 10**5, np.float32(0.1)
    cell = Euler(lambda p, t, y, u: jnp.zeros_like(y), 0.1, t0=3.0)
    carry, _ = integrate(cell, None, cell.start(jnp.float32(0)), n)
    probe = Euler(slope_is_time, 0.1, t0=3.0)
    (k, _), y = probe(None, carry, None)
    t = y.astype(float) / 0.1
    assert int(k) == n + 1
    # one product, one sum, one product and one division in float32
    assert abs(float(t) - (3 + n * 0.1)) < 2 * (3 + n * 0.1) * np.finfo(np.float32).eps
    drifting = np.cumsum(np.full(n, dt, np.float32), dtype=np.float32)[-1]
    assert abs(drifting - n * 0.1) > 1  # what a clock that adds up its steps would show


def test_half_precision_counts_past_256():
    cell = Euler(lambda p, t, y, u: jnp.where(t == 300, 1.0, 0.0), 1.0)
    (k, y), _ = integrate(cell, None, cell.start(jnp.bfloat16(0)), 400)
    assert int(k) == 400 and float(y) == 3  # 299, 300 and 301 are all 300 in bfloat16


@every_method
def test_steps_given_as_input_equal_fixed_ones(method, order):
    fixed, free = method(driven, 0.25, t0=0.5), method(driven, None, t0=0.5)  # 0.25 adds up without rounding
    us = jnp.asarray([0.2, -0.5, 1.1, 0.3])
    y0 = jnp.asarray([0.4, -0.9])
    _, want = integrate(fixed, 1.3, fixed.start(y0), 4, us)
    (t, _), got = integrate(free, 1.3, free.start(y0), 4, (jnp.full(4, 0.25), us))
    assert float(t) == 1.5
    np.testing.assert_allclose(got, want, rtol=1e-14)


def test_every_row_may_have_its_own_step():
    free = RK4(lambda p, t, y, u: t[:, None] * y, None, t0=0.5)
    y0 = jnp.asarray([[0.4, -0.9], [1.2, 0.3]])
    (t, y), _ = free(None, free.start(y0, (2,)), (jnp.asarray([0.1, 0.4]), None))
    np.testing.assert_allclose(t, [0.6, 0.9], rtol=1e-15)
    for row, dt in enumerate((0.1, 0.4)):
        want = by_hand("RK4", lambda t, y: t * y, 0.5, np.asarray(y0[row]), dt)
        np.testing.assert_allclose(y[row], want, rtol=1e-14)


def test_a_step_size_can_be_learned():
    free = Euler(lambda p, t, y, u: -y, None)
    last = lambda dt: integrate(free, None, free.start(2.0), 3, (jnp.broadcast_to(dt, 3), None))[0][1]
    np.testing.assert_allclose(jax.grad(last)(0.1), -3 * 2.0 * 0.9**2, rtol=1e-13)


def test_derivatives_of_every_order():
    """Euler on `dy/dt = -p y` gives `y0 (1 - p dt)^n`, whose derivatives in p are known."""
    n, dt, p = 5, 0.1, 0.8
    cell = Euler(lambda p, t, y, u: -p * y, dt)
    value = lambda p: jax.lax.scan(lambda c, u: cell(p, c, u), cell.start(2.0), None, length=n)[0][1]
    want = 2.0 * (1 - p * dt) ** n
    derivative = value
    for i in range(4):
        np.testing.assert_allclose(jax.jit(derivative)(p), want, rtol=1e-12)
        want *= -dt * (n - i) / (1 - p * dt)
        derivative = (jax.grad, jax.jacfwd)[i % 2](derivative)


def test_y_may_be_any_tree_and_complex():
    def field(p, t, y, u):
        return {"z": 1j * y["z"], "pair": (y["pair"][1], -y["pair"][0])}

    cell = RK4(field, 0.01)
    y0 = {"z": jnp.asarray(1.0 + 0j), "pair": (0.0, 1)}
    (_, y), _ = integrate(cell, None, cell.start(y0), 100)
    # sin and cos by a method of order 4: the error is below t dt^4 / 120
    np.testing.assert_allclose(y["z"], np.exp(1j), rtol=0, atol=1e-10)
    np.testing.assert_allclose(y["pair"], (np.sin(1), np.cos(1)), rtol=0, atol=1e-10)


def test_start_broadcasts_what_lacks_the_batch_axes_and_makes_floats():
    k, (a, b, c) = Euler(bend, 0.1).start((jnp.arange(3), jnp.arange(6.0).reshape(2, 3), 4), (2,))
    assert (k.shape, k.dtype, int(k.sum())) == ((2,), jnp.int32, 0)
    np.testing.assert_array_equal(a, [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(b, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(c, [4, 4])
    assert {leaf.dtype for leaf in (a, b, c)} == {jnp.dtype(jnp.float64)}
    assert not any(jax.typeof(leaf).weak_type for leaf in (k, a, b, c))
    t, y = Euler(bend, None, t0=2.5).start(jnp.ones(3, jnp.bfloat16), (2,))
    assert (t.shape, t.dtype, float(t[1])) == ((2,), jnp.float32, 2.5) and y.dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64], ids=lambda d: jnp.dtype(d).name)
@pytest.mark.parametrize("dt", [0.5, None])
def test_dtypes_and_shapes_that_the_field_gets(dt, dtype):
    seen = []

    def field(p, t, y, u):
        seen.append((t.shape, t.dtype))
        return t[:, None].astype(y.dtype) * y

    cell = RK4(field, dt)
    x = None if dt else (jnp.full(2, 0.5, jnp.float32), None)
    carry = cell.start(jnp.ones(3, dtype), (2,))
    after, y = cell(None, carry, x)
    assert set(seen) == {((2,), jnp.dtype(jnp.bfloat16 if dtype == jnp.bfloat16 else jnp.float32))} and len(seen) == 4
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, carry)
    want = by_hand("RK4", lambda t, y: t * y, 0.0, 1.0, 0.5)
    np.testing.assert_allclose(np.asarray(y, complex).real, want, rtol=8 * float(jnp.finfo(dtype).eps))


def test_equal_settings_make_equal_cells():
    a, b = RK4(bend, 1, t0=0), RK4(bend, np.float64(1.0))
    assert a == b and hash(a) == hash(b) and repr(a) == "RK4(bend, dt=1.0, t0=0.0)"
    assert len({RK4(bend, 1), RK4(bend, 2), RK4(bend, None), RK4(driven, 1), Heun(bend, 1), RK4(bend, 1, 1)}) == 6
    assert (a.in_size, a.out_size, a.x_ndim, a.recurrent) == (None, None, None, (False, True))


def test_a_method_of_ones_own():
    """Ralston's method, of order 2."""
    table = Tableau("Ralston", a=((), (2 / 3,)), b=(1 / 4, 3 / 4), c=(0, 2 / 3), order=2)
    cell = RungeKutta(table, lambda p, t, y, u: t * y, 0.3, 0.5)
    k1 = 0.5 * 2.0
    k2 = (0.5 + 0.2) * (2.0 + 0.2 * k1)
    np.testing.assert_allclose(cell(None, cell.start(2.0), None)[1], 2.0 + 0.3 * (k1 / 4 + 3 * k2 / 4), rtol=1e-14)


def step(field=bend, dt=0.1, y0=1.0, x=None, carry=None):
    cell = Euler(field, dt)
    return cell(1.0, cell.start(y0) if carry is None else carry, x)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: Euler(bend, 0.0), ValueError, r"`dt` is the length of a step.*got 0"),
        (lambda: Euler(bend, float("inf")), ValueError, r"`dt` is finite; got inf"),
        (lambda: Euler(bend, 0.1, t0=float("nan")), ValueError, r"`t0` is finite; got nan"),
        (lambda: Euler(bend, jnp.asarray(0.1)), TypeError, r"keeps settings, not arrays; field `dt`"),
        (lambda: Euler(bend, "0.1"), TypeError, r"`dt` is a number; got '0.1'"),
        (lambda: Euler(0.1, bend), TypeError, r"`Euler` takes `field\(params, t, y, u\) -> dy/dt` first; got 0.1"),
        (lambda: RungeKutta(bend, bend, 0.1), TypeError, r"takes a `Tableau` first.*RK4\(field, dt\)"),
        (lambda: Euler(bend, 0.1).init(0), TypeError, r"params that `bend` reads.*\(\) if the field reads none"),
        (lambda: Euler(bend, 0.1).initial_carry((2,)), TypeError, r"initial value.*Pass `carry=cell.start\(y0\)`"),
        (lambda: Euler(bend, 0.1).start(()), TypeError, r"pytree of arrays; got one without any"),
        (
            lambda: step(carry=jnp.ones(3)),
            TypeError,
            r"takes carry as \(k, y\); got one array float64\[3\].*cell.start\(y0\)",
        ),
        (lambda: step(carry=(0.0, 1.0)), TypeError, r"k counting steps; got k of type float64"),
        (lambda: step(carry=(0, 1)), TypeError, r"y is floating; y is an int.*cell.start\(y0\)"),
        (lambda: step(dt=None), TypeError, r"takes x as \(dt, u\); got None.*xs=\(dts, None\)"),
        (
            lambda: step(dt=None, x=(jnp.ones(2), None)),
            TypeError,
            r"of the batch's shape \(\) or \(\); got float64\[2\]",
        ),
        (lambda: step(dt=None, x=(jnp.float32(1), None)), TypeError, r"dt a float64 as t is.*got float32\[\]"),
        (lambda: step(lambda p, t, y, u: (y,)), TypeError, r"dy/dt in the structure of y"),
        (
            lambda: step(lambda p, t, y, u: t, y0=jnp.ones(3)),
            TypeError,
            r"shape and dtype of y; dy is float64\[\], y is",
        ),
        (lambda: step(lambda p, t, y, u: jax.lax.complex(y, y)), TypeError, r"dy is complex128\[\], y is float64\[\]"),
        (
            lambda: step(lambda p, t, y, u: jnp.float64(1), y0=jnp.float32(1)),
            TypeError,
            r"dy is float64\[\], y is fl.*32",
        ),
    ],
)
def test_what_cannot_work_raises_and_says_what_to_write(act, error, message):
    with pytest.raises(error, match=message):
        act()

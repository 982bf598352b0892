"""What compiled programs keep: nothing is compiled twice, nothing dead lives on, closed-over arrays are params."""

import gc
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.helpers import ELMAN_PARAMS, XS, assert_close, count_compiles, elman


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

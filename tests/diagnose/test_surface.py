"""`loss_surface` against direct evaluation of the loss at every point."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.diagnose import loss_surface


PARAMS = {"cell": {"w_h": jnp.asarray([[0.8]]), "w_x": jnp.asarray([[-0.6]])}, "b": jnp.asarray([0.3, -0.2])}
A, B = jnp.linspace(-1.5, 2.0, 5), jnp.linspace(0.5, 3.0, 3)
TRACED = itertools.count()


def loss(params):
    next(TRACED)
    w_h, w_x = params["cell"]["w_h"], params["cell"]["w_x"]
    return jnp.sum((w_h - 1.0) ** 2 * params["b"][0] + jnp.exp(w_x) * w_h) + params["b"][1]


def direct(point):
    return np.asarray([[loss(point(a, b)) for b in B] for a in A])


@pytest.mark.parametrize("chunk", [1, 4, 15, 100])
def test_two_named_leaves_take_the_values(chunk):
    found = loss_surface(loss, PARAMS, ("cell/w_x", "cell/w_h"), A, B, chunk=chunk)
    want = direct(lambda a, b: PARAMS | {"cell": {"w_x": a[None, None], "w_h": b[None, None]}})
    np.testing.assert_allclose(found.values, want, rtol=1e-13)
    np.testing.assert_array_equal(found.a, A)
    np.testing.assert_array_equal(found.b, B)
    assert found.names == ("cell/w_x", "cell/w_h")


def test_two_directions_through_params():
    d_1 = {"cell": {"w_h": jnp.asarray([[1.0]]), "w_x": jnp.asarray([[2.0]])}, "b": jnp.asarray([0.5, -1.0])}
    d_2 = {"cell": {"w_h": jnp.asarray([[-0.3]]), "w_x": jnp.asarray([[0.7]])}, "b": jnp.asarray([0.1, 0.9])}
    found = loss_surface(loss, PARAMS, (d_1, d_2), A, B, chunk=4)

    def point(a, b):
        move = lambda p, d, e: p + a * d + b * e
        cell = {k: move(PARAMS["cell"][k], d_1["cell"][k], d_2["cell"][k]) for k in ("w_h", "w_x")}
        return {"cell": cell, "b": move(PARAMS["b"], d_1["b"], d_2["b"])}

    np.testing.assert_allclose(found.values, direct(point), rtol=1e-13)
    assert found.names == ("a", "b")


def test_a_zoomed_surface_is_not_compiled_again():
    loss_surface(loss, PARAMS, ("cell/w_x", "cell/w_h"), A, B, chunk=7)
    before = next(TRACED)
    zoomed = loss_surface(loss, PARAMS, ("cell/w_x", "cell/w_h"), 0.1 * A, 0.1 * B, chunk=7)
    assert next(TRACED) == before + 1
    np.testing.assert_array_equal(zoomed.a, 0.1 * A)


def test_values_that_overflow_stay_in_place():
    found = loss_surface(lambda p: jnp.exp(p["x"] * p["y"]), {"x": 0.0, "y": 0.0}, ("x", "y"), A * 1e3, B)
    np.testing.assert_array_equal(np.isinf(found.values), np.asarray(A[:, None] * 1e3 * B) > 710)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"directions": ("w_x", "cell/w_h")}, rs.ParamsError, r"no leaf 'w_x'; its leaves are \['b', 'cell/w_h'"),
        ({"directions": ("b", "cell/w_h")}, rs.ParamsError, r"'b' is float64\[2\].*Give two directions"),
        ({"directions": ("cell/w_h", "cell/w_h")}, rs.ParamsError, "names 'cell/w_h' twice"),
        ({"directions": (PARAMS, "b")}, rs.ParamsError, r"`directions\[1\]` must be a pytree like params"),
        ({"directions": (PARAMS, PARAMS | {"b": jnp.ones(3)})}, rs.ParamsError, r"'b' has shape \(3,\).*has \(2,\)"),
        ({"directions": PARAMS}, rs.ParamsError, "must be a pair"),
        ({"a": A[None]}, ValueError, r"`a` must be one axis of coordinates.*float64\[1,5\]"),
        ({"chunk": 0}, ValueError, "`chunk` is how many points"),
        ({"loss": lambda p: p["b"]}, ValueError, r"`loss\(params\)` must return a real scalar; got float64\[2\]"),
    ],
    ids=lambda value: None if isinstance(value, dict | type) else value,
)
def test_bad_arguments_say_what_to_write(changes, error, message):
    arguments = {"loss": loss, "params": PARAMS, "directions": ("cell/w_x", "cell/w_h"), "a": A, "b": B} | changes
    with pytest.raises(error, match=message):
        loss_surface(**arguments)

"""`make_step`: the step equals the optimiser written out, and says what is wrong with a loss or with params."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rnnscan._errors import ParamsError
from rnnscan.train import make_step


A = np.array([[2.0, -1.0], [0.5, 3.0], [-1.5, 0.7]])
B = np.array([1.0, -2.0, 0.3])
START = {"w": jnp.array([0.4, -0.9])}


def residuals(params, batch, key):
    del key
    return jnp.sum((batch["a"] @ params["w"] - batch["b"]) ** 2), {"w0": params["w"][0]}


BATCH = {"a": A, "b": B}


def numpy_gradient(w):
    return 2 * A.T @ (A @ w - B)


def test_one_step_of_gradient_descent(key):
    step = make_step(residuals, optax.sgd(0.01))
    params, _, metrics = step(START, step.init(START), BATCH, key)
    w = np.asarray(START["w"])
    np.testing.assert_allclose(params["w"], w - 0.01 * numpy_gradient(w), rtol=1e-12)
    np.testing.assert_allclose(metrics["loss"], np.sum((A @ w - B) ** 2), rtol=1e-12)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(numpy_gradient(w)), rtol=1e-12)
    assert metrics["finite"] and metrics["aux"]["w0"] == START["w"][0]


def test_clipping_scales_the_gradient_and_reports_its_norm_before(key):
    step = make_step(residuals, optax.sgd(1.0), clip_norm=0.5)
    params, _, metrics = step(START, step.init(START), BATCH, key)
    gradient = numpy_gradient(np.asarray(START["w"]))
    np.testing.assert_allclose(params["w"] - START["w"], -0.5 * gradient / np.linalg.norm(gradient), rtol=1e-12)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), rtol=1e-12)


def test_clipping_leaves_the_form_of_the_optimisers_state():
    plain, clipped = (make_step(residuals, optax.adam(0.1), clip_norm=c).init(START) for c in (None, 1.0))
    assert jax.tree.structure(plain) == jax.tree.structure(clipped)


def test_lbfgs_gets_what_its_line_search_needs(key):
    step = make_step(residuals, optax.lbfgs())
    params, state = START, step.init(START)
    for _ in range(8):
        params, state, _ = step(params, state, BATCH, key)
    np.testing.assert_allclose(params["w"], np.linalg.lstsq(A, B, rcond=None)[0], rtol=1e-8)


def test_complex_params_go_downhill(key):
    goal = 3.0 + 4.0j
    step = make_step(lambda p, batch, key: jnp.abs(p["z"] - goal) ** 2, optax.sgd(0.1))
    params = {"z": jnp.array(1.0 - 2.0j)}
    after, _, _ = step(params, step.init(params), None, key)
    np.testing.assert_allclose(after["z"], params["z"] - 0.2 * (params["z"] - goal), rtol=1e-12)


def test_a_step_that_is_not_finite_changes_nothing(key):
    step = make_step(residuals, optax.adam(0.1))
    state = step.init(START)
    params, new_state, metrics = step(START, state, {"a": A * np.nan, "b": B}, key)
    assert not metrics["finite"] and jnp.isnan(metrics["loss"])
    assert jax.tree.all(jax.tree.map(jnp.array_equal, (params, new_state), (START, state)))


def test_an_infinite_gradient_of_a_finite_loss_changes_nothing(key):
    step = make_step(lambda p, batch, key: jnp.sqrt(p["w"][0] * 0.0) + p["w"][1], optax.sgd(0.1))
    params, _, metrics = step(START, step.init(START), None, key)
    assert not metrics["finite"] and jnp.isfinite(metrics["loss"])
    assert jnp.array_equal(params["w"], START["w"])


@pytest.mark.parametrize(
    "result, kind, message",
    [
        (lambda w: w, ValueError, r"`loss` must return a scalar or \(scalar, aux\), got float64\[2\]. Reduce it"),
        (lambda w: w[:1], ValueError, r"got float64\[1\]"),
        (lambda w: jax.lax.complex(w[0], w[1]), TypeError, r"real floating-point number, got complex128\[\].*z.real"),
        (lambda w: jnp.argmax(w), TypeError, r"real floating-point number, got int64\[\]"),
        (lambda w: None, TypeError, r"got None. Is a `return` missing\?"),
        (lambda w: (w[0], 1, 2), TypeError, r"got a tuple"),
    ],
)
def test_a_loss_that_is_no_real_scalar(result, kind, message, key):
    step = make_step(lambda p, batch, key: result(p["w"]), optax.sgd(0.1))
    with pytest.raises(kind, match=message):
        step(START, step.init(START), None, key)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"w": 1.0, "n": jnp.array(3)}, r"`params\['n'\]` is int64\[\]; an optimiser moves floating-point"),
        ({"w": (jnp.ones(2), np.array([True]))}, r"`params\['w'\]\[1\]` is bool\[1\]"),
        ({"w": "0.5"}, r"`params\['w'\]` is a str"),
        ({"w": 3}, r"`params\['w'\]` is an int"),
        ({}, "has no leaves"),
    ],
    ids=str,
)
def test_params_an_optimiser_cannot_move(params, message, key):
    step = make_step(residuals, optax.adam(0.1))
    with pytest.raises(ParamsError, match=message):
        step.init(params)


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        ((1.0, optax.sgd(0.1)), TypeError, "`loss` must be a function of"),
        ((residuals, 0.1), TypeError, r"`optimizer` must come from optax, such as .*; got a float"),
    ],
)
def test_loss_and_optimizer_of_the_wrong_kind(arguments, kind, message):
    with pytest.raises(kind, match=message):
        make_step(*arguments)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan")])
def test_clip_norm_that_is_not_positive(clip_norm):
    with pytest.raises(ValueError, match="`clip_norm` must be > 0"):
        make_step(residuals, optax.sgd(0.1), clip_norm=clip_norm)


def test_a_key_that_is_an_int():
    step = make_step(residuals, optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"`key` must be jax.random.key\(seed\), got int 0"):
        step(START, step.init(START), BATCH, 0)

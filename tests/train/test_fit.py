"""`fit`: the same as the plain loop, the same for the same key, exact about where it stopped, quick to compile once."""

import contextlib
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rnnscan._errors import NonFiniteError, ParamsError
from rnnscan.train import batches, fit, make_step


START = {"w": jnp.array([0.4, -0.9, 0.2])}
X = np.random.default_rng(1).normal(size=(14, 3))
Y = X @ np.array([1.5, -0.5, 2.0])
DATA = [{"x": X[i : i + 7], "y": Y[i : i + 7]} for i in (0, 7)]
SGD = optax.sgd(0.05)


def noisy(params, batch, key):
    """Least squares with noise on the inputs, so that the key matters."""
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    error = x @ params["w"] - batch["y"]
    return jnp.mean(error**2), {"worst": jnp.max(jnp.abs(error)), "error": error}


def quiet(*arguments, **options):
    return fit(*arguments, progress=False, **options)


@contextlib.contextmanager
def compiles(counts=None):
    """A list with the names of the compilations inside the block."""
    seen, on = [], [True]
    listen = lambda name, seconds, **_: seen.append(name) if on[0] and "backend_compile" in name else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        on[0] = False


def test_equals_the_loop_written_by_hand(key):
    result = quiet(noisy, START, optax.adam(0.1), DATA, key=key, epochs=3, clip_norm=1.0)
    step = make_step(noisy, optax.adam(0.1), clip_norm=1.0)
    params, state, losses, worst = START, step.init(START), [], []
    for k in range(6):
        params, state, metrics = step(params, state, DATA[k % 2], jax.random.fold_in(key, k))
        losses.append(metrics["loss"])
        worst.append(metrics["aux"]["worst"])
    np.testing.assert_allclose(result.params["w"], params["w"], rtol=1e-12)
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-12)
    np.testing.assert_allclose(result.history["aux/worst"], worst, rtol=1e-12)
    assert "aux/error" not in result.history and result.history["stopped"] == "epochs"
    assert np.all(np.diff(result.history["time"]) >= 0) and len(result.history["grad_norm"]) == 6


def test_same_key_same_bits_and_another_key_another_result(key):
    data = batches({"x": X, "y": Y}, 4)
    first, again, other = (
        quiet(noisy, START, SGD, data, key=k, epochs=2) for k in (key, jax.random.key(0), jax.random.key(1))
    )
    assert jnp.array_equal(first.params["w"], again.params["w"])
    assert np.array_equal(first.history["loss"], again.history["loss"])
    assert not jnp.array_equal(first.params["w"], other.params["w"])


def test_batches_as_a_function_get_another_key_every_epoch(key):
    keys = []
    source = lambda epoch_key: keys.append(jax.random.key_data(epoch_key).tolist()) or DATA
    quiet(noisy, START, SGD, source, key=key, epochs=3)
    steps = [jax.random.key_data(jax.random.fold_in(key, k)).tolist() for k in range(6)]
    assert len({tuple(k) for k in keys + steps}) == 9


@pytest.mark.parametrize(
    "options, n_steps, stopped",
    [
        ({}, 2, "epochs"),
        ({"epochs": 2}, 4, "epochs"),
        ({"n_steps": 5}, 5, "n_steps"),
        ({"n_steps": 5, "epochs": 2}, 4, "epochs"),
        ({"n_steps": 3, "epochs": 2}, 3, "n_steps"),
        ({"n_steps": 0}, 0, "n_steps"),
    ],
    ids=str,
)
def test_epochs_and_steps_whichever_ends_first(options, n_steps, stopped, key):
    history = quiet(noisy, START, SGD, DATA, key=key, **options).history
    assert (len(history["loss"]), history["stopped"]) == (n_steps, stopped)


def test_a_generator_feeds_as_many_steps_as_it_has(key):
    endless = (DATA[k % 2] for k in iter(int, 1))
    assert len(quiet(noisy, START, SGD, endless, key=key, n_steps=3).history["loss"]) == 3
    with pytest.raises(ValueError, match=r"epoch 1: it ended after 2 steps, n_steps=5"):
        quiet(noisy, START, SGD, (batch for batch in DATA), key=key, n_steps=5)


@pytest.mark.parametrize(
    "source, options, kind, message",
    [
        (iter(DATA), {"epochs": 2}, ValueError, r"can be read once, and epochs=2 needs it again. Write `list"),
        ([], {}, ValueError, r"gave nothing in epoch 0: it is empty"),
        (lambda key: iter(()), {}, ValueError, "gave nothing in epoch 0"),
        ((X, Y), {}, TypeError, r"is a tuple, which is one batch.*Write `\[batch\]`"),
        ({"x": X, "y": Y}, {}, TypeError, "is a dict, which is one batch"),
        (X, {}, TypeError, r"is float64\[14,3\], which is one batch"),
        (3, {}, TypeError, "must be iterable, or a function"),
        (DATA, {"epochs": 1.5}, TypeError, "`epochs` must be an int, got 1.5"),
        (DATA, {"n_steps": -1}, ValueError, "`n_steps` must be >= 0, got -1"),
        (DATA, {"patience": 2}, ValueError, "`patience` is about evaluations"),
        (DATA, {"evaluate_every": 2}, ValueError, "`evaluate_every` is about evaluations"),
        (DATA, {"evaluate": lambda p: 1.0, "min_delta": 0.1}, ValueError, "`min_delta` .* goes with `patience`"),
        (DATA, {"evaluate": lambda p: 1.0, "patience": 0}, ValueError, "`patience` must be >= 1"),
        (DATA, {"evaluate": lambda p: None}, TypeError, "`evaluate` must return a float or a dict"),
        (DATA, {"evaluate": lambda p: p["w"]}, TypeError, "`evaluate` must return a float or a dict"),
        (DATA, {"opt_state": {"m": 1.0}}, ValueError, "`opt_state` does not belong to this optimizer"),
        (DATA, {"key": 0}, ValueError, r"`key` must be jax.random.key\(seed\), got int 0"),
        (DATA, {"key": None}, ValueError, r"`key` must be jax.random.key\(seed\), got NoneType None"),
        (
            DATA,
            {"key": jax.random.split(jax.random.key(0), 2)},
            ValueError,
            r"must be one key, got an array of keys of shape \(2,\)",
        ),
    ],
)
def test_arguments_that_cannot_be_honoured(source, options, kind, message, key):
    with pytest.raises(kind, match=message):
        quiet(noisy, START, SGD, source, **{"key": key} | options)


def test_a_state_for_params_of_another_size(key):
    adam = optax.adam(0.1)
    with pytest.raises(ValueError, match=r"`opt_state\[0\].mu\['w'\]` has shape \(1,\), but \(3,\) belongs"):
        quiet(noisy, START, adam, DATA, key=key, opt_state=adam.init({"w": jnp.ones(1)}))


def test_integer_params_raise_before_anything_runs(key):
    with pytest.raises(ParamsError, match=r"`params\['n'\]` is int64"):
        quiet(noisy, START | {"n": jnp.array(2)}, SGD, DATA, key=key)


def test_evaluation_after_epochs_or_steps_and_at_the_end(key):
    values = lambda params: {"error": jnp.sum(params["w"]), "loss": np.float64(params["w"][0])}
    seen = []
    keep = lambda k, params, metrics: seen.append(params["w"]) and None
    history = quiet(noisy, START, SGD, DATA, key=key, n_steps=5, evaluate=values, callback=keep).history
    assert history["eval_step"].tolist() == [2, 4, 5]
    np.testing.assert_allclose(history["eval_error"], [jnp.sum(seen[k - 1]) for k in (2, 4, 5)])
    np.testing.assert_allclose(history["eval_loss"], [seen[k - 1][0] for k in (2, 4, 5)])
    history = quiet(noisy, START, SGD, DATA, key=key, epochs=3, evaluate=lambda p: 1.5, evaluate_every=4).history
    assert history["eval_step"].tolist() == [4, 6] and history["eval_value"].tolist() == [1.5, 1.5]


def test_patience_returns_the_best_params(key):
    scores = iter([3.0, 2.0, 1.95, 2.5, 0.1])  # with min_delta 0.1 the third is no improvement
    seen = []
    result = quiet(
        noisy, START, SGD, DATA, key=key, epochs=9, patience=2, min_delta=0.1,
        evaluate=lambda params: seen.append(params["w"]) or {"accuracy": 7.0, "loss": next(scores)},
    )  # fmt: skip
    assert result.history["stopped"] == "patience" and len(result.history["loss"]) == 8
    assert result.history["best_step"] == 4 and jnp.array_equal(result.params["w"], seen[1])


def test_patience_that_never_runs_out_returns_the_best_params_too(key):
    scores, seen = iter([2.0, 1.0, 5.0]), []
    score = lambda params: seen.append(params["w"]) or next(scores)
    result = quiet(noisy, START, SGD, DATA, key=key, epochs=3, patience=9, evaluate=score)
    assert result.history["stopped"] == "epochs" and jnp.array_equal(result.params["w"], seen[1])


def test_patience_cannot_judge_nan(key):
    with pytest.raises(NonFiniteError, match=r"returned nan for 'value' after 2 steps") as caught:
        quiet(noisy, START, SGD, DATA, key=key, epochs=3, patience=2, evaluate=lambda p: float("nan"))
    assert len(caught.value.fit.history["loss"]) == 2


def test_nan_stops_at_its_step_with_the_params_before_it(key):
    bad = {"x": X[:7] * np.nan, "y": Y[:7]}
    many = [DATA[k % 2] for k in range(137)] + [bad] + DATA * 30
    good = quiet(noisy, START, SGD, many[:137], key=key)
    last = f"{good.history['loss'][-1]:.4g}"
    with pytest.raises(
        NonFiniteError, match=rf"loss became nan at step 137 \(last finite {last} at step 136\)"
    ) as caught:
        quiet(noisy, START, SGD, many, key=key)
    kept = caught.value.fit
    assert jnp.array_equal(kept.params["w"], good.params["w"])
    assert np.array_equal(kept.history["loss"][:-1], good.history["loss"]) and np.isnan(kept.history["loss"][137])
    assert kept.history["stopped"] == "non-finite"
    assert all(word in str(caught.value) for word in ("clip_norm=", "smaller learning rate", "optax.apply_if_finite"))


def test_nan_at_the_first_step(key):
    bad = {"x": X[:7] * np.inf, "y": Y[:7]}
    with pytest.raises(NonFiniteError, match=r"loss became (nan|inf) at step 0\. ") as caught:
        quiet(noisy, START, SGD, [bad, *DATA], key=key)
    assert jnp.array_equal(caught.value.fit.params["w"], START["w"])


def test_apply_if_finite_passes_over_bad_batches_until_it_gives_up(key):
    bad = {"x": X[:7] * np.nan, "y": Y[:7]}
    tolerant = optax.apply_if_finite(SGD, max_consecutive_errors=2)
    result = quiet(noisy, START, tolerant, [DATA[0], bad, bad, DATA[1]], key=key)
    assert np.isfinite(result.history["loss"]).tolist() == [True, False, False, True]
    assert int(result.opt_state.total_notfinite) == 2 and jnp.all(jnp.isfinite(result.params["w"]))
    with pytest.raises(NonFiniteError, match="step 3"):
        quiet(noisy, START, tolerant, [DATA[0], bad, bad, bad, DATA[1]], key=key)


def test_callback_sees_every_step_and_may_stop(key):
    seen = []

    def callback(k, params, metrics):
        seen.append((k, params["w"], float(metrics["loss"])))
        return k == 4

    result = quiet(noisy, START, SGD, DATA, key=key, epochs=9, callback=callback)
    assert [k for k, _, _ in seen] == [0, 1, 2, 3, 4] and result.history["stopped"] == "callback"
    assert [loss for _, _, loss in seen] == result.history["loss"].tolist()
    assert jnp.array_equal(seen[-1][1], result.params["w"])


def test_a_learning_rate_that_changes_compiles_nothing(key):
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    first = quiet(noisy, START, optimizer, DATA, key=key)
    first.opt_state.hyperparams["learning_rate"] = 0.0
    with compiles() as seen:
        second = quiet(noisy, first.params, optimizer, DATA, key=key, opt_state=first.opt_state)
    assert seen == []
    assert jnp.array_equal(second.params["w"], first.params["w"])  # the rate of 0 was used


def test_a_schedule_changes_the_rate_within_one_program(key):
    optimizer = optax.sgd(optax.piecewise_constant_schedule(0.1, {2: 0.0}))
    seen = []
    with compiles() as names:
        quiet(noisy, START, optimizer, DATA, key=key, epochs=2, callback=lambda k, p, m: seen.append(p["w"]) and None)
        n = len(names)
        quiet(noisy, START, optimizer, DATA, key=key, epochs=4)
    assert n > 0 and len(names) == n  # the counter counts, and what it counts stays
    assert not jnp.array_equal(seen[0], seen[1])
    assert jnp.array_equal(seen[1], seen[3])


def test_python_numbers_as_params_compile_one_step(key):
    loss = lambda params, batch, key: (params["a"] * batch - 1.0) ** 2
    quiet(loss, {"a": 0.3}, SGD, [np.float64(2.0)], key=key)
    with compiles() as seen:
        result = quiet(loss, {"a": 0.3}, SGD, [np.float64(2.0)], key=key, epochs=4)
    assert seen == []
    np.testing.assert_allclose(2 * result.params["a"] - 1, (1 - 0.05 * 8) ** 4 * (0.6 - 1), rtol=1e-12)


def test_what_is_kept_for_the_next_fit_keeps_no_loss_alive(key):
    big = np.ones(3)

    def loss(params, batch, key):
        return jnp.sum(params["w"] * big)

    quiet(loss, START, SGD, [None], key=key)
    gone = weakref.ref(loss)
    del loss
    gc.collect()
    assert gone() is None


def test_a_bound_method_and_state_with_keys(key):
    class Model:
        def loss(self, params, batch, key):
            return jnp.sum(params["w"] ** 2)

    optimizer = optax.chain(optax.add_noise(0.01, 0.55, jax.random.key(3)), SGD)
    result = quiet(Model().loss, START, optimizer, [None], key=key, epochs=3)
    assert result.history["loss"][2] < result.history["loss"][0]


def test_going_on_with_the_state_equals_one_run(key):
    plain = lambda params, batch, key: noisy(params, batch, jax.random.key(5))[0]
    adam = optax.adam(0.1)
    whole = quiet(plain, START, adam, DATA, key=key, epochs=4)
    half = quiet(plain, START, adam, DATA, key=key, epochs=2)
    rest = quiet(plain, half.params, adam, DATA, key=key, epochs=2, opt_state=half.opt_state)
    assert jnp.array_equal(rest.params["w"], whole.params["w"])


def test_the_bar_shows_steps_and_loss_and_is_closed_by_ctrl_c(key, capsys):
    fit(noisy, START, SGD, DATA, key=key, epochs=3)
    shown = capsys.readouterr().err
    assert "6/6" in shown and "loss " in shown and "step" in shown
    assert shown.index("compiling") < shown.index("loss ") and "compiling" not in shown[shown.index("loss ") :]

    def interrupt(k, params, metrics):
        if k == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(noisy, START, SGD, DATA, key=key, epochs=3, callback=interrupt)
    assert capsys.readouterr().err.endswith("\n")  # closing a bar ends its line
    quiet(noisy, START, SGD, DATA, key=key)
    assert capsys.readouterr().err == ""

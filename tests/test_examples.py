"""The examples run, their figures of merit hold with `--fast`, and NumPy alone agrees with the published digits."""

import importlib
import sys
import types

import jax
import numpy as np
import pytest

import rnnscan as rs
from examples import __main__ as runner
from examples import _job, counting, ode, rows, series
from rnnscan.data import Images


@pytest.fixture(autouse=True)
def _optimised():
    """Training spends its time in compiled code, unlike the other tests (conftest)."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def no_mnist(monkeypatch):
    def absent(*arguments, **options):
        raise rs.DataFileError("cannot find MNIST anywhere")

    monkeypatch.setattr(rs.data, "mnist", absent)


@pytest.mark.parametrize("name", _job.JOBS)
def test_job_meets_its_merits_when_fast(name, no_mnist, tmp_path, capsys):
    merits = importlib.import_module(f"examples.{name}").run(_job.Settings(fast=True, out=tmp_path))
    assert merits and {merit.job for merit in merits} == {name}
    assert [merit for merit in merits if not merit.met] == []
    figures = list(tmp_path.glob("*.png"))
    assert figures and all(figure.stat().st_size > 5_000 for figure in figures)
    printed = capsys.readouterr().out
    assert all(str(figure) in printed for figure in figures)
    if name == "rows":
        assert "no MNIST, so scikit-learn's 8x8 digits instead: cannot find MNIST anywhere" in printed
        assert [merit.expected for merit in merits] == [">= 95.0%"] * 2
        assert all("8x8 digits" in merit.what for merit in merits)


def bits_and_targets():
    (xs, targets), start = counting.data()
    return np.asarray(xs)[..., 0].T, np.asarray(targets)[:, 0], start


def hand_gradient(bits, targets, w_x, w_rec):
    """d/dw of sum (s_10 - target)^2 from the closed form s_10 = w_x sum_k w_rec^(10-k) x_k, without recursion."""
    power = np.arange(9, -1, -1)
    s = w_x * bits @ w_rec**power
    d_rec = w_x * bits @ (power * w_rec ** np.maximum(power - 1.0, 0.0))
    return 2 * (s - targets) @ (bits @ w_rec**power), 2 * (s - targets) @ d_rec, np.sum((s - targets) ** 2)


def test_published_costs_come_out_of_numpy():
    bits, targets, start = bits_and_targets()
    w_x, w_rec = start["w_x"].item(), start["w_h"].item()
    costs = []
    for _ in range(2000):
        d_x, d_rec, cost = hand_gradient(bits, targets, w_x, w_rec)
        w_x, w_rec = w_x - 1e-5 * d_x, w_rec - 1e-5 * d_rec
        costs.append(cost)
    np.testing.assert_allclose(costs[99::100], np.array(counting.COSTS, float), rtol=0, atol=1.5e-4)
    assert (f"{w_x:.4f}", f"{w_rec:.4f}") == counting.FINAL_WEIGHTS


def test_rprop_of_the_tutorial_gives_its_digits():
    """Its variant: no step is taken back, and the first step counts as a change of sign."""
    bits, targets, _ = bits_and_targets()
    w, step, last = np.array([-1.5, 2.0]), np.array([0.001, 0.001]), np.zeros(2)
    for _ in range(500):
        sign = np.sign(hand_gradient(bits, targets, *w)[:2])
        step *= np.where(sign == last, 1.2, 0.5)
        w, last = w - sign * step, sign
    np.testing.assert_allclose(w, [1.00135555, 0.99967447], rtol=0, atol=6e-9)


def test_backpropagation_by_hand_matches_the_closed_form():
    batch, _ = counting.data()
    bits, targets, _ = bits_and_targets()
    for w_x, w_rec in counting.POINTS:
        if w_rec:  # 0**0 and its derivative are not what the closed form is good at
            hand = counting.by_hand(counting.weights(w_x, w_rec), batch)
            want = hand_gradient(bits, targets, w_x, w_rec)
            np.testing.assert_allclose([hand["w_x"].item(), hand["w_h"].item()], want[:2], rtol=1e-12)


def test_field_of_the_competition_is_the_published_one():
    y, ys = np.array(ode.BEGIN), []
    for _ in range(420):
        growth = np.array([0.1, 0.3]) * y * (1 - np.array([0.002, 0.003]) * y)
        y = y + 0.1 * (growth - np.array([1e-4, 2e-4]) * y.prod())
        ys.append(y)
    np.testing.assert_array_equal(np.round(np.array(ys)[10 * ode.TIMES - 1]), ode.POPULATIONS)


@pytest.mark.parametrize(
    ("settings", "name", "size", "seeds", "expected"),
    [
        ({"fast": True}, "a tenth of MNIST", 6, 1, 0.80),
        ({}, "MNIST", 60, 1, 0.98),
        ({"full": True}, "MNIST", 60, 3, 0.987),
    ],
    ids=["fast", "default", "full"],
)
def test_rows_read_mnist_where_it_is(settings, name, size, seeds, expected, monkeypatch, tmp_path):
    images = Images(*(np.arange(float(n)) for n in (60, 60, 10, 10)))
    monkeypatch.setattr(rs.data, "mnist", lambda *arguments, **options: images)
    plan = rows.make_plan(_job.Settings(**settings, out=tmp_path))
    assert (plan.name, len(plan.seeds), plan.expected["LSTM"]) == (name, seeds, expected)
    np.testing.assert_array_equal(plan.images.train_images, np.arange(size))
    assert len(plan.images.test_images) == size // 6


def test_rows_reach_their_merit_only_if_every_seed_does():
    plan = rows.Plan("MNIST", rs.data.digits(), 10, (0, 1, 2), {"LSTM": 0.987})
    assert rows.merit("LSTM", plan, [0.987, 0.99, 0.99]).met
    missed = rows.merit("LSTM", plan, [0.98, 0.99, 1.0])
    assert not missed.met and missed.ours == "99.00% (sd 1.00%: 98.00%, 99.00%, 100.00%)"


def test_written_values_come_from_the_twenty_before_them(key):
    """Against NumPy: relu units read a window from a zero state, the projection of the last state is the next value."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.01, series.RELU.init(key))
    real = [t * np.sin(t) / 3 + 2 * np.sin(5 * t) for t in series.INSTANCE + 0.1 * np.arange(20)]
    for given, written in zip(([0.0] * 20, real), series.write(params, n_steps=3), strict=True):
        values = list(given)
        for _ in range(3):
            h = np.zeros(series.UNITS)
            for x in values[-20:]:
                h = np.maximum(x * params["cell"]["w_x"][0] + h @ params["cell"]["w_h"] + params["cell"]["b"], 0)
            values.append((h @ params["w_y"] + params["b_y"]).item())
        np.testing.assert_allclose(written, values, rtol=1e-12, atol=1e-12)


def test_unknown_job_names_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stopped:
        runner.main(["countin"])
    assert stopped.value.code == 2
    assert f"no job 'countin'; the jobs are {', '.join(_job.JOBS)}" in capsys.readouterr().err


@pytest.mark.parametrize("met, code, verdict", [(True, 0, "ok"), (False, 1, "MISSED")])
def test_runner_reports_a_missed_merit(met, code, verdict, monkeypatch, capsys, tmp_path):
    seen = []

    def run(settings):
        seen.append(settings)
        return [_job.Merit("counting", "weight", "1.5", "1.0", met)]

    module = types.SimpleNamespace(__doc__="A stand-in.", run=run)
    monkeypatch.setattr(runner.importlib, "import_module", {"examples.counting": module}.__getitem__)
    assert runner.main(["counting", "counting", "--fast", "--out", str(tmp_path)]) == code
    assert seen == [_job.Settings(fast=True, full=False, out=tmp_path)]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith("counting")] == [
        ["counting", "weight", "1.5", "1.0", verdict]
    ]


def test_missing_diffrax_is_said_and_does_not_fail(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    merit = ode.diffrax_merit()
    assert merit.met and merit.verdict == "not run"
    assert "diffrax is not installed" in capsys.readouterr().out

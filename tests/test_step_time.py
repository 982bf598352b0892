"""`benchmarks.step_time`: every contender computes the same, and the page says what the numbers are; no timings."""

import argparse
import json
import math
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from benchmarks import (
    contenders,
    peers,
    peers_torch,
    step_figure,
    step_floor,
    step_report,
    step_tables,
    step_time,
    timing,
)
from benchmarks.contenders import Problem


SHAPE = (4, 2, 3, 5)


@pytest.fixture
def as_in_a_run():
    """float32 and JAX's own promotion, as the script runs; what other libraries warn about is not ours to mend."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def apart(problem, contender, want, job="train_dx"):
    if contender.eager:
        out = peers_torch.as_arrays(contender.eager(job)())
    else:
        args = contender.into(problem.weights), contender.data(problem.xs)
        out = jax.jit(contenders.function(contender, job))(*args)
    return contenders.distances(contenders.numbers(problem, contender, job, out), want(contender.variant))


def wanted(problem, job="train_dx"):
    """By variant, each computed once."""
    found = {}

    def want(variant):
        if variant not in found:
            found[variant] = contenders.wanted(problem, variant, job)
        return found[variant]

    return want


@pytest.mark.parametrize("cell", step_time.CELLS)
def test_everyone_who_is_installed_computes_what_plain_scan_computes(cell, as_in_a_run):
    problem = Problem(cell, SHAPE)
    made = step_time.made_contenders(problem, list(step_time.MAKERS), {"absent": {}})
    assert {"plain", "rnnscan"} <= made.keys()
    assert cell in contenders.LIBRARY_CELLS or made.keys() == {"plain", "rnnscan"}
    want = wanted(problem)
    for name, contender in made.items():
        if name == "plain":  # it is what the others are compared with
            continue
        found = apart(problem, contender, want)
        assert {"loss", "xs"} < found.keys() and len(found) >= 4 - (cell == "concat-lstm")
        assert max(found.values()) < 2e-5, (name, found)  # 3e-6 but for the softmax, whose outputs are nearly equal


def test_the_layout_of_cudnns_weights_is_the_one_that_jax_documents(as_in_a_run):
    def lstm(xs, h, c, weights, lengths, n_in, n, layers, dropout, both):
        parts = rnn.unpack_lstm_weights(weights, n_in, n, layers, both)
        return rnn.lstm_ref(xs, h, c, *parts, lengths, n_in, n, layers, dropout, both)

    problem = Problem("lstm", SHAPE)
    found = apart(problem, peers.cudnn(problem, lstm), wanted(problem))
    assert found.keys() == {"loss", "w_x", "w_h", "b", "xs"} and max(found.values()) < 3e-6


def test_gates_in_a_wrong_order_are_far_apart(as_in_a_run):
    problem = Problem("lstm", SHAPE)
    right = contenders.plain(problem)
    swapped = lambda w: {name: peers.blocks(leaf, (0, 1, 3, 2)) for name, leaf in w.items()}
    want = wanted(problem, "forward")
    assert apart(problem, replace(right, into=swapped), want, "forward")["ys"] > 0.1
    assert contenders.tolerance("float32", "cpu") < 1e-3


def test_a_distance_is_relative_and_nan_is_far():
    want = {"a": np.array([3.0, 4.0]), "zero": np.zeros(2)}
    assert contenders.distances({"a": np.array([3.0, 4.5]), "other": np.ones(1)}, want) == {"a": 0.1}
    assert contenders.distances({"a": np.array([3.0, np.nan])}, want)["a"] == math.inf
    assert contenders.distances({"zero": np.array([0.0, 0.25])}, want) == {"zero": 0.25}
    with pytest.raises(ValueError, match="shape"):
        contenders.distances({"a": np.ones(3)}, want)


def test_bfloat16_is_compared_with_its_own_weights_in_float32(as_in_a_run):
    problem = Problem("elman", SHAPE, "bfloat16")
    found = apart(problem, contenders.plain(problem), wanted(problem, "forward"), "forward")
    assert 1e-4 < found["ys"] < 3e-2 and problem.weights["w_x"].dtype == jnp.bfloat16


def block(cell, shape, job="train", absent=(), compile_s=(1.0,), temp=100, **samples):
    """A block by hand; `_` in a name stands for `-`."""
    named = {name.replace("_", "-"): values for name, values in samples.items()}
    made = {
        name: {"note": name, "variant": "", "apart": 1e-7, "seconds": timing.spread(values), "samples": values}
        for name, values in named.items()
    }
    for name in made.keys() - {"torch"}:
        ours = name == "rnnscan"
        made[name] |= {
            "compile_s": list(compile_s) if ours else [1.0] * len(compile_s),
            "temp_bytes": temp if ours else 100,
        }
    load, failed = None, dict.fromkeys(absent, "far away")
    return {"cell": cell, "shape": list(shape), "dtype": "float32", "job": job, "load": load} | {
        "contenders": made, "absent": {}, "failed": failed,
    }  # fmt: skip


def record(*blocks):
    names = dict.fromkeys(("jobs", "shapes", "cells", "contenders"), [])
    options = argparse.Namespace(rounds=3, compile_rounds={"train": 3}, **names)
    return step_time.step_record(None, options, list(blocks), [])


LONG = (500, 8, 512, 512)
LSTM = block("lstm", (9, 1, 2, 3), plain=[6.0, 3.0, 3.0], rnnscan=[1.0, 2.0, 1.0], nnx=[3.0, 2.0, 4.0],
             keras=[9.0, 9.0, 9.0], torch=[0.5, 1.0, 1.0], compile_s=[1.2, 1.6, 3.0], temp=110)  # fmt: skip
GRU = block("gru", (9, 1, 2, 3), plain=[1.0], rnnscan=[1.0], equinox=[12.0], torch=[2.0], compile_s=[2.4], temp=90)
ADDED = block("gru", LONG, plain=[2.0], rnnscan=[1.0], equinox=[1.9], torch=[0.9], haiku=[0.1], absent=["haiku"])
USERS = block("leaky", (9, 1, 2, 3), plain=[3.0], rnnscan=[2.0])


def test_ratios_are_paired_and_taken_against_the_peer_that_is_fastest_by_its_median():
    assert step_report.fastest_peer(LSTM) == "nnx"
    assert step_report.against(LSTM, "nnx") == timing.spread([3.0, 1.0, 4.0])
    assert step_report.against(LSTM, "plain")["median"] == 3.0
    assert step_report.against(LSTM, None)["n"] == step_report.against(USERS, "torch")["n"] == 0
    assert step_report.times_plain(LSTM, "compile")["median"] == 1.6
    assert step_report.times_plain(LSTM, "temporaries")["median"] == 1.1
    assert step_report.fastest_peer(ADDED) == "equinox"  # Haiku was faster and wrong
    assert step_report.geomean([2.0, None, 8.0]) == pytest.approx(4.0) and step_report.geomean([]) is None


def test_who_computes_another_cell_is_compared_with_rnnscan_on_that_cell():
    relu = block("elman", (9, 1, 2, 3), plain=[4.0], rnnscan=[2.0], rnnscan_variant=[1.0], nnx=[2.5], haiku=[1.5])
    relu["contenders"]["haiku"]["variant"] = relu["contenders"]["rnnscan-variant"]["variant"] = "elman, relu"
    assert step_report.against(relu, "haiku")["median"] == 1.5 and step_report.against(relu, "nnx")["median"] == 1.25
    assert step_report.fastest_peer(relu) == "nnx"
    assert step_report.across_cells(record(relu), "train", "float32") == pytest.approx(0.75)
    relu["failed"]["rnnscan-variant"] = "far away"
    assert step_report.against(relu, "haiku")["n"] == 0 and step_report.fastest_peer(relu) == "nnx"


def test_verdicts_are_the_targets_of_the_table():
    found = {(v.target.name, v.column): v for v in step_report.verdicts(record(LSTM, GRU, ADDED, USERS))}
    value = lambda name, column: found[name, column].value
    mean, worst, long = "training step, geometric mean", "training step, worst shape", step_report.TARGETS[3].name
    assert value(mean, "peer") == pytest.approx(6.0)  # of 3 and 12; the added shape stands apart
    assert value(mean, "torch") == pytest.approx(1.0)  # of 1/2 and 2
    assert value(mean, "users") == pytest.approx(1.5)
    assert (value(worst, "peer"), found[worst, "peer"].where) == (1.9, "gru (500, 8, 512, 512)")
    assert (value(long, "peer"), value(long, "torch"), value(long, "users")) == (1.9, 0.9, None)
    assert value("compile time / plain, geometric mean", "peer") == pytest.approx(math.sqrt(1.6 * 2.4))
    assert value("compile time / plain, worst shape", "peer") == 2.4
    assert value("temporaries / plain, geometric mean", "peer") == pytest.approx(math.sqrt(1.1 * 0.9))
    text = lambda name, column: step_report.verdict_text(found[name, column])
    assert text(mean, "users") == "1.50x: must 1.4 met, goal 2 missed; n = 1"
    assert (
        text(long, "torch") == "0.90x: must 0.97 **missed**, goal 1 missed; n = 1"
        and text(long, "users") == "not measured"
    )
    assert text("compile time / plain, worst shape", "users") == "1.00x: must 1.5 met; leaky (9, 1, 2, 3)"
    assert text("temporaries / plain, worst shape", "peer") == "1.10x: must 1.2 met, goal 1 missed; lstm (9, 1, 2, 3)"


def test_the_page_has_every_number_and_says_who_failed(tmp_path):
    page = step_tables.markdown(record(LSTM, GRU, ADDED, USERS))
    ratios = "3.00x [2.25, 4.50] | 3.00x [2.00, 3.50] Flax nnx | 0.50x [0.50, 0.75] | 1.60x | 1.10x"
    assert f"| 9, 1, 2, 3 | 3000 | 1000 | {ratios} |" in page
    assert "| geometric mean, all |  |  | 1.41x | 4.77x | 1.34x | 1.55x | 0.95x |" in page  # of the GRU's two shapes
    assert "| Flax nnx | 3000 (3.00x) | 3.00x |" in page
    assert "- FAILED: Haiku, gru (500, 8, 512, 512) train, float32: far away" in page
    assert "fewer than 15: 4 of train, at least 1" in page
    path = tmp_path / "step_time.json"
    step_time.write(record(LSTM, USERS), path)
    assert json.loads(path.read_text())["blocks"] == [LSTM, USERS]
    assert path.read_text().count("\n") < 90  # a line for each block
    speeds = step_figure.speeds(LSTM)
    assert {name: s["median"] for name, s in speeds.items()} == {"rnnscan": 3.0, "fastest JAX peer": 1.5, "torch": 3.0}
    step_figure.draw(path, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_of_a_block_that_two_files_have_the_later_one_counts(tmp_path):
    again = block("lstm", (9, 1, 2, 3), plain=[4.0], rnnscan=[1.0])
    for name, blocks in (("a", [LSTM, USERS]), ("b", [again])):
        step_time.write(record(*blocks), tmp_path / f"{name}.json")
    found = step_time.merged([tmp_path / "a.json", tmp_path / "b.json"])
    assert found["blocks"] == [again, USERS] and len(found["merged"]) == 2


def test_a_run_writes_every_block_and_a_failure_is_its_exit_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(step_time.MAKERS, "torch", lambda problem: (_ for _ in ()).throw(ImportError("no torch here")))
    double = lambda problem: replace(contenders.plain(problem), into=lambda w: {k: 2 * v for k, v in w.items()})
    cells = ["--cells", "elman", "--contenders", "plain,rnnscan,haiku,torch", "--jobs", "train,forward"]
    tiny = ["--shapes", "4,2,3,5", *cells, "--rounds", "2", "--compile-rounds", "1", "--floor", "--out", str(tmp_path)]
    monkeypatch.setitem(step_time.MAKERS, "haiku", double)
    assert step_time.main(tiny) == 1
    found = json.loads((tmp_path / "step_time.json").read_text())
    assert [(b["cell"], b["job"]) for b in found["blocks"]] == [("elman", "train"), ("elman", "forward")]
    for made in found["blocks"]:
        assert made["contenders"].keys() == {"plain", "rnnscan", "haiku"} and made["failed"].keys() == {"haiku"}
        assert made["absent"] == {"torch": "no torch here"}
        ours = made["contenders"]["rnnscan"]
        assert ours["seconds"]["n"] == len(ours["samples"]) == 2 and len(ours["compile_s"]) == 1
        assert ours["temp_bytes"] >= 0 and ours["apart"] < 1e-6
    assert found["floors"][0]["share"]["train"]["n"] == 2 and found["settings"]["threads"] == 2
    said = capsys.readouterr().out
    assert said.count("left out: torch, elman: no torch here") == 1 and "FAILED: haiku" in said and "2/2" in said
    assert (tmp_path / "step_time.md").exists() and (tmp_path / "step_time.png").exists()


def test_the_floor_is_the_sum_of_its_parts_within_a_round(monkeypatch, as_in_a_run):
    problem = Problem("gru", SHAPE)
    parts = {name: (jax.jit(case[0])(*case[1:]), case[1:]) for name, case in step_floor.products(problem).items()}
    got, (h, w) = parts["loop"]
    h = np.asarray(h, np.float64)
    for _ in range(SHAPE[0]):
        h = (h @ np.asarray(w, np.float64)).reshape(2, 3, 5).mean(1)
    np.testing.assert_allclose(got, h, rtol=1e-5)
    assert parts["loop back"][0].shape == (2, 15) and parts["hoisted"][0].shape == (8, 15)
    assert [leaf.shape for leaf in parts["weight gradients"][0]] == [(3, 15), (5, 15)]
    seconds = {"loop": [1.0, 2.0], "loop back": [1.0, 2.0], "hoisted": [1.0, 1.0], "weight gradients": [1.0, 3.0]}
    monkeypatch.setattr(
        timing, "run_times", lambda runs, rounds: seconds | {"train": [8.0, 10.0], "forward": [4.0, 4.0]}
    )
    share = step_floor.measure(problem, 2)["share"]
    assert (share["train"]["min"], share["train"]["max"]) == (0.5, 0.8)
    assert (share["forward"]["min"], share["forward"]["max"]) == (0.5, 0.75)


def test_arguments_that_mean_nothing_are_refused(capsys):
    for bad in (
        ["--shapes", "1,2,3"],
        ["--shapes", "1,2,3,x"],
        ["--cells", "lstm,elmo"],
        ["--contenders", "tensorflow"],
    ):
        with pytest.raises(SystemExit):
            step_time.main(bad)
    assert "'elmo' is not one of elman, lstm, gru" in capsys.readouterr().err


def test_the_job_with_dx_keeps_its_rounds_while_they_are_cheap():
    budget = step_time.DX_BUDGET_S
    rounds = [step_time.rounds_with_dx(15, seconds) for seconds in (budget / 99, budget / 15, budget / 10, 9 * budget)]
    assert rounds == [15, 15, 10, 5]
    assert step_time.rounds_with_dx(2, 100.0) == 2

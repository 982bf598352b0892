"""The benchmarks run and say what they measured; nothing here is about how long anything takes."""

import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from benchmarks import progress_cost, timing, unroll_vs_scan


def equations(method, n_steps):
    """How large the jaxprs of a forward run and of a training step are."""
    cell = rs.cells.LSTM(3, 4)
    params, xs = cell.init(jax.random.key(0)), jnp.ones((n_steps, 2, 3))
    return [
        timing.count_equations(unroll_vs_scan.program(cell, method, job), params, xs) for job in unroll_vs_scan.JOBS
    ]


@pytest.mark.parametrize("method", [m for m in unroll_vs_scan.METHODS if m != "unrolled"])
def test_the_jaxpr_of_a_loop_does_not_grow_with_the_number_of_steps(method):
    assert equations(method, 2) == equations(method, 40)


def test_the_jaxpr_of_a_static_graph_grows_by_as_much_with_each_step():
    two, five, eight = (equations("unrolled", n) for n in (2, 5, 8))
    grown = np.subtract(eight, five)
    assert np.array_equal(np.subtract(five, two), grown)
    assert grown.min() > 3 * 10  # a step of an LSTM has two products, four gates, their sums and products


def test_equations_of_inner_jaxprs_count_each_time():
    inner = jax.jit(lambda a: jnp.sin(jnp.cos(a)))
    assert timing.count_equations(lambda a: inner(inner(a)) + 1, 1.0) == 2 * (1 + 2) + 1
    assert timing.count_equations(lambda a: jax.lax.cond(a > 0, jnp.sin, jnp.cos, a), 1.0) == 2 + 1 + 2


def test_a_spread_is_the_quartiles_and_a_ratio_is_taken_pair_by_pair():
    assert timing.spread([4.0, 1.0, 2.0, 3.0, 5.0]) == {"median": 3, "q1": 2, "q3": 4, "min": 1, "max": 5, "n": 5}
    assert timing.spread([])["median"] is None
    paired = timing.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 8.0, 7.0])  # of 2, 3 and 1; the quotient of the medians is 1
    assert (paired["median"], paired["min"], paired["max"], paired["n"]) == (2, 1, 3, 3)


def test_every_run_is_called_in_every_round_and_in_changing_order():
    called = []
    runs = {name: lambda name=name: called.append(name) for name in "abc"}
    times = timing.run_times(runs, rounds=8, warmup=1, least_s=1e-12, settle_s=0)
    assert all(len(samples) == 8 and min(samples) > 0 for samples in times.values())
    rounds = ["".join(called[3 * r : 3 * r + 3]) for r in range(9)]
    assert len(called) == 27 and all(sorted(r) == list("abc") for r in rounds) and len(set(rounds)) > 2


def test_a_program_runs_by_itself_before_its_sample_unless_it_takes_long():
    """Threads of the one before it may still spin."""
    called = []
    runs = {"short": lambda: called.append("short"), "long": lambda: (called.append("long"), time.sleep(1e-3))}
    timing.run_times(runs, rounds=2, warmup=1, least_s=1e-12, settle_s=5e-5)
    assert called.count("long") == 1 + 2
    assert called.count("short") >= 1 + 2 * 2


def test_a_fresh_compilation_traces_again():
    traced = []

    def function(a):
        traced.append(a)
        return jnp.sin(a)

    found = timing.compile_times({"one": (function, jnp.ones(3)), "two": (jnp.cos, jnp.ones(3))}, rounds=3)
    assert len(traced) == 4  # one that is not kept, and three rounds
    assert all(
        len(f) == 3 and min(c.trace_s for c in f) > 0 and min(c.compile_s for c in f) > 0 for f in found.values()
    )
    assert [c.program is None for c in found["one"]] == [True, True, False]
    assert np.allclose(found["one"][-1].program(jnp.ones(3)), math.sin(1), rtol=1e-12)


def test_what_has_taken_its_budget_is_compiled_once():
    found = timing.compile_times({"one": (jnp.sin, jnp.ones(3))}, rounds=3, row_budget_s=1e-9)
    assert len(found["one"]) == 1


def test_numbers_print_with_their_units_and_their_spread():
    one = timing.spread([0.25])
    assert (timing.seconds(one), timing.times(one)) == ("250 ms (n=1)", "0.25x (n=1)")
    some = timing.spread([1e-5, 2e-5, 3e-5])
    assert timing.seconds(some) == "20 us"
    assert timing.times(timing.spread([1.0, 1.5, 2.0])) == "1.50x [1.25, 1.75]"
    lines = timing.table(("name", "x"), [("a", "10"), ("longer", "2")]).splitlines()
    assert lines == ["name     x", "------  --", "a       10", "longer   2"]


def check_record(path, name):
    record = json.loads(path.read_text())
    assert path.name == f"{name}-cpu-{record['date']}.json"
    assert record["machine"]["jax"] == jax.__version__ and record["machine"]["cores"] >= 1
    assert record["machine"]["dtype"] == "float64" and set(record["load"]) == {"before", "after"}
    return record


def test_unroll_vs_scan_writes_every_row_and_a_figure(tmp_path, monkeypatch, capsys):
    sizes = unroll_vs_scan.Sizes((1, 3), (1, 3), 2, 3, 4, compile_rounds=1, run_rounds=2)
    monkeypatch.setattr(unroll_vs_scan, "FAST", sizes)
    monkeypatch.setattr(unroll_vs_scan, "CELLS", {"Elman": rs.cells.Elman})
    monkeypatch.delitem(unroll_vs_scan.METHODS, "scan, unroll 16")  # compiling is what this costs
    monkeypatch.delitem(unroll_vs_scan.METHODS, "scan, unroll 4")
    assert unroll_vs_scan.main(["--fast", "--no-verdict", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    record = check_record(path, "unroll_vs_scan")
    want = [("Elman", job, n, m) for job in unroll_vs_scan.JOBS for n in (1, 3) for m in unroll_vs_scan.METHODS]
    assert [(r["cell"], r["job"], r["steps"], r["method"]) for r in record["rows"]] == want
    for row in record["rows"]:
        assert row["run_s"]["n"] == 2 and row["trace_and_compile_s"]["n"] == 1 and row["equations"] > 0
        parts, whole = row["trace_s"]["median"] + row["compile_s"]["median"], row["trace_and_compile_s"]["median"]
        assert math.isclose(parts, whole, rel_tol=1e-9)
        if row["method"] == "scan":
            assert row["run_over_scan"]["min"] == row["run_over_scan"]["max"] == 1
    totals = {(r["job"], r["steps"], r["method"]): r["trace_and_compile_s"]["median"] for r in record["rows"]}
    for verdict in record["verdicts"]:
        growth = totals[verdict["job"], 3, "scan"] / totals[verdict["job"], 1, "scan"]
        assert math.isclose(verdict["growth"]["median"], growth, rel_tol=1e-9)
        assert verdict["met"] == (growth <= unroll_vs_scan.LIMIT)
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert "unrolled" in capsys.readouterr().out


def test_a_missed_limit_is_the_exit_status(tmp_path, monkeypatch):
    sizes = {"n_steps": 3, "batch": 1, "in_size": 2, "hidden_size": 3}
    monkeypatch.setattr(progress_cost, "FAST", sizes)
    fast = ["--fast", "--rounds", "2", "--out", str(tmp_path)]
    for limit, status in ((1e9, 0), (0.0, 1)):
        monkeypatch.setattr(progress_cost, "LIMIT", limit)
        assert progress_cost.main(fast) == status
    assert progress_cost.main([*fast, "--no-verdict"]) == 0
    (path,) = tmp_path.glob("*.json")
    record = check_record(path, "progress_cost")
    assert [r["job"] for r in record["rows"]] == ["forward", "training step"]
    assert all(r["ratio"]["n"] == 2 and not r["met"] for r in record["rows"])

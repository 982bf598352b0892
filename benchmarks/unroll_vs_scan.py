"""A static graph of all steps against one compiled step that repeats, over T. `python -m benchmarks.unroll_vs_scan`.

`method="unrolled"` (TensorFlow's `static_rnn`, Theano's unrolled loops) against `method="sequential"` (`dynamic_rnn`,
`theano.scan`) with 1, 4 and 16 steps written out: time to trace and to compile, time of a forward run and of a training
step, and equations in the jaxpr. The claim it checks is that the compile time of the loop does not grow with T.
"""

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import rnnscan as rs

from . import timing


LIMIT = 1.2
CELLS: dict[str, Callable[[int, int], Any]] = {"Elman": rs.cells.Elman, "LSTM": rs.cells.LSTM}
JOBS = ("forward", "training step")
METHODS: dict[str, dict[str, Any]] = {
    "unrolled": {"method": "unrolled"},
    "scan": {},
    "scan, unroll 4": {"unroll": 4},
    "scan, unroll 16": {"unroll": 16},
}


@dataclass(frozen=True)
class Sizes:
    """What is run and how often. Input and state are those of the TensorFlow tutorial that reads digits row by row."""

    steps: tuple[int, ...] = (1, 25, 50, 100, 200, 400)
    compared: tuple[int, int] = (25, 400)  # the numbers of steps whose compile times the verdict compares
    batch: int = 32  # the tutorial has 150; a smaller batch shows more of what the loop itself costs
    in_size: int = 28
    hidden_size: int = 150
    compile_rounds: int = 7
    compile_budget_s: float = 4.0  # a row that has taken this long is not compiled again
    run_rounds: int = 20
    most_equations: int = 10_000  # of a jaxpr that is compiled: XLA's time and memory grow faster than their number


FAST = Sizes((1, 2, 9), (2, 9), 2, 3, 4, compile_rounds=2, compile_budget_s=1.0, run_rounds=2)


def program(cell: Any, method: str, job: str) -> Callable[[Any, Any], Any]:
    """`(params, xs) -> (carry, ys)`, or value and gradient of the mean of `ys**2`."""

    def forward(params: Any, xs: Any) -> Any:
        return rs.scan(cell, params, None, xs, **METHODS[method])

    if job == "forward":
        return forward
    return jax.value_and_grad(lambda params, xs: jnp.mean(forward(params, xs)[1] ** 2))


def measure(cell_name: str, job: str, sizes: Sizes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All rows of one cell and job, and how the compile time of the plain scan grew between two numbers of steps."""
    cell = CELLS[cell_name](sizes.in_size, sizes.hidden_size)
    key_params, key_xs = jax.random.split(jax.random.key(0))
    params = cell.init(key_params)
    longest = jax.random.normal(key_xs, (max(sizes.steps), sizes.batch, sizes.in_size))
    cases = {(m, T): (program(cell, m, job), params, longest[:T]) for T in sizes.steps for m in METHODS}
    equations = {case: timing.count_equations(*call) for case, call in cases.items()}
    wanted = {case: call for case, call in cases.items() if equations[case] <= sizes.most_equations}
    compiled = timing.compile_times(wanted, sizes.compile_rounds, sizes.compile_budget_s)
    totals = {case: [c.total_s for c in compiled.get(case, [])] for case in cases}
    rows = []
    for T in sizes.steps:
        runs = {m: partial(compiled[m, T][-1].program, *cases[m, T][1:]) for m in METHODS if (m, T) in compiled}
        ran = timing.run_times(runs, sizes.run_rounds)
        for m in METHODS:
            found, seconds = compiled.get((m, T), []), ran.get(m, [])
            rows.append({
                "cell": cell_name, "job": job, "steps": T, "method": m, "equations": equations[m, T],
                "trace_s": timing.spread([c.trace_s for c in found]),
                "compile_s": timing.spread([c.compile_s for c in found]),
                "trace_and_compile_s": timing.spread(totals[m, T]),
                "run_s": timing.spread(seconds),
                "trace_and_compile_over_scan": timing.ratio(totals[m, T], totals["scan", T]),
                "run_over_scan": timing.ratio(seconds, ran["scan"]),
            })  # fmt: skip
    short, long = sizes.compared
    growth = timing.ratio(totals["scan", long], totals["scan", short])
    return rows, {"cell": cell_name, "job": job, "growth": growth, "met": growth["median"] <= LIMIT}


def run(sizes: Sizes, out: Path) -> tuple[dict[str, Any], Path]:
    """Every cell and job, measured, printed and written one by one: a run that is cut short keeps what it has."""
    before = timing.load()
    rows: list[dict[str, Any]] = []
    verdicts = []
    for cell_name, job in itertools.product(CELLS, JOBS):
        found, verdict = measure(cell_name, job, sizes)
        print(f"\n{cell_name}, {job}\n{text(found)}", flush=True)
        rows += found
        verdicts.append(verdict)
        settings = asdict(sizes) | {"limit": LIMIT}
        result = timing.result("unroll_vs_scan", before, settings, rows=rows, verdicts=verdicts)
        path = timing.write(result, out)
        draw(result, path.with_suffix(".png"))
    return result, path


def text(rows: list[dict[str, Any]]) -> str:
    """One table: seconds are medians, ratios medians over pairs with quartiles; `-` is what was not compiled."""
    head = ("T, method", "equations", "trace", "compile", "both / scan", "run", "run / scan")
    return timing.table(head, [
        (f"{r['steps']:>4} {r['method']}", str(r["equations"]), timing.seconds(r["trace_s"]),
         timing.seconds(r["compile_s"]), timing.times(r["trace_and_compile_over_scan"]), timing.seconds(r["run_s"]),
         timing.times(r["run_over_scan"]))
        for r in rows
    ])  # fmt: skip


def draw(result: dict[str, Any], path: Path) -> None:
    """Two lines of panels over T, both axes logarithmic: trace and compile time above, run time below."""
    import matplotlib.pyplot as plt  # slow to import, and of no use before there is something to draw

    kinds = [(cell, job) for cell in CELLS for job in JOBS]
    quantities = {"trace_and_compile_s": "trace and compile (s)", "run_s": "run (s)"}
    colours = dict(zip(METHODS, ("#D55E00", "#0072B2", "#009E73", "#CC79A7"), strict=False))
    fig, axes = plt.subplots(2, len(kinds), figsize=(13, 6.4), sharex=True, sharey="row", layout="constrained")
    for column, (cell, job) in enumerate(kinds):
        for ax, quantity in zip(axes[:, column], quantities, strict=True):
            for method, colour in colours.items():
                rows = [r for r in result["rows"] if (r["cell"], r["job"], r["method"]) == (cell, job, method)]
                rows = [r for r in rows if r[quantity]["n"]]
                steps, found = [r["steps"] for r in rows], [r[quantity] for r in rows]
                middle = [s["median"] for s in found]
                error = [[m - s["q1"] for m, s in zip(middle, found, strict=True)],
                         [s["q3"] - m for m, s in zip(middle, found, strict=True)]]  # fmt: skip
                ax.errorbar(steps, middle, error, fmt="o-", ms=4, lw=1.5, capsize=2, color=colour, label=method)
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(result["settings"]["steps"], [str(T) for T in result["settings"]["steps"]])
            ax.minorticks_off()
            ax.grid(True, color="0.9", lw=0.8)
        axes[0, column].set_title(f"{cell}, {job}")
        axes[1, column].set_xlabel("T, steps")
    for ax, label in zip(axes[:, 0], quantities.values(), strict=True):
        ax.set_ylabel(label)
    axes[0, 0].legend(frameon=False)
    machine, sizes = result["machine"], result["settings"]
    fig.suptitle(
        f"batch {sizes['batch']}, {sizes['in_size']} inputs, state {sizes['hidden_size']}, {machine['dtype']}; "
        f"{machine['processor']}, {machine['cores']} cores, jax {machine['jax']}, {result['date']}; medians, "
        f"quartiles; graphs of over {sizes['most_equations']:,} equations left out",
        fontsize=10,
    )
    fig.savefig(path, dpi=130)
    plt.close(fig)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unroll_vs_scan", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="tiny sizes and few rounds: does it run?")
    parser.add_argument("--out", type=Path, default=timing.RESULTS, help="folder for the result file and the figure")
    parser.add_argument("--most-equations", type=int, help="leave out what has more (default 10,000), marked `-`")
    parser.add_argument("--no-verdict", action="store_true", help="exit with 0 whatever was measured")
    options = parser.parse_args(argv)
    sizes = FAST if options.fast else Sizes()
    result, path = run(replace(sizes, most_equations=options.most_equations or sizes.most_equations), options.out)
    print(f"\nload average {result['load']}; {path} and .png")
    short, long = result["settings"]["compared"]
    print(f"scan, trace and compile time, T = {long} over T = {short}; limit {LIMIT}x")
    for v in result["verdicts"]:
        verdict = "ok" if v["met"] else "MISSED"
        print(f"  {verdict}: {v['cell']}, {v['job']}: {timing.times(v['growth'])}, n = {v['growth']['n']}")
    return 0 if options.no_verdict or all(v["met"] for v in result["verdicts"]) else 1


if __name__ == "__main__":
    sys.exit(main())

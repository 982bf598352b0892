"""What `progress=True` costs: the same scan with and without its bar, in turn. `python -m benchmarks.progress_cost`.

The bar is drawn on a pseudo-terminal that a thread reads and forgets, so that tqdm does all it does for a person. A
third program, without a bar but with one call back to Python before the loop, shows how much of the cost is that of any
program with a call back.
"""

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import rnnscan as rs

from . import timing


LIMIT = 1.03
KEEP = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
KINDS = ("without", "with", "call_back")
SIZES = {"n_steps": 1000, "batch": 32, "in_size": 64, "hidden_size": 128}
FAST = {"n_steps": 250, "batch": 2, "in_size": 3, "hidden_size": 4}


@contextlib.contextmanager
def unseen_terminal() -> Iterator[None]:
    """`sys.stderr` is a terminal nobody looks at; a null device where the system has no pseudo-terminals."""
    if not hasattr(os, "openpty"):
        with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
            yield
        return
    ours, theirs = os.openpty()

    def drain() -> None:
        with contextlib.suppress(OSError):  # Linux says so when the other end is closed
            while os.read(ours, 65536):
                pass

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        with os.fdopen(theirs, "w") as terminal, contextlib.redirect_stderr(terminal):
            yield
    finally:
        reader.join()
        os.close(ours)


def programs(n_steps: int, batch: int, in_size: int, hidden_size: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """`{"forward" | "training step": {"with": run, "without": run, "call_back": run}}`, compiled."""
    cell = rs.cells.LSTM(in_size, hidden_size)
    key_params, key_xs = jax.random.split(jax.random.key(0))
    params, xs = cell.init(key_params), jax.random.normal(key_xs, (n_steps, batch, in_size))

    def forward(kind: str) -> Callable[..., Any]:
        def run(params: Any, xs: Any) -> Any:
            if kind == "call_back":
                jax.debug.callback(_nothing)
            return rs.scan(cell, params, None, xs, progress=kind == "with")

        return run

    def train(kind: str) -> Callable[..., Any]:
        return jax.value_and_grad(lambda params, xs: jnp.mean(forward(kind)(params, xs)[1] ** 2))

    def ready(function: Callable[..., Any]) -> Callable[[], Any]:
        program = jax.jit(function).lower(params, xs).compile()

        def run() -> Any:
            out = jax.block_until_ready(program(params, xs))
            jax.effects_barrier()  # the last move of the bar belongs to the call that made it
            return out

        return run

    jobs = {"forward": forward, "training step": train}
    return {name: {kind: ready(job(kind)) for kind in KINDS} for name, job in jobs.items()}


def _nothing() -> None:
    pass


def measure(sizes: dict[str, int], rounds: int) -> list[dict[str, Any]]:
    """One row a job: seconds with and without the bar, and their ratio pair by pair."""
    rows = []
    for job, runs in programs(**sizes).items():
        with unseen_terminal():
            found = timing.run_times(runs, rounds)
        cost = timing.ratio(found["with"], found["without"])
        seconds = {f"{name}_s": timing.spread(samples) for name, samples in found.items()}
        one_call = timing.ratio(found["call_back"], found["without"])
        rows.append({"job": job, **seconds, "ratio": cost, "ratio_call_back": one_call, "met": cost["median"] < LIMIT})
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.progress_cost", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="tiny sizes and few rounds: does it run?")
    parser.add_argument("--rounds", type=int, help="pairs of runs of each job")
    parser.add_argument("--out", type=Path, default=timing.RESULTS, help="folder for the result file")
    parser.add_argument("--no-verdict", action="store_true", help="exit with 0 whatever was measured")
    parser.add_argument("--keep-memory", action="store_true", help="start again with a glibc that keeps freed memory")
    options = parser.parse_args(argv)
    kept = all(os.environ.get(name) == value for name, value in KEEP.items())
    if options.keep_memory and not kept:  # read when a process starts
        arguments = sys.argv[1:] if argv is None else argv
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.progress_cost", *arguments], os.environ | KEEP)
    sizes, rounds = (FAST, options.rounds or 3) if options.fast else (SIZES, options.rounds or 40)
    before = timing.load()
    rows = measure(sizes, rounds)
    settings = {"cell": "LSTM", **sizes, "rounds": rounds, "stderr": "pseudo-terminal", "limit": LIMIT}
    settings["memory"] = "glibc keeps what is freed" if kept else "the C library's default"
    name = "progress_cost_kept_memory" if kept else "progress_cost"
    path = timing.write(timing.result(name, before, settings, rows=rows), options.out)
    head = ("LSTM, progress=True", "without", "with", "with / without", "one call back / without", "verdict")
    cells = [
        (r["job"], timing.seconds(r["without_s"]), timing.seconds(r["with_s"]), timing.times(r["ratio"], 3),
         timing.times(r["ratio_call_back"], 3), f"{'ok' if r['met'] else 'MISSED'}: limit {LIMIT}x")
        for r in rows
    ]  # fmt: skip
    print(timing.table(head, cells))
    print(f"sizes {sizes}, {rounds} pairs, median of ratios with quartiles; {path}")
    return 0 if options.no_verdict or all(r["met"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

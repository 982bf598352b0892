"""A training step of every library's layer, side by side: `python -m benchmarks.step_time`, half an hour on two cores.

Value and gradient of the mean of `ys**2`, with respect to params ("train"), to params and xs ("train_dx"), and the
outputs alone ("forward"); tracing and compiling, and XLA's temporaries, beside each. Two threads and the same numbers
for everyone; whoever disagrees with plain `lax.scan` fails. On a GPU the same command takes cuDNN and bfloat16 in too.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from . import contenders, peers, peers_torch, step_figure, step_floor, step_report, step_tables, timing
from .contenders import JOBS, LIBRARY_CELLS, Absent, Contender, Problem
from .users_cells import USERS_CELLS


SHAPES = ("28,150,28,150", "100,32,64,128", "1000,8,64,128", "100,64,512,512", "256,256,256,32", "200,64,256,512")
SHAPES = (*SHAPES, "672,1,32,32", step_report.ADDED)
CELLS = (*LIBRARY_CELLS, *USERS_CELLS)
MAKERS: dict[str, Callable[[Problem], Contender]] = {
    "plain": contenders.plain, "rnnscan": contenders.rnnscan, "rnnscan-variant": contenders.rnnscan_variant,
    "linen": peers.linen, "linen-optimized": peers.linen_optimized, "nnx": peers.nnx, "haiku": peers.haiku,
    "equinox": peers.equinox, "keras": peers.keras, "jax-rnn": peers.jax_rnn, "torch": peers_torch.torch_layer,
}  # fmt: skip
OURS = ("plain", "rnnscan")  # the only ones that a user's cell has
PACKAGES = ("jaxlib", "flax", "dm-haiku", "equinox", "keras", "torch")

ROUNDS = 15
COMPILE_ROUNDS = {"train": 3, "train_dx": 1, "forward": 1}  # the targets speak of a training step's
DX_BUDGET_S = 12.0  # "train_dx" takes fewer rounds, LEAST_ROUNDS at least, where ROUNDS would take longer than this
LEAST_ROUNDS = 5


def measure(problem: Problem, job: str, names: list[str], rounds: int, compile_rounds: int) -> dict[str, Any]:
    """One block: everyone at one problem and job, in turn. Ratios are taken within a block and nowhere else."""
    block: dict[str, Any] = {"cell": problem.cell, "shape": list(problem.shape), "dtype": problem.dtype, "job": job}
    block |= {"load": timing.load(), "contenders": {}, "absent": {}, "failed": {}}
    made = made_contenders(problem, names, block)
    cases = {}
    for name, contender in made.items():
        if contender.forward is not None:
            params = jax.block_until_ready((contender.into(problem.weights), contender.data(problem.xs)))
            cases[name] = (contenders.function(contender, job), *params)
    compiled = compile_all(cases, compile_rounds, block)
    runs, want = {}, {}
    for name, contender in made.items():
        if name in compiled or contender.eager is not None:
            run = contender.eager(job) if contender.eager else partial(compiled[name][-1].program, *cases[name][1:])
            if contender.variant not in want:
                want[contender.variant] = contenders.wanted(problem, contender.variant, job)
            try:
                apart = check(problem, contender, job, run, want[contender.variant])
            except Exception as error:  # out of memory, a kernel the device lacks: the others go on
                block["failed"][name] = f"{type(error).__name__}: {error}"
                continue
            runs[name] = run
            block["contenders"][name] = {"note": contender.note, "variant": contender.variant, "apart": apart}
            if apart > contenders.tolerance(problem.dtype, jax.default_backend()):
                block["failed"][name] = f"{apart:.1e} away from plain lax.scan"
    for name, samples in timing.run_times(runs, rounds, warmup=1).items():  # the check was the first call
        block["contenders"][name] |= {"seconds": timing.spread(samples), "samples": rounded(samples)}
        if name in compiled:
            seconds = [c.total_s for c in compiled[name]]
            memory = compiled[name][-1].program.memory_analysis()
            temporaries = None if memory is None else memory.temp_size_in_bytes
            block["contenders"][name] |= {"compile_s": rounded(seconds), "temp_bytes": temporaries}
    return block


def made_contenders(problem: Problem, names: list[str], block: dict[str, Any]) -> dict[str, Contender]:
    made = {}
    for name in names:
        if problem.cell in USERS_CELLS and name not in OURS:
            continue
        try:
            made[name] = MAKERS[name](problem)
        except (Absent, ImportError) as reason:
            block["absent"][name] = str(reason)
    return made


def compile_all(cases: dict[str, Any], rounds: int, block: dict[str, Any]) -> dict[str, list[timing.Compilation]]:
    """`timing.compile_times`; where somebody cannot be compiled, without them."""
    try:
        return timing.compile_times(cases, rounds) if cases else {}
    except Exception:
        able = {}
        for name, case in cases.items():
            try:
                timing.compile_fresh(*case)
                able[name] = case
            except Exception as error:
                block["failed"][name] = f"{type(error).__name__}: {error}"
        if len(able) == len(cases):
            raise
        return timing.compile_times(able, rounds) if able else {}


def check(problem: Problem, contender: Contender, job: str, run: Callable[[], Any], want: dict[str, Any]) -> float:
    """The largest distance of what it computes from what plain lax.scan computes."""
    out = jax.block_until_ready(run())
    out = peers_torch.as_arrays(out) if contender.eager else out
    apart = contenders.distances(contenders.numbers(problem, contender, job, out), want)
    return max(apart.values())


def rounded(samples: list[float]) -> list[float]:
    return [float(f"{s:.5g}") for s in samples]


def expected_s(problem: Problem, job: str, names: list[str], rounds: int, compile_rounds: int) -> float:
    """A rough guess of the time to go: products at 120 GFLOP/s, 30 us a step, 0.8 s a compilation."""
    T, B, n_in, n = problem.shape
    columns = {"elman": 1, "lstm": 4, "concat-lstm": 4}.get(problem.cell, 3)
    step = 2 * B * (n_in + n) * columns * n / 120e9 + 30e-6
    taking_part = [name for name in names if problem.cell in LIBRARY_CELLS or name in OURS]
    round_s = len(taking_part) * T * step * {"forward": 1, "train": 3, "train_dx": 3.5}[job]
    if job == "train_dx":
        rounds = rounds_with_dx(rounds, round_s)
    return (rounds + 2) * round_s + len(taking_part) * (compile_rounds + 0.3) * 0.8


def rounds_with_dx(rounds: int, round_s: float) -> int:
    """As many as fit into DX_BUDGET_S; not under LEAST_ROUNDS, not over `rounds`."""
    return min(rounds, max(LEAST_ROUNDS, int(DX_BUDGET_S / round_s)))


def run_all(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Every block in turn, printed and written as it is done: a run that is cut short keeps what it has."""
    gpu = jax.default_backend() == "gpu"
    problems = [
        Problem(cell, tuple(map(int, shape.split(","))), dtype)
        for dtype in (("float32", "bfloat16") if gpu else ("float32",))
        for cell, shape in itertools.product(options.cells, options.shapes)
    ]
    if not gpu:
        print("left out on the CPU: jax.experimental.rnn and torch's cuDNN, and bfloat16")
    before, blocks, floors = timing.load(), [], []
    guess = {
        (p, job): expected_s(p, job, options.contenders, options.rounds, options.compile_rounds[job])
        for p in problems for job in options.jobs
    }  # fmt: skip
    print(f"{len(guess)} blocks, very roughly {sum(guess.values()) / 60:.0f} minutes", flush=True)
    start, done, told, record = time.perf_counter(), 0.0, set(), {}
    for problem in problems:
        round_s = 0.0  # of the training step with everyone
        for job in options.jobs:
            rounds = options.rounds
            if job == "train_dx" and round_s:
                rounds = rounds_with_dx(rounds, 1.2 * round_s)
            block = measure(problem, job, options.contenders, rounds, options.compile_rounds[job])
            if job == "train":
                round_s = sum(c["seconds"]["median"] for c in block["contenders"].values() if "seconds" in c)
            blocks.append(block)
            done += guess[problem, job]
            gone = time.perf_counter() - start
            togo = gone * (sum(guess.values()) - done) / done
            tell(block, told)
            print(f"    {len(blocks)}/{len(guess)}, {gone / 60:.1f} min gone, {togo / 60:.0f} to go", flush=True)
        if options.floor and problem.cell in LIBRARY_CELLS:
            floors.append(step_floor.measure(problem, options.rounds))
        record = step_record(before, options, blocks, floors)
        write(record, path)
    return record


def tell(block: dict[str, Any], told: set[str]) -> None:
    """A line for the block, and one for each contender that was left out or failed."""
    T, B, n_in, n = block["shape"]
    medians = {n: c["seconds"]["median"] for n, c in block["contenders"].items() if "seconds" in c}
    ranked = ", ".join(f"{name} {1e3 * medians[name]:.4g}" for name in sorted(medians, key=medians.__getitem__))
    print(f"{block['cell']} ({T}, {B}, {n_in}, {n}) {block['dtype']} {block['job']}, ms: {ranked}")
    for name, reason in block["absent"].items():
        line = f"    left out: {name}, {block['cell']}: {reason}"
        if line not in told:
            told.add(line)
            print(line)
    for name, reason in block["failed"].items():
        print(f"    FAILED: {name}: {reason}")


def step_record(before: Any, options: Any, blocks: list[Any], floors: list[Any]) -> dict[str, Any]:
    names = ("rounds", "compile_rounds", "jobs", "shapes", "cells", "contenders")
    settings = {name: getattr(options, name) for name in names} | {"threads": peers_torch.THREADS}
    settings |= {"dx_budget_s": DX_BUDGET_S, "tolerances": contenders.TOLERANCES}
    record = timing.result("step_time", before, settings, blocks=blocks, floors=floors)
    record["machine"]["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY", "")  # torch's threads spin without
    for package in PACKAGES:
        try:
            record["machine"][package] = version(package)
        except PackageNotFoundError:
            record["machine"][package] = None
    return record


def write(record: dict[str, Any], path: Path) -> None:
    """The json, a line for each block, and the table beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    long = {name: record[name] for name in ("blocks", "floors")}
    text = json.dumps(record | dict.fromkeys(long, []), indent=1, allow_nan=False)
    for name, items in long.items():
        lines = ",\n".join(json.dumps(item, allow_nan=False) for item in items)
        text = text.replace(f'"{name}": []', f'"{name}": [\n{lines}\n]') if items else text
    path.write_text(text + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(step_tables.markdown(record), encoding="utf-8")


def merged(paths: list[Path]) -> dict[str, Any]:
    """The last file's record with the blocks of all: a block that two files have is the later file's, whole."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    record = records[-1] | {"merged": [f"{', '.join(r['settings']['jobs'])} ({r['date']})" for r in records]}
    for part, names in (("blocks", ("cell", "shape", "dtype", "job")), ("floors", ("cell", "shape", "dtype"))):
        items = [item for r in records for item in r[part]]
        record[part] = list({tuple(str(item[name]) for name in names): item for item in items}.values())
    return record


def listed(kinds: Any) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in kinds]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(kinds)}")
        return names

    return parse


def shape(text: str) -> str:
    if len(sizes := text.split(",")) != 4 or not all(size.isdigit() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"a shape is T,B,in,H, as 100,32,64,128; got {text!r}")
    return text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_time", description=__doc__)
    parser.add_argument("--shapes", type=shape, nargs="+", default=list(SHAPES), metavar="T,B,in,H")
    parser.add_argument("--cells", type=listed(CELLS), default=list(CELLS), help=",".join(CELLS))
    parser.add_argument("--contenders", type=listed(MAKERS), default=list(MAKERS), help=",".join(MAKERS))
    parser.add_argument("--jobs", type=listed(JOBS), default=list(JOBS), help=",".join(JOBS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--compile-rounds", type=int, help="of every job; default 3 for train, else 1")
    parser.add_argument("--floor", action="store_true", help="also time the products alone, in a loop")
    parser.add_argument("--out", type=Path, default=timing.RESULTS, help="folder for step_time.json, .md and .png")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="measure nothing: table of these files")
    options = parser.parse_args(argv)
    rounds = options.compile_rounds
    options.compile_rounds = dict.fromkeys(JOBS, rounds) if rounds else COMPILE_ROUNDS
    record = merged(options.merge) if options.merge else None
    device = (record or {"machine": timing.machine()})["machine"]["device"]
    of_device = "" if device == "cpu" else "-" + "".join(c if c.isalnum() else "_" for c in device.lower())
    path = options.out / f"step_time{of_device}.json"
    record = record or run_all(options, path)
    write(record, path)
    step_figure.draw(path, path.with_suffix(".png"))
    print(f"\n{step_tables.verdict_table(record)}\n\n{path}, .md and .png")
    return 1 if any(block["failed"] for block in record["blocks"]) else 0


def two_cores() -> None:
    """XLA starts as many threads as the process has cores, so everyone gets two of them; before JAX starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: peers_torch.THREADS])


if __name__ == "__main__":
    two_cores()
    sys.exit(main())

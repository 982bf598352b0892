"""The one timer of all benchmarks: interleaved runs, fresh compilations, medians with their spread, ratios from pairs.

On a machine that others use as well, two timings taken a minute apart say little about each other. So whatever is to
be compared runs in turn, round after round, in an order shuffled anew for each round; a ratio is taken inside each
round, and what is reported is the median of these ratios with their quartiles.
"""

import datetime
import gc
import json
import math
import os
import platform
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


RESULTS = Path(__file__).resolve().parent / "results"


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles, extremes and number of the samples; all None where there is none."""
    if not len(samples):
        return {"median": None, "q1": None, "q3": None, "min": None, "max": None, "n": 0}
    low, q1, median, q3, high = (float(v) for v in np.quantile(samples, (0, 0.25, 0.5, 0.75, 1)))
    return {"median": median, "q1": q1, "q3": q3, "min": low, "max": high, "n": len(samples)}


def ratio(of: Sequence[float], to: Sequence[float]) -> dict[str, Any]:
    """The spread of `of[i] / to[i]` over the rounds `i` that measured both: never a quotient of two medians."""
    return spread([a / b for a, b in zip(of, to, strict=False)])


def run_times(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int = 20,
    warmup: int = 2,
    least_s: float = 2e-3,
    settle_s: float = 1e-2,
) -> dict[str, list[float]]:
    """Seconds a call for each of `runs`, one sample a round; every round measures all of them, in an order
    of its own.

    A call ends when its result is ready (`jax.block_until_ready`). Each run is called `warmup` times before anything
    is kept; those calls also tell how many calls make a sample of at least `least_s` seconds, which the clock and the
    scheduler resolve.

    Before each sample the same program runs for `settle_s` seconds that nobody counts, unless one call takes ten times
    as long: OpenMP's threads go on spinning for some milliseconds after a call of torch, and whoever comes next shares
    its cores with them.
    """
    calls, unheard = {}, {}
    for name, run in runs.items():
        seconds = min(_seconds(run, 1) for _ in range(max(1, warmup)))
        calls[name] = max(1, math.ceil(least_s / seconds))
        unheard[name] = math.ceil(settle_s / seconds) if seconds < 10 * settle_s else 0
    times: dict[str, list[float]] = {name: [] for name in runs}
    for names in _turns(list(runs), rounds):
        for name in names:
            for _ in range(unheard[name]):
                _seconds(runs[name], 1)
            times[name].append(_seconds(runs[name], calls[name]))
    return times


def _seconds(run: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (time.perf_counter() - start) / calls


def _turns(names: list[Any], rounds: int) -> Iterator[list[Any]]:
    """The order in each round: shuffled, since what ran just before leaves its marks on caches and memory; the same
    orders every time."""
    draw = random.Random(0)
    for _ in range(rounds):
        yield draw.sample(names, len(names))


class Compilation(NamedTuple):
    """One fresh compilation: seconds to trace and lower, seconds that XLA took, and the program, ready to be called."""

    trace_s: float
    compile_s: float
    program: Any

    @property
    def total_s(self) -> float:
        return self.trace_s + self.compile_s


def compile_fresh(function: Callable[..., Any], *args: Any) -> Compilation:
    """Traces, lowers and compiles with nothing kept from before: all of JAX's caches are emptied first."""
    jax.config.update("jax_enable_compilation_cache", False)  # the cache on disk, which a user may have switched on
    jax.clear_caches()
    gc.collect()
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*args)
    traced = time.perf_counter()
    program = lowered.compile()
    return Compilation(traced - start, time.perf_counter() - traced, program)


def compile_times(
    cases: Mapping[Any, tuple[Any, ...]], rounds: int = 9, row_budget_s: float = 10.0
) -> dict[Any, list[Compilation]]:
    """`rounds` fresh compilations of each `(function, *args)`, in turn; fewer of one that has taken `row_budget_s`.

    Every case is compiled in the first round, so a case as long as its budget has n = 1. Sample `i` is of round `i`.
    One compilation of the first case comes before, and is not kept: it pays for what JAX imports at first use.
    """
    compile_fresh(*next(iter(cases.values())))
    found: dict[Any, list[Compilation]] = {name: [] for name in cases}
    for names in _turns(list(cases), rounds):
        for name in names:
            if sum(c.total_s for c in found[name]) < row_budget_s:
                if found[name]:  # only the latest program is kept: hundreds of large ones would fill the memory
                    found[name][-1] = found[name][-1]._replace(program=None)
                found[name].append(compile_fresh(*cases[name]))
    return found


def count_equations(function: Callable[..., Any], *args: Any) -> int:
    """How many equations the function's jaxpr has, those of inner jaxprs included, each as often as it appears."""

    def count(jaxpr: Any) -> int:
        inner = [leaf for eqn in jaxpr.eqns for leaf in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr)]
        return len(jaxpr.eqns) + sum(count(getattr(leaf, "jaxpr", leaf)) for leaf in inner if is_jaxpr(leaf))

    def is_jaxpr(value: Any) -> bool:
        return hasattr(value, "eqns")

    return count(jax.make_jaxpr(function)(*args).jaxpr)


def load() -> list[float] | None:
    """The load average over 1, 5 and 15 minutes, None where the system keeps none; over the number of cores: noise."""
    return [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else None


def machine() -> dict[str, Any]:
    """What a timing depends on: processor, cores, device, Python, versions, the float type of `jnp.zeros(())`."""
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "device": device.platform if device.platform == "cpu" else device.device_kind,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "dtype": str(jnp.zeros(()).dtype),
        "python": platform.python_version(),
        **{package: version(package) for package in ("jax", "jaxlib", "numpy")},
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit of this repository that ran, `+` behind it where files were changed; empty outside a repository."""
    said = []
    for command in ("rev-parse --short HEAD", "status --porcelain --untracked-files=no"):
        try:
            found = subprocess.run(["git", *command.split()], cwd=RESULTS, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        said.append(found.stdout.strip())
    return said[0] + "+" * bool(said[1])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned text: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    align = lambda row: "  ".join(
        t.rjust(w) if i else t.ljust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))
    )
    return "\n".join([align(head), "  ".join("-" * width for width in widths), *map(align, rows)])


def seconds(value: dict[str, Any]) -> str:
    """A spread of seconds as `1.23 ms`; `(n=1)` is said where one sample is all there is, `-` where none is."""
    median = value["median"]
    if median is None:
        return "-"
    unit, factor = next((u, f) for u, f in (("s", 1), ("ms", 1e3), ("us", 1e6)) if median * f >= 1 or u == "us")
    number = f"{median * factor:.3g}" if median * factor < 100 else f"{median * factor:.0f}"
    return f"{number} {unit}" + (" (n=1)" if value["n"] == 1 else "")


def times(value: dict[str, Any], digits: int = 2) -> str:
    """A spread of ratios as `1.04x [1.01, 1.09]`, the brackets being the quartiles; `(n=1)` in their place; `-`."""
    if value["median"] is None:
        return "-"
    bounds = "(n=1)" if value["n"] == 1 else f"[{value['q1']:.{digits}f}, {value['q3']:.{digits}f}]"
    return f"{value['median']:.{digits}f}x {bounds}"


def result(name: str, load_before: Any, settings: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """What a benchmark writes: its name, the date, the machine and its load, the settings, then its own parts."""
    loads = {"before": load_before, "after": load()}
    cores = machine()["cores"]
    busy = bool(loads["before"]) and loads["before"][0] > 0.5 * cores
    note = "other programs ran on this machine when the benchmark began" if busy else ""
    date = datetime.date.today().isoformat()
    return {
        "name": name,
        "date": date,
        "machine": machine(),
        "load": loads,
        "note": note,
        "settings": settings,
        **parts,
    }


def write(result: dict[str, Any], out: Path = RESULTS) -> Path:
    """Writes `<name>-<device>-<date>.json` into `out` and returns its path."""
    device = "".join(c if c.isalnum() else "_" for c in result["machine"]["device"].lower())
    path = Path(out) / f"{result['name']}-{device}-{result['date']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path

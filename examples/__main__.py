"""`python -m examples [name ...] [--fast] [--full] [--out DIR]`: runs the jobs, then prints what came out."""

import os


os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files; before anything imports matplotlib

import argparse
import importlib
import sys
import time
from pathlib import Path

from ._job import JOBS, Merit, Settings, table


def main(arguments: list[str] | None = None) -> int:
    """Runs the jobs named (all by default); returns 1 if a figure of merit was missed, else 0."""
    names, settings = _read(arguments)
    started, merits = time.perf_counter(), list[Merit]()
    for name in names:
        merits += _run(name, settings)
    missed = sum(not merit.met for merit in merits)
    print(f"\n{table(merits)}\n")
    seconds = time.perf_counter() - started
    print(f"{len(merits)} figures of merit, {missed} missed; {seconds:.0f} s; figures in {settings.out}/")
    return 1 if missed else 0


def _run(name: str, settings: Settings) -> list[Merit]:
    job = importlib.import_module(f"examples.{name}")
    print(f"\n== {name}: {(job.__doc__ or '').strip().splitlines()[0]}", flush=True)
    started = time.perf_counter()
    merits = job.run(settings)
    print(f"  {name} took {time.perf_counter() - started:.1f} s", flush=True)
    return merits


def _read(arguments: list[str] | None) -> tuple[list[str], Settings]:
    parser = argparse.ArgumentParser(prog="python -m examples", description="Recurrent jobs with published results.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"which jobs to run: {', '.join(JOBS)} (default: all)")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--fast", action="store_true", help="seconds a job, for continuous integration")
    pace.add_argument("--full", action="store_true", help="the long runs (rows with three seeds)")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where figures go (default: out)")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in JOBS]
    if unknown:
        parser.error(f"there is no job {', '.join(map(repr, unknown))}; the jobs are {', '.join(JOBS)}")
    return list(dict.fromkeys(chosen.names)) or list(JOBS), Settings(chosen.fast, chosen.full, chosen.out)


if __name__ == "__main__":
    sys.exit(main())

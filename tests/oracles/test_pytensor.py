"""`rnnscan.compat.theano` beside PyTensor, Theano's living descendant: random programs, values and gradients.

Where PyTensor is known to be wrong the programs go round the fault, and a test at the end holds our answer and names
the fault. Gradients after `until` are one of them (pytensor#2217), so there the values are held to PyTensor's `until`
and the gradients to PyTensor's scan over the steps that ran.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from rnnscan.compat import theano as ours
from tests.helpers import assert_close, compile_quickly
from tests.oracles.programs import differential


pytensor = pytest.importorskip("pytensor")
pt = pytest.importorskip("pytensor.tensor")
theirs = pytest.importorskip("pytensor.scan")

pytensor.config.cxx = ""  # no C compiler: one small program after another
QUICK = pytensor.compile.mode.Mode(linker="py", optimizer="fast_compile")
FUNCTIONS = {"linear": lambda lib, s: 0.6 * s, "tanh": lambda lib, s: lib.tanh(s), "sin": lambda lib, s: lib.sin(s)}


@dataclass(frozen=True)
class Sequence:
    n_steps: int
    taps: tuple[int, ...] | None  # None: bare


@dataclass(frozen=True)
class Output:
    taps: tuple[int, ...] | None  # None: not fed back
    function: str
    as_dict: bool
    spare: int  # rows of the initial value beyond those needed


@dataclass(frozen=True)
class Program:
    kind: str
    width: int  # features of every element; 0: scalars
    sequences: tuple[Sequence, ...]
    outputs: tuple[Output, ...]
    n_constants: int
    fewer: int | None  # n_steps below what the sequences give; None: not given
    go_backwards: bool
    truncate: int
    limit: float | None  # stops where the first output's first element exceeds it
    seed: int

    @property
    def n_steps(self) -> int:
        lengths = [s.n_steps - max(0, *(s.taps or (0,)), 0) + min(0, *(s.taps or (0,)), 0) for s in self.sequences]
        return max(1, min(lengths, default=5) - (self.fewer or 0))

    @property
    def gives_n_steps(self) -> bool:
        return self.kind == "scan" and (self.fewer is not None or not self.sequences)


TAPS = st.lists(st.integers(-2, 2), min_size=1, max_size=3, unique=True).map(tuple)
SEQUENCES = st.builds(Sequence, st.sampled_from([5, 6, 8]), st.none() | TAPS)
OUTPUT_TAPS = st.none() | st.just((-1,)) | st.lists(st.integers(-3, -1), min_size=1, max_size=3, unique=True).map(tuple)
OUTPUTS = st.builds(Output, OUTPUT_TAPS, st.sampled_from(sorted(FUNCTIONS)), st.booleans(), st.integers(0, 2))
PROGRAMS = st.builds(
    Program,
    kind=st.sampled_from(["scan"] * 6 + ["map", "reduce", "foldl", "foldr"]),
    width=st.sampled_from([0, 2]),
    sequences=st.lists(SEQUENCES, max_size=3).map(tuple),
    outputs=st.lists(OUTPUTS, min_size=1, max_size=3).map(tuple),
    n_constants=st.integers(0, 2),
    fewer=st.none() | st.integers(0, 3),
    go_backwards=st.booleans(),
    truncate=st.just(-1) | st.integers(1, 4),
    limit=st.none() | st.floats(-1.5, 1.5),
    seed=st.integers(0, 2**20),
).filter(lambda p: p.sequences or p.kind == "scan" and (p.n_constants or any(o.taps for o in p.outputs)))


def data_of(program: Program) -> dict[str, list[np.ndarray]]:
    draw = np.random.default_rng(program.seed)
    element = (program.width,) if program.width else ()
    array = lambda *shape: draw.uniform(0.2, 0.9, (*shape, *element)) * draw.choice([-1, 1], (*shape, *element))
    fed = [o for o in outputs_of(program) if o.taps]
    return {
        "sequences": [array(s.n_steps) for s in program.sequences],
        "initial": [array() if o.taps == (-1,) else array(-min(o.taps) + o.spare) for o in fed],
        "constants": [array() for _ in range(program.n_constants)],
    }


def outputs_of(program: Program) -> list[Output]:
    """A map feeds nothing back, and a fold's first output is fed back."""
    if program.kind == "map":
        return [Output(None, o.function, False, 0) for o in program.outputs]
    return list(program.outputs)


def step_of(program: Program, lib: Any, until: Any) -> Any:
    """Each output from every argument, each argument with its own weight, so that an exchanged pair is seen."""
    outputs = outputs_of(program)

    def fn(*arguments):
        results = []
        for j, output in enumerate(outputs):
            total = sum((0.9 / (1 + i + j) + 0.1 * (i - j)) * a for i, a in enumerate(arguments))
            if len(arguments) > 1:
                total = total + 0.3 * arguments[0] * arguments[-1]
            results.append(FUNCTIONS[output.function](lib, total + 0.2))
        results = results[0] if len(results) == 1 else results
        if until is None:
            return results
        first = outputs and (results if not isinstance(results, list) else results[0])
        return results, until((first[0] if program.width else first) > program.limit)

    return fn


def call(
    program: Program, library: Any, lib: Any, data: dict[str, list[Any]], n_steps: Any, until: Any, **ours: Any
) -> tuple[list[Any], Any]:
    """The program in one library or the other: all outputs as a list, and the updates."""
    fn = step_of(program, lib, until if program.limit is not None else None)
    sequences = [
        x if s.taps is None else {"input": x, "taps": list(s.taps)}
        for s, x in zip(program.sequences, data["sequences"], strict=True)
    ]
    initial = iter(data["initial"])
    infos = [
        None if not o.taps else dict(initial=next(initial), taps=list(o.taps)) if o.as_dict or o.taps != (-1,)
        else next(initial) for o in outputs_of(program)
    ]  # fmt: skip
    constants = data["constants"] or None
    if program.kind == "scan":
        got, updates = library.scan(
            fn, sequences or None, infos, constants, n_steps=n_steps, go_backwards=program.go_backwards,
            truncate_gradient=program.truncate, **ours,
        )  # fmt: skip
    elif program.kind == "map":
        got, updates = library.map(
            fn, sequences, constants, truncate_gradient=program.truncate, go_backwards=program.go_backwards, **ours
        )
    elif program.kind == "reduce":
        got, updates = library.reduce(fn, sequences, infos, constants, go_backwards=program.go_backwards)
    else:
        got, updates = getattr(library, program.kind)(fn, sequences, infos, constants)
    return (list(got) if isinstance(got, list | tuple) else [got]), updates


def loss(lib: Any, outputs: list[Any]) -> Any:
    return sum((0.7 + 0.4 * j) * lib.cos(y).sum() for j, y in enumerate(outputs))


def run_theirs(program: Program, data: dict[str, list[np.ndarray]], mode: Any = QUICK) -> tuple[Any, Any, int | None]:
    """Outputs, gradients, and how many steps ran if the program has `until`."""
    n_steps, ran = (program.n_steps if program.gives_n_steps else None), None
    stopped = None
    if program.limit is not None:
        values, _ = compile_theirs(program, data, n_steps, theirs.until, mode)
        stopped = values
        ran = len(values[0]) if program.kind in ("scan", "map") else steps_of(program, data)
        n_steps = ran
    values, gradients = compile_theirs(program, data, n_steps, None, mode)
    if stopped is not None:
        assert_close(values, stopped)
    return values, gradients, ran


def steps_of(program: Program, data: dict[str, list[np.ndarray]]) -> int:
    """A fold does not say how many steps it ran; the scan it stands for does."""
    backwards = {"foldl": False, "foldr": True}.get(program.kind, program.go_backwards)
    as_scan = Program(**{**vars(program), "kind": "scan", "fewer": None, "go_backwards": backwards, "truncate": -1})
    return len(compile_theirs(as_scan, data, None, theirs.until, QUICK)[0][0])


def compile_theirs(program: Program, data: Any, n_steps: int | None, until: Any, mode: Any) -> tuple[Any, Any]:
    """Builds and runs one PyTensor graph; gradients where the program has no `until`."""
    if until is None and program.limit is not None:
        backwards = {"foldl": False, "foldr": True}.get(program.kind, program.go_backwards)
        fold = program.kind not in ("scan", "map")
        truncate = -1 if fold else program.truncate
        outputs = tuple(outputs_of(program))
        program = Program(**{**vars(program), "kind": "scan", "limit": None, "go_backwards": backwards,
                             "truncate": truncate, "outputs": outputs})  # fmt: skip
    else:
        fold = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        symbols = {name: [pt.tensor(dtype="float64", shape=(None,) * a.ndim) for a in arrays]
                   for name, arrays in data.items()}  # fmt: skip
        count = pt.lscalar("n_steps")  # with a constant 1 PyTensor takes a short cut that forgets go_backwards
        outputs, _ = call(program, theirs, pt, symbols, None if n_steps is None else count, until)
        if fold:
            outputs = [y[-1] for y in outputs]
        inputs = [s for group in symbols.values() for s in group]
        gradients = []
        if until is None and inputs:
            gradients = pytensor.grad(
                loss(pt, outputs), inputs, disconnected_inputs="ignore", return_disconnected="zero"
            )
        function = pytensor.function([*inputs, count], [*outputs, *gradients], mode=mode, on_unused_input="ignore")
        found = function(*(a for group in data.values() for a in group), n_steps or 0)
    return list(found[: len(outputs)]), list(found[len(outputs) :])


def run_ours(program: Program, data: dict[str, list[np.ndarray]]) -> tuple[Any, Any]:
    """Under jit with trim=False; a program in two with `until` as Theano has it, outside jit and cut at the stop."""
    n_steps = program.n_steps if program.gives_n_steps else None
    trim = program.limit is not None and program.seed % 2 == 0
    options = {} if trim or program.kind not in ("scan", "map") else {"trim": False}

    def value(data: Any) -> Any:
        outputs, updates = call(program, ours, jnp, data, n_steps, ours.until, **options)
        return loss(jnp, outputs), (outputs, updates)

    run = jax.grad(value, has_aux=True)
    gradients, (outputs, updates) = (run if trim else compile_quickly(run))(jax.tree.map(jnp.asarray, data))
    outputs = [np.asarray(y) for y in outputs]
    if "trim" in options and updates:
        ran = int(updates["n_steps"])
        assert not any(y[ran:].any() for y in outputs)
        outputs = [y[:ran] for y in outputs]
    return outputs, [np.asarray(g) for name in data for g in gradients[name]]


@differential(PROGRAMS, full=1000)
def test_scan_map_reduce_and_folds(program: Program) -> None:
    data = data_of(program)
    outputs, gradients, _ = run_theirs(program, data)
    assert_close(run_ours(program, data), (outputs, gradients))
    assert math.isfinite(sum(float(np.sum(y)) for y in outputs))

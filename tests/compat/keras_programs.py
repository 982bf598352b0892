"""Random programs for Keras' `rnn`, and the meaning of that function as a plain loop over each row's own steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Program:
    """A step function, its input and a setting of every argument of `rnn`; all arrays come from the seed."""

    seed: int = 0
    n_rows: int = 2
    n_steps: int = 4
    n_inputs: int = 1  # 1: an array; 2: a list of two
    n_states: int = 2
    matmul: bool = True  # whether the state goes through a matrix, or each unit feeds back to itself
    output: str = "other"  # "state": the first state; "other": of another size; "pair": nested
    n_constants: int = 0
    go_backwards: bool = False
    mask: str | None = None  # "full", "right", "left", "holes", "rows" (one row has no step at all)
    mask_ndim: int = 2
    unroll: bool = False
    time_major: bool = False
    zero_output_for_mask: bool = False
    return_all_outputs: bool = True

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def valid(self) -> np.ndarray:
        """bool (B, T): which steps count."""
        draw, t = self.random(), np.arange(self.n_steps)
        lengths = draw.integers(0, self.n_steps + 1, (self.n_rows, 1))
        kinds = {
            "right": t < lengths,
            "left": t >= self.n_steps - lengths,
            "holes": draw.random((self.n_rows, self.n_steps)) < 0.5,
            "rows": np.arange(self.n_rows)[:, None] + 0 * t > 0,
        }
        return kinds.get(self.mask or "", np.ones((self.n_rows, self.n_steps), bool))

    def arrays(self) -> dict[str, Any]:
        """Inputs (B, T, F), states, constants and weights, without zeros."""
        draw = self.random()
        normal = lambda *shape: draw.normal(size=shape) + 0.1
        n = self.n_rows
        return {
            "inputs": [normal(n, self.n_steps, 3), normal(n, self.n_steps, 2)][: self.n_inputs],
            "states": [normal(n, 4), normal(n, 2, 3)][: self.n_states],
            "constants": [normal(4), normal(n, 4)][: self.n_constants],
            "weights": {
                "x": normal(3, 4),
                "z": normal(2, 4),
                "h": 0.5 * normal(4, 4),
                "u": normal(4),
                "y": normal(4, 5),
            },
        }

    def step(self, lib: Any, w: Any) -> Callable[[Any, Any], Any]:
        """The step function, over weights it closes over; `lib` is NumPy, JAX's or torch."""

        def step(x, states):
            constants = states[self.n_states :]
            first, *second = x if self.n_inputs == 2 else [x]
            drive = first @ w["x"] + (second[0] @ w["z"] if second else 0.3)
            for constant in constants:
                drive = drive * constant
            back = states[0] @ w["h"] if self.matmul else states[0] * w["u"]
            new = [lib.tanh(drive + back)]
            if self.n_states == 2:
                new.append(0.6 * states[1] + new[0][:, :2, None] * lib.sin(states[1]))
            other = new[0] @ w["y"] + (new[-1].sum(-1)[:, :1] if self.n_states == 2 else 0.2)
            return {"state": new[0], "other": other, "pair": (2.0 * new[0], lib.sin(other))}[self.output], new

        return step

    def options(self, mask: Any = True) -> dict[str, Any]:
        """The flags, and the mask if any, as `rnn` takes them."""
        names = ("go_backwards", "unroll", "time_major", "zero_output_for_mask", "return_all_outputs")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        if mask is not None and self.mask is not None:
            keep = self.turn(self.valid())
            given["mask"] = keep[..., None] if self.mask_ndim == 3 else keep
        return given

    def turn(self, array: Any) -> Any:
        """(B, T, ...) as the program has it: time first with `time_major`."""
        return array.swapaxes(0, 1) if self.time_major else array

    def inputs(self, arrays: Any) -> Any:
        inputs = [self.turn(leaf) for leaf in arrays["inputs"]]
        return inputs if self.n_inputs == 2 else inputs[0]


def plain_loop(program: Program, lib: Any, arrays: Any, valid: Any = None) -> tuple[Any, Any, Any]:
    """`(last_output, outputs, new_states)` from each row's valid steps alone; `lib` is NumPy or JAX's."""
    step, valid = program.step(lib, arrays["weights"]), program.valid() if valid is None else valid
    order = range(program.n_steps)[:: -1 if program.go_backwards else 1]
    rows = []
    for b in range(program.n_rows):
        row = slice(b, b + 1)
        states = [s[row] for s in arrays["states"]]
        constants = [c[row] if c.ndim == 2 else c for c in arrays["constants"]]
        at = lambda x: x if program.n_inputs == 2 else x[0]
        blank = [lib.ones((1, x.shape[2])) for x in arrays["inputs"]]
        nothing = jax.tree.map(lambda y: 0.0 * y, step(at(blank), tuple(states + constants))[0])
        made, held = [], nothing
        for t in order:
            if valid[b, t]:
                held, states = step(at([x[row, t] for x in arrays["inputs"]]), tuple(states + constants))
            made.append(nothing if program.zero_output_for_mask and not valid[b, t] else held)
        shown = made if program.return_all_outputs else made[-1:] or [nothing]
        outputs = jax.tree.map(lambda zero, *ys: lib.stack([zero, *ys], 1)[:, 1:], nothing, *shown)
        rows.append((made[-1] if made else nothing, outputs, tuple(states)))
    last, outputs, states = jax.tree.map(lambda *leaves: lib.concatenate(leaves, 0), *rows)
    return last, jax.tree.map(program.turn, outputs), states


def loss(lib: Any, results: Any) -> Any:
    """A number that sees every entry of every leaf, each with a weight of its own."""
    leaves = jax.tree.leaves(results)
    return sum((lib.cos(leaf) * lib.asarray(ramp(leaf.shape, i))).sum() for i, leaf in enumerate(leaves))


def ramp(shape: Any, i: int) -> np.ndarray:
    return np.linspace(0.3 + 0.1 * i, 1.7, int(np.prod(shape))).reshape(tuple(shape))


PROGRAMS = st.builds(
    Program,
    seed=st.integers(0, 10**6),
    n_rows=st.integers(1, 3),
    n_steps=st.sampled_from([0, 1, 2, 4, 5]),
    n_inputs=st.integers(1, 2),
    n_states=st.integers(1, 2),
    matmul=st.booleans(),
    output=st.sampled_from(["state", "other", "pair"]),
    n_constants=st.integers(0, 2),
    go_backwards=st.booleans(),
    mask=st.sampled_from([None, "full", "right", "left", "holes", "rows"]),
    mask_ndim=st.sampled_from([2, 3]),
    unroll=st.booleans(),
    time_major=st.booleans(),
    zero_output_for_mask=st.booleans(),
    return_all_outputs=st.booleans(),
)

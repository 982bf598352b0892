"""Taps: steps that read inputs and outputs of other steps, as shifted slices of xs and as a window in the carry.

With `before = max(0, -min(taps))` and `after = max(0, max(taps))`, step i of the scan is step `t = i + before` of the
sequence, `i` in `[0, T - before - after)`, and input tap k is the slice `x[before + k : T - after + k]`. Output tap -k
is place `depth - k` of a window of the `depth` latest outputs, oldest first, that each step shifts by one.
"""

import operator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .. import _tree
from .._errors import CarryError, TapError
from .._types import Rng, call, name_of, stochastic


Taps = int | tuple[int, ...] | None  # one tap, several in the order written, or an output that is not fed back


def is_taps(value: Any) -> bool:
    """Whether a node of a tree of taps is a leaf: an int, or a list or tuple of ints."""
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(is_taps(tap) and not isinstance(tap, list | tuple) for tap in value)
    return hasattr(value, "__index__") and not isinstance(value, bool)


def read_taps(name: str, taps: Any) -> Taps:
    """A leaf of a tree of taps in one form."""
    if not is_taps(taps):
        raise TapError(f"`{name}` must be an int or a list of ints, got {taps!r}")
    return tuple(map(operator.index, taps)) if isinstance(taps, list | tuple) else operator.index(taps)


def each(taps: Taps) -> tuple[int, ...]:
    """The taps as a tuple."""
    return taps if isinstance(taps, tuple) else () if taps is None else (taps,)


def spread(name: str, taps: Any, tree: Any, root: str) -> list[Taps]:
    """The taps of each leaf of `tree`, None being a leaf; `taps` has its structure or stands for whole parts of it."""
    found: list[Taps] = []

    def note(leaf: Any, part: Any) -> None:
        given = None if leaf is None else read_taps(name, leaf)
        found.extend([given] * len(jax.tree.leaves(part, is_leaf=_is_none)))

    try:
        jax.tree.map(note, taps, tree, is_leaf=lambda node: node is None or is_taps(node))
    except TapError:
        raise
    except (TypeError, ValueError) as error:
        raise TapError(
            f"`{name}` must be taps (an int, or a list of ints) for every leaf of `{root}`, or a tree of its "
            f"structure with taps for leaves; got {taps!r} for {jax.tree.map(_tree.describe, tree)}."
        ) from error
    return found


def _is_none(value: Any) -> bool:
    return value is None


def reach(taps: list[Taps]) -> tuple[int, int]:
    """`(before, after)`: how many steps the taps look back and ahead; tap 0 is always among them."""
    every = [tap for leaf in taps for tap in each(leaf)]
    return max(0, -min(every, default=0)), max(0, max(every, default=0))


def usable(name: str, taps: list[Taps], n_steps: int) -> int:
    """How many steps taps leave of `n_steps`; TapError if none of some."""
    before, after = reach(taps)
    if n_steps and before + after >= n_steps:
        every = sorted({tap for leaf in taps for tap in each(leaf)}, key=abs)
        far = every[-1] if before + after == abs(every[-1]) else every
        what = f"tap {far} leaves" if isinstance(far, int) else f"taps {far} leave"
        raise TapError(
            f"`{name}`: {what} no steps: T={n_steps}, and a step reads {before} steps back and {after} ahead."
        )
    return max(0, n_steps - before - after)


def tapped(x: Any, taps: Taps, before: int, after: int, axis: int = 0) -> Any:
    """The slice of one sequence for a tap, or a tuple of slices for several, in the order written."""
    if isinstance(taps, tuple):
        return tuple(tapped(x, tap, before, after, axis) for tap in taps)
    n_steps, tap = jnp.shape(x)[axis], taps or 0
    n_steps = max(0, n_steps - before - after)
    start = before + tap if n_steps else 0
    return jax.lax.slice_in_dim(jnp.asarray(x), start, start + n_steps, axis=axis)


def split_rows(name: str, leaf: Any, taps: Taps, axis: int) -> tuple[jax.Array, ...]:
    """Initial rows as a window, oldest first; TapError unless there are as many as the farthest tap looks back."""
    depth = -min(each(taps))
    shape = jnp.shape(leaf)
    if len(shape) <= axis or shape[axis] != depth:
        came = "a scalar" if not shape else f"shape {shape}" if len(shape) <= axis else str(shape[axis])
        rows = f"{depth} initial row{'s' if depth > 1 else ''}"
        hint = ""
        if len(shape) > axis and shape[axis] > depth:
            hint = f" Cut it to those before the first step, the last one being tap -1: `{name}[-{depth}:]`."
        elif depth == 1:
            hint = f" A single row takes an axis for time: `{name}[None]`."
        raise TapError(f"`{name}`: taps {list(each(taps))} need {rows} on axis {axis}, oldest first; got {came}.{hint}")
    leaf = jnp.asarray(leaf)
    return tuple(jax.lax.index_in_dim(leaf, i, axis, keepdims=False) for i in range(depth))


def check_output_taps(name: str, taps: Taps) -> None:
    """Output taps are negative and distinct."""
    for tap in each(taps):
        if tap >= 0:
            raise TapError(f"`{name}`: output taps must be negative (past values), got {tap}")
    if len(set(each(taps))) < len(each(taps)):
        raise TapError(f"`{name}`: output taps must be different, got {list(each(taps))}")


@dataclass(frozen=True)
class Windowed:
    """A step `(params, past, x) -> y` as a cell whose carry is a window of its latest outputs.

    `structure` is that of the initial outputs, None being a leaf, and `taps` has one entry for each such leaf. The
    carry has this structure with a tuple of arrays, oldest first, in place of each leaf that is fed back.
    """

    step: Any
    structure: Any
    taps: tuple[Taps, ...]

    why_none = {  # what the step is given and its user called otherwise, for an error inside it
        "carry": "`past` is None. Without `initial` nothing is fed back; give rows, `initial=jnp.zeros(...)`.",
        "x": "`x` is None. With `xs=None` every step gets None; let the step ignore x, or give `scan_taps` sequences.",
    }

    @property
    def __name__(self) -> str:
        return name_of(self.step)

    @property
    def stochastic(self) -> bool | None:
        return stochastic(self.step)

    def windows(self, carry: Any) -> list[Any]:
        """The carry as a list with one entry for each leaf of the initial outputs."""
        return self.structure.flatten_up_to(carry)

    def past(self, carry: Any) -> Any:
        """What the next step is given: for each leaf the output at its tap, or a tuple of those at its taps."""

        def look(window: Any, taps: Taps) -> Any:
            if isinstance(taps, tuple):
                return tuple(window[tap] for tap in taps)
            return None if taps is None else window[taps]

        return self.structure.unflatten([look(*item) for item in zip(self.windows(carry), self.taps, strict=True)])

    def __call__(self, params: Any, carry: Any, x: Any, rng: Rng | None = None) -> tuple[Any, Any]:
        y = call(self.step, params, self.past(carry), x, rng)
        return self.structure.unflatten(list(map(self._shift, self.windows(carry), self._parts(y)))), y

    def _shift(self, window: Any, part: Any) -> Any:
        return None if window is None else (*window[1:], part)

    def _parts(self, y: Any) -> list[Any]:
        """What the step puts out for each leaf of the initial outputs; one array where it is fed back."""
        try:
            parts = self.structure.flatten_up_to(y)
        except (TypeError, ValueError):
            parts = [()] * len(self.taps)  # no array
        for part, taps in zip(parts, self.taps, strict=True):
            if taps is not None and not jax.tree_util.all_leaves([part]):
                wanted = self.structure.unflatten(["not fed back" if t is None else f"taps {t}" for t in self.taps])
                raise CarryError(
                    f"step `{name_of(self.step)}` must return outputs of the structure of `initial`, one array for "
                    f"each that is fed back: {wanted}; got {jax.tree.map(_tree.describe, y)}."
                )
        return parts

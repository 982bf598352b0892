"""`scan_taps`: a recurrence whose step reads inputs and outputs of several steps, as a translation to `scan`."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp

from . import _inputs, _tree
from ._errors import CarryError, SequenceError, TapError
from ._foreign import FOREIGN, refuse
from ._options import Options, read_options
from ._rewrite.taps import Taps, Windowed, check_output_taps, each, is_taps, reach, split_rows, spread, tapped, usable
from ._scan import DEFAULTS, ScanUntil, scan, scan_until
from ._types import check_callable, name_of


_ARGUMENTS = ("initial", "xs", "x_taps", "y_taps", "until", "max_steps")
_FOREIGN = {name: (whose, instead.replace("`carry=`", "`initial=`")) for name, (whose, instead) in FOREIGN.items()}
_FOREIGN["carry"] = ("`scan`'s", "`initial=`, the third argument: rows of outputs, oldest first")
_FOREIGN["taps"] = ("Theano's", "`x_taps=` for inputs, `y_taps=` for outputs")


def scan_taps(
    step: Callable[..., Any],
    params: Any,
    initial: Any = None,
    xs: Any = None,
    *,
    x_taps: Any = 0,
    y_taps: Any = -1,
    until: Callable[[Any, Any], Any] | None = None,
    max_steps: int | None = None,
    **options: Any,
) -> tuple[Any, Any] | ScanUntil:
    r"""Runs a step that reads chosen inputs and outputs: `y_t = step(params, past, x)`.

    For `x_taps=(k, l)` and `y_taps=(-m, -n)` the meaning is, with t from the first to the last step at which every tap
    lies inside xs,

        y_t = step(params, (y_{t-m}, y_{t-n}), (x_{t+k}, x_{t+l}))

    **Main arguments**

    - `step`: `(params, past, x) -> y`; a stochastic one takes `rng` as fourth argument.
    - `params`: any pytree.
    - `initial`: the outputs before the first step in scan order, oldest first, time on `time_axis`: for each leaf of y
      that is fed back as many rows as its farthest tap looks back; forward, `concatenate([initial, ys])` is the whole
      history. A pytree like y, with None for what is not fed back; None alone: nothing is.
    - `xs`: sequences `(T, *batch, ...)`, or None with `n_steps` or `max_steps`.

    **Other arguments**

    - `x_taps`: an int k, then `x` holds `x_{t+k}`; or a tuple of ints, then it holds a tuple in the order written.
      Negative is past, positive future. One for all of xs, or a tree of the structure of xs, `{"u": (0, -2), "v": 0}`.
    - `y_taps`: the same for what is fed back, a leaf of `past`; negative and distinct. With `reverse` the past is what
      came before in scan order: tap -1 is `y_{t+1}`.
    - `until`, `max_steps`: as in `scan_until`; `until(past, y)`, `past` being what the next step would be given.
    - `options`: those of `scan`, with these meanings where taps matter. `lengths` are those of xs: a row has as many
      steps as if it were cut to its length. `mask` is that of xs: a step counts where every step from its earliest to
      its latest tap does (0 among them) does. `resets` are those of xs, and `reset_carry` is like `initial`: outputs
      of before a boundary are not seen after it, inputs are read across it. `n_steps` is the number of steps to run.

    **Returns** `(last, ys)`, `last` being like `initial`, so that another call goes on from it; with `until`,
    `ScanUntil(last, ys, n_steps, stopped)`. `ys` has `T - max(0, max(taps)) + min(0, min(taps))` steps, all x taps
    taken together: it begins at `t = -min(0, min(taps))`.

    **Raises** `TapError` for output taps that are not negative or not distinct, for initial rows that are not as many
    as the taps need, and for taps that leave no step of a sequence that has some; and what `scan` raises.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> def fibonacci(params, past, x):
    ...     return past[0] + past[1]
    >>> last, ys = rs.scan_taps(fibonacci, None, jnp.array([0, 1]), y_taps=(-1, -2), n_steps=6)
    >>> print(ys, last)
    [ 1  2  3  5  8 13] [ 8 13]
    >>> _, change = rs.scan_taps(lambda params, past, x: x[0] - x[1], None, None, ys, x_taps=(0, -1))
    >>> print(change)
    [1 1 2 3 5]
    """
    _check_call(step, options)
    if until is None and max_steps is not None:
        raise ValueError("`max_steps` goes with `until`; write `n_steps` for a fixed number of steps")
    axis = _time_axis(options)
    _inputs.check_arrays(params=params, initial=initial, xs=xs, reset_carry=options.get("reset_carry"))
    cell = Windowed(step, jax.tree.structure(initial, is_leaf=_is_none), _output_taps(y_taps, initial))
    carry = _windows(cell, "initial", initial, axis)
    if options.get("reset_carry") is not None:
        options["reset_carry"] = _windows(cell, "reset_carry", options["reset_carry"], axis)
    xs, options = _cut(x_taps, xs, axis, options)
    try:
        if until is None:
            carry, ys = scan(cell, params, carry, xs, **options)
            return _rows(cell, carry, axis), ys
        asked = _Until(until, cell) if callable(until) else until
        carry, ys, n_steps, stopped = scan_until(cell, params, carry, xs, until=asked, max_steps=max_steps, **options)
        return ScanUntil(_rows(cell, carry, axis), ys, n_steps, stopped)
    except CarryError as error:
        error.add_note(
            "raised by `scan_taps`, where `carry` is the latest outputs, oldest first; it starts as `initial`"
        )
        raise


def _check_call(step: Any, options: dict[str, Any]) -> None:
    if not callable(step):
        form = "a step, a function `(params, past, x) -> y`, as its first argument"
        raise TypeError(f"`scan_taps` needs {form}; got {_tree.kind(step)}.")
    check_callable("scan_taps", step)
    for name in options:
        if name not in DEFAULTS:
            refuse("scan_taps", name, [*_ARGUMENTS, *DEFAULTS], _FOREIGN)


@dataclass(frozen=True)
class _Until:
    """The user's `until(past, y)` as `until(carry, y)`."""

    until: Any
    cell: Windowed

    called_as = "until(past, y)"

    @property
    def __name__(self) -> str:
        return name_of(self.until)

    def __call__(self, carry: Any, y: Any) -> Any:
        return self.until(self.cell.past(carry), y)


def _time_axis(options: dict[str, Any]) -> int:
    given = {field.name: options.get(field.name, DEFAULTS[field.name]) for field in fields(Options)}
    return read_options(remat=None, **given).time_axis


def _is_none(value: Any) -> bool:
    return value is None


def _output_taps(y_taps: Any, initial: Any) -> tuple[Taps, ...]:
    """One entry for each leaf of `initial`, None for those that are None."""
    leaves = jax.tree.leaves(initial, is_leaf=_is_none)
    taps = spread("y_taps", y_taps, initial, "initial")
    if not jax.tree.leaves(initial) and any(each(given) not in ((), (-1,)) for given in taps):
        raise TapError(f"`y_taps={y_taps!r}` was given without `initial` rows, so that nothing is fed back")
    for given, leaf in zip(taps, leaves, strict=True):
        if given is None and leaf is not None:
            raise ValueError("`y_taps` is None for an output that has `initial` rows; leave out one or the other")
        check_output_taps("y_taps", given)
    if _same_structure(y_taps, initial):
        for given, leaf in zip(taps, leaves, strict=True):
            if given is not None and leaf is None:
                raise TapError(
                    f"`y_taps` has {given} for an output without `initial` rows; write None there, or give rows"
                )
    return tuple(None if leaf is None else given for given, leaf in zip(taps, leaves, strict=True))


def _same_structure(taps: Any, initial: Any) -> bool:
    """Whether taps were written for each output by itself, rather than for all or for whole parts."""
    written = jax.tree.structure(taps, is_leaf=lambda node: node is None or is_taps(node))
    return not is_taps(taps) and written == jax.tree.structure(initial, is_leaf=_is_none)


def _windows(cell: Windowed, name: str, rows: Any, axis: int) -> Any:
    """`initial` as the carry of the cell: a tuple of arrays in place of each leaf."""
    structure = jax.tree.structure(rows, is_leaf=_is_none)
    if structure != cell.structure:
        raise ValueError(f"`{name}` must have the structure of `initial`, {cell.structure}; got {structure}")
    paths = jax.tree_util.tree_flatten_with_path(rows, is_leaf=_is_none)[0]
    return structure.unflatten(
        None if leaf is None else split_rows(_tree.path_name(name, path), leaf, taps, axis)
        for (path, leaf), taps in zip(paths, cell.taps, strict=True)
    )


def _rows(cell: Windowed, carry: Any, axis: int) -> Any:
    """The carry as rows again."""
    return cell.structure.unflatten(
        None if window is None else jnp.stack(window, axis) for window in cell.windows(carry)
    )


def _cut(x_taps: Any, xs: Any, axis: int, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """xs as shifted slices, and the options that speak of its steps cut to match."""
    taps = spread("x_taps", x_taps, xs, "xs")
    if not jax.tree.leaves(xs) and any(each(tap) not in ((), (0,)) for tap in taps):
        raise TapError(f"`x_taps={x_taps!r}` was given without `xs`, so that no step has inputs")
    if not jax.tree.leaves(xs) or reach(taps) == (0, 0) and not any(isinstance(tap, tuple) for tap in taps):
        return xs, options
    before, after = reach(taps)
    total = _inputs.count_steps(xs, None, axis)
    usable("x_taps", taps, total)
    leaves, structure = jax.tree.flatten(xs)
    slices = [tapped(leaf, tap, before, after, axis) for leaf, tap in zip(leaves, taps, strict=True)]
    options = dict(options)
    if options.get("lengths") is not None:
        lengths = _inputs.check_lengths(options["lengths"], xs, total, axis)
        options["lengths"] = jnp.maximum(lengths - (before + after), 0)
    for name in ("mask", "resets"):
        if options.get(name) is not None:
            flags = _inputs.check_flags(name, options[name], xs, None, axis)
            if flags.ndim <= axis or flags.shape[axis] != total:
                raise SequenceError(f"`{name}` has shape {flags.shape}, expected T = {total} steps on axis {axis}.")
            shifts = range(-before, after + 1) if name == "mask" else [0]
            parts = [tapped(flags, shift, before, after, axis) for shift in shifts]
            options[name] = jnp.stack(parts).all(axis=0)
    return structure.unflatten(slices), options

"""`theano.scan`: its arguments read, run by `scan_taps`, its outputs put into Theano's form."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ... import _tree
from ..._errors import SequenceError
from ..._taps import scan_taps
from .arguments import Outputs, Sequences, read_non_sequences, read_outputs, read_sequences, refuse, theanos
from .look import Call, check_function, look
from .step import Step, fired


@theanos
def scan(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    n_steps: int | None = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
    profile: bool = False,
    allow_gc: bool | None = None,
    strict: bool = False,
    return_list: bool = False,
    *,
    trim: bool = True,
) -> tuple[Any, dict[str, Any]]:
    r"""`theano.scan`: returns `(outputs, updates)`.

    **Main arguments**

    - `fn`: called with, in this order, all taps of the first sequence, of the second, ..., all taps of the first
      output, ..., and the non_sequences. Returns the outputs, one array or a list; behind them, if wanted, an empty
      dict of updates, and then `until(condition)`. What it closes over gets gradients.
    - `sequences`: arrays with time first, `dict(input=x, taps=[...])`, or a list of these. Tap k is `x[t + k]`. Each
      sequence is cut by its own taps, so its first step is `t = -min(0, *taps)` and it has
      `T - max(0, *taps) + min(0, *taps)` steps: sequences with different taps do not run in step, as in Theano.
    - `outputs_info`: one entry for each output: its initial value, `dict(initial=, taps=[...])`, or None if it is not
      fed back; None for all of them. Taps are negative and distinct, [-1] where none are given. With taps [-1] the
      initial value has the shape of the output; else one more axis in front, oldest first, with as many rows as the
      farthest tap looks back (of more, the first ones count). Python numbers take the dtype `fn` gives them; arrays
      must have it.
    - `non_sequences`: arrays or numbers that are the same at every step.

    **Other arguments**

    - `n_steps`: the number of steps, an int or an array of one that is not traced; None: what the shortest sequence
      gives.
    - `truncate_gradient`: k > 0: derivatives reach the last k steps of the whole sequence and are exactly 0 for every
      earlier step, its sequence elements, its part in the non_sequences and the initial value (but for initial rows
      that one of the last k steps reads itself, through a far tap); -1: all steps. This is *not* truncated
      backpropagation through time, which cuts what each loss term sees: `rs.train.tbptt` does that.
    - `go_backwards`: visits the steps from the last to the first; with `n_steps` the last ones. The outputs are in
      order of iteration (`rs.scan` keeps input order), and tap k still is `x[t + k]`.
    - `name`: a `jax.named_scope` around the loop, and a name in error messages.
    - `strict`: raises if `fn` reads JAX arrays that are not among its arguments (NumPy arrays count as constants).
    - `return_list`: a list of outputs, even of one.
    - `trim`: with `until`, whether the outputs end at the stop, which needs its number of steps as a value and
      therefore fails inside `jit`; the slices compile once for each length that occurs. False: the outputs have the
      length of the bound and zeros after the stop.
    - `mode`, `profile`, `allow_gc`: mean nothing in JAX and raise unless they are at their defaults.

    **Returns** `(outputs, updates)`: one array, a list, or None for none; the initial values are not in it. `updates`
    is empty, but after `until` has "n_steps", how many steps ran, and "stopped", whether the condition was met.

    **Raises** `TapError`, `SequenceError`, `CarryError` (an initial value of another dtype or shape than the output),
    `CellOutputError`, TypeError or ValueError.

    Source: Theano 1.0.5, `theano/scan_module/scan.py`; PyTensor 3.0.7, `pytensor/scan/basic.py`.

    >>> import jax.numpy as jnp
    >>> from rnnscan.compat import theano
    >>> outputs, updates = theano.scan(lambda h: h * 2, outputs_info=5, n_steps=3)
    >>> print(outputs)
    [10 20 40]
    """
    refuse("theano.scan", unused(mode, profile=profile, allow_gc=allow_gc))
    with scope("theano.scan", name):
        check_flags(go_backwards=go_backwards, strict=strict, return_list=return_list, trim=trim)
        plan = make_plan("theano.scan", fn, sequences, outputs_info, non_sequences, n_steps, go_backwards, strict)
        last = _check_truncation(truncate_gradient)
        outputs, updates = _run_until(plan, last, trim) if plan.stops else (_run(plan, last), {})
    return unwrap(outputs, return_list), updates


class Plan(NamedTuple):
    """A call of `scan` with everything read."""

    step: Step
    xs: Sequences
    outputs: Outputs
    non_sequences: tuple[Any, ...]
    stops: bool

    def run(self, *, first: Any = 0, start: Any = None, **options: Any) -> Any:
        """`scan_taps` from step `first` on, which may be traced if n_steps is given; `start` is the rows before it."""
        initial = None if self.outputs.initial is None else (self.outputs.initial, None)
        y_taps = -1 if self.outputs.taps is None else (self.outputs.taps, None)
        n_steps = options.pop("n_steps", None)
        if n_steps is None:
            n_steps = self.xs.n_steps - first
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, n_steps)
        xs = self.xs.slices if isinstance(first, int) and first == 0 else tuple(map(cut, self.xs.slices))
        bound = {"max_steps": n_steps} if "until" in options else {"n_steps": n_steps}
        rows = initial if start is None else start
        return scan_taps(self.step, self.non_sequences, rows, xs or None, y_taps=y_taps, **bound, **options)

    def rows_before(self, first: Any, early: Any) -> Any:
        """The outputs that step `first` looks back on: `early` ones and, where these are few, initial ones."""

        def cut(rows: Any, ys: Any) -> Any:
            if rows is None:
                return None
            rows = rows if rows.dtype == ys.dtype else rows.astype(ys.dtype)  # keys cannot be converted
            history = jnp.concatenate([rows, ys])
            return jax.lax.dynamic_slice_in_dim(history, first, rows.shape[0])

        initial = self.outputs.initial
        return None if initial is None else (tuple(map(cut, initial, early[0])), None)


def make_plan(
    caller: str,
    fn: Any,
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any,
    n_steps: Any,
    go_backwards: bool,
    strict: bool,
) -> Plan:
    """Reads the arguments, and looks at what `fn` returns."""
    check_function(caller, fn)
    outputs = read_outputs(outputs_info)
    xs = read_sequences(sequences, n_steps, go_backwards)
    constants = read_non_sequences(non_sequences)
    elements = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs.slices]
    names = [*xs.names, *outputs.names, *(f"non_sequences[{i}]" for i in range(len(constants)))]
    stops = look(Call(caller, fn, elements, outputs, constants, names), strict)
    return Plan(Step(fn), xs, outputs, constants, stops)


def _run(plan: Plan, last: int | None) -> tuple[Any, ...]:
    """All steps; derivatives through the last `last` of them only, which are a scan of their own."""
    first = 0 if last is None else max(0, plan.xs.n_steps - last)
    if first == 0:
        return plan.run()[1][0]
    _, early = jax.lax.stop_gradient(plan.run(n_steps=first))
    _, late = plan.run(first=first, start=plan.rows_before(first, early))
    return tuple(jnp.concatenate(parts) for parts in zip(early[0], late[0], strict=True))


def _run_until(plan: Plan, last: int | None, trim: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As `_run`, up to the stop; how many steps come before the last ones is a value, so both scans have lengths."""
    result = plan.run(until=fired)
    n_steps, ys = result.n_steps, result.ys[0]
    if last is not None and last < plan.xs.n_steps:
        first = jnp.maximum(n_steps - last, 0)
        _, early = jax.lax.stop_gradient(plan.run(lengths=first))
        start = plan.rows_before(first, early)
        _, late = plan.run(first=first, start=start, n_steps=last, lengths=jnp.minimum(n_steps, last))
        place = lambda early, late: jax.lax.dynamic_update_slice_in_dim(early, late, first, 0)
        ys = tuple(map(place, early[0], late[0]))
    if trim:
        stop = _concrete(n_steps)
        ys = tuple(y[:stop] for y in ys)
    return ys, {"n_steps": n_steps, "stopped": result.stopped}


def _concrete(n_steps: jax.Array) -> int:
    try:
        return int(n_steps)
    except jax.errors.ConcretizationTypeError:
        raise TypeError(
            "`theano.scan` with `until` cuts its outputs at the stop, whose place is not known under `jit` or `vmap`. "
            "Pass trim=False: the outputs then keep the length of the bound, zero after updates['n_steps'] steps."
        ) from None


def _check_truncation(k: Any) -> int | None:
    """`truncate_gradient` as a number of steps, None for all."""
    if isinstance(k, bool) or not hasattr(k, "__index__"):
        raise TypeError(f"`truncate_gradient` must be an int, got {k!r}")
    if k == -1:
        return None
    if k < 1:
        raise SequenceError(f"`truncate_gradient` must be -1 (all steps) or at least 1, got {k}")
    return int(k)


def check_flags(**flags: Any) -> None:
    """TypeError for a switch that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"`{name}` must be True or False, got {value!r}")


def unused(mode: Any, **others: Any) -> dict[str, tuple[Any, Any, str]]:
    """For `refuse`: the arguments without a meaning, those of them that a function has."""
    table: dict[str, tuple[Any, Any, str]] = {"mode": (mode, None, "`jax.jit` compiles, and has no modes.")}
    if "profile" in others:
        table["profile"] = (others["profile"], False, "profile with `jax.profiler.trace`; `name` marks the loop there.")
        table["allow_gc"] = (others["allow_gc"], None, "XLA plans the memory.")
    return table


@contextlib.contextmanager
def scope(caller: str, name: Any) -> Iterator[None]:
    """The name on the operations of the loop, and in the notes of its errors."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"`name` must be a str, got {name!r}")
    try:
        with jax.named_scope(name) if name else contextlib.nullcontext():
            yield
    except Exception as error:
        called = f" named {name!r}" if name else ""
        error.add_note(f"raised by `{caller}`{called}")
        raise


def unwrap(outputs: tuple[Any, ...], return_list: bool) -> Any:
    """One output as it is, several as a list, none as None."""
    if return_list or len(outputs) > 1:
        return list(outputs)
    return outputs[0] if outputs else None


def newest(rows: Any) -> Any:
    """The last row of what `scan_taps` hands on."""
    return _tree.at_time(rows, -1)

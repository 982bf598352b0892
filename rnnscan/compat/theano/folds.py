"""`map`, `reduce`, `foldl` and `foldr`: `scan` with fewer arguments, and the last row of what it gives."""

from collections.abc import Callable
from typing import Any

from .arguments import refuse, theanos
from .loop import check_flags, make_plan, newest, scan, scope, unused, unwrap
from .step import fired


@theanos
def map(
    fn: Callable[..., Any],
    sequences: Any,
    non_sequences: Any = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
    return_list: bool = False,
    *,
    trim: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """`fn` at every step, nothing fed back: `scan` without outputs_info; every argument as there."""
    return scan(
        fn, sequences, None, non_sequences, truncate_gradient=truncate_gradient, go_backwards=go_backwards, mode=mode,
        name=name, return_list=return_list, trim=trim,
    )  # fmt: skip


@theanos
def reduce(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The last row of every output of `scan`: `fn(x, accumulator)`, in this order, from `outputs_info` on.

    Every argument is as in `scan`. Nothing of the sequence's length is stored, and `until` needs no `trim`. Over an
    empty sequence the answer is the initial value, and zeros for an output that is not fed back (Theano indexes an
    empty array there).
    """
    return _fold("theano.reduce", fn, sequences, outputs_info, non_sequences, go_backwards, mode, name)


@theanos
def foldl(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """`reduce` from the first element to the last: `fn(x, accumulator)`, in this order (not Haskell's)."""
    return _fold("theano.foldl", fn, sequences, outputs_info, non_sequences, False, mode, name)


@theanos
def foldr(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """`reduce` from the last element to the first: `fn(x, accumulator)`, in this order."""
    return _fold("theano.foldr", fn, sequences, outputs_info, non_sequences, True, mode, name)


def _fold(
    caller: str,
    fn: Any,
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any,
    go_backwards: bool,
    mode: Any,
    name: Any,
) -> tuple[Any, dict[str, Any]]:
    refuse(caller, unused(mode))
    with scope(caller, name):
        check_flags(go_backwards=go_backwards)
        plan = make_plan(caller, fn, sequences, outputs_info, non_sequences, None, go_backwards, strict=False)
        if plan.stops:
            result = plan.run(until=fired, outputs="last")
            updates = {"n_steps": result.n_steps, "stopped": result.stopped}
            rows, ys = result.carry, result.ys
        else:
            updates = {}
            rows, ys = plan.run(outputs="last")
    fed = plan.outputs.initial or (None,) * len(ys[0])
    kept = rows[0] if rows is not None else fed
    last = [y if start is None else newest(row) for start, row, y in zip(fed, kept, ys[0], strict=True)]
    return unwrap(tuple(last), False), updates

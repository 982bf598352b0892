"""What one compiled scan holds: options, then rewrites in their order, then one runner."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import _inputs, _tree
from ._errors import SequenceError
from ._jaxpr.versions import warn_of_slow_scan
from ._loop import Loop
from ._notes import users_line
from ._options import Options
from ._precision import warn_of_low_precision
from ._rewrite import ahead, debug, last_output, masking, no_output, progress, resets, stop, valid_steps
from ._run import RUNNERS, optimized
from ._start import Batch, bare_loop, fresh_carry


class Arrays(NamedTuple):
    """The arguments of a scan that are data; None is one that was not given."""

    params: Any
    carry: Any
    xs: Any
    lengths: Any = None
    mask: Any = None
    resets: Any = None
    reset_carry: Any = None
    key: Any = None
    t_0: Any = None  # the absolute step of the first one here, for randomness; None is 0
    held: Any = None  # the last valid output before the first step; None is zeros


@dataclass(frozen=True)
class _Ready:
    """A loop with its resets, and which of its steps count."""

    loop: Loop
    xs: Any  # as the cell gets them, time first
    valid: jax.Array | None
    lengths: jax.Array | None  # where `valid` is a prefix of each row
    batch: Batch | None


def run(cell: Any, options: Options, arrays: Arrays) -> tuple[Any, Any]:
    """`((carry, report or None), ys)`."""
    return _run_ready(cell, options, arrays, _prepare(cell, options, arrays))


def run_until(cell_and_until: tuple[Any, Any], options: Options, arrays: Arrays) -> tuple[Any, Any, Any, Any]:
    """`((carry, report or None), ys, n_steps, stopped)`: finds the last step of each row, then runs up to there."""
    cell, until = cell_and_until
    ready = _prepare(cell, options, arrays)
    masked = ready.loop
    if ready.valid is not None:
        masked = masking(masked, ready.valid, ready.lengths, options.masked_output)
    if options.method == "sequential" and "hoist" in options.optimize:
        masked = ahead(masked)
    valid, n_steps, stopped = stop(masked, until, ready.valid, ready.batch, ready.xs, getattr(cell, "x_ndim", None))
    prefix = ready.valid is None or ready.lengths is not None
    ready = replace(ready, valid=valid, lengths=n_steps if prefix and not ready.loop.reverse else None)
    return *_run_ready(cell, options, arrays, ready), n_steps, stopped


def time_first(options: Options, arrays: Arrays) -> tuple[int, Arrays]:
    """The number of steps, and the arrays cut to these, with time on their first axis."""
    n_steps = _inputs.count_steps(arrays.xs, options.n_steps, options.time_axis, arrays.mask, arrays.resets)
    xs, mask, flags = (
        jax.tree.map(lambda leaf: leaf[:n_steps], _tree.move_time(tree, options.time_axis, 0))
        for tree in (jax.tree.map(jnp.asarray, arrays.xs), arrays.mask, arrays.resets)
    )
    lengths = None if arrays.lengths is None else jnp.minimum(arrays.lengths, n_steps)
    return n_steps, arrays._replace(xs=xs, mask=mask, resets=flags, lengths=lengths)


def _prepare(cell: Any, options: Options, arrays: Arrays) -> _Ready:
    n_steps, arrays = time_first(options, arrays)
    params, carry, xs, lengths, mask, flags, reset_carry, key, t_0, _ = arrays
    batch = _batch_axes(lengths, mask, flags)
    loop = bare_loop(cell, params, carry, xs, n_steps, options, key, t_0, batch)
    warn_of_low_precision(cell, loop.state, n_steps)
    if flags is not None:
        loop = resets(loop, flags, fresh_carry(reset_carry, loop.state, options.carry_dtype))
    return _Ready(loop, xs, valid_steps(lengths, mask, n_steps) if n_steps else None, lengths, batch)


def _run_ready(cell: Any, options: Options, arrays: Arrays, ready: _Ready) -> tuple[Any, Any]:
    carry, ys = _execute(_rewritten(cell, options, arrays, ready), options)
    if options.outputs == "all":
        ys = time_back(ys, options.time_axis)
    return (carry if options.debug else (carry, None)), ys


def loop_of(cell: Any, options: Options, arrays: Arrays) -> Loop:
    """The loop that `run` would hand to a runner."""
    return _rewritten(cell, options, arrays, _prepare(cell, options, arrays))


def _rewritten(cell: Any, options: Options, arrays: Arrays, ready: _Ready) -> Loop:
    loop, valid = ready.loop, ready.valid
    last = options.outputs == "last"
    some = None  # which rows have a valid step, where masked steps repeat instead of holding
    if valid is not None:
        output = options.masked_output if not last else "hold" if loop.uses_t else "repeat"
        some = valid.any(0) if output == "repeat" else None
        loop = masking(loop, valid, ready.lengths, output, arrays.held)
    if options.debug:
        loop = debug(loop, arrays.params, ready.xs, valid, _batch_ndim(cell, ready.xs, ready.batch))
    if options.outputs != "all":
        loop = last_output(loop, arrays.held, some) if last else no_output(loop)
    return progress(loop) if options.progress and loop.n_steps else loop


def _batch_axes(lengths: Any, mask: Any, resets: Any) -> Batch | None:
    """Which argument defines the batch axes, and these; None if none does."""
    for name, value in (("lengths", lengths), ("mask", mask), ("resets", resets)):
        if value is not None:
            return name, value.shape if name == "lengths" else value.shape[1:]
    return None


def _batch_ndim(cell: Any, xs: Any, batch: Batch | None) -> int | None:
    """How many batch axes there are, for messages; None where nothing tells."""
    if batch is not None:
        return len(batch[1])
    leaves = jax.tree.leaves(xs)
    x_ndim = getattr(cell, "x_ndim", None)
    return leaves[0].ndim - 1 - x_ndim if leaves and x_ndim is not None else None


def _execute(loop: Loop, options: Options) -> tuple[Any, Any]:
    if loop.n_steps == 0:  # not left to the runners: lax.scan refuses it under `jax.disable_jit`
        return loop.run_empty()
    if options.method == "sequential":
        warn_of_slow_scan(loop.output, loop.n_steps, options.unroll, users_line() + 1)
    if options.method == "sequential" and options.optimize and not options.debug:
        return optimized(loop, options.unroll, options.optimize)
    if options.method == "sequential":
        return RUNNERS["sequential"](loop, options.unroll)
    return RUNNERS[options.method](loop)


def time_back(ys: Any, time_axis: int) -> Any:
    """Outputs with time moved from the first axis to the user's."""
    for name, leaf in _tree.named_leaves("y", ys):
        if leaf.ndim <= time_axis:
            raise SequenceError(
                f"`{name}` has shape {leaf.shape[1:]} at each step, so that its outputs have no axis {time_axis} for "
                f"time (`time_axis={time_axis}`)."
            )
    return _tree.move_time(ys, 0, time_axis)

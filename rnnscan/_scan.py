"""`scan`: options, then rewrites, then one runner."""

import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from . import _inputs, _tree
from ._cache import run_cached
from ._errors import SequenceError
from ._loop import Loop
from ._options import Options, read_options
from ._rewrite import debug as debug_loop
from ._rewrite import last_output, masking, no_output, report, valid_steps
from ._rewrite import progress as progress_loop
from ._rewrite import resets as reset_loop
from ._run import RUNNERS
from ._start import Batch, bare_loop, fresh_carry
from ._types import check_callable, name_of, rng_name, rng_use


def scan(
    cell: Any,
    params: Any,
    carry: Any = None,
    xs: Any = None,
    *,
    n_steps: int | None = None,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    reset_carry: Any = None,
    reverse: bool = False,
    time_axis: int = 0,
    masked_output: str = "zero",
    outputs: str = "all",
    unroll: int | bool = 1,
    remat: Any = None,
    method: str = "sequential",
    optimize: Any = True,
    key: Any = None,
    progress: bool = False,
    debug: bool = False,
) -> tuple[Any, Any]:
    r"""Runs a cell over time: `carry_t, y_t = cell(params, carry_{t-1}, x_t)` for t in [0, T).

    The meaning, for one row without options:

        for t in range(T):
            carry, ys[t] = cell(params, carry, xs[t])
        return carry, ys

    **Main arguments**

    - `cell`: a function `(params, carry, x) -> (carry, y)`, or a cell of the library. One that takes `rng` as fourth
      argument is stochastic and needs `key`.
    - `params`: any pytree; what the cell closes over gets gradients as well.
    - `carry`: the state before the first step, any pytree. None means `cell.initial_carry(batch_shape)`, the batch
      shape being that of the first leaf of xs without time and the cell's `x_ndim` feature axes; for a bare function
      it means no carry (the scan is a map). Python numbers take the dtype that the cell gives them; arrays keep theirs.
    - `xs`: any pytree of sequences `(T, *batch, ...)`, or None with `n_steps`.

    **Other arguments**

    - `n_steps`: int >= 0. Cuts xs, mask and resets to their first `n_steps`; the number of steps where xs is None.
    - `lengths`: int, shape `(*batch,)`: row b has `lengths[b]` in [0, T] valid steps, from its first on. Not with
      `mask`.
    - `mask`: bool, `(T, *batch)` with time on `time_axis`: True where a step counts, in any pattern. A step that does
      not count holds every leaf of the carry and repeats a valid step of its row, so that NaN in padding reaches
      neither values nor gradients. `lengths.shape`, or that of mask or resets without time, defines the batch axes.
    - `resets`: bool, like mask: a boundary between t-1 and t. Forward, step t starts from `reset_carry`; with
      `reverse`, step t-1 does. A masked step ignores it.
    - `reset_carry`: like `carry`; None means the carry given.
    - `reverse`: from right to left inside each row's valid steps; ys stay in input order.
    - `time_axis`: >= 0, the axis of time in every leaf of xs, ys, mask and resets.
    - `masked_output`: "zero", or "hold" for a copy of the last valid output in scan order (zeros before the first).
    - `outputs`: "all"; "last", each row's last valid output in scan order (zeros if it has none), with nothing of
      length T stored; or "none".
    - `unroll`: int >= 1, how many steps are written out in each iteration of the compiled loop; True for all.
    - `remat`: comes later; must be None.
    - `method`: "sequential" compiles one step and repeats it; "unrolled" compiles a static graph of all steps;
      "reference" is a plain Python loop.
    - `optimize`: True or False; the rewrites it will switch come later.
    - `key`: a `jax.random` key for stochastic cells, which get `rng = Rng(key, t)`; t counts from 0 in every call, so
      pieces of one long sequence want keys of their own, `jax.random.fold_in(key, piece)`.
    - `progress`: shows a progress bar on stderr.
    - `debug`: looks for the first value that is not finite. Raises `NonFiniteError` with step, row and leaf in an eager
      call; prints the same once under `jit` and other transformations.

    **Returns** `(carry, ys)`: the carry after each row's last valid step, and the outputs stacked over time.

    **Raises** `CarryError` or `CellOutputError` if the cell does not return `(carry, y)` with a carry like the one it
    was given; `SequenceError`, `LengthError`, `TypeError` or `ValueError` if the arguments do not fit together, naming
    the leaf, what came and what was expected; `NotImplementedError` for `remat` and the methods that come later.

    Eager calls are compiled once for equal cells, options and shapes.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> def decay(params, h, x):
    ...     h = params["keep"] * h + x
    ...     return h, h
    >>> carry, ys = rs.scan(decay, {"keep": 0.5}, 0.0, jnp.array([1.0, 2.0, 4.0]))
    >>> print(carry, ys)
    5.25 [1.   2.5  5.25]
    """
    check_callable("scan", cell)
    options = read_options(
        n_steps=n_steps, reverse=reverse, time_axis=time_axis, masked_output=masked_output, outputs=outputs,
        unroll=unroll, remat=remat, method=method, optimize=optimize, progress=progress, debug=debug,
    )  # fmt: skip
    _inputs.check_arrays(params=params, carry=carry, xs=xs, reset_carry=reset_carry)
    _check_randomness(cell, key)
    x_ndim = getattr(cell, "x_ndim", None) or 0  # an integrator has None: only its field knows
    lengths, mask, resets = _check_selection(options, xs, x_ndim, lengths, mask, resets, reset_carry)
    arrays = (params, carry, xs, lengths, mask, resets, reset_carry, key)
    if method == "reference":
        (carry, found), ys = _run(cell, options, *arrays)
    else:
        (carry, found), ys = run_cached(_run, cell, options, *arrays)
    if debug:
        report(found, name_of(cell))
    return carry, ys


def _check_randomness(cell: Any, key: Any) -> None:
    use = rng_use(cell)
    if key is not None:
        _inputs.check_key(key)
        if use == "never":
            raise ValueError(
                f"`key` was given, but cell `{name_of(cell)}` takes no `rng`, so it would be ignored. Leave it out, or "
                "write the cell as `(params, carry, x, rng) -> (carry, y)`."
            )
    elif use == "required":
        quiet = "" if inspect.isroutine(cell) else "; to run it without noise write `rs.wrap.deterministic(cell)`"
        raise ValueError(
            f"cell `{name_of(cell)}` is stochastic, it takes `{rng_name(cell)}` as fourth argument, and needs "
            f"`key=jax.random.key(seed)`{quiet}."
        )


def _check_selection(
    options: Options, xs: Any, x_ndim: int, lengths: Any, mask: Any, resets: Any, reset_carry: Any
) -> tuple[Any, Any, Any]:
    """lengths, mask and resets as arrays, checked one by one and against each other."""
    axis, sizes = options.time_axis, [jnp.shape(leaf) for leaf in jax.tree.leaves(xs)]
    if lengths is not None and mask is not None:
        raise ValueError("give `lengths` or `mask`, not both: lengths = n is the mask that is True for the first n")
    if reset_carry is not None and resets is None:
        raise ValueError("`reset_carry` was given without `resets`, so no step would use it")
    if mask is not None:
        mask = _inputs.check_flags("mask", mask, xs, options.n_steps, axis, x_ndim)
    if resets is not None:
        resets = _inputs.check_flags("resets", resets, xs, options.n_steps, axis, x_ndim)
    n_steps = _inputs.count_steps(xs, options.n_steps, axis, mask, resets)
    if lengths is not None:
        longest = max((s[axis] for s in sizes if len(s) > axis), default=n_steps)
        lengths = _inputs.check_lengths(lengths, xs, longest, axis, x_ndim)
    batches = {n: b for n, b in (("lengths", lengths), ("mask", mask), ("resets", resets)) if b is not None}
    shapes = {n: b.shape if n == "lengths" else b.shape[:axis] + b.shape[axis + 1 :] for n, b in batches.items()}
    for name, shape in shapes.items():
        first = next(iter(shapes))
        if shape != shapes[first]:
            other = shapes[first]
            raise SequenceError(f"`{name}` has batch axes {shape}, but `{first}` has {other}; give both the same.")
    return lengths, mask, resets


def _run(cell: Any, options: Options, params: Any, carry: Any, xs: Any, lengths: Any, mask: Any, resets: Any,
         reset_carry: Any, key: Any) -> tuple[Any, Any]:  # fmt: skip
    """Everything that a compiled program holds: `((carry, report or None), ys)`."""
    n_steps = _inputs.count_steps(xs, options.n_steps, options.time_axis, mask, resets)
    xs, mask, resets = (
        jax.tree.map(lambda leaf: leaf[:n_steps], _tree.move_time(tree, options.time_axis, 0))
        for tree in (jax.tree.map(jnp.asarray, xs), mask, resets)
    )
    lengths = None if lengths is None else jnp.minimum(lengths, n_steps)
    batch = _batch_axes(lengths, mask, resets)
    loop = bare_loop(cell, params, carry, xs, n_steps, options.reverse, key, batch)
    _warn_of_low_precision(loop.state, n_steps)
    if resets is not None:
        loop = reset_loop(loop, resets, fresh_carry(reset_carry, loop.state))
    valid = valid_steps(lengths, mask, n_steps) if n_steps else None
    if valid is not None:
        loop = masking(loop, valid, lengths, hold=options.masked_output == "hold" or options.outputs == "last")
    if options.debug:
        loop = debug_loop(loop, params, xs, valid, _batch_ndim(cell, xs, batch))
    if options.outputs != "all":
        loop = last_output(loop) if options.outputs == "last" else no_output(loop)
    if options.progress and n_steps:
        loop = progress_loop(loop)
    carry, ys = _execute(loop, options)
    if options.outputs == "all":
        ys = _time_back(ys, options.time_axis)
    return (carry if options.debug else (carry, None)), ys


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
        return RUNNERS["sequential"](loop, options.unroll)
    return RUNNERS[options.method](loop)


def _time_back(ys: Any, time_axis: int) -> Any:
    """Outputs with time moved from the first axis to the user's."""
    for name, leaf in _tree.named_leaves("y", ys):
        if leaf.ndim <= time_axis:
            raise SequenceError(
                f"`{name}` has shape {leaf.shape[1:]} at each step, so that its outputs have no axis {time_axis} for "
                f"time (`time_axis={time_axis}`)."
            )
    return _tree.move_time(ys, 0, time_axis)


_low_precision_told: set[str] = set()


def _warn_of_low_precision(carry: Any, n_steps: int) -> None:
    """Says once for each dtype that a sum of ones would stop growing within this many steps."""
    for name, leaf in _tree.named_leaves("carry", carry):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            most, what = 2 ** (jnp.finfo(leaf.dtype).nmant + 1), "stop growing"
        elif jnp.issubdtype(leaf.dtype, jnp.integer):
            most, what = int(jnp.iinfo(leaf.dtype).max), "wrap around"
        else:
            continue
        if n_steps > most and str(leaf.dtype) not in _low_precision_told:
            _low_precision_told.add(str(leaf.dtype))
            warnings.warn(
                f"`{name}` is {leaf.dtype} and T = {n_steps} > {most}: sums of ones {what} at {most}. Accumulate in a "
                "wider dtype, jnp.float32 for example.",
                stacklevel=2,
            )

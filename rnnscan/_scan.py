"""`scan` and `scan_until`: what the user calls, with all its arguments checked."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import _inputs, _tree
from ._cache import run_cached
from ._errors import SequenceError
from ._foreign import refuse, refusing
from ._options import Options, number_of_steps, read_options
from ._program import Arrays, run, run_until
from ._rewrite import report
from ._types import check_callable, name_of, rng_name, rng_use


@refusing
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
    carry_dtype: Any = None,
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
    - `carry_dtype`: a floating dtype in which the carry's floating leaves are kept: the first carry and what each step
      returns are converted to it, so that a cell that computes in bfloat16 may keep a float32 carry. None: the carry
      keeps the dtype it has, and a cell that returns another one raises.
    - `unroll`: int >= 1, how many steps are written out in each iteration of the compiled loop; True for all.
    - `remat`: comes later; must be None.
    - `method`: "sequential" compiles one step and repeats it; "unrolled" compiles a static graph of all steps;
      "reference" is a plain Python loop.
    - `optimize`: True, False, or names out of "split", "hoist", "sink", "weight_grads": which rewrites may take the
      step apart, so that the loop holds what the next carry needs and no more. Results equal the plain loop's to
      rounding; False is `lax.scan` as it is. `rs.explain` shows what becomes of a cell.
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
    return launch(
        "scan", run, cell, params, carry, xs, n_steps=n_steps, lengths=lengths, mask=mask, resets=resets,
        reset_carry=reset_carry, reverse=reverse, time_axis=time_axis, masked_output=masked_output, outputs=outputs,
        carry_dtype=carry_dtype, unroll=unroll, remat=remat, method=method, optimize=optimize, key=key,
        progress=progress, debug=debug,
    )  # fmt: skip


DEFAULTS = {name: p.default for name, p in inspect.signature(scan).parameters.items() if p.kind is p.KEYWORD_ONLY}
"""Every option of `scan` with its default."""


class ScanUntil(NamedTuple):
    """What `scan_until` returns."""

    carry: Any
    """The carry after each row's last step."""
    ys: Any
    """The outputs, `(T, *batch, ...)`; zero (or held) past each row's last step."""
    n_steps: jax.Array
    """int32, how many steps counted: the one that fired is one of them, masked ones are not."""
    stopped: jax.Array
    """bool, whether `until` fired; False where the steps ran out first."""


def scan_until(
    cell: Any,
    params: Any,
    carry: Any = None,
    xs: Any = None,
    *,
    until: Callable[[Any, Any], Any],
    max_steps: int | None = None,
    **options: Any,
) -> ScanUntil:
    r"""Runs a cell until a condition holds: the step after which it does is the last one that counts (do-while).

    The meaning, for one row without options:

        for t in range(T):
            carry, ys[t] = cell(params, carry, xs[t])
            if until(carry, ys[t]): break

    - `cell`, `params`, `carry`, `xs`: as in `scan`.
    - `until`: `until(carry, y) -> bool`, called with the carry and the output after a step. A scalar stops all rows at
      once; bools of shape `(*batch,)` stop each row by itself. A masked step never fires.
    - `max_steps`: int >= 0, at most so many steps; needed where xs is None. With xs it cuts them as `n_steps` does in
      `scan`, and may be larger than T.
    - `options`: those of `scan`, except `n_steps`. With `reverse`, a row's steps are counted from its own end.

    **Returns** `ScanUntil(carry, ys, n_steps, stopped)`. `ys` has the length of the bound, T or `max_steps`, and is
    zero (`masked_output="hold"`: the last valid output) where a row has stopped. `n_steps` has the batch axes if
    `until`, lengths, mask or resets define any, and is a scalar else; `stopped` has the shape that `until` returns.

    Derivatives are those of the steps that counted, with the stopping step as a constant: a loop without derivatives
    finds the stop, then `scan` runs with these steps as its valid ones. So a cell that is singular past the stop
    (`sqrt(x)` where x turns negative) has finite derivatives, of every order and in both modes.

    **Raises** `CellOutputError` if `until` returns something else than bools of these shapes; `SequenceError` without
    a bound; and what `scan` raises.

    >>> import rnnscan as rs
    >>> def double(params, h, x):
    ...     return 2 * h, h
    >>> result = rs.scan_until(double, None, 3, until=lambda h, y: h > 20, max_steps=6)
    >>> print(result.carry, result.ys, result.n_steps, result.stopped)
    24 [ 3  6 12  0  0  0] 3 True
    """
    _check_until_options(until, options)
    if max_steps is None and not jax.tree.leaves(xs):
        raise SequenceError(
            "`scan_until` without xs needs `max_steps`, a bound on the number of steps: the outputs have this length, "
            "and a loop without a bound has no reverse-mode derivative."
        )
    given = {**DEFAULTS, **options, "n_steps": number_of_steps("max_steps", max_steps), "until": until}
    try:
        return ScanUntil(*launch("scan_until", run_until, cell, params, carry, xs, **given))
    except SequenceError as error:
        if "n_steps" in str(error):
            error.add_note("what `scan` calls `n_steps` is `max_steps` in `scan_until`")
        raise


def _check_until_options(until: Any, options: dict[str, Any]) -> None:
    if "n_steps" in options:
        raise TypeError("`scan_until` finds `n_steps` itself; `max_steps` is the bound on it")
    check_options("scan_until", options)
    if not callable(until):
        raise TypeError(f"`until` must be a function `(carry, y) -> bool`, got {_tree.kind(until)}")


def check_options(caller: str, options: dict[str, Any]) -> None:
    """TypeError for a keyword that is no option of `scan`."""
    for name in options:
        if name not in DEFAULTS:
            refuse(caller, name, DEFAULTS)


def launch(
    caller: str, program: Callable[..., Any], cell: Any, params: Any, carry: Any, xs: Any, *, until: Any = None,
    **given: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Checks the arguments, then runs the program, compiled and cached unless `method="reference"`."""
    options, arrays = checked(caller, cell, params, carry, xs, until=until, **given)
    what = cell if until is None else (cell, until)
    if options.method == "reference":
        (carry, found), *rest = program(what, options, arrays)
    else:
        (carry, found), *rest = run_cached(program, what, options, arrays)
    if options.debug:
        report(found, name_of(cell))
    return carry, *rest


def checked(
    caller: str, cell: Any, params: Any, carry: Any, xs: Any, *, until: Any = None, lengths: Any = None,
    mask: Any = None, resets: Any = None, reset_carry: Any = None, key: Any = None, t_0: Any = None,
    held: Any = None, **given: Any,
) -> tuple[Options, Arrays]:  # fmt: skip
    """The arguments sorted into those that shape the program and those that are data; raises where they do not fit."""
    check_callable(caller, cell)
    if until is not None and xs is not None and given["n_steps"] is not None:
        given["n_steps"] = _at_most(given["n_steps"], xs, given["time_axis"])
    options = read_options(**given)
    _inputs.check_arrays(params=params, carry=carry, xs=xs, reset_carry=reset_carry)
    _check_randomness(cell, key)
    x_ndim = getattr(cell, "x_ndim", None) or 0  # an integrator has None: only its field knows
    lengths, mask, resets = _check_selection(options, xs, x_ndim, lengths, mask, resets, reset_carry)
    return options, Arrays(params, carry, xs, lengths, mask, resets, reset_carry, key, t_0, held)


def _at_most(max_steps: Any, xs: Any, time_axis: Any) -> Any:
    """`max_steps`, or the steps that xs have if these are fewer; what is no int is left for `read_options`."""
    if not all(isinstance(value, int | np.integer) for value in (max_steps, time_axis)) or max_steps < 0:
        return max_steps
    sizes = [jnp.shape(leaf)[time_axis] for leaf in jax.tree.leaves(xs) if jnp.ndim(leaf) > time_axis]
    return min([max_steps, *sizes])


def _check_randomness(cell: Any, key: Any) -> None:
    use = rng_use(cell)
    if key is not None:
        _inputs.check_key(key)
        if use == "never":
            more = ", or write the cell as `(params, carry, x, rng) -> (carry, y)`" if inspect.isroutine(cell) else ""
            raise ValueError(
                f"`key` was given, but cell `{name_of(cell)}` draws no random numbers: it takes no `rng`. Leave `key` "
                f"out{more}."
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

"""`scan_chunks`: one scan over a sequence that comes in pieces."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import _inputs, _tree
from ._program import run
from ._scan import DEFAULTS, check_options, launch
from ._types import check_callable


class Chunk(NamedTuple):
    """A piece of a sequence with what belongs to its steps, for `scan_chunks`.

    `lengths` and `mask` speak of the piece's own steps, [0, T of the piece]; `resets[0]` is a boundary between the last
    step of the piece before and the first of this one. `n_steps` is for a piece without xs.
    """

    xs: Any = None
    lengths: Any = None
    mask: Any = None
    resets: Any = None
    n_steps: int | None = None


def scan_chunks(
    cell: Any, params: Any, carry: Any, chunks: Iterable[Any], *, key: Any = None, **options: Any
) -> Iterator[tuple[Any, Any]]:
    r"""Runs a cell over pieces of a sequence as they come; together they equal one `scan` over the whole.

        for carry, ys in rs.scan_chunks(cell, params, None, pieces): ...

    - `cell`, `params`: as in `scan`; `carry`: the state before the first piece, None as in `scan`.
    - `chunks`: any iterable, a generator or a queue for one. A piece is xs, or `rs.Chunk(xs, lengths or mask, resets)`.
      Pieces of equal shape share one compiled program (where outputs are held, from the second one on).
    - `key`: as in `scan`. The absolute step is counted on, so that a stochastic cell draws what it would in one scan.
    - `options`: those of `scan` for every piece, except `n_steps`, `reverse`, `lengths`, `mask` and `resets` (these
      three go into a `Chunk`).

    Yields `(carry, ys)` after each piece: the carry so far, to be kept for a later call, and the piece's outputs. With
    `outputs="last"` ys is each row's last valid output so far. What a piece hands on to the next one besides the carry
    is kept here: the absolute step, the carry that resets start from (`reset_carry`, or the first carry; pieces without
    resets are none the worse for it), and the output that `masked_output="hold"` repeats.

    Nothing keeps derivatives from flowing through the pieces: inside `jax.grad` the whole is differentiated. Truncated
    backpropagation is `rs.train.tbptt`.

    Raises `ValueError` for `reverse` (the last piece would have to come first), `TypeError` for what is no option of
    `scan` or no iterable, and what `scan` raises, with a note on which piece it was.

    >>> import jax.numpy as jnp
    >>> import rnnscan as rs
    >>> total = lambda params, h, x: (h + x, h + x)
    >>> for carry, ys in rs.scan_chunks(total, None, 0.0, [jnp.array([1.0, 2.0]), jnp.array([3.0])]):
    ...     print(carry, ys)
    3.0 [1. 3.]
    6.0 [6.]
    """
    check_callable("scan_chunks", cell)
    _check_options(options)
    if isinstance(chunks, Chunk | dict) or hasattr(chunks, "shape") or not isinstance(chunks, Iterable):
        raise TypeError(
            f"`chunks` must be an iterable of pieces, a list or a generator; got {_tree.kind(chunks)}. For one "
            "piece write `[xs]`."
        )
    return _pieces(cell, params, carry, chunks, key, {**DEFAULTS, **options, "key": key})


def _check_options(options: dict[str, Any]) -> None:
    check_options("scan_chunks", options)
    for name in ("lengths", "mask", "resets"):
        if name in options:
            raise TypeError(f"`{name}` belongs to a piece: write `rs.Chunk(xs, {name}=...)` in `chunks`")
    if "n_steps" in options:
        raise TypeError("each piece brings its own number of steps; a piece without xs is `rs.Chunk(n_steps=...)`")
    if options.get("reverse"):
        raise ValueError(
            "`reverse` starts at the end of the whole sequence, which a stream has not got yet; use `scan`"
        )


def _pieces(
    cell: Any, params: Any, carry: Any, chunks: Iterable[Any], key: Any, options: dict[str, Any]
) -> Iterator[tuple[Any, Any]]:
    first, fresh, held, t_0 = carry, options.pop("reset_carry"), None, 0
    for number, chunk in enumerate(chunks):
        chunk = chunk if isinstance(chunk, Chunk) else Chunk(chunk)
        given = {**options, **chunk._asdict()}
        xs = given.pop("xs")
        try:
            if chunk.resets is not None and number and fresh is None:
                fresh = _first_carry(cell, params, first, xs, options)
            given["reset_carry"] = fresh if chunk.resets is not None else None
            start = None if key is None else jnp.asarray(t_0, jnp.int32)
            carry, ys = launch("scan_chunks", run, cell, params, carry, xs, t_0=start, held=held, **given)
        except Exception as error:
            error.add_note(f"raised by `scan_chunks` in chunk {number}, whose step 0 is step {t_0} of the whole")
            if type(xs) in (tuple, list):
                error.add_note(
                    f"the chunk is {_tree.kind(xs)}, a tree of sequences; lengths, mask, resets or n_steps go with xs "
                    "in a chunk as `rs.Chunk(xs, lengths=lengths)`"
                )
            raise
        n_steps = _inputs.count_steps(xs, chunk.n_steps, options["time_axis"], chunk.mask, chunk.resets)
        held = _held(ys, held, options, n_steps)
        t_0 += n_steps
        yield carry, ys


def _first_carry(cell: Any, params: Any, carry: Any, xs: Any, options: dict[str, Any]) -> Any:
    """What the stream began with: the carry given, or the one that the cell makes for rows like those of xs."""
    if carry is not None:
        return carry
    return launch("scan_chunks", run, cell, params, None, xs, **{**options, "n_steps": 0})[0]


def _held(ys: Any, held: Any, options: dict[str, Any], n_steps: int) -> Any:
    """The last valid output so far, where the next piece needs it."""
    if options["outputs"] == "last":
        return ys
    if options["outputs"] == "none" or options["masked_output"] != "hold" or n_steps == 0:
        return held
    return jax.tree.map(lambda y: jnp.take(y, -1, axis=options["time_axis"]), ys)

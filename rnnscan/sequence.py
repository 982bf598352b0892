"""Functions of whole sequences: a cell needs one step, these need them all."""

from typing import Any

import jax
import jax.numpy as jnp

from . import _inputs, _tree
from ._scan import scan
from ._types import name_of, rng_use


_MERGES: dict[str, Any] = {
    "concat": lambda f, b: jnp.concatenate([f, b], axis=-1),
    "sum": lambda f, b: f + b,
    "mul": lambda f, b: f * b,
    "ave": lambda f, b: (f + b) / 2,
}


def bidirectional(
    forward: Any,
    backward: Any,
    params: Any,
    carries: Any = None,
    xs: Any = None,
    *,
    merge: str | None = "concat",
    key: Any = None,
    reset_carry: Any = None,
    **options: Any,
) -> tuple[tuple[Any, Any], Any]:
    r"""Two scans over the same sequences, one from each end: `ys_t = merge(ys_forward_t, ys_backward_t)`.

    The backward cell starts at each row's own last valid step, and both outputs are in input order, so that `ys[t]` has
    seen the whole row: the forward cell steps [0, t], the backward one steps [t, length).

    - `forward`, `backward`: cells; `params`, `carries`: pairs, one entry a direction (`carries=None` as in `scan`).
    - `xs`: sequences `(T, *batch, ...)`, read by both.
    - `merge`: "concat" (on the last axis), "sum", "mul", "ave", applied to each leaf of the outputs, or None: ys is a
      pair.
    - `key`: the forward cell gets `fold_in(key, 0)`, the backward one `fold_in(key, 1)`; needed if either is
      stochastic.
    - `reset_carry`: a pair, or None.
    - `options`: those of `scan`, for both directions, except `reverse`.

    Returns `((carry_forward, carry_backward), ys)`; the backward carry is the one after step 0. With `outputs="last"`
    each direction's last output in its own scan order is merged, as in Schuster & Paliwal 1997 and in Keras'
    `Bidirectional`. Raises `ValueError` for another `merge`, for `reverse`, and where the outputs cannot be merged.
    """
    if merge is not None and merge not in _MERGES:
        raise ValueError(f"`merge` must be one of {', '.join(map(repr, _MERGES))} or None, got {merge!r}")
    if "reverse" in options:
        raise ValueError("`bidirectional` runs both directions itself; leave `reverse` out, or call `scan`")
    pairs = {"params": params, "carries": carries, "reset_carry": reset_carry}
    for name, pair in pairs.items():
        if not (isinstance(pair, tuple | list) and len(pair) == 2) and not (pair is None and name != "params"):
            raise ValueError(f"`{name}` must be a pair (forward, backward), got {_tree.kind(pair)}")
    keys = _keys(forward, backward, key)
    results = []
    for i, cell in enumerate((forward, backward)):
        try:
            results.append(
                scan(cell, params[i], carries and carries[i], xs, reverse=bool(i), key=keys[i],
                     reset_carry=reset_carry and reset_carry[i], **options)
            )  # fmt: skip
        except Exception as error:
            error.add_note(f"raised by `bidirectional` in its {('forward', 'backward')[i]} direction")
            raise
    (carry_f, ys_f), (carry_b, ys_b) = results
    return (carry_f, carry_b), _merged(merge, ys_f, ys_b)


def _keys(forward: Any, backward: Any, key: Any) -> list[Any]:
    """A key for each direction that takes one."""
    uses = [rng_use(cell) for cell in (forward, backward)]
    if key is None:
        return [None, None]
    _inputs.check_key(key)
    if uses == ["never", "never"]:
        raise ValueError(
            f"`key` was given, but neither `{name_of(forward)}` nor `{name_of(backward)}` takes `rng`; leave it out."
        )
    return [None if use == "never" else jax.random.fold_in(key, i) for i, use in enumerate(uses)]


def _merged(merge: str | None, forward: Any, backward: Any) -> Any:
    if merge is None:
        return forward, backward
    if jax.tree.structure(forward) != jax.tree.structure(backward):
        raise ValueError(
            f"`merge={merge!r}` needs outputs of one structure, got {jax.tree.structure(forward)} and "
            f"{jax.tree.structure(backward)}; with `merge=None` ys is a pair."
        )
    for (name, f), b in zip(_tree.named_leaves("ys", forward), jax.tree.leaves(backward), strict=True):
        cut = -1 if merge == "concat" else None
        if f.ndim != b.ndim or f.shape[:cut] != b.shape[:cut] or (merge == "concat" and f.ndim == 0):
            raise ValueError(
                f"`merge={merge!r}` cannot join `{name}` of shapes {f.shape} (forward) and {b.shape} (backward); "
                "with `merge=None` ys is a pair."
            )
    return jax.tree.map(_MERGES[merge], forward, backward)

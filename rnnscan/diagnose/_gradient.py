"""The gradient of a loss with respect to the state at every step: where it vanishes and where it explodes.

A zero is added to the state that each step starts from, as one more input of the scan; the gradient with respect to
these zeros is the one wanted, and one backward pass gives it for all steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import _tree
from .._inputs import count_steps
from .._rewrite import valid_steps
from .._scan import scan
from .._types import Rng, call, name_of, stochastic


class GradientOverTime(NamedTuple):
    """What `gradient_over_time` returns: `loss`, `gradients` and `norms`, described there."""

    loss: jax.Array
    gradients: Any
    norms: Any


def gradient_over_time(
    loss: Callable[[Any, Any], Any],
    cell: Any,
    params: Any,
    carry: Any = None,
    xs: Any = None,
    *,
    batch_ndim: int | None = None,
    **options: Any,
) -> GradientOverTime:
    r"""`dL/dc_t` for t in [0, T]: `L = loss(*scan(cell, params, carry, xs, **options))`, `c_t` the state at t.

    Place t lies between steps t-1 and t. Forward, `c_t` is the state that step t starts from, `c_0` the first carry and
    `c_T` the carry returned. With `reverse`, `c_t` is the state that step t-1 starts from, `c_T` the first carry and
    `c_0` the carry returned; so indices are those of the input in both directions.

    The derivative is total: `c_t` changes, and with it all that is computed from it, later states and outputs, but
    nothing before it. Hence `dL/dc_t = dL/dc_{t+1} dc_{t+1}/dc_t + (what the loss reads of y_t) dy_t/dc_t`, and
    for the linear recurrence `s_t = s_{t-1} w + x_t u` with a loss of the last state `dL/ds_t = w^(T-t) dL/ds_T`.

    **Main arguments**

    - `loss(carry, ys)` -> real scalar, of what `scan` returns.
    - `cell`, `params`, `carry`, `xs`: as in `scan`.

    **Other arguments**

    - `batch_ndim`: how many first axes of a carry leaf are rows, for `norms`. None takes it from lengths, mask or
      resets, else from a library cell's xs; for a bare function without these nothing tells, and it is 0.
    - `options`: any option of `scan`. A masked step copies its state, therefore it copies the gradient too: all
      places in the padding after a row's end have the gradient of the carry returned. At a reset, `c_t` is the state
      that the step starts from after the reset; a state that a reset throws away has gradient zero. With `debug`,
      what is found is printed, not raised.

    **Returns** `GradientOverTime(loss, gradients, norms)`:

    - `loss`: the scalar;
    - `gradients`: like the carry, leaves `(T + 1, *leaf.shape)`, time first whatever `time_axis` is, and the dtype of
      the carry; None in place of leaves that have no gradient (integers, booleans, keys);
    - `norms`: the same over the feature axes, `sqrt(sum |.|^2)`, leaves `(T + 1, *batch)`.

    **Raises** `ValueError` if the loss is not a real scalar, and what `scan` raises.

    The values of the loop do not change, nor does its order of work. Complex states follow `jax.grad`'s convention.
    Source: Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, eq. 5.

    >>> import jax.numpy as jnp
    >>> def decay(params, s, x):
    ...     s = s * params["w"] + x
    ...     return s, None
    >>> found = gradient_over_time(lambda s, ys: s, decay, {"w": 0.5}, 0.0, jnp.ones(3))
    >>> print(found.loss, found.gradients)
    1.75 [0.125 0.25  0.5   1.   ]
    """
    plain = _scan_in_shapes(cell, params, carry, xs, options)  # every error of the arguments comes from here
    axis = options.pop("time_axis", 0)
    options |= {n: jnp.asarray(options[n]) for n in ("lengths", "mask", "resets") if options.get(n) is not None}
    xs = _tree.move_time(jax.tree.map(jnp.asarray, xs), axis, 0)
    options |= {n: _tree.move_time(options[n], axis, 0) for n in ("mask", "resets") if n in options}
    n_steps = count_steps(xs, options.get("n_steps"), 0, options.get("mask"), options.get("resets"))
    options["n_steps"] = n_steps
    start = _start(cell, params, carry, xs, options)
    # -0.0 is the zero that changes nothing: 0.0 + -0.0 is 0.0, and -0.0 + -0.0 is -0.0
    nothing = [jnp.full((n_steps + 1, *leaf.shape), -0.0, leaf.dtype) for leaf in _moving(start)]

    def perturbed_loss(shifts: list[jax.Array]) -> Any:
        inputs = (xs, [shift[:-1] for shift in shifts])
        carry, ys = scan(_Shifted(cell), params, start, inputs, **options)
        ys = _tree.move_time(ys, 0, axis) if options.get("outputs", "all") == "all" else ys
        return _scalar(loss(_shift(carry, [shift[-1] for shift in shifts]), ys))

    value, found = jax.value_and_grad(perturbed_loss)(nothing)
    found = _through_held_states(found, n_steps, options)
    rows = _batch_ndim(cell, xs, options) if batch_ndim is None else batch_ndim
    norms = [_norm(gradient, 1 + rows) for gradient in found]
    return GradientOverTime(value, _like(plain, found), _like(plain, norms))


def _scan_in_shapes(cell: Any, params: Any, carry: Any, xs: Any, options: dict[str, Any]) -> Any:
    """Shapes and dtypes of the carry that this scan returns."""
    return jax.eval_shape(lambda: scan(cell, params, carry, xs, **options)[0])


@dataclass(frozen=True)
class _Shifted:
    """The cell, with `x` a pair of its input and what is added to each leaf of its carry that has a gradient."""

    cell: Any

    @property
    def stochastic(self) -> bool | None:
        return stochastic(self.cell)

    def __call__(self, params: Any, carry: Any, x_and_shifts: Any, rng: Rng | None = None) -> tuple[Any, Any]:
        x, shifts = x_and_shifts
        return call(self.cell, params, _shift(carry, shifts), x, rng)

    def __repr__(self) -> str:
        return name_of(self.cell)


def _start(cell: Any, params: Any, carry: Any, xs: Any, options: dict[str, Any]) -> Any:
    """The carry before the first step in the dtypes of the loop: what a scan of no steps returns."""
    return scan(cell, params, carry, xs, **options | {"n_steps": 0, "outputs": "none", "debug": False})[0]


def _has_gradient(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _moving(carry: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(carry) if _has_gradient(leaf)]


def _shift(carry: Any, shifts: list[jax.Array]) -> Any:
    """The carry with one shift added to each leaf that has a gradient."""
    rest = iter(shifts)
    return jax.tree.map(lambda leaf: leaf + next(rest) if _has_gradient(leaf) else leaf, carry)


def _like(carry: Any, values: list[jax.Array]) -> Any:
    """The values in the structure of the carry, None where a leaf has no gradient."""
    rest = iter(values)
    return jax.tree.map(lambda leaf: next(rest) if _has_gradient(leaf) else None, carry)


def _scalar(value: Any) -> jax.Array:
    one = jax.tree_util.all_leaves([value]) and jnp.shape(value) == ()
    if not one or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        shown = jax.tree.map(lambda leaf: _tree.describe(jnp.asarray(leaf)), value)
        raise ValueError(f"`loss(carry, ys)` must return a real scalar; got {shown}. Write `jnp.sum(...)` around it.")
    return jnp.asarray(value)


def _through_held_states(found: list[jax.Array], n_steps: int, options: dict[str, Any]) -> list[jax.Array]:
    """What the shifts gave, with the gradient at each masked step taken from the state that it holds, in input order.

    A masked step gives its shift no gradient, since it repeats another step and drops the result. Its state is that of
    the next valid step in scan order, or the carry returned; or, where that step starts from a reset, of none.
    """
    lengths, reverse = options.get("lengths"), options.get("reverse", False)
    lengths = None if lengths is None else jnp.clip(lengths, 0, n_steps).astype(jnp.int32)
    valid = valid_steps(lengths, options.get("mask"), n_steps)
    if reverse:  # the shifts of steps are in input order, and the last one is that of the carry returned
        found = [jnp.concatenate([g[-1:], g[:-1]]) for g in found]
    if valid is None or n_steps == 0:
        return found
    lost = jnp.zeros_like(valid) if options.get("resets") is None else options["resets"][:n_steps]
    if reverse:
        lost = jnp.concatenate([lost[1:], jnp.zeros_like(lost[:1])])
    return jax.tree.map(lambda g: _filled(g, valid[:n_steps], lost, reverse), found)


@jax.jit(static_argnames="reverse")
def _filled(gradient: jax.Array, valid: jax.Array, lost: jax.Array, reverse: bool) -> jax.Array:
    if reverse:
        return _filled(gradient[::-1], valid[::-1], lost[::-1], False)[::-1]
    last = jnp.full_like(valid[:1], True)
    valid, lost = jnp.concatenate([valid, last]), jnp.concatenate([lost, ~last])
    place = jnp.arange(len(valid), dtype=jnp.int32).reshape(-1, *(1,) * (valid.ndim - 1))
    holder = jax.lax.cummin(jnp.where(valid, place, len(valid) - 1), axis=0, reverse=True)
    lost = jnp.take_along_axis(lost, holder, axis=0) & ~valid
    index = holder.reshape(holder.shape + (1,) * (gradient.ndim - holder.ndim))
    held = jnp.take_along_axis(gradient, index, axis=0)
    return _tree.where(lost, jnp.zeros_like(held), held)


def _batch_ndim(cell: Any, xs: Any, options: dict[str, Any]) -> int:
    if options.get("lengths") is not None:
        return options["lengths"].ndim
    for flags in (options.get("mask"), options.get("resets")):
        if flags is not None:
            return flags.ndim - 1
    leaves = jax.tree.leaves(xs)
    return leaves[0].ndim - 1 - cell.x_ndim if leaves and hasattr(cell, "x_ndim") else 0


@jax.jit(static_argnames="n_axes")
def _norm(gradient: jax.Array, n_axes: int) -> jax.Array:
    """`sqrt(sum |g|^2)` over the axes after the first `n_axes`; scaled, so that no square of a large one overflows."""
    axes = tuple(range(n_axes, gradient.ndim))
    size = jnp.abs(gradient)
    largest = jnp.max(size, axis=axes, keepdims=True, initial=0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, jnp.ones_like(largest))
    return jnp.sqrt(jnp.sum((size / scale) ** 2, axis=axes)) * jnp.squeeze(scale, axes)

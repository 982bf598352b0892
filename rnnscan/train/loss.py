"""Losses of padded sequences: what lies in the padding touches neither their value nor their gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import _inputs
from .._errors import SequenceError
from .._rewrite import valid_steps
from .._tree import describe, is_concrete
from ._checks import check_count


def masked_mean(
    values: Any, *, lengths: Any = None, mask: Any = None, time_axis: int = 0, with_count: bool = False
) -> Any:
    """The mean over valid steps, `sum_{t,b} valid_{tb} values_{tb} / count`, and 0 where no step is valid.

    Shapes: `values` `(T, *batch, ...)` with time on `time_axis`; `lengths` (ints) `(*batch,)`, row b being valid at
    steps 0 .. lengths[b]-1; or `mask` (bools) `(T, *batch)`, True where a step counts, time on `time_axis` too. Axes
    of `values` after the batch axes are features and averaged as well. With neither, every step is valid.
    NaN in padding changes nothing; NaN in a valid step makes the mean NaN. Whole numbers and bools are averaged as
    floats, so that `masked_mean(predicted == labels, lengths=lengths)` is an accuracy.

    Returns the mean, in the dtype of `values`; with `with_count=True`, `(mean, count)`, count (int32) being the number
    of valid steps, with which means of several batches can be combined.
    Lengths that cannot be looked at (under `jax.jit`) are clipped to [0, T].
    Raises: `LengthError` (shape, or a value outside [0, T]), `SequenceError` (mask's shape), TypeError (dtypes),
    ValueError (both given).
    """
    values = _array(values, "values")
    valid = _valid(values, lengths, mask, time_axis, "values")
    return _mean(values, valid, time_axis, with_count)


def masked_cross_entropy(
    logits: Any,
    labels: Any,
    *,
    lengths: Any = None,
    mask: Any = None,
    time_axis: int = 0,
    with_count: bool = False,
) -> Any:
    """The mean over valid steps of `-log softmax(logits)[label]`, in nats.

    `lengths`, `mask`, `time_axis`, `with_count` and errors as in `masked_mean`.

    Shapes: `logits` `(T, *batch, n_classes)`, `labels` (ints) `(T, *batch)`; without `lengths` and `mask` any leading
    axes, such as `(batch, n_classes)` and `(batch,)`. The loss is optax's
    `softmax_cross_entropy_with_integer_labels`; labels and logits in padding are replaced before it.
    Labels are in [0, n_classes): others raise ValueError, or, where they cannot be looked at (under `jax.jit`), make
    the loss NaN. To leave out steps marked by -1, write `mask=labels >= 0`.
    """
    logits, labels = _array(logits, "logits"), _array(labels, "labels")
    _check_labels_type(logits, labels)
    n_classes = logits.shape[-1]
    valid = _valid(labels, lengths, mask, time_axis, "labels")
    seen = jnp.ones(labels.shape, bool) if valid is None else _spread(valid, labels.shape, time_axis)
    in_range = (labels >= 0) & (labels < n_classes)
    _check_labels(labels, seen & ~in_range, n_classes)
    clean = jnp.where(seen & in_range, labels, 0)
    logits = jnp.where(seen[..., None], logits, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, clean)
    return _mean(jnp.where(in_range, losses, jnp.nan), valid, time_axis, with_count)


def masked_squared_error(
    prediction: Any,
    target: Any,
    *,
    lengths: Any = None,
    mask: Any = None,
    time_axis: int = 0,
    with_count: bool = False,
) -> Any:
    """The mean over valid steps (and features) of `(prediction - target)^2`.

    `lengths`, `mask`, `time_axis`, `with_count` and errors as in `masked_mean`.

    Shapes: both `(T, *batch, ...)`, and equal: `(batch, 1)` against `(batch,)` raises instead of broadcasting. Both
    have one real floating-point dtype. The loss is `optax.squared_error`; both are replaced by 0 in padding before it.
    """
    prediction, target = _array(prediction, "prediction"), _array(target, "target")
    if prediction.shape != target.shape:
        raise SequenceError(
            f"`masked_squared_error` needs equal shapes, got prediction {prediction.shape} and target {target.shape}."
        )
    if prediction.dtype != target.dtype or not jnp.issubdtype(prediction.dtype, jnp.floating):
        raise TypeError(
            "`masked_squared_error` needs prediction and target of one real floating-point dtype, got "
            f"{prediction.dtype} and {target.dtype}. Write `target.astype(prediction.dtype)`."
        )
    valid = _valid(prediction, lengths, mask, time_axis, "prediction")
    if valid is not None:
        everywhere = _spread(valid, prediction.shape, time_axis)
        prediction, target = jnp.where(everywhere, prediction, 0), jnp.where(everywhere, target, 0)
    return _mean(optax.squared_error(prediction, target), valid, time_axis, with_count)


def _array(value, name):
    if isinstance(value, jax.Array | np.ndarray | np.generic | float | int):
        return jnp.asarray(value)
    raise TypeError(f"`{name}` must be an array, got {describe(value)}. Write `jnp.asarray(...)`.")


def _mean(values, valid, time_axis, with_count):
    """The mean of values where valid, and 0 of nothing; padding is replaced before it is summed."""
    dtype = values.dtype if jnp.issubdtype(values.dtype, jnp.inexact) else jnp.asarray(0.0).dtype
    if valid is None:
        n_elements = jnp.asarray(values.size)
        count = jnp.asarray(values.size, jnp.int32)
    else:
        values = jnp.where(_spread(valid, values.shape, time_axis), values, jnp.zeros((), values.dtype))
        count = jnp.sum(valid, dtype=jnp.int32)
        n_elements = count * (values.size // max(valid.size, 1))
    wide = jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype  # a bfloat16 sum of ones would stop at 256
    mean = jnp.sum(values, dtype=wide) / jnp.maximum(n_elements, 1).astype(wide)
    return (mean.astype(dtype), count) if with_count else mean.astype(dtype)


def _spread(valid, shape, time_axis):
    """The `(T, *batch)` array `valid` with time put on its axis, and broadcast over the features."""
    valid = jnp.moveaxis(valid, 0, time_axis)
    return jnp.broadcast_to(valid.reshape(valid.shape + (1,) * (len(shape) - valid.ndim)), shape)


def _valid(values, lengths, mask, time_axis, name):
    """Which steps count, bool `(T, *batch)`, or None for all of them."""
    if lengths is None and mask is None:
        return None
    if lengths is not None and mask is not None:
        raise ValueError("give `lengths` or `mask`, not both.")
    time_axis = check_count(time_axis, "time_axis")
    if time_axis >= values.ndim:
        raise SequenceError(f"`{name}` has shape {values.shape}: there is no axis {time_axis} for time.")
    if mask is not None:
        mask = _inputs.check_flags("mask", mask, values, None, time_axis)
        _inputs.count_steps(values, None, time_axis, mask)
        return jnp.moveaxis(mask, time_axis, 0)
    n_steps = values.shape[time_axis]
    return valid_steps(_inputs.check_lengths(lengths, values, n_steps, time_axis, root=name), None, n_steps)


def _check_labels_type(logits, labels):
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"`labels` must be integers, the numbers of the classes; got {labels.dtype}. For a distribution over "
            "classes use `optax.softmax_cross_entropy` and `rs.train.masked_mean`."
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"`logits` must be floating-point, got {logits.dtype}.")
    if logits.shape[:-1] != labels.shape or logits.ndim == 0:
        raise SequenceError(
            f"`logits` has shape {logits.shape} and `labels` {labels.shape}; expected labels {logits.shape[:-1]}, "
            "one for each row of logits."
        )


def _check_labels(labels, wrong, n_classes):
    if not is_concrete(labels, wrong):
        return
    for index in np.argwhere(np.asarray(wrong))[:1]:
        place = tuple(int(i) for i in index)
        at = f" at index {place[0] if len(place) == 1 else place}" if place else ""
        raise ValueError(f"`labels` must be in [0, {n_classes}), found {np.asarray(labels)[place]}{at}.")

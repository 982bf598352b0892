"""Masked losses: the mean over valid steps as a NumPy loop has it, and padding that cannot hurt."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rnnscan._errors import LengthError, SequenceError
from rnnscan.train import masked_cross_entropy, masked_mean, masked_squared_error


RNG = np.random.default_rng(3)
VALUES = RNG.normal(size=(5, 3))
LENGTHS = np.array([5, 0, 2])
VALID = np.arange(5)[:, None] < LENGTHS
HOLES = RNG.random((5, 3)) < 0.6
LOGITS = RNG.normal(size=(5, 3, 4))
LABELS = RNG.integers(0, 4, size=(5, 3))


def poison(array, valid):
    return np.where(valid.reshape(valid.shape + (1,) * (array.ndim - 2)), array, np.nan)


def test_mean_over_valid_steps_by_lengths_and_by_mask():
    total = sum(VALUES[t, b] for b in range(3) for t in range(LENGTHS[b]))
    mean, count = masked_mean(VALUES, lengths=LENGTHS, with_count=True)
    np.testing.assert_allclose(mean, total / 7, rtol=1e-12)
    assert count == 7 and count.dtype == jnp.int32
    np.testing.assert_allclose(masked_mean(VALUES, mask=HOLES), VALUES[HOLES].mean(), rtol=1e-12)
    np.testing.assert_allclose(masked_mean(VALUES), VALUES.mean(), rtol=1e-12)
    np.testing.assert_allclose(masked_mean(LOGITS, mask=HOLES), LOGITS[HOLES].mean(), rtol=1e-12)


def test_time_on_another_axis():
    expected = masked_mean(VALUES, lengths=LENGTHS)
    np.testing.assert_allclose(masked_mean(VALUES.T, lengths=LENGTHS, time_axis=1), expected, rtol=1e-12)
    np.testing.assert_allclose(masked_mean(VALUES.T, mask=VALID.T, time_axis=1), expected, rtol=1e-12)
    swapped = np.swapaxes(LOGITS, 0, 1)
    got = masked_cross_entropy(swapped, LABELS.T, lengths=LENGTHS, time_axis=1)
    np.testing.assert_allclose(got, masked_cross_entropy(LOGITS, LABELS, lengths=LENGTHS), rtol=1e-12)


def test_padding_touches_neither_value_nor_gradient():
    f = jax.value_and_grad(lambda v: masked_mean(jnp.exp(v), lengths=LENGTHS))
    value, gradient = f(jnp.asarray(poison(VALUES, VALID)))
    np.testing.assert_allclose(value, np.exp(VALUES)[VALID].mean(), rtol=1e-12)
    # exp is the caller's own arithmetic, so its slope at NaN is his; masked_mean's part of the gradient is zero there
    mean_gradient = jax.grad(lambda v: masked_mean(v, lengths=LENGTHS))(jnp.asarray(poison(VALUES, VALID)))
    np.testing.assert_allclose(mean_gradient, VALID / 7, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(gradient)[VALID], np.exp(VALUES)[VALID] / 7, rtol=1e-12)


def test_nan_in_a_valid_step_is_not_hidden():
    assert jnp.isnan(masked_mean(poison(VALUES, ~VALID), lengths=LENGTHS))


@pytest.mark.parametrize("shape, lengths", [((5, 3), [0, 0, 0]), ((0, 3), [0, 0, 0]), ((5, 0), np.zeros(0, int))])
def test_no_valid_step_is_zero(shape, lengths):
    mean, count = masked_mean(np.full(shape, np.nan), lengths=np.asarray(lengths), with_count=True)
    assert (mean, count) == (0.0, 0)
    gradient = jax.grad(lambda v: masked_mean(v, lengths=np.asarray(lengths)))(jnp.full(shape, jnp.nan))
    assert not np.any(gradient)


def test_no_values_at_all_are_zero():
    assert masked_mean(np.zeros((0, 2))) == 0.0


def test_accuracy_from_bools_and_long_sums_in_bfloat16():
    right = np.array([[True, False], [True, True], [False, True]])
    np.testing.assert_allclose(masked_mean(right, lengths=np.array([3, 1])), 2 / 4)
    assert masked_mean(jnp.ones((1000, 3), jnp.bfloat16), lengths=jnp.array([1000, 999, 998])) == 1.0


def test_short_integer_types_of_lengths():
    values = RNG.normal(size=(300, 2))
    got = masked_mean(values, lengths=np.array([200, 3], np.uint8))
    np.testing.assert_allclose(got, np.concatenate([values[:200, 0], values[:3, 1]]).mean(), rtol=1e-12)


def test_traced_lengths_are_clipped():
    got = jax.jit(lambda n: masked_mean(VALUES, lengths=n))(np.array([9, -2, 2]))
    np.testing.assert_allclose(got, np.concatenate([VALUES[:, 0], VALUES[:2, 2]]).mean(), rtol=1e-12)


def numpy_cross_entropy(valid):
    rows = [(LOGITS[t, b], LABELS[t, b]) for t in range(5) for b in range(3) if valid[t, b]]
    return np.mean([np.log(np.sum(np.exp(z))) - z[label] for z, label in rows])


@pytest.mark.parametrize("how", ["lengths", "mask"])
def test_cross_entropy_with_nan_logits_and_wild_labels_in_padding(how):
    valid = VALID if how == "lengths" else HOLES
    options = {how: LENGTHS if how == "lengths" else HOLES}
    labels = np.where(valid, LABELS, -1)
    value, gradient = jax.value_and_grad(lambda z: masked_cross_entropy(z, labels, **options))(poison(LOGITS, valid))
    np.testing.assert_allclose(value, numpy_cross_entropy(valid), rtol=1e-12)
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    expected = (softmax - np.eye(4)[LABELS]) * valid[..., None] / valid.sum()
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-15)


def test_cross_entropy_without_time():
    got = masked_cross_entropy(LOGITS[0], LABELS[0])
    want = optax.softmax_cross_entropy_with_integer_labels(LOGITS[0], LABELS[0]).mean()
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_squared_error_with_nan_targets_in_padding():
    target = RNG.normal(size=LOGITS.shape)
    f = jax.value_and_grad(lambda p: masked_squared_error(p, poison(target, VALID), lengths=LENGTHS))
    value, gradient = f(poison(LOGITS, VALID))
    np.testing.assert_allclose(value, ((LOGITS - target)[VALID] ** 2).mean(), rtol=1e-12)
    np.testing.assert_allclose(gradient, 2 * (LOGITS - target) * VALID[..., None] / (7 * 4), rtol=1e-12)
    np.testing.assert_allclose(masked_squared_error(LOGITS, target), ((LOGITS - target) ** 2).mean(), rtol=1e-12)


def test_labels_out_of_range_under_jit_make_the_loss_nan():
    for wild in (-1, 4):
        labels = np.where(np.arange(15).reshape(5, 3) == 6, wild, LABELS)  # step 2, row 0: a valid one
        assert jnp.isnan(jax.jit(masked_cross_entropy)(LOGITS, labels, lengths=LENGTHS))


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"lengths": np.array([2, 6, 1])}, LengthError, r"`lengths\[1\]` = 6 exceeds T = 5"),
        ({"lengths": np.array([2, 1, -3])}, LengthError, r"`lengths\[2\]` = -3 is negative"),
        ({"lengths": np.array([4.7, 1, 2])}, TypeError, r"`lengths` must be integers, got float64"),
        ({"lengths": "abc"}, TypeError, r"`lengths` must be integers, one for each row, got 'abc'"),
        ({"lengths": np.array([1, 2])}, LengthError, r"`lengths` has shape \(2,\), expected \(B,\) = \(3,\)"),
        ({"lengths": np.array([[1, 2, 3]])}, LengthError, r"`lengths` has shape \(1, 3\), expected \(B,\) = \(3,\)"),
        ({"lengths": LENGTHS, "mask": VALID}, ValueError, "give `lengths` or `mask`, not both"),
        ({"mask": VALID[:4]}, SequenceError, r"`mask` has shape \(4, 3\), expected \(T, B\) = \(5, 3\)"),
        ({"mask": VALID[:1]}, SequenceError, r"`mask` has shape \(1, 3\), expected"),
        ({"mask": VALID.T}, SequenceError, r"`mask` has shape \(3, 5\).*looks like \(B, T\): pass `mask.T`"),
        ({"mask": VALID * 0.3}, TypeError, "`mask` must be bool, got float64; use `mask > 0`"),
        ({"mask": VALID.astype(int)}, TypeError, "`mask` must be bool, got int64; use `mask > 0`"),
        ({"mask": LENGTHS}, SequenceError, "looks like lengths: pass `lengths=`"),
        ({"lengths": LENGTHS, "time_axis": 2}, SequenceError, "there is no axis 2 for time"),
        ({"lengths": LENGTHS, "time_axis": -1}, ValueError, "`time_axis` must be >= 0"),
    ],
)
def test_lengths_and_masks_that_do_not_fit(options, kind, message):
    with pytest.raises(kind, match=message):
        masked_mean(VALUES, **options)


@pytest.mark.parametrize(
    "labels, kind, message",
    [
        (np.array([0, 2, 1, 0, -1]), ValueError, r"`labels` must be in \[0, 3\), found -1 at index 4"),
        (np.array([0, 7, 1, 0, 2]), ValueError, r"`labels` must be in \[0, 3\), found 7 at index 1"),
        (np.array([0.0, 1, 1, 0, 2]), TypeError, "`labels` must be integers.*got float64"),
        (np.array([[0, 1, 1, 0, 2]]), SequenceError, r"`labels` \(1, 5\); expected labels \(5,\)"),
    ],
)
def test_labels_that_are_none(labels, kind, message):
    with pytest.raises(kind, match=message):
        masked_cross_entropy(LOGITS[:, 0, :3], labels)


def test_a_wild_label_is_named_by_its_place_and_only_where_valid():
    labels = LABELS.copy()
    labels[1, 2] = 9
    with pytest.raises(ValueError, match=r"found 9 at index \(1, 2\)"):
        masked_cross_entropy(LOGITS, labels, lengths=LENGTHS)
    labels[1, 2], labels[4, 1] = 0, 9  # row 1 has no valid step
    assert jnp.isfinite(masked_cross_entropy(LOGITS, labels, lengths=LENGTHS))


@pytest.mark.parametrize(
    "target, kind, message",
    [
        (VALUES[:, :1], SequenceError, r"equal shapes, got prediction \(5, 3\) and target \(5, 1\)"),
        (VALUES.astype(np.float32), TypeError, "one real floating-point dtype, got float64 and float32"),
        (LABELS, TypeError, "got float64 and int64"),
    ],
)
def test_targets_that_do_not_fit(target, kind, message):
    with pytest.raises(kind, match=message):
        masked_squared_error(VALUES, target)

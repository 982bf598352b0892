"""Padding and batching lose nothing, repeat nothing, and say which sequence does not fit."""

import jax
import ml_dtypes
import numpy as np
import pytest

from rnnscan._errors import SequenceError
from rnnscan.train import batches, bucket, pad


def sequences(lengths, features=2):
    """Sequence i counts from 100 i + 1, so that every number names its place."""
    return [100.0 * i + 1 + np.arange(n * features, dtype=float).reshape(n, features) for i, n in enumerate(lengths)]


def unpadded(padded, lengths):
    return [padded[: lengths[b], b] for b in range(len(lengths))]


def test_pad_keeps_every_number_and_fills_the_rest():
    given = sequences([3, 0, 5])
    padded, lengths = pad(given, value=-7)
    assert padded.shape == (5, 3, 2) and lengths.tolist() == [3, 0, 5] and lengths.dtype == np.int32
    assert all(np.array_equal(a, b) for a, b in zip(unpadded(padded, lengths), given, strict=True))
    assert np.all(padded[3:, 0] == -7) and np.all(padded[:, 1] == -7)


def test_pad_to_a_multiple_or_a_length_and_trees():
    given = sequences([3, 5])
    assert pad(given, multiple=4)[0].shape == (8, 2, 2)
    assert pad(given, length=6)[0].shape == (6, 2, 2)
    trees = [{"x": s, "token": np.arange(len(s), dtype=np.int16)} for s in given]
    padded, lengths = pad(trees, value=-1)
    assert padded["token"].dtype == np.int16 and padded["token"][:, 0].tolist() == [0, 1, 2, -1, -1]
    assert np.array_equal(padded["x"][:, 1], given[1]) and lengths.tolist() == [3, 5]


def test_pad_keeps_bfloat16():
    padded, _ = pad([np.ones((2, 1), ml_dtypes.bfloat16), np.ones((3, 1), ml_dtypes.bfloat16)], value=0.5)
    assert padded.dtype == ml_dtypes.bfloat16 and padded[:, 0, 0].tolist() == [1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    "given, options, kind, message",
    [
        ([], {}, SequenceError, "`sequences` is empty"),
        (np.ones((3, 2)), {}, TypeError, r"must be a list of arrays, got float64\[3,2\]"),
        ([np.ones((2, 3)), np.ones((4, 2))], {}, SequenceError, r"`sequences\[1\]` has shape \(4, 2\)"),
        (
            [np.ones(2), np.ones(2, np.float32)],
            {},
            TypeError,
            r"`sequences\[1\]` is float32, `sequences\[0\]` is float64",
        ),
        ([np.ones(2), {"x": np.ones(2)}], {}, SequenceError, r"`sequences\[1\]` has structure"),
        ([np.ones(2), np.array(1.0)], {}, SequenceError, r"`sequences\[1\]` is float64\[\]; a sequence needs"),
        ([[1.0, 2.0], [3.0, 4.0]], {}, SequenceError, r"`sequences\[0\]\[0\]` is a float.*np.asarray"),
        ([{"a": np.ones(2), "b": np.ones(3)}], {}, SequenceError, r"`sequences\[0\]` needs equal first axes"),
        (sequences([3, 5]), {"length": 4}, SequenceError, r"`sequences\[1\]` has 5 steps, more than length=4"),
        (sequences([3, 5]), {"length": 9, "multiple": 4}, ValueError, "`length`=9 is not a multiple of multiple=4"),
        (sequences([3]), {"multiple": 0}, ValueError, "`multiple` must be >= 1"),
        (sequences([3]), {"length": 4.0}, TypeError, "`length` must be an int, got 4.0"),
        ([np.ones(2, np.uint8)], {"value": -1}, ValueError, "`value` = -1 is no uint8"),
        ([np.ones(2, int)], {"value": 0.5}, ValueError, "`value` = 0.5 is no int64"),
        ([np.ones(2, int)], {"value": float("nan")}, ValueError, "`value` = nan is no int64"),
        ([np.ones(2)], {"value": np.ones(2)}, ValueError, "is no float64"),
    ],
)
def test_sequences_that_cannot_be_padded(given, options, kind, message):
    with pytest.raises(kind, match=message):
        pad(given, **options)


def test_buckets_hold_every_sequence_once_with_little_padding(key):
    given = sequences([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])
    data = bucket(given, 2, boundaries=[2, 5, 9], extras={"label": np.arange(11)})
    for passes in (data, data(key)):
        seen, shapes = [], set()
        for padded, lengths, extras in passes:
            for row, i in zip(unpadded(padded, lengths), extras["label"], strict=True):
                assert np.array_equal(row, given[i])
                seen.append(int(i))
            shapes.add(padded.shape)
            bound = padded.shape[0]
            assert all(n <= bound and (bound == 2 or n > {5: 2, 9: 5}[bound]) for n in lengths)
        assert sorted(seen) == list(range(11)) and len(shapes) <= 6
    assert len(data) == len(list(data)) == 2 + 3 + 1


def test_buckets_by_number_and_without_remainders():
    given = sequences([1, 2, 3, 4, 5, 6, 7])
    assert sorted({padded.shape[0] for padded, _ in bucket(given, 1, n_buckets=3)}) == [3, 5, 7]
    assert [lengths.tolist() for _, lengths in bucket(given, 2, n_buckets=3, drop_last=True)] == [
        [1, 2],
        [4, 5],
        [6, 7],
    ]
    assert [padded.shape[0] for padded, _ in bucket(sequences([3, 3, 3]), 2)] == [3, 3]


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"boundaries": [2, 4]}, SequenceError, r"`sequences\[1\]` has 5 steps, more than the last boundary 4"),
        ({"boundaries": [6, 5]}, ValueError, r"`boundaries` must be lengths that increase, got \[6, 5\]"),
        ({"boundaries": []}, ValueError, "`boundaries` must be lengths"),
        ({"boundaries": [5.5]}, TypeError, "integer"),
        ({"boundaries": [5], "n_buckets": 2}, ValueError, "give boundaries or n_buckets, not both"),
        ({"n_buckets": 0}, ValueError, "`n_buckets` must be >= 1"),
        ({"extras": np.ones(3)}, SequenceError, "`extras` has 3 rows for 2 sequences"),
        ({"drop_last": True}, SequenceError, "no whole batch of 2 in any bucket"),
        ({"key": 3}, ValueError, r"`key` must be jax.random.key\(seed\), got int 3"),
    ],
)
def test_buckets_that_cannot_be(options, kind, message):
    with pytest.raises(kind, match=message):
        bucket(sequences([3, 5]), 2, **options)


def rows(passes):
    return [batch["i"].tolist() for batch in passes]


ARRAYS = {"i": np.arange(11), "x": np.arange(11)[:, None] * np.array([1.0, 10.0])}


def test_batches_in_order_keep_the_remainder():
    data = batches(ARRAYS, 4)
    assert rows(data) == rows(data) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]] and len(data) == 3
    assert rows(batches(ARRAYS, 4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_shuffled_batches_hold_everything_once_and_follow_the_key(key):
    data = batches(ARRAYS, 4)
    shuffled = rows(data(key))
    assert sorted(sum(shuffled, [])) == list(range(11)) and shuffled != rows(data)
    assert shuffled == rows(data(jax.random.key(0))) != rows(data(jax.random.key(1)))
    assert all(np.array_equal(batch["x"][:, 1], 10.0 * batch["i"]) for batch in data(key))


def test_a_key_given_at_first_pins_one_order(key):
    pinned = batches(ARRAYS, 4, key=key)
    assert rows(pinned) == rows(pinned) == rows(pinned(jax.random.key(1))) == rows(batches(ARRAYS, 4)(key))
    assert rows(batches(ARRAYS, 4, key=jax.random.PRNGKey(0))) == rows(pinned)


@pytest.mark.parametrize(
    "arrays, options, kind, message",
    [
        ({"x": np.ones((3, 2)), "y": np.ones(4)}, {}, SequenceError, r"`arrays\['x'\]` has 3, `arrays\['y'\]` 4"),
        ({"x": np.array(1.0)}, {}, SequenceError, r"`arrays\['x'\]` must be an array with a first axis"),
        ([1.0, 2.0], {}, SequenceError, r"`arrays\[0\]` must be an array with a first axis to cut, got a float"),
        ({}, {}, SequenceError, "`arrays` holds no array"),
        (np.ones((0, 2)), {}, SequenceError, "0 examples, too few for one batch of 2"),
        (np.ones((1, 2)), {"drop_last": True}, SequenceError, "1 examples, too few for one batch of 2"),
        (np.ones((1, 2)), {"batch_size": 0}, ValueError, "`batch_size` must be >= 1"),
        (np.ones((1, 2)), {"key": "0"}, ValueError, r"`key` must be jax.random.key\(seed\), got str '0'"),
    ],
)
def test_arrays_that_cannot_be_cut(arrays, options, kind, message):
    with pytest.raises(kind, match=message):
        batches(arrays, **{"batch_size": 2} | options)

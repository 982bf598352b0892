"""`last_valid` and `flip_valid` against NumPy loops over rows, and what NaN in padding does to their gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan import flip_valid, last_valid
from tests.helpers import assert_close


T, B = 5, 3
XS = np.linspace(0.3, 1.9, T * B * 2).reshape(T, B, 2)
LENGTHS = np.array([3, 0, 5])
HOLES = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0], [0, 0, 1]], bool)  # and a row with nothing


def prefix(lengths):
    return np.arange(T)[:, None] < lengths


SELECTIONS = {
    "lengths": ({"lengths": LENGTHS}, prefix(LENGTHS)),
    "int8 lengths": ({"lengths": LENGTHS.astype(np.int8)}, prefix(LENGTHS)),
    "mask": ({"mask": HOLES}, HOLES),
    "nothing": ({}, np.ones((T, B), bool)),
    "no valid step": ({"lengths": np.zeros(B, int)}, np.zeros((T, B), bool)),
}
each_selection = pytest.mark.parametrize("options, valid", SELECTIONS.values(), ids=SELECTIONS)


def last_by_hand(ys, valid):
    rows = [ys[np.flatnonzero(valid[:, b])[-1], b] if valid[:, b].any() else np.zeros_like(ys[0, b])
            for b in range(B)]  # fmt: skip
    return np.stack(rows)


def flip_by_hand(xs, valid):
    xs = xs.copy()
    for b in range(B):
        xs[valid[:, b], b] = xs[valid[:, b], b][::-1]
    return xs


def tree(xs):
    """The same rows with two features, with none, as integers and as bools."""
    return {"two": xs, "none": [xs[..., 0]], "int": (100 * xs).astype(np.int32), "bool": xs[..., 1] > 1}


@each_selection
def test_last_valid_is_the_last_step_that_counts(options, valid):
    got = last_valid(tree(XS), **options)
    assert_close(got, jax.tree.map(lambda leaf: last_by_hand(leaf, valid), tree(XS)), rtol=0, atol=0)


@each_selection
def test_flip_valid_reverses_what_counts_and_leaves_the_rest(options, valid):
    got = flip_valid(tree(XS), **options)
    assert_close(got, jax.tree.map(lambda leaf: flip_by_hand(leaf, valid), tree(XS)), rtol=0, atol=0)


@pytest.mark.parametrize("function", [last_valid, flip_valid])
def test_every_mask_of_four_steps(function):
    """All 16 patterns at once, one a row: flipping twice gives the sequence back, whatever the holes."""
    mask = np.array(list(itertools.product([False, True], repeat=4))).T
    xs = np.arange(1.0, 65.0).reshape(4, 16)
    if function is flip_valid:
        want = xs.copy()
        for b in range(16):
            want[mask[:, b], b] = xs[mask[:, b], b][::-1]
        assert np.array_equal(flip_valid(flip_valid(xs, mask=mask), mask=mask), xs)
    else:
        want = np.array([xs[mask[:, b], b][-1] if mask[:, b].any() else 0 for b in range(16)])
    assert np.array_equal(function(xs, mask=mask), want)


@pytest.mark.parametrize("function, time_axis", [(last_valid, 2), (flip_valid, 1)])
def test_time_on_another_axis_and_more_batch_axes(function, time_axis):
    xs = np.linspace(0.3, 1.9, T * 2 * 3 * 4).reshape(T, 2, 3, 4)
    lengths = np.array([[1, 5, 0], [2, 4, 3]])
    mask = np.arange(T)[:, None, None] < lengths
    want = function(xs.reshape(T, 6, 4), lengths=lengths.reshape(6))  # the tests above hold for one batch axis
    want = np.asarray(want).reshape(*want.shape[:-2], 2, 3, 4)
    want = np.moveaxis(want, 0, time_axis) if function is flip_valid else want
    moved = np.moveaxis(xs, 0, time_axis)
    assert np.array_equal(function(moved, lengths=lengths, time_axis=time_axis), want)
    assert np.array_equal(function(moved, mask=np.moveaxis(mask, 0, time_axis), time_axis=time_axis), want)


def test_one_row_without_batch_axes():
    xs = np.arange(1.0, 9.0).reshape(4, 2)
    assert last_valid(xs, lengths=3).tolist() == [5, 6]
    assert last_valid(xs, mask=np.array([True, False, True, False])).tolist() == [5, 6]
    assert flip_valid(xs, lengths=3).tolist() == [[5, 6], [3, 4], [1, 2], [7, 8]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options, valid", [SELECTIONS["lengths"], SELECTIONS["mask"]], ids=["lengths", "mask"])
def test_padding_reaches_neither_values_nor_gradients(options, valid, bad):
    xs = np.where(valid[..., None], XS, bad)
    value, grad = jax.value_and_grad(lambda xs: jnp.sum(jnp.cos(last_valid(xs, **options))))(xs)
    last = np.zeros((T, B), bool)
    for b in range(B):
        last[np.flatnonzero(valid[:, b])[-1:], b] = True
    assert_close(value, np.cos(last_by_hand(XS, valid)).sum())
    assert_close(grad, np.where(last[..., None], -np.sin(XS), 0.0))

    ramp = np.linspace(0.5, 2.0, xs.size).reshape(xs.shape)
    weigh = lambda xs: jnp.sum(jnp.cos(jnp.where(valid[..., None], flip_valid(xs, **options), 0)) * ramp)
    grad = jax.grad(weigh)(xs)
    assert_close(grad, np.where(valid[..., None], -np.sin(XS) * flip_by_hand(ramp, valid), 0.0))
    tangent = jax.jvp(lambda xs: last_valid(xs, **options), (xs,), (ramp,))[1]
    assert_close(tangent, last_by_hand(ramp, valid))


def test_last_valid_does_not_depend_on_masked_output(key):
    cell = rs.cells.GRU(2, 4)
    params = cell.init(key)
    carry, ys = rs.scan(cell, params, None, XS, lengths=LENGTHS, masked_output="hold")
    assert_close(last_valid(ys, LENGTHS), carry)  # a GRU's carry is its output, and starts at zero


def test_flipping_turns_a_reverse_scan_into_a_forward_one(key):
    cell = rs.cells.GRU(2, 4)
    params = cell.init(key)
    want_carry, want = rs.scan(cell, params, None, XS, lengths=LENGTHS, reverse=True)
    carry, ys = rs.scan(cell, params, None, flip_valid(XS, LENGTHS), lengths=LENGTHS)
    assert_close((carry, flip_valid(ys, LENGTHS)), (want_carry, want))


@pytest.mark.parametrize("how", ["jit", "vmap"])
def test_traced_lengths_are_clipped(how):
    wild, tame = np.array([-4, 9, 2]), np.array([0, 5, 2])
    for function in (last_valid, flip_valid):
        want = function(XS, lengths=tame)
        if how == "jit":
            got = jax.jit(function)(XS, wild)
        else:
            got = jax.vmap(function, (1, 0), 0 if function is last_valid else 1)(XS, wild)
        assert np.array_equal(got, want)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("shape", [(0, 3, 2), (5, 0, 2), (0, 0, 2)], ids=str)
def test_nothing_to_select(shape, jit):
    xs, lengths = np.ones(shape, np.float32), np.zeros(shape[1], int)
    with jax.disable_jit(not jit):
        for options in ({"lengths": lengths}, {"mask": np.zeros(shape[:2], bool)}, {}):
            last, flipped = last_valid(xs, **options), flip_valid(xs, **options)
            filled = 1.0 if not options and shape[0] else 0.0
            assert_close(last, np.full(shape[1:], filled, np.float32))
            assert_close(flipped, xs)

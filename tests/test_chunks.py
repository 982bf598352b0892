"""`scan_chunks`: pieces equal the whole, whatever the options; what it says when they cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan._options import METHODS
from tests.helpers import ROWS, assert_close, count_compiles, library


SIZES = (2, 0, 2, 2)
T = sum(SIZES)
VALID = np.array([[0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
RESETS = np.array([[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1]], bool)
GRU = library(rs.cells.GRU(3, 4))
PARAMS, _, XS = GRU.make(jax.random.key(0), T)
CARRY = 0.3 + jnp.arange(12.0).reshape(ROWS, 4) / 9


def noisy(params, h, x, rng):
    """The plain cell of these tests with noise of both kinds."""
    noise = jax.random.normal(rng.per_step(), h.shape) + jax.random.normal(rng.per_sequence(), h.shape)
    h, y = GRU.cell(params, h, x)
    return h + 0.1 * noise, {"y": y, "noise": noise[..., 0]}


def pieces(tree, axis=0):
    """A tree cut along time into SIZES."""
    ends = np.cumsum(SIZES)
    cut = lambda leaf, a, b: jax.lax.slice_in_dim(leaf, int(a), int(b), axis=axis)
    return [
        jax.tree.map(lambda leaf: cut(jnp.asarray(leaf), a, b), tree)  # noqa: B023
        for a, b in zip(ends - SIZES, ends, strict=True)
    ]


def streamed(cell, params, carry, chunks, options):
    """The carry after the last piece, and the outputs as one scan would give them."""
    carries, parts = zip(*rs.scan_chunks(cell, params, carry, chunks, **options), strict=True)
    carry = carries[-1]
    if options.get("outputs", "all") != "all":
        return carry, parts[-1]
    axis = options.get("time_axis", 0)
    return carry, jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis), *parts)


CASES = {
    "plain": ({}, {}),
    "made carry, noise, second axis": ({"mask": VALID.T, "resets": RESETS.T}, {"time_axis": 1}),
    "held over pieces": ({"mask": VALID}, {"masked_output": "hold"}),
    "held over pieces without padding": ({"resets": RESETS}, {"masked_output": "hold"}),
    "resets to the first carry": ({"resets": RESETS, "mask": VALID}, {"unroll": 2}),
    "resets to a carry of their own": ({"resets": RESETS}, {"reset_carry": CARRY + 1}),
    "last": ({"mask": VALID}, {"outputs": "last"}),
    "last without padding": ({}, {"outputs": "last"}),
    "none": ({"mask": VALID}, {"outputs": "none"}),
}


@pytest.mark.parametrize("name", CASES)
def test_pieces_equal_the_whole(name, key):
    flags, options = CASES[name]
    noise = "noise" in name
    cell, carry = (noisy, CARRY) if noise else (GRU.cell, None if "made" in name or "first" in name else CARRY)
    options = {**options, "key": key} if noise else options
    axis = options.get("time_axis", 0)
    xs = jnp.moveaxis(XS, 0, axis)
    cut = {name: pieces(flag, axis) for name, flag in flags.items()}

    def loss(result):
        return sum(jnp.sum(jnp.cos(leaf) * jnp.arange(1.0, 1 + leaf.size).reshape(leaf.shape))
                   for leaf in jax.tree.leaves(result))  # fmt: skip

    def by_pieces(params, xs):
        chunks = [rs.Chunk(x, **{n: c[i] for n, c in cut.items()}) for i, x in enumerate(pieces(xs, axis))]
        result = streamed(cell, params, carry, chunks, options)
        return loss(result), result

    def at_once(params, xs):
        result = rs.scan(cell, params, carry, xs, **flags, **options)
        return loss(result), result

    got, want = (jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(PARAMS, xs) for f in (by_pieces, at_once))
    assert_close(got, want)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_streams(method, key):
    got = streamed(noisy, PARAMS, CARRY, pieces(XS), {"method": method, "key": key})
    assert_close(got, rs.scan(noisy, PARAMS, CARRY, XS, key=key))


def test_resets_in_a_later_piece_find_the_first_carry_on_any_time_axis():
    """`carry=None`: what the cell makes for the rows of xs, whichever axis these are."""
    turned, flags = jnp.swapaxes(XS, 0, 1), RESETS.T & (np.arange(T) >= 4)
    options = {"time_axis": 1, "debug": True, "carry_dtype": jnp.float64}
    chunks = [turned[:, :4], rs.Chunk(turned[:, 4:], resets=flags[:, 4:])]
    want = rs.scan(GRU.cell, PARAMS, None, turned, resets=flags, **options)
    got = list(rs.scan_chunks(GRU.cell, PARAMS, None, chunks, **options))
    assert_close((got[-1][0], jnp.concatenate([ys for _, ys in got], axis=1)), want)


def test_lengths_are_those_of_the_piece():
    chunks = [rs.Chunk(XS[:2], lengths=np.array([2, 1, 0])), XS[2:4], rs.Chunk(XS[4:], lengths=np.array([0, 2, 1]))]
    mask = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 0]], bool)
    assert_close(streamed(GRU.cell, PARAMS, None, chunks, {}), rs.scan(GRU.cell, PARAMS, None, XS, mask=mask))


def test_a_cell_without_input_and_a_generator_of_pieces():
    count = lambda params, n, x: (n + 1, 10 * n)
    shown = [(int(n), ys.tolist()) for n, ys in rs.scan_chunks(count, None, 0, (rs.Chunk(n_steps=k) for k in (2, 1)))]
    assert shown == [(2, [0, 10]), (3, [20])]


def test_pieces_of_one_shape_share_a_program_and_a_stream_is_lazy():
    asked, ready = [], [XS[:2] + i for i in range(4)]

    def source():
        for i, piece in enumerate(ready):
            asked.append(i)
            yield piece

    stream = rs.scan_chunks(GRU.cell, PARAMS, CARRY, source())
    assert asked == []
    next(stream)
    assert asked == [0]
    with count_compiles() as compiled:
        next(stream), next(stream)
    assert asked == [0, 1, 2] and not compiled


BAD = [
    (XS, {}, TypeError, r"iterable of pieces.*got float64\[6,3,3\].*`\[xs\]`"),
    (rs.Chunk(XS), {}, TypeError, "iterable of pieces"),
    (3, {}, TypeError, "iterable of pieces.*got 3"),
    ([XS], {"reverse": True}, ValueError, "`reverse` starts at the end"),
    ([XS], {"lengths": 3}, TypeError, r"write `rs.Chunk\(xs, lengths=...\)`"),
    ([XS], {"n_steps": 3}, TypeError, "each piece brings its own"),
    ([XS], {"stride": 3}, TypeError, "unexpected keyword argument `stride`"),
]


@pytest.mark.parametrize(("chunks", "options", "error", "message"), BAD)
def test_bad_input_is_told_at_the_call(chunks, options, error, message):
    with pytest.raises(error, match=message):
        rs.scan_chunks(GRU.cell, PARAMS, None, chunks, **options)


def test_what_belongs_to_a_piece_is_no_sequence_of_it():
    with pytest.raises(rs.SequenceError, match="disagree on T") as caught:
        list(rs.scan_chunks(GRU.cell, PARAMS, None, [(XS, np.array([6, 2, 1]))]))
    assert "the chunk is a tuple of 2, a tree of sequences" in "".join(caught.value.__notes__)
    assert "`rs.Chunk(xs, lengths=lengths)`" in "".join(caught.value.__notes__)


def test_an_error_says_in_which_piece():
    with pytest.raises(rs.SequenceError, match="features") as caught:
        list(rs.scan_chunks(GRU.cell, PARAMS, None, [XS, XS[..., :2]]))
    assert "chunk 1, whose step 0 is step 6" in "".join(caught.value.__notes__)
    with pytest.raises(rs.NonFiniteError, match="`xs` is nan at step 1") as caught:
        list(rs.scan_chunks(GRU.cell, PARAMS, None, [XS[:2], XS[:2].at[1].set(jnp.nan)], debug=True))
    assert "chunk 1, whose step 0 is step 2" in "".join(caught.value.__notes__)

"""`pack` and `unpack` against concatenation in NumPy, and scans over packed rows against the rows one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan import flip_valid, last_valid, pack, unpack
from tests.helpers import assert_close, compile_quickly, count_compiles, library, quotient


T, B = 5, 4
XS = np.linspace(0.3, 1.9, T * B * 3).reshape(T, B, 3)
LENGTHS = np.array([3, 0, 5, 1])
TOTAL = int(LENGTHS.sum())
NAN = np.where((np.arange(T)[:, None] < LENGTHS)[..., None], XS, np.nan)
STARTS = [0, 3, 8]  # of the rows that have a step


def concatenated(xs, lengths=LENGTHS):
    return np.concatenate([xs[:n, b] for b, n in enumerate(lengths)])


def tree(xs):
    return {"x": xs, "n": [(100 * xs[..., 0]).astype(np.int32)]}


def test_pack_concatenates_and_unpack_pads():
    packed = pack(tree(XS), LENGTHS)
    assert_close(packed.xs, jax.tree.map(concatenated, tree(XS)), rtol=0, atol=0)
    assert np.flatnonzero(packed.resets).tolist() == STARTS and packed.resets.dtype == bool
    assert packed.lengths.tolist() == LENGTHS.tolist() and int(packed.n_valid) == TOTAL
    zeroed = jax.tree.map(lambda leaf: np.where(np.isnan(NAN).any(-1).reshape(T, B, *(1,) * (leaf.ndim - 2)), 0, leaf),
                          tree(XS))  # fmt: skip
    assert_close(unpack(packed.xs, packed.lengths), zeroed, rtol=0, atol=0)
    longer = unpack(packed.xs["x"], LENGTHS, 7)
    assert longer.shape == (7, B, 3) and np.array_equal(longer[:T], zeroed["x"]) and not np.any(longer[T:])


def test_time_on_another_axis_and_more_batch_axes():
    xs, lengths = XS.reshape(T, 2, 2, 3), LENGTHS.reshape(2, 2)
    packed = pack(np.moveaxis(xs, 0, 2), lengths, time_axis=2)
    assert np.array_equal(packed.xs, concatenated(XS)) and np.array_equal(packed.lengths, lengths)
    back = unpack(packed.xs, lengths, time_axis=2)
    assert np.array_equal(np.moveaxis(back, 2, 0).reshape(T, B, 3), unpack(packed.xs, LENGTHS))
    one = pack(XS[:, 0], 3)  # one row, no batch axes
    assert np.array_equal(one.xs, XS[:3, 0]) and one.resets.tolist() == [True, False, False]
    assert np.array_equal(unpack(one.xs, 3, 4), [*XS[:3, 0], np.zeros(3)])


@pytest.mark.parametrize("total", [TOTAL, TOTAL + 3])
def test_a_fixed_total(total):
    """Traced lengths need a size; what is over is zeros behind a boundary of its own."""
    got = jax.jit(lambda xs, lengths: pack(xs, lengths, total=total))(NAN, LENGTHS)
    want = pack(XS, LENGTHS)
    boundaries = STARTS + [TOTAL] * (total > TOTAL)
    assert np.flatnonzero(got.resets).tolist() == boundaries
    assert np.array_equal(got.xs, np.concatenate([want.xs, np.zeros((total - TOTAL, 3))]))
    assert int(got.n_valid) == TOTAL and np.array_equal(got.lengths, LENGTHS)
    assert_close(pack(XS, LENGTHS, total=total), got)
    back = jax.jit(lambda ys, lengths: unpack(ys, lengths, T))(got.xs, got.lengths)
    assert np.array_equal(back, unpack(want.xs, LENGTHS))
    assert np.array_equal(unpack(got.xs, LENGTHS, total=total), back)


def test_what_traced_lengths_mean():
    """Clipped to [0, T]; steps past `total` are left out, and `lengths` says so."""
    packed = jax.jit(lambda lengths: pack(XS, lengths, total=7))(np.array([9, -2, 4, 3]))
    assert packed.lengths.tolist() == [5, 0, 2, 0] and int(packed.n_valid) == 7
    assert np.array_equal(packed.xs, concatenated(XS, [5, 0, 2, 0]))
    assert np.flatnonzero(packed.resets).tolist() == [0, 5]
    cut = jax.jit(lambda lengths: unpack(packed.xs, lengths, 3))(packed.lengths)
    assert np.array_equal(cut, np.where((np.arange(3)[:, None] < np.asarray(packed.lengths))[..., None], XS[:3], 0))


def total_up(p, c, x):
    c = p * c + jnp.sum(x)
    return c, c


@pytest.mark.parametrize(
    "shape, total, jit",
    [((0, 3, 2), 0, True), ((5, 0, 2), 4, True), ((5, 3, 2), 0, True), ((5, 3, 2), 4, True), ((0, 3, 2), 0, False)],
    ids=str,
)
def test_nothing_to_pack(shape, total, jit):
    """T = 0, B = 0, all rows empty, with room left over or without; a scan over it returns its first carry."""
    lengths = np.zeros(shape[1], int)
    with jax.disable_jit(not jit):
        packed = pack(np.full(shape, np.nan), lengths, total=total)
        carry, ys = rs.scan(total_up, 0.5, jnp.asarray(0.7), packed.xs, resets=packed.resets, lengths=packed.n_valid)
        padded = unpack(ys, packed.lengths, shape[0], total=total)
    assert np.array_equal(packed.xs, np.zeros((total, 2))) and int(packed.n_valid) == 0
    assert_close((carry, padded), (np.float64(0.7), np.zeros(shape[:2])))


CASES = [library(rs.cells.LSTM(3, 4)), library(rs.cells.Elman(3, 2))]


def stateful(cell):
    """The cell, with its carry as a second output: what gives each row its own last carry."""

    def step(params, carry, x):
        carry, y = cell(params, carry, x)
        return carry, (y, carry)

    return step


def one_by_one(cell, params, start, xs, reverse):
    """Each row alone: outputs padded with zeros, and the carry after its last step; the start for an empty row."""
    rows = [rs.scan(cell, params, start, xs[:n, b], reverse=reverse, method="reference") for b, n in enumerate(LENGTHS)]
    carries = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(carry for carry, _ in rows))
    return carries, jnp.stack([jnp.pad(ys, [(0, T - len(ys)), *[(0, 0)] * (ys.ndim - 1)]) for _, ys in rows], axis=1)


def uneven(carries, ys):
    """A loss in which every step, row and unit counts differently."""
    leaves = [*jax.tree.leaves(carries), ys]
    return sum(jnp.sum(jnp.cos(leaf) * jnp.linspace(0.3, 1.7, leaf.size).reshape(leaf.shape)) for leaf in leaves)


def both(packed_rows, alone, arguments):
    """Values and all gradients of packed rows with NaN as padding, and of the rows alone."""

    def run(arguments, *sequences):
        results = []
        for rows, xs in zip((packed_rows, alone), sequences, strict=True):
            loss = lambda arguments, xs: (uneven(*rows(*arguments, xs)), rows(*arguments, xs))  # noqa: B023
            results.append(jax.value_and_grad(loss, (0, 1), has_aux=True)(arguments, xs))
        return results

    return compile_quickly(run)(arguments, NAN, XS)


@pytest.mark.parametrize(
    "case, reverse, total",
    [(CASES[0], False, None), (CASES[0], True, TOTAL + 2), (CASES[1], False, TOTAL + 2), (CASES[1], True, None)],
    ids=str,
)
def test_a_scan_over_packed_rows_equals_the_rows_one_by_one(case, reverse, total, key):
    """Outputs, each row's own last carry, and gradients; with NaN as padding."""
    params = case.params(key)
    start = jax.tree.map(lambda leaf: leaf + 0.4, case.cell.initial_carry(dtype=jnp.float64))
    step = stateful(case.cell)

    def packed_rows(params, start, xs):
        packed = pack(xs, LENGTHS, total=total)
        options = {} if total is None else {"lengths": packed.n_valid}
        _, out = rs.scan(step, params, start, packed.xs, resets=packed.resets, reverse=reverse, **options)
        ys, states = unpack(out, packed.lengths, T, total=total)
        last = jax.tree.map(lambda leaf: leaf[0], states) if reverse else last_valid(states, packed.lengths)
        empty = (packed.lengths == 0)[:, None]
        return jax.tree.map(lambda leaf, first: jnp.where(empty, first, leaf), last, start), ys

    alone = lambda *arguments: one_by_one(case.cell, *arguments, reverse)
    assert_close(*both(packed_rows, alone, (params, start)))


@pytest.mark.parametrize("reverse", [False, True])
def test_resets_alone_keep_padding_at_the_end_from_the_rows(reverse):
    """Without `lengths=`, the steps that `total` left over run as a row of their own."""
    packed = pack(XS, LENGTHS, total=TOTAL + 2)
    _, ys = rs.scan(total_up, 0.5, jnp.asarray(0.7), packed.xs, resets=packed.resets, reverse=reverse)
    want = one_by_one(total_up, 0.5, jnp.asarray(0.7), XS, reverse)[1]
    assert_close(unpack(ys, LENGTHS, T, total=TOTAL + 2), want)


def test_a_bidirectional_scan_over_packed_rows_equals_the_padded_one(key):
    cells, params = (rs.cells.LSTM(3, 4), rs.cells.Elman(3, 2)), tuple(case.params(key) for case in CASES)

    def packed_rows(params, xs):
        packed = pack(xs, LENGTHS)
        return (), unpack(rs.bidirectional(*cells, params, None, packed.xs, resets=packed.resets)[1], LENGTHS, T)

    def alone(params, xs):
        starts = [cell.initial_carry(dtype=jnp.float64) for cell in cells]
        ys = [one_by_one(cells[i], params[i], starts[i], xs, reverse=bool(i))[1] for i in (0, 1)]
        return (), jnp.concatenate(ys, axis=-1)

    assert_close(*both(packed_rows, alone, (params,)))


def test_a_singular_cell_in_a_fixed_total():
    """`p / (x - h)`, whose zeros as padding would give infinities: `lengths=packed.n_valid` keeps them out."""
    xs = XS[..., 0] + 1.2

    def loss(p, xs):
        packed = pack(xs, LENGTHS, total=TOTAL + 4)
        _, ys = rs.scan(quotient, p, jnp.asarray(0.0), packed.xs, resets=packed.resets, lengths=packed.n_valid)
        return jnp.sum(jnp.cos(unpack(ys, LENGTHS, T, total=TOTAL + 4)))

    def by_row(p, xs):
        ys = [rs.scan(quotient, p, jnp.asarray(0.0), xs[:n, b], method="reference")[1] for b, n in enumerate(LENGTHS)]
        return jnp.sum(jnp.cos(jnp.concatenate(ys))) + T * B - TOTAL  # cos(0) of the padding

    run = compile_quickly(lambda p, xs: [jax.value_and_grad(f, (0, 1))(p, xs) for f in (loss, by_row)])
    assert_close(*run(jnp.asarray(0.3), xs))


def test_a_second_call_compiles_nothing():
    xs, lengths = XS.astype(np.float32), [2, 2, 5, 0]

    def calls():
        packed = pack(xs, lengths)
        return unpack(packed.xs, lengths, T), last_valid(xs, lengths), flip_valid(xs, lengths)

    calls()
    with count_compiles() as compiled:
        calls()
    assert not compiled

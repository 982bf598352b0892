"""Odd input that must work, and the warnings: values asserted against NumPy. Row numbers as in test_bad_input.py."""

import warnings
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import rnnscan as rs
from rnnscan import _precision
from tests.faults import XS, H
from tests.helpers import count_compiles


SERIES = np.array([0.5, 1.5, 2.5])
ELMAN = rs.cells.Elman(3, 4)
PARAMS = ELMAN.init(jax.random.key(0), jnp.float64)
CARRY = np.linspace(-0.5, 0.5, 8).reshape(2, 4)


def add(params, s, x):
    return s + x, s


def scale(params, h, x):
    h = jnp.tanh(params * h + x)
    return h, h


def elman_in_numpy(h, xs):
    w_x, w_h, b = (np.asarray(PARAMS[name]) for name in ("w_x", "w_h", "b"))
    for x in xs:
        h = np.tanh(x @ w_x + h @ w_h + b)
    return h


def test_C3_a_python_int_is_promoted_to_what_the_step_returns():
    carry, ys = rs.scan(add, None, 0, SERIES)
    assert (carry, carry.dtype, ys.dtype) == (4.5, jnp.float64, jnp.float64)
    assert_array_equal(ys, [0.0, 0.5, 2.0])


def test_C4_python_ints_that_depend_on_each_other_are_promoted_until_nothing_changes():
    (a, b, c), _ = rs.scan(lambda p, s, x: ((s[1], s[2], s[0] + x), None), None, (0, 0, 0), SERIES)
    assert (a, b, c) == (0.5, 1.5, 2.5)
    assert {leaf.dtype for leaf in (a, b, c)} == {jnp.dtype("float64")}


def test_C10_a_list_of_two_is_a_pair():
    carry, ys = rs.scan(lambda p, s, x: [s + x, s], None, 0.0, SERIES)
    assert carry == 4.5
    assert_array_equal(ys, [0.0, 0.5, 2.0])


def test_C12_no_output():
    carry, ys = rs.scan(lambda p, s, x: (s + x, None), None, 0.0, SERIES)
    assert (carry, ys) == (4.5, None)


def test_C17_an_error_of_a_callback_reaches_the_caller():
    def look_up(x):
        raise LookupError("no such word")

    def cell(params, carry, x):
        return carry, jax.pure_callback(look_up, jax.ShapeDtypeStruct((), x.dtype), x)

    with pytest.raises(jax.errors.JaxRuntimeError, match="no such word"):
        jax.block_until_ready(rs.scan(cell, None, None, SERIES))


@pytest.mark.parametrize(
    "dtype, most, words",
    [
        ("bfloat16", 256, "stop growing at 256. Keep the carry wider, `carry_dtype=jnp.float32`"),
        ("float16", 2048, "stop growing"),
        ("int8", 127, "wrap around at 127. Start from a wider dtype, jnp.int32"),
    ],
)
def test_C21_low_precision_carries_warn_once_for_each_dtype(dtype, most, words, monkeypatch):
    monkeypatch.setattr(_precision, "_low_precision_told", set())
    step = lambda p, c, x: ({"n": c["n"] + jnp.ones((), dtype)}, None)
    carry = {"n": jnp.zeros((), dtype)}
    count = lambda n_steps: jax.eval_shape(lambda: rs.scan(step, None, carry, n_steps=n_steps))
    count(most)  # not yet
    said = rf"`carry\['n'\]` is {dtype} and T = {most + 1} > {most}: sums of ones {words}"
    with pytest.warns(UserWarning, match=said):
        count(most + 1)
    count(most + 2)  # said already; a second warning would be an error


def test_C22_arrays_given_can_be_used_again():
    carry, xs = jnp.asarray(H), jnp.asarray(XS)
    first, second = (rs.scan(add, None, carry, xs)[0] for _ in range(2))
    assert_array_equal(first, second)
    assert_allclose(first, XS.sum(0), rtol=1e-14)
    assert not carry.is_deleted() and not xs.is_deleted()


def test_S6_n_steps_cuts_from_the_end_whichever_way_the_scan_runs():
    carry, ys = rs.scan(add, None, 0.0, SERIES, n_steps=2, reverse=True)
    assert carry == 2.0
    assert_array_equal(ys, [1.5, 0.0])


@pytest.mark.parametrize("without_jit", [False, True])
@pytest.mark.parametrize("method", ["sequential", "unrolled", "reference"])
def test_S11_M8_no_steps_and_no_jit(method, without_jit):
    def loss(params, n_steps):
        carry, ys = rs.scan(ELMAN, params, CARRY, XS[:n_steps], lengths=np.array([n_steps, 0]), method=method)
        return jnp.sum(carry[0]) + jnp.sum(ys), (carry, ys)

    with jax.disable_jit(without_jit):
        gradient, (carry, ys) = jax.grad(loss, has_aux=True)(PARAMS, 0)
        _, (carry_3, _) = loss(PARAMS, 3)
    assert_array_equal(carry, CARRY)
    assert (ys.shape, ys.dtype) == ((0, 2, 4), jnp.float64)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradient))
    assert_allclose(carry_3[0], elman_in_numpy(CARRY[0], XS[:3, 0]), rtol=1e-12)
    assert_array_equal(carry_3[1], CARRY[1])


def test_S12_no_rows():
    carry, ys = rs.scan(ELMAN, PARAMS, None, XS[:, :0], lengths=[])
    assert (carry.shape, ys.shape, carry.dtype) == ((0, 4), (5, 0, 4), jnp.float64)


def test_S14_whole_numbers_are_input_for_a_function():
    table = np.array([0.1, 0.2, 0.4])
    carry, _ = rs.scan(lambda p, s, token: (s + p[token], None), table, 0.0, np.array([2, 0, 2], np.uint8))
    assert_allclose(carry, 0.9, rtol=1e-15)


def test_S16_float64_numbers_without_x64_are_float32_throughout():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        carry, ys = rs.scan(ELMAN, ELMAN.init(jax.random.key(0)), None, XS)
        summed, _ = rs.scan(add, None, np.float64(0), SERIES)
        with pytest.raises(rs.LengthError, match=r"`lengths\[0\]` = 4294967299 exceeds T = 5"):
            rs.scan(ELMAN, PARAMS, None, XS, lengths=np.array([2**32 + 3, 2]))
    assert (carry.dtype, ys.dtype, summed.dtype) == (jnp.float32,) * 3
    assert summed == 4.5


@pytest.mark.parametrize("promotion", ["strict", "standard"])
def test_C5_strong_dtypes_are_promoted_in_neither_mode(promotion):
    with jax.numpy_dtype_promotion(promotion):
        step = add if promotion == "standard" else lambda p, s, x: (s.astype(x.dtype) + x, s)
        with pytest.raises(rs.CarryError, match="`carry` is int32 but the cell returns float64"):
            rs.scan(step, None, jnp.int32(0), SERIES)


@pytest.mark.parametrize("reverse", [False, True])
def test_L1_N2_N3_length_0_and_bad_numbers_in_padding(reverse):
    lengths, padded = np.array([0, 3]), XS.copy()
    padded[:, 0], padded[3:, 1] = np.nan, np.inf

    def loss(params, carry, xs, **options):
        carry, ys = rs.scan(ELMAN, params, carry, xs, reverse=reverse, **options)
        return jnp.sum(jnp.cos(carry)), (carry, ys)

    gradient, (carry, ys) = jax.grad(loss, (0, 1), has_aux=True)(PARAMS, CARRY, padded, lengths=lengths)
    valid = XS[:3, 1][::-1] if reverse else XS[:3, 1]
    assert_array_equal(carry[0], CARRY[0])
    assert_allclose(carry[1], elman_in_numpy(CARRY[1], valid), rtol=1e-12)
    assert_array_equal(ys[:, 0], 0.0)
    assert_array_equal(ys[3:, 1], 0.0)
    trimmed, _ = jax.grad(loss, (0, 1), has_aux=True)(PARAMS, CARRY[1], XS[:3, 1], method="reference")
    for name in PARAMS:
        assert_allclose(gradient[0][name], trimmed[0][name], rtol=1e-10)
    assert_allclose(gradient[1], [-np.sin(CARRY[0]), trimmed[1]], rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_L2_L3_traced_lengths_clip_and_small_types_hold_long_sequences(dtype):
    count = jax.jit(lambda lengths: rs.scan(add, None, np.zeros(3), np.ones((150, 3)), lengths=lengths)[0])
    given = np.array([100, 0, 127], dtype) if dtype != np.int64 else np.array([-3, 149, 2**40])
    assert_array_equal(count(given), np.clip(given, 0, 150))


def test_L4_lengths_come_as_lists_of_anything_whole():
    want = [1.5, 2.0]  # sums of the first 3 and 4 halves
    xs = np.full((5, 2), 0.5)
    for lengths in ([3, 4], (np.int8(3), jnp.asarray(4)), np.array([3, 4], np.uint64), jnp.array([3, 4])):
        assert_array_equal(rs.scan(add, None, np.zeros(2), xs, lengths=lengths)[0], want)
    traced = jax.jit(lambda n: rs.scan(add, None, np.zeros(2), xs, lengths=[n, 4])[0])
    assert_array_equal(traced(3), want)


def test_L5_one_number_is_the_length_of_every_row():
    carry, ys = rs.scan(add, None, np.zeros(2), np.full((5, 2), 0.5), lengths=3)
    assert_array_equal(carry, [1.5, 1.5])
    assert_array_equal(ys[:, 1], [0.0, 0.5, 1.0, 0.0, 0.0])


@pytest.mark.parametrize("time_axis", [0, 1])
def test_K5_outputs_and_carry_are_masked_each_by_its_own_shape(time_axis):
    mask = np.array([[True, False], [False, True], [True, True]])
    xs = np.array([[0.5, 9.0], [9.0, 1.5], [2.5, 3.5]])
    step = lambda p, s, x: (s + x, jnp.stack([s, s + x, x], -1))
    if time_axis:
        mask, xs = mask.T.tolist(), xs.T
    carry, ys = rs.scan(step, None, np.zeros(2), xs, mask=mask, time_axis=time_axis)
    assert_array_equal(carry, [3.0, 5.0])
    rows = ys if time_axis else ys.swapaxes(0, 1)
    assert_array_equal(rows[0], [[0, 0.5, 0.5], [0, 0, 0], [0.5, 3, 2.5]])
    assert_array_equal(rows[1], [[0, 0, 0], [0, 1.5, 1.5], [1.5, 5, 3.5]])


def test_N1_a_bad_number_in_a_valid_step_is_not_hidden():
    carry, ys = rs.scan(add, None, 0.0, np.array([0.5, np.nan, 2.5]))
    assert np.isnan(carry)
    assert_array_equal(ys, [0.0, 0.5, np.nan])


def test_N6_an_exploding_recurrence_overflows_as_its_numbers_do():
    carry, ys = rs.scan(lambda p, s, x: (10.0 * s, s), None, 1.0, n_steps=400)
    assert carry == np.inf
    assert ys[100] == pytest.approx(1e100, rel=1e-12)


@pytest.mark.parametrize("unroll", [2, 7, True, np.int64(3)], ids=repr)
def test_M2_unroll_above_T_and_of_any_integer_type(unroll):
    assert_array_equal(rs.scan(add, None, 0.0, SERIES, unroll=unroll)[1], [0.0, 0.5, 2.0])


def closure(factor):
    return lambda params, s, x: (s + factor * x, None)


def test_M3_the_same_cell_compiles_once_and_fresh_closures_are_told_of():
    cell = closure(2.0)
    rs.scan(cell, None, 0.0, SERIES)
    with count_compiles() as compiles:
        total = rs.scan(cell, None, 0.0, SERIES)[0]
    assert not compiles
    assert total == 9.0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for factor in range(3, 9):
            rs.scan(closure(float(factor)), None, 0.0, SERIES)
        assert not told
        carry, _ = rs.scan(closure(10.0), None, 0.0, SERIES)  # the eighth
        rs.scan(closure(11.0), None, 0.0, SERIES)
    assert carry == 45.0
    assert [w.category for w in told] == [UserWarning]
    assert "has been compiled 8 times" in str(told[0].message)
    assert "Define the cell once, outside the loop" in str(told[0].message)


def test_M3_a_stack_of_many_closures_is_one_compilation_and_needs_no_warning():
    layer = lambda factor: rs.cell(lambda p, s, x: (s + factor * x, factor * x), initial_carry=jnp.zeros, x_ndim=0)
    stack = rs.wrap.Stack(*(layer(1.0 + i) for i in range(8)))
    carry, ys = rs.scan(stack, (None,) * 8, None, np.array([0.5, 0.25]))
    assert_array_equal(ys, [20160.0, 10080.0])  # 8! / 2, 8! / 4
    assert carry[2] == 4.5  # 3! (0.5 + 0.25)


@dataclass(frozen=True)
class Weighted:
    weights: Any

    def __call__(self, params, s, x):
        return s + self.weights[0] * x, None


def test_M4_a_cell_with_a_list_in_a_field_compiles_once_and_anew_when_the_list_changes():
    cell = Weighted([2.0])
    assert rs.scan(cell, None, 0.0, SERIES)[0] == 9.0
    with count_compiles() as compiles:
        total = rs.scan(cell, None, 0.0, SERIES)[0]
    assert not compiles
    assert total == 9.0
    cell.weights[0] = 4.0
    assert rs.scan(cell, None, 0.0, SERIES)[0] == 18.0


def test_M9_legacy_keys_draw_the_same_numbers():
    step = lambda p, c, x, rng: (c, x + jax.random.normal(rng.per_step(), x.shape, x.dtype))
    new, legacy, words = (
        rs.scan(step, None, None, SERIES, key=key)[1]
        for key in (jax.random.key(3), jax.random.PRNGKey(3), np.asarray(jax.random.PRNGKey(3)))
    )
    want = [x + jax.random.normal(jax.random.fold_in(jax.random.key(3), t), ()) for t, x in enumerate(SERIES)]
    assert_allclose(new, want, rtol=1e-15)
    assert_array_equal(legacy, new)
    assert_array_equal(words, new)

"""`compute_dtype`: products of rounded operands with wide sums, against NumPy with ml_dtypes' rounding."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.cells import GRU, LSTM, Elman, Linear
from rnnscan.cells.product import product
from tests.helpers import assert_close


IN, HIDDEN, ROWS = 3, 4, 2
CELLS = [Linear, Elman, LSTM, GRU]
BF16 = jnp.bfloat16


def rounded(a, dtype=ml_dtypes.bfloat16):
    """The numbers of `a` after rounding, in float64."""
    return np.asarray(a).astype(dtype).astype(np.float64)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def in_numpy(cell, p, carry, x):
    """One step in float64 with rounded operands of each product."""
    mm = lambda a, b: rounded(a, cell.compute_dtype) @ rounded(b, cell.compute_dtype)
    p, carry, x = jax.tree.map(lambda a: np.asarray(a, np.float64), (p, carry, x))
    if isinstance(cell, Linear):
        h = mm(carry, p["w_h"]) + mm(x, p["w_x"])
        return h, h
    if isinstance(cell, Elman):
        h = np.tanh(mm(x, p["w_x"]) + mm(carry, p["w_h"]) + p["b"] + p["b_h"])
        return h, h
    if isinstance(cell, LSTM):
        i, f, g, o = np.split(mm(x, p["w_x"]) + mm(carry[0], p["w_h"]) + p["b"], 4, axis=-1)
        c = sigmoid(f) * carry[1] + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return (h, c), h
    x_r, x_z, x_n = np.split(mm(x, p["w_x"]) + p["b"], 3, axis=-1)
    u_r, u_z, u_n = np.split(p["w_h"], 3, axis=-1)
    b_r, b_z, b_n = np.split(p["b_h"], 3) if cell.reset_after else (0, 0, 0)
    r, z = sigmoid(x_r + mm(carry, u_r) + b_r), sigmoid(x_z + mm(carry, u_z) + b_z)
    n = np.tanh(x_n + (r * (mm(carry, u_n) + b_n) if cell.reset_after else mm(r * carry, u_n)))
    h = (1 - z) * n + z * carry
    return h, h


def make(kind, dtype, compute_dtype=BF16, **settings):
    """A cell with its params, a carry and five steps of input, no entry zero and none a bfloat16 number."""
    settings |= {"double_bias": True} if kind is Elman else {}
    cell = kind(IN, HIDDEN, compute_dtype=compute_dtype, **settings)
    numbers = np.random.default_rng(3)

    def away(shape):  # float32 numbers: XLA rounds float64 to float16 by way of float32, NumPy at once
        values = numbers.uniform(0.2, 0.9, shape) * numbers.choice([-1, 1], shape)
        return jnp.asarray(values.astype(np.float32).astype(dtype))

    params = jax.tree.map(lambda leaf: away(leaf.shape), jax.eval_shape(cell.init, jax.random.key(0)))
    carry = jax.tree.map(lambda leaf: away(leaf.shape), jax.eval_shape(lambda: cell.initial_carry((ROWS,))))
    return cell, params, carry, away((5, ROWS, IN))


NARROW = [(Linear, BF16, {}), (Elman, BF16, {}), (LSTM, BF16, {}), (GRU, BF16, {}), (GRU, BF16, {"reset_after": False}),
          (LSTM, jnp.float16, {}), (GRU, jnp.float32, {})]  # fmt: skip


@pytest.mark.parametrize(("kind", "narrow", "settings"), NARROW)
def test_a_scan_in_float64_rounds_operands_and_nothing_else(kind, narrow, settings):
    cell, params, carry, xs = make(kind, jnp.float64, narrow, **settings)
    got = rs.scan(cell, params, carry, xs)
    ys = []
    for x in xs:
        carry, y = in_numpy(cell, params, carry, x)
        ys.append(y)
    assert_close(got, (carry, np.stack(ys)), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("kind", "settings"), [(kind, s) for kind, narrow, s in NARROW if narrow == BF16])
def test_a_step_in_float32_keeps_all_digits_outside_the_products(kind, settings):
    cell, params, carry, xs = make(kind, jnp.float32, **settings)
    got = cell(params, carry, xs[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
    eps = float(jnp.finfo(jnp.float32).eps)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=8 * eps, atol=8 * eps),
        got,
        in_numpy(cell, params, carry, xs[0]),
    )


@pytest.mark.parametrize("wide", [jnp.float32, jnp.float64], ids=["float32", "float64"])
def test_a_product_is_exact_for_rounded_operands(wide):
    """Operands in [0.5, 1) have 8 bits, their products 16, and a sum of 9 of these 20: no order of summing rounds."""
    numbers = np.random.default_rng(5)
    x, w, g = (jnp.asarray(numbers.uniform(0.5, 1, shape), wide) for shape in ((7, 9), (9, 5), (7, 5)))
    bits = np.asarray(rounded(g), wide)  # a cotangent of 8 bits too, so that its sums are exact before they are rounded
    y, transpose = jax.vjp(lambda x, w: product(x, w, jnp.dtype(BF16)), x, w)
    want = rounded(x) @ rounded(w)
    assert y.dtype == wide and np.array_equal(np.asarray(y, np.float64), want)
    assert not np.array_equal(want, rounded(want))  # the result itself is not rounded
    got_x, got_w = transpose(jnp.asarray(bits))
    assert got_x.dtype == got_w.dtype == wide
    np.testing.assert_array_equal(np.asarray(got_x, np.float64), rounded(bits.astype(np.float64) @ rounded(w).T))
    np.testing.assert_array_equal(np.asarray(got_w, np.float64), rounded(rounded(x).T @ bits.astype(np.float64)))


@pytest.mark.parametrize("kind", CELLS)
def test_gradients_have_the_dtype_of_params_and_nearly_the_values(kind):
    """Rounding moves each factor by at most 2^-9 of itself; some twenty of them in a row stay well below 0.1."""

    def loss(cell, params, carry, xs):
        return jnp.sum(jnp.cos(rs.scan(cell, params, carry, xs)[1]))

    found = {}
    for compute_dtype in (BF16, None):
        cell, *args = make(kind, jnp.float32, compute_dtype)
        found[compute_dtype] = jax.grad(loss, (1, 2, 3))(cell, *args)
    for got, want in zip(*map(jax.tree.leaves, found.values()), strict=True):
        assert got.dtype == want.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=0, atol=0.1 * float(jnp.abs(want).max()))
        assert not np.array_equal(got, want)


def test_forward_mode_jit_and_vmap_agree_with_plain_calls():
    cell, params, carry, xs = make(LSTM, jnp.float64)
    run = lambda params, xs: rs.scan(cell, params, carry, xs)[1]
    want = run(params, xs)
    assert_close(jax.jit(run)(params, xs), want)
    assert_close(jax.vmap(run, (None, 0))(params, jnp.stack([xs, xs[::-1]])), jnp.stack([want, run(params, xs[::-1])]))
    _, tangent = jax.jvp(lambda p: run(p, xs), (params,), (params,))
    assert tangent.dtype == jnp.float64 and float(jnp.abs(tangent).min()) > 0


@pytest.mark.parametrize("method", ["sequential", "unrolled", "reference"])
def test_a_wrapped_cell_computes_the_same_in_every_method(method):
    cell, params, _, xs = make(GRU, jnp.float64)
    stack = rs.wrap.Stack(cell, Linear(HIDDEN, IN, compute_dtype=BF16))
    both = (params, make(Linear, jnp.float64)[1] | {"w_x": jnp.ones((HIDDEN, IN)) / 3, "w_h": jnp.ones((IN, IN)) / 7})
    lengths = jnp.array([5, 3])
    got, ys = rs.scan(rs.wrap.Residual(stack), both, None, xs, lengths=lengths, method=method)
    first, second = jnp.zeros((ROWS, HIDDEN)), jnp.zeros((ROWS, IN))
    for t, x in enumerate(xs):
        keep = (t < lengths)[:, None]
        new_first, y = in_numpy(cell, both[0], first, x)
        new_second, y = in_numpy(stack.cells[1], both[1], second, y)
        first, second = jnp.where(keep, new_first, first), jnp.where(keep, new_second, second)
        np.testing.assert_allclose(ys[t], np.where(keep, x + y, 0), rtol=1e-12, atol=1e-13)
    assert_close(got, (first, second))


def test_without_it_a_product_is_one_dot_general():
    x, w = jnp.ones((2, 3)), jnp.ones((3, 4))
    plain, none, narrow = (
        str(jax.make_jaxpr(f)(x, w))
        for f in (lambda x, w: x @ w, product, lambda x, w: product(x, w, jnp.dtype("bfloat16")))
    )
    assert none == plain and plain.count("dot_general") == 1
    assert narrow.count("dot_general") == 1 and narrow.count("convert_element_type") == 2


def test_narrow_input_meets_wide_weights():
    """Under strict promotion as well: input kept in bfloat16 loses nothing that the product would have kept."""
    x, w = jnp.asarray([[0.3, 0.7]], jnp.bfloat16), jnp.asarray([[1.5], [0.4]], jnp.float32)
    got = product(x, w, jnp.dtype("bfloat16"))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, product(x.astype(jnp.float32), w, jnp.dtype("bfloat16")))


@pytest.mark.parametrize("kind", CELLS)
def test_the_setting_has_one_form(kind):
    forms = (BF16, "bfloat16", jnp.dtype("bfloat16"), jnp.zeros(1, BF16).dtype)
    cells = {kind(3, 4, compute_dtype=form) for form in forms}
    assert len(cells) == 1 and isinstance(cells.pop().compute_dtype, np.dtype)
    assert kind(3, 4).compute_dtype is None and kind(3, 4) != kind(3, 4, compute_dtype=BF16)
    with pytest.raises(TypeError, match=r"`compute_dtype` must be a floating dtype.* or None; got .*int32"):
        kind(3, 4, compute_dtype=jnp.int32)
    with pytest.raises(TypeError, match=r"`compute_dtype` must be a floating dtype.*; got 'bf17'"):
        kind(3, 4, compute_dtype="bf17")


@pytest.mark.parametrize(("narrow", "wide"), [("float32", "bfloat16"), ("float64", "float32"), ("float16", "bfloat16")])
def test_a_dtype_no_narrower_than_params_raises(narrow, wide):
    cell, params, _, xs = make(GRU, wide, narrow)
    with pytest.raises(TypeError, match=rf"compute_dtype={narrow}` is no narrower than {wide}.*`cell.init\(key, jnp.f"):
        rs.scan(cell, params, None, xs)


def test_the_dtype_of_params_changes_nothing():
    (cell, params, carry, xs), same = make(LSTM, jnp.float64, None), LSTM(IN, HIDDEN, compute_dtype="float64")
    assert_close(same(params, carry, xs[0]), cell(params, carry, xs[0]), rtol=0, atol=0)


def test_complex_params_raise():
    with pytest.raises(TypeError, match=r"real floating numbers; got complex128 @ complex128"):
        product(jnp.ones((2, 3), complex), jnp.ones((3, 4), complex), jnp.dtype("bfloat16"))

"""What `init` and `initial_carry` promise: orthogonal blocks, the forget bias, scale, dtypes and distinct numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnscan.cells import GRU, LSTM, Elman, Linear


CELLS = [Linear(3, 4), Elman(3, 4, double_bias=True), LSTM(3, 4), GRU(3, 4), GRU(3, 4, reset_after=False)]


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_every_recurrent_block_is_orthogonal_and_differs_from_the_others(cell, key):
    blocks = np.split(np.asarray(cell.init(key)["w_h"]), cell.init(key)["w_h"].shape[1] // 4, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(4), rtol=0, atol=1e-13)
    assert len({block.tobytes() for block in blocks}) == len(blocks)


@pytest.mark.parametrize("forget_bias", [1.0, -0.5])
def test_the_forget_bias_fills_the_f_block_only(forget_bias, key):
    b = LSTM(3, 4, forget_bias=forget_bias).init(key)["b"]
    np.testing.assert_array_equal(b.reshape(4, 4), [[0] * 4, [forget_bias] * 4, [0] * 4, [0] * 4])


def test_the_forget_bias_is_not_added_in_the_step(key):
    params, x = LSTM(3, 4).init(key), jnp.asarray([0.3, -0.2, 0.9])
    carry = (jnp.full(4, 0.2), jnp.full(4, -0.7))
    a, b = (LSTM(3, 4, forget_bias=bias)(params, carry, x)[1] for bias in (1.0, 5.0))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cell", CELLS[:-2], ids=repr)
def test_all_other_biases_start_at_zero(cell, key):
    for name, leaf in cell.init(key).items():
        if name in ("b", "b_h") and not isinstance(cell, LSTM):
            assert not leaf.any()


def test_input_weights_have_variance_one_over_in_size(key):
    w_x = np.asarray(LSTM(50, 100).init(key)["w_x"]).ravel()
    # 20,000 numbers: the standard error of a sample variance is below variance * sqrt(2 / n) for short tails
    assert abs(w_x.var() * 50 - 1) < 5 * np.sqrt(2 / w_x.size)
    assert abs(w_x.mean()) < 5 * np.sqrt(1 / 50 / w_x.size)


@pytest.mark.parametrize("dtype", [None, jnp.float64, jnp.float32, jnp.bfloat16], ids=str)
@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_dtypes_follow_the_argument_then_params_then_jax(cell, dtype, key):
    expected = {jnp.dtype(dtype or jnp.float64)}  # the tests run with float64 as JAX's default
    params = cell.init(key, dtype)
    carries = [cell.initial_carry((2,), dtype), cell.initial_carry((2,), params=params)]
    assert {leaf.dtype for leaf in jax.tree.leaves([params, carries])} == expected
    assert {leaf.shape for leaf in jax.tree.leaves(carries)} == {(2, 4)}
    assert not any(leaf.any() for leaf in jax.tree.leaves(carries))


def test_a_dtype_argument_outranks_params(key):
    carry = LSTM(3, 4).initial_carry((), jnp.bfloat16, params=LSTM(3, 4).init(key, jnp.float32))
    assert {leaf.dtype for leaf in carry} == {jnp.dtype(jnp.bfloat16)}


def test_half_precision_weights_are_the_float32_ones_rounded(key):
    w, half = (GRU(3, 4).init(key, dtype)["w_h"] for dtype in (jnp.float32, jnp.bfloat16))
    np.testing.assert_array_equal(np.asarray(half, np.float32), np.asarray(w.astype(jnp.bfloat16), np.float32))


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_the_key_decides_and_w_x_and_w_h_use_different_ones(cell, key):
    a, b, c = cell.init(key), cell.init(key), cell.init(jax.random.key(1))
    assert all(jax.tree.leaves(jax.tree.map(lambda u, v: (u == v).all(), a, b)))
    assert not (a["w_x"] == c["w_x"]).any() and not (a["w_h"] == c["w_h"]).any()


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_a_dtype_that_is_not_floating_is_refused(cell, key):
    with pytest.raises(TypeError, match=r"floating numbers; got dtype int32.*jnp.float32"):
        cell.init(key, jnp.int32)
    with pytest.raises(TypeError, match=r"floating numbers; got dtype complex128"):
        cell.initial_carry((2,), jnp.complex128)

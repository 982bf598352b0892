"""`carry_dtype`: products in a narrow type, sums in a wide one; nothing is cast unless asked for."""

import jax
import jax.numpy as jnp
import pytest

import rnnscan as rs
from rnnscan._options import METHODS
from tests.helpers import assert_close


BF16 = jnp.bfloat16


def total(params, h, x):
    return {"sum": h["sum"] + x.astype(h["sum"].dtype), "n": h["n"] + 1}, h["sum"]


@pytest.mark.parametrize("method", METHODS)
def test_ones_are_counted_in_the_dtype_asked_for(method):
    steps = 200 if method == "sequential" else 20  # few enough that no warning of low precision comes
    xs, start = jnp.full(steps, 5, BF16), {"sum": jnp.zeros((), BF16), "n": jnp.zeros((), jnp.int32)}
    carry, ys = rs.scan(total, None, start, xs, carry_dtype=jnp.float32, method=method)
    assert_close(carry, {"sum": jnp.float32(5 * steps), "n": jnp.int32(steps)})  # the integer leaf keeps its type
    assert ys.dtype == jnp.float32 and ys[-1] == 5 * (steps - 1)
    if method == "sequential":  # without it the sum stops where bfloat16 has no next number
        assert rs.scan(total, None, start, xs)[0]["sum"] < 5 * steps


def narrow(params, h, x):
    """Computes and returns bfloat16 whatever it gets, as a Flax cell with `dtype=bfloat16` does."""
    h = jnp.tanh(x @ params["w"] + h.astype(BF16) @ params["u"])
    return h, h


def test_a_cell_that_returns_another_dtype():
    key = jax.random.key(0)
    params = {"w": jax.random.normal(key, (3, 4), BF16), "u": jax.random.normal(key, (4, 4), BF16)}
    xs, start = jax.random.normal(key, (5, 2, 3), BF16), jnp.full((2, 4), 0.5, jnp.float32)
    with pytest.raises(rs.CarryError, match=r"`carry` is float32.*returns bfloat16.*carry_dtype=jnp.float32"):
        rs.scan(narrow, params, start, xs)
    carry, ys = rs.scan(narrow, params, start, xs, carry_dtype=jnp.float32)
    assert carry.dtype == jnp.float32 and ys.dtype == BF16
    want = start
    for x in xs:
        want = narrow(params, want, x)[0].astype(jnp.float32)
    assert_close(carry, want, rtol=2e-2)  # both round to bfloat16, of 8 bits, in their own order


def test_resets_and_pieces_start_in_that_dtype():
    xs = jnp.full(4, 1.0, BF16)
    cell = lambda p, h, x: (h + x.astype(h.dtype), h)
    resets = jnp.array([False, False, True, False])
    options = {"carry_dtype": jnp.float64}
    got = rs.scan(cell, None, jnp.zeros((), BF16), xs, resets=resets, reset_carry=jnp.ones((), BF16), **options)
    assert_close(got, (jnp.array(3.0), jnp.array([0.0, 1, 1, 2])))
    chunks = [xs[:2], rs.Chunk(xs[2:], resets=resets[2:])]
    parts = list(rs.scan_chunks(cell, None, jnp.zeros((), BF16), chunks, reset_carry=jnp.ones((), BF16), **options))
    assert_close(parts[1], (jnp.array(3.0), jnp.array([1.0, 2])))


@pytest.mark.parametrize("wrong", [jnp.int32, "quick", 3, jnp.complex64])
def test_anything_but_a_floating_dtype_raises(wrong):
    with pytest.raises(TypeError, match="`carry_dtype` must be a floating dtype"):
        rs.scan(total, None, {"sum": 0.0, "n": 0}, jnp.ones(3), carry_dtype=wrong)


def test_a_chain_of_weak_leaves_is_promoted_to_a_fixpoint():
    """jax issue 9046: each leaf takes the dtype of the next, so that a float moves one place with each trace.

    `lax.scan` promotes twice and then refuses the carry.
    """
    chain = lambda p, c, x: ((*c[1:], x), c[0])
    for depth in (2, 5, 9):
        carry, ys = rs.scan(chain, None, (0,) * depth, jnp.arange(1.0, 12.0))
        assert [leaf.dtype for leaf in carry] == [jnp.float64] * depth
        assert_close((carry, ys), (tuple(jnp.arange(12.0 - depth, 12.0)), jnp.maximum(jnp.arange(11.0) + 1 - depth, 0)))
    with pytest.raises(TypeError):
        jax.lax.scan(lambda c, x: chain(None, c, x), (0,) * 5, jnp.arange(1.0, 12.0))

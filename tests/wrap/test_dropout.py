"""Laws of `Dropout`: what is dropped, how often, by how much, and which masks are the same."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnscan._types import Rng, rng_use
from rnnscan.cells import GRU, LSTM
from rnnscan.wrap import Dropout


def copy(params, carry, x):
    """Shows what a cell inside sees: the carry passes unchanged, and the output is the input."""
    return carry, x


def see(params, carry, x):
    """Puts out the carry as it enters the step."""
    return carry, jax.tree.map(lambda leaf: leaf + 0, carry)


def draw(cell, carry, x, key, t=0):
    return jax.jit(lambda key, t: cell(None, carry, x, Rng(key, t)))(key, jnp.asarray(t))


ONES = jnp.ones((3, 7))


@pytest.mark.parametrize("where", ["input", "output"])
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_a_kept_number_is_scaled_and_the_share_of_zeros_is_the_rate(where, rate, key):
    n = 40_000
    _, y = draw(Dropout(copy, **{where: rate}), None, jnp.full((n,), 3.0), key)
    values = np.unique(np.asarray(y))
    np.testing.assert_allclose(values, [0, 3 / (1 - rate)], rtol=1e-15)
    assert abs(float((y == 0).mean()) - rate) < 5 * np.sqrt(rate * (1 - rate) / n)  # five standard deviations


@pytest.mark.parametrize("per", ["step", "sequence"])
@pytest.mark.parametrize("where", ["input", "output", "state"])
def test_the_expectation_over_keys_is_the_value_without_dropout(where, per):
    n, rate = 4000, 0.3
    cell = Dropout(see if where == "state" else copy, per=per, **{where: rate})
    value = jnp.asarray([[1.0, -2.0, 0.5]])
    keys = jax.random.split(jax.random.key(3), n)
    ys = jax.jit(jax.vmap(lambda k: cell(None, value, value, Rng(k, jnp.asarray(5)))[1]))(keys)
    # a number v is 0 or v / (1 - rate): standard deviation |v| sqrt(rate / (1 - rate)); five of the mean's
    bound = 5 * np.abs(value) * np.sqrt(rate / (1 - rate) / n)
    assert (np.abs(np.asarray(ys.mean(0)) - value) < bound).all()


@pytest.mark.parametrize("per", ["step", "sequence"])
def test_rate_zero_draws_nothing_and_rate_one_drops_everything(per, key):
    none, everything = Dropout(see, per=per), Dropout(see, 1.0, 1, True, per=per)
    assert rng_use(none) == "never" and rng_use(everything) == "required"
    assert "random_bits" not in str(jax.make_jaxpr(lambda k: everything(None, ONES, ONES, Rng(k, 0)))(key))
    np.testing.assert_array_equal(none(None, ONES, ONES)[1], ONES)
    x = jnp.full((3, 7), jnp.nan)  # zero times NaN would be NaN
    carry, y = draw(everything, x, x, key)
    np.testing.assert_array_equal(y, jnp.zeros((3, 7)))
    grad = jax.grad(lambda x: Dropout(copy, 1.0)(None, None, x, Rng(key, 0))[1].sum())(ONES)
    np.testing.assert_array_equal(grad, jnp.zeros((3, 7)))


def test_masks_per_step_differ_in_time_and_those_per_sequence_do_not(key):
    wide = jnp.ones((2, 50))
    for per, same in (("step", False), ("sequence", True)):
        cell = Dropout(see, output=0.5, state=0.5, per=per)
        ys = [np.asarray(draw(cell, wide, wide, key, t)[1]) for t in range(3)]
        assert all(np.array_equal(a, b) is same for a, b in itertools.combinations(ys, 2))
        assert not np.array_equal(ys[0][0], ys[0][1])  # the rows of a batch differ
        other = np.asarray(draw(cell, wide, wide, jax.random.key(9), 0)[1])
        assert not np.array_equal(ys[0], other)


@pytest.mark.parametrize("per", ["step", "sequence"])
def test_input_output_and_state_masks_are_independent(per, key):
    n, rate = 10_000, 0.5

    def both(params, carry, x):
        return carry, jnp.stack([x, carry, jnp.ones_like(x)])

    ones = jnp.ones(n)
    _, y = draw(Dropout(both, input=rate, state=rate, per=per), ones, ones, key)
    _, z = draw(Dropout(copy, output=rate, per=per), None, ones, key)
    masks = [np.asarray(mask) == 0 for mask in (y[0], y[1], z)]
    for a, b in itertools.combinations(masks, 2):
        # both zero with probability 1/4 if independent; five standard deviations
        assert abs((a & b).mean() - rate**2) < 5 * np.sqrt(rate**2 * (1 - rate**2) / n)


def test_leaves_of_one_tree_have_masks_of_their_own(key):
    wide = jnp.ones(1000)
    _, y = draw(Dropout(copy, input=0.5), None, {"a": wide, "b": wide}, key)
    assert 400 < int((y["a"] == y["b"]).sum()) < 600


def test_nested_dropouts_draw_different_masks(key):
    wide = jnp.ones(1000)
    _, y = draw(Dropout(Dropout(copy, input=0.5), input=0.5), None, wide, key)
    # a second, equal mask would leave half of the numbers; independent ones leave a quarter: five deviations are 68
    assert abs(int((y != 0).sum()) - 250) < 68


def test_state_dropout_drops_h_on_entering_and_spares_the_memory(key):
    cell = Dropout(LSTM(3, 40), state=0.5)
    assert cell.recurrent == (True, False)
    params = jax.tree.map(lambda a: a + 0.1, LSTM(3, 40).init(key))
    h, c, x = jnp.full((2, 40), 0.3), jnp.full((2, 40), -0.6), jnp.ones((2, 3))
    got = cell(params, (h, c), x, Rng(key, jnp.asarray(2)))
    # the mask that the step must have used, seen through a cell that shows its carry
    _, mask = Dropout(see, state=0.5)(None, (jnp.ones((2, 40)), c), x, Rng(key, jnp.asarray(2)))
    want = LSTM(3, 40)(params, (h * mask[0], c), x)
    assert 0 < float((mask[0] == 0).mean()) < 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), got, want)
    # what is returned is whole: h of the next step has no zeros
    assert (got[0][0] != 0).all() and (got[0][1] != 0).all()


def test_state_dropout_leaves_integers_of_the_carry_alone(key):
    carry, (k, h) = draw(Dropout(see, state=1.0), (jnp.asarray(4), ONES), ONES, key)
    assert int(k) == 4 and not h.any()


def test_noise_does_not_depend_on_the_carry(key):
    """So that scan can draw the masks of all steps before the loop: the same mask whatever the carry holds."""
    cell = Dropout(see, state=0.5)
    a, b = (np.asarray(draw(cell, value * ONES, ONES, key)[1]) == 0 for value in (1.0, -3.0))
    np.testing.assert_array_equal(a, b)


def test_it_is_transparent(key):
    inner, outer = GRU(3, 4), Dropout(GRU(3, 4), 0.1, 0.2, 0.3)
    same = jax.tree.map(
        np.array_equal, (outer.init(key), outer.initial_carry((2,))), (inner.init(key), inner.initial_carry((2,)))
    )
    assert all(jax.tree.leaves(same))
    assert (outer.in_size, outer.out_size, outer.x_ndim, outer.float_input, outer.recurrent) == (3, 4, 1, True, True)
    assert Dropout(copy, input=0.1).float_input and not Dropout(copy, output=0.1).float_input
    assert outer == Dropout(inner, np.float64(0.1), 0.2, 0.3, per="step") and hash(outer) == hash(
        Dropout(inner, 0.1, 0.2, 0.3)
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_dtypes_are_kept(dtype, key):
    x = jnp.ones(5, dtype)
    carry, y = draw(Dropout(see, 0.5, 0.5, 0.5), x, x, key)
    assert y.dtype == carry.dtype == dtype


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: Dropout(copy, input=1.1), ValueError, r"`input`.*\[0, 1\]; got 1.1"),
        (lambda: Dropout(copy, output=-0.1), ValueError, r"`output`.*\[0, 1\]; got -0.1"),
        (lambda: Dropout(copy, state=float("nan")), ValueError, r"`state`.*got nan"),
        (lambda: Dropout(copy, state="0.5"), TypeError, r"`state`.*a number in \[0, 1\]; got '0.5'"),
        (lambda: Dropout(copy, jnp.asarray(0.5)), TypeError, r"keeps settings, not arrays; field `input`"),
        (lambda: Dropout(copy, per="batch"), ValueError, r"per='step' or 'sequence'; got 'batch'"),
        (lambda: Dropout(None), TypeError, r"`Dropout` needs a cell, a function .* got None"),
        (lambda: Dropout(copy, 0.5)(None, None, ONES), TypeError, r"without `rng`. Give `scan` a `key`.*deterministic"),
        (lambda: Dropout(copy, 0.5)(None, None, jnp.arange(3), Rng(jax.random.key(0), 0)), TypeError,
         r"x must be floating; got int64\[3\]"),
        (lambda: Dropout(copy, state=0.5)(None, (), ONES, Rng(jax.random.key(0), 0)), TypeError,
         r"no floating array in the carry.*Leave `state` out"),
    ],
)  # fmt: skip
def test_what_cannot_work_raises_and_says_what_to_write(act, error, message):
    with pytest.raises(error, match=message):
        act()

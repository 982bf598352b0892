"""`cell(fn, ...)`: a user's function with sizes, params and a first carry, as a cell of the library."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnscan._types import Rng, call, rng_use
from rnnscan.cells import FunctionCell, cell


def step(params, s, x):
    s = params * s + x
    return s, 2 * s


def noisy(params, s, x, rng):
    return s, x + jax.random.normal(rng.per_step(), x.shape)


def maybe_noisy(params, s, x, rng=None):
    return s, x if rng is None else x + jax.random.normal(rng.per_step(), x.shape)


def test_it_steps_as_the_function_does():
    assert cell(step)(0.5, 4.0, 1.0) == step(0.5, 4.0, 1.0) == (3.0, 6.0)


def test_decorator_and_call_make_equal_cells():
    init, carry = (lambda key: 0.5), (lambda batch_shape: jnp.zeros(batch_shape))
    decorated = cell(init=init, initial_carry=carry, in_size=3, out_size=3)(step)
    called = cell(step, init=init, initial_carry=carry, in_size=np.int64(3), out_size=3)
    assert isinstance(decorated, FunctionCell)
    assert decorated == called and hash(decorated) == hash(called)
    assert decorated != cell(step, init=init, initial_carry=carry, in_size=3)
    assert repr(called) == "cell(step, in_size=3, out_size=3)" and repr(cell(step, x_ndim=0)) == "cell(step, x_ndim=0)"


def test_sizes_are_what_was_said():
    made = cell(step, in_size=3, out_size=5, x_ndim=2)
    assert (made.in_size, made.out_size, made.x_ndim, made.recurrent) == (3, 5, 2, True)
    assert (cell(step).in_size, cell(step).out_size, cell(step).x_ndim) == (None, None, 1)


@pytest.mark.parametrize(("fn", "use"), [(step, "never"), (noisy, "required"), (maybe_noisy, "optional")])
def test_it_takes_rng_exactly_as_the_function_does(fn, use, key):
    made, rng, x = cell(fn), Rng(key, jnp.asarray(3)), jnp.ones(4)
    assert rng_use(made) == use
    np.testing.assert_array_equal(call(made, 0.5, 0.2, x, rng)[1], call(fn, 0.5, 0.2, x, rng)[1])


def test_rng_may_be_keyword_only(key):
    def by_name(params, s, x, *, rng=None):
        return s, x if rng is None else rng.t

    assert call(cell(by_name), None, 0.0, 7, Rng(key, 3))[1] == 3 and call(cell(by_name), None, 0.0, 7, None)[1] == 7


def test_init_and_initial_carry_get_what_they_accept(key):
    seen = []

    def init(key, dtype=jnp.bfloat16):
        return jnp.ones(2, dtype)

    def carry(batch_shape, dtype="own default", params=None):
        seen.append((batch_shape, dtype, params))

    made = cell(step, init=init, initial_carry=carry)
    assert made.init(key).dtype == jnp.bfloat16  # the function's own default stands
    assert made.init(key, jnp.float32).dtype == jnp.float32
    made.initial_carry()
    made.initial_carry([2, 3], jnp.float32, params="p")
    assert seen == [((), "own default", None), ((2, 3), jnp.float32, "p")]


def test_a_required_dtype_is_given_as_none():
    made = cell(step, init=lambda key, dtype: ("init", dtype), initial_carry=lambda batch_shape, **options: options)
    assert made.init(0) == ("init", None)
    assert made.initial_carry((2,), jnp.float32) == {"dtype": jnp.float32} and made.initial_carry((2,)) == {}


def test_params_are_left_out_where_they_are_not_taken():
    assert cell(step, initial_carry=lambda batch_shape: batch_shape).initial_carry((2,), params=1) == (2,)
    assert cell(step, initial_carry=jnp.zeros).initial_carry((2,), jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: cell(step).init(0), r"`cell\(step\)` was made without `init`.*init=lambda key: params"),
        (lambda: cell(step).initial_carry(), r"made without `initial_carry`.*initial_carry=lambda batch_shape: jnp.ze"),
        (
            lambda: cell(step, init=lambda key: 1).init(0, jnp.float32),
            r"dtype .*float32.*`init` takes no `dtype`.*def in",
        ),
        (
            lambda: cell(step, initial_carry=lambda b: 1).initial_carry((), jnp.float32),
            r"`initial_carry` takes no `dty",
        ),
        (lambda: cell(3), r"`cell` takes functions; `step` is 3"),
        (lambda: cell(step, init={"w": 1}), r"`init` is a dict of 1. Write `init=lambda key: ...`"),
        (lambda: cell(step, initial_carry=jnp.zeros(3)), r"keeps settings, not arrays; field `init_carry`"),
        (
            lambda: cell(step, initial_carry=lambda: 0.0),
            r"called as `initial_carry\(batch_shape\)`.*got `initial_carry\(\)",
        ),
        (lambda: cell(step, init=lambda key, size: 0.0), r"called as `init\(key\)`.*got `init\(key, size\)`"),
    ],
)
def test_what_cannot_work_raises_and_says_what_to_write(run, message):
    with pytest.raises(TypeError, match=message):
        run()

"""Laws of `Stack`, `Residual` and `Project`: what they compute, what they forward, who gets `rng`, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnscan import CarryError, ParamsError
from rnnscan._types import Rng, name_of, rng_use
from rnnscan.cells import GRU, LSTM, Elman, cell
from rnnscan.ode import Euler
from rnnscan.wrap import Dropout, Project, Residual, Stack, deterministic


def noisy(params, carry, x, rng):
    return carry, x + jax.random.normal(rng.per_step(), x.shape)


def maybe_noisy(params, carry, x, rng=None):
    return carry, x if rng is None else x + jax.random.normal(rng.per_step(), x.shape)


def plain(params, carry, x):
    return carry, jnp.tanh(x)


def run(cell, params, carry, xs, rng=None):
    """The plain loop: outputs of all steps and the last carry."""
    ys = []
    for t, x in enumerate(xs):
        options = {} if rng is None else {"rng": Rng(rng, jnp.asarray(t))}
        carry, y = cell(params, carry, x, **options)
        ys.append(y)
    return carry, jnp.stack(ys)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def xs(key):
    return jax.random.normal(key, (4, 2, 3))


def test_a_stack_is_its_layers_one_after_the_other(key, xs):
    layers = LSTM(3, 4), GRU(4, 5), Elman(5, 2)
    stack = Stack(*layers)
    params, carry = stack.init(key), stack.initial_carry((2,))
    got_carry, got = run(stack, params, carry, xs)
    want_carry, below = [], xs
    for layer, p, c in zip(layers, params, carry, strict=True):
        c, below = run(layer, p, c, below)
        want_carry.append(c)
    assert_equal((got_carry, got), (tuple(want_carry), below))
    assert (stack.in_size, stack.out_size, stack.x_ndim, stack.float_input) == (3, 2, 1, True)
    assert stack.recurrent == ((True, False), True, True)


def test_stacked_layers_start_from_different_numbers(key):
    a, b = Stack(GRU(3, 3), GRU(3, 3)).init(key)
    assert not (a["w_x"] == b["w_x"]).any() and not (a["w_h"] == b["w_h"]).any()


def test_a_stack_of_one_and_a_list(key):
    one = Stack([LSTM(3, 4)])
    assert one == Stack(LSTM(3, 4)) == Stack((LSTM(3, 4),)) and hash(one) == hash(Stack(LSTM(3, 4)))
    assert isinstance(one.cells, tuple) and isinstance(one.init(key), tuple) and len(one.initial_carry()) == 1
    assert rng_use(Stack(LSTM(3, 4), dropout=0.5)) == "never"  # nothing between one cell and nothing


def test_a_wrapper_prints_as_one_writes_it():
    assert repr(Stack(GRU(3, 4), plain, dropout=0.5)) == (
        "Stack(GRU(in_size=3, hidden_size=4, reset_after=True, compute_dtype=None), plain, dropout=0.5)"
    )
    assert repr(Residual(Dropout(plain, state=0.5, per="sequence"))) == (
        "Residual(Dropout(plain, state=0.5, per='sequence'))"
    )
    assert repr(Project(plain, 3)) == "Project(plain, out_size=3)"


def test_dropout_in_a_stack_acts_between_cells_and_not_after_the_last(key):
    rows = jnp.ones((1, 4000))
    stack = Stack(plain, plain, dropout=0.25)
    _, ys = run(stack, (None, None), (None, None), rows, key)
    kept = np.tanh(np.tanh(1.0) / 0.75)
    np.testing.assert_allclose(np.unique(np.round(ys, 12)), [0, np.round(kept, 12)])
    # 4000 draws of probability 0.25: five standard deviations of the share are 0.034
    assert abs(float((ys == 0).mean()) - 0.25) < 0.034
    _, three = run(Stack(plain, plain, plain, dropout=0.25), (None,) * 3, (None,) * 3, rows, key)
    assert abs(float((three == 0).mean()) - (1 - 0.75**2)) < 5 * np.sqrt(0.4375 * 0.5625 / 4000)


@pytest.mark.parametrize(
    "wrapped", [Stack(GRU(3, 4), GRU(4, 5)), Residual(GRU(3, 3)), Project(LSTM(3, 4), 2)], ids=repr
)
@pytest.mark.parametrize("dtype", [None, jnp.float32], ids=str)
def test_init_and_initial_carry_pass_the_dtype_on(wrapped, dtype, key):
    params = wrapped.init(key, dtype)
    carries = wrapped.initial_carry((2,), dtype), wrapped.initial_carry((2,), params=params)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, carries))} == {jnp.dtype(dtype or jnp.float64)}


def test_residual_adds_the_input_and_is_transparent(key, xs):
    inner, outer = GRU(3, 3), Residual(GRU(3, 3))
    params, carry = outer.init(key), outer.initial_carry((2,))
    assert_equal((params, carry), (inner.init(key), inner.initial_carry((2,))))
    (want_carry, want), got = run(inner, params, carry, xs), run(outer, params, carry, xs)
    assert_equal(got, (want_carry, xs + want))
    assert (outer.in_size, outer.out_size, outer.x_ndim, outer.float_input, outer.recurrent) == (3, 3, 1, True, True)


@pytest.mark.parametrize("bias", [True, False])
def test_project_multiplies_the_output(bias, key, xs):
    outer = Project(LSTM(3, 4), 5, bias=bias)
    params = outer.init(key)
    assert set(params) == {"cell", "w_y"} | ({"b_y"} if bias else set())
    assert params["w_y"].shape == (4, 5)
    if bias:
        params["b_y"] = params["b_y"] + jnp.arange(1.0, 6.0)
    carry, ys = run(outer, params, outer.initial_carry((2,)), xs)
    want_carry, inner = run(LSTM(3, 4), params["cell"], LSTM(3, 4).initial_carry((2,)), xs)
    want = np.asarray(inner) @ np.asarray(params["w_y"]) + (np.arange(1.0, 6.0) if bias else 0)
    np.testing.assert_allclose(ys, want, rtol=1e-13, atol=1e-14)
    assert_equal(carry, want_carry)
    assert (outer.in_size, outer.out_size, outer.recurrent) == (3, 5, (True, False))


def test_an_integrator_says_nothing_about_x():
    decay = Euler(lambda params, t, y, u: -y, 0.1)
    assert Residual(decay).x_ndim is None and Stack(decay).x_ndim is None and Residual(plain).x_ndim == 1


@pytest.mark.parametrize("wrap", [lambda c: Stack(c, plain), Residual, lambda c: Project(c, 2), Dropout])
@pytest.mark.parametrize(("inner", "use"), [(plain, "never"), (noisy, "required"), (maybe_noisy, "optional")])
def test_a_wrapper_takes_rng_as_its_parts_do(wrap, inner, use):
    assert rng_use(wrap(inner)) == rng_use(wrap(wrap(inner))) == use


def test_each_part_draws_from_its_own_key(key):
    def show(params, carry, x, rng):
        return carry, x + (jax.random.key_data(rng.key).astype(float).sum(),)

    def inner(i, k):
        return jax.random.key_data(jax.random.fold_in(k, i)).astype(float).sum()

    rng = Rng(key, jnp.asarray(3))
    _, seen = Stack(show, Dropout(show), show)((None,) * 3, (None,) * 3, (), rng)
    want = [inner(0, key), inner(0, jax.random.fold_in(key, 1)), inner(2, key)]
    assert [float(a) for a in seen] == [float(a) for a in want]
    _, noise = Residual(noisy)(None, None, jnp.zeros(3), rng)
    np.testing.assert_array_equal(noise, jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 0), 3), (3,)))


def test_deterministic_goes_through_all_wrappers(key, xs):
    loud = Stack(Residual(Dropout(GRU(3, 3), input=0.5)), Project(Dropout(LSTM(3, 4), 0.1, 0.2, 0.3), 2), dropout=0.4)
    quiet = deterministic(loud)
    assert quiet == Stack(Residual(Dropout(GRU(3, 3))), Project(Dropout(LSTM(3, 4)), 2))
    assert rng_use(loud) == "required" and rng_use(quiet) == "never"
    params, carry = loud.init(key), loud.initial_carry((2,))
    bare = Stack(Residual(GRU(3, 3)), Project(LSTM(3, 4), 2))
    assert_equal(run(quiet, params, carry, xs), run(bare, params, carry, xs))
    assert hash(quiet) == hash(deterministic(loud))


@pytest.mark.parametrize("cell", [GRU(3, 4), Stack(LSTM(3, 4), GRU(4, 5)), plain, Euler(noisy, 0.1)], ids=name_of)
def test_deterministic_leaves_a_cell_without_noise_as_it_is(cell):
    assert deterministic(cell) is cell


def test_deterministic_never_gives_rng_to_a_cell_that_may_take_it(key):
    quiet = deterministic(Residual(cell(maybe_noisy, in_size=3, init=lambda key: 7, initial_carry=jnp.zeros)))
    assert rng_use(quiet) == "never" and quiet.in_size == 3 and quiet.init(key) == 7
    np.testing.assert_array_equal(quiet(None, None, jnp.arange(3.0))[1], 2 * jnp.arange(3.0))
    assert deterministic(maybe_noisy) == deterministic(maybe_noisy)


@pytest.mark.parametrize("loud", [noisy, cell(noisy), Residual(noisy), Stack(plain, Dropout(noisy, 0.5))], ids=name_of)
def test_deterministic_refuses_a_function_that_needs_rng(loud):
    with pytest.raises(TypeError, match=r"`.*noisy.*` still needs `rng`.*def step\(params, carry, x, rng=None\)"):
        deterministic(loud)


X = jnp.ones((2, 3))


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: Stack(), ValueError, r"at least one cell; got none.*Stack\(LSTM"),
        (lambda: Stack(GRU(3, 4), GRU(5, 6)), ValueError,
         r"cell 0, `GRU\(in_size=3,.*size 4, into cell 1, `GRU\(in_size=5.*size 5.*Project\(GRU\(.*, 5\)"),
        (lambda: Stack(GRU(3, 4), 5), TypeError, r"`Stack` needs a cell, a function .* got 5"),
        (lambda: Residual(GRU), TypeError, r"got the class `GRU`. Write `GRU\(...\)`"),
        (lambda: Project(jnp.ones(3), 2), TypeError, r"field `cell` is an array"),
        (lambda: Project(GRU(3, 4), 0), ValueError, r"at least 1; got 0"),
        (lambda: Project(GRU(3, 4), 2.0), TypeError, r"float.*integer"),
        (lambda: Stack(GRU(3, 4), GRU(4, 4), dropout=1.5), ValueError, r"`dropout`.*\[0, 1\]; got 1.5"),
        (lambda: Residual(plain).init(0), TypeError, r"`plain` is a function and has no `init`.*rs.cell\(plain, init="),
        (lambda: Stack(GRU(3, 4), plain).initial_carry(), TypeError, r"`plain` is a function.*no `initial_carry`"),
        (lambda: Project(plain, 2).init(0), TypeError, r"how many features `plain` puts out.*out_size="),
        (lambda: Residual(GRU(3, 4))(GRU(3, 4).init(jax.random.key(0)), jnp.ones((2, 4)), X), ValueError,
         r"one shape; got input \(2, 3\), output \(2, 4\). Write `Residual\(Project\(GRU\(.*\), 3\)\)`"),
        (lambda: Residual(lambda p, c, x: (c, (x, x)))(None, None, X), TypeError, r"its output is a tuple"),
        (lambda: Stack(plain, plain)({}, (None, None), X), ParamsError, r"params as a tuple.*2 in all; got a dict"),
        (lambda: Stack(plain, plain)((None, None), (None,), X), CarryError, r"carry as a tuple.*2 in all; got 1 entr"),
        (lambda: Stack(plain, plain, dropout=0.1)((None,) * 2, (None,) * 2, X), TypeError, r"without `rng`.*`key`"),
    ],
)  # fmt: skip
def test_what_cannot_work_raises_and_says_what_to_write(act, error, message):
    with pytest.raises(error, match=message):
        act()

"""Where no derivative is asked for, many rows are multiplied by `[x, h] @ [w; u]`, in the loop, and by nothing else."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.helpers import assert_close, compile_quickly
from tests.structure import contents, loops
from tests.user_cells import CONCAT_LSTM, HIDDEN, IN, NORM_GRU, concat_lstm, norm_gru


MANY, STEPS = 128, 4
LSTM, GRU = rs.cells.LSTM(IN, HIDDEN), rs.cells.GRU(IN, HIDDEN)


def two_uses(params, carry, x):
    """An LSTM that also shows what its products gave: they cannot be joined without adding what must stay apart."""
    c, h = carry
    from_x, from_h = x @ params["kernel"][:IN], h @ params["kernel"][IN:] + params["bias"]
    i, j, f, o = jnp.split(from_x + from_h, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
    return (c, jax.nn.sigmoid(o) * jnp.tanh(c)), jnp.split(from_h, 4, -1)[0]


CELLS = {
    "LSTM": (LSTM, LSTM.init(jax.random.key(0), jnp.float64), 1),
    "concat LSTM": (concat_lstm, CONCAT_LSTM, 1),
    "an LSTM that shows its products": (two_uses, CONCAT_LSTM, 5),  # one a gate for x, and one with h
    "GRU": (GRU, GRU.init(jax.random.key(0), jnp.float64), 4),
    "layer-norm GRU": (norm_gru, NORM_GRU, 2),
}
OPTIONS = {
    "lengths": {"lengths": np.arange(MANY) % (STEPS + 1)},
    "reverse": {"reverse": True},
    "last": {"outputs": "last"},
}


def start(cell, rows):
    return jnp.full((rows, HIDDEN), 0.1) if cell in (norm_gru, GRU) else (jnp.full((rows, HIDDEN), 0.1),) * 2


def inputs(rows, steps=STEPS):
    return jnp.asarray(np.random.default_rng(0).normal(size=(steps, rows, IN)))


def products(function, *args):
    """The products in the compiled program, each written once however often it runs: dead ones are gone there."""
    return re.findall(r" dot\(", jax.jit(function).lower(*args).compile().as_text())


@pytest.mark.parametrize("name", CELLS)
def test_many_rows_take_one_product_where_the_gates_of_x_and_of_h_are_only_summed(name):
    cell, params, n = CELLS[name]
    run = lambda params, xs: rs.scan(cell, params, start(cell, xs.shape[1]), xs)[1]
    assert len(products(run, params, inputs(MANY))) == n


def test_few_rows_take_xs_part_out():
    run = lambda params, xs: rs.scan(concat_lstm, params, start(concat_lstm, MANY - 1), xs)[1]
    assert len(products(run, CONCAT_LSTM, inputs(MANY - 1))) == 5


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", ["LSTM", "concat LSTM"])
def test_values_and_gradients_are_the_plain_loops(name, options):
    cell, params, _ = CELLS[name]

    def loss(method):
        def of(params, xs):
            carry, ys = rs.scan(cell, params, start(cell, MANY), xs, method=method, **options)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves((carry, ys))), (carry, ys)

        return of

    for transform in (lambda f: f, lambda f: jax.grad(f, (0, 1), has_aux=True)):
        got, want = (compile_quickly(transform(loss(m)))(params, inputs(MANY)) for m in ("sequential", "reference"))
        assert_close(got, want)


def test_a_run_in_pieces_goes_as_a_whole_where_no_derivative_is_asked_for():
    steps = 2000
    xs, carry = inputs(MANY, steps), start(concat_lstm, MANY)
    assert rs.explain(concat_lstm, CONCAT_LSTM, carry, xs).piece < steps
    run = lambda params, **options: rs.scan(concat_lstm, params, carry, xs, **options)[1]
    (loop,) = loops(run, CONCAT_LSTM)
    assert (loop.products, loop.inner) == (1, ())
    value = lambda params, **options: jnp.sum(run(params, **options) ** 2)
    assert [len(outer.inner) for outer in loops(jax.grad(value), CONCAT_LSTM)] == [1, 1]
    for transform in (lambda f: f, jax.grad, lambda f: jax.vmap(f, axis_size=1, in_axes=None)):
        ours, plain = (compile_quickly(transform(partial(value, optimize=o))) for o in (True, False))
        assert_close(ours(CONCAT_LSTM), plain(CONCAT_LSTM))


def test_more_features_than_units_are_not_joined():
    cell = rs.cells.LSTM(4 * HIDDEN, HIDDEN)
    run = lambda params, xs: rs.scan(cell, params, start(cell, MANY), xs)[1]
    xs = jnp.ones((STEPS, MANY, 4 * HIDDEN))
    assert len(products(run, cell.init(jax.random.key(0), jnp.float64), xs)) == 5


def test_a_derivative_by_some_arguments_moves_no_other():
    """A joined run has a rule of its own, which must not make tangents of zeros of what stands still."""
    xs, carry = inputs(MANY, 2000), start(concat_lstm, MANY)
    by_params = jax.grad(lambda params: jnp.sum(rs.scan(concat_lstm, params, carry, xs)[1] ** 2))
    by_both = jax.grad(lambda params, xs: jnp.sum(rs.scan(concat_lstm, params, carry, xs)[1] ** 2), (0, 1))
    of_params, of_both = (
        contents(f, *args)[1] for f, args in ((by_params, [CONCAT_LSTM]), (by_both, [CONCAT_LSTM, xs]))
    )
    assert of_params[1].products + 1 == of_both[1].products  # the cotangent of xs, once a piece

"""Without a derivative a run in pieces writes its outputs to their places; with one its pieces are stacked."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.helpers import assert_close, compile_quickly
from tests.structure import loops


ROWS, IN, HIDDEN = 8, 3, 64
ELMAN, GRU = rs.cells.Elman(IN, HIDDEN), rs.cells.GRU(IN, HIDDEN)
STACK = rs.wrap.Stack(rs.cells.LSTM(IN, HIDDEN), rs.cells.GRU(HIDDEN, 32))


def late(params, carry, x):
    """What the loop gives is an output, read after it, and the next step's memory, which no loop carries."""
    h, memory = carry
    h, y = GRU(params, h, x)
    return (h, y), (y, jnp.sin(y) + memory)


CELLS = {
    "GRU": (GRU, GRU.init(jax.random.key(0), jnp.float64), jnp.zeros((ROWS, HIDDEN))),
    "Elman": (ELMAN, ELMAN.init(jax.random.key(0), jnp.float64), jnp.zeros((ROWS, HIDDEN))),
    "Stack": (STACK, STACK.init(jax.random.key(0), jnp.float64), None),
    "a delayed memory": (late, GRU.init(jax.random.key(0), jnp.float64), (jnp.zeros((ROWS, HIDDEN)),) * 2),
}
STEPS = 2111  # no piece divides it, and the cells' sequences take more than a run that goes as a whole may
OPTIONS = {
    "none": {},
    "reverse": {"reverse": True},
    "lengths": {"lengths": np.linspace(0, STEPS, ROWS).astype(int)},
    "last": {"outputs": "last"},
}
XS = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, ROWS, IN)))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", CELLS)
def test_values_are_the_plain_loops(name, options):
    cell, params, carry = CELLS[name]
    run = lambda params, optimize: rs.scan(cell, params, carry, XS, optimize=optimize, **options)
    ours, plain = (compile_quickly(partial(run, optimize=o)) for o in (True, False))
    assert rs.explain(cell, params, carry, XS, **options).piece < STEPS
    assert_close(ours(params), plain(params))


@pytest.mark.parametrize("reverse", [False, True])
def test_so_are_tangents_and_those_of_tangents(reverse):
    params, carry = CELLS["Elman"][1:]

    def twice(params, optimize):
        value = lambda xs: jnp.sum(rs.scan(ELMAN, params, carry, xs, reverse=reverse, optimize=optimize)[1] ** 2)
        along = lambda xs: jax.jvp(value, (xs,), (jnp.cos(xs),))[1]
        return along(XS), jax.grad(along)(XS)

    ours, plain = (compile_quickly(partial(twice, optimize=o)) for o in (True, False))
    assert_close(ours(params), plain(params))


def test_a_loop_over_pieces_stacks_nothing():
    """Its outputs are carried; `lax.scan` would slice none of them into place once more."""
    run = lambda params: rs.scan(ELMAN, params, None, XS)[1]
    outer, *_ = loops(run, CELLS["Elman"][1])
    (inner,) = outer.inner
    whole = (STEPS, ROWS, HIDDEN)
    assert outer.of_length(STEPS) == inner.of_length(STEPS) == [whole]
    assert (outer.ops["dynamic_update_slice"], inner.ops["dynamic_update_slice"]) == (0, 1)

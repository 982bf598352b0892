"""What the derivative of a loop keeps: the least to do where a step is small, the least to compute again elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan._jaxpr import keep, many
from tests.helpers import assert_close
from tests.structure import contents, loops
from tests.user_cells import CONCAT_LSTM, HIDDEN, IN, LEAKY, NORM_GRU, concat_lstm, leaky, norm_gru


STEPS, ROWS = 4, 2
H_0 = jnp.full((ROWS, HIDDEN), 0.1)
XS = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, ROWS, IN)))
LSTM, GRU, BEFORE = rs.cells.LSTM(IN, HIDDEN), rs.cells.GRU(IN, HIDDEN), rs.cells.GRU(IN, HIDDEN, reset_after=False)
CELLS = {  # and what the loop stacks for a derivative where its step is small, and where it is not
    "LSTM": (LSTM, LSTM.init(jax.random.key(0), jnp.float64), (H_0, H_0), 2, 6),  # h, c; and i, f, g, o
    "GRU": (GRU, GRU.init(jax.random.key(0), jnp.float64), H_0, 1, 5),  # h; and r, z, n, and n's part of h @ u
    "GRU, reset before": (BEFORE, BEFORE.init(jax.random.key(0), jnp.float64), H_0, 1, 4),  # h; and r, z, n
    "concat LSTM": (concat_lstm, CONCAT_LSTM, (H_0, H_0), 2, 6),
    "leaky": (leaky, LEAKY, H_0, 1, 3),  # h; and what relu gets, and tanh gives
    "norm GRU": (norm_gru, NORM_GRU, H_0, 1, 2),  # h; and h @ u
}


def training(cell, carry, **options):
    loss = lambda params, xs: jnp.sum(rs.scan(cell, params, carry, xs, **options)[1] ** 2)
    return jax.value_and_grad(loss, (0, 1))


def of_size(cell):
    """The cell as one that no cache knows."""
    return lambda params, carry, x: cell(params, carry, x)


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.sigmoid])
def test_a_coefficient_of_one_kept_value_is_made_in_the_loop(activation, monkeypatch):
    """`1 - y^2` and `y (1 - y)` are no sequences of their own: the backward loop reads y."""
    monkeypatch.setattr(keep, "SMALL_STEP", 0)
    cell = lambda params, h, x: (activation(x @ params["w_x"] + h @ params["w_h"]),) * 2
    params = {"w_x": jnp.full((IN, HIDDEN), 0.1), "w_h": jnp.full((HIDDEN, HIDDEN), 0.1)}
    outside, (_, backward) = contents(training(cell, H_0), params, XS)
    assert outside["subtract"] == 0
    assert len([shape for shape in backward.fixed if shape[:1] == (STEPS,)]) == 2  # y and its cotangent


def stacked(cell, params, carry):
    forward, _ = loops(training(of_size(cell), carry), params, XS)
    return len(forward.of_length(STEPS))


@pytest.mark.parametrize("name", CELLS)
def test_a_small_step_stores_its_carry_and_nothing_else(name, monkeypatch):
    cell, params, carry, small, large = CELLS[name]
    assert stacked(cell, params, carry) == small
    monkeypatch.setattr(keep, "SMALL_STEP", 0)
    assert stacked(cell, params, carry) == large


@pytest.mark.parametrize("limit", [0, keep.SMALL_STEP])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_are_the_same_however_large_a_step_is(name, limit, monkeypatch):
    cell, params, carry, *_ = CELLS[name]
    want = jax.jit(training(cell, carry, optimize=False))(params, XS)
    monkeypatch.setattr(keep, "SMALL_STEP", limit)
    assert_close(jax.jit(training(of_size(cell), carry))(params, XS), want)


CHOICES = {
    "maximum": lambda a: jnp.maximum(a, 0.1),
    "largest": lambda a: jnp.max(a, -1, keepdims=True) * jnp.ones(HIDDEN),
    "winner": lambda a: jnp.where(a >= jnp.max(a, -1, keepdims=True), a, 0.3 * a),
    "argmax": lambda a: jnp.tanh(a) * jnp.take(jnp.arange(1.0, 1.0 + HIDDEN), jnp.argmax(a, -1))[..., None],
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_not_made_twice(name, monkeypatch):
    """As on a device that rounds a product of many rows another way than one of few: of `a` from the one and the `h`
    that `max(a, 0.1)` of the other became, `a == h` would be true nowhere, and the gradient zero."""

    def cell(params, h, x):
        a = x @ params["w_x"] + h @ params["w_h"]
        return CHOICES[name](a), a * a

    draw = np.random.default_rng(3)
    params = {
        "w_x": jnp.asarray(draw.normal(size=(IN, HIDDEN))),
        "w_h": jnp.asarray(draw.normal(size=(HIDDEN, HIDDEN))),
    }
    want = jax.jit(training(of_size(cell), H_0, optimize=False))(params, XS)
    at_once = many._flat_product
    monkeypatch.setattr(many, "_flat_product", lambda *args: at_once(*args) * (1 + 2.0**-50))
    assert_close(jax.jit(training(of_size(cell), H_0))(params, XS), want)


def test_a_state_that_is_set_to_a_number_is_kept_as_it_goes_in(monkeypatch):
    """What comes out is no sequence there: each step's state is the last one's input, and the next one's is 0."""

    def cell(w, carry, x):
        h, memory = carry
        return (jnp.tanh(h @ w + memory * x), jnp.zeros_like(memory)), h * memory

    w, carry = jnp.eye(HIDDEN), (H_0, H_0)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, ROWS, HIDDEN)))
    want = jax.jit(training(cell, carry, optimize=False))(w, xs)
    assert_close(jax.jit(training(of_size(cell), carry))(w, xs), want)

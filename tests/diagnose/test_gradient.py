"""`gradient_over_time` against closed forms and against `jax.grad` of a plain loop that starts at each step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.diagnose import gradient_over_time


T, B = 5, 2
XS = jnp.asarray(np.random.default_rng(1).normal(size=(T, B, 3)))
TARGET = jnp.asarray(np.random.default_rng(2).normal(size=(T, B, 1)))


def close(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-13), got, want)


def loss(carry, ys):
    """Reads every output with a weight of its own, and every leaf of the carry."""
    read = sum(jnp.sum(jnp.cos(leaf) * (2.0 + i)) for i, leaf in enumerate(jax.tree.leaves(carry)) if leaf.dtype != int)
    return read + jnp.sum(jnp.sin(ys) * TARGET)


@partial(jax.jit, static_argnames=("cell", "reverse"))
def from_each_place(cell, params, start, valid, reverse=False):
    """`dL/dc_t` by definition: the loop from place t on, with what came before fixed. (T + 1, ...) in input order."""
    order = list(range(T))[:: -1 if reverse else 1]

    def advance(steps, state, ys):
        for t in steps:
            keep = lambda a, b, t=t: jnp.where(valid[t].reshape(B, *[1] * (a.ndim - 1)), a, b) if a.ndim else a
            new, y = cell(params, state, XS[t])
            state, ys = jax.tree.map(keep, new, state), [*ys[:t], keep(y, jnp.zeros_like(y)), *ys[t + 1 :]]
        return state, ys

    def rest(state, k, ys):
        carry, ys = advance(order[k:], state, ys)
        return loss(carry, jnp.stack(ys))

    found, state, ys = [], start, [jnp.zeros((B, 1))] * T
    for k in range(T + 1):
        gradient = jax.grad(rest, allow_int=True)(state, k, ys)
        found.append(jax.tree.map(lambda g: g if jnp.issubdtype(g.dtype, jnp.inexact) else None, gradient))
        state, ys = advance(order[k : k + 1], state, ys)
    return jax.tree.map(lambda *g: jnp.stack(g[:: -1 if reverse else 1]), *found)


def nested(params, carry, x):
    """A carry of several kinds: a counter, a vector a row, and a matrix a row."""
    h = jnp.tanh(x @ params["w_x"] + carry["state"][0] @ params["w_h"])
    m = 0.9 * carry["state"][1] + h[..., :, None] * x[..., None, :]
    y = jnp.sum(m * m, axis=(-2, -1))[..., None] + h[..., :1]
    return {"count": carry["count"] + 1, "state": (h, m)}, y


LSTM = rs.cells.LSTM(3, 4)


def lstm_with_readout(params, carry, x):
    carry, h = LSTM(params, carry, x)
    return carry, h[..., :1] * 1.5 - h[..., 1:2]


@pytest.fixture(scope="module")
def lstm_case():
    start = jax.tree.map(lambda leaf: leaf + 0.3, LSTM.initial_carry((B,), jnp.float64))
    return lstm_with_readout, LSTM.init(jax.random.key(1)), start


def test_linear_network_has_powers_of_its_weight(key):
    cell, w = rs.cells.Linear(1, 1), 1.3
    params = {"w_x": jnp.full((1, 1), 0.7), "w_h": jnp.full((1, 1), w)}
    found = gradient_over_time(lambda s, ys: jnp.sum((s - 2.0) ** 2), cell, params, None, XS[..., :1])
    s_last = rs.scan(cell, params, None, XS[..., :1])[0]
    want = w ** np.arange(T, -1, -1)[:, None, None] * np.asarray(2 * (s_last - 2.0))
    close(found.gradients, want)
    close(found.norms, np.abs(want[..., 0]))
    close(found.loss, jnp.sum((s_last - 2.0) ** 2))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("how", ["plain", "lengths", "mask", "resets"])
def test_lstm_equals_the_loop_from_each_step(lstm_case, how, reverse):
    cell, params, start = lstm_case
    mask = jnp.asarray([[0, 1, 0, 1, 0], [1, 0, 0, 1, 1]], bool).T
    resets = jnp.asarray([[0, 1, 1, 0, 0], [0, 0, 0, 1, 0]], bool).T
    fresh = jax.tree.map(lambda leaf: leaf - 0.7, start)
    options, valid, boundaries = {
        "plain": ({}, jnp.ones((T, B), bool), None),
        "lengths": ({"lengths": [3, 0]}, jnp.arange(T)[:, None] < jnp.asarray([3, 0]), None),
        "mask": ({"mask": mask}, mask, None),
        "resets": ({"mask": mask, "resets": resets, "reset_carry": fresh}, mask, resets),
    }[how]
    found = gradient_over_time(loss, cell, params, start, XS, reverse=reverse, batch_ndim=1, **options)
    if boundaries is None:
        want = from_each_place(cell, params, start, valid, reverse)
    else:
        want = after_resets(cell, params, start, valid, reverse, boundaries, fresh)
    close(found.gradients, want)
    close(found.norms, jax.tree.map(lambda g: np.linalg.norm(g, axis=-1), want))


@partial(jax.jit, static_argnames=("cell", "reverse"))
def after_resets(cell, params, start, valid, reverse, resets, fresh):
    """At a valid step `c_t` is the state after the reset: shift what the cell is given there, one step at a time."""

    def run(shift, step, carry_shift):
        state, ys = start, [jnp.zeros((B, 1))] * T
        for t in range(T)[:: -1 if reverse else 1]:
            place, boundary = (t + 1, t + 1) if reverse else (t, t)
            begin = state
            if boundary < T:
                here = resets[boundary] & valid[t]
                begin = jax.tree.map(lambda f, s, here=here: jnp.where(here[:, None], f, s), fresh, state)
            if place == step:
                begin = jax.tree.map(jnp.add, begin, shift)
            new, y = cell(params, begin, XS[t])
            pick = lambda a, b, t=t: jnp.where(valid[t][:, None], a, b)
            state, ys[t] = jax.tree.map(pick, new, begin), pick(y, jnp.zeros_like(y))
        return loss(jax.tree.map(jnp.add, state, carry_shift), jnp.stack(ys))

    zero = jax.tree.map(jnp.zeros_like, start)
    last = 0 if reverse else T
    return jax.tree.map(
        lambda *g: jnp.stack(g),
        *[jax.grad(run, argnums=2 if p == last else 0)(zero, None if p == last else p, zero) for p in range(T + 1)],
    )


def test_nested_carry_with_a_counter(key):
    params = {"w_x": jax.random.normal(key, (3, 4)), "w_h": 0.5 * jnp.eye(4) + 0.1}
    start = {"count": jnp.asarray(0), "state": (jnp.full((B, 4), 0.2), jnp.full((B, 4, 3), -0.1))}
    found = gradient_over_time(loss, nested, params, start, XS, batch_ndim=1)
    close(found.gradients, from_each_place(nested, params, start, jnp.ones((T, B), bool)))
    assert found.gradients["count"] is None and found.norms["count"] is None
    h, m = found.gradients["state"]
    close(found.norms["state"], (np.linalg.norm(h, axis=-1), np.linalg.norm(m.reshape(T + 1, B, -1), axis=-1)))


@pytest.mark.parametrize("options", [{"method": "unrolled"}, {"method": "reference"}, {"unroll": 3}], ids=str)
def test_options_change_nothing(lstm_case, options):
    cell, params, start = lstm_case
    want = gradient_over_time(loss, cell, params, start, XS)
    close(gradient_over_time(loss, cell, params, start, XS, **options), want)


def test_time_axis_moves_the_input_and_nothing_else(lstm_case):
    cell, params, start = lstm_case
    mask = jnp.asarray([[1, 1, 0, 1, 0], [1, 0, 0, 1, 1]], bool)
    want = gradient_over_time(loss, cell, params, start, XS, mask=mask.T)
    turned = lambda carry, ys: loss(carry, jnp.moveaxis(ys, 1, 0))
    found = gradient_over_time(turned, cell, params, start, jnp.moveaxis(XS, 0, 1), mask=mask, time_axis=1)
    close(found, want)


def test_randomness_is_that_of_scan(key):
    noisy = lambda params, s, x, rng: (s * params + x * jax.random.normal(rng.per_step(), x.shape), None)
    found = gradient_over_time(lambda s, ys: jnp.sum(s**3), noisy, jnp.asarray(0.8), jnp.zeros((B, 3)), XS, key=key)
    s = rs.scan(noisy, jnp.asarray(0.8), jnp.zeros((B, 3)), XS, key=key)[0]
    close(found.loss, jnp.sum(s**3))
    close(found.gradients, 0.8 ** np.arange(T, -1, -1)[:, None, None] * np.asarray(3 * s**2))


def test_library_cell_makes_its_carry_and_works_under_jit(key):
    cell = rs.cells.GRU(3, 4)
    params = cell.init(key)
    find = lambda params: gradient_over_time(lambda h, ys: jnp.sum(h**2) + jnp.sum(ys), cell, params, None, XS)
    found = find(params)
    close(jax.jit(find)(params), found)
    h = rs.scan(cell, params, None, XS)[0]
    close(found.gradients[-1], 2 * h)
    assert found.norms.shape == (T + 1, B)


def test_no_steps_and_no_input():
    double = lambda params, s, x: (s * params, None)
    found = gradient_over_time(lambda s, ys: s**2, double, jnp.asarray(2.0), 3.0, n_steps=4)
    close(found.gradients, 2 * 48.0 * 2.0 ** np.arange(4, -1, -1))
    close(gradient_over_time(lambda s, ys: s**2, double, jnp.asarray(2.0), 3.0, n_steps=0).gradients, np.asarray([6.0]))


def test_norm_of_an_exploding_gradient_is_finite():
    grow = lambda params, s, x: (s * params, None)
    found = gradient_over_time(lambda s, ys: jnp.sum(s), grow, jnp.asarray(1e100), jnp.asarray([3e-9, 4e-9]), n_steps=3)
    close(found.norms, np.sqrt(2.0) * np.asarray([1e300, 1e200, 1e100, 1.0]))


def test_a_loss_of_many_numbers_raises():
    with pytest.raises(ValueError, match=r"`loss\(carry, ys\)` must return a real scalar; got float64\[2,1\]"):
        gradient_over_time(
            lambda s, ys: s, rs.cells.Linear(3, 1), rs.cells.Linear(3, 1).init(jax.random.key(0)), None, XS
        )


def test_errors_of_the_arguments_are_those_of_scan():
    cell = rs.cells.Linear(3, 1)
    with pytest.raises(rs.LengthError, match="exceeds T = 5"):
        gradient_over_time(loss, cell, cell.init(jax.random.key(0)), None, XS, lengths=jnp.asarray([6, 1]))


@pytest.mark.parametrize("reverse", [False, True])
def test_nan_in_padding_and_sequences_without_steps(key, reverse):
    cell = rs.cells.GRU(3, 4)
    params = cell.init(key)
    read = lambda h, ys: jnp.sum(h**3)
    padded = XS.at[3:, 0].set(jnp.nan)
    found = gradient_over_time(read, cell, params, None, padded, lengths=[3, T], reverse=reverse)
    row = gradient_over_time(read, cell, params, None, XS[:3, :1], reverse=reverse).gradients[:, 0]
    close(found.gradients[:4, 0], row)
    held = row[3] if reverse else 3 * rs.scan(cell, params, None, XS[:3, :1])[0][0] ** 2
    close(found.gradients[4:, 0], jnp.stack([held, held]))
    start = jnp.full((B, 4), 0.7)
    empty = gradient_over_time(read, cell, params, start, XS[:0], lengths=[0, 0], reverse=reverse)
    close(empty.gradients, 3 * start[None] ** 2)

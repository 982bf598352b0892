"""What a step may hold that has rules of its own: functions with a rule for cotangents, at any depth, and effects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import rnnscan as rs
from tests.helpers import assert_close


STEPS, ROWS, WIDTH = 5, 2, 3
DRAW = np.random.default_rng(0)
W = jnp.asarray(DRAW.normal(size=(WIDTH, WIDTH)) / 2)
H_0 = jnp.asarray(DRAW.normal(size=(ROWS, WIDTH)))
XS = jnp.asarray(DRAW.normal(size=(STEPS, ROWS, WIDTH)))


@jax.custom_vjp
def half_backward(h):
    """`h`, whose cotangent is halved: of this JAX knows no forward mode."""
    return h


half_backward.defvjp(lambda h: (h, None), lambda _, d_h: (0.5 * d_h,))


def layer(w, h):
    return jnp.tanh(half_backward(h) @ w)


PLACES = {
    "at the top": layer,
    "jit": jax.jit(layer),
    "checkpoint": jax.checkpoint(layer),
    "vmap": lambda w, h: jax.vmap(lambda row: layer(w, row))(h),
    "cond": lambda w, h: lax.cond(h.sum() > 0, lambda: layer(w, h), lambda: h),
    "switch": lambda w, h: lax.switch(jnp.int32(1), [lambda: h, lambda: layer(w, h)]),
    "inner scan": lambda w, h: lax.scan(lambda h, _: (layer(w, h), None), h, None, length=2)[0],
    "fori_loop": lambda w, h: lax.fori_loop(0, 2, lambda _, h: layer(w, h), h),
    "map": lambda w, h: lax.map(lambda row: layer(w, row), h),
    "scan in a scan": lambda w, h: lax.scan(
        lambda h, _: (lax.scan(lambda h, _: (layer(w, h), None), h, None, length=2)[0], None), h, None, length=2
    )[0],
}
WHERE = {  # which part of the step has it: (w, h_tm1, x_t) -> (h_t, y_t)
    "the carry": lambda inner: lambda w, h, x: (inner(w, h) + x @ w,) * 2,
    "the inputs": lambda inner: lambda w, h, x: (jnp.tanh(inner(w, x) + h @ w),) * 2,
    "the outputs": lambda inner: lambda w, h, x: ((new := jnp.tanh(x @ w + h @ w)), inner(w, new)),
}


@pytest.mark.parametrize(
    ("where", "optimize"), [*((w, True) for w in WHERE), ("the inputs", ("weight_grads",))], ids=str
)
@pytest.mark.parametrize("place", PLACES)
def test_a_rule_for_cotangents_is_kept_at_any_depth(place, where, optimize):
    cell = WHERE[where](PLACES[place])

    def loss(ys):
        return jnp.sum(jnp.cos(ys))

    got = jax.grad(lambda *a: loss(rs.scan(cell, *a, optimize=optimize)[1]), (0, 1, 2))(W, H_0, XS)
    want = jax.grad(lambda w, h, xs: loss(lax.scan(lambda h, x: cell(w, h, x), h, xs)[1]), (0, 1, 2))(W, H_0, XS)
    assert_close(got, want)


@pytest.mark.parametrize("of", ["x", "h"])
@pytest.mark.parametrize("derivative", ["grad", "jvp", "grad of grad"])
@pytest.mark.parametrize("ordered", [False, True])
def test_an_effect_happens_once_a_step_under_a_derivative_too(of, derivative, ordered):
    seen = []

    def cell(w, h, x):
        h = jnp.tanh(x @ w + h @ w)
        jax.debug.callback(lambda v: seen.append(float(v)), (x if of == "x" else h).sum(), ordered=ordered)
        return h, h @ w

    loss = lambda w: jnp.sum(jnp.cos(rs.scan(cell, w, H_0, XS)[1]))
    run = {
        "grad": jax.grad(loss),
        "jvp": lambda w: jax.jvp(loss, (w,), (w,)),
        "grad of grad": jax.grad(lambda w: jnp.sum(jax.grad(loss)(w) ** 2)),
    }[derivative]
    jax.block_until_ready(run(W))
    jax.effects_barrier()
    assert len(seen) == STEPS
    if ordered and of == "x":
        assert_close(jnp.asarray(seen), XS.sum((1, 2)))

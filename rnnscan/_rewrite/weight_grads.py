"""Gradients of params as products over time and batch after the loop, not as sums carried through it.

`jax.grad` of `lax.scan` adds a term of the size of the weights to the backward carry at every step. Here the loop

    s_t, y_t = f(w, s_{t-1}, x_t)

has a derivative rule of its own. Every operation of f that reads w, say `a = h w`, gets a *tap*: a tangent that is
added to its result. The tap's tangents `da_t = h_{t-1} dw` need no loop: they are one product over all steps. With
them as sequences the tangent loop

    ds_t = J_t ds_{t-1} + K_t dx_t + sum of the taps' da_t

is linear in what it carries and reads, and JAX transposes it into a backward loop that carries the cotangent of s and
nothing else; the transpose of `h_{t-1} dw` for all t is one product, the gradient. A rule for tangents (`custom_jvp`)
rather than for cotangents keeps forward mode, `vmap` and higher derivatives.

Of J_t and K_t only what products are computed from is kept (`_jaxpr/keep.py`); the coefficients are computed again when
the backward pass comes to them: for all steps at once, or in its loop where one kept value is all that they need. That
is what `jax.checkpoint` is here for.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._jaxpr.many import moves
from .._jaxpr.tangent import Arrays, Body, TangentStep, is_float


def plain_loop(body: Body, consts: Arrays, state: Arrays, seqs: Arrays, **how: Any) -> tuple[Arrays, Arrays]:
    """The loop with `lax.scan`, and its derivatives as JAX makes them."""
    return lax.scan(lambda state, x: body(consts, state, x), state, seqs, **how)


class Given(NamedTuple):
    """What a loop reads. `turned`, the transposes of its matrices, and `sources`, what `Again` makes some sequences
    from, serve the rule alone."""

    consts: Arrays
    state: Arrays
    seqs: Arrays
    turned: Arrays
    sources: list[list[Arrays]]


def loop_with_rule(body: Body, given: Given, **how: Any) -> tuple[Arrays, Arrays]:
    """The same values as `plain_loop`, and the same derivatives, with those of the constants taken out of the loop."""

    @jax.custom_jvp
    def loop(given: Given) -> tuple[Arrays, Arrays]:
        return plain_loop(body, given.consts, given.state, given.seqs, **how)

    loop.defjvp(partial(_rule, body, how), symbolic_zeros=True)
    return loop(given)


def _rule(body: Body, how: dict[str, Any], primals: tuple[Given], tangents: tuple[Given]) -> Any:
    consts, state, seqs, turned, sources = primals[0]
    d_consts, d_state, d_seqs = ([d if moves(d) else None for d in part] for part in tangents[0][:3])
    step = TangentStep.of(
        body, (consts, state, seqs), [d is not None for d in d_consts], [d is not None for d in d_seqs]
    )
    final, (cuts, kept) = lax.scan(lambda state, x: step.values(consts, state, x), state, seqs, **how)
    start = [_or_zeros(d, s) for d, s in zip(d_state, state, strict=True) if is_float(s)]

    def tangent(known: Any, d_consts: list[Any], start: Arrays, d_seqs: Arrays) -> tuple[Arrays, Arrays]:
        consts, turned, state, seqs, sources, *kept = known
        fixed, over_time = step.known(how["reverse"], consts, turned, state, body.seqs_again(seqs, sources), *kept)
        taps = step.taps(d_consts, fixed, over_time, how["length"])
        sums = step.sum_early(d_seqs, taps, fixed, over_time)
        at = lambda d_state, x: step.tangents(fixed, d_consts, d_state, *x)
        if step.made_of:  # inside the loop, or JAX would make it for all steps in a loop before
            at = jax.checkpoint(at, prevent_cse=False)
        return lax.scan(at, start, ([over_time[v] for v in step.per_step], sums), **how)

    known = consts, turned, state, seqs, sources, cuts, kept
    moving = [d for d in d_seqs if d is not None]
    d_final, d_cuts = jax.checkpoint(tangent, prevent_cse=False)(known, d_consts, start, moving)
    return (final, cuts), (_with_float0(d_final, final), _with_float0(d_cuts, cuts))


def _or_zeros(tangent: Any, primal: jax.Array) -> jax.Array:
    return jnp.zeros_like(primal) if tangent is None else tangent


def _with_float0(tangents: Arrays, primals: Arrays) -> list[Any]:
    rest = iter(tangents)
    return [next(rest) if is_float(p) else np.zeros(p.shape, jax.dtypes.float0) for p in primals]

"""What `debug` finds and `progress` shows, line 8 of the contract, and the count of work that `progress` guesses by."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import rnnscan as rs
from rnnscan._jaxpr.cost import flops
from tests.helpers import ROWS, assert_close, library


progress_rewrite = sys.modules["rnnscan._rewrite.progress"]  # the package has a function of that name


def root(params, h, x):
    h = {"h": jnp.sqrt(x - h["h"])}
    return h, {"y": h["h"] * params}


def test_debug_names_step_row_and_leaf():
    xs = jnp.full((6, 3), 2.0).at[4, 1].set(-1.0)
    with pytest.raises(rs.NonFiniteError, match=r"`carry\['h'\]` is nan at step 4, row 1"):
        rs.scan(root, 1.0, {"h": jnp.zeros(3)}, xs, lengths=jnp.array([6, 6, 6]), debug=True)
    with pytest.raises(rs.NonFiniteError, match=r"`ys\['y'\]` is inf at step 0, row 0"):
        rs.scan(root, 1.7e308, {"h": jnp.zeros(3)}, xs, lengths=jnp.array([6, 6, 6]), debug=True)
    with pytest.raises(rs.NonFiniteError, match=r"`xs\['a'\]` is nan at step 2 \(index \(1,\)\).*the data hold it"):
        rs.scan(lambda p, c, x: (c, x["a"]), None, None, {"a": jnp.ones((4, 2)).at[2, 1].set(jnp.nan)}, debug=True)
    with pytest.raises(rs.NonFiniteError, match=r"`carry\['h'\]` is inf.*before the first step"):
        rs.scan(root, 1.0, {"h": jnp.full(3, -jnp.inf)}, xs, debug=True)
    with pytest.raises(rs.NonFiniteError, match=r"`params\['b'\]` is nan \(index \(2,\)\) before the first step"):
        rs.scan(lambda p, c, x: (c + p["b"] * x, c), {"b": jnp.array([1, 1, jnp.nan])}, jnp.zeros(3), xs, debug=True)
    rs.scan(root, 1.0, {"h": jnp.zeros(3)}, xs, lengths=jnp.array([6, 4, 6]), debug=True)  # the bad step is padding


@pytest.mark.parametrize("under", [jax.jit, jax.grad], ids=["jit", "grad of jit"])
def test_debug_prints_once_under_a_transformation(under, capsys):
    xs = jnp.full((6, 3), 2.0).at[4, 1].set(-1.0)
    run = jax.jit(lambda p: rs.scan(root, p, {"h": jnp.zeros(3)}, xs, debug=True)[1]["y"].sum())
    jax.block_until_ready(under(run)(1.0))
    jax.effects_barrier()
    printed = capsys.readouterr().out
    assert printed.count("`carry['h']` is nan at step 4") == 1 and printed.count("\n") == 1


@pytest.mark.parametrize("under", [lambda f: f, jax.jit, jax.grad], ids=["eager", "jit", "grad"])
def test_progress_reaches_the_end(under, capsys):
    run = partial(rs.scan, lambda p, h, x: (jnp.cos(p * h), None), xs=None, n_steps=250, progress=True)
    jax.block_until_ready(under(lambda p: run(p, 0.5)[0])(0.9))
    jax.effects_barrier()
    shown = capsys.readouterr().err
    assert "250/250" in shown and "100%" in shown


def test_progress_and_debug_change_no_result():
    case = library(rs.cells.GRU(3, 4))
    params, _, xs = case.make(jax.random.key(0), 5)
    want = rs.scan(case.cell, params, None, xs)
    assert_close(rs.scan(case.cell, params, None, xs, progress=True, debug=True), want)
    assert want[1].shape == (5, ROWS, 4)


@pytest.mark.parametrize("reverse", [False, True])
def test_progress_moves_inside_a_loop_that_takes_long(reverse, capsys, monkeypatch):
    """Made to believe that every step takes long, the bar moves inside the loop, where it asks at each step."""
    cell = lambda p, h, x: (jnp.cos(p * h + x), h)
    run = lambda **options: rs.scan(cell, 0.9, 0.5, jnp.arange(40.0), reverse=reverse, **options)
    conds = lambda **options: str(jax.make_jaxpr(lambda: run(**options))()).count("cond[")
    want = run()
    assert conds(progress=True) == 0  # over in no time: nothing is asked
    monkeypatch.setattr(progress_rewrite, "_SECONDS_A_STEP", 1.0)
    monkeypatch.setattr(progress_rewrite, "_SECONDS_UNSEEN", 0.0)
    cell = lambda p, h, x: (jnp.cos(p * h + x), h)  # a new cell, a new program
    assert conds(progress=True) == 1
    assert_close(run(progress=True), want)
    jax.effects_barrier()
    assert "40/40" in capsys.readouterr().err


def test_flops_counts_products_and_loops():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert flops(lambda a, b: a @ b, a, b) == 2 * 3 * 4 * 5
    assert flops(lambda a, b: jnp.tanh(a @ b), a, b) == 2 * 3 * 4 * 5 + 15
    assert flops(lambda a, b: jax.lax.scan(lambda c, _: (c, a @ b), 0.0, None, 7)[1], a, b) == 7 * 2 * 3 * 4 * 5

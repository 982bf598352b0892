"""The contract of `scan`: every cell, method and option against a plain Python loop over each row's valid steps.

At T = 5 each cell meets, in every method, every two levels of any two options together (a covering array), and the
cells between them every three levels of any three. At T = 1 and at T = 0 the cells between them meet every two.

Values, gradients and, for the compiled methods, derivatives along a tangent of both (forward mode and second order)
equal the plain loop's; the reference runs eagerly where the others run under `jit`, and under `jit` of `vmap`.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan._options import HONOURED, METHODS
from tests.helpers import CELLS, ROWS, assert_close, compile_quickly, draw
from tests.plain import plain_loop
from tests.tables import all_combinations, combinations, covering_array, relabelled, shared_table


FACTORS = {
    "select": ("none", "lengths", "mask"),
    "resets": ("none", "given carry", "own carry"),
    "outputs": ("all", "last", "none"),
    "watch": ("no", "debug", "progress"),
    "under": ("jit", "vmap"),
    "unroll": (1, 2),
    "masked_output": ("zero", "hold"),
    "reverse": (False, True),
    "time_axis": (0, 1),
    "cut": (False, True),  # xs are longer than n_steps
    "optimize": (True, False),
}
MORE = {**FACTORS, "unroll": (1, 2, True), "under": ("jit", "vmap", "eager")}
PAIRS = covering_array(FACTORS, seed=100)  # 12 rows; most seeds give 13 or 14
TABLE = {  # n_steps -> a table for each cell
    5: relabelled(PAIRS, FACTORS, len(CELLS), seed=5),
    1: shared_table(MORE, len(CELLS), size=1, strength=2, seed=1),
    0: shared_table(MORE, len(CELLS), size=1, strength=2, seed=0),
}
ROWS_OF = {  # cell -> its rows
    case.name: [{"n_steps": n, **row} for n in TABLE for row in TABLE[n][i]] for i, case in enumerate(CELLS)
}
NOISE = jax.random.key(3, impl="unsafe_rbg")  # for the compiler a hundredth of what threefry is
LENGTHS = np.array([3, 0, 5])
MASK = np.array([[0, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], bool)  # holes, late starts, early ends
RESETS = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [0, 1, 1]], bool)


def selection(row, copy=0):
    """The arrays that a row of options passes, and `valid` and `resets` as the plain loop takes them."""
    n = row["n_steps"]
    valid, arrays = np.ones((n, ROWS), bool), {}
    size = n + 2 * row["cut"]
    pad = lambda flags: np.roll(np.concatenate([flags, flags])[:size], copy, axis=1)
    if row["select"] == "lengths":
        arrays["lengths"] = np.roll(np.minimum(LENGTHS, size), copy).astype(np.int32)
        valid = np.arange(n)[:, None] < arrays["lengths"]
    if row["select"] == "mask":
        arrays["mask"] = pad(MASK)
        valid = arrays["mask"][:n]
    if row["resets"] != "none":
        arrays["resets"] = pad(RESETS)
    return arrays, valid, arrays["resets"][:n] if "resets" in arrays else None


@jax.jit
def objective(carry_and_ys):
    """A curved scalar in which every number has a weight of its own, so that none can stand in another's place."""
    total = 0.0
    for leaf in jax.tree.leaves(carry_and_ys):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            weights = 1 + jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape) / 7
            total = total + jnp.sum(weights * jnp.cos(leaf + 0.3))
    return total


def loss_of(run):
    """`inputs -> (a scalar of what `run` returns, what it returns)`."""

    def loss(inputs, *arrays):
        result = run(inputs, *arrays)
        return objective(result), result

    return loss


def gradient(run):
    """`(inputs, tangents) -> value, result and gradient`; the tangents are for `all_derivatives`."""

    def program(inputs, tangents, *arrays):
        del tangents
        (value, result), gradient = jax.value_and_grad(loss_of(run), has_aux=True)(inputs, *arrays)
        return {"value": value, "result": result, "gradient": gradient}

    return program


def all_derivatives(run):
    """The same, with the derivatives of value and gradient along the tangents: forward mode, and second order."""

    def program(inputs, tangents, *arrays):
        first = lambda inputs: jax.value_and_grad(loss_of(run), has_aux=True)(inputs, *arrays)
        ((value, result), gradient), ((slope, _), curvature) = jax.jvp(first, (inputs,), (tangents,))
        return {"value": value, "result": result, "gradient": gradient, "slope": slope, "curvature": curvature}

    return program


def float_part(tree):
    """The leaves one can differentiate by, and a function that puts them back."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def put_back(values):
        filled = list(leaves)
        for i, value in zip(floats, values, strict=True):
            filled[i] = value
        return jax.tree.unflatten(structure, filled)

    return [leaves[i] for i in floats], put_back


def make_inputs(case, row, key):
    """Floats to differentiate by, in one list, and how to read (params, carry, xs, reset_carry) out of it."""
    size = row["n_steps"] + 2 * row["cut"]
    params, carry, xs = case.make(key, size)
    fresh = case.make(jax.random.fold_in(key, 7), size)[1]
    if case.carry is None:
        carry, fresh = (
            jax.tree.map(lambda a, i=i: np.asarray(a) + 0.1 * i, case.cell.initial_carry((ROWS,), params=params))
            for i in (1, 2)
        )
    return float_part((params, carry, xs, fresh if row["resets"] == "own carry" else None))


def run_scan(case, row, method, put_back, values, arrays):
    params, carry, xs, fresh = put_back(values)
    cell, params = case.bind(case.cell, params)
    if row["time_axis"] == 1:
        xs = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), xs)
        arrays = {k: v if k == "lengths" else jnp.moveaxis(v, 0, 1) for k, v in arrays.items()}
    names = ("outputs", "unroll", "masked_output", "reverse", "time_axis", "optimize")
    options = {name: row[name] for name in names if method in HONOURED[name]}
    if row["cut"] or case.features is None:
        options["n_steps"] = row["n_steps"]
    if row["watch"] != "no":
        options[row["watch"]] = True
    carry, ys = rs.scan(
        cell,
        params,
        carry,
        xs,
        key=NOISE if case.stochastic else None,
        reset_carry=fresh,
        method=method,
        **options,
        **arrays,
    )
    if row["time_axis"] == 1 and row["outputs"] == "all":
        ys = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), ys)
    return carry, ys


def run_plain(case, row, put_back, values, *, valid, resets):
    params, carry, xs, fresh = put_back(values)
    xs = jax.tree.map(lambda leaf: leaf[: row["n_steps"]], xs)
    return plain_loop(
        case, params, carry, xs, n_steps=row["n_steps"], valid=valid, resets=resets, reset_carry=fresh,
        key=NOISE if case.stochastic else None,
        reverse=row["reverse"], hold=row["masked_output"] == "hold", outputs=row["outputs"],
    )  # fmt: skip


def poison(put_back, values, valid):
    """The same floats with NaN in every input that no valid step reads."""
    params, carry, xs, fresh = put_back(values)

    def spoil(leaf):
        used = np.zeros(leaf.shape[:2], bool)
        used[: len(valid)] = valid
        return np.where(used.reshape(used.shape + (1,) * (leaf.ndim - 2)), leaf, np.nan)

    return float_part((params, carry, jax.tree.map(spoil, xs), fresh))[0]


@lru_cache(maxsize=2)
def given_and_expected(case, number):
    """What a row passes to the scan, with NaN where no valid step reads, and what the plain loop makes of it."""
    row, key = ROWS_OF[case.name][number], jax.random.key(0)
    values, put_back = make_inputs(case, row, key)
    numbers = draw(jax.random.fold_in(key, 11))
    along = [numbers.normal(size=v.shape) for v in values]
    copies = []
    for copy in range(2 if row["under"] == "vmap" else 1):
        arrays, valid, resets = selection(row, copy)
        inputs = [v + 0.05 * copy * a for v, a in zip(values, along, strict=True)]
        plain = all_derivatives(partial(run_plain, case, row, put_back, valid=valid, resets=resets))(inputs, along)
        given = inputs if case.stochastic else poison(put_back, inputs, valid)
        copies.append((given, along, arrays, plain))
    if row["under"] == "vmap":
        copies = [jax.tree.map(lambda *leaves: np.stack(leaves), *copies)]
    *given, expected = copies[0]
    given = jax.tree.map(jnp.asarray, given)
    return put_back, given, expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", range(len(ROWS_OF[CELLS[0].name])))
@pytest.mark.parametrize("case", CELLS, ids=repr)
def test_every_option_equals_the_plain_loop(case, number, method):
    row = ROWS_OF[case.name][number]
    put_back, given, expected = given_and_expected(case, number)
    run = partial(run_scan, case, row, method, put_back)
    by_steps = row["under"] == "eager" or (method == "reference" and row["under"] == "jit")
    program = gradient(run) if by_steps or method == "reference" else all_derivatives(run)
    if row["under"] == "vmap":
        program = jax.vmap(program)
    if not by_steps:  # else one operation after another, compiled one by one
        program = compile_quickly(program)
    got = program(*given)
    assert_close(got, {name: expected[name] for name in got})
    if "slope" in got:
        check_by_finite_differences(program, got, *given)


def check_by_finite_differences(program, got, inputs, along, arrays, step=1e-6):
    """The derivative along the tangents from two values beside, against forward and reverse mode."""
    beside = [[v + sign * step * a for v, a in zip(inputs, along, strict=True)] for sign in (1, -1)]
    up, down = (program(moved, along, arrays)["value"] for moved in beside)
    copies = np.ndim(up)  # 1 under vmap
    reverse = sum(np.sum(g * a, tuple(range(copies, g.ndim))) for g, a in zip(got["gradient"], along, strict=True))
    np.testing.assert_allclose((up - down) / (2 * step), got["slope"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(reverse, got["slope"], rtol=1e-9, atol=1e-11)


def test_the_tables_show_what_they_say():
    for block in TABLE[5]:
        assert set().union(*(combinations(row, 2) for row in block)) == all_combinations(FACTORS, 2)
    for n_steps, factors, strength in ((5, FACTORS, 3), (1, MORE, 2), (0, MORE, 2)):
        rows = [row for block in TABLE[n_steps] for row in block]
        assert set().union(*(combinations(row, strength) for row in rows)) == all_combinations(factors, strength)

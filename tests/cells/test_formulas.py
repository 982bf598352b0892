"""Each cell against NumPy written from its paper's formula: several steps, non-zero biases, every batch rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnscan.cells import GRU, LSTM, Elman, Linear


IN, HIDDEN, STEPS = 3, 4, 5


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def columns(w, gate):
    """Gate number `gate` of an array with gates side by side."""
    return w[..., gate * HIDDEN : (gate + 1) * HIDDEN]


def linear_step(p, s, x):
    s = s @ p["w_h"] + x @ p["w_x"]
    return s, s


def elman_step(f):
    def step(p, h, x):
        h = f(x @ p["w_x"] + p["b"] + h @ p["w_h"] + p.get("b_h", 0))
        return h, h

    return step


def lstm_step(p, carry, x):
    h, c = carry
    i, f, g, o = (x @ columns(p["w_x"], k) + h @ columns(p["w_h"], k) + columns(p["b"], k) for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def gru_step(reset_after):
    def step(p, h, x):
        w, u, b = ([columns(p[name], k) for k in range(3)] for name in ("w_x", "w_h", "b"))
        b_h = [columns(p["b_h"], k) for k in range(3)] if reset_after else [0, 0, 0]
        r = sigmoid(x @ w[0] + b[0] + h @ u[0] + b_h[0])
        z = sigmoid(x @ w[1] + b[1] + h @ u[1] + b_h[1])
        n = np.tanh(x @ w[2] + b[2] + (r * (h @ u[2] + b_h[2]) if reset_after else (r * h) @ u[2]))
        h = (1 - z) * n + z * h
        return h, h

    return step


CASES = [
    (Linear(IN, HIDDEN), linear_step),
    (Elman(IN, HIDDEN), elman_step(np.tanh)),
    (Elman(IN, HIDDEN, "relu"), elman_step(lambda a: np.maximum(a, 0))),
    (Elman(IN, HIDDEN, "identity", double_bias=True), elman_step(lambda a: a)),
    (Elman(IN, HIDDEN, jnp.sin), elman_step(np.sin)),
    (LSTM(IN, HIDDEN), lstm_step),
    (GRU(IN, HIDDEN), gru_step(True)),
    (GRU(IN, HIDDEN, reset_after=False), gru_step(False)),
]
NAMES = ["Linear", "Elman", "Elman-relu", "Elman-double-bias", "Elman-sin", "LSTM", "GRU", "GRU-reset-before"]


def noise(key, tree):
    """Normal numbers in the shapes and dtypes of a tree: no block is zero, none equals another."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    )


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
@pytest.mark.parametrize(("cell", "formula"), CASES, ids=NAMES)
def test_a_cell_computes_its_formula(cell, formula, batch, key):
    keys = jax.random.split(key, 3)
    params = noise(keys[0], cell.init(key))
    carry = noise(keys[1], cell.initial_carry(batch))
    xs = jax.random.normal(keys[2], (STEPS, *batch, IN))
    np_params, np_carry = jax.tree.map(np.asarray, (params, carry))
    for x in xs:
        carry, y = cell(params, carry, x)
        np_carry, np_y = formula(np_params, np_carry, np.asarray(x))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13), (carry, y), (np_carry, np_y)
        )


@pytest.mark.parametrize("cell", [cell for cell, _ in CASES], ids=NAMES)
def test_params_of_init_have_the_shapes_that_the_formula_reads(cell, key):
    gates = {Linear: 1, Elman: 1, LSTM: 4, GRU: 3}[type(cell)]
    biases = [] if isinstance(cell, Linear) else ["b"]
    biases += ["b_h"] if getattr(cell, "double_bias", False) or getattr(cell, "reset_after", False) else []
    want = {"w_x": (IN, gates * HIDDEN), "w_h": (HIDDEN, gates * HIDDEN)} | {b: (gates * HIDDEN,) for b in biases}
    assert {name: leaf.shape for name, leaf in cell.init(key).items()} == want


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("cell", "formula"), CASES, ids=NAMES)
def test_a_cell_stays_in_its_dtype(cell, formula, dtype, key):
    params = noise(key, cell.init(key, dtype))
    carry = noise(key, cell.initial_carry((2,), params=params))
    x = jax.random.normal(key, (2, IN), dtype)
    got = cell(params, carry, x)
    want = formula(*jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, carry, x)))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    eps = float(jnp.finfo(dtype).eps)  # a few roundings of sums of fewer than ten numbers of size up to 5
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=0, atol=30 * eps), got, want
    )


def test_linear_counts_the_ones_in_its_input():
    one = jnp.ones((1, 1))
    s = jnp.zeros(1)
    for bit in (1, 0, 1, 1, 0):
        s, y = Linear(1, 1)({"w_x": one, "w_h": one}, s, jnp.full((1,), float(bit)))
    assert float(y[0]) == 3.0

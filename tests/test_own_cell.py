"""`examples/own_cell.py`: its layers and its functions against NumPy, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np

from examples import own_cell
from tests.helpers import assert_close


def test_my_rnn_is_the_formula_as_a_layer_and_as_a_function(key):
    """h = tanh(h W_h + x W_x + b) over the rows, from zeros; gradients of the layer's weights are the function's."""
    params = jax.tree.map(lambda leaf: leaf + 0.05, own_cell.init(key, 3, 4))["cell"]
    images = np.random.default_rng(0).normal(size=(2, 5, 3))
    layer = own_cell.MyRNN(4)
    assert jax.tree.map(jnp.shape, layer.build(key, images.shape)) == jax.tree.map(jnp.shape, params)
    h = np.zeros((2, 4))
    for t in range(5):
        h = np.tanh(h @ np.asarray(params["w_h"]) + images[:, t] @ np.asarray(params["w_x"]) + np.asarray(params["b"]))
    ways = [layer, own_cell.last_state]
    slopes = []
    for way in ways:
        value = jax.jit(jax.value_and_grad(lambda p, way=way: (jnp.cos(way(p, images)) * (1 + np.arange(4.0))).sum()))
        total, slope = value(params)
        np.testing.assert_allclose(total, (np.cos(h) * (1 + np.arange(4.0))).sum(), rtol=1e-12)
        slopes.append(slope)
    assert_close(*slopes)
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(slopes[0]))


def test_ode_rnn_is_eulers_method():
    """From two first values at once; the rates' gradients reach them through what `step_do` reads from the layer."""
    rates, begin = own_cell.RATES, np.array([[100.0, 150.0], [120.0, 80.0]])
    layer = own_cell.OdeRNN(4, 0.5)
    y, ys = begin, []
    for _ in range(4):
        growth = np.array([0.1, 0.3]) * y * (1 - np.array([0.002, 0.003]) * y)
        y = y + 0.5 * (growth - np.array([1e-4, 2e-4]) * y.prod(1, keepdims=True))
        ys.append(y)
    np.testing.assert_allclose(layer(layer.build(rates), jnp.asarray(begin)), np.stack(ys, 1), rtol=1e-12)
    first = jnp.asarray(begin[:1])
    ported = jax.grad(lambda r: layer(r, first)[0, -1, 0] + layer(r, first)[0, -1, 1])(rates)
    direct = jax.grad(lambda r: own_cell.solve(own_cell.rs.ode.Euler, 0.5, r, 4)[-1].sum())(rates)
    assert_close(ported, direct)
    assert all(abs(slope) > 1 for slope in ported.values())


def test_difference_is_relative_to_the_largest_entry():
    assert own_cell.difference({"a": [1.0, 2.0], "b": [8.0]}, {"a": [1.0, 2.5], "b": [10.0]}) == 0.2

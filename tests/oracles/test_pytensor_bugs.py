"""One test for each thing that PyTensor's `scan` gets wrong: what it does, by running it, and what is right.

PyTensor 3.0.7, the version that the oracle environment pins.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor import scan as theirs
from pytensor.scan import reduce as their_reduce
from pytensor.scan import until as their_until

import rnnscan as rs
from rnnscan.compat import theano
from tests.oracles.test_pytensor import QUICK


X = np.arange(1.0, 6.0)


def run(build, *arrays):
    """Runs the PyTensor graph that `build(*symbols)` makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        symbols = [pt.tensor(dtype="float64", shape=(None,) * np.ndim(a)) for a in arrays]
        found = pytensor.function(symbols, build(*symbols), mode=QUICK, on_unused_input="ignore")(
            *map(np.asarray, arrays)
        )
    return [np.asarray(y) for y in found]


def test_one_step_backwards():
    """n_steps=1 builds no loop, and the short cut forgets go_backwards."""
    wrong = run(lambda x: [theirs(lambda x: 2 * x, x, n_steps=1, go_backwards=True)[0]], X)
    assert wrong[0] == [2.0]
    assert theano.scan(lambda x: 2 * x, X, n_steps=1, go_backwards=True)[0].tolist() == [10.0]


def test_no_step_loses_the_features():
    """Outputs that are not fed back have no buffer to take the shape from."""
    vector = np.array([1.0, 2.0, 3.0])
    wrong = run(lambda x, v: [theirs(lambda x, v: x * v, x, None, v)[0]], X[:0], vector)
    assert wrong[0].shape == (0, 0)
    assert theano.scan(lambda x, v: x * v, X[:0], None, vector)[0].shape == (0, 3)


def test_reduce_over_nothing():
    """What is fed back comes out as its initial value; of another output it takes the last of none."""
    step = lambda x, a: [x + a, x]
    start = lambda: [pt.constant(7.0, dtype="float64"), None]
    assert run(lambda x: [their_reduce(step, x, start())[0][0]], X[:0])[0] == 7.0
    with pytest.raises(IndexError):
        run(lambda x: [their_reduce(step, x, start())[0][1]], X[:0])
    assert [float(y) for y in theano.reduce(step, X[:0], [7.0, None])[0]] == [7.0, 0.0]


def test_gradient_after_until():
    """pytensor#2217: what goes to the sequence moves by as many places as the output has taps, or runs off its end."""

    def derivative(limit):
        def build(x):
            step = lambda x, h: (0.5 * h + x, their_until(x > limit))
            h, _ = theirs(step, x, pt.constant(0.3, dtype="float64"))
            return [pytensor.grad(h.sum(), x)]

        return lambda: run(build, X)

    step = lambda limit: lambda x, h: (0.5 * h + x, theano.until(x > limit))
    ours = lambda limit: jax.grad(lambda x: jnp.sum(theano.scan(step(limit), x, 0.3)[0]))(X).tolist()
    right = [1.75, 1.5, 1.0, 0.0, 0.0]  # three steps: 1, 2, 3
    assert ours(2.5) == right
    assert derivative(2.5)()[0].tolist() == [0.0, *right[:-1]]
    with pytest.raises(ValueError, match="negative dimensions"):
        derivative(9.0)()
    assert ours(9.0) == [1.9375, 1.875, 1.75, 1.5, 1.0]


def test_truncation_is_of_the_sequence():
    """No fault but a trap, and kept: a map loses its early derivatives too. `rs.train.tbptt` is what one may want."""
    build = lambda x: [pytensor.grad(theirs(lambda x: x * x, x, truncate_gradient=2)[0].sum(), x)]
    ours = jax.grad(lambda x: jnp.sum(theano.scan(lambda x: x * x, x, truncate_gradient=2)[0]))(X)
    assert run(build, X)[0].tolist() == ours.tolist() == [0.0, 0.0, 0.0, 8.0, 10.0]


def test_too_few_initial_rows():
    """T3: tap -3 of two rows loses a step and reads memory that nothing has written."""
    rows = np.array([2.0, 3.0])
    wrong = run(lambda h: [theirs(lambda h: h, None, {"initial": h, "taps": [-3]}, n_steps=3)[0]], rows)
    assert len(wrong[0]) == 2
    with pytest.raises(rs.TapError, match="need 3 initial rows, oldest first; got 2"):
        theano.scan(lambda h: h, None, {"initial": rows, "taps": [-3]}, n_steps=3)


def test_taps_that_leave_no_step():
    """T5: tap 9 of three elements."""
    taps = lambda x: {"input": x, "taps": [9]}
    assert run(lambda x: [theirs(lambda x: x, taps(x))[0]], X[:3])[0].shape == (0,)
    with pytest.raises(rs.TapError, match="tap 9 leaves no steps: T=3"):
        theano.scan(lambda x: x, taps(X[:3]))


def test_a_misspelt_key_of_a_sequence():
    """{"tap": [1]} is read as no taps at all."""
    assert run(lambda x: [theirs(lambda x: x, {"input": x, "tap": [1]})[0]], X)[0].tolist() == X.tolist()
    with pytest.raises(TypeError, match=r"unknown keys \['tap'\]"):
        theano.scan(lambda x: x, {"input": X, "tap": [1]})

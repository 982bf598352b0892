"""The cases that recurrent libraries get wrong, each with the numbers worked out by hand.

The cell is `h = h + x; y = h` with x = 1, 2, 3, 4 and h_0 = 100, unless a row says otherwise, so that an output is 100
and the sum of the valid inputs so far, and the derivative of `sum(ys)` with respect to x_s counts the outputs that
contain x_s. What the others answer is said with each row; F and T are masked and valid steps.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan._options import METHODS
from tests.helpers import assert_close


XS, H_0 = jnp.array([1.0, 2.0, 3.0, 4.0]), 100.0
FTTF = np.array([False, True, True, False])


def cell(params, h, x):
    del params
    return h + x, h + x


def tenfold(params, h, x):
    """An output that is no part of the state."""
    return h + x, 10 * (h + x)


# name: (cell, options, final carry, ys, d sum(ys) / dx)
TABLE = {
    # Keras on JAX gives 100, the state, at the masked first step
    "F T T F, hold": (cell, {"mask": FTTF, "masked_output": "hold"}, 105, [0, 102, 105, 105], [0, 3, 2, 0]),
    # Keras on JAX ignores the flag where the loop is unrolled, and gives 105 at the end
    "F T T F, zero": (cell, {"mask": FTTF}, 105, [0, 102, 105, 0], [0, 2, 1, 0]),
    # Keras on JAX gives 100 and 105, the state in the output's place
    "F T T F, hold, output is not the state": (
        tenfold, {"mask": FTTF, "masked_output": "hold"}, 105, [0, 1020, 1050, 1050], [0, 30, 20, 0]),
    # Keras gives 0 for the last output where it zeroes masked ones
    "last output, zero": (cell, {"mask": FTTF, "outputs": "last"}, 105, 105, [0, 1, 1, 0]),
    "last output, hold": (cell, {"mask": FTTF, "outputs": "last", "masked_output": "hold"}, 105, 105, [0, 1, 1, 0]),
    # Flax gives 106 and 110, computed on the padding
    "length 2 of 4": (cell, {"lengths": 2}, 103, [101, 103, 0, 0], [2, 1, 0, 0]),
    # the trap in holding: a plain sum counts the last valid output three times
    "length 2 of 4, hold": (cell, {"lengths": 2, "masked_output": "hold"}, 103, [101, 103, 103, 103], [4, 3, 0, 0]),
    "length 2 of 4, reverse": (cell, {"lengths": 2, "reverse": True}, 103, [103, 102, 0, 0], [1, 2, 0, 0]),
    # torch refuses; Flax gives 110, the state after all padding
    "length 0": (cell, {"lengths": 0}, 100, [0, 0, 0, 0], [0, 0, 0, 0]),
    "all masked, hold": (cell, {"mask": np.zeros(4, bool), "masked_output": "hold"}, 100, [0] * 4, [0] * 4),
    "length 4": (cell, {"lengths": 4}, 110, [101, 103, 106, 110], [4, 3, 2, 1]),
    "reverse": (cell, {"reverse": True}, 110, [110, 109, 107, 104], [1, 2, 3, 4]),
    # Haiku's ResetCore fires before the flagged step of reversed time; here it is the boundary before step 2, both ways
    "reset before step 2": (cell, {"resets": np.arange(4) == 2}, 107, [101, 103, 103, 107], [2, 1, 2, 1]),
    "reset before step 2, reverse": (
        cell, {"resets": np.arange(4) == 2, "reverse": True}, 103, [103, 102, 107, 104], [1, 2, 1, 2]),
}  # fmt: skip


def value_and_gradient(run, xs):
    def loss(xs):
        carry, ys = run(xs)
        return jnp.sum(ys), (carry, ys)

    (_, result), gradient = jax.value_and_grad(loss, has_aux=True)(xs)
    return *result, gradient


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", TABLE)
def test_scan(row, method):
    step, options, carry, ys, gradient = TABLE[row]
    run = lambda xs: rs.scan(step, None, H_0, xs, method=method, **options)
    want = jax.tree.map(lambda a: jnp.asarray(a, float), (carry, jnp.asarray(ys), jnp.asarray(gradient)))
    under = (lambda f: f) if method == "reference" else jax.jit
    assert_close(under(partial(value_and_gradient, run))(XS), want)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", [row for row in TABLE if {"lengths", "mask"} & TABLE[row][1].keys()])
def test_nan_in_padding_changes_nothing(row, method):
    """Keras, Flax and `lax.scan` with `where`: NaN in every gradient. torch's packed sequences: finite."""
    _, options, carry, ys, gradient = TABLE[row]
    valid = np.arange(4) < options["lengths"] if "lengths" in options else options.get("mask", np.ones(4, bool))
    weigh = lambda w, h, x: (h + w * x, (h + w * x) * (10 if TABLE[row][0] is tenfold else 1))

    def loss(w, xs):
        carry, ys = rs.scan(weigh, w, H_0, xs, method=method, **options)
        return jnp.sum(ys), (carry, ys)

    bad = jnp.where(valid, XS, jnp.nan)
    (_, result), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(1.0, bad)
    want = (float(carry), jnp.asarray(ys, float)), (float(np.dot(gradient, XS)), jnp.asarray(gradient, float))
    assert_close((result, gradients), jax.tree.map(jnp.asarray, want))


@pytest.mark.parametrize("method", METHODS)
def test_length_beyond_the_end(method):
    """torch builds a malformed PackedSequence; Flax clamps, and with reverse rotates the row (101 105 108 110)."""
    for reverse in (False, True):
        with pytest.raises(rs.LengthError, match=r"`lengths` = 7 exceeds T = 4"):
            rs.scan(cell, None, H_0, XS, lengths=7, reverse=reverse, method=method)
        run = lambda n, **options: rs.scan(cell, None, H_0, XS, lengths=n, **options)
        got = jax.jit(partial(run, reverse=reverse, method=method))(7)  # a value that cannot be seen counts as T
        assert_close(got, run(4, reverse=reverse))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [{}, {"lengths": 0}, {"mask": np.zeros(0, bool)}, {"outputs": "last"}], ids=str)
def test_no_steps(options, method):
    """Keras: IndexError; torch: RuntimeError; Haiku's static unroll: TypeError; lax.scan: ValueError without jit."""
    for context in (jax.disable_jit(False), jax.disable_jit(True)):
        with context:
            carry, ys = rs.scan(cell, None, H_0, XS[:0], method=method, **options)
            gradient = jax.grad(lambda h: rs.scan(cell, None, h, XS[:0], method=method, **options)[0] ** 2)(H_0)
            assert_close((carry, ys), (jnp.array(100.0), jnp.zeros(() if "outputs" in options else 0)))
            assert gradient == 200.0


def test_no_steps_keep_the_features():
    """pytensor gives outputs of shape (0, 0) for vectors of three."""
    vectors = lambda x: (x * jnp.arange(3.0), {})
    outputs, _ = rs.compat.theano.scan(vectors, sequences=XS[:0], outputs_info=[None])
    assert_close(outputs, jnp.zeros((0, 3)))
    assert_close(rs.scan(lambda p, c, x: (c, x * jnp.arange(3.0)), None, None, XS[:0])[1], jnp.zeros((0, 3)))


def keras_step(scale):
    def step(x, states):
        h = states[0] + x
        return scale * h, [h]

    return step


KERAS = {  # (scale, options, outputs, last output, state, gradient): the torch and TensorFlow backends' column
    "F T T F, hold": (1, {}, [0, 102, 105, 105], 105, 105, [0, 3, 2, 0]),
    "F T T F, zero": (1, {"zero_output_for_mask": True}, [0, 102, 105, 0], 0, 105, [0, 2, 1, 0]),
    "output is not the state": (10, {}, [0, 1020, 1050, 1050], 1050, 105, [0, 30, 20, 0]),
}


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("row", KERAS)
def test_keras(row, unroll):
    scale, options, outputs, last, state, gradient = KERAS[row]

    def run(xs):
        got = rs.compat.keras.rnn(keras_step(scale), xs.reshape(1, 4, 1), [jnp.full((1, 1), H_0)], mask=FTTF[None],
                                  unroll=unroll, **options)  # fmt: skip
        return (got[0].reshape(()), got[2][0].reshape(())), got[1].reshape(4)

    want = jax.tree.map(lambda a: jnp.asarray(a, float), ((last, state), jnp.asarray(outputs), jnp.asarray(gradient)))
    assert_close(value_and_gradient(run, XS), want)


class Accumulate:
    """The cell of the table, as TensorFlow wants one."""

    state_size = output_size = 1

    def __call__(self, params, inputs, state):
        return state + inputs, state + inputs


TENSORFLOW = {  # length: (outputs, state, gradient)
    2: ([101, 103, 0, 0], 103, [2, 1, 0, 0]),
    0: ([0, 0, 0, 0], 100, [0, 0, 0, 0]),
    4: ([101, 103, 106, 110], 110, [4, 3, 2, 1]),
}


@pytest.mark.parametrize("n", TENSORFLOW)
@pytest.mark.parametrize("function", ["static_rnn", "dynamic_rnn"])
def test_tensorflow(function, n):
    outputs, state, gradient = TENSORFLOW[n]

    def run(xs):
        given = {"initial_state": jnp.full((1, 1), H_0), "sequence_length": np.array([n])}
        if function == "static_rnn":
            ys, last = rs.compat.tensorflow.static_rnn(Accumulate(), None, list(xs.reshape(4, 1, 1)), **given)
            return last.reshape(()), jnp.stack(ys).reshape(4)
        ys, last = rs.compat.tensorflow.dynamic_rnn(Accumulate(), None, xs.reshape(1, 4, 1), **given)
        return last.reshape(()), ys.reshape(4)

    want = (jnp.array(state, float), jnp.array(outputs, float), jnp.array(gradient, float))
    assert_close(value_and_gradient(run, XS), want)


@pytest.mark.parametrize(
    ("options", "want"), [({}, [101, 103, 106, 110]), ({"go_backwards": True}, [104, 107, 109, 110])]
)
def test_theano(options, want):
    """Backwards, outputs stand in the order they were made."""
    got, _ = rs.compat.theano.scan(lambda x, h: h + x, sequences=XS, outputs_info=H_0, **options)
    assert_close(got, jnp.array(want, float))

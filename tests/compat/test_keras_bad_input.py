"""What Keras' `rnn` says to wrong input: one row a fault (S: sequences, L: lengths, K: masks, C: step and states)."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rnnscan as rs
from tests.faults import CARRY, LENGTH, OUTPUT, SEQUENCE, fails, refused


B, T = 2, 5
X = np.linspace(0.1, 0.9, B * T * 3).reshape(B, T, 3)
H = np.full((B, 3), 0.2)


def add(x, states):
    h = states[0] + x
    return h, [h]


def unpack(x, states):
    h, c = states
    return h, [h, c]


def scale(x, states):
    return x * states[1], states[:1]


def rnn(inputs=X, states=(H,), step=add, **options):
    return lambda: rs.compat.keras.rnn(step, inputs, states, **options)


def ones(*shape):
    return np.ones(shape, bool)


SEQUENCES = [
    fails("S1 scalar", SEQUENCE, rnn({"price": jnp.asarray(1.0)}),
          "`inputs['price']` has shape (), expected (B, T, ...) with at least three axes"),
    fails("S2 list of numbers", SEQUENCE, rnn([1.0, 2.0]),
          "`inputs` is a tree of 2 Python numbers, not of sequences (B, T, ...); did you mean `jnp.asarray(inputs)`?"),
    fails("S2 list of lists", SEQUENCE, rnn(X.tolist()), "a tree of 30 Python numbers"),
    fails("S2 strings", TypeError, rnn(["a", "b"]), "`inputs[0]` must be an array or a number, got 'a' (str)"),
    fails("S2 iterator", TypeError, rnn(iter([1.0])), "`inputs` is a list_iterator, not an array"),
    fails("S3 missing time axis", SEQUENCE, rnn(X[:, 0]),
          "`inputs` has shape (2, 3), expected (B, T, ...) with at least three axes. Write `inputs[..., None]`"),
    fails("S3 missing time axis, time first", SEQUENCE, rnn(X[:, 0], time_major=True),
          "`inputs` has shape (2, 3), expected (T, B, ...)"),
    fails("S3 missing time axis in a dict", SEQUENCE, rnn({"x": X[:, 0]}), "Write `inputs['x'][..., None]` for one"),
    fails("S3 list of steps", SEQUENCE, rnn([*X.swapaxes(0, 1)]),
          "`inputs[0]` has shape (2, 3), expected (B, T, ...) with at least three axes. If `inputs` is a list of time "
          "steps, write `jnp.stack(inputs, 1)`."),
    fails("S3 tuple of steps, time first", SEQUENCE, rnn((*X.swapaxes(0, 1),), time_major=True),
          "If `inputs` is a tuple of time steps, write `jnp.stack(inputs, 0)`."),
    fails("S3 list of steps of one number", SEQUENCE, rnn([*X[..., 0].T]), "write `jnp.stack(inputs, 1)[..., None]`."),
    fails("S4 T differs", SEQUENCE, rnn([X, X[:, :4]]),
          "inputs disagree on T: `inputs[0]` has shape (2, 5, ...), `inputs[1]` has (2, 4, ...), both (B, T, ...)"),
    fails("S4 B differs", SEQUENCE, rnn([X, X[:1]]),
          "inputs disagree on B: `inputs[0]` has shape (2, 5, ...), `inputs[1]` has (1, 5, ...)"),
    fails("S10 no input", SEQUENCE, rnn(None), "`inputs` holds no array; `rnn` takes its steps from it"),
    fails("S13 batch", SEQUENCE, rnn(states=[np.zeros((3, 3))]),
          "batch size: `initial_states[0]` has 3 rows, inputs have 2."),
    fails("S13 one row", SEQUENCE, rnn(states=[{"h": np.zeros((1, 3))}]),
          "batch size: `initial_states[0]['h']` has 1 row, inputs have 2; "
          "`jnp.broadcast_to(initial_states[0]['h'], (2, 3))`"),
    fails("S13 time first", SEQUENCE, rnn(time_major=True),
          "batch size: `initial_states[0]` has 2 rows, inputs have 5, and 2 steps. If inputs are (B, T, ...), leave "
          "out `time_major=True`."),
    fails("S13 batch first", SEQUENCE, rnn(X.swapaxes(0, 1)),
          "batch size: `initial_states[0]` has 2 rows, inputs have 5, and 2 steps. If inputs are (T, B, ...), write "
          "`time_major=True`."),
]  # fmt: skip

LENGTHS = [
    fails("L2 above T", LENGTH, rnn(input_length=[3, 9]), "`input_length[1]` = 9 exceeds T = 5; a row has between"),
    fails("L2 one number above T", LENGTH, rnn(input_length=7), "`input_length` = 7 exceeds T = 5"),
    fails("L2 above T = 0", LENGTH, rnn(X[:, :0], input_length=[0, 1]), "`input_length[1]` = 1 exceeds T = 0"),
    fails("L3 negative", LENGTH, rnn(input_length=[3, -1]), "`input_length[1]` = -1 is negative"),
    fails("L3 one negative number", LENGTH, rnn(input_length=-1), "`input_length` = -1 is negative"),
    fails("L4 floats", TypeError, rnn(input_length=jnp.array([3.0, 4.7])),
          "`input_length` must be integers, got float64"),
    fails("L4 one float", TypeError, rnn(input_length=5.0), "`input_length` must be integers, got float64"),
    fails("L4 bool", TypeError, rnn(input_length=True), "`input_length` must be integers, got bool"),
    fails("L4 mask", TypeError, rnn(input_length=ones(2, 5)),
          "`input_length` must be integers, got bool[2,5]; an array of bools is a mask: `mask=`"),
    fails("L4 string", TypeError, rnn(input_length="34"),
          "`input_length` must be integers, one for each row, got '34'"),
    fails("L5 wrong batch", LENGTH, rnn(input_length=[1, 2, 3]),
          "`input_length` has shape (3,), expected () or (B,) = (2,)"),
    fails("L5 one column", LENGTH, rnn(input_length=np.array([[1], [2]])),
          "`input_length` has shape (2, 1), expected () or (B,) = (2,)"),
    fails("L5 one column, a list", LENGTH, rnn(input_length=[[1], [2]]), "`input_length` has shape (2, 1), expected"),
    fails("L5 ragged list", TypeError, rnn(input_length=[[1], [2, 3]]), "`input_length` must be integers"),
    fails("L6 lengths and mask", ValueError, rnn(input_length=[1, 2], mask=ones(2, 5)),
          "give `mask` or `input_length`, not both"),
    fails("L6 a short length and mask", ValueError, rnn(input_length=3, mask=ones(2, 5)),
          "give `mask` or `input_length`, not both"),
]  # fmt: skip

MASKS = [
    fails("K1 wrong T", SEQUENCE, rnn(mask=ones(2, 4)), "`mask` has shape (2, 4), expected (B, T) = (2, 5)"),
    fails("K1 wrong B", SEQUENCE, rnn(mask=ones(3, 5)), "`mask` has shape (3, 5), expected (B, T) = (2, 5)"),
    fails("K1 transposed", SEQUENCE, rnn(mask=ones(5, 2)),
          "`mask` has shape (5, 2), expected (B, T) = (2, 5). It looks like (T, B): pass `mask.T`"),
    fails("K1 batch first, time first", SEQUENCE, rnn(X.swapaxes(0, 1), mask=ones(2, 5), time_major=True),
          "`mask` has shape (2, 5), expected (T, B) = (5, 2). It looks like (B, T): pass `mask.T`"),
    fails("K1 one value a feature", SEQUENCE, rnn(mask=ones(2, 5, 3)),
          "`mask` has shape (2, 5, 3), expected (2, 5) or (2, 5, 1): one value for each step. "
          "Where its features agree write `mask[..., 0]`"),
    fails("K1 four axes", SEQUENCE, rnn(mask=ones(2, 5, 1, 1)), "`mask` has shape (2, 5, 1, 1), expected"),
    fails("K1 wrong T of three axes", SEQUENCE, rnn(mask=ones(2, 4, 1)), "`mask` has shape (2, 4), expected (B, T)"),
    fails("K1 no axes", SEQUENCE, rnn(mask=np.bool_(True)), "`mask` is a scalar"),
    fails("K2 one row for all", SEQUENCE, rnn(mask=ones(1, 5)), "`mask` has shape (1, 5), expected (B, T) = (2, 5)"),
    fails("K3 floats", TypeError, rnn(mask=np.full((2, 5), 0.3)), "`mask` must be bool, got float64; use `mask > 0`"),
    fails("K3 integers", TypeError, rnn(mask=np.ones((2, 5), int)), "`mask` must be bool, got int64; use `mask > 0`"),
    fails("K3 integers of three axes", TypeError, rnn(mask=np.ones((2, 5, 1), int)), "`mask` must be bool, got int64"),
    fails("K3 list of integers", TypeError, rnn(mask=np.ones((2, 5), int).tolist()), "`mask` must be bool, got int64"),
    fails("K3 ragged list", TypeError, rnn(mask=[[True], [True, False]]), "`mask` must be bool of shape"),
    fails("K4 lengths", SEQUENCE, rnn(mask=np.array([3, 2])),
          "`mask` is int64[2], one number for each row, expected bool (2, 5). It looks like lengths: pass "
          "`input_length=`"),
    fails("K4 one bool a row", SEQUENCE, rnn(mask=ones(2)), "`mask` has shape (2,)"),
    fails("K5 state without rows under a mask", SEQUENCE, rnn(states=[H, 0.0], mask=ones(2, 5),
          step=lambda x, s: (s[0], [s[0] + x, s[1] + 1])), "`carry[1]` has shape ()"),
]  # fmt: skip

STEPS = [
    fails("C1 one state too few", CARRY, rnn(states=[H, H]),
          "`step_function` returned 1 new state, but `initial_states` has 2"),
    fails("C1 other structure", CARRY, rnn(step=lambda x, s: (x, [{"h": x}])), "carry[0]"),
    fails("C2 other shape", CARRY, rnn(step=lambda x, s: (x, [x[:, :2]])), "`carry[0]` ...float64[2,3]"),
    fails("C5 other dtype", CARRY, rnn(states=[np.zeros((2, 3), int)], step=lambda x, s: (x, [x])), "int64"),
    fails("C9 one array", OUTPUT, rnn(step=lambda x, s: x),
          "`step_function` must return (output, new_states), got float64[2,3]"),
    fails("C9 three things", OUTPUT, rnn(step=lambda x, s: (x, s, s)),
          "`step_function` must return (output, new_states), got a tuple of 3"),
    fails("C9 nothing", OUTPUT, rnn(step=lambda x, s: None), "must return (output, new_states), got None"),
    fails("C9 a bare state", OUTPUT, rnn(step=lambda x, s: (x, x)),
          "with new_states a list or tuple like initial_states, got float64[2,3]. Write `return output, [state]`"),
    fails("C11 swapped", OUTPUT, rnn(step=lambda x, s: (s, x)), "Did you return (new_states, output)?"),
    fails("C13 text", OUTPUT, rnn(step=lambda x, s: ("y", s)), "y"),
    fails("C a class", TypeError, rnn(step=dict), "got the class `dict`"),
    fails("C arguments swapped", TypeError, lambda: rs.compat.keras.rnn(X, add, [H]),
          "`rnn` needs a function `(x, states) -> (output, new_states)` as its first argument, got float64[2,5,3]"),
    fails("C a bare initial state", TypeError, rnn(states=H),
          "`initial_states` must be a list or tuple of states, got float64[2,3]; write `initial_states=[state]`"),
    fails("C a state of text", TypeError, rnn(states=["h"]), "`initial_states[0]` must be an array or a number"),
    fails("C bare constants", TypeError, rnn(constants=H), "`constants` must be a list or tuple, got float64[2,3]"),
    fails("C constants left in states", ValueError, rnn(states=[H, H], constants=[2.0], step=unpack),
          "`step_function` is called as `step_function(x, states)` with `states` = a tuple of 2 states followed by 1 "
          "constant"),
    fails("C a state too few unpacked", ValueError, rnn(step=unpack), "with `states` = a tuple of 1 state\n"),
    fails("C a constant of the wrong shape", TypeError, rnn(constants=[np.ones((7, 3))], step=scale),
          "`carry` its `initial_states`, `params` the arrays among its `constants`, and the cell"),
    fails("C no constants to speak of", TypeError, rnn(step=lambda x, s: (x @ x, s)),
          "carry[0]: float64[2,3], params: None\n...`carry` its `initial_states`, and the cell is its `step_function`"),
    fails("C a slip of the pen", TypeError, lambda: rs.compat.keras.rnn(add, X, initial_state=[H]),
          "`rs.compat.keras.rnn` got an unexpected keyword argument `initial_state`. Did you mean `initial_states`?"),
    fails("C an option of ours", TypeError, rnn(lengths=[1, 2]),
          "`rs.compat.keras.rnn` has no option `lengths`, which is `rs.scan`'s; write `input_length=`."),
    fails("C an option of no one", TypeError, rnn(stride=2), "argument `stride`. It takes `step_function`, `inputs`"),
    *(fails(f"C {name}", TypeError, rnn(**{name: 1}), f"`{name}` must be True or False, got 1")
      for name in ("go_backwards", "unroll", "time_major", "zero_output_for_mask", "return_all_outputs")),
]  # fmt: skip


@pytest.mark.parametrize("error, pattern, call", [*SEQUENCES, *LENGTHS, *MASKS, *STEPS])
def test_the_error_says_what_is_wrong(error, pattern, call):
    refused(error, pattern, call)


@pytest.mark.parametrize("name, instead", rs.compat._keras_names.INSTEAD.items())
def test_the_backends_other_functions_are_answered_with_what_jax_has(name, instead):
    with pytest.raises(AttributeError, match=re.escape(f"for `K.{name}` write `{instead}`")):
        getattr(rs.compat.keras, name)
    modules = {"jnp": jnp, "jax": jax, "np": np, "rs": rs, "optax": optax}
    eval(re.sub(r"[(,].*", "", instead), modules | {"x": X, "bias": 1.0, "reference": X, "indices": 0})  # there is such


KERAS_2 = {
    "argmax": lambda x: np.argmax(x, axis=-1),
    "argmin": lambda x: np.argmin(x, axis=-1),
    "batch_flatten": lambda x: np.stack([np.ravel(row) for row in x]),
    "concatenate": lambda x: np.concatenate([x, 2 * x], axis=-1),
    "cumprod": lambda x: np.cumprod(x, axis=0),
    "cumsum": lambda x: np.cumsum(x, axis=0),
    "expand_dims": lambda x: x[..., None],
    "hard_sigmoid": lambda x: np.where(x < -2.5, 0.0, np.where(x > 2.5, 1.0, 0.2 * x + 0.5)),
    "repeat": lambda x: np.stack([x, x, x], axis=1),
}


@pytest.mark.parametrize("name", KERAS_2)
def test_expressions_mean_what_keras_meant(name):
    """Where the function of the same name in JAX means another axis or another thing."""
    x = 4 * np.sin(np.arange(1.0, 11.0)).reshape(2, 5)
    got = eval(rs.compat._keras_names.INSTEAD[name], {"jnp": jnp, "x": x, "tensors": [x, 2 * x], "n": 3})
    np.testing.assert_allclose(got, KERAS_2[name](x), rtol=1e-14)


def test_any_other_name_is_refused_as_python_does():
    with pytest.raises(AttributeError, match=r"^module 'rnnscan.compat.keras' has no attribute 'no_such'$"):
        getattr(rs.compat.keras, "no_such")  # noqa: B009
    assert not hasattr(rs.compat.keras, "__path__")


@pytest.mark.parametrize("options", [{}, {"mask": ones(0, 5)}, {"input_length": np.zeros(0, int)}], ids=str)
def test_no_rows_give_no_rows(options):
    """S12."""
    last, outputs, (h,) = rnn(X[:0], [H[:0]], **options)()
    assert (last.shape, outputs.shape, h.shape) == ((0, 3), (0, 5, 3), (0, 3))


def test_no_steps_give_the_initial_states_and_zeros():
    """S11, under `jax.disable_jit` too, where `lax.scan` refuses."""
    for options in ({}, {"mask": ones(2, 0)}, {"input_length": [0, 0]}, {"unroll": True}, {"go_backwards": True}):
        with jax.disable_jit():
            last, outputs, (h,) = rnn(X[:, :0], **options)()
        assert outputs.shape == (2, 0, 3) and not last.any() and last.shape == (2, 3)
        np.testing.assert_array_equal(h, H)


def test_a_nan_in_a_step_that_counts_is_not_hidden():
    """N1."""
    x = X.copy()
    x[0, 2, 1] = np.nan
    _, outputs, (h,) = rnn(x)()
    assert np.isnan(outputs[0, 2:, 1]).all() and np.isnan(outputs).sum() == 3 and np.isnan(h[0, 1])

"""One test for each thing that Keras' `rnn` gets wrong: what its backends do, by running them, and what is right.

x = 1, 2, 3, 4 from 100; the output is ten times the state. Keras 3.15, all three backends in one process.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras.src.backend.jax.rnn import rnn as jax_rnn
from keras.src.backend.tensorflow.rnn import rnn as tensorflow_rnn
from keras.src.backend.torch.rnn import rnn as torch_rnn

import rnnscan as rs


ARRAY = {torch_rnn: torch.tensor, tensorflow_rnn: tf.constant, jax_rnn: jnp.asarray}

X = np.arange(1.0, 5.0).reshape(1, 4, 1)
H = np.full((1, 1), 100.0)
KEEP = np.array([[False, True, True, False]])


def tenfold(x, states):
    h = states[0] + x
    return 10 * h, [h]


def both(step=tenfold, x=X, states=(H,), backend=torch_rnn, **options):
    """`(Keras, ours)`, each a call of no arguments that gives (last, outputs, states) as lists."""
    array = ARRAY[backend]
    given = options | {name: array(options[name]) for name in ("mask",) if name in options}
    given |= {"constants": [array(c) for c in options["constants"]]} if "constants" in options else {}
    plain = lambda results: jax.tree.map(lambda y: np.asarray(y).squeeze().tolist(), results)
    return (
        lambda: plain(backend(step, jax.tree.map(array, x), [array(state) for state in states], **given)),
        lambda: plain(rs.compat.keras.rnn(step, x, states, **options)),
    )


def test_keras_takes_the_batch_for_the_time_where_time_is_first():
    """`input_length or inputs.shape[1]` is B with `time_major`, where the loop stops; torch's then fails."""
    keras, ours = both(x=X.swapaxes(0, 1), time_major=True)
    with pytest.raises(AttributeError, match="'list' object has no attribute 'ndim'"):
        keras()
    assert both(x=X.swapaxes(0, 1), time_major=True, backend=tensorflow_rnn)[0]()[2] == (101.0,)
    assert ours() == (1100.0, [1010.0, 1030.0, 1060.0, 1100.0], (110.0,))


def test_keras_cannot_take_nested_inputs_unless_told_their_length():
    keras, ours = both(lambda x, states: tenfold(x[0] * x[1], states), [X, X])
    with pytest.raises(AttributeError, match="'list' object has no attribute 'shape'"):
        keras()
    assert ours() == (1300.0, [1010.0, 1050.0, 1140.0, 1300.0], (130.0,))


def test_keras_spreads_lengths_over_features_and_not_over_rows():
    """`where(lengths > t, y, 0)` broadcasts (B,) against (B, F): with B = F row b stops by the lengths' column."""
    x, h = np.ones((2, 4, 2)), np.zeros((2, 2))
    keras, ours = both(lambda x, s: (s[0] + x, [s[0] + x]), x, [h], input_length=[1, 4])
    assert keras()[2] == ([[1.0, 4.0], [1.0, 4.0]],)
    assert ours()[2] == ([[1.0, 1.0], [4.0, 4.0]],)
    keras, ours = both(lambda x, s: (s[0] + x, [s[0] + x]), x[..., :1], [h[:, :1]], input_length=[1, 4])
    with pytest.raises(RuntimeError):  # and a tensor of two lengths has no truth value
        torch_rnn(tenfold, torch.ones(2, 4, 1), [torch.zeros(2, 1)], input_length=torch.tensor([1, 4]))
    assert ours()[2] == ([1.0, 4.0],)


def test_keras_reads_a_length_of_zero_as_no_length():
    keras, ours = both(input_length=0)
    assert keras()[2] == (110.0,)
    assert ours() == (0.0, [0.0] * 4, (100.0,))


def test_keras_counts_a_length_from_the_end_of_the_padding_when_going_backwards():
    """It reverses all T steps and runs the first two of these, which are the padding."""
    x = np.tile(X, (4, 1, 1))  # with fewer rows than steps its list of outputs cannot be stacked
    keras, ours = both(x=x, states=[np.tile(H, (4, 1))], input_length=2, go_backwards=True)
    assert keras()[2] == ([107.0] * 4,)
    assert ours()[2] == ([103.0] * 4,)
    assert ours()[1][0] == [0.0, 0.0, 1020.0, 1030.0]


def test_keras_forgets_the_length_where_it_unrolls():
    keras, ours = both(input_length=2, unroll=True)
    assert keras()[0] == 1100.0
    assert ours()[0] == 1030.0
    assert ours() == both(input_length=2)[1]()


def test_keras_takes_any_number_for_true():
    """K3."""
    keras, ours = both(mask=np.full((1, 4), 0.3))
    assert keras()[2] == (110.0,)
    with pytest.raises(TypeError, match="`mask` must be bool, got float64; use `mask > 0`"):
        ours()


def test_keras_splits_a_bare_initial_state_into_rows():
    with pytest.raises(Exception):  # noqa: B017  whatever the step makes of one row for the whole state
        torch_rnn(lambda x, s: (x @ torch.ones(1, 2) + s[0], [x]), torch.ones(3, 2, 1), torch.zeros(3, 3))
    with pytest.raises(TypeError, match=r"write `initial_states=\[state\]`"):
        rs.compat.keras.rnn(tenfold, X, H)


def test_keras_cannot_mask_a_state_of_one_axis():
    """A mask (B, 1) and a state (B,) broadcast to (B, B)."""
    x, counts = np.ones((3, 2, 1)), np.zeros(3)
    step = lambda x, states: (x, [states[0] + 1.0])
    keras, ours = both(step, x, [counts], mask=np.array([[True, True], [True, False], [False, False]]))
    assert np.shape(keras()[2][0]) == (3, 3)
    assert ours()[2] == ([2.0, 1.0, 0.0],)


@pytest.mark.parametrize("unroll", [False, True])
def test_keras_lets_nan_in_padding_into_gradients(unroll):
    """The step is singular at the padding; `where` multiplies its infinite slope by zero."""
    x = np.array([1.0, 2.0, 0.0, 0.0]).reshape(1, 4, 1)
    keep = x[..., 0] > 0

    def value(lib, rnn, w, x, h, keep):
        step = lambda x, states: (lib.log(w * x), [states[0] + lib.log(w * x)])
        return rnn(step, x, [h], mask=keep, unroll=unroll, zero_output_for_mask=True)[2][0].sum()

    w = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    value(torch, torch_rnn, w, torch.tensor(x), torch.tensor(H), torch.tensor(keep)).backward()
    assert torch.isnan(w.grad)
    slope = jax.grad(lambda w: value(jnp, rs.compat.keras.rnn, w, jnp.asarray(x), jnp.asarray(H), keep))(jnp.array(0.5))
    assert float(slope) == pytest.approx(2 / 0.5, rel=1e-12)  # d/dw of log(w) + log(2 w)


def test_jax_backend_shows_the_state_where_it_should_hold_the_output():
    keras, ours = both(mask=KEEP, backend=jax_rnn)
    assert keras()[1] == [100.0, 1020.0, 1050.0, 105.0]
    assert ours()[1] == both(mask=KEEP)[0]()[1] == [0.0, 1020.0, 1050.0, 1050.0]


def test_jax_backend_forgets_to_zero_masked_outputs_where_it_unrolls():
    keras, ours = both(mask=KEEP, backend=jax_rnn, zero_output_for_mask=True, unroll=True)
    assert keras()[:2] == (1050.0, [0.0, 1020.0, 1050.0, 1050.0])
    assert ours()[:2] == (0.0, [0.0, 1020.0, 1050.0, 0.0])


@pytest.mark.parametrize(
    ("option", "right"),
    [({"return_all_outputs": False}, 1100.0), ({"input_length": 2}, [1010.0, 1030.0, 1030.0, 1030.0])],
    ids=str,
)
def test_jax_backend_ignores(option, right):
    keras, ours = both(backend=jax_rnn, **option)
    assert keras()[1] == [1010.0, 1030.0, 1060.0, 1100.0]
    assert ours()[1] == right


def test_jax_backend_drops_constants():
    keras, ours = both(lambda x, s: (s[0] + s[1], [s[0] + x]), backend=jax_rnn, constants=[np.array([7.0])])
    with pytest.raises(IndexError):
        keras()
    assert ours() == (113.0, [107.0, 108.0, 110.0, 113.0], (110.0,))


def test_tensorflow_zeroes_by_the_mask_of_the_other_direction_where_it_unrolls_backwards():
    keep = np.array([[True, True, False, False]])
    options = {"mask": keep, "go_backwards": True, "zero_output_for_mask": True}
    keras, ours = both(backend=tensorflow_rnn, unroll=True, **options)
    assert keras()[1] == [0.0] * 4
    assert ours()[1] == both(backend=tensorflow_rnn, **options)[0]()[1] == [0.0, 0.0, 1020.0, 1030.0]


def test_tensorflow_holds_no_output_past_the_longest_row():
    keras, ours = both(backend=tensorflow_rnn, input_length=2)
    assert keras()[:2] == (0.0, [1010.0, 1030.0, 0.0, 0.0])
    assert ours()[:2] == (1030.0, [1010.0, 1030.0, 1030.0, 1030.0])

"""`rs.compat.keras.rnn` beside Keras' own `rnn` on the torch backend: values, gradients, and where Keras is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from keras.src.backend.torch.rnn import rnn as keras_rnn

import rnnscan as rs
from tests.compat.keras_programs import PROGRAMS, loss, plain_loop
from tests.helpers import assert_close
from tests.oracles.programs import differential


def fails_in_keras(program):
    """The exception that Keras raises for a program, None if it runs it."""
    masked = program.unroll and program.mask is not None
    if program.n_steps == 0 and program.n_inputs == 2:  # `input_length=0` counts as none, and a list has no shape
        return AttributeError
    if program.n_steps == 0:  # there is no step to see the output's shape on
        return ValueError if program.unroll else IndexError
    if masked and program.go_backwards:  # torch.flip on a tuple
        return AttributeError
    if program.unroll and program.output == "pair":  # it knows tensors only: "input_t is expected to be tensor"
        return ValueError if masked else TypeError
    return None


def to_torch(tree):
    return jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), tree)


def theirs(program, arrays):
    """What Keras gives, T told where it would take `inputs.shape[1]` for it: nested inputs, or time first."""
    options = program.options()
    if "mask" in options:
        options["mask"] = torch.tensor(np.ascontiguousarray(options["mask"]))
    if program.n_inputs == 2 or program.time_major:
        options["input_length"] = program.n_steps
    step = program.step(torch, arrays["weights"])
    last, outputs, states = keras_rnn(
        step, program.inputs(arrays), arrays["states"], constants=arrays["constants"], **options
    )
    return last, outputs, tuple(states)


def ours(program, arrays, **more):
    step = program.step(jnp, arrays["weights"])
    options = program.options() | more
    return rs.compat.keras.rnn(step, program.inputs(arrays), arrays["states"], constants=arrays["constants"], **options)


@differential(PROGRAMS, full=500)
def test_rnn_equals_keras(program):
    arrays = program.arrays()
    numbers = to_torch(arrays)
    values = jax.jit(jax.value_and_grad(lambda a: (loss(jnp, r := ours(program, a)), r), has_aux=True))
    (_, got), grads = values(arrays)
    if error := fails_in_keras(program):
        with pytest.raises(error):
            theirs(program, numbers)
        assert_close(got, plain_loop(program, np, arrays))
        return
    last, outputs, states = theirs(program, numbers)
    if program.unroll and program.mask and program.zero_output_for_mask and not program.return_all_outputs:
        axis = 0 if program.time_major else 1
        if program.n_steps > 1:  # it masks its one output with the whole mask, and has T of them again
            assert jax.tree.leaves(outputs)[0].shape[axis] == program.n_steps
        outputs = jax.tree.map(lambda y: y.unsqueeze(axis), last)
    want = last, outputs, states
    assert_close(got, jax.tree.map(lambda y: y.detach().numpy(), want), rtol=1e-9, atol=1e-11)
    loss(torch, want).backward()
    slopes = jax.tree.map(lambda leaf: np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy(), numbers)
    assert_close(grads, slopes, rtol=1e-8, atol=1e-10)


# One test a bug: what Keras 3.15 does, by running it, and what is right.

X = np.arange(1.0, 5.0).reshape(1, 4, 1)
H = np.full((1, 1), 100.0)
KEEP = np.array([[False, True, True, False]])


def tenfold(x, states):
    h = states[0] + x
    return 10 * h, [h]


def both(step=tenfold, x=X, states=(H,), **options):
    """`(Keras, ours)`, each a call of no arguments that gives (last, outputs, states) as lists."""
    tensor = lambda tree: jax.tree.map(torch.tensor, tree)
    given = options | {name: torch.tensor(options[name]) for name in ("mask",) if name in options}
    plain = lambda results: jax.tree.map(lambda y: np.asarray(y).squeeze().tolist(), results)
    return (
        lambda: plain(keras_rnn(step, tensor(x), list(tensor(list(states))), **given)),
        lambda: plain(rs.compat.keras.rnn(step, x, states, **options)),
    )


def test_keras_takes_the_batch_for_the_time_where_time_is_first():
    """`input_length or inputs.shape[1]` is B with `time_major`, where the loop stops; torch's then fails."""
    keras, ours = both(x=X.swapaxes(0, 1), time_major=True)
    with pytest.raises(AttributeError, match="'list' object has no attribute 'ndim'"):
        keras()
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
        keras_rnn(tenfold, torch.ones(2, 4, 1), [torch.zeros(2, 1)], input_length=torch.tensor([1, 4]))
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
        keras_rnn(lambda x, s: (x @ torch.ones(1, 2) + s[0], [x]), torch.ones(3, 2, 1), torch.zeros(3, 3))
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
    value(torch, keras_rnn, w, torch.tensor(x), torch.tensor(H), torch.tensor(keep)).backward()
    assert torch.isnan(w.grad)
    slope = jax.grad(lambda w: value(jnp, rs.compat.keras.rnn, w, jnp.asarray(x), jnp.asarray(H), keep))(jnp.array(0.5))
    assert float(slope) == pytest.approx(2 / 0.5, rel=1e-12)  # d/dw of log(w) + log(2 w)

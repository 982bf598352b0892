"""What TensorFlow's loops do that ours do not, by running both: the list in `docs/coming_from/tensorflow.md`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from rnnscan.compat import tensorflow as ours
from rnnscan.compat.tensorflow import rnn_cell


pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")
v1, nn = tf.compat.v1, tf.compat.v1.nn
INPUTS = np.array([[[0.3], [0.7], [-0.4]], [[0.5], [0.9], [0.2]]])
WEIGHTS = {"kernel": np.array([[0.4, -0.8], [0.7, 0.2], [-0.3, 0.6]]), "bias": np.array([0.1, -0.2])}


def gradients_of_tensorflow(inputs, lengths):
    """The sum of all outputs of a BasicRNNCell, and its gradients."""
    with tf.Graph().as_default(), v1.Session() as session:
        outputs, _ = nn.dynamic_rnn(nn.rnn_cell.BasicRNNCell(2), tf.constant(inputs), lengths, dtype=tf.float64)
        total, (kernel, bias) = tf.reduce_sum(outputs), v1.trainable_variables()
        slopes = tf.gradients(total, [kernel, bias])
        session.run([v1.assign(kernel, WEIGHTS["kernel"]), v1.assign(bias, WEIGHTS["bias"])])
        total, slopes = session.run((total, slopes))
    return total, dict(zip(("kernel", "bias"), slopes, strict=True))


def gradients_of_ours(inputs, lengths):
    def total(params):
        return ours.dynamic_rnn(rnn_cell.BasicRNNCell(2), params, inputs, lengths, dtype=np.float64)[0].sum()

    return jax.value_and_grad(total)(jax.tree.map(jnp.asarray, WEIGHTS))


def test_nan_in_padding_reaches_every_gradient_of_tensorflow():
    lengths, poisoned = [2, 3], INPUTS.copy()
    poisoned[0, 2] = np.nan
    total, want = gradients_of_tensorflow(INPUTS, lengths)
    its_total, its = gradients_of_tensorflow(poisoned, lengths)
    assert its_total == total and all(np.isnan(slope).all() for slope in its.values())
    our_total, slopes = gradients_of_ours(poisoned, lengths)
    np.testing.assert_allclose(our_total, total, rtol=1e-12)
    for name, slope in slopes.items():
        np.testing.assert_allclose(slope, want[name], rtol=1e-12)


class Counter:
    """Its state is a scalar, the number of steps so far."""

    state_size = output_size = 1

    def __call__(self, *given):
        inputs, state = given[-2:]
        return inputs, state + 1

    def zero_state(self, batch_size, dtype):
        raise NotImplementedError("every test gives the first state")


def test_a_step_is_run_where_all_lengths_are_zero():
    ours_of = lambda loop, inputs: loop(Counter(), None, inputs, sequence_length=[0, 0], initial_state=jnp.zeros(()))[1]
    steps = [INPUTS[:, t] for t in range(3)]
    with tf.Graph().as_default(), v1.Session() as session:
        start, constants = tf.constant(0.0, tf.float64), list(map(tf.constant, steps))
        dynamic = nn.dynamic_rnn(Counter(), tf.constant(INPUTS), [0, 0], start)[1]
        static = nn.static_rnn(Counter(), constants, start, sequence_length=[0, 0])[1]
        assert session.run((dynamic, static)) == (1.0, 0.0)
    assert (ours_of(ours.dynamic_rnn, INPUTS), ours_of(ours.static_rnn, steps)) == (0.0, 0.0)


def test_a_loop_state_of_none_comes_back_as_a_number():
    def loop_fn_of(zeros, seen):
        def loop_fn(time, output, state, loop_state):
            seen.append(loop_state)
            return time >= np.array([1, 2], np.int32), zeros((2, 1)), zeros((2,)), output, None

        return loop_fn

    theirs, our_own = [], []
    with tf.Graph().as_default():
        nn.raw_rnn(Counter(), loop_fn_of(tf.zeros, theirs))
    ours.raw_rnn(Counter(), None, loop_fn_of(jnp.zeros, our_own), max_steps=2)
    assert theirs[0] is None and theirs[1].dtype == tf.int32
    assert len(our_own) > 1 and set(our_own) == {None}


def test_a_length_above_the_number_of_steps_counts_as_all_of_them():
    totals = [gradients_of_tensorflow(INPUTS, lengths)[0] for lengths in ([2, 9], [2, 3])]
    assert totals[0] == totals[1]
    with pytest.raises(ValueError, match=r"`sequence_length\[1\]` = 9 exceeds T = 3"):
        gradients_of_ours(INPUTS, [2, 9])
    traced = jax.jit(lambda lengths: gradients_of_ours(INPUTS, lengths)[0])(jnp.array([2, 9]))
    np.testing.assert_allclose(traced, totals[1], rtol=1e-12)

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

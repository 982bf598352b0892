"""Keras' `rnn` against the plain loop: every argument, values and gradients, padding, compilation."""

import dataclasses
import inspect
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.compat.keras_programs import Program, loss, plain_loop
from tests.helpers import assert_close, count_compiles


rnn = rs.compat.keras.rnn
FACTORS = {
    "n_steps": (4, 4, 4, 1, 0),
    "n_inputs": (1, 2),
    "n_states": (1, 2),
    "output": ("state", "other", "pair"),
    "n_constants": (0, 2),
    "go_backwards": (False, True),
    "mask": (None, "right", "left", "holes", "rows"),
    "mask_ndim": (2, 3),
    "unroll": (False, True),
    "time_major": (False, True),
    "zero_output_for_mask": (False, True),
    "return_all_outputs": (False, True),
}
DRAW = random.Random(0)
DRAWN = [{name: DRAW.choice(levels) for name, levels in FACTORS.items()} for _ in range(16)]
COVER = [Program(seed=i, n_rows=3, matmul=i % 2 == 0, **row) for i, row in enumerate(DRAWN)]


def run(program, arrays, **more):
    step = program.step(jnp, arrays["weights"])
    options = program.options() | more
    return rnn(step, program.inputs(arrays), arrays["states"], constants=arrays["constants"], **options)


@pytest.mark.parametrize("program", COVER, ids=range(len(COVER)))
def test_values_equal_the_plain_loop(program):
    arrays = program.arrays()
    got = jax.jit(lambda a: run(program, a))(arrays)
    assert_close(got, plain_loop(program, np, arrays))


@pytest.mark.parametrize("program", COVER[::4], ids=range(0, len(COVER), 4))
def test_gradients_equal_the_plain_loop_and_reach_what_is_closed_over(program):
    arrays = jax.tree.map(jnp.asarray, program.arrays())
    got, want = jax.jit(
        lambda a: [
            jax.grad(lambda a: loss(jnp, run(program, a)))(a),
            jax.grad(lambda a: loss(jnp, plain_loop(program, jnp, a)))(a),
        ]
    )(arrays)
    assert_close(got, want)
    if program.n_steps and program.valid().any():
        used = {"x", "h" if program.matmul else "u"}
        assert all(np.abs(got["weights"][name]).max() > 0 for name in used)


BASE = Program(n_rows=3, n_steps=4, mask="holes", seed=5)


LENGTHS = [
    ([3, 0, 4], {}),
    ([3, 0, 4], {"go_backwards": True, "zero_output_for_mask": True}),
    (2, {"zero_output_for_mask": True, "return_all_outputs": False}),
    (2, {"go_backwards": True, "unroll": True}),
    (0, {"go_backwards": True, "zero_output_for_mask": True, "return_all_outputs": False}),
    (4, {"unroll": True}),
]


@pytest.mark.parametrize(("length", "more"), LENGTHS, ids=str)
def test_input_length_is_the_mask_of_the_first_steps(length, more):
    program = dataclasses.replace(BASE, mask=None, **more)
    arrays = program.arrays()
    valid = np.arange(4) < np.broadcast_to(length, (3,))[:, None]
    got = jax.jit(lambda a: run(program, a, input_length=length))(arrays)
    assert_close(got, plain_loop(program, np, arrays, valid))


def test_traced_input_length_is_cut_to_the_sequence():
    arrays = BASE.arrays()
    program = dataclasses.replace(BASE, mask=None)
    got = jax.jit(lambda n: run(program, arrays, input_length=n))(jnp.array([-1, 2, 9]))
    assert_close(got, run(program, arrays, input_length=np.array([0, 2, 4])))


def test_input_length_of_the_whole_goes_with_a_mask_as_in_keras_layers():
    arrays = BASE.arrays()
    assert_close(*jax.jit(lambda a: (run(BASE, a, input_length=4), run(BASE, a)))(arrays))


ARRAYS = BASE.arrays()
WEIGHT = jnp.asarray(ARRAYS["weights"]["x"])


def scaled(x, states):
    h = np.prod(states[1:]) * jnp.tanh(x @ WEIGHT + states[0])
    return 2 * h, [h]


def idle(x, states):
    return states[0], states


GIVEN = {"inputs": ARRAYS["inputs"][0], "initial_states": ARRAYS["states"][:1]}
CHANGES = {
    "step_function": idle,
    "inputs": 2 * GIVEN["inputs"],
    "initial_states": [2 * ARRAYS["states"][0]],
    "go_backwards": True,
    "mask": None,
    "constants": [2.0],
    "unroll": True,
    "input_length": [4, 2, 1],
    "time_major": True,
    "zero_output_for_mask": True,
    "return_all_outputs": False,
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_argument_counts(name):
    """One argument changed changes the result or raises; `unroll` changes what is compiled, and nothing else."""
    given = {"step_function": scaled, **GIVEN, "mask": BASE.valid() if name != "input_length" else None}
    changed = given | {name: CHANGES[name]}
    if name == "time_major":
        with pytest.raises(rs.SequenceError, match="batch size: `initial_states\\[0\\]` has 3 rows, inputs have 4"):
            rnn(**changed)
    elif name == "unroll":
        text = [str(jax.make_jaxpr(lambda x, g=g: rnn(**g | {"inputs": x}))(given["inputs"])) for g in (given, changed)]
        assert ["scan[" in program for program in text] == [True, False]
    else:
        pairs = zip(jax.tree.leaves(rnn(**given)), jax.tree.leaves(rnn(**changed)), strict=True)
        assert any(np.shape(a) != np.shape(b) or not np.allclose(a, b) for a, b in pairs)


def test_no_argument_is_left_out_of_that_test():
    assert list(inspect.signature(rnn).parameters) == list(CHANGES)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_padding_cannot_hurt(poison, unroll):
    """NaN in masked steps of a step that is singular at zero: values and gradients are those of clean padding."""
    x = np.random.default_rng(0).uniform(0.5, 1.0, (3, 4, 2))
    keep = np.array([[True, True, False, False], [False, True, False, True], [False, False, False, False]])
    dirty = np.where(keep[..., None], x, poison)

    def value(w, x, h):
        def step(x, states):
            h = w / (x + states[0])
            return jnp.log(x) * h, [h]

        return loss(jnp, rnn(step, x, [h], mask=keep, unroll=unroll, zero_output_for_mask=True))

    grad = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))
    w, h = jnp.array([0.7, 0.4]), jnp.full((3, 2), 0.3)
    got, clean = grad(w, jnp.asarray(dirty), h), grad(w, jnp.asarray(x), h)
    assert np.isfinite(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(got)])).all()
    assert_close(got, clean)
    assert not np.asarray(got[1][1])[~keep].any()


class Layer:
    """A step as Keras' layers have it, a method that reads its weights from the layer."""

    def __init__(self, weight):
        self.weight = weight

    def step(self, x, states):
        h = jnp.tanh(x @ self.weight + states[0])
        return h * states[1], [h]


def test_a_second_call_compiles_nothing_and_new_weights_are_seen():
    layer, (x,), keep = Layer(jnp.ones((3, 4))), ARRAYS["inputs"], BASE.valid()
    call = lambda x: rnn(layer.step, x, ARRAYS["states"][:1], mask=keep, constants=[layer.weight[0], "passed on"])[0]
    before = call(x)
    with count_compiles() as compiled:
        call(x + 1)
    assert compiled == []
    layer.weight = jnp.full((3, 4), 0.5)
    assert not np.allclose(call(x), before)


def test_constants_that_are_no_arrays_stay_what_they_are():
    seen = []

    def step(x, states):
        seen.append(states[1:])
        return x * states[2] if states[1] else x, states[:1]

    x = np.ones((1, 2, 1))
    last, _, _ = rnn(step, x, [np.zeros((1, 1))], constants=[True, jnp.array(3.0), {"name": "rows", "scale": 2}])
    assert last.tolist() == [[3.0]]
    assert seen[0][0] is True and seen[0][2] == {"name": "rows", "scale": 2}


def test_states_may_nest_and_lists_may_stand_for_tuples():
    """Keras' cells of cells give `[h, [h, c]]` back for `[h, (h, c)]`."""
    x = np.arange(1.0, 4.0).reshape(1, 3, 1)

    def step(x, states):
        h, (g, c) = states
        return h + c, [h + x, [g * 0.5, c + h]]

    first = [np.ones((1, 1)), (np.ones((1, 1)), np.zeros((1, 1)))]
    _, outputs, states = rnn(step, x, first)
    assert outputs.ravel().tolist() == [1.0, 3.0, 7.0]  # h = 1, 2, 4, 7 and c = 0, 1, 3, 7
    assert jax.tree.map(lambda s: s.item(), states) == (7.0, (0.125, 7.0))


def test_the_rows_of_the_truth_table():
    """x = 1, 2, 3, 4 from 100, mask F T T F; the output is ten times the state."""
    x, h = np.arange(1.0, 5.0).reshape(1, 4, 1), [np.full((1, 1), 100.0)]
    keep = np.array([[False, True, True, False]])

    def step(x, states):
        h = states[0] + x
        return 10 * h, [h]

    def read(**options):
        last, outputs, states = rnn(step, x, h, **options)
        return last.item(), outputs.ravel().tolist(), states[0].item()

    assert read(mask=keep) == (1050.0, [0.0, 1020.0, 1050.0, 1050.0], 105.0)
    assert read(mask=keep, zero_output_for_mask=True) == (0.0, [0.0, 1020.0, 1050.0, 0.0], 105.0)
    assert read(mask=keep, go_backwards=True) == (1050.0, [0.0, 1030.0, 1050.0, 1050.0], 105.0)
    assert read(mask=keep & False) == (0.0, [0.0] * 4, 100.0)
    assert read(input_length=2) == (1030.0, [1010.0, 1030.0, 1030.0, 1030.0], 103.0)
    assert read(mask=keep, return_all_outputs=False) == (1050.0, [1050.0], 105.0)
    assert read(mask=keep, return_all_outputs=False, zero_output_for_mask=True) == (0.0, [0.0], 105.0)

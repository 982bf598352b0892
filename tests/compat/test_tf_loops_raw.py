"""`raw_rnn` against the loop that TensorFlow's documentation states in pseudo-code, and against `dynamic_rnn`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat.tensorflow import TensorArray, dynamic_rnn, raw_rnn, rnn_cell
from tests.compat.tf_rule import Busy, weighted
from tests.faults import fails, refused
from tests.helpers import assert_close


B, T, DEPTH = 3, 4, 3
LENGTHS = jnp.array([2, 4, 0], jnp.int32)
CELL = rnn_cell.GRUCell(4)
PARAMS = CELL.init(jax.random.key(0), DEPTH, jnp.float64)
INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(T, B, DEPTH)))


def reader(inputs=INPUTS, lengths=LENGTHS):
    """The loop function that makes `raw_rnn` a `dynamic_rnn`, from TensorFlow's documentation."""

    def loop_fn(time, cell_output, cell_state, loop_state):
        state = CELL.zero_state(B, jnp.float64) if cell_output is None else cell_state
        return time >= lengths, inputs[jnp.minimum(time, T - 1)], state, cell_output, None

    return loop_fn


def test_reading_the_inputs_is_dynamic_rnn_in_values_and_gradients():
    def raw(params, inputs):
        emitted, state, nothing = raw_rnn(CELL, params, reader(inputs), max_steps=T + 3)
        assert nothing is None
        return emitted.padded[:T], state

    def dynamic(params, inputs):
        return dynamic_rnn(CELL, params, inputs, LENGTHS, dtype=jnp.float64, time_major=True)

    graded = lambda f: jax.value_and_grad(lambda *given: (weighted(result := f(*given)), result), (0, 1), True)
    got, want = jax.jit(lambda *given: (graded(raw)(*given), graded(dynamic)(*given)))(PARAMS, INPUTS)
    assert_close(got, want)


def pseudo_code(cell, params, loop_fn):
    """The documentation's `while not all(finished)`, rows by hand."""
    finished, x, state, structure, loop_state = loop_fn(jnp.int32(0), None, None, None)
    finished, time, emitted = np.array(finished), 0, []
    pick = lambda old, new: jax.tree.map(
        lambda a, b: b if jnp.ndim(b) == 0 else jnp.stack([a[r] if finished[r] else b[r] for r in range(B)]), old, new
    )
    while not finished.all():
        output, new_state = cell(params, x, state)
        next_finished, x, new_state, emit, loop_state = loop_fn(jnp.int32(time + 1), output, new_state, loop_state)
        state = pick(state, new_state)
        emitted.append(pick(jax.tree.map(jnp.zeros_like, emit), emit))
        finished, time = finished | np.array(next_finished), time + 1
    return emitted, state, loop_state


def generator(time, output, state, loop_state):
    """Writes on from its own output until that is large, counts and adds up; emits two things of other shapes."""
    if output is None:
        first = {"h": jnp.linspace(-1.0, 1.0, B * 4).reshape(B, 4), "n": 0.5}
        announced = {"rows": jnp.zeros(2, jnp.int32), "sum": jnp.zeros(())}
        return jnp.array([False, True, False]), (INPUTS[0], INPUTS[1, :, :2]), first, announced, (0, jnp.zeros(B))
    large = (output[0][:, 0] > 0.5) | (time > 5)
    rows = jnp.stack([jnp.full(B, time), jnp.arange(B, dtype=jnp.int32)], 1)
    emit = {"rows": rows, "sum": output[0].sum(-1)}
    state = {"h": 0.9 * state["h"], "n": state["n"]}
    following = (output[0][:, :3], output[1])
    return large, following, state, emit, (loop_state[0] + time, loop_state[1] + output[1][:, 0])


def test_loop_fn_decides_inputs_state_outputs_and_the_end():
    cell, params = Busy(), {"w": INPUTS[0, 0, :, None] * jnp.ones(4), "u": jnp.array([0.4, -0.7, 1.1, 0.6])}
    got, state, loop_state = raw_rnn(cell, params, generator, max_steps=8)
    emitted, want_state, want_loop_state = pseudo_code(cell, params, generator)
    assert 1 < len(emitted) < 8
    want = jax.tree.map(lambda *leaves: jnp.stack(leaves), *emitted)
    assert_close({name: array.stack() for name, array in got.items()}, want)
    assert_close(state, want_state)
    assert_close(jax.tree.map(jnp.float64, loop_state), jax.tree.map(jnp.float64, want_loop_state))
    assert int(got["sum"].size()) == len(emitted) and bool(got["rows"].finished)
    assert not np.any(got["rows"].padded[len(emitted) :])


@pytest.mark.parametrize("max_steps", [0, 3])
def test_all_rows_finished_at_the_start_takes_no_step(max_steps):
    counting = lambda time, output, state, n: (*reader(lengths=jnp.zeros(B, jnp.int32))(time, output, state, n)[:4],
                                               7 if n is None else n + 1)  # fmt: skip
    emitted, state, n = raw_rnn(CELL, PARAMS, counting, max_steps=max_steps)
    assert emitted.stack().shape == (0, B, 4) and int(emitted.size()) == 0 and bool(emitted.finished)
    assert int(n) == 7 and not np.any(state) and emitted.padded.shape == (max_steps, B, 4)


def test_bound_that_comes_first_is_told():
    emitted, state, _ = raw_rnn(CELL, PARAMS, reader(), max_steps=3)
    outputs, _ = dynamic_rnn(CELL, PARAMS, INPUTS[:3], jnp.array([2, 3, 0]), dtype=jnp.float64, time_major=True)
    assert_close(emitted.padded, outputs)
    assert int(emitted.size()) == 3 and not bool(emitted.finished)
    with pytest.raises(rs.SequenceError, match=r"reached `max_steps` = 3 before .* `.padded` has the steps taken"):
        emitted.stack()
    assert_close(state[1], outputs[2, 1])


def test_one_flag_may_speak_for_all_rows():
    every = lambda *given: (given[0] >= 2, *reader()(*given)[1:])
    emitted, _, _ = raw_rnn(CELL, PARAMS, every, max_steps=T)
    assert int(emitted.size()) == 2 and np.all(emitted.stack() != 0)


def test_no_rows():
    empty = lambda time, output, state, n: (
        jnp.zeros(0, bool), INPUTS[0, :0], jnp.zeros((0, 4)) if output is None else state, output, None
    )  # fmt: skip
    emitted, state, _ = raw_rnn(CELL, PARAMS, empty, max_steps=2)
    assert int(emitted.size()) == 0 and emitted.padded.shape == (2, 0, 4) and state.shape == (0, 4)


def test_emitted_array_is_a_tree_and_refuses_to_stack_under_jit():
    emitted = TensorArray(jnp.ones((3, 2)), jnp.int32(2), jnp.array(True))
    assert jax.tree.map(jnp.shape, emitted) == TensorArray((3, 2), (), ())
    with pytest.raises(
        TypeError, match=r"not known while the program is traced. Use `.padded`, zeros past `.size\(\)`"
    ):
        jax.jit(lambda array: array.stack())(emitted)


def test_key_reaches_the_cell():
    cell = rnn_cell.DropoutWrapper(CELL, output_keep_prob=0.5)
    got = raw_rnn(cell, PARAMS, reader(), max_steps=T, key=jax.random.key(0))[0].stack()
    want, _ = dynamic_rnn(cell, PARAMS, INPUTS, LENGTHS, dtype=jnp.float64, time_major=True, key=jax.random.key(0))
    assert_close(got, want, rtol=1e-13, atol=1e-15)


def changed(place, value, when=bool):
    """`reader` with one of its five values replaced where `when(output is not None)`."""

    def loop_fn(time, output, state, loop_state):
        returned = list(reader()(time, output, state, loop_state))
        if when(output is not None):
            returned[place] = value
        return tuple(returned)

    return loop_fn


def raw(loop_fn, cell=CELL, max_steps=T, **options):
    return lambda: raw_rnn(cell, PARAMS, loop_fn, max_steps=max_steps, **options)


always, at_first = (lambda later: True), (lambda later: not later)
FAULTS = [
    fails("no bound", rs.SequenceError, raw(reader(), max_steps=None), "`raw_rnn` needs `max_steps`, a bound"),
    fails("no bound and no params", TypeError, lambda: raw_rnn(CELL, reader()), "Params come after the cell, "
          "`raw_rnn(cell, params, ...)`"),
    fails("params missing", TypeError, lambda: raw_rnn(CELL, loop_fn=reader(), max_steps=2), "without `params`"),
    fails("float bound", TypeError, raw(reader(), max_steps=3.5), "`max_steps` must be an int, got 3.5"),
    fails("negative bound", rs.SequenceError, raw(reader(), max_steps=-1), "`max_steps` must be >= 0, got -1"),
    fails("no function", TypeError, raw(INPUTS), "takes a function `loop_fn`, got a"),
    fails("four values", rs.CellOutputError, raw(lambda *given: reader()(*given)[:4]), "must return (finished, "
          "next_input, next_cell_state, emit_output, next_loop_state)...returned 4 values"),
    fails("nothing", rs.CellOutputError, raw(lambda *given: None), "returned a NoneType"),
    fails("finished is int", rs.CellOutputError, raw(changed(0, jnp.zeros(B, jnp.int32), always)), "`finished`, the "
          "first value that `loop_fn` returns, must be bool of shape (batch,) = (3,)...got int32[3]"),
    fails("finished of another size", rs.CellOutputError, raw(changed(0, jnp.zeros(2, bool))), "got bool[2]"),
    fails("scalar input", rs.SequenceError, raw(changed(1, 1.0, always)), "first input that `loop_fn` returns must be "
          "(batch, ...)...`next_input` of shape ()"),
    fails("no input", rs.SequenceError, raw(changed(1, None, always)), "got no array"),
    fails("input changes shape", rs.CarryError, raw(changed(1, jnp.zeros((B, 5)))), "`carry['next_input']` went in as "
          "float64[3,3] and came out as float64[3,5]"),
    fails("input changes structure", rs.CarryError, raw(changed(1, (INPUTS[0],))), "carry['next_input']"),
    fails("state changes shape", rs.CarryError, raw(changed(2, jnp.zeros((B, 5)))), "`carry['cell_state']` went in"),
    fails("loop state appears", rs.CarryError, raw(changed(4, jnp.zeros(()))), "carry['loop_state'] is None on input"),
    fails("emits another structure", rs.CellOutputError, raw(changed(3, (INPUTS[0],))), "expected the structure of the "
          "cell's output (its first call announced None)"),
    fails("emits another shape", rs.CellOutputError, raw(changed(3, jnp.zeros(5), at_first)), "`emit_output` is "
          "float64[3,4], expected float64[3,5]: the batch size, then the shape and dtype that the first call"),
    fails("state is text", TypeError, raw(changed(2, "zero", always)), "`next_cell_state` must be an array"),
    fails("no cell", TypeError, raw(reader(), cell=3), "`raw_rnn` takes a cell"),
    fails("key for a quiet cell", ValueError, raw(reader(), key=jax.random.key(0)), "draws no random numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "pattern", "call"), FAULTS)
def test_bad_input(error, pattern, call):
    refused(error, pattern, call)

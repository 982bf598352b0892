"""Each argument of each loop changed once, so that the result changes or an error comes; and the table of bad input."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat import tensorflow as tf
from rnnscan.compat.tensorflow import rnn_cell
from tests.faults import CARRY, LENGTH, OUTPUT, SEQUENCE, fails, refused


B, T, DEPTH, H = 2, 3, 3, 4
CELL, OTHER, LSTM = rnn_cell.GRUCell(H), rnn_cell.GRUCell(H, activation="relu"), rnn_cell.BasicLSTMCell(H)
NOISY = rnn_cell.DropoutWrapper(CELL, output_keep_prob=0.5)
FLOAT, KEY = jnp.float64, jax.random.key(0)
P, Q = (CELL.init(jax.random.key(seed), DEPTH, FLOAT) for seed in (1, 2))
WIDE = CELL.init(jax.random.key(3), 2 * H, FLOAT)
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, DEPTH)))
STEPS = [XS[:, t] for t in range(T)]
STATE = jnp.asarray(np.random.default_rng(1).normal(size=(B, H)))


def reader(inputs, start=0.0):
    def loop_fn(time, output, state, loop_state):
        state = jnp.full((B, H), start) if output is None else state
        return time >= jnp.array([T, 2], jnp.int32), inputs[:, jnp.minimum(time, T - 1)], state, output, None

    return loop_fn


TUNING = {"parallel_iterations": (7, ...), "swap_memory": (True, ...), "scope": ("mine", ...)}  # ...: changes nothing
DIRECTIONS = {"sequence_length": ([2, 3], None), "initial_state_fw": (STATE, None), "initial_state_bw": (STATE, None),
              "dtype": (jnp.float32, ValueError), "key": (KEY, ValueError)}  # fmt: skip
LOOPS = {  # a call, and for each argument another value: None where the result must change, else the error
    "dynamic_rnn": ({"cell": CELL, "params": P, "inputs": XS, "dtype": FLOAT}, TUNING | {
        "cell": (OTHER, None), "params": (Q, None), "inputs": (2 * XS, None), "sequence_length": ([2, 3], None),
        "initial_state": (STATE, None), "dtype": (jnp.float32, ValueError), "time_major": (True, None),
        "key": (KEY, ValueError)}),
    "static_rnn": ({"cell": CELL, "params": P, "inputs": STEPS, "dtype": FLOAT}, {
        "cell": (OTHER, None), "params": (Q, None), "inputs": (STEPS[::-1], None), "initial_state": (STATE, None),
        "dtype": (jnp.float32, ValueError), "sequence_length": ([2, 3], None), "scope": ("mine", ...),
        "key": (KEY, ValueError)}),
    "bidirectional_dynamic_rnn": ({"cell_fw": CELL, "cell_bw": CELL, "params": (P, Q), "inputs": XS, "dtype": FLOAT},
        TUNING | DIRECTIONS | {"cell_fw": (OTHER, None), "cell_bw": (OTHER, None), "params": ((Q, P), None),
        "inputs": (2 * XS, None), "time_major": (True, None)}),
    "static_bidirectional_rnn": ({"cell_fw": CELL, "cell_bw": CELL, "params": (P, Q), "inputs": STEPS, "dtype": FLOAT},
        DIRECTIONS | {"cell_fw": (OTHER, None), "cell_bw": (OTHER, None), "params": ((Q, P), None),
        "inputs": (STEPS[::-1], None), "scope": ("mine", ...)}),
    "stack_bidirectional_dynamic_rnn": (
        {"cells_fw": [CELL], "cells_bw": [CELL], "params": ([P], [Q]), "inputs": XS, "dtype": FLOAT},
        TUNING | {"cells_fw": ([OTHER], None), "cells_bw": ([OTHER], None), "params": (([Q], [P]), None),
        "inputs": (2 * XS, None), "initial_states_fw": ([STATE], None), "initial_states_bw": ([STATE], None),
        "dtype": (jnp.float32, ValueError), "sequence_length": ([2, 3], None), "time_major": (True, None),
        "key": (KEY, ValueError)}),
    "raw_rnn": ({"cell": CELL, "params": P, "loop_fn": reader(XS), "max_steps": T}, TUNING | {
        "cell": (OTHER, None), "params": (Q, None), "loop_fn": (reader(XS, start=0.1), None), "max_steps": (2, None),
        "key": (KEY, ValueError)}),
}  # fmt: skip
SQUARE = XS[:, :B]  # as many steps as rows, so that `time_major` is a question of meaning and not of shape


@pytest.mark.parametrize("name", LOOPS)
def test_each_argument_changes_the_result_or_raises(name):
    loop, (given, others) = getattr(tf, name), LOOPS[name]
    assert set(inspect.signature(loop).parameters) == set(others)
    flat = lambda given: [np.asarray(leaf) for leaf in jax.tree.leaves(loop(**given))]
    base = flat(given)
    for argument, (value, outcome) in others.items():
        if argument == "time_major":
            before, after = flat(given | {"inputs": SQUARE}), flat(given | {"inputs": SQUARE, "time_major": True})
        elif outcome not in (None, ...):
            with pytest.raises(outcome):
                flat(given | {argument: value})
            continue
        else:
            before, after = base, flat(given | {argument: value})
        same = all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert same == (outcome is ...), argument


def dynamic(cell=CELL, params=P, inputs=XS, **options):
    return lambda: tf.dynamic_rnn(cell, params, inputs, **{"dtype": FLOAT} | options)


def static(inputs=STEPS, cell=CELL, params=P, **options):
    return lambda: tf.static_rnn(cell, params, inputs, **{"dtype": FLOAT} | options)


def both(call=tf.bidirectional_dynamic_rnn, cells=(CELL, CELL), params=(P, Q), inputs=XS, **options):
    return lambda: call(*cells, params, inputs, **{"dtype": FLOAT} | options)


def layers(fw, bw, params, **options):
    return lambda: tf.stack_bidirectional_dynamic_rnn(fw, bw, params, XS, **{"dtype": FLOAT} | options)


class Wrong:
    """A cell that returns what it is told to."""

    state_size = output_size = H
    zero_state = CELL.zero_state

    def __init__(self, returned):
        self.returned = returned

    def __call__(self, params, inputs, state):
        return self.returned(inputs, state)


def wrong(returned):
    return dynamic(Wrong(returned), None)


SHARED = {  # what goes wrong in one array and in a list of steps alike
    "length above T": (LENGTH, {"sequence_length": [1, 9]}, "`sequence_length[1]` = 9 exceeds T = 3"),
    "negative length": (LENGTH, {"sequence_length": [-1, 2]}, "`sequence_length[0]` = -1 is negative"),
    "float lengths": (TypeError, {"sequence_length": [1.0, 2.0]}, "`sequence_length` must be integers of shape "
                      "(batch,) = (2,)...got float64"),
    "bool lengths": (TypeError, {"sequence_length": np.array([True, False])}, "got bool"),
    "lengths of other rows": (LENGTH, {"sequence_length": [1, 2, 3]}, "`sequence_length` has shape (3,), expected "
                              "integers of shape (batch,) = (2,)"),
    "one length": (LENGTH, {"sequence_length": 2}, "`sequence_length` has shape ()"),
    "lengths in a column": (LENGTH, {"sequence_length": [[1], [2]]}, "`sequence_length` has shape (2, 1)"),
    "ragged lengths": (TypeError, {"sequence_length": [[1], [2, 3]]}, "`sequence_length` must be integers"),
    "no dtype": (ValueError, {"dtype": None}, "needs `dtype`, the type of the zero state...or give `initial_state`"),
    "state of other rows": (SEQUENCE, {"initial_state": STATE[:1]}, "batch size: `initial_state` has 1, inputs have 2; "
                            "`jnp.broadcast_to(initial_state, (2, 4))`"),
    "state of another size": (CARRY, {"initial_state": STATE[:, 1:]}, "`initial_state` has shape (2, 3), expected "
                              "(2, 4)"),
    "state of another cell": (CARRY, {"initial_state": (STATE, STATE)}, "`initial_state` must be like "
                              "`cell.zero_state(2, dtype)` of cell `GRUCell(4)`"),
    "state is text": (TypeError, {"initial_state": "zero"}, "`initial_state` must be an array or a number"),
    "dtype of the outputs": (OUTPUT, {"initial_state": STATE, "dtype": jnp.float32}, "`outputs` of cell `GRUCell(4)` "
                             "is float64, but `dtype` asks for float32"),
    "scope is no name": (TypeError, {"scope": 3}, "takes scope=None or a name, which profiles show; got 3"),
    "class for a cell": (TypeError, {"cell": rnn_cell.GRUCell}, "got the class `GRUCell`. Write `GRUCell(...)`"),
    "cell of the core": (TypeError, {"cell": rs.cells.GRU(3, 4)}, "looks like a cell of `rs.cells`: run it with "
                         "`rs.scan`"),
    "noise without key": (ValueError, {"cell": NOISY}, "draws random numbers, so it needs `key=jax.random.key(seed)`; "
                          "for evaluation `rs.wrap.deterministic(cell)`"),
    "key for a quiet cell": (ValueError, {"key": KEY}, "got `key`, but cell `GRUCell(4)` draws no random numbers"),
    "key is a seed": (ValueError, {"cell": NOISY, "key": 3}, "`key` must be jax.random.key(seed), got int 3"),
}  # fmt: skip
FAULTS = [
    *(fails(f"{name}, {call.__name__}", error, call(**options), message)
      for name, (error, options, message) in SHARED.items() for call in (dynamic, static)),
    fails("scalar inputs", SEQUENCE, dynamic(inputs=1.0), "`inputs` has shape (), expected (batch, max_time, depth"),
    fails("list of numbers", SEQUENCE, dynamic(inputs=[1.0, 2.0]), "did you mean `jnp.asarray(inputs)`?"),
    fails("list of steps", SEQUENCE, dynamic(inputs=STEPS), "A list with one array for each step is what `static_rnn`"),
    fails("TensorFlow's own call", SEQUENCE, lambda: tf.dynamic_rnn(CELL, XS, dtype=FLOAT), "Params come after the "
          "cell, `dynamic_rnn(cell, params, ...)`; `cell.init(key, input_size)` makes them"),
    fails("TensorFlow's own call with lengths", SEQUENCE, lambda: tf.dynamic_rnn(CELL, XS, [1, 2], dtype=FLOAT),
          "`inputs[0]` has shape ()...Params come after the cell"),
    fails("TensorFlow's own call of lists", TypeError, lambda: tf.static_rnn(CELL, STEPS), "`static_rnn(cell, params"),
    fails("TensorFlow's own call of two cells", SEQUENCE, lambda: tf.bidirectional_dynamic_rnn(CELL, CELL, XS),
          "Params come after the cell, `bidirectional_dynamic_rnn(cell_fw, cell_bw, params, ...)`"),
    fails("TensorFlow's own call of raw_rnn", TypeError, lambda: tf.raw_rnn(CELL, reader(XS), max_steps=T),
          "`raw_rnn(cell, params, ...)`"),
    fails("no depth", SEQUENCE, dynamic(inputs=XS[..., 0]), "`inputs` has shape (2, 3)...write `inputs[..., None]`"),
    fails("no inputs", SEQUENCE, dynamic(inputs=None), "got inputs=None, expected an array (batch, max_time, depth"),
    fails("inputs disagree on T", SEQUENCE, dynamic(inputs=(XS, XS[:, 1:])), "disagree on T: `inputs[0]` has shape "
          "(2, 3, 3), `inputs[1]` (2, 2, 3)"),
    fails("inputs disagree on rows", SEQUENCE, dynamic(inputs={"a": XS, "b": XS[1:]}), "disagree on the batch size"),
    fails("text", TypeError, dynamic(inputs="text"), "`inputs` must be an array or a number"),
    fails("int inputs", SEQUENCE, dynamic(inputs=jnp.ones((B, T, DEPTH), int)), "works on floats"),
    fails("time_major is a number", TypeError, dynamic(time_major=1), "takes time_major=True or False; got 1"),
    fails("swap_memory is a number", TypeError, dynamic(swap_memory=1), "takes swap_memory=True or False; got 1"),
    fails("parallel_iterations is a float", TypeError, dynamic(parallel_iterations=3.0), "None or an int; got 3.0"),
    fails("parallel_iterations is zero", ValueError, dynamic(parallel_iterations=0), "parallel_iterations >= 1; got 0"),
    fails("no steps", SEQUENCE, static([]), "`static_rnn` got an empty list of inputs; it takes at least one step"),
    fails("one array", TypeError, static(XS), "a list of T arrays...One array is what `dynamic_rnn` takes"),
    fails("steps of two shapes", SEQUENCE, static([XS[:, 0], XS[:1, 1]]), "`inputs[1]` has shape (1, 3), `inputs[0]` "
          "(2, 3); every step has one shape"),
    fails("steps of two structures", SEQUENCE, static([XS[:, 0], (XS[:, 1],)]), "every step has one structure"),
    fails("scalar steps", SEQUENCE, static([1.0, 2.0]), "`inputs[0]` holds a scalar"),
    fails("steps without arrays", SEQUENCE, static([None, None]), "`inputs[0]` has no array"),
    fails("steps of two batch sizes", SEQUENCE, static([(XS[:, 0], XS[:1, 0])]), "has batch sizes [1, 2]"),
    fails("(state, output)", CARRY, wrong(lambda x, h: (h, x)), "Did you return (state, output)? TensorFlow's cells "
          "return (output, state)"),
    fails("state changes shape", CARRY, wrong(lambda x, h: (h, h[:, :2])), "went in as float64[2,4] and came out as "
          "float64[2,2]"),
    fails("one result", ValueError, wrong(lambda x, h: (h, h, h)), "raised by `dynamic_rnn`"),
    fails("output without rows", LENGTH, dynamic(Wrong(lambda x, h: (h.sum(0), h)), None, sequence_length=[1, 2]),
          "`y` has shape (4,)"),
    fails("params of one direction", ValueError, both(params=P), "takes `params` as a pair (forward, backward); got a "
          "dict of 2"),
    fails("backward state", SEQUENCE, both(initial_state_bw=STATE[:1]), "`initial_state_bw` has 1, inputs have 2"),
    fails("no state forward", ValueError, both(initial_state_bw=STATE, dtype=None), "give `initial_state_fw`"),
    fails("key for two quiet cells", ValueError, both(key=KEY), "none of its cells draws random numbers"),
    fails("outputs that do not fit", SEQUENCE, both(tf.static_bidirectional_rnn, (CELL, Wrong(lambda x, h: ((h, x),
          h))), (P, None), STEPS), "concatenates outputs of one structure"),
    fails("outputs of two ranks", SEQUENCE, both(tf.static_bidirectional_rnn, (CELL, Wrong(lambda x, h: (h[..., None],
          h))), (P, None), STEPS), "cannot concatenate `outputs`, float64[3,2,4] from `cell_fw` and float64[3,2,4,1]"),
    fails("no layers", ValueError, layers([], [], ([], [])), "`cells_fw` as a list with one entry a layer; got []"),
    fails("one cell", ValueError, layers(CELL, [CELL], ([P], [P])), "takes `cells_fw` as a list"),
    fails("layers that differ", ValueError, layers([CELL], [CELL] * 2, ([P], [P])), "`cells_bw` has 2 layers"),
    fails("params of fewer layers", ValueError, layers([CELL] * 2, [CELL] * 2, ([P, WIDE], [P])), "`params of "
          "cells_bw` has 1 layers, `cells_fw` has 2"),
    fails("states of fewer layers", ValueError, layers([CELL] * 2, [CELL] * 2, ([P, WIDE],) * 2,
          initial_states_bw=[STATE]), "`initial_states_bw` has 1 layers"),
    fails("state of a layer", SEQUENCE, layers([CELL] * 2, [CELL] * 2, ([P, WIDE],) * 2, initial_states_bw=[STATE,
          STATE[:1]]), "`initial_states_bw[1]` has 1, inputs have 2"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "pattern", "call"), FAULTS)
def test_bad_input(error, pattern, call):
    refused(error, pattern, call)


def test_what_the_core_raises_is_put_into_words():
    with pytest.raises(rs.ParamsError) as caught:
        dynamic(params=WIDE)()
    notes = "\n".join(caught.value.__notes__)
    assert "raised by `dynamic_rnn`, a translation to `rs.scan`: what `rs.scan` calls xs, carry, lengths" in notes


def test_nan_in_a_valid_step_goes_on():
    outputs, state = dynamic(inputs=XS.at[0, 1, 0].set(jnp.nan))()
    assert np.isnan(outputs[0, 1:]).all() and np.isnan(state[0]).all()
    assert np.isfinite(outputs[0, 0]).all() and np.isfinite(outputs[1]).all()

"""TensorFlow's own `tf.compat.v1.nn` loops in graph mode beside ours: values and all gradients, float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from rnnscan.compat import tensorflow as ours
from rnnscan.compat.tensorflow import rnn_cell
from tests.oracles.programs import differential


pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")
v1, nest = tf.compat.v1, tf.nest
DEPTH = 3

CELLS = {  # one expression makes either library's cell: the names and arguments are the same
    "rnn": lambda lib: lib.BasicRNNCell(4),
    "lstm": lambda lib: lib.BasicLSTMCell(4, forget_bias=0.7),
    "peepholes": lambda lib: lib.LSTMCell(4, use_peepholes=True, cell_clip=0.8, num_proj=2, proj_clip=0.6),
    "gru": lambda lib: lib.GRUCell(4),
    "multi": lambda lib: lib.MultiRNNCell([lib.GRUCell(4), lib.BasicLSTMCell(2)]),
}


@dataclasses.dataclass(frozen=True)
class Program:
    """A cell and a setting of every argument with a meaning; all arrays come from the seed."""

    seed: int = 0
    cell: str = "rnn"
    n_rows: int = 3
    n_steps: int = 4
    lengths: str | None = None
    time_major: bool = False
    initial_state: bool = False
    scope: str | None = None

    def random(self):
        return np.random.default_rng(self.seed)

    def sequence_length(self):
        draw = self.random().integers(0, self.n_steps + 1, self.n_rows)
        fixed = {"zeros": np.zeros_like(draw), "full": np.full_like(draw, self.n_steps), "random": draw, None: None}
        return fixed[self.lengths]


PROGRAMS = st.builds(
    Program, seed=st.integers(0, 10**6), cell=st.sampled_from([*CELLS, "own"]), n_rows=st.sampled_from([1, 3, 3, 0]),
    n_steps=st.sampled_from([4, 1, 3, 0]), time_major=st.booleans(), initial_state=st.booleans(),
    scope=st.sampled_from([None, "mine"]),
    lengths=st.sampled_from([None, "random", "random", "random", "zeros", "full"]),
)  # fmt: skip


def total(lib):
    return jnp.sum if lib is jnp else tf.reduce_sum


class Own:
    """A cell outside either library: nested inputs and outputs, a state with a scalar that all rows share."""

    state_size = (4, 1)

    def __init__(self, lib, pair, weights=None):
        self.lib, self.weights, self.output_size = lib, weights, (4, 2) if pair else 4

    def __call__(self, *given):
        weights, inputs, (h, n) = given if self.weights is None else (self.weights, *given)
        h = self.lib.tanh(inputs[0] @ weights["w"] + h * weights["u"] + total(self.lib)(inputs[1], -1) + 0.3 * n)
        output = (h * 2, h[:, 1:3]) if self.output_size != 4 else h * 2
        return output, (h, n + 1)

    def zero_state(self, batch_size, dtype):
        return self.lib.zeros((batch_size, 4), dtype), self.lib.zeros((), dtype)


def arrays_of(program, static=False):
    """Inputs as lists of leaves: (batch, time, ...), (time, batch, ...) or, for static loops, time first."""
    draw, leaves = program.random(), [(DEPTH,)] if program.cell != "own" else [(DEPTH,), (4, 2)]
    axes = [program.n_steps, program.n_rows] if static or program.time_major else [program.n_rows, program.n_steps]
    return [draw.normal(size=(*axes, *leaf)) for leaf in leaves]


def states_of(program, like):
    """Random arrays of the shapes of the zero state's leaves."""
    draw = np.random.default_rng(program.seed + 1)
    return [draw.normal(size=leaf.shape) for leaf in like]


def loss(lib, values):
    """Uneven weights, so that a gradient at the wrong step, row or unit shows."""
    floats = [value for value in values if "float" in str(value.dtype)]
    ramps = [np.linspace(0.3, 1.7, int(np.prod(value.shape))).reshape(tuple(value.shape)) for value in floats]
    return sum(total(lib)(lib.cos(value) * ramp) for value, ramp in zip(floats, ramps, strict=True))


def run_theirs(program, call, arrays, n_cells=1):
    """`(values, gradients, variables)`; `call(cells, inputs, states)` builds the graph and returns a nest."""
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = [tf.constant(array) for array in arrays]
        own = {"w": tf.constant(own_weights()["w"]), "u": tf.constant(own_weights()["u"])}
        make = (
            (lambda: Own(tf, n_cells == 1, own))
            if program.cell == "own"
            else (lambda: CELLS[program.cell](v1.nn.rnn_cell))
        )
        cells = [make() for _ in range(n_cells)]
        zero = [cell.zero_state(program.n_rows, tf.float64) for cell in cells]
        first = [tf.constant(state) for state in states_of(program, nest.flatten(zero))]
        states = nest.pack_sequence_as(zero, first) if program.initial_state else [None] * n_cells
        results = nest.flatten(call(cells, tuple(inputs) if program.cell == "own" else inputs[0], states))
        variables, draw = v1.trainable_variables(), np.random.default_rng(program.seed + 2)
        values = {v.name: draw.normal(size=v.shape) for v in variables}
        wrt = {"inputs": inputs, "states": first if program.initial_state else [], "own": own}
        flat = [*nest.flatten(wrt), *variables]
        slopes = tf.gradients(loss(tf, results), flat, unconnected_gradients="zero")
        session.run([v1.assign(v, values[v.name]) for v in variables])  # only now: a loop that ran takes no gradient
        got, slopes = session.run((results, slopes))
    n = len(flat) - len(variables)
    named = {v.name: slope for v, slope in zip(variables, slopes[n:], strict=True)}
    return got, {**nest.pack_sequence_as(wrt, slopes[:n]), "variables": named}, values


def own_weights():
    return {"u": np.array([0.3, -0.7, 0.9, 0.5]), "w": np.linspace(-0.8, 0.9, 4 * DEPTH).reshape(DEPTH, 4)}


def run_ours(program, call, arrays, variables, scopes=("rnn",)):
    """The same of `call(cells, params, inputs, states)`."""
    n_cells = len(scopes)
    make = (lambda: Own(jnp, n_cells == 1)) if program.cell == "own" else (lambda: CELLS[program.cell](rnn_cell))
    cells = [make() for _ in range(n_cells)]
    zero = [cell.zero_state(program.n_rows, jnp.float64) for cell in cells]
    first = states_of(program, jax.tree.leaves(zero)) if program.initial_state else []

    def objective(wrt):
        params = [wrt["own"]] * n_cells
        if program.cell != "own":
            params = [
                rnn_cell.from_variables(cell, wrt["variables"], DEPTH, s) for cell, s in zip(cells, scopes, strict=True)
            ]
        states = (
            jax.tree.unflatten(jax.tree.structure(zero), wrt["states"]) if program.initial_state else [None] * n_cells
        )
        inputs = tuple(wrt["inputs"]) if program.cell == "own" else wrt["inputs"][0]
        results = jax.tree.leaves(call(cells, params, inputs, states))
        return loss(jnp, results), results

    wrt = {"inputs": arrays, "states": first, "own": own_weights(), "variables": variables}
    (_, results), slopes = jax.jit(jax.value_and_grad(objective, has_aux=True))(jax.tree.map(jnp.asarray, wrt))
    return results, slopes


def assert_equal(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, (path, a.shape, b.shape, a.dtype, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=jax.tree_util.keystr(path))


def options_of(program, **names):
    """The arguments by name, but for the cell, the inputs and the state."""
    options = {"sequence_length": program.sequence_length(), "dtype": np.float64, "scope": program.scope}
    return {key: value for key, value in options.items() if value is not None} | names


def one_step_too_many(program):
    """Where no row has a valid step, `dynamic_rnn` runs one all the same, and a scalar state shows it."""
    lengths = program.sequence_length()
    return program.cell == "own" and program.n_steps > 0 and lengths is not None and not lengths.any()


@differential(PROGRAMS, full=300)
def test_dynamic_rnn_equals_tensorflow(program):
    arrays, options = arrays_of(program), options_of(program, time_major=program.time_major)
    options |= {"parallel_iterations": 3, "swap_memory": True}
    want, slopes, variables = run_theirs(
        program, lambda c, x, s: v1.nn.dynamic_rnn(c[0], x, initial_state=s[0], **options), arrays
    )
    got, our_slopes = run_ours(
        program, lambda c, p, x, s: ours.dynamic_rnn(c[0], p[0], x, initial_state=s[0], **options), arrays, variables,
        [program.scope or "rnn"],
    )  # fmt: skip
    if one_step_too_many(program):
        want[-1] = want[-1] - 1
        slopes["states"] = slopes["states"] and [*slopes["states"][:-1], -0.3 * np.sin(got[-1])]
    assert_equal(got, want)
    assert_equal(our_slopes, slopes)


def steps_of(inputs):
    """The list of steps that static loops take, of inputs with time first."""
    if isinstance(inputs, tuple):
        return list(zip(*map(steps_of, inputs), strict=True))
    return [inputs[t] for t in range(inputs.shape[0])]


@differential(PROGRAMS.filter(lambda program: program.n_steps), full=100)
def test_static_rnn_equals_tensorflow(program):
    arrays, options = arrays_of(program, static=True), options_of(program)
    want, slopes, variables = run_theirs(
        program, lambda c, x, s: v1.nn.static_rnn(c[0], steps_of(x), initial_state=s[0], **options), arrays
    )
    got, our_slopes = run_ours(
        program, lambda c, p, x, s: ours.static_rnn(c[0], p[0], steps_of(x), initial_state=s[0], **options), arrays,
        variables, [program.scope or "rnn"],
    )  # fmt: skip
    assert_equal(got, want)
    assert_equal(our_slopes, slopes)


@differential(st.tuples(PROGRAMS, st.booleans()).filter(lambda drawn: drawn[0].n_steps or not drawn[1]), full=50)
def test_bidirectional_rnns_equal_tensorflow(drawn):
    program, static = drawn
    arrays, name = arrays_of(program, static), "static_bidirectional_rnn" if static else "bidirectional_dynamic_rnn"
    options = options_of(program) if static else options_of(program, time_major=program.time_major)
    given = lambda x, s: (
        (steps_of(x) if static else x),
        {"initial_state_fw": s[0], "initial_state_bw": s[1]} | options,
    )

    def theirs(cells, inputs, states):
        inputs, named = given(inputs, states)
        return getattr(v1.nn, name)(*cells, inputs, **named)

    def our_own(cells, params, inputs, states):
        inputs, named = given(inputs, states)
        return getattr(ours, name)(*cells, params, inputs, **named)

    want, slopes, variables = run_theirs(program, theirs, arrays, n_cells=2)
    scope = program.scope or "bidirectional_rnn"
    got, our_slopes = run_ours(program, our_own, arrays, variables, [f"{scope}/fw", f"{scope}/bw"])
    if one_step_too_many(program) and not static:
        n = 2 if program.initial_state else 0
        for i in (-3, -1):
            want[i] = want[i] - 1
        for i in (1, 3)[:n]:
            slopes["states"][i] = -0.3 * np.sin(got[i - 4])
    assert_equal(got, want)
    assert_equal(our_slopes, slopes)


@dataclasses.dataclass(frozen=True)
class RawProgram(Program):
    """What the loop function does besides reading the inputs until each row ends."""

    feed: bool = False  # the output goes into the next input
    decay: bool = False  # the next state is not the cell's
    emit: str = "output"  # or "pair": other shapes than the cell's output
    loop_state: bool = False
    stop: float | None = None  # a row also ends where its output exceeds this


RAW = st.builds(
    RawProgram, seed=st.integers(0, 10**6), cell=st.sampled_from([*CELLS, "own"]), n_rows=st.sampled_from([1, 3, 3]),
    n_steps=st.sampled_from([4, 1, 3]), lengths=st.sampled_from(["random", "random", "zeros", "full"]),
    time_major=st.just(True), initial_state=st.booleans(), scope=st.sampled_from([None, "mine"]), feed=st.booleans(),
    decay=st.booleans(), emit=st.sampled_from(["output", "pair"]), loop_state=st.booleans(),
    stop=st.sampled_from([None, 0.3]),
)  # fmt: skip


def loop_fn_of(program, lib, cell, inputs, initial):
    """One loop function for both libraries."""
    nested, where = isinstance(inputs, tuple), lambda time: lib.minimum(time, program.n_steps - 1)
    first_of = lambda output: output[0] if nested else output

    def loop_fn(time, output, state, loop_state):
        finished = time >= program.sequence_length().astype(np.int32)
        x = tuple(part[where(time)] for part in inputs) if nested else inputs[where(time)]
        pair = program.emit == "pair"
        if output is None:
            state = cell.zero_state(program.n_rows, lib.float64) if initial is None else initial
            emit = (lib.zeros((2,), lib.float64), lib.zeros((3, 1), lib.float64)) if pair else None
            return finished, x, state, emit, lib.zeros((), lib.float64) if program.loop_state else None
        main = first_of(output)
        if program.stop is not None:
            finished = finished | (main[:, 0] > program.stop)
        if program.feed and not nested:
            x = x + 0.4 * main[:, :1]
        if program.decay:
            state = (nest.map_structure if lib is tf else jax.tree.map)(lambda s: 0.9 * s, state)
        emit = (main[:, :2], lib.stack([main[:, :1], 2 * main[:, 1:2], main[:, :1]], 1)) if pair else output
        if program.loop_state:
            loop_state = loop_state + total(lib)(main)
        return finished, x, state, emit, loop_state

    return loop_fn


@differential(RAW, full=50)
def test_raw_rnn_equals_tensorflow(program):
    arrays, longest = arrays_of(program), program.n_steps + 2

    def theirs(cells, inputs, states):
        loop_fn = loop_fn_of(program, tf, cells[0], inputs, states[0])
        emitted, state, loop_state = v1.nn.raw_rnn(cells[0], loop_fn, scope=program.scope)
        rows = []
        for array in nest.flatten(emitted):
            stacked = array.stack()
            missing = tf.concat([[longest - tf.shape(stacked)[0]], tf.shape(stacked)[1:]], 0)
            padded = tf.concat([stacked, tf.zeros(missing, tf.float64)], 0)
            padded.set_shape([longest, *stacked.shape[1:]])
            rows.append(padded)
        return rows, nest.flatten(emitted)[0].size(), state, [] if loop_state is None else loop_state

    def our_own(cells, params, inputs, states):
        loop_fn = loop_fn_of(program, jnp, cells[0], inputs, states[0])
        emitted, state, loop_state = ours.raw_rnn(cells[0], params[0], loop_fn, scope=program.scope, max_steps=longest)
        arrays = jax.tree.leaves(emitted, is_leaf=lambda leaf: isinstance(leaf, ours.TensorArray))
        return [array.padded for array in arrays], arrays[0].size(), state, loop_state

    want, slopes, variables = run_theirs(program, theirs, arrays)
    got, our_slopes = run_ours(program, our_own, arrays, variables, [program.scope or "rnn"])
    assert_equal(got, want)
    assert_equal(our_slopes, slopes)

"""TensorFlow's own cells in graph mode beside ours: values and all gradients in float64, variables matched by name."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import rnnscan as rs
from rnnscan.compat.tensorflow import rnn_cell as ours
from tests.helpers import compile_quickly
from tests.oracles.programs import differential


pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated")
v1 = tf.compat.v1
theirs = v1.nn.rnn_cell
SCOPE = "rnn"


@dataclass(frozen=True)
class Spec:
    """A cell by its class, options and inner cells; either library's module makes it."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    inner: tuple["Spec", ...] = ()

    def make(self, lib):
        options = dict(self.options)
        if options.get("activation") == "sin":
            options["activation"] = tf.sin if lib is theirs else jnp.sin
        if "residual_fn" in options:
            options["residual_fn"] = lambda x, y: x[..., :1] * y
        inner = [spec.make(lib) for spec in self.inner]
        if self.kind == "MultiRNNCell":
            return lib.MultiRNNCell(inner, **options)
        return getattr(lib, self.kind)(*inner, **options)


def some(draw, **options):
    """Some of the options, each drawn from its strategy; the others are left at their defaults."""
    return {name: draw(strategy) for name, strategy in options.items() if draw(st.booleans())}


CLIPS = st.sampled_from([0.05, 0.3, 1.0])


@st.composite
def cells(draw, in_size, out_size=None, depth=2, flat=False):
    """A cell for inputs of `in_size`; `out_size` is wanted of its output, `flat` a state in one array."""
    wrappers = ["MultiRNNCell", "ResidualWrapper", "DropoutWrapper"] if depth else []
    kind = draw(st.sampled_from(["BasicRNNCell", "BasicLSTMCell", "LSTMCell", "GRUCell", *wrappers]))
    size = out_size or draw(st.integers(1, 4))
    if kind == "MultiRNNCell":
        flat = flat or draw(st.booleans())
        n, inner = draw(st.integers(1, 3)), []
        for i in range(n):
            inner.append(draw(cells(in_size, size if i == n - 1 else 3, depth - 1, flat)))
            in_size = 3
        return Spec(kind, {"state_is_tuple": False} if flat else {}, tuple(inner))
    if kind == "ResidualWrapper":
        own = out_size not in (None, in_size) or draw(st.booleans())
        inner = draw(cells(in_size, size if own else in_size, depth - 1, flat))
        return Spec(kind, {"residual_fn": True} if own else {}, (inner,))
    if kind == "DropoutWrapper":
        options = some(draw, seed=st.integers(0, 9), dtype=st.just("float64"), variational_recurrent=st.just(True))
        if "variational_recurrent" in options:
            options["dtype"] = "float64"
        return Spec(kind, options, (draw(cells(in_size, out_size, depth - 1, flat)),))
    options = {"num_units": size} | some(
        draw, activation=st.sampled_from(["relu", "sigmoid", "softplus", "sin"]), name=st.just("own_name")
    )
    if kind in ("BasicLSTMCell", "LSTMCell"):
        options |= some(draw, forget_bias=st.sampled_from([0.0, 0.4]))
        options |= {"state_is_tuple": False} if flat or draw(st.booleans()) else {}
    if kind == "LSTMCell":
        options |= some(draw, use_peepholes=st.just(True), cell_clip=CLIPS)
        if draw(st.booleans()):
            options |= {"num_units": draw(st.integers(1, 4)), "num_proj": size} | some(draw, proj_clip=CLIPS)
    return Spec(kind, options)


@dataclass(frozen=True)
class Program:
    spec: Spec
    in_size: int
    n_rows: int
    n_steps: int
    seed: int


@st.composite
def programs(draw):
    in_size = draw(st.integers(1, 4))
    rows, steps = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Program(draw(cells(in_size)), in_size, rows, steps, draw(st.integers(0, 10**6)))


def loss(lib, arrays):
    """Uneven weights, so that a gradient at the wrong step, row or unit shows."""
    total = getattr(lib, "reduce_sum", None) or lib.sum
    ramps = [np.linspace(0.3, 1.7, int(np.prod(a.shape))).reshape(tuple(a.shape)) for a in arrays]
    return sum(total(lib.cos(a) * ramp) for a, ramp in zip(arrays, ramps, strict=True))


def in_tensorflow(program, draw):
    """`(variables by name, xs, states)`, then outputs and states, then the gradients for all of the former."""
    with tf.Graph().as_default(), v1.Session() as session:
        cell = program.spec.make(theirs)
        values = draw.normal(size=(program.n_steps, program.n_rows, program.in_size))
        xs = tf.unstack(tf.constant(values))
        state = tf.nest.map_structure(
            lambda z: tf.constant(draw.normal(size=z.shape)), cell.zero_state(program.n_rows, "float64")
        )
        first, outs, states = tf.nest.flatten(state), [], state
        with v1.variable_scope(SCOPE):
            for x in xs:
                out, states = cell(x, states)
                outs.append(out)
        results = [*outs, *tf.nest.flatten(states)]
        variables = {v.name: v for v in v1.global_variables()}
        grads = v1.gradients(loss(tf, results), [*xs, *first, *variables.values()])
        assert None not in grads
        for v in variables.values():  # every number matters, biases too
            session.run(v.initializer, {v.initializer.inputs[1]: 0.8 * draw.normal(size=v.shape)})
        got = session.run((variables, first, results, grads))
    variables, first, results, grads = got
    n = len(xs) + len(first)
    named = dict(zip(variables, grads[n:], strict=True))
    return (variables, values, first), results, (named, np.stack(grads[: len(xs)]), grads[len(xs) : n])


@differential(programs(), full=200)
def test_cells_equal_tensorflow(program):
    given, wanted, slopes = in_tensorflow(program, np.random.default_rng(program.seed))
    cell = program.spec.make(ours)
    structure = jax.tree.structure(cell.zero_state(program.n_rows))

    def run(variables, xs, first):
        params = ours.from_variables(cell, variables, program.in_size, SCOPE)
        state, outs = jax.tree.unflatten(structure, first), []
        for x in xs:
            out, state = cell(params, x, state)
            outs.append(out)
        results = [*outs, *jax.tree.leaves(state)]
        return loss(jnp, results), results

    grads, results = compile_quickly(jax.grad(run, argnums=(0, 1, 2), has_aux=True))(*jax.tree.map(jnp.asarray, given))
    assert len(results) == len(wanted)
    for got, want in zip(results, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
    assert grads[0].keys() == slopes[0].keys()
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)
    params = ours.from_variables(cell, given[0], program.in_size, SCOPE)
    back = ours.to_variables(cell, params, SCOPE)
    assert {f"{name}:0" for name in back} == given[0].keys()  # every variable, and none besides


CELLS = {
    "rnn": lambda lib: lib.BasicRNNCell(60),
    "lstm": lambda lib: lib.BasicLSTMCell(60),
    "full lstm": lambda lib: lib.LSTMCell(60, use_peepholes=True, num_proj=40),
    "gru": lambda lib: lib.GRUCell(60),
}


@pytest.mark.parametrize("make", CELLS.values(), ids=CELLS)
def test_first_values_come_from_tensorflows_distributions(make):
    """Constants are equal; of uniform numbers in +-a, the largest of n is over a (1 - 10 / n), their mean near 0."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(3)
        with v1.variable_scope(SCOPE):
            make(theirs)(tf.zeros((1, 50), "float64"), make(theirs).zero_state(1, "float64"))
        session.run(v1.global_variables_initializer())
        wanted = session.run({v.name.removesuffix(":0"): v for v in v1.global_variables()})
    cell = make(ours)
    got = ours.to_variables(cell, cell.init(jax.random.key(0), 50), SCOPE)
    assert got.keys() == wanted.keys()
    for name, want in wanted.items():
        assert got[name].shape == want.shape
        if want.min() == want.max():
            np.testing.assert_array_equal(got[name], want)
            continue
        fan = sum(want.shape) if want.ndim == 2 else 2 * want.size
        bound = np.sqrt(6 / fan)
        for values in (np.asarray(got[name]), want):
            assert bound * (1 - 10 / values.size) < np.abs(values).max() <= bound
            assert abs(values.mean()) < 5 * bound / np.sqrt(3 * values.size)


class Copy(theirs.RNNCell):
    """TensorFlow's side of a cell that puts out its input and hands on its state."""

    state_size, output_size = theirs.LSTMStateTuple(50, 50), 50

    def __init__(self):
        super().__init__()

    def __call__(self, inputs, state, scope=None):
        return inputs, state


class OurCopy(ours.RNNCell):
    state_size, output_size = ours.LSTMStateTuple(50, 50), 50

    def __call__(self, params, inputs, state):
        return inputs, state


STEPS, ROWS, KEEP = 3, 20, 0.75


def dropped_by_tensorflow(**options):
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(1)
        cell, ones = theirs.DropoutWrapper(Copy(), **options), tf.ones((ROWS, 50), "float64")
        state = theirs.LSTMStateTuple(ones, ones)
        steps = session.run([cell(ones, state) for _ in range(STEPS)])
    return [(out, state.c, state.h) for out, state in steps]


def dropped_by_us(**options):
    cell, ones = ours.DropoutWrapper(OurCopy(), **options), jnp.ones((ROWS, 50))
    steps = [
        cell(None, ones, ours.LSTMStateTuple(ones, ones), rs.Rng(jax.random.key(0), jnp.asarray(t)))
        for t in range(STEPS)
    ]
    return [(np.asarray(out), np.asarray(state.c), np.asarray(state.h)) for out, state in steps]


def visit_all(state):
    return True


@pytest.mark.parametrize("dropped", [dropped_by_tensorflow, dropped_by_us])
@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("where", ["input", "output", "state", "state and memory"])
def test_dropout_follows_one_set_of_rules_in_both(where, variational, dropped):
    """What is dropped, how often, how the rest is scaled, and which masks are the same: between rows, between steps."""
    options = {f"{where.split()[0]}_keep_prob": KEEP}
    if where == "state and memory":
        options["dropout_state_filter_visitor"] = visit_all
    if variational:
        options |= {"variational_recurrent": True, "dtype": "float64", "input_size": tf.TensorShape([50])}
        if dropped is dropped_by_us:
            options["input_size"] = 50
    steps = dropped(**options)
    touched = {"input": {0}, "output": {0}, "state": {2}, "state and memory": {1, 2}}[where]
    for place in range(3):
        values = np.stack([step[place] for step in steps])
        if place not in touched:
            assert (values == 1).all()
            continue
        np.testing.assert_allclose(np.unique(values), [0, 1 / KEEP], rtol=1e-15)
        masks = values > 0
        assert (masks == masks[0]).all() == variational  # between steps
        assert (masks == masks[:, :1]).all() == variational  # between rows
        n = 50 if variational else masks.size
        assert abs(masks.mean() - KEEP) < 5 * np.sqrt(KEEP * (1 - KEEP) / n)
    if len(touched) == 2:
        assert (steps[0][1] != steps[0][2]).any()  # parts of a state have masks of their own


def test_with_a_seed_tensorflows_unrolled_steps_all_have_one_mask_and_ours_do_not():
    """Each step of `static_rnn` has an operation of its own, and all of them start from the same seed."""
    same = lambda steps: all((out == steps[0][0]).all() for out, *_ in steps)
    options = {"output_keep_prob": KEEP, "seed": 5}
    assert same(dropped_by_tensorflow(**options)) and not same(dropped_by_us(**options))


def test_tensorflow_rounds_keep_prob_to_single_precision_and_we_do_not():
    for dropped, scale in ((dropped_by_tensorflow, 1 / np.float64(np.float32(0.7))), (dropped_by_us, 1 / 0.7)):
        np.testing.assert_allclose(dropped(output_keep_prob=0.7)[0][0].max(), scale, rtol=1e-15)
    assert abs(0.7 / np.float64(np.float32(0.7)) - 1) > 1e-8


def test_tensorflow_cannot_keep_nothing_and_we_can():
    """With keep_prob 0 TensorFlow divides by 0, or refuses where masks are drawn each step."""
    options = {"output_keep_prob": 0.0, "variational_recurrent": True, "dtype": "float64"}
    assert np.isnan(dropped_by_tensorflow(**options)[0][0]).all()
    with pytest.raises(ValueError, match="rate"):
        dropped_by_tensorflow(output_keep_prob=0.0)
    for given in (options, {"output_keep_prob": 0.0}):
        np.testing.assert_array_equal(dropped_by_us(**given)[0][0], np.zeros((ROWS, 50)))

"""What `optimize=True` leaves in the loops: the products with the carry, and nothing of a weight's shape.

Counted in what the compiler is given (`tests/structure.py`). The sizes are such that no carry, output or input has as
many numbers as a matrix of weights: time is 11 steps, rows are 2, and no matrix here has a multiple of 11 entries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.helpers import assert_close
from tests.structure import contents, loops, per_step, printed, scan_equations
from tests.user_cells import CONCAT_LSTM, LEAKY, NORM_GRU, concat_lstm, leaky, matrices, norm_gru


STEPS, ROWS, IN, HIDDEN = 11, 2, 3, 5
XS = np.random.default_rng(1).normal(size=(STEPS, ROWS, IN))
KEY = jax.random.key(0, impl="unsafe_rbg")
H_0 = 0.1 * np.ones((ROWS, HIDDEN))


@dataclass(frozen=True, eq=False)
class Case:
    """A way to run a recurrence, and how many products with its carry one step has."""

    name: str
    products: int
    params: Any
    carry: Any
    run: Callable[..., Any]  # (params, carry, xs, **options) -> (carry, ys)
    cell: Any = None
    xs: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "xs", XS if self.xs is None else self.xs)

    def __repr__(self) -> str:
        return self.name


def of_cell(name, products, cell, params=None, carry=None, xs=XS):
    if params is None:
        params = cell.init(jax.random.key(0), jnp.float64)
        carry = jax.tree.map(jnp.asarray, cell.initial_carry((ROWS,), params=params) if carry is None else carry)
    run = lambda params, carry, xs, **options: rs.scan(cell, params, carry, xs, **options)
    return Case(name, products, params, carry, run, cell, xs)


def field(params, t, y, u):
    del t
    return jnp.tanh(y @ params["w_h"] + u @ params["w_x"]) - y


INTEGRATOR = {"w_h": (HIDDEN, HIDDEN), "w_x": (IN, HIDDEN)}
ELMAN, LSTM, GRU = (make(IN, HIDDEN) for make in (rs.cells.Elman, rs.cells.LSTM, rs.cells.GRU))
TO_ITSELF = rs.cells.Elman(HIDDEN, HIDDEN)
WIDE_XS = np.random.default_rng(2).normal(size=(STEPS, ROWS, HIDDEN))
USERS = [
    of_cell("concat LSTM", 1, concat_lstm, CONCAT_LSTM, (H_0, H_0)),
    of_cell("two-layer leaky integrator with softmax", 2, leaky, LEAKY, H_0),
    of_cell("GRU with layer norm", 1, norm_gru, NORM_GRU, H_0),
]
LIBRARY = [
    of_cell("Linear", 1, rs.cells.Linear(IN, HIDDEN)),
    of_cell("Elman", 1, ELMAN),
    of_cell("Elman, two biases", 1, rs.cells.Elman(IN, HIDDEN, activation="relu", double_bias=True)),
    of_cell("LSTM", 1, LSTM),
    of_cell("GRU", 1, GRU),
    of_cell("GRU, reset before the product", 2, rs.cells.GRU(IN, HIDDEN, reset_after=False)),
    of_cell("Residual", 1, rs.wrap.Residual(TO_ITSELF), xs=WIDE_XS),
    of_cell("Project", 1, rs.wrap.Project(LSTM, 4)),
    of_cell("Stack", 2, rs.wrap.Stack(LSTM, rs.cells.GRU(HIDDEN, 4))),
    of_cell("Stack of wrappers", 2, rs.wrap.Stack(rs.wrap.Project(LSTM, HIDDEN), rs.wrap.Residual(TO_ITSELF))),
    *(
        of_cell(make.__name__, stages, make(field, 0.1), matrices(**INTEGRATOR), make(field, 0.1).start(H_0, (ROWS,)))
        for make, stages in ((rs.ode.Euler, 1), (rs.ode.Midpoint, 2), (rs.ode.Heun, 2), (rs.ode.RK4, 4))
    ),
]  # fmt: skip


def closure(params, carry, xs, **options):
    """A bare function with its weights in its closure."""
    return rs.scan(lambda _, h, x: concat_lstm(params, h, x), None, carry, xs, **options)


def keras_step(params, carry, xs):
    def step(x, states):
        h = jnp.tanh(x @ params["w_x"] + states[0] @ params["w_h"])
        return h, [h]

    _, outputs, states = rs.compat.keras.rnn(step, xs, [carry], time_major=True)
    return states, outputs


def theano_fn(params, carry, xs):
    def fn(x, h_tm1):
        return jnp.tanh(x @ params["w_x"] + h_tm1 @ params["w_h"])

    outputs, _ = rs.compat.theano.scan(fn, sequences=xs, outputs_info=carry)
    return (), outputs


TENSORFLOW = rs.compat.tensorflow.rnn_cell.LSTMCell(HIDDEN)


def tensorflow(params, carry, xs):
    ys, state = rs.compat.tensorflow.dynamic_rnn(TENSORFLOW, params, xs, initial_state=carry, time_major=True)
    return state, ys


def both_ways(params, carry, xs):
    return rs.bidirectional(LSTM, LSTM, params, carry, xs)


LSTM_CASE = LIBRARY[3]
OTHERS = [
    Case("closure", 1, CONCAT_LSTM, (H_0, H_0), closure),
    Case("Keras step", 1, matrices(**INTEGRATOR), H_0, keras_step),
    Case("Theano function", 1, matrices(**INTEGRATOR), H_0, theano_fn),
    Case("TensorFlow LSTMCell", 1, TENSORFLOW.init(KEY, IN, jnp.float64), TENSORFLOW.zero_state(ROWS, jnp.float64),
         tensorflow),
    Case("bidirectional", 2, (LSTM_CASE.params, LSTM_CASE.params), (LSTM_CASE.carry, LSTM_CASE.carry), both_ways),
]  # fmt: skip
DROPPED = rs.wrap.Dropout(LSTM, input=0.3, output=0.2, state=0.4)
DROPOUT = of_cell("Dropout", 1, DROPPED)
LENGTHS, MASK, RESETS = (
    np.array([7, 11]),
    np.arange(22).reshape(STEPS, ROWS) % 4 > 0,
    np.arange(22).reshape(STEPS, ROWS) % 5 == 3,
)
OPTIONS = {
    "lengths": {"lengths": LENGTHS},
    "mask": {"mask": MASK},
    "mask, hold": {"mask": MASK, "masked_output": "hold"},
    "resets": {"resets": RESETS},
    "resets to another carry": {"resets": RESETS, "reset_carry": "a carry of its own"},
    "reverse": {"reverse": True},
    "reverse, lengths, resets": {"reverse": True, "lengths": LENGTHS, "resets": RESETS},
    "outputs last": {"outputs": "last"},
    "outputs last, lengths": {"outputs": "last", "lengths": LENGTHS},
    "outputs none": {"outputs": "none"},
    "n_steps": {"n_steps": 9},
    "time axis": {"time_axis": 1},
}  # fmt: skip


def options_of(case, name):
    """The options by name, and the case's xs as they want them."""
    options, xs = dict(OPTIONS[name]), case.xs
    if "reset_carry" in options:
        options["reset_carry"] = jax.tree.map(lambda leaf: leaf + 1, case.carry)
    return options, np.moveaxis(xs, 0, 1) if "time_axis" in options else xs


def squares(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact))


def training(run):
    """The gradient of a sum of squares by params and inputs."""
    return jax.value_and_grad(lambda params, xs, carry: squares(run(params, carry, xs)), (0, 1))


def check(found, products, weights):
    """The loops hold so many products together, and none carries anything of a weight's shape."""
    shown = "\n".join(map(str, found))
    assert sum(loop.products for loop in found) == products, shown
    assert not [loop for loop in found if loop.weight_shaped(weights)], shown


@pytest.mark.parametrize("case", USERS + LIBRARY + OTHERS, ids=repr)
def test_the_loops_hold_only_the_products_with_the_carry(case):
    check(per_step(case.run, case.params, case.carry, case.xs), case.products, case.params)
    check(per_step(training(case.run), case.params, case.xs, case.carry), 2 * case.products, case.params)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("case", [LSTM_CASE, *USERS], ids=repr)
def test_options_leave_it_so(case, name):
    options, xs = options_of(case, name)
    run = lambda params, carry, xs: case.run(params, carry, xs, **options)
    check(per_step(run, case.params, case.carry, xs), case.products, case.params)
    check(per_step(training(run), case.params, xs, case.carry), 2 * case.products, case.params)


def test_noise_leaves_it_so():
    run = lambda params, carry, xs: DROPOUT.run(params, carry, xs, key=KEY)
    forward = per_step(run, DROPOUT.params, DROPOUT.carry, XS)
    check(forward, 1, DROPOUT.params)
    check(per_step(training(run), DROPOUT.params, XS, DROPOUT.carry), 2, DROPOUT.params)


@pytest.mark.parametrize("case", [LSTM_CASE, USERS[0]], ids=repr)
def test_a_scan_that_stops_early(case):
    """The loop that finds the stop runs the same step, hence it holds as little."""
    until = lambda carry, y: y[..., 0] > 0.9

    def run(params, carry, xs):
        result = rs.scan_until(case.cell, params, carry, xs, until=until)
        return result.carry, result.ys

    check(per_step(run, case.params, case.carry, XS), 2, case.params)
    check(per_step(training(run), case.params, XS, case.carry), 3, case.params)


@pytest.mark.parametrize("case", USERS + LIBRARY, ids=repr)
def test_the_backward_loop_carries_the_cotangent_of_the_carry_alone(case):
    *_, backward = per_step(training(case.run), case.params, case.xs, case.carry)
    stored = backward.of_length(STEPS)
    floats = [leaf for leaf in jax.tree.leaves(case.carry) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    allowed = [tuple(leaf.shape) for leaf in floats]
    for shape in backward.carries:
        if shape != () and shape not in stored:
            assert shape in allowed, str(backward)
            allowed.remove(shape)


def test_the_backward_loop_of_a_gru_gives_one_sequence():
    """The cotangents of all its gates are made of it for all steps at once; stacked in the loop they would be four."""
    case = LIBRARY[4]
    *_, backward = per_step(training(case.run), case.params, case.xs, case.carry)
    assert backward.of_length(STEPS) == [(STEPS, ROWS, HIDDEN)]


@pytest.mark.parametrize(("case", "gates"), [(USERS[0], 4), (LIBRARY[1], 1), (LSTM_CASE, 4), (LIBRARY[4], 3)], ids=repr)
def test_products_with_x_run_for_all_steps_at_once(case, gates):
    """One product of two matrices a gate, since XLA copies what is cut out of a larger one."""
    ops, (loop,) = contents(case.run, case.params, case.carry, XS)
    assert (ops["dot_general"], loop.ops["dot_general"]) == (gates, 1)
    assert ops["dynamic_slice"] == 0 and ops["concatenate"] == 0
    assert ops["add"] == 0  # biases are added in the loop, where they take no pass of their own


@pytest.mark.parametrize(("name", "features", "products"), [("GRU", IN, 3), ("GRU", 4, 1), ("LSTM", IN, 1)])
def test_the_gradient_of_the_inputs_weights_gate_by_gate(name, features, products):
    """A GRU's gates have cotangents that nothing has joined; reading few features once a gate costs less than that."""
    cell = getattr(rs.cells, name)(features, HIDDEN)
    params = cell.init(jax.random.key(0), jnp.float64)
    loss = lambda w, rest, xs: jnp.sum(rs.scan(cell, rest | {"w_x": w}, None, xs)[1] ** 2)
    arguments = params["w_x"], params, jnp.zeros((STEPS, ROWS, features))
    both, only_values = (contents(f, *arguments)[0]["dot_general"] for f in (jax.value_and_grad(loss), loss))
    assert both - only_values == products + 1  # and `h @ u`, which a small step computes again


def test_a_long_run_goes_in_pieces_which_alone_sum_up_gradients():
    cell = rs.cells.LSTM(60, 120)
    zeros = lambda: (cell.init(jax.random.key(0)), jnp.zeros((1000, 32, 60)), cell.initial_carry((32,)))
    params, xs, carry = jax.eval_shape(zeros)
    run = lambda params, carry, xs: rs.scan(cell, params, carry, xs)
    (outer,) = loops(run, params, carry, xs)
    assert outer.products == 4 and [loop.products for loop in outer.inner] == [1]
    forward, backward = loops(training(run), params, xs, carry)
    assert [loop.products for loop in (*forward.inner, *backward.inner)] == [1, 1]
    assert (forward.products, backward.products) == (1, 3)  # x's, of all gates; gradients of both matrices and of x
    weights = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    assert sorted(backward.weight_shaped(params)) == sorted(weights) and not forward.weight_shaped(params)
    check([*forward.inner, *backward.inner], 2, params)


def test_nothing_of_the_read_out_is_left_in_the_loop():
    """The softmax reduces over features; the rest of that cell reduces nothing, not even for its biases' gradients."""
    case = USERS[1]
    for found in (
        per_step(case.run, case.params, case.carry, XS),
        per_step(training(case.run), case.params, XS, case.carry),
    ):
        assert [loop.ops["reduce"] for loop in found] == [0] * len(found)
    last = lambda params, carry, xs: case.run(params, carry, xs, outputs="last")
    assert [loop.ops["reduce"] for loop in per_step(last, case.params, case.carry, XS)] == [0]


@pytest.mark.parametrize("options", [{}, {"lengths": LENGTHS}, {"mask": MASK, "resets": RESETS}], ids=str)
@pytest.mark.parametrize("outputs", ["last", "none"])
@pytest.mark.parametrize("case", USERS + LIBRARY, ids=repr)
def test_nothing_of_length_t_is_stored_for_the_last_output(case, outputs, options):
    run = lambda params, carry, xs: case.run(params, carry, xs, outputs=outputs, **options)
    *lower, loop = per_step(run, case.params, case.carry, case.xs)
    assert loop.of_length(STEPS) == [], str(loop)
    assert len(lower) == case.name.startswith("Stack")  # the upper layer reads what the lower one gave at each step


def two_layers(params, carry, x):
    h, k = carry
    h = jnp.tanh(jnp.concatenate([x, h], -1) @ params["w_1"])
    k = jnp.tanh(jnp.concatenate([k, h, x], -1) @ params["w_2"] + params["b_2"])
    return (h, k), k


TWO_LAYERS = of_cell(
    "two layers joined by concatenations", 2, two_layers,
    matrices(w_1=(IN + HIDDEN, HIDDEN), w_2=(2 * HIDDEN + IN, HIDDEN), b_2=(HIDDEN,)), (H_0, H_0),
)  # fmt: skip


def test_a_concatenation_of_layers_is_cut_where_their_loops_are():
    """What the upper layer's product takes from the lower one leaves both loops, as what it takes from x does."""
    ops, found = contents(TWO_LAYERS.run, TWO_LAYERS.params, TWO_LAYERS.carry, XS)
    assert ops["dot_general"] == 3 and [loop.products for loop in found] == [1, 1]
    ours, plain = (training(partial(TWO_LAYERS.run, optimize=optimize)) for optimize in (True, False))
    arguments = TWO_LAYERS.params, XS, TWO_LAYERS.carry
    check(per_step(ours, *arguments), 4, TWO_LAYERS.params)
    assert_close(jax.jit(ours)(*arguments), jax.jit(plain)(*arguments))


def test_it_is_not_where_there_is_one_loop():
    run = partial(TWO_LAYERS.run, optimize=("split", "hoist", "weight_grads"))
    (loop,) = per_step(run, TWO_LAYERS.params, TWO_LAYERS.carry, XS)
    assert loop.products == 2


@pytest.mark.parametrize("cell", [rs.cells.LSTM, rs.cells.GRU])
def test_an_upper_layer_reads_its_gates_apart(cell):
    """As the lowest does: what is cut inside the loop is read element by element."""
    stack = rs.wrap.Stack(cell(IN, HIDDEN), cell(HIDDEN, HIDDEN))
    params = stack.init(jax.random.key(0), jnp.float64)
    for loop in per_step(lambda params, xs: rs.scan(stack, params, None, xs)[1], params, XS):
        assert {shape for shape in loop.fixed if shape[:1] == (STEPS,)} == {(STEPS, ROWS, HIDDEN)}


@pytest.mark.parametrize("case", USERS + LIBRARY, ids=repr)
def test_without_optimize_it_is_lax_scan(case):
    plain = lambda params, carry, xs: jax.lax.scan(lambda h, x: case.cell(params, h, x), carry, xs)
    ours = lambda params, carry, xs: case.run(params, carry, xs, optimize=False)
    got, want = (scan_equations(jax.make_jaxpr(f)(case.params, case.carry, case.xs).jaxpr) for f in (ours, plain))
    assert [equation.primitive.name for equation in want] == ["scan"]
    assert [printed(equation) for equation in got] == [printed(equation) for equation in want]


def test_a_cell_that_nothing_can_improve_is_lax_scan():
    step = lambda _, h, x: (jnp.sin(h + x), jnp.sin(h + x))
    ours = lambda h, xs: rs.scan(step, None, h, xs)
    plain = lambda h, xs: jax.lax.scan(lambda h, x: step(None, h, x), h, xs)
    assert contents(ours, H_0, WIDE_XS) == contents(plain, H_0, WIDE_XS)
    by_both = lambda run: jax.value_and_grad(lambda h, xs: squares(run(h, xs)), (0, 1))
    assert contents(by_both(ours), H_0, WIDE_XS) == contents(by_both(plain), H_0, WIDE_XS)


def test_the_count_sees_what_lax_scan_leaves_in_the_loop():
    """Both products forward; back, the state's transpose and two products that add up the weights' gradients."""
    params, carry = LSTM_CASE.params, LSTM_CASE.carry
    plain = lambda params, carry, xs: jax.lax.scan(lambda h, x: LSTM(params, h, x), carry, xs)
    (forward,) = loops(plain, params, carry, XS)
    assert (forward.products, forward.weight_shaped(params)) == (2, [])
    assert forward.of_length(STEPS) == [(STEPS, ROWS, HIDDEN)]
    by_params = jax.value_and_grad(lambda params: squares(plain(params, carry, XS)))
    again, backward = loops(by_params, params)
    assert (again.products, backward.products) == (2, 3)
    assert sorted(backward.weight_shaped(params)) == [(IN, 4 * HIDDEN), (HIDDEN, 4 * HIDDEN)]
    nested = lambda params, carry, xs: jax.lax.map(lambda x: plain(params, carry, x), jnp.stack([xs, xs]))
    (outer,) = loops(nested, params, carry, XS)
    assert (outer.products, outer.depth) == (0, 0)
    assert [(loop.products, loop.depth) for loop in outer.inner] == [(2, 1)]


@pytest.mark.parametrize("optimize", [True, ("hoist", "weight_grads"), ("weight_grads",)], ids=str)
def test_products_for_the_last_step_and_for_every_step_have_their_own_operands(optimize):
    """One leaf of the carry is read after the scan alone, so that its product is of the last step; y's is of each."""

    def step(params, carry, x):
        h, _ = carry
        h = jnp.tanh(x @ params["w_x"] + h @ params["w_h"])
        return (h, jnp.tanh((h + 1) @ params["w_last"])), (2 * h) @ params["w_y"]

    params = matrices(w_x=(IN, HIDDEN), w_h=(HIDDEN, HIDDEN), w_last=(HIDDEN, HIDDEN), w_y=(HIDDEN, HIDDEN))

    def loss(params, **how):
        (_, last), ys = rs.scan(step, params, (H_0, H_0), XS, **how)
        return jnp.sum(jnp.cos(last)) + jnp.sum(jnp.sin(ys))

    assert_close(*(jax.grad(loss)(params, **how) for how in ({"optimize": optimize}, {"method": "reference"})))

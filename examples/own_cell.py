"""A layer of one's own, as a Keras tutorial writes it and as a function: a recurrent layer, and an equation as a layer.

The tutorial subclasses `Layer` twice. `My_RNN` is the least recurrent layer there is. `ODE_RNN` has Euler's method for
its step: with known rates it solves a differential equation, and with the rates as weights it finds them from data.

    the tutorial's layer                              here, as functions
    ------------------------------------------------  --------------------------------------------------
    __init__(self, output_dim): keeps the settings    arguments of `init`; a frozen dataclass if there are many
    build(self, input_shape): self.add_weight(...)    init(key, in_size, units) -> params, a dict of arrays
    step_do(self, x, states) -> (y, [h])              step(params, h, x) -> (h, y)
    call(self, inputs): K.rnn(self.step_do, ...)      rs.scan(step, params, carry, xs)
    call(...) returns the first or second of three    the carry is the last state, ys are all outputs
    self.h = h, a number of the step                  rs.ode.Euler(field, dt), rs.ode.RK4(field, dt)
    model.compile, model.fit                          rs.train.fit(loss, params, optimizer, batches, key=key)

Both are below: `MyRNN` and `OdeRNN` are the layers with `K.rnn` imported from `rs.compat.keras` and the weights in a
dict; the functions stand next to them, and the job checks that values and gradients agree.
"""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnscan as rs
from rnnscan.compat import keras as K

from ._job import Merit, Settings
from .ode import BEGIN, FIRST_GUESS, RATES, competition


UNITS, CLASSES, BATCH = 64, 10, 100
STEPS, WEEKS = 1000, 42  # Euler steps of 0.1 that solve; data for t = 1, 2, ... 42 to infer from
NAMES = ("species 1", "species 2")


class Layer:
    """What is left of Keras' `Layer`: weights that `build` makes, and a copy with other weights to differentiate by."""

    weights: dict[str, Any]

    def __call__(self, weights: Any, inputs: Any) -> Any:
        layer = copy.copy(self)
        layer.weights = weights
        return layer.call(inputs)

    def call(self, inputs: Any) -> Any:
        raise NotImplementedError


class MyRNN(Layer):
    """The tutorial's `My_RNN`: `h_t = tanh(h_{t-1} W_h + x_t W_x + b)`, and the last `h` comes out."""

    def __init__(self, output_dim: int):
        self.output_dim = output_dim

    def build(self, key: Any, input_shape: tuple[int, ...]) -> dict[str, Any]:
        self.weights = init(key, input_shape[-1], self.output_dim)["cell"]
        return self.weights

    def step_do(self, step_in: Any, last_states: Any) -> tuple[Any, list[Any]]:
        w = self.weights
        step_out = jnp.tanh(last_states[0] @ w["w_h"] + step_in @ w["w_x"] + w["b"])
        return step_out, [step_out]

    def call(self, inputs: Any) -> Any:
        init_states = [jnp.zeros((inputs.shape[0], self.output_dim), inputs.dtype)]
        return K.rnn(self.step_do, inputs, init_states)[0]


def init(key: Any, in_size: int, units: int) -> dict[str, Any]:
    """The functional `build`: weights of the cell, and of the classes that are read off its last state."""
    key_x, key_h, key_y = jax.random.split(key, 3)
    orthogonal, glorot = jax.nn.initializers.orthogonal(), jax.nn.initializers.glorot_uniform()
    cell = {"w_x": glorot(key_x, (in_size, units)), "w_h": orthogonal(key_h, (units, units)), "b": jnp.zeros(units)}
    return {"cell": cell, "w_y": glorot(key_y, (units, CLASSES)), "b_y": jnp.zeros(CLASSES)}


def step(params: Any, h_tm1: jax.Array, x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The functional `step_do`."""
    h_t = jnp.tanh(h_tm1 @ params["w_h"] + x_t @ params["w_x"] + params["b"])
    return h_t, h_t


def last_state(params: Any, images: Any) -> jax.Array:
    """The functional `call`: images `(batch, rows, pixels)`, one row a step, to the last state `(batch, units)`."""
    h_0 = jnp.zeros((len(images), params["b"].size), images.dtype)
    return rs.scan(step, params, h_0, images, time_axis=1, outputs="none")[0]


def logits(params: Any, images: Any, states_of: Any = last_state) -> jax.Array:
    return states_of(params["cell"], images) @ params["w_y"] + params["b_y"]


def cross_entropy(params: Any, batch: Any, key: Any) -> jax.Array:
    del key
    images, labels = batch
    return rs.train.masked_cross_entropy(logits(params, images), labels)


class OdeRNN(Layer):
    """The tutorial's `ODE_RNN`: the input is the first value, the outputs are the solution at h, 2 h, ... steps h."""

    def __init__(self, steps: int, h: float):
        self.steps, self.h = steps, h

    def build(self, rates: Any) -> dict[str, Any]:
        self.weights = rates
        return self.weights

    def step_do(self, step_in: Any, last_states: Any) -> tuple[Any, list[Any]]:
        del step_in
        y = last_states[0]
        field = jax.vmap(lambda y: competition(self.weights, None, y, None))
        step_out = y + self.h * field(y)
        return step_out, [step_out]

    def call(self, inputs: Any) -> Any:
        zeros = jnp.zeros((inputs.shape[0], self.steps, 1), inputs.dtype)
        return K.rnn(self.step_do, zeros, [inputs])[1]


def solve(method: Any, dt: float, rates: Any, n_steps: int) -> jax.Array:
    """The functional `ODE_RNN`: populations `(n_steps, 2)`; the method is an argument, Euler's or another."""
    cell = method(competition, dt)
    return rs.scan(cell, rates, cell.start(jnp.array(BEGIN)), n_steps=n_steps)[1]


def misfit(logs: Any, populations: Any, key: Any) -> jax.Array:
    """Mean squared relative error of RK4 with steps of 1; rates as logarithms, so that they stay positive."""
    del key
    found = solve(rs.ode.RK4, 1.0, jax.tree.map(jnp.exp, logs), WEEKS)
    return jnp.mean((found / populations - 1) ** 2)


def run(settings: Settings) -> list[Merit]:
    with jax.enable_x64(False):
        rows = train_my_rnn(settings)
    with jax.enable_x64(True):
        return [*rows, *solve_and_infer(settings)]


def train_my_rnn(settings: Settings) -> list[Merit]:
    """Reads scikit-learn's digits row by row."""
    epochs, expected = (8, 0.90) if settings.fast else (40, 0.95)
    data = rs.data.digits()
    key_init, key_fit = jax.random.split(jax.random.key(0))
    params = init(key_init, data.train_images.shape[-1], UNITS)
    layer = MyRNN(UNITS)
    layer.build(key_init, data.train_images.shape)
    few = jnp.asarray(data.train_images[:BATCH]), jnp.asarray(data.train_labels[:BATCH])

    @jax.jit
    def gradients(params: Any) -> Any:
        ported = lambda p: rs.train.masked_cross_entropy(logits(p, few[0], layer), few[1])
        return jax.grad(ported)(params), jax.grad(cross_entropy)(params, few, None)

    apart = difference(*gradients(params))
    print(f"  My_RNN: gradients through K.rnn and through scan differ by {apart:.0e} of the largest")
    batches = rs.train.batches((data.train_images, data.train_labels), BATCH, drop_last=True)
    rate = optax.cosine_decay_schedule(3e-3, epochs * len(batches))
    fit = rs.train.fit(cross_entropy, params, optax.adam(rate), batches, key=key_fit, epochs=epochs, clip_norm=1.0)
    classes = np.asarray(jax.jit(logits)(fit.params, data.test_images)).argmax(-1)
    right = float(np.mean(classes == data.test_labels))
    print(f"  My_RNN: {right:.1%} of the test digits after {epochs} epochs")
    settings.save(rs.plot.confusion(data.test_labels, classes, data.test_images), "own_cell_rows")
    return [
        Merit("own_cell", "My_RNN by K.rnn against scan, gradients", f"{apart:.0e}", "< 1e-5", apart < 1e-5),
        Merit("own_cell", f"My_RNN, 8x8 digits, {epochs} epochs", f"{right:.1%}", f">= {expected:.0%}",
              right >= expected),
    ]  # fmt: skip


def solve_and_infer(settings: Settings) -> list[Merit]:
    """Forwards with the tutorial's rates; then the rates from what RK4 with small steps says of 42 weeks."""
    layer = OdeRNN(STEPS, 0.1)
    solution = layer(layer.build(RATES), jnp.array([BEGIN]))[0]
    apart = difference(solution, solve(rs.ode.Euler, 0.1, RATES, STEPS))
    print(f"  ODE_RNN: Euler's method by K.rnn and by rs.ode.Euler differ by {apart:.0e} of the largest")
    populations = solve(rs.ode.RK4, 0.1, RATES, 10 * WEEKS)[9::10]
    done = lambda k, params, metrics: metrics["grad_norm"] < 1e-9
    descent = optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(30))  # compiles faster than optax's default
    start = jax.tree.map(jnp.log, FIRST_GUESS)
    fit = rs.train.fit(misfit, start, descent, [populations], key=jax.random.key(0), epochs=500, callback=done)
    rates = jax.tree.map(lambda log: float(jnp.exp(log)), fit.params)
    worst = max(abs(rates[name] / RATES[name] - 1) for name in RATES)
    print(f"  ODE_RNN: {len(fit.history['loss'])} steps of L-BFGS; rates, true and found:")
    for name, rate in RATES.items():
        print(f"    {name:<5}{rate:>10.6f}{rates[name]:>10.6f}")
    draw_ode(settings, np.asarray(solution), np.asarray(populations), fit)
    return [
        Merit("own_cell", "ODE_RNN by K.rnn against rs.ode.Euler", f"{apart:.0e}", "< 1e-12", apart < 1e-12),
        Merit("own_cell", "ODE_RNN, worst of six inferred rates", f"off by {worst:.1e}", "< 1e-2", worst < 1e-2),
    ]


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference between two trees, relative to the largest entry."""
    pairs = list(zip(map(np.asarray, jax.tree.leaves(ours)), map(np.asarray, jax.tree.leaves(theirs)), strict=True))
    return float(max(np.abs(a - b).max() for a, b in pairs) / max(np.abs(b).max() for _, b in pairs))


def draw_ode(settings: Settings, solution: Any, populations: Any, fit: rs.train.Fit) -> None:
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    times, weeks = 0.1 * np.arange(STEPS + 1), np.arange(1, WEEKS + 1)
    whole = np.vstack([BEGIN, solution])
    rs.plot.ode_solution(times, whole, (weeks[::3], populations[::3]), NAMES, ax=axes[0], ylabel="population")
    axes[0].set_title("ODE_RNN solving: Euler's steps of 0.1, and the data")
    rs.plot.learning_curve(fit, ax=axes[1], label="L-BFGS").set_title("ODE_RNN inferring: six rates from the data")
    settings.save(fig, "own_cell_ode")

"""The recurrent chapter of a TensorFlow 1 tutorial with its imports changed: the same cells, loops and argument names.

A. Géron, "Hands-On Machine Learning with Scikit-Learn and TensorFlow", 2017, chapter 14. What changes in each program
is the same: `cell.init(key, input_size)` makes the variables that TensorFlow made on the side, they go in as `params`,
and there is no session to run.

    the tutorial                                       here
    -------------------------------------------------  ------------------------------------------------------
    tf.nn.static_rnn(cell, [X0, X1], dtype=...)        static_rnn(cell, params, [X0, X1], dtype=...)
    tf.nn.dynamic_rnn(cell, X, sequence_length=...)    dynamic_rnn(cell, params, X, sequence_length=...)
    tf.contrib.rnn.BasicLSTMCell(num_units=150)        rnn_cell.BasicLSTMCell(num_units=150)
    tf.layers.dense(states, 10)                        states @ params["kernel"] + params["bias"]
    keep_prob, a placeholder, 1.0 when testing         key=key; rs.wrap.deterministic(cell) when testing
    optimizer.minimize(loss), a loop over batches      rs.train.fit(loss, params, optimizer, batches, key=key)

The job runs its programs one after another: two steps by hand, rows of two lengths, the cell of an LSTM, three layers,
dropout, MNIST read row by row and a series predicted one step ahead. The small ones are checked against NumPy, the
trained ones against what the tutorial's notebook prints, where the run is as long as its own.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnscan as rs
from rnnscan.compat.tensorflow import dynamic_rnn, rnn_cell, static_rnn

from ._job import Merit, Settings
from .rows import find_mnist
from .series import BATCH as WINDOWS
from .series import INSTANCE, RESOLUTION, WINDOW, windows


N_INPUTS, N_NEURONS = 3, 5
X0_BATCH = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 1]], np.float32)  # t = 0
X1_BATCH = np.array([[9, 8, 7], [0, 0, 0], [6, 5, 4], [3, 2, 1]], np.float32)  # t = 1
SEQ_LENGTH = np.array([2, 1, 2, 2])  # the second row has one step
ROW_UNITS, ROW_BATCH, SERIES_UNITS = 150, 150, 100


def run(settings: Settings) -> list[Merit]:
    with jax.enable_x64(False):  # in float32, whatever the caller works in
        merits = [*two_steps(), lstm_kernel(), layers(), dropout()]
        return [*merits, rows(settings), series(settings)]


def exact(what: str, differences: list[float]) -> Merit:
    worst = max(differences)
    return Merit("from_tensorflow", what, f"{worst:.0e}", "< 1e-5", worst < 1e-5)


def apart(got: Any, want: Any) -> float:
    return float(np.abs(np.asarray(got) - np.asarray(want)).max())


def two_steps() -> list[Merit]:
    """The tutorial's first network, unrolled by hand, by `static_rnn` and by `dynamic_rnn` with rows of two lengths."""
    cell = rnn_cell.BasicRNNCell(num_units=N_NEURONS)
    params = cell.init(jax.random.key(0), N_INPUTS)
    w_x, w_y = np.split(np.asarray(params["kernel"]), [N_INPUTS])
    y0 = np.tanh(X0_BATCH @ w_x + params["bias"])
    y1 = np.tanh(y0 @ w_y + X1_BATCH @ w_x + params["bias"])

    outputs, state = static_rnn(cell, params, [X0_BATCH, X1_BATCH], dtype=jnp.float32)
    by_list = [apart(outputs[0], y0), apart(outputs[1], y1), apart(state, y1)]

    X = np.stack([X0_BATCH, X1_BATCH], axis=1)  # (4, 2, 3): rows, steps, features
    ended = (SEQ_LENGTH == 1)[:, None]
    outputs, state = dynamic_rnn(cell, params, X, sequence_length=SEQ_LENGTH, dtype=jnp.float32)
    by_array = [
        apart(outputs[:, 0], y0),
        apart(outputs[:, 1], np.where(ended, 0, y1)),
        apart(state, np.where(ended, y0, y1)),
    ]
    return [
        exact("static_rnn on two steps, against NumPy", by_list),
        exact("dynamic_rnn with sequence_length, against NumPy", by_array),
    ]


def sigmoid(a: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(a)))


def lstm_kernel() -> Merit:
    """One step of `BasicLSTMCell`: one kernel over `[x; h]`, gates in the order i, j, f, o, and 1 added to f."""
    cell = rnn_cell.BasicLSTMCell(num_units=ROW_UNITS)
    params = cell.init(jax.random.key(0), 28)
    x, c, h = (
        jax.random.normal(key, (4, n))
        for key, n in zip(jax.random.split(jax.random.key(1), 3), (28, 150, 150), strict=True)
    )
    _, state = jax.jit(cell)(params, x, rnn_cell.LSTMStateTuple(c, h))
    i, j, f, o = np.split(np.concatenate([x, h], 1) @ params["kernel"] + params["bias"], 4, axis=1)
    c_t = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
    shape = tuple(params["kernel"].shape)
    return exact(
        f"BasicLSTMCell, kernel {shape}, against NumPy",
        [apart(state.c, c_t), apart(state.h, sigmoid(o) * np.tanh(c_t))],
    )


def layers() -> Merit:
    """`MultiRNNCell`: the state is a tuple, one entry a layer, and the top one's is the last output."""
    cell = rnn_cell.MultiRNNCell(tuple(rnn_cell.BasicRNNCell(num_units=n) for n in (100, 100, 50)))
    X = jax.random.normal(jax.random.key(0), (4, 6, N_INPUTS))
    params, below = cell.init(jax.random.key(1), N_INPUTS), X
    outputs, states = dynamic_rnn(cell, params, X, dtype=jnp.float32)
    differences = [apart(states[-1], outputs[:, -1])]
    for i, one in enumerate(cell.cells):  # layer by layer is the same as step by step
        below, state = dynamic_rnn(one, params[f"cell_{i}"], below, dtype=jnp.float32)
        differences.append(apart(states[i], state))
    return exact("MultiRNNCell, against layer by layer", [*differences, apart(outputs, below)])


def dropout() -> Merit:
    """`DropoutWrapper` on the input: the noise is an argument, and evaluation is the same cell without it."""
    keep_prob = 0.5
    cell = rnn_cell.DropoutWrapper(rnn_cell.BasicRNNCell(num_units=N_NEURONS), input_keep_prob=keep_prob)
    params, X = cell.init(jax.random.key(0), N_INPUTS), jnp.ones((200, 8, N_INPUTS))
    outputs, _ = dynamic_rnn(cell, params, X[:, :1], dtype=jnp.float32, key=jax.random.key(1))
    quiet, _ = dynamic_rnn(rs.wrap.deterministic(cell), params, X, dtype=jnp.float32)
    bare, _ = dynamic_rnn(cell.cell, params, X, dtype=jnp.float32)
    w_x = np.asarray(params["kernel"])[:N_INPUTS]
    patterns = np.array(np.meshgrid(*[[0, 1]] * N_INPUTS)).reshape(N_INPUTS, -1).T / keep_prob
    nearest = np.abs(np.asarray(outputs) - np.tanh(patterns @ w_x)).max(-1).min(-1)  # each row kept some of its inputs
    return exact("DropoutWrapper, inputs kept or not, off when testing", [float(nearest.max()), apart(quiet, bare)])


def dense(key: Any, n_inputs: int, n_outputs: int) -> dict[str, Any]:
    kernel = jax.nn.initializers.glorot_uniform()(key, (n_inputs, n_outputs))
    return {"kernel": kernel, "bias": jnp.zeros(n_outputs)}


def rows(settings: Settings) -> Merit:
    """MNIST, 28 steps of 28 inputs: 150 tanh units, and the classes read off the last state."""
    images, name, epochs, expected = find_mnist(download=not settings.fast), "MNIST", 2, 0.93
    if images is None:
        images, name, epochs, expected = rs.data.digits(), "8x8 digits", 15, 0.92
    elif settings.fast:
        images, name, epochs, expected = type(images)(*(part[::10] for part in images)), "a tenth of MNIST", 3, 0.70
    elif settings.full:
        epochs, expected = 10, 0.96
    X_train, y_train, X_test, y_test = images
    cell = rnn_cell.BasicRNNCell(num_units=ROW_UNITS)

    def logits(params: Any, X: Any) -> Any:
        _, states = dynamic_rnn(cell, params["rnn"], X, dtype=jnp.float32)
        return states @ params["dense"]["kernel"] + params["dense"]["bias"]

    def loss(params: Any, batch: Any, key: Any) -> Any:
        del key
        X, y = batch
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, X), y).mean()

    key, *keys = jax.random.split(jax.random.key(0), 3)
    params = {"rnn": cell.init(keys[0], X_train.shape[-1]), "dense": dense(keys[1], ROW_UNITS, 10)}
    batches = rs.train.batches((X_train, y_train), ROW_BATCH, drop_last=True)
    fit = rs.train.fit(loss, params, optax.adam(1e-3), batches, key=key, epochs=epochs)
    classes = jax.jit(lambda X: logits(fit.params, X).argmax(-1))
    right = float(np.mean(np.asarray(classes(X_test)) == y_test))
    draw_losses(settings, fit.history["loss"], f"BasicRNNCell(150) on {name}")
    return Merit(
        "from_tensorflow",
        f"BasicRNNCell, {name}, {epochs} epochs",
        f"{right:.1%}",
        f">= {expected:.0%}",
        right >= expected,
    )


def series(settings: Settings) -> Merit:
    """Windows of 20 values, the same one step later: 100 relu units and an output projection."""
    n_iterations, expected, published = (200, 0.5, "") if settings.fast else (1500, 0.05, ", published 0.041 to 0.048")
    cell = rnn_cell.OutputProjectionWrapper(
        rnn_cell.BasicRNNCell(num_units=SERIES_UNITS, activation="relu"), output_size=1
    )

    def loss(params: Any, batch: Any, key: Any) -> Any:
        del key
        X, y = batch
        outputs, _ = dynamic_rnn(cell, params, X, dtype=jnp.float32)
        return jnp.mean(jnp.square(outputs - y))

    key, *keys = jax.random.split(jax.random.key(0), 3)
    starts = jax.random.uniform(keys[0], (n_iterations, WINDOWS), maxval=30 - WINDOW * RESOLUTION)
    values = np.moveaxis(np.asarray(windows(starts)), 0, 2)  # (iterations, rows, steps, 1)
    batches = [(window[:, :-1], window[:, 1:]) for window in values]
    fit = rs.train.fit(loss, cell.init(keys[1], 1), optax.adam(1e-3), batches, key=key)
    held_out = np.moveaxis(np.asarray(windows(jnp.linspace(0.0, 30 - WINDOW * RESOLUTION, 1000))), 0, 1)
    error = float(loss(fit.params, (held_out[:, :-1], held_out[:, 1:]), None))
    instance = np.moveaxis(np.asarray(windows(jnp.array([INSTANCE]))), 0, 1)
    draw_prediction(settings, instance[0, :, 0], dynamic_rnn(cell, fit.params, instance[:, :-1], dtype=jnp.float32)[0])
    what = f"OutputProjectionWrapper, squared error, {n_iterations} iterations"
    return Merit("from_tensorflow", what, f"{error:.3f}", f"< {expected}{published}", error < expected)


def draw_losses(settings: Settings, losses: Any, title: str) -> None:
    ax = rs.plot.learning_curve({"loss": np.asarray(losses)})
    ax.set_title(title)
    settings.save(ax.figure, "from_tensorflow_rows")


def draw_prediction(settings: Settings, window: Any, outputs: Any) -> None:
    t = INSTANCE + RESOLUTION * np.arange(WINDOW + 1)
    ax = rs.plot.series(t, window, predicted=(t[1:], np.asarray(outputs)[0, :, 0]))
    ax.set_title("a window of the series, predicted one step ahead")
    settings.save(ax.figure, "from_tensorflow_series")

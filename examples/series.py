"""A time series predicted one step ahead, and then continued by the network itself.

The TensorFlow tutorial (A. Géron, "Hands-On Machine Learning with Scikit-Learn and TensorFlow", 2017, chapter 14) takes
`t sin(t) / 3 + 2 sin(5t)` at steps of 0.1 and trains 100 relu units with an output projection on windows of 20 values,
cut at random from t in [0, 30]: 50 a batch, 1,500 iterations of Adam at 1e-3; the target is the window one step later.
Its notebook prints the error on the batch just trained on. Here the error is also taken on 1,000 windows at even
distances, and on t in [30, 36], where the series swings wider than any that training has seen.

Then the network writes: it reads 20 values, its last output becomes the next value, and so on, 300 times; once from
zeros and once from a real window. That asks for more than the error tells. Relu units are unbounded and an error fed
back may grow, so that after these 1,500 iterations some seeds write themselves off to infinity. The same network after
twice as many, with a clipped gradient and a rate that falls to nothing, has nearly the same error, and writes on in
the manner of the series.

Last, three layers of tanh units with dropout, trained with a key and judged without noise. The tutorial drops half of
every layer's input, the series itself included; its notebook's training error stays between 2.2 and 4.5 from iteration
400 on, and ours, its noise off, predicts worse than repeating the last value. Dropout between the layers only
leaves the series whole, and predicts it well.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnscan as rs

from ._job import Merit, Settings


RESOLUTION, WINDOW, END = 0.1, 20, 30.0
UNITS, BATCH = 100, 50
INSTANCE = 12.2  # where the tutorial's figures cut their window

Elman, Dropout, Project, Stack = rs.cells.Elman, rs.wrap.Dropout, rs.wrap.Project, rs.wrap.Stack
RELU = Project(Elman(1, UNITS, activation="relu"), 1)
BETWEEN = Project(Stack(Elman(1, UNITS), Elman(UNITS, UNITS), Elman(UNITS, UNITS), dropout=0.5), 1)
EVERYWHERE = Project(Stack([Dropout(Elman(n, UNITS), input=0.5) for n in (1, UNITS, UNITS)]), 1)
NAMES = {
    RELU: "one relu layer",
    BETWEEN: "three layers, dropout between them",
    EVERYWHERE: "three layers, dropout on every input",
}
ADAM = optax.adam(1e-3)


@dataclass(frozen=True)
class Plan:
    """How many iterations in the tutorial's training and in a longer one, which seeds, and what they should reach."""

    n_steps: int = 1500
    longer: int = 3000
    seeds: tuple[int, ...] = (0,)
    trained: float = 0.05
    below_baseline: float = 10.0  # how many times smaller the error should be than that of repeating the last value
    written: float = 1.5
    dropped: float = 4.5
    beside: tuple[str, str] = (", published 0.041 to 0.048", ", published 2.2 to 4.5")


FAST = Plan(n_steps=300, longer=600, trained=0.5, below_baseline=2.0, written=4.0, dropped=12.0, beside=("", ""))


def run(settings: Settings) -> list[Merit]:
    plan = FAST if settings.fast else Plan(seeds=(0, 1, 2)) if settings.full else Plan()
    falling = optax.adam(optax.cosine_decay_schedule(1e-3, plan.longer))
    with jax.enable_x64(False):  # in float32, whatever the caller works in
        fits = {net: [train(net, plan.n_steps, seed) for seed in plan.seeds] for net in NAMES}
        longer = [train(RELU, plan.longer, seed, falling, clip_norm=1.0) for seed in plan.seeds]
        first = {net: trained[0].params for net, trained in fits.items()}
        draw_prediction(settings, first[RELU])
        draw_written(settings, {plan.n_steps: first[RELU], plan.longer: longer[0].params})
        draw_stacks(settings, first)
        return [*one_layer_merits(plan, fits[RELU]), written_merit(plan, fits[RELU], longer), *stack_merits(plan, fits)]


def series(t: Any) -> Any:
    return t * jnp.sin(t) / 3 + 2 * jnp.sin(5 * t)


def windows(starts: Any) -> jax.Array:
    """Values `(WINDOW + 1, *starts.shape, 1)` from each start: all but the last are input, all but the first target."""
    ages = RESOLUTION * jnp.arange(WINDOW + 1, dtype=starts.dtype)
    return series(starts + ages.reshape(-1, *[1] * starts.ndim))[..., None]


def train(net: Any, n_steps: int, seed: int, optimizer: Any = ADAM, clip_norm: float | None = None) -> rs.train.Fit:
    key_init, key_starts, key_fit = jax.random.split(jax.random.key(seed), 3)
    starts = jax.random.uniform(key_starts, (n_steps, BATCH), maxval=END - WINDOW * RESOLUTION)
    batches = list(np.moveaxis(np.asarray(windows(starts)), 1, 0))
    print(f"  {NAMES[net]}, {n_steps} iterations, seed {seed}", flush=True)
    return rs.train.fit(loss_of(net), net.init(key_init), optimizer, batches, key=key_fit, clip_norm=clip_norm)


@cache  # one function a network, so that a second seed compiles nothing
def loss_of(net: Any) -> Any:
    def loss(params: Any, window: Any, key: Any) -> jax.Array:
        """Squared error one step ahead, the mean over all steps of windows `(WINDOW + 1, batch, 1)`."""
        _, ys = rs.scan(net, params, None, window[:-1], key=key if net.stochastic else None)
        return rs.train.masked_squared_error(ys, window[1:])

    return loss


def judge(net: Any, fits: list[rs.train.Fit], begin: float = 0.0, end: float = END) -> tuple[list[float], float]:
    """Held-out errors of the fits, noise off, and that of repeating the last value; windows lie in [begin, end]."""
    held_out = windows(jnp.linspace(begin, end - WINDOW * RESOLUTION, 1000))
    loss = loss_of(rs.wrap.deterministic(net))
    repeated = rs.train.masked_squared_error(held_out[:-1], held_out[1:])
    return [float(loss(fit.params, held_out, None)) for fit in fits], float(repeated)


def predict(net: Any, params: Any) -> tuple[np.ndarray, jax.Array, jax.Array]:
    """Times and values of the tutorial's window, and the predictions of all but its first value."""
    window = windows(jnp.array([INSTANCE]))
    _, ys = rs.scan(rs.wrap.deterministic(net), params, None, window[:-1])
    return INSTANCE + RESOLUTION * np.arange(WINDOW + 1), window[:, 0, 0], ys[:, 0, 0]


def slide(params: Any, window: Any, x: None) -> tuple[jax.Array, jax.Array]:
    """A cell that carries a window `(WINDOW, batch, 1)`: reads all of it, as in training, and moves on by one value."""
    del x
    _, y = rs.scan(RELU, params, None, window, outputs="last")
    return jnp.concatenate([window[1:], y[None]]), y


def write(params: Any, n_steps: int = 300) -> np.ndarray:
    """What the network makes of zeros and of a real window: `(2, WINDOW + n_steps)`, the given values first."""
    real = windows(jnp.array([INSTANCE]))[:-1]
    given = jnp.concatenate([jnp.zeros_like(real), real], axis=1)
    _, ys = rs.scan(slide, params, given, n_steps=n_steps)
    return np.asarray(jnp.concatenate([given, ys])[..., 0].T)


def one_layer_merits(plan: Plan, fits: list[rs.train.Fit]) -> list[Merit]:
    trained = late_loss(fits)
    held_out, repeated = judge(RELU, fits)
    beyond, repeated_beyond = judge(RELU, fits, END, END + 6)
    print(f"  held out: {listed(held_out)}; repeating the last value: {repeated:.4f}")
    print(f"  t in [30, 36]: {listed(beyond)}; repeating the last value: {repeated_beyond:.4f}")
    times = [repeated / error for error in held_out]
    what = f"{NAMES[RELU]}: squared error"
    return [
        merit(f"{what} in training", listed(trained), f"< {plan.trained}{plan.beside[0]}", max(trained) < plan.trained),
        merit(
            f"{what} held out",
            f"{listed(held_out)}: {listed(times, '.1f')} times below",
            f"{repeated:.4f} for repeating the last value; {plan.below_baseline:g} times below",
            min(times) > plan.below_baseline,
        ),
    ]


def written_merit(plan: Plan, fits: list[rs.train.Fit], longer: list[rs.train.Fit]) -> Merit:
    """How far the first values written after the real window are from the series, which there moves by 10."""
    for n_steps, trained in ((plan.n_steps, fits), (plan.longer, longer)):
        largest = [float(np.abs(write(fit.params)).max()) for fit in trained]
        print(f"  largest of 300 values written after {n_steps} iterations: {listed(largest, '.3g')}")
    truth = series(INSTANCE + RESOLUTION * np.arange(WINDOW, 2 * WINDOW))
    apart = [float(np.sqrt(np.mean((write(fit.params)[1, WINDOW : 2 * WINDOW] - truth) ** 2))) for fit in longer]
    what = f"{plan.longer} iterations: rms error of the first {WINDOW} values written"
    return merit(what, listed(apart, ".2f"), f"< {plan.written}", max(apart) < plan.written)


def stack_merits(plan: Plan, fits: dict[Any, list[rs.train.Fit]]) -> list[Merit]:
    between, repeated = judge(BETWEEN, fits[BETWEEN])
    everywhere, _ = judge(EVERYWHERE, fits[EVERYWHERE])
    noisy = late_loss(fits[EVERYWHERE])
    for net, errors in ((BETWEEN, between), (EVERYWHERE, everywhere)):
        print(f"  {NAMES[net]}, held out, noise off: {listed(errors)}")
    return [
        merit(
            f"{NAMES[BETWEEN]}: held out",
            listed(between),
            f"< {repeated:.4f} for repeating the last value",
            max(between) < repeated,
        ),
        merit(
            f"{NAMES[EVERYWHERE]}: in training",
            listed(noisy, ".2f"),
            f"< {plan.dropped}{plan.beside[1]}",
            max(noisy) < plan.dropped,
        ),
    ]


def late_loss(fits: list[rs.train.Fit]) -> list[float]:
    """The mean of each training's last 100 losses."""
    return [float(fit.history["loss"][-100:].mean()) for fit in fits]


def listed(values: list[float], form: str = ".4f") -> str:
    return ", ".join(format(value, form) for value in values)


def merit(what: str, ours: str, expected: str, met: bool) -> Merit:
    return Merit("series", what, ours, expected, met)


def draw_prediction(settings: Settings, params: Any) -> None:
    """The series with the tutorial's window, and that window with its predictions."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    t = np.arange(0, END, RESOLUTION)
    times, window, ys = predict(RELU, params)
    rs.plot.series(t, series(t), ax=left)
    left.plot(times[:-1], window[:-1], color="black", linewidth=3, label="a training window")
    left.set_title("t sin(t) / 3 + 2 sin(5t)")
    left.legend(loc="lower left")
    rs.plot.series(times, window, predicted=(times[1:], ys), ax=right)
    right.set_title("that window, predicted one step ahead")
    settings.save(fig, "series_prediction")


def draw_written(settings: Settings, trained: dict[int, Any]) -> None:
    """What the relu network writes after each training: from zeros, and from a real window beside the series."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(len(trained), 2, figsize=(11, 6.5), layout="constrained", sharex="col", sharey=True)
    for row, (n_steps, params) in zip(axes, trained.items(), strict=True):
        for ax, begin, values in zip(row, (0.0, INSTANCE), write(params), strict=True):
            t = begin + RESOLUTION * np.arange(len(values))
            rs.plot.series(t, series(t) if begin else None, generated=(t[WINDOW - 1 :], values[WINDOW - 1 :]), ax=ax)
            ax.plot(t[:WINDOW], values[:WINDOW], color="black", linewidth=3, label="given")
            ax.set(title=f"from {'a real window' if begin else 'zeros'}, {n_steps:,} iterations", ylim=(-20, 24))
            ax.legend(loc="upper left", ncols=3)
    settings.save(fig, "series_generation")


def draw_stacks(settings: Settings, trained: dict[Any, Any]) -> None:
    """The same window predicted by three layers, their noise off."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    for ax, net in zip(axes, (BETWEEN, EVERYWHERE), strict=True):
        times, window, ys = predict(net, trained[net])
        rs.plot.series(times, window, predicted=(times[1:], ys), ax=ax)
        ax.set_title(NAMES[net])
    settings.save(fig, "series_stacks")

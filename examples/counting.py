"""Counting ones with two weights: the linear recurrence of the NumPy and Theano tutorials.

The network `s_k = s_{k-1} w_rec + x_k w_x` reads ten bits and should end at the number of ones, which it does at
w_x = w_rec = 1. Peter Roelants' tutorial "How to implement a recurrent neural network" wrote the backward pass by hand
in NumPy, drew the cost over the two weights to show why gradients vanish and explode, and trained with Rprop, since
plain gradient descent is thrown out of the narrow valley. The Theano version left the gradient to `theano.scan` and
printed the cost of gradient descent every hundred epochs; those are the numbers compared here. Its epoch counts from 1,
and its cost is the one that the epoch's update started from: the sum of squares over the 20 sequences, not their mean.

The published digits want float64; this job switches it on for itself only.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnscan as rs

from ._job import Merit, Settings


COSTS = """529.6915 504.5684 475.3019 435.9507 362.6525 0.2677 0.1585 0.1484 0.1389 0.1300
           0.1216 0.1138 0.1064 0.0995 0.0930 0.0870 0.0813 0.0760 0.0710 0.0663""".split()
FINAL_WEIGHTS = "1.0597", "0.9863"
POINTS = (2.0, 1.0), (1.0, 2.0), (1.0, -2.0), (1.0, 0.0), (1.0, 0.5), (1.0, -0.5)  # (w_x, w_rec), the tutorial's six

cell = rs.cells.Linear(1, 1)


def run(settings: Settings) -> list[Merit]:
    with jax.enable_x64(True):
        batch, start = data()
        fits = {
            "gradient descent": descend(batch, start),
            "RMSProp": rmsprop(batch, start),
            "Rprop": rprop(batch),
        }
        merits = [by_hand_merit(batch, start), *cost_merits(fits["gradient descent"])]
        merits += [rmsprop_merit(fits["RMSProp"]), rprop_merit(fits["Rprop"])]
        draw(settings, batch, fits)
    return merits


def data() -> tuple[Any, Any]:
    """`((xs (10, 20, 1), targets (20, 1)), params)`: 20 rows of 10 bits, the number of ones, and the first weights.

    In the tutorial's order and with NumPy's legacy generator, so that the same numbers come out.
    """
    random = np.random.RandomState(1)
    bits = np.stack([np.around(random.rand(10)) for _ in range(20)])
    w_x, w_rec = (random.uniform(-0.1, 0.1, 1) for _ in range(2))
    return (jnp.asarray(bits.T[..., None]), jnp.asarray(bits.sum(axis=1, keepdims=True))), weights(w_x[0], w_rec[0])


def weights(w_x: float, w_rec: float) -> dict[str, jax.Array]:
    return {"w_x": jnp.full((1, 1), w_x), "w_h": jnp.full((1, 1), w_rec)}


def loss(params: Any, batch: Any, key: Any) -> jax.Array:
    """Sum of squares between each sequence's last state and its number of ones."""
    del key
    xs, targets = batch
    _, counted = rs.scan(cell, params, None, xs, outputs="last")
    return jnp.sum((counted - targets) ** 2)


def train(batch: Any, params: Any, optimizer: optax.GradientTransformation, epochs: int) -> tuple[rs.train.Fit, Any]:
    """The fit, and the path `(epochs + 1, 2)` of (w_x, w_rec)."""
    path = [params]
    keep = lambda k, params, metrics: path.append(params)
    fit = rs.train.fit(loss, params, optimizer, [batch], key=jax.random.key(0), epochs=epochs, callback=keep)
    w_x, w_rec = (np.stack([jax.device_get(p[name]) for p in path]).ravel() for name in ("w_x", "w_h"))
    return fit, np.stack([w_x, w_rec], axis=1)


def descend(batch: Any, start: Any) -> Any:
    print("  gradient descent, rate 1e-5, 2000 epochs from the tutorial's weights")
    return train(batch, start, optax.sgd(1e-5), 2000)


def rmsprop(batch: Any, start: Any) -> Any:
    print("  RMSProp, rate 1e-3, decay 0.9, 2000 epochs from the same weights")
    return train(batch, start, optax.rmsprop(1e-3, decay=0.9), 2000)


def rprop(batch: Any) -> Any:
    print("  Rprop, first step 1e-3, 500 iterations from (-1.5, 2), on the far side of the valley")
    return train(batch, weights(-1.5, 2.0), optax.rprop(1e-3), 500)


def by_hand(params: Any, batch: Any) -> dict[str, np.ndarray]:
    """The gradient of `loss` by backpropagation through time, written out in NumPy."""
    xs, targets = (np.asarray(part)[..., 0] for part in batch)
    w_x, w_rec = float(params["w_x"][0, 0]), float(params["w_h"][0, 0])
    s = [np.zeros_like(targets)]
    for x in xs:
        s.append(s[-1] * w_rec + x * w_x)
    g = 2 * (s[-1] - targets)  # dL/ds at the last step
    d_x = d_rec = 0.0
    for x, s_before in zip(xs[::-1], s[-2::-1], strict=True):
        d_x, d_rec = d_x + g @ x, d_rec + g @ s_before
        g = g * w_rec  # dL/ds one step earlier: this factor makes it vanish or explode
    return {"w_x": np.full((1, 1), d_x), "w_h": np.full((1, 1), d_rec)}


def by_hand_merit(batch: Any, start: Any) -> Merit:
    """The largest relative difference between `by_hand` and `jax.grad`, over the first weights and 20 random pairs.

    Not over the six points: with such round weights both sides compute in whole numbers, and agree for that reason.
    """
    largest = 0.0
    for params in (start, *(weights(*pair) for pair in np.random.RandomState(2).uniform(-1.5, 1.5, (20, 2)))):
        ours, hand = jax.grad(loss)(params, batch, None), by_hand(params, batch)
        largest = max(largest, *(abs(ours[name].item() / hand[name].item() - 1) for name in hand))
    print(f"  backpropagation by hand in NumPy against jax.grad: relative difference {largest:.1e}")
    return Merit("counting", "backpropagation by hand / jax.grad - 1", f"{largest:.1e}", "< 1e-12", largest < 1e-12)


def cost_merits(trained: Any) -> list[Merit]:
    """The costs at epochs 100, 200, ... and the final weights, beside the tutorial's."""
    fit, path = trained
    costs = fit.history["loss"][99::100]  # epoch 100 is the hundredth; its cost is the one before its update
    apart = [
        abs(round(1e4 * float(ours)) - round(1e4 * float(published)))
        for ours, published in zip(costs, COSTS, strict=True)
    ]
    print("  epoch       cost  published")
    for k, (ours, published, d) in enumerate(zip(costs, COSTS, apart, strict=True)):
        print(f"  {100 * (k + 1):5d}  {ours:9.4f}  {published:>9}  {'ok' if d <= 1 else 'MISSED'}")
    agree = sum(d <= 1 for d in apart)
    merits = [
        Merit("counting", "costs at epochs 100, 200, ... 2000", f"{agree} of 20 agree", "last digit +-1", agree == 20)
    ]
    for name, ours, published in zip(("w_x", "w_rec"), path[-1], FINAL_WEIGHTS, strict=True):
        merits.append(
            Merit("counting", f"{name} after gradient descent", f"{ours:.4f}", published, f"{ours:.4f}" == published)
        )
    return merits


def rmsprop_merit(trained: Any) -> Merit:
    """The worst of the last hundred epochs, since a fixed rate ends in a cycle around the minimum, not on it."""
    worst = np.abs(trained[1][-100:] - 1).max(axis=0)
    ours = f"{worst[0]:.1e}, {worst[1]:.1e}"
    return Merit("counting", "|w_x - 1|, |w_rec - 1| after RMSProp", ours, "< 1e-3", bool((worst < 1e-3).all()))


def rprop_merit(trained: Any) -> Merit:
    off = np.abs(trained[1][-1] - 1)
    ours = f"{off[0]:.1e}, {off[1]:.1e}"
    return Merit("counting", "|w_x - 1|, |w_rec - 1| after Rprop", ours, "< 5e-3", bool((off < 5e-3).all()))


def draw(settings: Settings, batch: Any, fits: dict[str, Any]) -> None:
    """The cost over both weights with the six points, the gradient over time at these, and the three trainings."""
    import matplotlib.pyplot as plt

    at = lambda params: loss(params, batch, None)
    n = 61 if settings.fast else 161

    def surface(x: tuple[float, float], y: tuple[float, float]) -> Any:
        grid = [jnp.linspace(low, high, n) for low, high in (x, y)]
        return rs.diagnose.loss_surface(at, weights(1.0, 1.0), ("w_x", "w_h"), *grid)

    wide, near = surface((-3, 3), (-3, 3)), surface((0, 2.3), (-0.8, 2.3))

    fig, axes = plt.subplots(1, 2, figsize=(13, 5.2), layout="constrained")
    for ax, part in zip(axes, (wide, near), strict=True):
        rs.plot.loss_surface(part, points=POINTS, ax=ax)
        ax.set(ylabel="w_rec")
    axes[0].set(title="cost surface and six points")
    axes[1].set(title="around the minimum at (1, 1)")
    settings.save(fig, "counting_surface")

    fig, ax = plt.subplots(figsize=(9.5, 5), layout="constrained")
    lines = {f"{i}: w_x={x:g}, w_rec={y:g}": gradients(batch, x, y) for i, (x, y) in enumerate(POINTS, 1)}
    rs.plot.gradient_over_time(lines, ax=ax)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.set(title="gradient of the cost with respect to the state: |w_rec| < 1 vanishes, > 1 explodes")
    settings.save(fig, "counting_gradient")

    fig, axes = plt.subplots(1, 2, figsize=(13, 5.2), layout="constrained")
    for name, (fit, _) in fits.items():
        rs.plot.learning_curve(fit, ax=axes[0], label=name)
    rs.plot.loss_surface(wide, path=fits["Rprop"][1], ax=axes[1])
    axes[0].set(title="three optimisers")
    axes[1].set(title="the way of Rprop", ylabel="w_rec")
    settings.save(fig, "counting_training")


def gradients(batch: Any, w_x: float, w_rec: float) -> np.ndarray:
    """dL/ds_k for k in [0, 10], summed over the sequences with its sign."""
    xs, targets = batch
    squares = lambda last, ys: jnp.sum((last - targets) ** 2)
    found = rs.diagnose.gradient_over_time(squares, cell, weights(w_x, w_rec), None, xs)
    return np.asarray(found.gradients).sum(axis=(1, 2))

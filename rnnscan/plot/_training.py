"""Figures of a training: its learning curve, and the surface it went down."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import ticker

from ._draw import COLOURS, axes_for, next_colour, numbers, pairs, same_length


def learning_curve(history: Any, ax: Any = None, log: bool = True, label: str = "training") -> Any:
    """The loss at every step of `rs.train.fit`, with the evaluations if there were any.

    - `history`: a `Fit`, its `history`, or a dict with `loss` (n,); `eval_loss` or `eval_value` (m,) at `eval_step`
      (m,) is drawn as well if it is there (other evaluations are of another kind and want axes of their own), and so
      is the step whose params were kept, `best_step`.
    - `ax`: axes to draw on; call again with the same ones to compare several trainings.
    - `log`: a logarithmic loss axis; raises `ValueError` where the loss is not positive.
    - `label`: name of this training in the legend.

    Returns the axes. The loss at x = k is that of the params after k steps.
    """
    history = getattr(history, "history", history)
    if not isinstance(history, Mapping) or "loss" not in history:
        got = sorted(history) if isinstance(history, Mapping) else type(history).__name__
        raise ValueError(f"`history` must be a dict of arrays with `loss`, what `rs.train.fit` returns; got {got}.")
    curves: list[tuple[str, Any, Any]] = [(label, None, numbers("history['loss']", history["loss"], 1))]
    for name in ("eval_loss", "eval_value"):
        if name in history:
            steps, values = (numbers(f"history[{n!r}]", history[n], 1) for n in ("eval_step", name))
            same_length("history['eval_step']", steps, f"history[{name!r}]", values)
            curves.append((f"{label}, evaluation", steps, values))
    for name, _, values in curves:
        if log and np.any(values <= 0):
            raise ValueError(f"`{name}` has losses <= 0, which a logarithmic axis cannot show; pass `log=False`.")
    ax = axes_for(ax)
    colour = next_colour(ax)
    for name, steps, values in curves:
        if steps is None:
            ax.plot(np.arange(len(values)), values, color=colour, linewidth=1.2, label=name)
        else:
            ax.plot(
                steps,
                values,
                color="black",
                linestyle="--",
                marker="o",
                markersize=4,
                markerfacecolor=colour,
                label=name,
            )
    if "best_step" in history:
        best = int(history["best_step"])
        ax.axvline(best, color=colour, linestyle=":", label=f"{label}, best (step {best})")
    ax.set_yscale("log" if log else "linear")
    ax.set(xlabel="training step", ylabel="loss")
    ax.legend()
    return ax


def loss_surface(surface: Any, path: Any = None, points: Any = None, ax: Any = None, log: bool = True) -> Any:
    """Contours of `rs.diagnose.loss_surface`, with the way an optimiser took and numbered points.

    - `surface`: a `Surface`; its `a` runs to the right, its `b` upwards.
    - `path`: `(n, 2)`, the pairs (a, b) that the optimiser visited; its start is a square, its end a star.
    - `points`: `(m, 2)`, marked 1 to m.
    - `ax`: axes to draw on.
    - `log`: colours show log10 of the loss; raises `ValueError` where it is negative, and draws 0 as the smallest
      positive loss. Places where the loss is not finite are grey.

    Returns the axes.
    """
    a, b = (numbers(f"surface.{name}", getattr(surface, name), 1) for name in "ab")
    shown = _heights(numbers("surface.values", surface.values, 2), (len(a), len(b)), log)
    path, points = (pairs(name, value) for name, value in (("path", path), ("points", points)))
    ax = axes_for(ax)
    ax.set_facecolor("0.7")
    filled = ax.contourf(a, b, shown.T, levels=30, cmap="viridis")
    ax.contour(a, b, shown.T, levels=filled.levels[::3], colors="black", linewidths=0.4, linestyles="solid")
    bar = ax.figure.colorbar(filled, ax=ax, label="log10 of the loss" if log else "loss")
    bar.locator = ticker.MaxNLocator(8)
    bar.update_ticks()
    if path is not None:
        ax.plot(*path.T, color="white", linewidth=3)
        ax.plot(*path.T, color=COLOURS[1], linewidth=1.5, marker=".", markersize=4, label="optimiser")
        ax.plot(*path[0], "s", color=COLOURS[1], markeredgecolor="white", markersize=8)
        ax.plot(*path[-1], "*", color=COLOURS[1], markeredgecolor="white", markersize=14)
    for i, (x, y) in enumerate(() if points is None else points, 1):
        ax.plot(x, y, "o", color="white", markeredgecolor="black", markersize=14)
        ax.annotate(str(i), (x, y), ha="center", va="center_baseline", fontsize=9, annotation_clip=True)
    ax.set(xlabel=surface.names[0], ylabel=surface.names[1], xlim=(a.min(), a.max()), ylim=(b.min(), b.max()))
    return ax


def _heights(values: np.ndarray, shape: tuple[int, int], log: bool) -> np.ma.MaskedArray:
    """The loss, or its logarithm, where it is finite."""
    if values.shape != shape or min(shape) < 2:
        raise ValueError(
            f"`surface.values` has shape {values.shape}, and a and b have {shape[0]} and {shape[1]} coordinates; "
            "contours need (len(a), len(b)) values, and two of each at least."
        )
    shown = np.ma.masked_invalid(values)
    if log and np.any(shown < 0):
        raise ValueError("`surface.values` has losses < 0, which have no logarithm; pass `log=False`.")
    if shown.count() == 0 or shown.min() == shown.max():
        raise ValueError(
            "`surface.values` has no two different finite losses, so there is nothing to draw contours of."
        )
    return np.ma.log10(np.ma.maximum(shown, shown[shown > 0].min())) if log else shown

"""The gradient over time, on an axis that holds many decades, both signs and zero."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import ticker

from .._tree import named_leaves
from ._draw import COLOURS, axes_for, next_colour, numbers


def gradient_over_time(result: Any, ax: Any = None, linthresh: float | None = None) -> Any:
    """How large the gradient is at every step, on a symlog axis: vanishing falls to the left, exploding rises.

    - `result`: a `GradientOverTime`, drawn as one line a carry leaf, the mean of its norms over all rows; or an array
      `(T + 1,)`, drawn as it is (a signed sum for example); or a dict of label -> any of these.
    - `ax`: axes to draw on.
    - `linthresh`: where the axis turns from linear to logarithmic. None takes the smallest value drawn that is not 0,
      but at most sixteen decades below the largest.

    Returns the axes. Place t on the x axis lies between steps t - 1 and t; the state at T is the one returned.
    """
    results = result if isinstance(result, Mapping) else {"": result}
    lines = [(str(label), *line) for label, value in results.items() for line in _gradient_lines(value)]
    ax, crowded = axes_for(ax), ax is None and len(lines) > 4
    for label, name, line in lines:
        style = "-" if len(ax.lines) < len(COLOURS) else "--"
        text = ", ".join(part for part in (label, name) if part) or "gradient"
        ax.plot(np.arange(len(line)), line, style, color=next_colour(ax), linewidth=1.5, label=text)
    drawn = np.abs(np.concatenate([line.get_ydata() for line in ax.lines]))
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    if linthresh is None:
        linthresh = max(drawn.min(), drawn.max() * 1e-16) if drawn.size else 1.0
    ax.set_yscale("symlog", linthresh=linthresh)
    ax.yaxis.set_major_locator(ticker.FixedLocator(_decades(linthresh, *ax.get_ylim())))
    ax.yaxis.set_minor_locator(ticker.NullLocator())
    ax.set(xlabel="time step t", ylabel="gradient of the loss w.r.t. the state at t")
    if len(ax.lines) > 1 or "" not in results:
        ax.legend(**{"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if crowded else {})
    return ax


def _gradient_lines(result: Any) -> list[tuple[str, np.ndarray]]:
    """`[(leaf name, values (T + 1,))]` of one result."""
    if not hasattr(result, "norms"):
        return [("", numbers("result", result, 1))]
    leaves = named_leaves("carry", result.norms)
    if not leaves:
        raise ValueError("`result` has no gradient to draw: no leaf of the carry is a floating one.")
    means = [np.asarray(leaf, float).reshape(len(leaf), -1).mean(axis=1) for _, leaf in leaves]
    return [(name if len(leaves) > 1 else "", mean) for (name, _), mean in zip(leaves, means, strict=True)]


def _decades(linthresh: float, low: float, high: float) -> list[float]:
    """0 and powers of ten of both signs, few enough to read; matplotlib's own crowd each other around 0."""
    first, last = np.ceil(np.log10(linthresh)), np.floor(np.log10(max(-low, high, linthresh)))
    both = low < -linthresh and high > linthresh
    apart = max(1, int(np.ceil((last - first + 1) / (4 if both else 9))))
    powers = 10.0 ** np.arange(last, first + apart - 2, -apart)
    ticks = np.concatenate([-powers, [0.0], powers])
    return sorted(ticks[(ticks >= low) & (ticks <= high)].tolist())

"""Curves over time: the solution of an equation against data, a series against its prediction."""

from typing import Any

from ._draw import COLOURS, NO_OUTPUT, axes_for, columns, numbers, same_length


_LOOKS: dict[str, dict[str, Any]] = {
    "actual": {"color": "0.55", "linewidth": 3},
    "predicted": {"color": COLOURS[0], "linestyle": "--", "marker": "."},
    "generated": {"color": COLOURS[1], "linewidth": 1.5},
}


def ode_solution(t: Any, y: Any, data: Any = None, labels: Any = None, ax: Any = None, dashed: bool = False,
                 xlabel: str = "time", ylabel: str = "y") -> Any:  # fmt: skip
    """A solution over time, one curve a component, and the data it should go through.

    - `t`, `y`: times `(n,)` and values `(n,)` or `(n, components)`.
    - `data`: `(t_i, y_i)`, times `(m,)` and values `(m,)` or `(m, components)`, drawn as dots in the colours of the
      components; NaN where a component was not measured.
    - `labels`: one name a component.
    - `ax`: axes to draw on; call again with `dashed` to compare two solutions.
    - `xlabel`, `ylabel`: names of the axes, with their units.

    Returns the axes.
    """
    t, y = numbers("t", t, 1), columns("y", y)
    same_length("t", t, "y", y)
    labels = [f"y[{i}]" for i in range(y.shape[1])] if labels is None else list(labels)
    if len(labels) != y.shape[1]:
        raise ValueError(f"`labels` has {len(labels)} names, but `y` of shape {y.shape} has {y.shape[1]} components.")
    if data is not None:
        t_i, y_i = numbers("data[0]", data[0], 1), columns("data[1]", data[1])
        same_length("data[0]", t_i, "data[1]", y_i)
        if y_i.shape[1] != y.shape[1]:
            raise ValueError(f"`data[1]` has shape {y_i.shape}, but `y` has {y.shape[1]} components (shape {y.shape}).")
    ax = axes_for(ax)
    for i, label in enumerate(labels):
        colour = COLOURS[i % len(COLOURS)]
        ax.plot(t, y[:, i], "--" if dashed else "-", color=colour, linewidth=1.8, label=label)
        if data is not None:
            ax.plot(t_i, y_i[:, i], "o", color=colour, markeredgecolor="black", markersize=7, label=f"{label}, data")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def series(t: Any, actual: Any, predicted: Any = None, generated: Any = None, ax: Any = None, xlabel: str = "t",
           ylabel: str = "value") -> Any:  # fmt: skip
    """A series, what a network predicts for it and what it generates by itself.

    - `t`, `actual`: times and values `(n,)`; `actual` may be None.
    - `predicted`: one step ahead from true values; `(n,)` at the same times, or a pair `(times, values)`.
    - `generated`: from the network's own outputs; given like `predicted`.
    - `ax`: axes to draw on.
    - `xlabel`, `ylabel`: names of the axes, with their units.

    Returns the axes.
    """
    t = numbers("t", t, 1)
    lines = {
        name: v for name, v in (("actual", actual), ("predicted", predicted), ("generated", generated)) if v is not None
    }
    if not lines:
        raise ValueError("`series` got nothing to draw: give `actual`, `predicted` or `generated`. " + NO_OUTPUT)
    for name, value in lines.items():
        times, value = value if isinstance(value, tuple) and len(value) == 2 else (t, value)
        lines[name] = (numbers(f"times of {name}", times, 1), numbers(name, value, 1))
        same_length("t" if times is t else f"times of {name}", lines[name][0], name, lines[name][1])
    ax = axes_for(ax)
    for name, line in lines.items():
        ax.plot(*line, label=name, **_LOOKS[name])
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax

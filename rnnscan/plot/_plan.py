"""Where the operations of a step run: as plain `lax.scan` above, as `scan` runs them below, and what that saves."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .._jaxpr.describe import count
from .._plan import Group, Plan
from ._draw import COLOURS


_BOX, _HIGH = 1.75, 0.48  # a box, in inches
_GAP, _EDGE, _HEAD = 0.1, 0.14, 0.36  # between boxes, around them in a frame, and above them for its heading
_TITLE, _BARS, _NAMES = 0.4, 1.15, 0.72  # above each half; height of the bars, room for their names
_A_LETTER = 0.066  # of the size used in boxes
_PRODUCT, _OTHER, _LOOP = COLOURS[0], "#7d7d7d", COLOURS[1]
_EVERYWHERE = ("add", "mul", "sub", "max")  # these say least about a group of operations


def plan(plan: Plan) -> Any:
    """The step as boxes in the order in which they run, a frame being a loop, with floating-point operations a step.

    - `plan`: what `rs.explain` returns.

    Above, the step as it is written, all of it in the loop of plain `lax.scan`; below, what `scan` makes of it, from
    left to right; at the bottom, what the loop costs each way. Products are blue, all else is grey.

    Returns the figure; its first axes hold the boxes, the others one pair of bars each.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"`plot.plan` draws what `rs.explain` returns, a `Plan`; got {type(plan).__name__}.")
    if not plan.groups:
        raise ValueError("a plan without a single operation, or of no steps, has nothing to draw")
    columns = [plan.at(where) for where in dict.fromkeys(group.where for group in plan.groups)]
    width = max(4, len(columns)) * (_BOX + 2 * _EDGE + _GAP) - _GAP
    rows = _rows(plan.written, width)
    upper = _frame_height(len(rows))
    lower = _frame_height(len(_rows(plan.groups, width)) if len(columns) == 1 else max(map(len, columns)))
    height = 2 * _TITLE + upper + lower + 0.1
    figure = plt.figure(figsize=(width + 0.1, height + _BARS + 0.1))
    flow = _axes(figure, 0.05, 0.05, width, height)
    flow.set(xlim=(-0.01, width + 0.01), ylim=(height, 0))
    flow.axis("off")
    _title(flow, 0, "lax.scan")
    _one_place(flow, rows, _TITLE, width, plan.n_steps)
    pieces = f", {plan.piece} of {plan.n_steps} steps at a time" if plan.piece < plan.n_steps else ""
    _title(flow, _TITLE + upper, f"rnnscan{pieces}" if plan.rewritten else "rnnscan: the same")
    if len(columns) == 1:
        _one_place(flow, _rows(plan.groups, width), 2 * _TITLE + upper, width, plan.n_steps)
    else:
        _places(flow, columns, 2 * _TITLE + upper, width, plan.n_steps)
    costs = _costs(plan)
    pitch = (width - _NAMES) / len(costs)
    for i, cost in enumerate(costs):
        bars = _axes(figure, 0.05 + _NAMES + i * pitch, height + 0.3, pitch - 0.15, _BARS - 0.35)
        _pair(bars, *cost)
        bars.set_yticks((0, 1), ("lax.scan", "rnnscan") if i == 0 else ("", ""), fontsize=9.5)
    return figure


def _axes(figure: Any, left: float, top: float, wide: float, high: float) -> Any:
    """Axes at a place in inches from the upper left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + high) / h, wide / w, high / h))


def _frame_height(boxes: int) -> float:
    return _HEAD + max(boxes, 1) * (_HIGH + _GAP) - _GAP + _EDGE


def _rows(groups: Sequence[Group], width: float) -> list[Sequence[Group]]:
    """The groups in rows as even as possible."""
    most = int((width - 2 * _EDGE + _GAP) / (_BOX + _GAP))
    n = -(-len(groups) // most)
    size = -(-len(groups) // max(n, 1))
    return [groups[i : i + size] for i in range(0, len(groups), size)] if groups else []


def _title(ax: Any, top: float, text: str) -> None:
    ax.text(0, top + _TITLE / 2, text, ha="left", va="center", fontsize=12, fontweight="bold")


def _one_place(ax: Any, rows: list[Sequence[Group]], top: float, width: float, n_steps: int) -> None:
    _heading(ax, 0, top, width, len(rows), rows[0][0].where, n_steps)
    for i, row in enumerate(rows):
        pitch = (width - 2 * _EDGE + _GAP) / len(row)
        for j, group in enumerate(row):
            _box(ax, _EDGE + j * pitch, top, i, pitch - _GAP, group)


def _places(ax: Any, columns: Sequence[Sequence[Group]], top: float, width: float, n_steps: int) -> None:
    """A column for each place, from left to right."""
    pitch = (width + _GAP) / len(columns)
    for i, column in enumerate(columns):
        left, wide = i * pitch, pitch - _GAP
        _heading(ax, left, top, wide, len(column), column[0].where, n_steps)
        for j, group in enumerate(column):
            _box(ax, left + _EDGE, top, j, wide - 2 * _EDGE, group)
        if i:
            y = top + _HEAD + _HIGH / 2
            ends = (left - _GAP - _EDGE + 0.02, y), (left + _EDGE - 0.02, y)
            ax.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=11, shrinkA=0, shrinkB=0, color="0.3"))


def _heading(ax: Any, left: float, top: float, wide: float, boxes: int, where: str, n_steps: int) -> None:
    """The name of a place, and a frame around a loop."""
    loop = where.startswith("loop")
    if loop:
        style, high = "round,pad=0,rounding_size=0.1", _frame_height(boxes)
        ax.add_patch(FancyBboxPatch((left, top), wide, high, style, fc="#fdf0e6", ec=_LOOP, linewidth=1.6))
    text, colour = (f"{where} of {n_steps} steps", "#9a4300") if loop else (where, "black")
    ax.text(left + wide / 2, top + _HEAD / 2, text, ha="center", va="center", fontsize=10, color=colour)


def _box(ax: Any, left: float, top: float, row: int, wide: float, group: Group) -> None:
    y = top + _HEAD + row * (_HIGH + _GAP)
    colour = _PRODUCT if group.products else _OTHER
    ax.add_patch(FancyBboxPatch((left, y), wide, _HIGH, "round,pad=0,rounding_size=0.06", fc=colour, ec="none"))
    words = _short(group, int((wide - 0.06) / _A_LETTER))
    text = f"{words}\n{count(group.flops)}FLOP" if group.flops else words
    ax.text(
        left + wide / 2, y + _HIGH / 2, text, ha="center", va="center", fontsize=9, color="white", linespacing=1.3
    )  # fmt: skip


def _short(group: Group, most: int) -> str:
    """A group in at most so many letters: without the shapes of what has a name, the commonest operations last."""
    if group.operations == 1 or group.products:
        return textwrap.shorten(re.sub(r"(?<=[\w\]']) \([\d, ]+\)", "", group.what), most, placeholder=" …")
    words = [re.sub(r" x\d+$", "", word) for word in group.what.split(", ")]
    words = sorted((w for w in words if "that move" not in w), key=lambda word: word in _EVERYWHERE)
    return textwrap.shorten(", ".join(words), most, placeholder=" …")


def _costs(plan: Plan) -> list[tuple[str, float, float, str]]:
    """What the bars show: a heading, both values and their unit."""
    before, after = plan.before, plan.after
    rows = [
        ("products at each step", before.products, after.products, ""),
        ("FLOP at each step", before.flops, after.flops, ""),
        ("stored at each step", before.kept, after.kept, "B"),
        ("gradient sums in the loop", before.sum_bytes, after.sum_bytes, "B"),
    ]
    return [(name, a, b, unit) for name, a, b, unit in rows if a is not None and b is not None]


def _pair(ax: Any, heading: str, before: float, after: float, unit: str) -> None:
    """Two bars, on a scale of their own."""
    largest = max(before, after, 1)
    for y, (value, colour) in enumerate(((before, _LOOP), (after, _PRODUCT))):
        ax.barh(y, value / largest, 0.74, color=colour)
        ax.text(value / largest + 0.03, y, f"{count(value)}{unit}".strip() if value else "0", va="center", fontsize=9.5)
    ax.set_title(heading, fontsize=10, loc="left", pad=3)
    ax.set(xlim=(0, 1.5), ylim=(1.5, -0.5), xticks=[])
    ax.tick_params(length=0)
    ax.spines[["top", "right", "bottom"]].set_visible(False)

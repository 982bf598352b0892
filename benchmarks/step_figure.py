"""The figure of `step_time`, drawn from its json and nothing else: training-step speed relative to plain `lax.scan`."""

import json
import math
from pathlib import Path
from typing import Any

from . import timing
from .step_report import LIBRARY, USERS, blocks, fastest_peer, geomean, seven, timed


TITLES = {
    "elman": "Elman", "lstm": "LSTM", "gru": "GRU", "concat-lstm": "user's: concat LSTM",
    "leaky": "user's: leaky integrator", "norm-gru": "user's: layer-norm GRU",
}  # fmt: skip
MARKS = {  # name: colour, marker, size
    "rnnscan": ("#D55E00", "o", 8.5),
    "fastest JAX peer": ("#0072B2", "D", 5.5),
    "torch": ("#333333", "x", 6.5),
}


def speeds(block: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """How many times as fast as plain lax.scan each of MARKS is: spreads of the ratios within a round."""
    names = {"rnnscan": "rnnscan", "fastest JAX peer": fastest_peer(block), "torch": "torch"}
    found = {label: name for label, name in names.items() if name is not None and timed(block, name)}
    samples = lambda name: block["contenders"][name]["samples"]
    if not timed(block, "plain"):
        return {}
    return {label: timing.ratio(samples("plain"), samples(name)) for label, name in found.items()}


def draw(record: Path, path: Path, dtype: str = "float32") -> None:
    """One panel a cell, one line a shape and one for their geometric mean; the horizontal axis is logarithmic."""
    import matplotlib.pyplot as plt  # slow to import, and of no use before there is something to draw
    from matplotlib.lines import Line2D

    data = json.loads(Path(record).read_text(encoding="utf-8"))
    cells = [cell for cell in LIBRARY + USERS if blocks(data, "train", dtype, (cell,))]
    if not cells:
        return
    shapes = list(dict.fromkeys(tuple(b["shape"]) for b in blocks(data, "train", dtype)))
    columns = min(3, len(cells))
    lines = -(-len(cells) // columns)
    size = (9, 1.1 + lines * (0.75 + 0.27 * (len(shapes) + 1)))
    fig, axes = plt.subplots(
        lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(cells) :]:
        ax.set_visible(False)
    for ax, cell in zip(axes.flat, cells, strict=False):
        panel(ax, data, cell, shapes, dtype)
    low, high = axes.flat[0].get_xlim()
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    ticks = [2.0**p for p in powers if p % (1 + len(powers) // 7) == 0]
    if len(powers) < 4:
        ticks = [t for t in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6) if low <= t <= high]
    axes.flat[0].set_xticks(ticks, [f"{t:.3g}x" if t >= 0.4 else f"1/{1 / t:.0f}" for t in ticks])
    axes.flat[0].minorticks_off()
    axes.flat[0].set_yticks(range(len(shapes) + 1), [*(shape_label(s) for s in shapes), "mean of seven"])
    axes.flat[0].set_ylim(len(shapes) + 0.6, -0.6)
    shown = [label for label in MARKS if any(label in speeds(b) for b in blocks(data, "train", dtype))]
    place = {"loc": "outside lower center", "ncols": 3, "frameon": False, "fontsize": 10}
    fig.legend([Line2D([], [], **style(label)) for label in shown], shown, **place)
    machine = data["machine"]
    fig.suptitle(
        "Speed of a training step relative to plain lax.scan (further right is faster)\n"
        f"{dtype}, {machine['processor']}, {data['settings']['threads']} threads, jax {machine['jax']}, {data['date']}",
        fontsize=10,
    )
    fig.savefig(path, dpi=200)
    plt.close(fig)


def panel(ax: Any, data: dict[str, Any], cell: str, shapes: list[tuple[int, ...]], dtype: str) -> None:
    chosen = blocks(data, "train", dtype, (cell,))
    found = {tuple(b["shape"]): speeds(b) for b in chosen}
    for label in MARKS:
        points = [(shapes.index(s), v[label]) for s, v in found.items() if label in v]
        if not points:
            continue
        middle = [v["median"] for _, v in points]
        places = [place for place, _ in points]
        error = [[v["median"] - v["q1"] for _, v in points], [v["q3"] - v["median"] for _, v in points]]

        ax.errorbar(middle, places, xerr=error, elinewidth=1, zorder=3, **style(label))
        counted = [speeds(b)[label]["median"] for b in seven(chosen) if label in speeds(b)]
        if mean := geomean(counted):
            ax.plot(mean, len(shapes), zorder=3, **style(label))
        if label == "rnnscan":  # the bars lead the eye from 1 to ours
            ax.hlines([*places, *([len(shapes)] if mean else [])], 1, [*middle, *([mean] if mean else [])],
                      color=MARKS[label][0], lw=4, alpha=0.25, zorder=2)  # fmt: skip
    ax.axvline(1, color="0.4", lw=1)
    ax.axhline(len(shapes) - 0.5, color="0.8", lw=0.8)
    ax.set_xscale("log", base=2)
    ax.set_title(TITLES[cell], fontsize=11)
    ax.grid(True, axis="x", color="0.9", lw=0.8)
    ax.tick_params(labelsize=9, length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)


def style(label: str) -> dict[str, Any]:
    colour, marker, size = MARKS[label]
    edge = colour if marker == "x" else "white"
    return {"marker": marker, "ms": size, "color": colour, "ls": "none", "mec": edge}


def shape_label(shape: tuple[int, ...]) -> str:
    T, B, n_in, n = shape
    return f"T {T}, B {B}, {n_in}\N{RIGHTWARDS ARROW}{n}"

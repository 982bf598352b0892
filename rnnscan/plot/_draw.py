"""What every drawing needs: colours, axes to draw on, and arguments as arrays of the right shape."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito 2008: seven colours that the colour-blind can tell apart."""

NO_OUTPUT = "If it came from `scan`: this cell has no output (y is None); return one, `return carry, y`."


def axes_for(ax: Any) -> Any:
    return plt.figure(figsize=(7, 4.5), layout="constrained").subplots() if ax is None else ax


def next_colour(ax: Any) -> str:
    """The first of the colours that no line of these axes has yet; or, if all are taken, the next in turn."""
    taken = {line.get_color() for line in ax.lines}
    return next((colour for colour in COLOURS if colour not in taken), COLOURS[len(ax.lines) % len(COLOURS)])


def numbers(name: str, value: Any, ndim: int) -> np.ndarray:
    """The argument as floats with this many axes."""
    if value is None:
        raise ValueError(f"`{name}` is None. {NO_OUTPUT}")
    array = np.asarray(value, float)
    if array.ndim != ndim:
        raise ValueError(
            f"`{name}` must have {ndim} axes, got shape {array.shape}. Choose one row, `ys[:, 0]`, or one axes each."
        )
    return array


def columns(name: str, value: Any) -> np.ndarray:
    """The argument as floats (n, components)."""
    array = None if value is None else np.asarray(value, float)
    return array[:, None] if array is not None and array.ndim == 1 else numbers(name, value, 2)


def pairs(name: str, value: Any) -> np.ndarray | None:
    if value is None:
        return None
    pairs = numbers(name, value, 2)
    if pairs.shape[1] != 2 or len(pairs) == 0:
        raise ValueError(f"`{name}` must be pairs (a, b), of shape (n, 2); got {pairs.shape}.")
    return pairs


def integers(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or array.size == 0 or array.min() < 0:
        hint = " Write `logits.argmax(-1)`." if array.ndim == 2 else ""
        raise ValueError(f"`{name}` must be integers (n,) from 0 on; got {array.dtype} of shape {array.shape}.{hint}")
    return array


def same_length(name_a: str, a: np.ndarray, name_b: str, b: np.ndarray) -> None:
    if len(a) != len(b):
        raise ValueError(f"`{name_a}` has shape {a.shape} and `{name_b}` has {b.shape}; their first axes must agree.")

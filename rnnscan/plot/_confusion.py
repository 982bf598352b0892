"""Which classes a classifier takes for which, and what the misread images look like."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colors

from ._draw import integers, same_length


def confusion(labels: Any, predictions: Any, images: Any = None, classes: Any = None, max_images: int = 25) -> Any:
    """How often class i was read as class j, beside the images that were misread.

    - `labels`, `predictions`: integers `(n,)` in [0, k), true and read.
    - `images`: `(n, height, width)`, or with colours on a last axis; the misread ones are drawn in the order of the
      input, each with "true → read" above it.
    - `classes`: names of the k classes. None takes the numbers up to the largest.
    - `max_images`: how many misread images to draw at most.

    Returns the figure; its first axes are the matrix, with labels down and predictions to the right.
    """
    labels, predictions = (integers(n, v) for n, v in (("labels", labels), ("predictions", predictions)))
    same_length("labels", labels, "predictions", predictions)
    largest = int(max(labels.max(), predictions.max()))
    names = [str(i) for i in range(largest + 1)] if classes is None else [str(name) for name in classes]
    if largest >= len(names):
        raise ValueError(f"`classes` has {len(names)} names, but labels and predictions go up to {largest}.")
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (labels, predictions), 1)
    if images is not None:
        images = np.asarray(images)
        same_length("labels", labels, "images", images)
        if images.ndim not in (3, 4):
            raise ValueError(
                f"`images` must have shape (n, height, width); got {images.shape}. Write `images.reshape(...)`."
            )
    wrong = np.flatnonzero(labels != predictions)
    figure = plt.figure(figsize=(6, 5.2) if images is None else (11.5, 5.6), layout="constrained")
    left, right = (figure, None) if images is None else figure.subfigures(1, 2, width_ratios=(1.05, 1))
    _draw_matrix(left.subplots(), counts, names, f"{len(wrong)} of {len(labels)} misread")
    if right is not None:
        _draw_images(right, [(images[i], f"{names[labels[i]]} → {names[predictions[i]]}") for i in wrong[:max_images]])
    return figure


def _draw_matrix(ax: Any, counts: np.ndarray, names: list[str], title: str) -> None:
    norm = colors.PowerNorm(0.3, vmin=0, vmax=max(1, counts.max()))  # so that single errors show beside thousands
    ax.imshow(counts, cmap="Blues", norm=norm)
    size = 9 if len(names) <= 12 else 7
    for i, j in np.argwhere(counts) if len(names) <= 20 else ():
        dark = norm(counts[i, j]) > 0.6
        ax.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=size, color="white" if dark else "black")
    ticks = range(len(names))
    ax.set_xticks(ticks, names, fontsize=size, rotation=0 if max(map(len, names)) <= 3 else 90)
    ax.set_yticks(ticks, names, fontsize=size)
    ax.set(xlabel="read as", ylabel="true class", title=title)


def _draw_images(figure: Any, titled: list[tuple[np.ndarray, str]]) -> None:
    side = max(1, int(np.ceil(np.sqrt(len(titled)))))
    axes = figure.subplots(-(-len(titled) // side) or 1, side, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, (image, title) in zip(axes, titled, strict=False):
        ax.imshow(image, cmap="gray_r" if image.ndim == 2 else None)
        ax.set_title(title, fontsize=10, pad=3)
    figure.suptitle("misread, true → read" if titled else "none misread", fontsize=12)

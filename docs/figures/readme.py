"""Composes the README's figure from what the examples drew.

python -m examples --out out && python docs/figures/readme.py out
"""

import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt


PANELS = ("counting_training", "ode_inference", "rows_confusion", "series_generation")


def main(folder: str) -> None:
    matplotlib.use("Agg")
    images = [plt.imread(Path(folder) / f"{name}.png") for name in PANELS]
    heights = [max(image.shape[0] / image.shape[1] for image in images[i : i + 2]) for i in (0, 2)]
    fig, axes = plt.subplots(2, 2, figsize=(15, 7.5 * sum(heights)), height_ratios=heights, layout="constrained")
    for ax, image in zip(axes.flat, images, strict=True):
        ax.imshow(image, interpolation="lanczos")
        ax.axis("off")
    fig.savefig(Path(__file__).with_name("readme.png"), dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])

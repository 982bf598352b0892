"""Draws the README's figure of what `rs.explain` says of an LSTM that somebody wrote in five lines.

python docs/figures/explain.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import rnnscan as rs


def lstm(params, carry, x):
    c, h = carry
    i, j, f, o = jnp.split(jnp.concatenate([x, h], -1) @ params["kernel"] + params["bias"], 4, -1)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (c, h), jax.nn.softmax(h @ params["out"])


def main() -> None:
    matplotlib.use("Agg")
    shapes = {"kernel": (64 + 128, 4 * 128), "bias": (4 * 128,), "out": (128, 10)}
    params = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    h_0 = np.zeros((16, 128), np.float32)
    plan = rs.explain(lstm, params, (h_0, h_0), np.zeros((1000, 16, 64), np.float32))
    rs.plot.plan(plan).savefig(Path(__file__).with_name("explain.png"), dpi=160)


if __name__ == "__main__":
    main()

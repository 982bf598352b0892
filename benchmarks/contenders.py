"""Who takes part in `step_time`: one layer of each library around the same weights, and what all of them must equal.

Weights are drawn once for a problem, in the layout of `rs.cells` (`w_x`, `w_h`, `b`, for the GRU also `b_hn`, the bias
of the candidate inside the reset). Each contender says with one function how its own params follow from them; the chain
rule through that function brings its gradients back, so that all of them are compared in one layout.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import rnnscan as rs

from .users_cells import USERS_CELLS


Weights = dict[str, jax.Array]
LIBRARY_CELLS = {"elman": rs.cells.Elman, "lstm": rs.cells.LSTM, "gru": rs.cells.GRU}
VARIANTS = {  # what a peer computes where that is not the library cell of that name
    "elman, relu": lambda n_in, n: rs.cells.Elman(n_in, n, activation="relu"),
    "gru, reset before": lambda n_in, n: rs.cells.GRU(n_in, n, reset_after=False),
}
OF_HAIKU = {"elman": "elman, relu", "gru": "gru, reset before"}  # its variant of each cell that is not the problem's
JOBS = ("train", "train_dx", "forward")

# Largest distance of a loss, an output or a gradient from plain lax.scan's, over the latter's norm. float32: sums of
# up to 65,536 terms in another order. A GPU multiplies float32 with 10 bits (TF32), by default and in every library.
# bfloat16 has 8 bits and is compared with float32: that tells a wrong weight, which the float32 run has told before.
TOLERANCES = {"float32": 1e-4, "tf32": 3e-2, "bfloat16": 0.5}


class Absent(Exception):
    """This contender has no such cell, is not installed, or does not run on this device."""


@dataclass(frozen=True)
class Problem:
    """One cell at one shape `(T, B, in, H)`, with the weights and the data that everyone gets."""

    cell: str
    shape: tuple[int, int, int, int]
    dtype: str = "float32"

    @cached_property
    def weights(self) -> Weights:
        """LeCun normal, orthogonal, and biases away from zero."""
        _, _, n_in, n = self.shape
        key = jax.random.key(1)
        if self.cell in USERS_CELLS:
            return self.cast(USERS_CELLS[self.cell].init(key, n_in, n))
        params = LIBRARY_CELLS[self.cell](n_in, n).init(key, jnp.float32)
        noise = 0.1 * jax.random.normal(jax.random.key(2), params["b"].shape, jnp.float32)
        weights = {"w_x": params["w_x"], "w_h": params["w_h"], "b": params["b"] + noise}
        # zero, since not every peer's GRU has it; its gradient is not
        return self.cast(weights | ({"b_hn": jnp.zeros(n, jnp.float32)} if self.cell == "gru" else {}))

    @cached_property
    def xs(self) -> jax.Array:
        T, B, n_in, _ = self.shape
        return jax.random.normal(jax.random.key(3), (T, B, n_in), jnp.float32).astype(self.dtype)

    def cast(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(self.dtype), tree)

    def zeros(self) -> jax.Array:
        return jnp.zeros((self.shape[1], self.shape[3]), self.dtype)


@dataclass(frozen=True)
class Contender:
    """A layer: `forward(params, xs) -> ys` for JAX to compile, or `eager(job)`, a call of no arguments that does it."""

    into: Callable[[Weights], Any]  # the problem's weights as its params
    forward: Callable[[Any, jax.Array], jax.Array] | None = None
    eager: Callable[[str], Callable[[], Any]] | None = None
    batch_major: bool = False  # the layout of its xs and ys; everyone gets what it takes without a transposition
    variant: str = ""  # the cell it computes, one of VARIANTS; "" is the problem's own
    lacks: tuple[str, ...] = ()  # weights that it does not have
    note: str = ""

    def data(self, xs: jax.Array) -> jax.Array:
        return jnp.swapaxes(xs, 0, 1) if self.batch_major else xs


def function(contender: Contender, job: str) -> Callable[[Any, jax.Array], Any]:
    """`(params, xs) -> ys`, or loss and gradient of the mean of `ys**2`: of params, for "train_dx" of xs too."""
    forward = contender.forward
    if forward is None:
        raise TypeError("this contender is not traced; call `eager(job)`")
    if job == "forward":
        return forward
    loss = lambda params, xs: jnp.mean(forward(params, xs) ** 2)
    return jax.value_and_grad(loss, argnums=(0, 1) if job == "train_dx" else 0)


def scanned(problem: Problem, variant: str = "") -> tuple[Callable[..., Any], Any, Callable[[Weights], Any]]:
    """The cell, its first carry, and its params out of the problem's weights."""
    _, B, n_in, n = problem.shape
    if problem.cell in USERS_CELLS:
        users = USERS_CELLS[problem.cell]
        return users.step, users.carry((B, n), problem.dtype), lambda weights: weights
    cell = VARIANTS[variant](n_in, n) if variant else LIBRARY_CELLS[problem.cell](n_in, n)
    carry = cell.initial_carry((B,), jnp.dtype(problem.dtype))

    def into(w: Weights) -> Any:
        shared = {name: w[name] for name in ("w_x", "w_h", "b")}
        if not getattr(cell, "reset_after", False):
            return shared
        return shared | {"b_h": jnp.concatenate([jnp.zeros(2 * n, w["b_hn"].dtype), w["b_hn"]])}

    return cell, carry, into


def plain(problem: Problem, variant: str = "") -> Contender:
    """`lax.scan` over the cell: what JAX makes of it by itself."""
    cell, carry, into = scanned(problem, variant)

    def forward(params: Any, xs: jax.Array) -> jax.Array:
        return lax.scan(lambda carry, x: cell(params, carry, x), carry, xs)[1]

    lacks = ("b_hn",) if variant == "gru, reset before" else ()
    return Contender(into, forward, lacks=lacks, variant=variant, note="lax.scan over the cell that rnnscan gets")


def rnnscan(problem: Problem, variant: str = "") -> Contender:
    """`rs.scan` with its default, `optimize=True`."""
    cell, carry, into = scanned(problem, variant)

    def forward(params: Any, xs: jax.Array) -> jax.Array:
        return rs.scan(cell, params, carry, xs, optimize=True)[1]

    lacks = ("b_hn",) if variant == "gru, reset before" else ()
    double = "; double bias" if problem.cell == "gru" and not variant else ""
    return Contender(into, forward, variant=variant, lacks=lacks, note=f"rs.scan(cell, params, carry, xs){double}")


def rnnscan_variant(problem: Problem) -> Contender:
    """rnnscan on the cell that Haiku has under the problem's name, where that is another: they are compared on that."""
    if problem.cell not in OF_HAIKU:
        raise Absent("every peer computes this cell")
    return rnnscan(problem, OF_HAIKU[problem.cell])


def numbers(problem: Problem, contender: Contender, job: str, out: Any) -> dict[str, np.ndarray]:
    """What a job gave, by name, in float64 and in the problem's layout: "ys", or "loss", the weights and "xs"."""
    if job == "forward":
        return {"ys": _array(contender.data(jnp.asarray(out)))}  # a swap is its own inverse
    loss, grads = out
    grads, dx = grads if job == "train_dx" else (grads, None)
    params, back = jax.vjp(contender.into, problem.weights)
    (weights,) = back(jax.tree.map(lambda g, p: jnp.asarray(g).astype(p.dtype), grads, params))
    found = {name: _array(g) for name, g in weights.items() if name not in contender.lacks}
    return found | {"loss": _array(loss)} | ({} if dx is None else {"xs": _array(contender.data(jnp.asarray(dx)))})


def _array(value: Any) -> np.ndarray:
    return np.asarray(value).astype(np.float64)


def wanted(problem: Problem, variant: str, job: str) -> dict[str, np.ndarray]:
    """What plain lax.scan gives for these numbers in float32."""
    exact = replace(problem, dtype="float32")
    vars(exact).update(  # the cached properties: bfloat16's weights, not those they were rounded from
        weights=exact.cast(problem.weights), xs=exact.cast(problem.xs)
    )
    contender = plain(exact, variant)
    return numbers(exact, contender, job, jax.jit(function(contender, job))(contender.into(exact.weights), exact.xs))


def distances(found: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> dict[str, float]:
    """Norm of the difference over the norm of what is wanted, for each name that both have; NaN counts as infinity."""
    apart = {}
    for name in want.keys() & found.keys():
        if found[name].shape != want[name].shape:
            raise ValueError(f"{name} has shape {found[name].shape}, plain lax.scan's {want[name].shape}")
        norm = np.linalg.norm(found[name] - want[name]) / (np.linalg.norm(want[name]) or 1.0)
        apart[name] = float(norm) if np.isfinite(norm) else float("inf")
    return apart


def tolerance(dtype: str, backend: str) -> float:
    return TOLERANCES["tf32" if dtype == "float32" and backend == "gpu" else dtype]

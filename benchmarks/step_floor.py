"""The measured floor under a step of `step_time`: its matrix products alone, and what share of the step they are.

Nothing can take less than the products of the loop, one after the other, and those that need no order, as one product
over time and batch each. The gates' arithmetic, reading and writing what the backward pass keeps, and the loop itself
come on top.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from . import contenders, timing
from .contenders import Problem


PARTS = {"train": ("loop", "loop back", "hoisted", "weight gradients"), "forward": ("loop", "hoisted")}


def products(problem: Problem) -> dict[str, tuple[Any, ...]]:
    """`{part: (function, *args)}`, the products of a training step with k gates:

    loop              h (B, H) @ w_h (H, k H), T times; the mean over gates is the next h, so that all columns count
    loop back         dz (B, k H) @ w_h.T (k H, H), T times, from a transposed copy
    hoisted           xs (T B, in) @ w_x (in, k H)
    weight gradients  xs.T (in, T B) @ dz (T B, k H) and hs.T (H, T B) @ dz
    """
    T, B, n_in, n = problem.shape
    w_x, w_h = problem.weights["w_x"], problem.weights["w_h"]
    k = w_h.shape[1] // n
    h = jnp.ones((B, n), problem.dtype) / n
    draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(problem.dtype)
    xs, hs, dz = draw(0, T * B, n_in), draw(1, T * B, n), draw(2, T * B, k * n)

    def loop(h: Any, w: Any) -> Any:
        step = lambda h, _: ((h @ w).reshape(B, k, n).mean(1), None)
        return lax.scan(step, h, None, length=T)[0]

    def loop_back(dz: Any, w_t: Any) -> Any:
        step = lambda dz, _: (jnp.tile(dz @ w_t, (1, k)) / k, None)
        return lax.scan(step, dz, None, length=T)[0]

    return {
        "loop": (loop, h, w_h),
        "loop back": (loop_back, jnp.tile(h, (1, k)), jnp.array(w_h.T)),
        "hoisted": (jnp.matmul, xs, w_x),
        "weight gradients": (lambda xs, hs, dz: (xs.T @ dz, hs.T @ dz), xs, hs, dz),
    }


def measure(problem: Problem, rounds: int) -> dict[str, Any]:
    """The parts and rnnscan's own step and forward run, in turn; shares are of the same round."""
    ours = contenders.rnnscan(problem)
    args = (ours.into(problem.weights), problem.xs)
    cases = products(problem) | {job: (contenders.function(ours, job), *args) for job in PARTS}
    programs = {name: jax.jit(case[0]).lower(*case[1:]).compile() for name, case in cases.items()}
    runs = {name: lambda name=name: programs[name](*cases[name][1:]) for name in cases}
    found = timing.run_times(runs, rounds)
    block: dict[str, Any] = {"cell": problem.cell, "shape": list(problem.shape), "dtype": problem.dtype}
    block["seconds"] = {name: timing.spread(samples) for name, samples in found.items()}
    block["share"] = {
        job: timing.ratio([sum(parts) for parts in zip(*(found[part] for part in names), strict=True)], found[job])
        for job, names in PARTS.items()
    }
    return block

"""The meaning of `scan` as a Python loop over each row's valid steps: what the law tests are held against."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

import rnnscan as rs


# One step, and taking arrays apart and putting them together, are compiled, with their derivatives, once for each
# shape and then used at every step of every loop. The loop itself runs in Python.


@lru_cache
def step_of(case):
    """One step of a case's cell, `(params, carry, x, key, t) -> (carry, y)`."""

    def step(params, carry, x, key, t):
        cell, params = case.bind(case.cell, params)
        return cell(params, carry, x) if key is None else cell(params, carry, x, rs.Rng(key, t))

    return jax.jit(step)


@partial(jax.jit, static_argnums=(1, 2))
def apart(tree, size, inner=None):
    """A list of `size` trees without the first axis; with `inner` each of them is taken apart in turn."""
    parts = [jax.tree.map(lambda leaf: leaf[i], tree) for i in range(size)]  # noqa: B023
    return parts if inner is None else [apart(part, inner) for part in parts]


@jax.jit
def together(trees):
    """A list of equal trees as one with a new first axis, a list of such lists as one with two."""
    if isinstance(trees[0], list):
        trees = [together(part) for part in trees]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def plain_loop(
    case, params, carry, xs, *, n_steps, valid, resets=None, reset_carry=None, reverse=False, hold=False, outputs="all",
    key=None,
):  # fmt: skip
    """The meaning of `scan`; `valid` and `resets` are NumPy (n_steps, rows).

    Rows are run one by one and see nothing but their own valid steps. A cell with `rng` draws numbers for all rows at
    once, so there all rows are stepped together, and each row keeps what its own valid steps gave.
    """
    n_rows, step = valid.shape[1], step_of(case)
    groups = [range(n_rows)] if key is not None else [range(b, b + 1) for b in range(n_rows)]
    start = apart(carry, n_rows)
    fresh = start if reset_carry is None else apart(reset_carry, n_rows)
    inputs = apart(xs, n_steps, n_rows) if n_steps and xs is not None else [[None] * n_rows] * n_steps
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), xs)
    shape = jax.eval_shape(step, params, carry, x, key, np.int32(0))[1]
    nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], leaf.dtype), shape)
    state, last, ys = list(start), [nothing] * n_rows, [[nothing] * n_rows for _ in range(n_steps)]
    for t in reversed(range(n_steps)) if reverse else range(n_steps):
        for group in (g for g in groups if valid[t, list(g)].any()):
            boundary = t + 1 if reverse else t
            reset = [resets is not None and boundary < n_steps and resets[boundary, b] for b in group]
            went_in = together([fresh[b] if r else state[b] for b, r in zip(group, reset, strict=True)])
            x = together([inputs[t][b] for b in group])
            came_out, y = (apart(tree, len(group)) for tree in step(params, went_in, x, key, np.int32(t)))
            for i, b in enumerate(group):
                if valid[t, b]:
                    state[b], last[b] = came_out[i], y[i]
        for b in range(n_rows):
            ys[t][b] = last[b] if valid[t, b] or hold else nothing
    carry = together(state)
    if outputs == "none":
        return carry, None
    if outputs == "last":
        return carry, together(last)
    if n_steps == 0:
        return carry, jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), shape)
    return carry, together(ys)

"""Differences between JAX releases, each with the release that ends it."""

import math
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from jax._src import core


JAXLIB = version("jaxlib")

SLOW_SCANS = {"0.11.1": "0.11.2"}
"""jaxlib whose loops on the CPU copy a stacked output at each step that adds a small part to it -> the release that
ends it. jax issue 40101; of the releases from 0.10.2 to 0.12.0.1 none but 0.11.1 took four times as long for twice as
many steps."""

_SMALL_BYTES = 512  # the limit depends on the processor; those measured lie between 160 and 480
_MANY_STEPS = 1000  # before that the copies are hardly felt
_slow_scan_told: set[str] = set()


def _varying(aval: Any) -> frozenset[str]:
    """Mesh axes over which a value differs inside `shard_map`; empty outside."""
    if hasattr(aval, "vma"):  # before jax 0.10.2
        return frozenset(aval.vma)
    return frozenset(getattr(getattr(aval, "manual_axis_type", None), "varying", ()))


def vary_alike(args: list[Any]) -> list[Any]:
    """The arrays, each marked as varying over every mesh axis over which one of them varies.

    Inside `shard_map` primitives want their operands alike; the functions of `jax.lax` see to it, a primitive that is
    bound again does not. Outside it nothing changes.
    """
    axes = [_varying(jax.typeof(a)) for a in args]
    union = frozenset().union(*axes)
    if not union:
        return args
    missing = [union - a for a in axes]
    return [
        jax.lax.pcast(jnp.asarray(a), tuple(m), to="varying") if m else a for a, m in zip(args, missing, strict=True)
    ]


def vary_over(x: Any, axes: Iterable[str]) -> Any:
    """`x` marked as varying over these mesh axes as well; JAX refuses to mark it over one over which it does."""
    missing = tuple(axis for axis in axes if axis not in _varying(jax.typeof(x)))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def match_varying(step: Callable[[Any, Any], Any], state: Any, inputs: Any) -> Any:
    """`state` marked as varying over every mesh axis over which `step(state, inputs)` varies.

    Inside `shard_map`, `lax.scan` refuses a carry that starts out equal on all devices (zeros, say) and then depends
    on sharded data. Outside it nothing changes.
    """
    leaves, structure = jax.tree.flatten(state)
    if not any(_varying(jax.typeof(leaf)) for leaf in [*leaves, *jax.tree.leaves(inputs)]):
        return state
    for _ in range(len(leaves) + 1):  # one leaf may make another vary a step later
        avals = jax.make_jaxpr(step)(jax.tree.unflatten(structure, leaves), inputs).out_avals
        missing = [_varying(b) - _varying(jax.typeof(a)) for a, b in zip(leaves, avals, strict=True)]
        if not any(missing):
            break
        leaves = [jax.lax.pcast(a, tuple(m), to="varying") if m else a for a, m in zip(leaves, missing, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def under_jit() -> bool:
    """Whether a program is being traced that will be compiled once, rather than run now, differentiated or not."""
    ask = getattr(core, "unsafe_am_i_under_a_jit", None)  # no public function tells
    return bool(ask()) if ask is not None else not core.trace_state_clean()


def warn_of_slow_scan(output: Any, n_steps: int, unroll: int | bool, stacklevel: int) -> None:
    """Says once where this jaxlib runs `lax.scan` in a time that grows with the square of the number of steps.

    `output` is what one step puts out, as shapes and dtypes; with `unroll` several steps are written at once.
    """
    ended = SLOW_SCANS.get(JAXLIB)
    if ended is None or n_steps < _MANY_STEPS or JAXLIB in _slow_scan_told or jax.default_backend() != "cpu":
        return
    at_once = n_steps if unroll is True else unroll
    smallest = min((math.prod(y.shape) * y.dtype.itemsize for y in jax.tree.leaves(output)), default=0)
    if not 0 < smallest * at_once < _SMALL_BYTES:
        return
    _slow_scan_told.add(JAXLIB)
    enough = min(32, math.ceil(_SMALL_BYTES / smallest))
    warnings.warn(
        f"jaxlib {JAXLIB} is slow at this scan: on the CPU it copies the whole of an output at each step that adds "
        f"less than some {_SMALL_BYTES} bytes to it, here {smallest} bytes in each of {n_steps} steps, so that the "
        f"time grows with the square of T (jax issue 40101). Install jaxlib {ended} or newer. Until then "
        f'`unroll={enough}` writes several steps at once, and `outputs="last"` is enough where no gradient is taken.',
        stacklevel=stacklevel,
    )

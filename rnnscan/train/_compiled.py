"""The compiled step of `fit`, kept for the next `fit` with the same loss, and arguments that do not compile it anew."""

import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._tree import named_leaves
from .step import make_update


_COMPILED: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def compiled(loss: Any, optimizer: Any, clip_norm: float | None) -> tuple[Callable, Callable]:
    """`init` and the compiled `update`; the same ones for the same function and optimizer, as long as it lives.

    What is kept refers to the function weakly, so that neither it nor what it closes over outlives its last use.
    """
    if not isinstance(loss, types.FunctionType):
        return _compile(loss, optimizer, clip_norm)
    kept = _COMPILED.setdefault(loss, {})
    name = (optimizer, clip_norm)
    try:
        found = kept.get(name)
    except TypeError:  # an optimizer with a field that does not hash
        return _compile(loss, optimizer, clip_norm)
    if found is None:
        reference: Any = weakref.ref(loss)
        found = _compile(lambda params, batch, key: reference()(params, batch, key), optimizer, clip_norm)
        if len(kept) >= 8:
            kept.pop(next(iter(kept)))
        kept[name] = found
    return found


def _compile(loss, optimizer, clip_norm):
    init, update = make_update(loss, optimizer, clip_norm)

    @jax.jit
    def numbered(params, opt_state, batch, key, k, alive):
        params, opt_state, metrics = update(params, opt_state, batch, jax.random.fold_in(key, k), alive)
        return params, opt_state, metrics["finite"], metrics

    return init, numbered


def strong(leaf: Any, dtype: Any = None) -> jax.Array:
    """An array whose type is its own: a Python number's type would change after one step, and compile again."""
    if isinstance(leaf, jax.Array) and not getattr(leaf, "weak_type", False):
        return leaf
    return jnp.asarray(leaf, dtype or jnp.asarray(leaf).dtype)


def like(opt_state: Any, wanted: Any) -> Any:
    """`opt_state` with Python numbers (a learning rate set by hand) as arrays of the type the optimizer uses."""
    if jax.tree.structure(opt_state) != jax.tree.structure(wanted):
        raise ValueError(
            "`opt_state` does not belong to this optimizer and these params; got "
            f"{jax.tree.structure(opt_state)}, expected {jax.tree.structure(wanted)}."
        )
    for (name, leaf), want in zip(named_leaves("opt_state", opt_state), jax.tree.leaves(wanted), strict=True):
        if jnp.shape(leaf) != want.shape:
            raise ValueError(f"`{name}` has shape {jnp.shape(leaf)}, but {want.shape} belongs to these params.")
    number = lambda leaf, want: strong(leaf, want.dtype) if isinstance(leaf, int | float) else strong(leaf)
    return jax.tree.map(number, opt_state, wanted)

"""Small helpers on pytrees and on the time axis that several rooms share."""

from typing import Any

import jax
import jax.numpy as jnp


def where(condition: jax.Array, a: Any, b: Any) -> Any:
    """Leafwise `condition ? a : b`, the condition's axes being the leaves' first axes."""

    def choose(x, y):
        shape = condition.shape + (1,) * (jnp.ndim(x) - condition.ndim)
        return jnp.where(condition.reshape(shape), x, y)

    return jax.tree.map(choose, a, b)


def zeros_like(tree: Any) -> Any:
    """Zeros of each leaf's shape and dtype; leaves may be `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def at_time(tree: Any, t: Any) -> Any:
    """Every leaf at step `t` of its first axis."""
    return jax.tree.map(lambda leaf: leaf[t], tree)


def stack(trees: list[Any]) -> Any:
    """A list of equal trees as one tree with a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def move_time(tree: Any, source: int, destination: int) -> Any:
    """Every leaf with its axis `source` moved to `destination`; the same tree where nothing moves."""
    if source == destination:
        return tree
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, source, destination), tree)


def is_concrete(*trees: Any) -> bool:
    """True if no leaf is a tracer, that is if values can be looked at."""
    return not any(isinstance(leaf, jax.core.Tracer) for tree in trees for leaf in jax.tree.leaves(tree))


def path_name(root: str, path: Any) -> str:
    """A leaf as a user would write it: `carry['h']`, `xs[0]`, or the bare root."""
    return root + jax.tree_util.keystr(path)


def named_leaves(root: str, tree: Any) -> list[tuple[str, Any]]:
    """`[(name, leaf)]` with names as `path_name` writes them."""
    return [(path_name(root, path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def describe(leaf: Any) -> str:
    """Shape and dtype as JAX prints them: `float32[4]`; None as it is; anything else by its type, `an int`."""
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    return "None" if leaf is None else with_article(type(leaf).__name__)


def kind(value: Any) -> str:
    """How messages call what came instead: numbers and short text as they are, a container by its size."""
    if isinstance(value, tuple | list | dict):
        return f"{with_article(type(value).__name__)} of {len(value)}"
    if isinstance(value, type):
        return f"the class `{value.__name__}`"
    if isinstance(value, bool | int | float | str) and len(repr(value)) <= 40:
        return repr(value)
    return describe(value)


def with_article(noun: str) -> str:
    """`a list`, `an int`."""
    return f"{'an' if noun[0] in 'aeioAEIO' else 'a'} {noun}"

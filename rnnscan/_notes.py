"""Notes put on an error that was raised inside a cell: what the cell was given, and what such an error often means."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from . import _tree
from ._types import name_of


_MOST_LEAVES = 12
_NOT_THE_USER = (str(Path(__file__).parent), str(Path(jax.__file__).parent))
_NOT_KNOWN_YET = (
    jax.errors.ConcretizationTypeError,  # `if`, `while`, `int(x)`
    jax.errors.TracerArrayConversionError,  # `np.tanh(x)`
    jax.errors.TracerIntegerConversionError,  # `a_list[x]`
    jax.errors.NonConcreteBooleanIndexError,  # `x[x > 0]`
)
_WHY_NONE = {
    "params": "`params` is None. Give `scan` the params; a library cell makes them with `cell.init(key)`.",
    "carry": (
        "`carry` is None. A function without `initial_carry` starts without a carry; give `scan` one, "
        "`carry=jnp.zeros(...)`."
    ),
    "x": "`x` is None. With `xs=None` every step gets None; let the cell ignore x, or give `scan` sequences.",
}


def explain(error: Exception, cell: Any, params: Any, carry: Any, x: Any) -> None:
    """Adds to `error`, with `add_note`, what the user of `cell` needs to understand it; its type stays as it was."""
    given = {"x": x, "carry": carry, "params": params}
    for note in _notes(error, cell, given):
        error.add_note(note)
    leaves = [f"{name}: {_tree.describe(leaf)}" for root, tree in given.items() for name, leaf in _named(root, tree)]
    more = f", and {len(leaves) - _MOST_LEAVES} more leaves" if len(leaves) > _MOST_LEAVES else ""
    received = ", ".join(leaves[:_MOST_LEAVES]) + more
    error.add_note(f"raised while tracing one step of cell `{name_of(cell)}`, which received {received}")


def not_known_yet(error: Exception, where: str) -> Iterator[str]:
    """What to write instead, if `error` says that Python asked for a value that is traced."""
    if isinstance(error, _NOT_KNOWN_YET):
        yield (
            f"Values inside {where} are traced, not known: use `jnp.where` or `jax.lax.cond` for `if`, `a & b` for "
            "`a and b`, `jnp.where` for `x[x > 0]`, `jnp.asarray(a_list)[i]` for `a_list[i]`, and `jnp.tanh` for "
            "`np.tanh`."
        )


def _named(root: str, tree: Any) -> list[tuple[str, Any]]:
    return _tree.named_leaves(root, tree) or [(root, tree)]  # an empty tree is shown as well, as None or ()


def _notes(error: Exception, cell: Any, given: dict[str, Any]) -> Iterator[str]:
    text, name = str(error), name_of(cell)
    if isinstance(error, KeyError):
        dicts = [
            f"{path} has keys {sorted(map(str, keys))}" for root in given for path, keys in _dicts(root, given[root])
        ]
        if dicts:
            yield f"cell `{name}` read the key {text}; {', '.join(dicts)}"
    yield from not_known_yet(error, "a cell")
    if "_types.Rng'" in text or "'Rng' object" in text:
        yield "`rng` is an `rs.Rng`, not a key: draw with `rng.per_step()` or `rng.per_sequence()`, which are keys."
    if "NoneType" in text:
        for root, why in {**_WHY_NONE, **getattr(cell, "why_none", {})}.items():
            if given[root] is None and (root != "params" or hasattr(cell, "init")):  # many a function has no params
                yield why
    x = given["x"]
    if isinstance(x, list | tuple) and len(x) > 1 and all(hasattr(part, "shape") for part in x):
        yield (
            f"x is a {type(x).__name__} of {len(x)} arrays: `xs` was such a {type(x).__name__}, which is a tree of "
            f"{len(x)} sequences. If it is a list of time steps, write `jnp.stack(xs)`."
        )
    yield from _in_other_places(error, given)
    if isinstance(error, TypeError) and not _takes_three(cell):
        yield f"`scan` calls a cell as `cell(params, carry, x)`; `{name}` is defined with other arguments."
    yield from other_params(cell, given["params"])


def _in_other_places(error: Exception, given: dict[str, Any]) -> Iterator[str]:
    """Whether arguments seem to have changed places, or axes."""
    text = str(error)
    if isinstance(error, TypeError) and re.search("string index|not str|not 'str'", text):
        found = [root for root in ("carry", "x") if isinstance(given[root], dict)]
        if found and not isinstance(given["params"], dict):
            yield (
                f"`params` is not a dict, but `{found[0]}` is one with keys {sorted(map(str, given[found[0]]))}: did "
                "they change places? The order is `scan(cell, params, carry, xs)`."
            )
    x_rows, carry_rows = (
        {leaf.shape[0] for leaf in jax.tree.leaves(given[root]) if getattr(leaf, "ndim", 0) > 1}
        for root in ("x", "carry")
    )
    if "shape" in text and len(x_rows) == len(carry_rows) == 1 and x_rows != carry_rows:
        yield (
            f"x has {min(x_rows)} rows at each step, the carry has {min(carry_rows)}: if xs is (batch, time, ...), "
            "pass `time_axis=1`."
        )


def _dicts(path: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """Every dict inside a tree with its path, `params['cell']`, and its keys."""
    if isinstance(tree, dict):
        yield path, tree.keys()
        for key, value in tree.items():
            yield from _dicts(f"{path}[{key!r}]", value)
    elif isinstance(tree, tuple | list):
        for i, value in enumerate(tree):
            yield from _dicts(f"{path}[{i}]", value)


def _takes_three(cell: Any) -> bool:
    try:
        signature = inspect.signature(cell)
    except (TypeError, ValueError):  # some callables have no signature to read
        return True
    for arguments in range(3, 5):
        try:
            signature.bind(*range(arguments))
        except TypeError:
            continue
        return True
    return any(p.name == "rng" for p in signature.parameters.values())


def other_params(cell: Any, params: Any) -> Iterator[str]:
    """The first leaf whose shape is not that of `cell.init`, if the cell has one."""
    if params is None or not hasattr(cell, "init"):
        return
    try:
        expected = jax.eval_shape(cell.init, jax.eval_shape(lambda: jax.random.key(0)))
    except Exception:  # a hint only: an init of the user's own may want more than a key, or raise anything
        return
    came = {name: tuple(getattr(leaf, "shape", ())) for name, leaf in _tree.named_leaves("params", params)}
    for name, leaf in _tree.named_leaves("params", expected):
        if came.get(name) != leaf.shape:
            state = f"has shape {came[name]}" if name in came else "is missing"
            made = f"`init` of cell `{name_of(cell)}` makes it {leaf.shape}"
            yield f"`{name}` {state}; {made}. Are these another cell's params?"
            return


def users_line() -> int:
    """`stacklevel` of the caller's warning for the innermost line that is neither ours nor JAX's."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USER):
        frame, level = frame.f_back, level + 1
    return level

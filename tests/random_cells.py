"""Random cells: the text of a step and the arrays that it wants, made from a seed and a number.

Cell `n` of a seed is always the same cell. It is written as the source of a function, so that a failing one can be
read, and run by hand:

    cell = random_cell(seed=0, number=17)
    print(cell.source)                       # def make(weights): ... def cell(params, carry, inputs): ...
    rs.scan(cell.make(cell.weights), cell.params, cell.carry, cell.xs)

A cell is a random chain of operations (`random_products.py`, `random_operations.py`) on its input and its carry.
Nothing in it grows: what goes back into the carry is squashed or a mean with the old value, so that rounding stays
rounding.
"""

import linecache
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.random_operations import FUNCTIONS, KEYS, OTHERS
from tests.random_products import PRODUCTS
from tests.random_writer import Writer, product


OPERATIONS = PRODUCTS | OTHERS
RARE = ("custom_vjp", "custom_jvp", "key_in_the_carry", "noise", "running_mean", "batch_norm")
"""In its turn only: what takes something from the test (derivatives, rows on their own), or is slow to compile."""


@dataclass(frozen=True, eq=False)
class RandomCell:
    """A cell's source and its arrays; all floats are float64."""

    number: int
    source: str
    operations: tuple[str, ...]
    params: Any
    carry: Any
    xs: Any  # (n_steps, rows, ...) or None
    weights: Any  # what the cell closes over
    n_steps: int
    batch: tuple[int, ...]  # the batch axes of lengths, mask and resets; () where the rows are mixed
    key: Any  # for a cell that takes `rng`
    own_rule: str | None
    """"vjp" for a cell with a `custom_vjp`, of which JAX knows no forward mode; "jvp" for one whose `custom_jvp` is not
    its derivative: at second order JAX forgets such a rule inside `lax.scan`, and the plain one has other results."""

    def make(self, weights: Any) -> Callable[..., Any]:
        """The cell, closing over these weights."""
        return self._written["make"](weights)

    def compiled(self, weights: Any) -> Callable[..., Any]:
        """The same step compiled by itself, once for all weights."""
        if self.key is None:
            return lambda params, carry, x: self._step(weights, params, carry, x)
        return lambda params, carry, x, rng: self._step(weights, params, carry, x, rng)

    @cached_property
    def _written(self) -> dict[str, Any]:
        name = f"<cell {self.number}>"
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)  # tracebacks show it
        namespace = {"jax": jax, "jnp": jnp, "np": np, **FUNCTIONS}
        exec(compile(self.source, name, "exec"), namespace)
        return namespace

    @cached_property
    def _step(self) -> Callable[..., Any]:
        return jax.jit(lambda weights, *arguments: self.make(weights)(*arguments))


def random_cell(seed: int, number: int) -> RandomCell:
    """Cell `number` of a seed; the first `len(OPERATIONS) / 2` cells have every operation between them, and so on."""
    w = Writer(np.random.default_rng([seed, number]))
    names = list(OPERATIONS)
    turn, place = divmod(number, len(names) // 2)
    wanted = names[place], names[-1 - (place + turn) % (len(names) - len(names) // 2)]
    others = [name for name in names if name not in RARE]
    kinds = w.choose((("x", "h"),) * 12 + (("x",), ("h",)))  # a map has no carry of its own, a generator no input
    if "x" in kinds:
        w.width["x"] = w.size()
        w.inputs["x"] = w.away(w.n_steps, w.rows, w.width["x"])
    if "h" in kinds:
        w.width["h"] = w.size()
    order = [*wanted, *(w.choose(others) for _ in range(w.integer(1, 4)))]
    for name in w.numbers.permutation(order):
        OPERATIONS[str(name)](w)
    if "h" in kinds:
        _next_h(w)
    outputs = _outputs(w)
    return _finished(w, number, tuple(order), outputs)


def _next_h(w: Writer) -> None:
    """The main leaf of the carry: the last value, with the old one, squashed."""
    n, last = w.width["h"], list(w.width)[-1]
    v = last if w.width[last] == n and w.chance(0.5) else product(w, last, n)
    forms = (
        lambda: f"jnp.tanh({v} + {product(w, 'h', n)})",
        lambda: f"0.6 * h + 0.4 * jnp.tanh({v})",
        lambda: f"(lambda z: (1 - z) * jnp.tanh({v}) + z * h)(jax.nn.sigmoid({w.pick(n)}))",
        lambda: f"jnp.sin(jnp.concatenate([{v}, h], axis=-1) @ {w.matrix(2 * n, n)})",
    )
    w.leaves["h"] = (w.away(w.rows, n), w.define(w.choose(forms)(), n))


def _outputs(w: Writer) -> dict[str, str]:
    """Names of the outputs and how they are written: up to four, of all types."""
    forms = (
        lambda: w.pick(),
        lambda: w.leaves["h"][1] if "h" in w.leaves else w.pick(),
        lambda: f"jax.nn.softmax({product(w, w.pick(), 3)})",
        lambda: product(w, w.pick(), 2),
        lambda: f"jnp.sum({w.pick()}, axis=-1)",
        lambda: f"{w.pick()} > 0.137",
        lambda: f"jnp.argmax({w.pick()}, axis=-1)",
        lambda: f"jnp.broadcast_to({w.array(2)}, ({w.rows}, 2))",
        lambda: f"jnp.ones({w.rows})",
        lambda: "x" if "x" in w.width else "h",
    )
    return {f"y{i}": w.choose(forms)() for i in range(w.choose((0, 1, 1, 1, 2, 3, 4)))}


def _finished(w: Writer, number: int, operations: tuple[str, ...], outputs: dict[str, str]) -> RandomCell:
    carry, inputs, ys = (_arranged(w, list(names)) for names in (w.leaves, w.inputs, outputs))
    after = {name: text for name, (_, text) in w.leaves.items()}
    lines = [*_unpacked("carry", carry), *_unpacked("inputs", inputs), *w.lines]
    arguments = "params, carry, inputs" + ", rng" * w.noise
    body = "\n        ".join([*lines, f"return {_shown(carry, after)}, {_shown(ys, outputs)}"])
    source = f"def make(weights):\n    def cell({arguments}):\n        {body}\n\n    return cell\n"
    start = {name: value() if callable(value) else value for name, (value, _) in w.leaves.items()}
    put = lambda tree, arrays: jax.tree.map(lambda name: jax.tree.map(jnp.asarray, arrays[name]), tree)
    return RandomCell(
        number, source, operations,
        params=jax.tree.map(jnp.asarray, w.params), weights=jax.tree.map(jnp.asarray, w.weights),
        carry=put(carry, start), xs=put(inputs, w.inputs), n_steps=w.n_steps, batch=() if w.mixed else (w.rows,),
        key=jax.random.key(w.integer(0, 99), impl=w.choose(KEYS)) if w.noise else None, own_rule=w.own_rule,
    )  # fmt: skip


def _arranged(w: Writer, names: list[str]) -> Any:
    """Names in a tree: None, one alone, a tuple, a dict, or both."""
    if not names:
        return None
    names = [str(name) for name in w.numbers.permutation(names)]
    if len(names) == 1 and w.chance(0.7):
        return names[0]
    flat = (tuple(names), {name: name for name in names}, {"first": names[0], "rest": (*names[1:],)})
    return w.choose(flat)


def _unpacked(root: str, tree: Any) -> list[str]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [f"{name} = {root}{jax.tree_util.keystr(path)}" for path, name in paths]


def _shown(tree: Any, texts: dict[str, str]) -> str:
    """The tree as Python writes it, with each name's text in its place."""
    if isinstance(tree, tuple):
        return "(" + "".join(f"{_shown(part, texts)}, " for part in tree) + ")"
    if isinstance(tree, dict):
        return "{" + ", ".join(f'"{name}": {_shown(part, texts)}' for name, part in tree.items()) + "}"
    return "None" if tree is None else texts[tree]

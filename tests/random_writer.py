"""What writes a random cell: its lines so far, the values they define, and the arrays that the cell wants."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


ACTIVATIONS = (
    "jnp.tanh", "jax.nn.sigmoid", "jax.nn.relu", "jax.nn.silu", "jax.nn.softplus", "jax.nn.gelu", "jax.nn.elu",
    "jnp.sin", "jax.nn.leaky_relu", "jax.nn.relu6",
)  # fmt: skip


class Writer:
    """The lines of a cell written so far, the values they define, and the arrays that the cell wants."""

    def __init__(self, numbers: np.random.Generator):
        self.numbers = numbers
        self.rows, self.n_steps = self.choose(((3, 5), (3, 5), (2, 4)))  # few shapes: operations are compiled for each
        self.lines: list[str] = []
        self.width: dict[str, int] = {}  # value -> its number of features
        self.params: dict[str, np.ndarray] = {}
        self.weights: dict[str, np.ndarray] = {}  # closed over
        self.inputs: dict[str, np.ndarray] = {}  # over time
        self.leaves: dict[str, tuple[Any, str]] = {}  # of the carry: the first value, and how the next is written
        self.mixed = self.noise = False
        self.own_rule: str | None = None
        self._names = 0

    def chance(self, probability: float) -> bool:
        return bool(self.numbers.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """One of low, ..., high."""
        return int(self.numbers.integers(low, high + 1))

    def choose(self, among: Sequence[Any]) -> Any:
        return among[self.integer(0, len(among) - 1)]

    def fresh(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def away(self, *shape: int) -> np.ndarray:
        """Numbers of size 0.2 to 0.8 and either sign."""
        return self.numbers.uniform(0.2, 0.8, shape) * self.numbers.choice([-1.0, 1.0], shape)

    def array(self, *shape: int) -> str:
        """A new param or, one time in four, a weight to close over; products with it keep the size of things."""
        value = self.away(*shape) * (1.5 / shape[-2] ** 0.5 if len(shape) > 1 else 1.0)
        home, root = (self.weights, "weights") if self.chance(0.25) else (self.params, "params")
        name = self.fresh("w" if len(shape) > 1 else "b")
        home[name] = value
        return f'{root}["{name}"]'

    def matrix(self, n: int, m: int) -> str:
        """A matrix `(n, m)`: a new one, one used before, or a part of either."""
        known = [(f'{root}["{name}"]', a.shape) for root, home in (("params", self.params), ("weights", self.weights))
                 for name, a in home.items() if a.ndim == 2 and a.shape[0] >= n and a.shape[1] >= m]  # fmt: skip
        if known and self.chance(0.3):
            text, shape = self.choose(known)
            return text if shape == (n, m) else f"{text}[:{n}, :{m}]"
        return self.array(n, m)

    def define(self, text: str, width: int) -> str:
        """A new line `name = text` and its name."""
        name = self.fresh("v")
        self.lines.append(f"{name} = {text}")
        self.width[name] = width
        return name

    def pick(self, width: int | None = None) -> str:
        """A value, more likely one of the last three; with `width`, brought to it by a product where need be."""
        names = list(self.width)
        name = self.choose(names[-3:] if self.chance(0.5) else names)
        if width is None or self.width[name] == width:
            return name
        same = [n for n in names if self.width[n] == width]
        return self.choose(same) if same and self.chance(0.6) else product(self, name, width)

    def size(self) -> int:
        return self.integer(2, 4)


def product(w: Writer, a: str, m: int) -> str:
    """`a @ matrix`, in one of many ways to write it."""
    n = w.width[a]
    forms = (
        lambda: f"{a} @ {w.matrix(n, m)}",
        lambda: f"{a} @ {w.matrix(n, m)} + {w.array(m)}",
        lambda: f"jnp.dot({a}, {w.matrix(n, m)})",
        lambda: f"{a} @ {w.matrix(m, n)}.T",
        lambda: f"jnp.matmul({a}[:, None], {w.matrix(n, m)})[:, 0]",
        lambda: f"jnp.tensordot({a}, {w.matrix(n, m)}, 1)",
    )
    return w.define(w.choose(forms)(), m)


Operation = Callable[[Writer], None]


def registering(operations: dict[str, Operation]) -> Callable[[Operation], Operation]:
    """A decorator that keeps a function in `operations` under its name."""

    def register(function: Operation) -> Operation:
        operations[function.__name__] = function
        return function

    return register

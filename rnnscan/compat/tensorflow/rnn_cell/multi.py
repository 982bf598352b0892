"""Cells on top of each other within one step."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...._types import Rng, call, name_of
from ....wrap import _parts
from . import base
from .base import RNNCell, check_cell, check_state, no_rng_needed
from .fields import settle_cell
from .variables import only, split


@dataclass(frozen=True, repr=False)
class MultiRNNCell(RNNCell):
    """`out^0 = cell_0(x_t)`, `out^i = cell_i(out^{i-1})`; the output is the last one's, the state a tuple of all.

    Params: `{"cell_0": ..., "cell_1": ...}`. Each cell has params of its own, also where one object is given twice
    (`[cell] * 3`), for which TensorFlow shared the variables; to share them, put one dict under several names.

    `cells`: a list or tuple of at least one. `state_is_tuple`: False keeps all states in one array, side by side on
    the last axis; then no cell's own state may be a tuple.
    Source: `tf.nn.rnn_cell.MultiRNNCell`.
    """

    cells: tuple[Any, ...]
    state_is_tuple: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.cells, list | tuple):
            raise TypeError(f"`MultiRNNCell` takes a list of cells; got {name_of(self.cells)}. Write `[cell]`.")
        settle_cell(self, state_is_tuple=bool)
        if not self.cells:
            raise ValueError("`MultiRNNCell` needs at least one cell; got none.")
        for cell in self.cells:
            check_cell("MultiRNNCell", cell)
        sizes = [cell.state_size for cell in self.cells]
        if not self.state_is_tuple and not all(isinstance(size, int) for size in sizes):
            raise ValueError(
                f"`MultiRNNCell(state_is_tuple=False)` joins states that are arrays, but the state sizes are {sizes}. "
                "Leave `state_is_tuple` out, or make the cells with `state_is_tuple=False` as well."
            )

    def __repr__(self) -> str:
        joined = "" if self.state_is_tuple else ", state_is_tuple=False"
        return f"MultiRNNCell([{', '.join(map(name_of, self.cells))}]{joined})"

    @property
    def state_size(self) -> Any:  # type: ignore[override]
        sizes = tuple(cell.state_size for cell in self.cells)
        return sizes if self.state_is_tuple else sum(sizes)

    @property
    def output_size(self) -> Any:  # type: ignore[override]
        return self.cells[-1].output_size

    @property
    def x_ndim(self) -> int:
        return getattr(self.cells[0], "x_ndim", 1)

    @property
    def float_input(self) -> bool:
        return getattr(self.cells[0], "float_input", False)

    @property
    def table(self) -> Any:
        return getattr(self.cells[0], "table", None)

    @property
    def stochastic(self) -> bool | None:
        return _parts.stochastic(*self.cells)

    @property
    def inner(self) -> dict[str, Any]:
        """The cells by the names of their params."""
        return {f"cell_{i}": cell for i, cell in enumerate(self.cells)}

    def zero_state(self, batch_size: Any, dtype: Any = None) -> Any:
        states = tuple(base.zero_state(cell, batch_size, dtype) for cell in self.cells)
        return states if self.state_is_tuple else jnp.concatenate(states, axis=-1)

    def init(self, key: jax.Array, input_size: Any, dtype: Any = None) -> dict[str, Any]:
        params, size = {}, input_size
        for (name, cell), k in zip(self.inner.items(), split(key, len(self.cells)), strict=True):
            params[name] = base.init(cell, k, size, dtype)
            size = cell.output_size
        return params

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[Any, Any]:
        if rng is None:
            no_rng_needed(self)
        check_state(self, state)
        only(self, params, self.inner)
        states, output, new_states = self._states(state), inputs, []
        for i, (name, cell) in enumerate(self.inner.items()):
            output, new_state = call(cell, params[name], output, states[i], rng and rng.child(i))
            new_states.append(new_state)
        return output, tuple(new_states) if self.state_is_tuple else jnp.concatenate(new_states, axis=-1)

    def _states(self, state: Any) -> Any:
        """One state a cell."""
        if self.state_is_tuple:
            if not isinstance(state, tuple | list) or len(state) != len(self.cells):
                got = f"{len(state)} entries" if isinstance(state, tuple | list) else f"a {type(state).__name__}"
                raise TypeError(
                    f"`{self}` takes its state as a tuple with one entry a cell, {len(self.cells)} in all; got {got}. "
                    "`cell.zero_state(batch_size)` makes one."
                )
            return state
        if jnp.ndim(state) == 0 or jnp.shape(state)[-1] != self.state_size:
            raise ValueError(
                f"`{self}` keeps its state in one array of {self.state_size} features; got shape {jnp.shape(state)}."
            )
        ends, total = [], 0
        for cell in self.cells[:-1]:
            total += cell.state_size
            ends.append(total)
        return jnp.split(state, ends, axis=-1)

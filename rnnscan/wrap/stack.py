"""Cells on top of each other, each reading the output of the one below."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from .._errors import CarryError, ParamsError
from .._inputs import check_key
from .._tree import kind
from .._types import Rng, call, name_of, settle
from . import _parts
from .dropout import drop


@dataclass(frozen=True, init=False, repr=False)
class Stack:
    """`y^1_t = cell_1(x_t)`, `y^i_t = cell_i(y^{i-1}_t)`, `y_t = y^n_t`: `Stack(LSTM(3, 8), GRU(8, 5), dropout=0.1)`.

    Cells may differ in kind and size; `Stack([a, b])` is `Stack(a, b)`.
    Params and carry are tuples, one entry a cell, also for a stack of one.

    Main arguments
      `cells`: from the bottom up, at least one; each one's `out_size` is the next one's `in_size`.
    Other arguments
      `dropout`: rate in [0, 1] of the dropout between cells, new masks each step; not after the last cell, as in torch
      (`Dropout(Stack(...), output=...)` does that) and not on any state. A stack of one cell draws nothing.

    Raises ValueError for no cells, for neighbours whose known sizes differ and for a rate outside [0, 1]; TypeError for
    what is no cell, and for a call without `rng` where a part draws random numbers.

    >>> import jax, jax.numpy as jnp
    >>> import rnnscan as rs
    >>> stack = Stack(rs.cells.LSTM(2, 8), rs.cells.GRU(8, 5))
    >>> lstm, gru = stack.init(jax.random.key(0))
    >>> ((h, c), h_gru), ys = rs.scan(stack, (lstm, gru), None, jnp.ones((7, 3, 2)))
    >>> h.shape, h_gru.shape, ys.shape
    ((3, 8), (3, 5), (7, 3, 5))
    """

    cells: tuple[Any, ...]
    dropout: float = 0.0
    noise_off: ClassVar[dict[str, Any]] = {"dropout": 0.0}

    def __init__(self, *cells: Any, dropout: float = 0.0) -> None:
        if len(cells) == 1 and isinstance(cells[0], list | tuple):
            (cells,) = cells
        object.__setattr__(self, "cells", tuple(_parts.check_cell("Stack", cell) for cell in cells))
        object.__setattr__(self, "dropout", dropout)
        settle(self, dropout=lambda value: _parts.rate("dropout", value))
        if not self.cells:
            raise ValueError("`Stack` needs at least one cell; got none. Write `Stack(LSTM(3, 8), GRU(8, 5))`.")
        for i, (below, above) in enumerate(zip(self.cells, self.cells[1:], strict=False)):
            out_size, in_size = getattr(below, "out_size", None), getattr(above, "in_size", None)
            if out_size is not None and in_size is not None and out_size != in_size:
                raise ValueError(
                    f"`Stack` feeds cell {i}, `{name_of(below)}`, with output of size {out_size}, into cell {i + 1}, "
                    f"`{name_of(above)}`, with input of size {in_size}. Make both sizes equal, "
                    f"or write `Project({name_of(below)}, {in_size})`."
                )

    def __repr__(self) -> str:
        dropout = [f"dropout={self.dropout}"] if self.dropout else []
        return f"Stack({', '.join([*map(name_of, self.cells), *dropout])})"

    @property
    def in_size(self) -> int | None:
        return getattr(self.cells[0], "in_size", None)

    @property
    def out_size(self) -> int | None:
        return getattr(self.cells[-1], "out_size", None)

    @property
    def x_ndim(self) -> int:
        return getattr(self.cells[0], "x_ndim", 1)

    @property
    def float_input(self) -> bool:
        return getattr(self.cells[0], "float_input", False)

    @property
    def recurrent(self) -> tuple[Any, ...]:
        return tuple(getattr(cell, "recurrent", True) for cell in self.cells)

    @property
    def bounded(self) -> tuple[Any, ...]:
        return tuple(getattr(cell, "bounded", False) for cell in self.cells)

    @property
    def stochastic(self) -> bool | None:
        return _parts.stochastic(*self.cells, noise=self.dropout > 0 and len(self.cells) > 1)

    def init(self, key: jax.Array, dtype: Any = None) -> tuple[Any, ...]:
        keys = jax.random.split(check_key(key), len(self.cells))
        return tuple(_parts.init(cell, k, dtype) for cell, k in zip(self.cells, keys, strict=True))

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> tuple[Any, ...]:
        parts = (None,) * len(self.cells) if params is None else self._one_each("params", params, ParamsError)
        return tuple(
            _parts.initial_carry(cell, batch_shape, dtype, part) for cell, part in zip(self.cells, parts, strict=True)
        )

    def __call__(self, params: Any, carry: Any, x_t: Any, rng: Rng | None = None) -> tuple[tuple[Any, ...], Any]:
        params = self._one_each("params", params, ParamsError)
        carry = self._one_each("carry", carry, CarryError)
        if rng is None:
            _parts.no_rng_needed(self)
        carries, y_t = [], x_t
        for i, cell in enumerate(self.cells):
            if rng and self.dropout and i:
                # children 0 ... n-1 belong to the cells; n+i to the noise below cell i
                y_t = drop(f"y of cell {i - 1}", y_t, self.dropout, rng.child(len(self.cells) + i), "step")
            carry_i, y_t = call(cell, params[i], carry[i], y_t, rng and rng.child(i))
            carries.append(carry_i)
        return tuple(carries), y_t

    def _one_each(self, name: str, value: Any, error: type[Exception]) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(self.cells):
            got = f"{len(value)} entries" if isinstance(value, list | tuple) else kind(value)
            raise error(
                f"`{self}` takes {name} as a tuple with one entry a cell, {len(self.cells)} in all; got {got}. "
                f"`{'init(key)' if name == 'params' else 'initial_carry(batch_shape)'}` of the stack makes them."
            )
        return value

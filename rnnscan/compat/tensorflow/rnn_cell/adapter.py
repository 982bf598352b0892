"""A TensorFlow cell as a cell of `rs.scan`: the order of arguments and results changed, nothing else."""

import operator
from dataclasses import dataclass
from typing import Any

import jax

from ...._types import Rng, call, name_of, settle, stochastic
from ....cells import initial
from .base import LSTMStateTuple, check_cell, init, zero_state


@dataclass(frozen=True, repr=False)
class TFCell:
    """`(params, state, inputs) -> (state, output)` from `cell(params, inputs, state) -> (output, state)`.

    Equal for equal cells, so that eager calls of `rs.scan` are compiled once; params and randomness are the cell's.
    `in_size` is needed by `init` only. `x_ndim`: how many axes of `inputs` are features (`rs.scan` takes the ones
    before them for batch axes); 1 unless the cell has an `x_ndim` of its own.
    """

    cell: Any
    in_size: int | None = None
    x_ndim: int = 1

    def __post_init__(self) -> None:
        settle(self, in_size=lambda n: None if n is None else initial.size(n), x_ndim=operator.index)
        check_cell("as_cell", self.cell)

    @property
    def out_size(self) -> int | None:
        size = self.cell.output_size
        return size if isinstance(size, int) else None

    @property
    def float_input(self) -> bool:
        return getattr(self.cell, "float_input", False)

    @property
    def recurrent(self) -> Any:
        """What dropout of the state reaches: everything but the memory `c` of an LSTM."""
        return _recurrent(self.cell.state_size)

    @property
    def stochastic(self) -> bool | None:
        return stochastic(self.cell)

    def init(self, key: jax.Array, dtype: Any = None) -> Any:
        """`cell.init(key, in_size, dtype)`."""
        if self.in_size is None:
            raise TypeError(f"`{self}` does not know its input size; write `as_cell(cell, in_size=n)`.")
        return init(self.cell, key, self.in_size, dtype)

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> Any:
        """`cell.zero_state(batch_shape)` in the dtype asked for, or in that of params."""
        return zero_state(self.cell, tuple(batch_shape), initial.float_dtype(dtype, params))

    def __call__(self, params: Any, state: Any, inputs: Any, rng: Rng | None = None) -> tuple[Any, Any]:
        output, state = call(self.cell, params, inputs, state, rng)
        return state, output

    def __repr__(self) -> str:
        return f"as_cell({name_of(self.cell)})"


def _recurrent(size: Any) -> Any:
    if isinstance(size, LSTMStateTuple):
        return LSTMStateTuple(False, True)
    return jax.tree.map(
        lambda part: _recurrent(part) if isinstance(part, LSTMStateTuple) else True,
        size,
        is_leaf=lambda part: isinstance(part, LSTMStateTuple),
    )


def as_cell(cell: Any, in_size: int | None = None, x_ndim: int | None = None) -> TFCell:
    """The cell as `rs.scan`, `rs.bidirectional`, `rs.wrap` and `rs.explain` take cells.

    >>> import jax, jax.numpy as jnp
    >>> import rnnscan as rs
    >>> from rnnscan.compat.tensorflow import rnn_cell
    >>> cell = rnn_cell.as_cell(rnn_cell.BasicLSTMCell(4), in_size=3)
    >>> state, outputs = rs.scan(cell, cell.init(jax.random.key(0)), None, jnp.ones((5, 2, 3)))
    >>> print(outputs.shape, state.c.shape)
    (5, 2, 4) (2, 4)
    """
    return TFCell(cell, in_size, getattr(cell, "x_ndim", 1) if x_ndim is None else x_ndim)

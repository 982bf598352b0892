"""A cell whose input is added to its output."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .._tree import kind
from .._types import Rng, call, name_of, settle
from . import _parts


@dataclass(frozen=True, repr=False)
class Residual:
    """Adds input to output, `y_t = x_t + cell(x_t)`; params and carry are the cell's.

    Both need one shape: raises ValueError if they differ, where NumPy's rules would broadcast.
    Source: He et al. 2016, arXiv:1512.03385, eq. 1; for stacked LSTMs Wu et al. 2016, arXiv:1609.08144, eq. 6.
    """

    cell: Any
    in_size = _parts.from_cell("in_size")
    out_size = _parts.from_cell("out_size")
    x_ndim = _parts.from_cell("x_ndim", 1)
    float_input = _parts.from_cell("float_input", False)
    recurrent = _parts.from_cell("recurrent", True)
    bounded = _parts.from_cell("bounded", False)
    __repr__ = _parts.show

    def __post_init__(self) -> None:
        settle(self)
        _parts.check_cell("Residual", self.cell)

    @property
    def stochastic(self) -> bool | None:
        return _parts.stochastic(self.cell)

    def init(self, key: jax.Array, dtype: Any = None) -> Any:
        return _parts.init(self.cell, key, dtype)

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> Any:
        return _parts.initial_carry(self.cell, batch_shape, dtype, params)

    def __call__(self, params: Any, carry: Any, x_t: Any, rng: Rng | None = None) -> tuple[Any, Any]:
        carry, y_t = call(self.cell, params, carry, x_t, rng and rng.child(0))
        for name, value in (("input", x_t), ("output", y_t)):
            if not jax.tree_util.all_leaves([value]):
                raise TypeError(
                    f"`Residual` adds one array to one array; its {name} is {kind(value)}. "
                    "Write the sum in a cell of your own."
                )
        if jnp.shape(y_t) != jnp.shape(x_t):
            features = jnp.shape(x_t)[-1] if jnp.ndim(x_t) else 1
            raise ValueError(
                f"`Residual` adds input to output, so both need one shape; got input {jnp.shape(x_t)}, output "
                f"{jnp.shape(y_t)}. Write `Residual(Project({name_of(self.cell)}, {features}))`."
            )
        return carry, x_t + y_t

"""A cell with a linear layer on its output."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .._inputs import check_key
from .._types import Rng, call, name_of, settle
from ..cells import initial
from . import _parts


@dataclass(frozen=True, repr=False)
class Project:
    """`y_t = y'_t w_y + b_y`, where `y'_t` is the cell's output; the carry is the cell's.

    Shapes: `y' (..., cell.out_size)`, `y (..., out_size)`.
    Params: `{"cell": the cell's, "w_y": (cell.out_size, out_size), "b_y": (out_size,)}`, without `b_y` if not `bias`.
    The projection is not fed back; it is Elman's `y = W_hy h + b_y`, TF1's `OutputProjectionWrapper`, not torch's
    `proj_size`.

    Main arguments
      `cell`, `out_size`: what is wrapped, and the features of `y`.
    Other arguments
      `bias`: whether `b_y` is there (default True).

    `init` draws `w_y` LeCun normal and sets `b_y` to zero; it raises TypeError if the cell does not say its `out_size`.
    """

    cell: Any
    out_size: int
    bias: bool = True
    in_size = _parts.from_cell("in_size")
    x_ndim = _parts.from_cell("x_ndim", 1)
    float_input = _parts.from_cell("float_input", False)
    recurrent = _parts.from_cell("recurrent", True)
    bounded = _parts.from_cell("bounded", False)
    __repr__ = _parts.show

    def __post_init__(self) -> None:
        settle(self, out_size=initial.size, bias=bool)
        _parts.check_cell("Project", self.cell)

    @property
    def stochastic(self) -> bool | None:
        return _parts.stochastic(self.cell)

    def init(self, key: jax.Array, dtype: Any = None) -> dict[str, Any]:
        inner_size = getattr(self.cell, "out_size", None)
        if inner_size is None:
            raise TypeError(
                f"`Project` needs to know how many features `{name_of(self.cell)}` puts out to make `w_y`. "
                f"Write `rs.cell({name_of(self.cell)}, out_size=..., init=...)`, or make params yourself."
            )
        key_cell, key_y = jax.random.split(check_key(key))
        params = {
            "cell": _parts.init(self.cell, key_cell, dtype),
            "w_y": initial.input_weights(key_y, inner_size, self.out_size, initial.float_dtype(dtype)),
        }
        return params | {"b_y": jnp.zeros(self.out_size, initial.float_dtype(dtype))} if self.bias else params

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> Any:
        return _parts.initial_carry(self.cell, batch_shape, dtype, None if params is None else params["cell"])

    def __call__(self, params: Any, carry: Any, x_t: Any, rng: Rng | None = None) -> tuple[Any, jax.Array]:
        carry, y_t = call(self.cell, params["cell"], carry, x_t, rng and rng.child(0))
        y_t = y_t @ params["w_y"]
        return carry, y_t + params["b_y"] if self.bias else y_t

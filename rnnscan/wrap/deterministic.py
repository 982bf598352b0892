"""Evaluation: the same cell and params with the randomness switched off."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from .._types import name_of, rng_use
from . import _parts


def deterministic(cell: Any) -> Any:
    """The same cell, for the same params and carry, that draws nothing and needs no key.

    Goes through every dataclass whose fields hold cells or tuples of cells, and gives each field named in a
    wrapper's `noise_off` the value there (`Dropout`: all rates 0). A cell of your own joins in with a class attribute
    `noise_off = {"rate": 0.0}`. A cell without noise comes back as it is. One that may take `rng`, or not, is
    never given any.

    Raises TypeError for a function that needs `rng`: only its author knows what it does without.

    >>> from rnnscan.cells import LSTM
    >>> from rnnscan.wrap import Dropout, Residual
    >>> deterministic(Residual(Dropout(LSTM(3, 3), state=0.2))) == Residual(Dropout(LSTM(3, 3)))
    True
    """
    quiet = _switched_off(cell)
    use = rng_use(quiet)
    if use == "required":
        raise TypeError(
            f"`deterministic` switches off wrappers such as `Dropout`, but `{name_of(quiet)}` still needs `rng`: a "
            "function that draws random numbers has to say itself what it does without. Give its `rng` a default, "
            "`def step(params, carry, x, rng=None)`, and leave the noise out where it is None."
        )
    return _WithoutRng(quiet) if use == "optional" else quiet


def _switched_off(value: Any) -> Any:
    """`value` with its noise off if it is a cell made as a dataclass, or a tuple that holds some; else itself."""
    if isinstance(value, tuple) and type(value) is tuple:
        parts = tuple(map(_switched_off, value))
        return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    if not dataclasses.is_dataclass(value) or isinstance(value, type) or not callable(value):
        return value
    changes = {name: off for name, off in getattr(value, "noise_off", {}).items() if getattr(value, name) != off}
    for field in dataclasses.fields(value):
        old = getattr(value, field.name)
        new = _switched_off(old)
        if new is not old:
            changes[field.name] = new
    if not changes:
        return value
    quiet = copy.copy(value)  # not `dataclasses.replace`: a constructor such as Stack's takes other arguments
    for name, new in changes.items():
        object.__setattr__(quiet, name, new)
    return quiet


@dataclass(frozen=True)
class _WithoutRng:
    """A cell that may take `rng`, called without it."""

    cell: Any
    stochastic: ClassVar[bool] = False
    in_size = _parts.from_cell("in_size")
    out_size = _parts.from_cell("out_size")
    x_ndim = _parts.from_cell("x_ndim", 1)
    float_input = _parts.from_cell("float_input", False)
    recurrent = _parts.from_cell("recurrent", True)
    bounded = _parts.from_cell("bounded", False)

    def init(self, key: jax.Array, dtype: Any = None) -> Any:
        return _parts.init(self.cell, key, dtype)

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> Any:
        return _parts.initial_carry(self.cell, batch_shape, dtype, params)

    def __call__(self, params: Any, carry: Any, x_t: Any) -> tuple[Any, Any]:
        return self.cell(params, carry, x_t)

    def __repr__(self) -> str:
        return f"deterministic({name_of(self.cell)})"

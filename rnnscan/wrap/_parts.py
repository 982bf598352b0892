"""What every wrapper does with the cells inside it: check them, forward their settings, find out who needs `rng`."""

import dataclasses
import numbers
from typing import Any

from .._types import check_callable, name_of, rng_use
from .._types import stochastic as stochastic


def check_cell(wrapper: str, cell: Any) -> Any:
    """The cell itself if it can be called as one; else TypeError."""
    check_callable(wrapper, cell, place="")
    return cell


def rate(name: str, value: Any) -> float:
    """A probability as a float in [0, 1]."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` is the share that is dropped, a number in [0, 1]; got {value!r}.")
    share = float(value)
    if not 0 <= share <= 1:  # false for NaN too
        raise ValueError(f"`{name}` is the share that is dropped and lies in [0, 1]; got {value}.")
    return share


def from_cell(name: str, default: Any = None) -> Any:
    """A property that reads the wrapped cell's setting `name`; `default` for a bare function, which has none."""
    return property(lambda self: getattr(self.cell, name, default), doc=f"The wrapped cell's `{name}`.")


def show(wrapper: Any) -> str:
    """A wrapper as one writes it: the cell's name, then the fields that differ from their defaults."""
    shown = [name_of(wrapper.cell)]
    for field in dataclasses.fields(wrapper)[1:]:
        value = getattr(wrapper, field.name)
        if value != field.default:
            shown.append(f"{field.name}={value!r}")
    return f"{type(wrapper).__name__}({', '.join(shown)})"


def init(cell: Any, key: Any, dtype: Any) -> Any:
    """The cell's params; TypeError for a bare function, which does not know them."""
    if not hasattr(cell, "init"):
        raise TypeError(
            f"`{name_of(cell)}` is a function and has no `init`. Write "
            f"`rs.cell({name_of(cell)}, init=lambda key: params, ...)`, or pass params of your own to scan."
        )
    return cell.init(key, dtype)


def initial_carry(cell: Any, batch_shape: Any, dtype: Any, params: Any) -> Any:
    """The cell's first carry; TypeError for a bare function, which may keep any state or none."""
    if not hasattr(cell, "initial_carry"):
        raise TypeError(
            f"`{name_of(cell)}` is a function and has no `initial_carry`. Write `rs.cell({name_of(cell)}, "
            "initial_carry=lambda batch_shape: ...)`, with `None` after the colon if it keeps no state, or pass the "
            "first carry to scan."
        )
    return cell.initial_carry(batch_shape, dtype, params)


def no_rng_needed(wrapper: Any) -> None:
    """TypeError if a wrapper that needs `rng` was called without."""
    if rng_use(wrapper) == "required":
        raise TypeError(
            f"`{wrapper}` draws random numbers and was called without `rng`. Give `scan` a `key`, or run "
            "`rs.wrap.deterministic(cell)`, the same cell with its noise switched off."
        )

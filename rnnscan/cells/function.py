"""A user's function as a cell of the library: `cell(fn, init=..., initial_carry=...)`."""

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from .._tree import kind
from .._types import Rng, call, name_of, settle, stochastic


@dataclass(frozen=True, repr=False)
class FunctionCell:
    """What `cell` makes: the function `step`, with its sizes, its `init` and its `initial_carry`.

    Two are equal if their functions are the same objects and their sizes are equal.
    """

    step: Callable[..., Any]
    init_params: Callable[..., Any] | None = None
    init_carry: Callable[..., Any] | None = None
    in_size: int | None = None
    out_size: int | None = None
    x_ndim: int = 1
    recurrent: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self, in_size=_size, out_size=_size, x_ndim=operator.index)
        _check_function("step", self.step)
        _check_function("init", self.init_params, "key", ("dtype",))
        _check_function("initial_carry", self.init_carry, "batch_shape", ("dtype", "params"))

    @property
    def stochastic(self) -> bool | None:
        """True or False as the function needs `rng` or takes none; None, which leaves it open, if it may take it."""
        return stochastic(self.step)

    def init(self, key: jax.Array, dtype: Any = None) -> Any:
        """`init(key)` or, if the function takes it, `init(key, dtype=dtype)`.

        Raises TypeError if the cell was made without `init`, or for a dtype that the function cannot take.
        """
        if self.init_params is None:
            raise TypeError(
                f"`{self}` was made without `init`. Write `cell({name_of(self.step)}, init=lambda key: params)`, "
                "or pass params of your own to scan."
            )
        return self.init_params(key, **self._accepted("init", self.init_params, dtype=dtype))

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> Any:
        """`initial_carry(batch_shape)`, with `dtype` and `params` if the function takes them.

        Raises TypeError if the cell was made without `initial_carry`, or for a dtype that the function cannot take.
        """
        if self.init_carry is None:
            raise TypeError(
                f"`{self}` was made without `initial_carry`. Write `cell({name_of(self.step)}, initial_carry=lambda "
                "batch_shape: jnp.zeros((*batch_shape, n)))`, or pass the first carry to scan."
            )
        options = self._accepted("initial_carry", self.init_carry, dtype=dtype, params=params)
        return self.init_carry(tuple(batch_shape), **options)

    def __call__(self, params: Any, carry: Any, x: Any, rng: Rng | None = None) -> tuple[Any, Any]:
        return call(self.step, params, carry, x, rng)

    def __repr__(self) -> str:
        sizes = [("in_size", self.in_size, None), ("out_size", self.out_size, None), ("x_ndim", self.x_ndim, 1)]
        shown = [f"{name}={value}" for name, value, default in sizes if value != default]
        return f"cell({', '.join([name_of(self.step), *shown])})"

    def _accepted(self, name: str, fn: Callable[..., Any], **options: Any) -> dict[str, Any]:
        """Those options that `fn` takes; its own defaults stand where none was asked for."""
        parameters = _parameters(fn)
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        accepted = {}
        for option, value in options.items():
            if option in parameters or takes_all:
                required = option in parameters and parameters[option].default is inspect.Parameter.empty
                if value is not None or required:
                    accepted[option] = value
            elif option == "dtype" and value is not None:
                raise TypeError(
                    f"`{self}` was asked for dtype {value!r}, but its `{name}` takes no `dtype`. Give the function "
                    f"one, `def {name}({next(iter(parameters), 'key')}, dtype=None)`, or leave `dtype` out."
                )
        return accepted


def cell(
    fn: Callable[..., Any] | None = None,
    *,
    init: Callable[..., Any] | None = None,
    initial_carry: Callable[..., Any] | None = None,
    in_size: int | None = None,
    out_size: int | None = None,
    x_ndim: int = 1,
) -> Any:
    """A cell of the library from a function `(params, carry, x) -> (carry, y)`, or with a fourth argument `rng`.

    Main arguments
      `fn`: the step. Left out, `cell(...)` is a decorator: `@cell(initial_carry=...)`.
      `init`: `init(key)` or `init(key, dtype)` -> params.
      `initial_carry`: `initial_carry(batch_shape)` -> carry; it may take `dtype` and `params` by these names as well.
    Other arguments
      `in_size`, `out_size`: features of `x` and `y`, None if unknown; `Stack` and `Project` read them.
      `x_ndim`: how many axes of `x` are features (1: vectors; 0: numbers); the axes before them are batch axes.

    The cell takes `rng` exactly as the function does: needs it, may take it, or takes none.
    Raises TypeError for arguments that are not functions, or functions that need arguments they will not be given.

    >>> import jax.numpy as jnp
    >>> @cell(init=lambda key: {"decay": jnp.asarray(0.5)}, initial_carry=jnp.zeros, x_ndim=0)
    ... def leaky_sum(params, s, x):
    ...     s = params["decay"] * s + x
    ...     return s, s
    >>> leaky_sum
    cell(leaky_sum, x_ndim=0)
    >>> leaky_sum({"decay": 0.5}, 4.0, 1.0)
    (3.0, 3.0)
    """
    if fn is None:
        return lambda function: FunctionCell(function, init, initial_carry, in_size, out_size, x_ndim)
    return FunctionCell(fn, init, initial_carry, in_size, out_size, x_ndim)


def _size(value: Any) -> int | None:
    return None if value is None else operator.index(value)


def _parameters(fn: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(fn).parameters)
    except (TypeError, ValueError):  # some builtins have no signature to read
        return {}


def _check_function(name: str, fn: Any, first: str = "", known: tuple[str, ...] = ()) -> None:
    """`fn` is callable and, where `first` names its one certain argument, needs nothing else but `known`."""
    if fn is None and name != "step":
        return
    if not callable(fn):
        raise TypeError(
            f"`cell` takes functions; `{name}` is {kind(fn)}. "
            + (f"Write `{name}=lambda {first}: ...`." if first else "Write `cell(step, init=..., initial_carry=...)`.")
        )
    if not first:
        return
    parameters = list(_parameters(fn).values())
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    strangers = [p.name for p in needed if p not in by_place[:1] and p.name not in known]
    if strangers or (not by_place and inspect.isfunction(fn)):
        raise TypeError(
            f"`{name}` is called as `{name}({first})`, with {' and '.join(f'`{k}`' for k in known)} if it takes them "
            f"by name; got `{name}{inspect.signature(fn)}`. Write `{name}=lambda {first}: ...`."
        )

"""Explicit Runge-Kutta methods as cells: one step of the integrator is one step of the recurrence.

An integrator with a fixed step is a recurrence, so scan runs it, differentiates it and feeds it inputs. For adaptive
steps or stiff equations use diffrax.
"""

import math
import numbers
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._tree import describe, kind, named_leaves
from .._types import name_of, settle, takes
from . import tableau as tables


@dataclass(frozen=True, repr=False)
class RungeKutta:
    """One step of an explicit Runge-Kutta method for `dy/dt = field(params, t, y, u)`; see `Euler` for the arguments.

    Step: `(params, (k, y), u) -> ((k + 1, y'), y')` with `y` at time `t0 + k dt` and `y'` at `t0 + (k + 1) dt`; for
    `dt=None`: `(params, (t, y), (dt, u)) -> ((t + dt, y'), y')`. Made by `Euler`, `Midpoint`, `Heun`, `RK4`; a method
    of your own is `RungeKutta(Tableau(...), field, dt)`.
    """

    tableau: tables.Tableau
    field: Callable[[Any, Any, Any, Any], Any]
    dt: float | None
    t0: float = 0.0
    in_size: ClassVar[None] = None
    out_size: ClassVar[None] = None
    x_ndim: ClassVar[None] = None  # only the field knows what u looks like
    recurrent: ClassVar[tuple[bool, bool]] = (False, True)  # the clock is nothing that dropout may touch

    def __post_init__(self) -> None:
        if not isinstance(self.tableau, tables.Tableau):
            raise TypeError(f"`RungeKutta` takes a `Tableau` first; got {self.tableau!r}. Write `RK4(field, dt)`.")
        if not callable(self.field):
            raise TypeError(
                f"`{self.tableau.name}` takes `field(params, t, y, u) -> dy/dt` first; got {kind(self.field)}."
            )
        settle(self, dt=_step_size, t0=lambda value: _finite("t0", value))

    def __repr__(self) -> str:
        return f"{self.tableau.name}({name_of(self.field)}, dt={self.dt}, t0={self.t0})"

    def init(self, key: Any, dtype: Any = None) -> Any:
        """Raises TypeError: only the field's author knows its params."""
        del key, dtype
        raise TypeError(
            f"`{self}` has the params that `{name_of(self.field)}` reads, which it cannot make up. "
            "Pass your own to scan; () if the field reads none."
        )

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> Any:
        """Raises TypeError: an integration starts from a value."""
        del batch_shape, dtype, params
        raise TypeError(
            f"`{self}` integrates from an initial value, which it cannot make up. "
            "Pass `carry=cell.start(y0)`, or `cell.start(y0, batch_shape)`, to scan."
        )

    def start(self, y0: Any, batch_shape: Any = ()) -> tuple[jax.Array, Any]:
        """The carry at `t0`: `(k, y)` with `k = 0`, for `dt=None` `(t, y)` with `t = t0`.

        `k` (int32) and `t` have shape `batch_shape`. A leaf of `y0` whose first axes are `batch_shape` already is taken
        as it is; any other is broadcast to `(*batch_shape, *leaf.shape)`. Integers become JAX's default float, since
        a solution is not made of integers. `t` has the widest float dtype in `y0`, at least float32.
        """
        batch_shape = tuple(map(operator.index, batch_shape))

        def to_batch(leaf):
            dtype = jnp.result_type(leaf)
            leaf = jnp.asarray(leaf, dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float))
            if leaf.shape[: len(batch_shape)] == batch_shape:
                return leaf
            return jnp.broadcast_to(leaf, (*batch_shape, *leaf.shape))

        y = jax.tree.map(to_batch, y0)
        if self.dt is None:
            return jnp.full(batch_shape, self.t0, _clock_dtype(y)), y
        _clock_dtype(y)
        return jnp.zeros(batch_shape, jnp.int32), y

    def __call__(self, params: Any, carry: Any, x: Any) -> tuple[tuple[Any, Any], Any]:
        clock, y = self._pair("carry", carry, "(t, y)" if self.dt is None else "(k, y)", "cell.start(y0)")
        wide = _clock_dtype(y)
        if self.dt is None:
            dt, u = self._pair("x", x, "(dt, u)", "xs=(dts, us)` or `xs=(dts, None)")
            _check_step(self, clock, dt, wide)
            next_clock, time = clock + dt, lambda c: clock + c * dt
        else:
            self._check_count(clock)
            # t0 + k dt, not t += dt: the rounding error of one product does not grow with k
            steps = jnp.asarray(clock).astype(wide)
            dt, u = self.dt, x
            next_clock, time = clock + 1, lambda c: self.t0 + (steps + c) * self.dt
        narrow = _time_dtype(y)
        slopes: list[Any] = []
        for a, c in zip(self.tableau.a, self.tableau.c, strict=True):
            slopes.append(self._slope(params, time(c).astype(narrow), _advance(y, dt, a, slopes), u))
        y = _advance(y, dt, self.tableau.b, slopes)
        return (next_clock, y), y

    def _slope(self, params: Any, t: Any, y: Any, u: Any) -> Any:
        """`field(params, t, y, u)`, which has to look like y: broadcasting would hide a missing axis."""
        try:
            dy = self.field(params, t, y, u)
        except TypeError as error:
            if not takes(self.field, 4):
                called = f"`{self.tableau.name}` calls its field as `field(params, t, y, u)`, u being the step's x"
                error.add_note(f"{called}; `{name_of(self.field)}` is defined with other arguments.")
            raise
        structure: Any = jax.tree.structure(y)
        own: Any = jax.tree.structure(dy)
        if own != structure:
            raise TypeError(f"`{name_of(self.field)}` returns dy/dt in the structure of y, {structure}; got {own}.")
        for (name, slope), leaf in zip(named_leaves("dy", dy), jax.tree.leaves(y), strict=True):
            if jnp.shape(slope) != jnp.shape(leaf) or not _fits(slope, jnp.result_type(leaf)):
                raise TypeError(
                    f"`{name_of(self.field)}` returns dy/dt in the shape and dtype of y; {name} is "
                    f"{describe(slope)}, y is {describe(leaf)}. `t` has the shape of the batch, {t.shape}: "
                    "write `t[..., None]` to put it beside features."
                )
        return jax.tree.map(lambda slope, leaf: jnp.asarray(slope, jnp.result_type(leaf)), dy, y)

    def _pair(self, name: str, value: Any, form: str, advice: str) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise TypeError(f"`{self}` takes {name} as {form}; got {_kind(value)}. Write `{advice}`.")
        return value

    def _check_count(self, k: Any) -> None:
        if not jnp.issubdtype(jnp.result_type(k), jnp.integer):
            raise TypeError(
                f"`{self}` carries (k, y), k counting steps; got k of type {jnp.result_type(k)}. "
                "Write `carry=cell.start(y0)`."
            )


def _kind(value: Any) -> str:
    return f"one array {describe(value)}" if hasattr(value, "shape") else kind(value)


def Euler(field: Callable[[Any, Any, Any, Any], Any], dt: float | None, t0: float = 0.0) -> RungeKutta:
    r"""Euler's method, order 1: `y(t + dt) = y + dt field(t, y)`.

        0 |
        --+---
          | 1

    Main arguments
      `field`: `field(params, t, y, u) -> dy/dt`, in the structure, shapes and dtypes of `y`; `y` is any pytree of
      floats, `t` has the shape of the batch, `()` without one, and y's float dtype; `u` is the step's x, None if none.
      `dt`: the step in units of t; negative integrates backwards. None: each step's x is `(dt, u)`, dt of
      the batch's shape or `()`.
    Other arguments
      `t0`: the time of the initial value.

    Carry: `(k, y)` from `.start(y0, batch_shape=())`; the field gets `t0 + k dt`, so time does not drift. With
    `dt=None` it is `(t, y)`, t the sum of the steps. Output: `y` at the end of the step. `u` is constant over a step.
    Raises ValueError for a `dt` that is 0 or not finite, TypeError for arrays (for a `dt` that is
    learned or varies, use `dt=None`) and for a field whose result does not look like y.
    Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (2nd ed.), section II.1.

    >>> import jax.numpy as jnp
    >>> decay = Euler(lambda params, t, y, u: -params * y, dt=0.5)
    >>> carry, y = decay(1.0, decay.start(jnp.asarray([4.0, 8.0])), None)
    >>> print(carry[0], y)
    1 [2. 4.]
    """
    return RungeKutta(tables.EULER, field, dt, t0)


def Midpoint(field: Callable[[Any, Any, Any, Any], Any], dt: float | None, t0: float = 0.0) -> RungeKutta:
    r"""The midpoint method of Runge, order 2: `y(t + dt) = y + dt field(t + dt/2, y + dt/2 field(t, y))`.

         0  |
        1/2 | 1/2
        ----+--------
            |  0   1

    Arguments (`field`, `dt`, `t0`), carry and errors as in `Euler`.
    Source: Runge 1895; Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (2nd ed.), section II.1.
    """
    return RungeKutta(tables.MIDPOINT, field, dt, t0)


def Heun(field: Callable[[Any, Any, Any, Any], Any], dt: float | None, t0: float = 0.0) -> RungeKutta:
    r"""Heun's method, order 2, the explicit trapezoidal rule: the mean of the slopes at both ends of an Euler step.

        0 |
        1 |  1
        --+---------
          | 1/2 1/2

    (Some books call a method of order 3 by this name.) Arguments (`field`, `dt`, `t0`), carry and errors as in `Euler`.
    Source: Heun 1900; Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (2nd ed.), section II.1.
    """
    return RungeKutta(tables.HEUN, field, dt, t0)


def RK4(field: Callable[[Any, Any, Any, Any], Any], dt: float | None, t0: float = 0.0) -> RungeKutta:
    r"""The classical Runge-Kutta method, order 4.

         0  |
        1/2 | 1/2
        1/2 |  0  1/2
         1  |  0   0   1
        ----+----------------
            | 1/6 1/3 1/3 1/6

    Arguments (`field`, `dt`, `t0`), carry and errors as in `Euler`.
    Source: Kutta 1901; Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (2nd ed.), section II.1.
    """
    return RungeKutta(tables.RK4, field, dt, t0)


def _finite(name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` is a number; got {kind(value)}.")
    if not math.isfinite(value):
        raise ValueError(f"`{name}` is finite; got {value}.")
    return float(value)


def _step_size(value: Any) -> float | None:
    if value is None:
        return None
    if value == 0:
        raise ValueError("`dt` is the length of a step, positive or, backwards in time, negative; got 0.")
    return _finite("dt", value)


def _time_dtype(y: Any) -> Any:
    """The widest real floating dtype among y's leaves (of a complex leaf: of its parts)."""
    dtypes = []
    for name, leaf in named_leaves("y", y):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise TypeError(
                f"an integrator's y is floating; {name} is {describe(leaf)}. "
                "Write `carry=cell.start(y0)`, which converts."
            )
        dtypes.append(jnp.finfo(jnp.result_type(leaf)).dtype)
    if not dtypes:
        raise TypeError("an integrator's y is a pytree of arrays; got one without any. Write `cell.start(y0)`.")
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)


def _clock_dtype(y: Any) -> Any:
    """The dtype that time is computed in: half precision cannot count to 300."""
    dtype = _time_dtype(y)
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def _fits(slope: Any, dtype: Any) -> bool:
    """Whether a slope becomes y's dtype without losing digits; a weakly typed one, as 0.0, has none to lose."""
    own = jnp.result_type(slope)
    if jnp.issubdtype(own, jnp.complexfloating) and not jnp.issubdtype(dtype, jnp.complexfloating):
        return False
    return jax.typeof(slope).weak_type or np.can_cast(own, dtype)


def _check_step(cell: RungeKutta, t: Any, dt: Any, dtype: Any) -> None:
    if isinstance(dt, float):
        return
    if jnp.result_type(dt) != dtype or jnp.shape(dt) not in ((), jnp.shape(t)):
        raise TypeError(
            f"`{cell}` takes x = (dt, u), dt a {jnp.dtype(dtype).name} as t is, of the batch's shape {jnp.shape(t)} "
            f"or (); got {describe(jnp.asarray(dt))}. A batch is given as `cell.start(y0, batch_shape)`."
        )


def _advance(y: Any, dt: Any, weights: tuple[float, ...], slopes: list[Any]) -> Any:
    """`y + dt sum_i weights_i slopes_i`, leaf by leaf; a weight of 0 costs nothing."""
    terms = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
    if not terms:
        return y

    def move(leaf, *slopes_of_leaf):
        total = sum(weight * slope for (weight, _), slope in zip(terms, slopes_of_leaf, strict=True))
        return leaf + _beside(dt, leaf) * total

    return jax.tree.map(move, y, *(slope for _, slope in terms))


def _beside(dt: Any, leaf: jax.Array) -> Any:
    """dt with axes of 1 added so that its batch axes meet the leaf's; a Python number stays one."""
    if isinstance(dt, float):
        return dt
    dt = jnp.asarray(dt)
    return dt.astype(leaf.dtype).reshape(dt.shape + (1,) * (leaf.ndim - dt.ndim))

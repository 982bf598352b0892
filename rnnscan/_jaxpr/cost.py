"""How much arithmetic a traced function holds, roughly: products counted exactly, all else one operation an element."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def flops(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of one call, from the jaxpr; a loop of unknown length counts once."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        called = list(inner_jaxprs(equation.params))
        if called:
            total += equation.params.get("length", 1) * sum(_count(part) for part in called)
        elif equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            channels = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * kernel.size / max(channels, 1)
        else:
            total += sum(getattr(out.aval, "size", 1) for out in equation.outvars)
    return total


def inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part

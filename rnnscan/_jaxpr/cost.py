"""How much arithmetic a traced function holds, roughly: products counted exactly, all else one operation an element."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


Shape = tuple[int, ...]

PRODUCTS = ("dot_general", "conv_general_dilated")


def flops(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of one call, from the jaxpr; a loop of unknown length counts once."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        called = list(inner_jaxprs(equation.params))
        if called:
            total += equation.params.get("length", 1) * sum(_count(part) for part in called)
        elif equation.primitive.name in PRODUCTS:
            shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars)]
            total += product_flops(equation.primitive.name, equation.params, *shapes)
        else:
            total += sum(getattr(out.aval, "size", 1) for out in equation.outvars)
    return total


def product_flops(name: str, params: dict[str, Any], left: Shape, right: Shape, out: Shape) -> float:
    """Floating-point operations of a product or a convolution of arrays of these shapes."""
    if name == "dot_general":
        ((contracted, _), _) = params["dimension_numbers"]
        return 2.0 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    channels = right[params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(out) * math.prod(right) / max(channels, 1)


def inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part


def is_or_holds(operation: Any, names: tuple[str, ...]) -> bool:
    """Whether an operation, a node with its name and params, is of one of these names, or calls one that is."""
    return operation.name in names or any(_holds(jaxpr, names) for jaxpr in inner_jaxprs(operation.params))


def _holds(jaxpr: Any, names: tuple[str, ...]) -> bool:
    return any(
        equation.primitive.name in names or any(_holds(part, names) for part in inner_jaxprs(equation.params))
        for equation in jaxpr.eqns
    )

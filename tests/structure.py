"""What stands inside the loops of a compiled function: matrix products, carries, and loops inside loops.

The count is of the StableHLO module that `jax.jit(f).lower(...)` hands to the compiler, read op by op through
`Lowered.compiler_ir()`, not of a jaxpr: the jaxpr of a gradient has equations whose results nobody uses, which JAX
drops while lowering, and the function that drops them is private. Nor is it of the compiled program, in which each
backend and release writes a product in its own way.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


PRODUCTS = ("dot", "dot_general", "convolution")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Loop:
    """One `while` of the program: what its body does at each step, without the loops inside it."""

    depth: int  # how many loops are around it
    ops: Counter[str]  # how often each operation stands in the body, functions that it calls included
    carries: tuple[Shape, ...]  # what the body changes: carries, outputs and the counter
    fixed: tuple[Shape, ...]  # what the body only reads: inputs and weights
    inner: tuple["Loop", ...]

    @property
    def products(self) -> int:
        """How many matrix products one step has."""
        return sum(self.ops[name] for name in PRODUCTS)

    def weight_shaped(self, weights: Any) -> list[Shape]:
        """The carries that could be the sum of a matrix's gradient: as many numbers as a matrix of `weights` has."""
        sizes = {leaf.size for leaf in jax.tree.leaves(weights) if leaf.ndim >= 2}
        return [shape for shape in self.carries if int(np.prod(shape)) in sizes]

    def of_length(self, n_steps: int) -> list[Shape]:
        """The carries with time as first axis: what the loop stores for each step."""
        return [shape for shape in self.carries if shape and shape[0] == n_steps]

    def __str__(self) -> str:
        return f"{self.products} products, depth {self.depth}, carries {list(self.carries)}, fixed {list(self.fixed)}"


def loops(function: Callable[..., Any], *args: Any) -> list[Loop]:
    """The outermost loops of `jax.jit(function)`, in the order in which they run."""
    return _Module(jax.jit(function).lower(*args).compiler_ir()).read()[1]


def per_step(function: Callable[..., Any], *args: Any) -> list[Loop]:
    """The innermost loops, in the order in which they run: those that take one step at a time."""

    def innermost(found: tuple[Loop, ...] | list[Loop]) -> Iterator[Loop]:
        for loop in found:
            yield from innermost(loop.inner) if loop.inner else (loop,)

    return list(innermost(loops(function, *args)))


def contents(function: Callable[..., Any], *args: Any) -> tuple[Counter[str], list[Loop]]:
    """How often each operation stands outside the loops, and the loops: all that is compiled, but for the order."""
    ops, found = _Module(jax.jit(function).lower(*args).compiler_ir()).read()
    return Counter({name: n for name, n in ops.items() if not name.startswith("func.")}), found


class _Module:
    """A StableHLO module, read through MLIR's Python objects."""

    def __init__(self, module: Any):
        self.functions = {_text(op.attributes["sym_name"]): op for op in module.body.operations}

    def read(self) -> tuple[Counter[str], list[Loop]]:
        return self._read(self.functions["main"], 0)

    def _read(self, op: Any, depth: int) -> tuple[Counter[str], list[Loop]]:
        """The operations inside one operation, and the loops among them."""
        ops: Counter[str] = Counter()
        found: list[Loop] = []
        for region in op.operation.regions:
            for block in region.blocks:
                for inside in block.operations:
                    name = inside.operation.name
                    if name == "stablehlo.while":
                        found.append(self._loop(inside, depth))
                        continue
                    ops[name.removeprefix("stablehlo.")] += 1
                    called = [inside] if name != "func.call" else [self.functions[_text(inside.attributes["callee"])]]
                    for part in called:
                        more, deeper = self._read(part, depth)
                        ops += more
                        found += deeper
        return ops, found

    def _loop(self, op: Any, depth: int) -> Loop:
        body = op.operation.regions[1]
        (block,) = body.blocks
        *_, last = block.operations
        results = last.operation.operands
        changed = [result != argument for result, argument in zip(results, block.arguments, strict=True)]
        shapes = [tuple(argument.type.shape) for argument in block.arguments]
        ops, inner = self._read(_Regions(body), depth + 1)
        return Loop(
            depth,
            ops,
            tuple(shape for shape, c in zip(shapes, changed, strict=True) if c),
            tuple(shape for shape, c in zip(shapes, changed, strict=True) if not c),
            tuple(inner),
        )


class _Regions:
    """A single region, read as an operation that has only this one."""

    def __init__(self, region: Any):
        self.operation = self
        self.regions = [region]


def _text(attribute: Any) -> str:
    return attribute.value


def scan_equations(jaxpr: Any) -> list[Any]:
    """The equations of a jaxpr with those of the functions it calls by `jit` in their place."""
    found = []
    for equation in jaxpr.eqns:
        called = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
        found += [equation] if called is None else scan_equations(called.jaxpr)
    return found


def printed(equation: Any) -> str:
    """An equation's primitive and parameters as text; a jaxpr names its variables in order of appearance."""
    params = {name: str(value) for name, value in sorted(equation.params.items()) if not name.startswith("_")}
    return "\n".join([equation.primitive.name, *(f"{name}={value}" for name, value in params.items())])

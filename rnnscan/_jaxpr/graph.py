"""A traced step as a graph of operations that rewrites can take apart and put together again.

A jaxpr lists equations in order; here each `Value` knows the `Node` that makes it, and a node knows its inputs, so that
a rewrite builds new nodes beside the old ones and what nobody asks for is never computed. Calls of `jax.jit` are
opened; calls with rules of their own (`custom_jvp`, `custom_vjp`, `checkpoint`, `cond`, inner scans) stay whole.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from .cost import inner_jaxprs
from .versions import vary_alike, vary_over


class Context(NamedTuple):
    """Under which of JAX's settings an operation was traced, and where it stands in the user's code."""

    settings: Any
    source: Any


@dataclass(eq=False)
class Node:
    """One operation: `primitive` applied to `inputs`; an input of the whole graph has no primitive."""

    primitive: Any
    inputs: tuple["Value", ...]
    params: dict[str, Any]
    avals: tuple[Any, ...]
    context: Any = None  # the settings under which the user's code was traced, and where it stands
    effects: Any = frozenset()
    outputs: tuple["Value", ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.outputs = tuple(Value(self, i) for i in range(len(self.avals)))

    @property
    def name(self) -> str:
        return "input" if self.primitive is None else str(self.primitive.name)

    @property
    def done(self) -> "Value":
        """Not an output but that the operation has happened, to ask for one that has an effect."""
        return Value(self, -1)


@dataclass(frozen=True)
class Value:
    """Output number `index` of a node."""

    node: Node
    index: int

    @property
    def aval(self) -> Any:
        return self.node.avals[self.index]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.aval.shape)

    @property
    def bytes(self) -> int:
        dtype = self.aval.dtype
        itemsize = 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else np.dtype(dtype).itemsize
        return int(np.prod(self.shape, dtype=np.int64)) * itemsize

    @property
    def is_float(self) -> bool:
        return bool(jax.dtypes.issubdtype(self.aval.dtype, np.inexact))


_LITERAL = "literal"

_SEEN: dict[Any, Any] = {}
_MOST_SEEN = 4096


def _traced(function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    """The jaxpr of a function of these types and numbers; kept for those of `jax.lax`, of which rewrites ask for the
    same few again and again."""
    key = None
    if getattr(function, "__module__", "") == "jax.lax" and not any(np.ndim(g) for g in given if not _is_type(g)):
        kinds = tuple((g.shape, g.dtype) if _is_type(g) else (repr(g), jax.typeof(g)) for g in given)
        key = function, kinds, jax.config.read("jax_enable_x64"), jax.sharding.get_abstract_mesh()
    found = _SEEN.get(key)
    if found is None:
        shapes = [g for g in given if _is_type(g)]

        def run(*args: Any) -> Any:
            rest = iter(args)
            return function(*(next(rest) if _is_type(g) else g for g in given))

        found = jax.make_jaxpr(run)(*shapes)
        if key is not None and len(_SEEN) < _MOST_SEEN:
            _SEEN[key] = found
    return found


def _is_type(given: Any) -> bool:
    return isinstance(given, jax.ShapeDtypeStruct)


def literal(value: Any, aval: Any = None) -> Value:
    """A number written into the graph."""
    return Node(None, (), {_LITERAL: value}, (jax.typeof(value) if aval is None else aval,)).outputs[0]


def is_literal(value: Value) -> bool:
    return value.node.primitive is None and _LITERAL in value.node.params


def number(value: Value) -> Any:
    """What a literal holds; None for any other value."""
    return value.node.params.get(_LITERAL) if value.node.primitive is None else None


def new_inputs(avals: Iterable[Any]) -> list[Value]:
    """Inputs of a graph, of these types."""
    return [Node(None, (), {}, (aval,)).outputs[0] for aval in avals]


class Builder:
    """Makes nodes, and gives the one made before for an operation that is there already."""

    def __init__(self) -> None:
        self.effects: list[Value] = []  # what must happen though no output may be asked for, in the user's order
        self._made: dict[Any, Node] = {}
        self._literals: dict[Any, Value] = {}

    def __call__(self, function: Callable[..., Any], *inputs: Value) -> Value:
        """The value of a function of one result, found by tracing it."""
        return self.all(function, *inputs)[0]

    def all(self, function: Callable[..., Any], *inputs: Value) -> list[Value]:
        """The values of a function of several results."""
        given = tuple(number(v) if is_literal(v) else jax.ShapeDtypeStruct(v.shape, v.aval.dtype) for v in inputs)
        closed = _traced(function, given)
        return self.graph(closed, [v for v in inputs if not is_literal(v)], list(map(self.literal, closed.consts)))

    def again(self, node: Node, *inputs: Value) -> Value:
        """The operation of a node with one output, applied to other inputs."""
        same = all(v.aval == u.aval for v, u in zip(inputs, node.inputs, strict=True))
        avals = node.avals if same else (self(lambda *args: apply(node, args)[0], *inputs).aval,)
        made = self.keep(node.primitive, inputs, node.params, avals, node.context)
        made.context = node.context  # finding the type has made it already, with a place in our code
        return made.outputs[0]

    def keep(
        self, primitive: Any, inputs: tuple[Value, ...], params: dict[str, Any], avals: tuple[Any, ...],
        context: Any = None, effects: Any = frozenset(),
    ) -> Node:  # fmt: skip
        """An operation whose types are known."""
        inputs = tuple(map(self._same_literal, inputs))
        key = None if effects else _key(primitive, inputs, params)
        if key is not None and key in self._made:
            return self._made[key]
        node = Node(primitive, inputs, params, avals, context, effects)
        if key is not None:
            self._made[key] = node
        return node

    def literal(self, value: Any, aval: Any = None) -> Value:
        return self._same_literal(literal(value, aval))

    def _same_literal(self, value: Value) -> Value:
        held = number(value)
        if held is None or np.ndim(held):
            return value
        key = (np.asarray(held).tobytes(), str(np.asarray(held).dtype), str(value.aval))
        return self._literals.setdefault(key, value)

    def graph(self, closed: Any, inputs: Sequence[Value], consts: Sequence[Value]) -> list[Value]:
        """The outputs of a jaxpr as values, with its arguments and its constants given as values."""
        return self._read(closed.jaxpr, [*consts, *inputs])

    def _read(self, jaxpr: Any, inputs: Sequence[Value]) -> list[Value]:
        env: dict[Any, Value] = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))
        read = lambda v: literal(v.val, v.aval) if isinstance(v, core.Literal) else env[v]
        for equation in jaxpr.eqns:
            given = tuple(map(read, equation.invars))
            inner = _called(equation)
            if inner is not None:
                outputs: Sequence[Value] = self._read(inner.jaxpr, [*map(literal, inner.consts), *given])
            else:
                avals = tuple(out.aval for out in equation.outvars)
                context = Context(equation.ctx, equation.source_info)
                node = self.keep(equation.primitive, given, dict(equation.params), avals, context, equation.effects)
                outputs = node.outputs
                if node.effects:
                    self.effects.append(node.done)
            env.update(zip(equation.outvars, outputs, strict=True))
        return [self._same_literal(read(v)) for v in jaxpr.outvars]


def _called(equation: Any) -> Any:
    """The jaxpr of a plain call, which may be opened; None for everything else."""
    if equation.primitive.name not in ("jit", "pjit", "closed_call"):
        return None
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    shardings = [*equation.params.get("in_shardings", ()), *equation.params.get("out_shardings", ())]
    given = any(type(sharding).__name__ != "UnspecifiedValue" for sharding in shardings)
    return None if given or not hasattr(inner, "consts") else inner


def _key(primitive: Any, inputs: tuple[Value, ...], params: dict[str, Any]) -> Any:
    try:
        key = (primitive, inputs, tuple(sorted(params.items())))
        hash(key)
    except TypeError:  # params that cannot be compared: such an operation is never taken for another one
        return None
    return key


def apply(node: Node, args: Sequence[Any]) -> list[Any]:
    """What a node computes from these arrays."""
    if node.name == "pvary":
        return [vary_over(args[0], node.params["axes"])]
    params = node.primitive.get_bind_params(node.params)
    if len(args) > 1 and not any(inner_jaxprs(node.params)):
        args = vary_alike(list(args))
    with nullcontext() if node.context is None else node.context.settings.manager:
        out = node.primitive.bind(*args, **params)
    return list(out) if node.primitive.multiple_results else [out]


def in_order(values: Iterable[Value], stop: Callable[[Value], bool] = lambda value: False) -> list[Node]:
    """The nodes that `values` need, each after those it needs; not looking behind a value where `stop` says so."""
    found: dict[Node, None] = {}
    waiting: list[tuple[Node, bool]] = [(v.node, False) for v in values if not stop(v)][::-1]
    while waiting:
        node, ready = waiting.pop()
        if node in found:
            continue
        if ready:
            found[node] = None
            continue
        waiting.append((node, True))
        waiting.extend((v.node, False) for v in reversed(node.inputs) if v.node not in found and not stop(v))
    return list(found)


Readers = dict[Value, list[Node | None]]


def readers(values: Iterable[Value]) -> Readers:
    """The nodes that read each value on the way to `values`; None for each of these, which somebody outside reads."""
    values = list(values)
    found: Readers = {v: [None] for v in values}
    for node in in_order(values):
        for v in dict.fromkeys(node.inputs):
            found.setdefault(v, []).append(node)
        for v in node.outputs:
            found.setdefault(v, [])
    return found


def evaluate(
    values: Sequence[Value], env: dict[Value, Any], run: Callable[[Node, list[Any]], list[Any]] = apply
) -> list[Any]:
    """The arrays of `values`, given those in `env`, which is extended by all that is computed on the way."""
    for node in in_order(values, lambda value: value in env):
        if node.primitive is None:
            if _LITERAL not in node.params:
                raise KeyError(f"no array for an input of type {node.avals[0]}")
            env[node.outputs[0]] = node.params[_LITERAL]
        else:
            env.update(zip(node.outputs, run(node, [env[v] for v in node.inputs]), strict=True))
            env[node.done] = None
    return [env[v] for v in values]


def rewritten(
    values: Sequence[Value], rule: Callable[[Node, tuple[Value, ...]], Sequence[Value] | None], build: Builder
) -> list[Value]:
    """The values with `rule(node, new inputs)` applied to each node, inputs first; None keeps the operation."""
    new: dict[Value, Value] = {}
    for node in in_order(values):
        if node.primitive is None:
            new[node.outputs[0]] = node.outputs[0]
            continue
        inputs = tuple(new[v] for v in node.inputs)
        outputs = rule(node, inputs)
        if outputs is None:
            made = build.keep(node.primitive, inputs, node.params, node.avals, node.context, node.effects)
            outputs, new[node.done] = made.outputs, made.done
        new.update(zip(node.outputs, outputs, strict=True))
    return [new[v] for v in values]

"""The derivative of one step as a linear graph with few coefficients.

JAX linearises a step equation by equation, with a coefficient for each: `sigmoid` alone brings two. Along a chain of
elementwise operations coefficients multiply, so that one is enough from each product's result to the next product's
operand; sums are kept where a product of coefficients would make more of them (Griewank & Walther, "Evaluating
Derivatives", ch. 9: elimination of the vertices of a linearised graph). What is left is what must be stored.
"""

from collections.abc import Sequence

from jax import lax

from .graph import Builder, Node, Value, in_order, number


Terms = list[tuple[Value | None, Value]]  # coefficient, None being 1, and what it multiplies


def collapse(outputs: Sequence[Value], tangents: Sequence[Value], build: Builder) -> list[Value]:
    """The same linear functions of `tangents`, with the coefficients along each chain multiplied together."""
    linear = set(tangents)
    sums: dict[Value, Terms] = {v: [(None, v)] for v in tangents}
    for node in in_order(outputs, lambda v: v in linear):
        if not any(v in linear for v in node.inputs):
            continue
        linear.update(node.outputs)
        found = _terms(node, linear, sums, build)
        if found is not None:
            sums[node.outputs[0]] = found
            continue
        inputs = tuple(as_one(sums, v, build) if v in linear else v for v in node.inputs)
        made = build.keep(node.primitive, inputs, node.params, node.avals, node.context, node.effects)
        sums.update((old, [(None, new)]) for old, new in zip(node.outputs, made.outputs, strict=True))
    return [as_one(sums, v, build) if v in linear else v for v in outputs]


def _terms(node: Node, linear: set[Value], sums: dict[Value, Terms], build: Builder) -> Terms | None:
    """The result of a sum or of a product with a known factor as terms; None for any other operation."""
    shape = node.outputs[0].shape
    if any(v in linear and v.shape != shape for v in node.inputs):
        return None  # it is broadcast as well
    if node.name in ("add_any", "add", "sub") and all(v in linear for v in node.inputs):
        first, second = (sums[v] for v in node.inputs)
        if node.name == "sub":
            second = [(_negative(c, v, build), v) for c, v in second]
        return _merged([*first, *second], build)
    if node.name == "neg":
        return [(_negative(c, v, build), v) for c, v in _few(sums, node.inputs[0], build)]
    if node.name == "mul" or (node.name == "div" and node.inputs[0] in linear):
        value, factor = node.inputs if node.inputs[0] in linear else node.inputs[::-1]
        return [(_times(node, c, factor, v, build), v) for c, v in _few(sums, value, build)]
    return None


def _few(sums: dict[Value, Terms], value: Value, build: Builder) -> Terms:
    """One term: a sum is made a value of its own, so that a factor of it does not multiply all its coefficients."""
    if len(sums[value]) > 1:
        sums[value] = [(None, as_one(sums, value, build))]
    return sums[value]


def as_one(sums: dict[Value, Terms], value: Value, build: Builder) -> Value:
    """The sum of its terms as one value of the graph."""
    total = None
    for coefficient, v in sums[value]:
        term = v if coefficient is None else build(lax.mul, v, coefficient)
        total = term if total is None else build(lax.add, total, term)
    assert total is not None
    sums[value] = [(None, total)]
    return total


def _merged(terms: Terms, build: Builder) -> Terms:
    """Terms of the same value added up."""
    found: dict[Value, Value | None] = {}
    for coefficient, v in terms:
        if v not in found:
            found[v] = coefficient
            continue
        one = build.literal(v.aval.dtype.type(1))
        found[v] = build(lax.add, found[v] or one, coefficient or one)
    return [(c, v) for v, c in found.items()]


def _negative(coefficient: Value | None, value: Value, build: Builder) -> Value:
    if coefficient is None:
        return build.literal(value.aval.dtype.type(-1))
    held = number(coefficient)
    return build.literal(-held) if held is not None else build(lax.neg, coefficient)


def _times(node: Node, coefficient: Value | None, factor: Value, value: Value, build: Builder) -> Value:
    if node.name == "mul" and coefficient is None:
        return factor
    one = build.literal(value.aval.dtype.type(1))
    return build(lax.mul if node.name == "mul" else lax.div, coefficient or one, factor)

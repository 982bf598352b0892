"""Equations said differently, so that more of a step depends on no carry: equal but for rounding.

* `split_products`: `concat([x, h]) @ w = x @ w_x + h @ w_h`, for any number of parts, on either side of the product.
* `sum_inputs_first`: `(x w + h u) + b = (h u + b) + x w`, so that terms of a kind are summed where they are.
* `cut_early`: `split(a + h u) = split(a) + split(h u)`, so that each gate reads a sequence of its own. XLA's CPU
  backend reads a sequence cut inside the loop element by element, which costs more than the product does. And
  `split(x w + b) = split(x w) + split(b)`, so that the loop can add the bias, which costs a pass over x w outside.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import groupby
from typing import Any

import jax
from jax import lax

from .cost import PRODUCTS, product_flops
from .graph import Builder, Node, Value, in_order, is_literal, rewritten


PARAMS, INPUTS, CARRY = range(3)  # what a value depends on at most

ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy cos cosh
    div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p log2 logistic lt max
    min mul ne neg nextafter not one_minus_square or pow rem round rsqrt select_n sign sin sinh sqrt square
    stop_gradient sub tan tanh xor""".split()
)

CHEAP = frozenset(
    """add and broadcast_in_dim convert_element_type copy eq expand_dims ge gt le lt max min mul ne neg not or reshape
    select_n squeeze stop_gradient sub xor""".split()
)


CHANGE_SHAPE = frozenset(
    """argmax argmin broadcast_in_dim concatenate dynamic_slice expand_dims gather iota pad reduce_and reduce_max
    reduce_min reduce_or reduce_prod reduce_sum reshape rev slice split squeeze transpose""".split()
)
"""With the elementwise ones, the operations that are cheap beside a product and run for many steps as for one."""


Own = Callable[[Node, Value], bool]
"""Whether a value that a node reads, and that depends on the carry, must be in the loop of the node."""


def in_one_loop(values: Sequence[Value]) -> Own:
    """For steps with one loop: every value is of the loop of its readers."""
    del values
    return lambda node, value: True


def depends_on(value: Value, level: dict[Value, int]) -> int:
    """The highest level among the inputs that a value is made of; `level` knows the inputs and is extended."""
    for node in in_order([value], lambda v: v in level):
        found = max((level[v] for v in node.inputs), default=PARAMS)
        level.update(dict.fromkeys((*node.outputs, node.done), found))
    return level[value]


def simplify(
    values: Sequence[Value],
    level: dict[Value, int],
    build: Builder,
    split: bool,
    hoist: bool,
    circles: Callable[[Sequence[Value]], Own] = in_one_loop,
    whole: bool = False,
) -> list[Value]:
    """All the rules in turn: the first for `split`, the others for `hoist`; `circles` looks at what each is given.
    Products of inputs stay `whole`, or are cut before the loop."""
    new = list(values)
    if split:
        own = circles(new)
        new = rewritten(new, lambda node, inputs: split_products(node, inputs, level, build, own), build)
    if hoist:
        for _ in range(2):  # cutting brings sums together that were apart
            new = _sum_inputs_first(new, level, build, circles(new))
            new = _cut_early(new, level, build, circles(new), whole)
    return new


def _rank(value: Value, reader: Node, level: dict[Value, int], own: Own) -> int:
    """The level of a value that a node reads, and one more where it is of the node's own loop."""
    found = depends_on(value, level)
    return found + (found == CARRY and own(reader, value))


def split_products(
    node: Node,
    inputs: tuple[Value, ...],
    level: dict[Value, int],
    build: Builder,
    own: Own,
) -> list[Value] | None:
    """A product with a concatenation, as a sum of products; None where that gains nothing."""
    if node.name != "dot_general":
        return None
    (contracted, batch) = node.params["dimension_numbers"]
    for side in (0, 1):
        joined, other = inputs[side], inputs[1 - side]
        parts, axis = _parts(joined, build)
        if axis is None or axis not in contracted[side] or axis in batch[side]:
            continue
        ranks = [max(INPUTS, _rank(v, node, level, own)) for v in _parts(node.inputs[side])[0]]
        if max(ranks) < CARRY or len(set(ranks)) == 1 or depends_on(other, level) == CARRY:
            continue
        other_axis = contracted[1 - side][list(contracted[side]).index(axis)]
        total, start = None, 0
        for _, group in groupby(zip(ranks, parts, strict=True), lambda pair: pair[0]):
            members = [part for _, part in group]
            part = members[0] if len(members) == 1 else build(partial(_joined, axis), *members)
            stop = start + part.shape[axis]
            piece = _slice(other, other_axis, start, stop, build)
            pair = (part, piece) if side == 0 else (piece, part)
            term = build.again(node, *pair)
            total = term if total is None else build(lax.add, total, term)
            start = stop
        return None if total is None else [total]
    return None


def _joined(axis: int, *parts: Any) -> Any:
    return lax.concatenate(parts, axis)


def _parts(value: Value, build: Builder | None = None) -> tuple[tuple[Value, ...], int | None]:
    """The parts of a concatenation, also of a nested one, and its axis, seen through a conversion of its type, which
    the parts get each for itself where there is something to `build` with."""
    node = value.node
    if node.name == "concatenate":
        axis = node.params["dimension"]
        nested = (_parts(part, build) for part in node.inputs)
        return tuple(
            p for (ps, a), v in zip(nested, node.inputs, strict=True) for p in (ps if a == axis else (v,))
        ), axis
    if node.name == "convert_element_type":
        parts, axis = _parts(node.inputs[0], build)
        return parts if build is None else tuple(build.again(node, part) for part in parts), axis
    return (value,), None


def _slice(value: Value, axis: int, start: int, stop: int, build: Builder) -> Value:
    first = [start if i == axis else 0 for i in range(len(value.shape))]
    last = [stop if i == axis else size for i, size in enumerate(value.shape)]
    return build(lambda x: lax.slice(x, first, last), value)


def _uses(values: Sequence[Value]) -> Counter[Value]:
    uses = Counter(v for node in in_order(values) for v in node.inputs)
    uses.update(values)
    return uses


def _sum_inputs_first(values: Sequence[Value], level: dict[Value, int], build: Builder, own: Own) -> list[Value]:
    """Each chain of sums by what its terms depend on: XLA adds a bias to the loop's product without a pass more."""
    uses = _uses(values)
    inside = {
        v
        for node in in_order(values)
        if node.name == "add"
        for v in node.inputs
        if v.node.name == "add" and uses[v] == 1
    }
    terms_of: dict[Value, list[tuple[Value, Value]]] = {}  # new and old, by the new value of a sum inside a chain

    def rule(node: Node, inputs: tuple[Value, ...]) -> list[Value] | None:
        if node.name != "add":
            return None
        pairs = zip(inputs, node.inputs, strict=True)
        terms = [term for new, old in pairs for term in terms_of.get(new, [(new, old)])]
        ranks = [_rank(old, node, level, own) for _, old in terms]
        if len(terms) > 2 and max(ranks) >= CARRY and len(set(ranks)) > 1:
            groups = [[v for (v, _), r in zip(terms, ranks, strict=True) if r == rank] for rank in sorted(set(ranks))]
            sums = [_sum(group, node, build) for group in groups]
            late = sums.pop()
            new = _sum([late, *sums], node, build)
        else:
            new = build.keep(node.primitive, inputs, node.params, node.avals, node.context).outputs[0]
        if node.outputs[0] in inside:
            terms_of[new] = terms
        return [new]

    return rewritten(values, rule, build)


def _sum(terms: Sequence[Value], like: Node, build: Builder) -> Value:
    total = terms[0]
    for term in terms[1:]:
        total = build.again(like, total, term)
    return total


def _cut_early(values: Sequence[Value], level: dict[Value, int], build: Builder, own: Own, whole: bool) -> list[Value]:
    """Each cut of a sum (or any elementwise result) moved to its operands, where nothing else reads the whole; not of
    products of inputs, if these stay `whole`."""
    read_whole = _read_whole(values)

    def through(value: Value) -> bool:
        node = value.node
        if value in read_whole or node.name not in ELEMENTWISE:
            return False
        if depends_on(value, level) < CARRY:
            return biased_product(node, level) and not whole
        ranks = [(v, _rank(v, node, level, own)) for v in node.inputs if v.shape == value.shape]
        of_inputs = [v for v, rank in ranks if rank == INPUTS and not (whole and product_of_inputs(v, level))]
        return bool(of_inputs) or any(rank == CARRY and products(v.node) for v, rank in ranks)

    @cache
    def worth(value: Value) -> bool:
        """Whether somewhere up the elementwise operations that nothing else reads an input sequence comes in."""
        if value in read_whole or value.node.name not in ELEMENTWISE:
            return False
        return through(value) or any(worth(v) for v in value.node.inputs if not is_literal(v))

    new: dict[Value, Value] = {}

    def part(value: Value, cut: Node, index: int, axis: int) -> Value:
        """Part `index` of a value of the old graph, cut as `cut` says."""
        if not worth(value):
            return _cut_one(new[value], cut, index, axis, build)
        node = value.node
        inputs = [new[v] if not v.shape or v.shape[axis] == 1 else part(v, cut, index, axis) for v in node.inputs]
        return build.again(node, *inputs)

    for node in in_order(values):
        if node.primitive is None:
            new[node.outputs[0]] = node.outputs[0]
            continue
        inputs = tuple(new[v] for v in node.inputs)
        outputs: Sequence[Value]
        axis = cut_axis(node)
        if axis is not None and worth(node.inputs[0]):
            outputs = [part(node.inputs[0], node, i, axis) for i in range(len(node.avals))]
        else:
            made = build.keep(node.primitive, inputs, node.params, node.avals, node.context, node.effects)
            outputs, new[node.done] = made.outputs, made.done
        new.update(zip(node.outputs, outputs, strict=True))
    return [new[v] for v in values]


def _read_whole(values: Sequence[Value]) -> set[Value]:
    """The values that something else than a cut, or an elementwise operation that is cut itself, reads."""
    whole = set(values)
    for node in reversed(in_order(values)):
        shared = node.name in ELEMENTWISE and not any(v in whole for v in node.outputs)
        if not shared and cut_axis(node) is None:
            whole.update(node.inputs)
    return whole


def cut_axis(node: Node) -> int | None:
    """The axis that a `split`, or a `slice` along one axis, cuts."""
    if node.name == "split":
        return int(node.params["axis"])
    if node.name == "slice" and node.params["strides"] is None:
        (value,) = node.inputs
        cut = [i for i, size in enumerate(value.shape) if node.avals[0].shape[i] != size]
        return cut[0] if len(cut) == 1 else None
    return None


def _cut_one(value: Value, cut: Node, index: int, axis: int, build: Builder) -> Value:
    if cut.name == "slice":
        start, stop = (cut.params[name][axis] for name in ("start_indices", "limit_indices"))
        return _slice(value, axis, start, stop, build)
    shapes = [tuple(aval.shape[axis] if i == axis else n for i, n in enumerate(value.shape)) for aval in cut.avals]
    avals = tuple(jax.ShapeDtypeStruct(shape, value.aval.dtype) for shape in shapes)
    return build.keep(cut.primitive, (value,), cut.params, avals, cut.context).outputs[index]


def rows_by_matrix(node: Node) -> bool:
    """Whether a node multiplies rows `(..., k)` by a matrix `(k, n)`."""
    if node.name != "dot_general":
        return False
    rows, matrix = (v.shape for v in node.inputs)
    return len(matrix) == 2 and node.params["dimension_numbers"] == (((len(rows) - 1,), (0,)), ((), ()))


def biased_product(node: Node, level: dict[Value, int]) -> bool:
    """Whether a node adds params to a product of inputs, or to a part of one."""
    given = [v for v in node.inputs if not is_literal(v) and depends_on(v, level) > PARAMS]
    if node.name != "add" or len(given) != 1 or depends_on(given[0], level) == CARRY:
        return False
    origin = given[0].node
    return products(origin.inputs[0].node if cut_axis(origin) is not None else origin) > 0


def product_of_inputs(value: Value, level: dict[Value, int]) -> bool:
    """Whether a value is a product that depends on no carry, with or without a bias."""
    return depends_on(value, level) < CARRY and (products(value.node) > 0 or biased_product(value.node, level))


def products(node: Node) -> float:
    """Floating-point operations of a product or a convolution, 0 for everything else."""
    if node.name not in PRODUCTS:
        return 0.0
    return product_flops(node.name, node.params, *(v.shape for v in (*node.inputs, *node.outputs)))

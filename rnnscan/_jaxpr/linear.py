"""The derivative of one step as a linear graph with few coefficients and few sequences.

JAX linearises a step equation by equation, with a coefficient for each: `sigmoid` alone brings two. Along a chain of
elementwise operations coefficients multiply, so that one is enough from each product's result to the next product's
operand; sums are kept where a product of coefficients would make more of them (Griewank & Walther, "Evaluating
Derivatives", ch. 9: elimination of the vertices of a linearised graph). What is left is what must be stored.

What a tangent loop reads as a sequence, its transpose writes as one. So tangents that meet in a sum before they meet
the carry's are added up before the loop, and those of gates join before the product's result is split. Where some come
in behind the split only, as in a GRU, all go through it and through the coefficients before the loop, as one sequence.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from .algebra import ELEMENTWISE, rows_by_matrix
from .cost import is_or_holds
from .graph import Builder, Node, Value, in_order, is_literal, number, rewritten


Terms = list[tuple[Value | None, Value]]  # coefficient, None being 1, and what it multiplies


class Linear:
    """Linear functions of `carried`, tangents of the carry, and of `read`, tangents that are known before the loop."""

    def __init__(
        self,
        carried: Sequence[Value],
        read: Sequence[Value],
        build: Builder,
        turned: Mapping[Value, Value] | None = None,
        apart: bool = False,
    ):
        self.build = build
        self.turned = turned or {}  # matrices whose transposes are at hand
        self.apart = apart  # whether what is known early passes splits and coefficients by itself
        self._behind: set[Value] = set()  # what is made of parts of a split
        self.linear = {*carried, *read}
        self.early = set(read)  # linear, and made of no carried tangent
        self._sums: dict[Value, Terms] = {v: [(None, v)] for v in (*carried, *read)}

    def collapse(self, outputs: Sequence[Value]) -> list[Value]:
        """The same functions with the coefficients along each chain multiplied together."""
        old = set(self._sums)
        for node in in_order(outputs, lambda v: v in old):
            if not any(v in self._sums for v in node.inputs):
                continue
            if self._split_apart(node):
                continue
            terms = self._terms(node)
            if terms is not None:
                self._sums[node.outputs[0]] = terms
                continue
            inputs = tuple(self._one(v) if v in self._sums else v for v in node.inputs)
            made = self._product(node, inputs) or self._keep(node, inputs).outputs
            self._sums.update((v, [(None, new)]) for v, new in zip(node.outputs, made, strict=True))
        outputs = [self._one(v) if v in self._sums else v for v in outputs]
        return self._join_before_splits(outputs)

    def read_for(self, outputs: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        """What a loop reads that computes `outputs`: the tangents among it known early, and what is no tangent."""
        found = dict.fromkeys(outputs)
        for node in in_order(outputs, lambda v: v in self.early or v not in self.linear):
            found.update(dict.fromkeys(node.inputs))
        return [v for v in found if v in self.early], [v for v in found if v not in self.linear and not is_literal(v)]

    def _split_apart(self, node: Node) -> bool:
        """Splits what is known early and the rest each by itself."""
        if not self.apart or node.name != "split":
            return False
        groups = self._early_and_late(self._sums[node.inputs[0]])
        if not all(groups):
            return False
        made = [self._keep(node, (self._total(group),)).outputs for group in groups]
        self._sums.update((v, [(None, a), (None, b)]) for v, a, b in zip(node.outputs, *made, strict=True))
        return True

    def _early_and_late(self, terms: Terms) -> tuple[Terms, Terms]:
        return [t for t in terms if t[1] in self.early], [t for t in terms if t[1] not in self.early]

    def _keep(self, node: Node, inputs: tuple[Value, ...]) -> Node:
        made = self.build.keep(node.primitive, inputs, node.params, node.avals, node.context, node.effects)
        self._note(made)
        return made

    def _product(self, node: Node, inputs: tuple[Value, ...]) -> list[Value] | None:
        """A product of rows with a matrix, `d @ w`, written with w transposed, so that its transpose is `d @ w^T` with
        both as they lie in memory: with w itself, XLA's CPU backend takes up to twice as long for few rows."""
        if not rows_by_matrix(node) or inputs[1] in self.linear or math.prod(inputs[0].shape[:-1]) < 2:
            return None
        turned = self.turned.get(inputs[1])
        if turned is None:
            turned = self.build(lambda w: lax.transpose(w, (1, 0)), inputs[1])
        (lhs, _), batch = node.params["dimension_numbers"]
        numbers = ((lhs, (1,)), batch)
        params = dict(node.params, dimension_numbers=numbers)
        made = self.build.keep(node.primitive, (inputs[0], turned), params, node.avals, node.context)
        self._note(made)
        return list(made.outputs)

    def _note(self, node: Node) -> None:
        """Remembers what a new node's outputs are."""
        if any(v in self.linear for v in node.inputs):
            self.linear.update(node.outputs)
            known = [v for v in node.inputs if v not in self.linear]
            if all(v in self.early for v in node.inputs if v in self.linear) and (
                node.name in ELEMENTWISE or (all(map(_is_constant, known)) and not _has_own_transpose(node))
            ):
                self.early.update(node.outputs)

    def _terms(self, node: Node) -> Terms | None:
        """The result of a sum or of a product with a known factor as terms; None for any other operation."""
        shape = node.outputs[0].shape
        if any(v in self._sums and v.shape != shape for v in node.inputs):
            return None  # it is broadcast as well
        if node.name in ("add_any", "add", "sub") and all(v in self._sums for v in node.inputs):
            first, second = (self._sums[v] for v in node.inputs)
            if node.name == "sub":
                second = [(self._negative(c, v), v) for c, v in second]
            return self._merged([*first, *second])
        if node.name == "neg":
            return [(self._negative(c, v), v) for c, v in self._few(node.inputs[0])]
        if node.name == "mul" or (node.name == "div" and node.inputs[0] in self._sums):
            value, factor = node.inputs if node.inputs[0] in self._sums else node.inputs[::-1]
            return [(self._times(node, c, factor, v), v) for c, v in self._few(value)]
        return None

    def _few(self, value: Value) -> Terms:
        """One term: a sum is made a value of its own, so that a factor of it does not multiply all its coefficients;
        two where what is known early goes by itself."""
        early, late = self._early_and_late(self._sums[value])
        behind = any(v.node.name == "split" or v in self._behind for _, v in late)
        if self.apart and behind and early:
            one_each: list[Terms] = [g if len(g) == 1 else [(None, self._total(g))] for g in (early, late)]
            self._sums[value], late = [*one_each[0], *one_each[1]], one_each[1]
        elif len(early) + len(late) > 1:
            late = [(None, self._one(value))]
        if behind:
            self._behind.update(v for _, v in late)
        return self._sums[value]

    def _one(self, value: Value) -> Value:
        total = self._total(self._sums[value])
        self._sums[value] = [(None, total)]
        return total

    def _total(self, terms: Terms) -> Value:
        """The sum of terms as one value of the graph: first what is known early, then parts of a split."""
        total = None
        rank = lambda term: 0 if term[1] in self.early else 1 if term[1].node.name == "split" else 2
        for coefficient, v in sorted(terms, key=rank):
            term = v if coefficient is None else self._make(lax.mul, v, coefficient)[0]
            total = term if total is None else self._make(lax.add, total, term)[0]
        assert total is not None
        return total

    def _make(self, function: Callable[..., Any], *inputs: Value) -> list[Value]:
        """The values of a function, with what they are noted."""
        values = self.build.all(function, *inputs)
        for node in in_order(values, lambda v: v in inputs):
            self._note(node)
        return values

    def _merged(self, terms: Terms) -> Terms:
        """Terms of the same value added up."""
        found: dict[Value, Value | None] = {}
        for coefficient, v in terms:
            if v not in found:
                found[v] = coefficient
                continue
            one = self.build.literal(v.aval.dtype.type(1))
            found[v] = self.build(lax.add, found[v] or one, coefficient or one)
        return [(c, v) for v, c in found.items()]

    def _negative(self, coefficient: Value | None, value: Value) -> Value:
        if coefficient is None:
            return self.build.literal(value.aval.dtype.type(-1))
        held = number(coefficient)
        return self.build.literal(-held) if held is not None else self.build(lax.neg, coefficient)

    def _times(self, node: Node, coefficient: Value | None, factor: Value, value: Value) -> Value:
        if node.name == "mul" and coefficient is None:
            return factor
        one = self.build.literal(value.aval.dtype.type(1))
        return self.build(lax.mul if node.name == "mul" else lax.div, coefficient or one, factor)

    def _join_before_splits(self, outputs: list[Value]) -> list[Value]:
        """`split(a + t)_k + d_k = split(a + (t + concat(d)))_k`, for sequences t and d_k: one sequence for all."""
        uses = Counter(v for node in in_order(outputs) for v in node.inputs)
        uses.update(outputs)
        joined: dict[Node, dict[int, Value]] = {}
        replaced: dict[Value, tuple[Node, int]] = {}
        for node in in_order(outputs):
            if node.name != "add" or sum(v in self.early for v in node.inputs) != 1:
                continue
            early, part = node.inputs if node.inputs[0] in self.early else node.inputs[::-1]
            split = part.node
            if split.name == "split" and uses[part] == 1 and early.shape == part.shape and self._reads_early(split):
                joined.setdefault(split, {})[part.index] = early
                replaced[node.outputs[0]] = split, part.index
        new_splits: dict[Node, list[Value]] = {}

        def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
            if node in joined:
                parts = [joined[node].get(i) or self._zeros(v) for i, v in enumerate(node.outputs)]
                axis = node.params["axis"]
                both = self._make(lambda *vs: lax.concatenate(vs, axis), *parts)[0]
                early, late = inputs[0].node.inputs
                both = self._make(lax.add, early, both)[0]
                cut = lambda x: lax.split(x, node.params["sizes"], axis)
                new_splits[node] = self._make(cut, self._make(lax.add, both, late)[0])
                return new_splits[node]
            if node.outputs and node.outputs[0] in replaced:
                split, index = replaced[node.outputs[0]]
                return [new_splits[split][index]]
            made = self._keep(node, inputs)
            return made.outputs

        return rewritten(outputs, rule, self.build)

    def _reads_early(self, split: Node) -> bool:
        whole = split.inputs[0].node
        return whole.name == "add" and whole.inputs[0] in self.early and whole.inputs[1] not in self.early

    def _zeros(self, like: Value) -> Value:
        return self.build(lambda: jnp.zeros(like.shape, like.aval.dtype))


def collapsed(make: Callable[[bool], Linear], outputs: Sequence[Value]) -> tuple[Linear, list[Value]]:
    """The outputs in the form that reads the fewest sequences; `make(apart)` starts one of the two."""
    joined, apart = make(False), make(True)
    found = joined.collapse(outputs)
    n_read = len(joined.read_for(found)[0])
    if n_read > 1:
        other = apart.collapse(outputs)
        if len(apart.read_for(other)[0]) < n_read:
            return apart, other
    return joined, found


def _has_own_transpose(node: Node) -> bool:
    """Whether a node is, or holds, the tangent of a function with a rule for cotangents: JAX can only transpose it."""
    return is_or_holds(node, ("custom_lin",))


def _is_constant(value: Value) -> bool:
    """Whether a value is made of numbers in the program alone."""
    return all(node.primitive is not None or number(node.outputs[0]) is not None for node in in_order([value]))

"""Products for all steps whose results are only read in parts, as gates are: computed part by part.

A product cut afterwards is written twice, once whole and once in parts, and beside the loop over time this second way
through memory costs more than the loop saves by reading a sequence for each gate (`benchmarks/NOTES.md`, 7).
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from .algebra import PARAMS, cut_axis, rows_by_matrix
from .graph import Node, Readers, Value


@dataclass(frozen=True)
class InParts:
    """A product of rows with a matrix of params for all steps, and its bias, of which only cuts into columns are read:
    a product for each of the cuts."""

    product: Node
    bias: Value | None  # one row
    columns: list[tuple[int, int]]
    outputs: list[Value]
    nodes: list[Node]  # what it stands for: the product, the sum with the bias, the cuts
    apart: bool = False  # whether the matrix's gradient is made part by part as well

    @property
    def inputs(self) -> tuple[Value, ...]:
        return self.product.inputs if self.bias is None else (*self.product.inputs, self.bias)


def in_parts(actions: list[Any], read_by: Readers, level: dict[Value, int]) -> list[Any]:
    """The actions with those put together that make `InParts`."""
    at_once = {a for a in actions if isinstance(a, Node)}
    found: dict[Node, InParts] = {}
    gone: set[Node] = set()
    for product in at_once:
        if not rows_by_matrix(product) or not level[product.inputs[1]] == PARAMS < level[product.inputs[0]]:
            continue
        value, bias, nodes = product.outputs[0], None, [product]
        match read_by[value]:
            case [Node(name="add") as add] if add in at_once:
                bias = next((v for v in add.inputs if _is_row(v, value) and level[v] == PARAMS), None)
                if bias is not None:
                    value, nodes = add.outputs[0], [product, add]
        cuts = [(*ends, v, n) for n in read_by[value] for ends, v in columns_of(n) if n in at_once]
        cuts.sort(key=lambda cut: cut[0])
        starts, ends = [a for a, *_ in cuts], [0, *(b for _, b, *_ in cuts)]
        if len({n for *_, n in cuts}) == len(read_by[value]) and [*starts, value.shape[-1]] == ends and len(cuts) > 1:
            nodes += dict.fromkeys(n for *_, n in cuts)
            found[product] = InParts(product, bias, [(a, b) for a, b, *_ in cuts], [v for _, _, v, _ in cuts], nodes)
            gone.update(nodes)
    return [found.get(a, a) for a in actions if a in found or a not in gone]


def _is_row(value: Value, of: Value) -> bool:
    return value.shape == (*(1,) * (len(of.shape) - 1), of.shape[-1])


def columns_of(node: Node | None) -> list[tuple[tuple[int, int], Value]]:
    """Which columns of its input each output of a `split` or a `slice` is; none for anything else."""
    if node is None or cut_axis(node) != len(node.inputs[0].shape) - 1:
        return []
    if node.name == "slice":
        return [((node.params["start_indices"][-1], node.params["limit_indices"][-1]), node.outputs[0])]
    ends = accumulate(map(int, node.params["sizes"]), initial=0)
    return list(zip(pairwise(ends), node.outputs, strict=True))

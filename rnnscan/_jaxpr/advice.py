"""What still costs in the loops of a step that was taken apart, and what its author could change."""

from collections.abc import Callable, Iterator

from .algebra import PARAMS
from .describe import CHECKPOINTS, count, holds_products, in_words, operand, place, work
from .graph import Node, Value
from .places import ON_CIRCLE, reads_no_carry
from .schedule import Schedule


def advice(s: Schedule, left: list[Node], reason: Callable[[Node], str], names: dict[Value, str]) -> Iterator[str]:
    """What still costs in the loops, of which `left` are the operations, and what could be changed."""
    products = [node for node in left if work(node).products]
    if products:
        yield _what_costs(products, reason, names)
        yield from _side_by_side(s, products, names)
    elif s.sections:
        yield "No product is left in the loop: what stays there is elementwise."
    else:
        yield "Nothing reads the step before, so that there is no loop: all steps run at once."
    for node in left:
        if reason(node) != ON_CIRCLE and (node in s.pinned or node.effects):
            yield from _way_out(s, node, reason(node), names)
        elif hint := inside(node, names):
            yield hint


def _what_costs(products: list[Node], reason: Callable[[Node], str], names: dict[Value, str]) -> str:
    dearest = max(products, key=lambda node: work(node).flops)
    words = f"`{in_words(dearest, names)}`, {count(work(dearest).flops)}FLOP at each step, because {reason(dearest)}."
    if len(products) == 1:
        return f"What still costs: {words}"
    return f"What still costs: {len(products)} products at each step, the largest of them {words}"


def _side_by_side(s: Schedule, products: list[Node], names: dict[Value, str]) -> Iterator[str]:
    """Products of one value with several matrices of params."""
    readers: dict[Value, list[Node]] = {}
    for node in products:
        if node.name == "dot_general" and s.level[node.inputs[1]] == PARAMS:
            readers.setdefault(node.inputs[0], []).append(node)
    for value, nodes in readers.items():
        if len(nodes) > 1:
            lines = ", ".join(dict.fromkeys(filter(None, map(place, nodes))))
            yield (
                f"{len(nodes)} products in the loop read the same {operand(value, names)}"
                + (f" ({lines})" if lines else "")
                + ": with their weights side by side in one matrix they would be one."
            )


def _way_out(s: Schedule, node: Node, reason: str, names: dict[Value, str]) -> Iterator[str]:
    """What to write instead of an operation that stays though the next carry does not depend on it."""
    at = _at(node)
    if node.effects:
        yield (
            f"`{node.name}`{at} has an effect, so it runs at each step, and with it in one loop whatever lies between "
            "the carry and it. Take it out, or look at ys after the scan."
        )
    elif node.name == "cond":
        apart = "" if reads_no_carry(s, node) else ", as far as no next carry needs it"
        yield (
            f"`lax.cond`{at} stays in the loop because {reason}; `jnp.where` computes both sides and would leave it"
            f"{apart}."
        )
    elif node.name == "while":
        yield (
            f"`while_loop`{at} stays in the loop because {reason}, which has no gradient in reverse mode either; a "
            "`fori_loop` with fixed bounds would leave it."
        )
    elif not reason.startswith("`"):
        yield f"`{in_words(node, names)}`{at} stays in the loop: {reason}."


def inside(node: Node, names: dict[Value, str]) -> str:
    """What to do about an operation that holds products which cannot leave it; empty for any other."""
    if not holds_products(node):
        return ""
    what = f"`{in_words(node, names)}`{_at(node)}"
    if node.name == "cond":
        return (
            f"What is inside {what} stays together. `jnp.where` computes both sides, and leaves each of their "
            "operations where it costs least; or write before it what needs no choice, a product of x above all."
        )
    if node.name in CHECKPOINTS:
        return (
            f"What is inside {what} stays together, as it is to be computed again as a whole. Without "
            "`jax.checkpoint` a step is taken apart and keeps little: what its products are computed from."
        )
    return f"What is inside {what} stays together: write before it what does not change within it."


def summed_up(nodes: list[Node], sums: int | None) -> Iterator[str]:
    """Whose gradients are still added up at each step of a backward loop."""
    holding = [node for node in nodes if holds_products(node)]
    if sums and holding:
        words = ", ".join(dict.fromkeys(f"`{node.name}`{_at(node)}" for node in holding))
        yield f"Gradients of params are still summed up at each step for what is inside {words}."


def no_gradient(nodes: list[Node]) -> str:
    """Why there are no bytes and no sums to tell of."""
    loops = ", ".join(dict.fromkeys(f"`while_loop`{_at(node)}" for node in nodes if node.name == "while"))
    because = f", for {loops} runs a number of steps that nobody knows before" if loops else ""
    return f"JAX has no gradient of params in reverse mode for this step{because}."


def _at(node: Node) -> str:
    return f" ({place(node)})" if place(node) else ""

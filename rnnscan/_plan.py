"""`Plan`, what `explain` returns: which operation of a step runs where, at what cost, and why; and how it prints."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from ._jaxpr.describe import count
from ._jaxpr.places import ON_CIRCLE


_WIDTH = 100
_PLACES = re.compile(
    r"once|(before|after) the loops?|loop( \d+)?|between loops \d+ and \d+|all steps|at the end", re.ASCII
)


@dataclass(frozen=True)
class Group:
    """Operations that run at one place: a product by itself, all elementwise operations of a place together."""

    what: str
    """`x (8, 3) @ w_x (3, 7)`, or `add x3, tanh x2`."""
    where: str
    """"once" (it depends on params only), "before the loop", "loop", "after the loop", or with several loops "before
    the loops", "loop 1", "between loops 1 and 2", "loop 2" ... "after the loops"; "at the end" for what only the last
    step needs; "all steps" where there is no loop."""
    products: int
    """Matrix products and convolutions."""
    flops: int
    """Floating-point operations of one step; of the one time that it runs, for "once" and "at the end"."""
    operations: int
    place: str
    """File and line of a single operation, `own_cell.py:12`; empty for several and for what a rewrite made."""
    reason: str
    """Why it stands in a loop; empty for what left it."""


@dataclass(frozen=True)
class Cost:
    """What the loop costs one way: as plain `lax.scan`, or as `scan` runs it."""

    products: int = 0
    """Matrix products and convolutions in the loop, a step."""
    flops: int = 0
    """Floating-point operations in the loop, a step: products exactly, all else one an element."""
    kept: int | None = None
    """Bytes stored at each step for the gradient of params, beside xs and ys; None where there is no such gradient."""
    sums: int | None = None
    """Gradients of params that the backward loop carries and adds to at each step."""
    sum_bytes: int | None = None
    """How large these are."""


@dataclass(frozen=True)
class Plan:
    """How `scan` runs a cell; `print(plan)` shows a table, and `rs.plot.plan(plan)` draws it."""

    cell: str
    """The cell's name."""
    shapes: str
    """Carry and xs at one step."""
    options: str
    """The options that are not the default."""
    n_steps: int
    piece: int = 0
    """Steps in one piece of time: between the loops, values of so many steps are held at once."""
    loops: int = 0
    """Loops over time, one after another."""
    rewritten: bool = False
    """Whether the step is taken apart; if not, `why` says why not."""
    why: str = ""
    groups: tuple[Group, ...] = ()
    """In the order in which they run."""
    written: tuple[Group, ...] = ()
    """The same for the step as it is written, all of it in the loop."""
    before: Cost = Cost()
    """As plain `lax.scan`."""
    after: Cost = Cost()
    """As `scan` runs it with these options."""
    advice: tuple[str, ...] = ()
    """What still costs, and what you could change."""

    def at(self, where: str) -> tuple[Group, ...]:
        """The groups of one place; none where nothing runs there.

        **Raises** `ValueError` for a name that no place has.
        """
        if not _PLACES.fullmatch(where):
            raise ValueError(
                f'`Plan.at` got {where!r}, which is no place; it knows "once", "before the loop", "loop", "after the '
                'loop", with several loops "before the loops", "loop 1", "between loops 1 and 2", "after the loops", '
                'and "all steps", "at the end"'
            )
        return tuple(group for group in self.groups if group.where == where)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(plan: Plan) -> Iterator[str]:
    pieces = f" in pieces of {plan.piece}" if plan.rewritten and plan.piece < plan.n_steps else ""
    about = (f"{plan.cell}: {plan.n_steps} steps{pieces}", plan.shapes, plan.options)
    yield from _wrapped("; ".join(filter(None, about)))
    if plan.why:
        yield from _wrapped(plan.why)
    if plan.groups:
        yield ""
        yield from _table(plan)
        yield ""
        yield from _totals(plan)
    for sentence in plan.advice:
        yield ""
        yield from _wrapped(sentence)


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _table(plan: Plan) -> Iterator[str]:
    where = max([len(group.where) for group in plan.groups] + [5])
    place = max([len(group.place) for group in plan.groups] + [0])
    what = _WIDTH - where - place - 14
    yield f"{'where':<{where}}  {'what':<{what}}  {'FLOP':>8}  {'line' if place else ''}".rstrip()
    before = None
    for group in plan.groups:
        first, *more = textwrap.wrap(group.what, what, break_long_words=False) or [""]
        shown = group.where if group.where != before else ""
        yield f"{shown:<{where}}  {first:<{what}}  {count(group.flops):>8}  {group.place}".rstrip()
        for line in more:
            yield f"{'':<{where}}  {line}".rstrip()
        if group.reason and group.reason != plan.why and not (group.operations > 1 and group.reason == ON_CIRCLE):
            for line in textwrap.wrap(f"stays: {group.reason}", what - 2, subsequent_indent="  "):
                yield f"{'':<{where}}    {line}"
        before = group.where


def _totals(plan: Plan) -> Iterator[str]:
    before, after = plan.before, plan.after
    rows = [
        ("products in the loop, at each step", str(before.products), str(after.products)),
        ("FLOP in the loop, at each step", count(before.flops), count(after.flops)),
    ]
    if before.kept is not None or after.kept is not None:
        rows += [
            ("bytes stored at each step for the gradient", _bytes(before.kept), _bytes(after.kept)),
            ("gradients of params summed up at each step", _sums(before), _sums(after)),
        ]
    left, right = (max(len(row[i]) for row in rows) for i in (1, 2))
    left, right = max(left, len("lax.scan")), max(right, len("rnnscan"))
    yield f"{'':<44}{'lax.scan':>{left}}    {'rnnscan':>{right}}"
    for name, one, other in rows:
        yield f"{name:<44}{one:>{left}}    {other:>{right}}"


def _sums(cost: Cost) -> str:
    if cost.sums is None:
        return "none"
    return f"{cost.sums} ({_bytes(cost.sum_bytes)})" if cost.sums else "0"


def _bytes(n: int | None) -> str:
    return "none" if n is None else f"{count(n)}B"

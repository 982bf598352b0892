"""What a record of `step_time` says: ratios within its rounds, geometric means, the verdict on each target.

A ratio is their seconds over ours, so above 1 is faster than they are, taken in each round; its median stands for a
cell at a shape. Who computes another cell under the same name is compared with rnnscan on that cell: Haiku's Elman is
relu, its GRU resets before the product. The fastest JAX peer is the one that rnnscan is the least faster than.
`step_tables` writes it down.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from . import timing


ADDED = "500,8,512,512"  # not one of the seven whose geometric mean decides
LIBRARY, USERS = ("elman", "lstm", "gru"), ("concat-lstm", "leaky", "norm-gru")
PEERS = ("linen", "linen-optimized", "nnx", "haiku", "equinox", "keras")
LEVEL = 0.97  # "level" and "never slower": what the noise of a run allows


class Target(NamedTuple):
    """One row of the targets: which number, of which job, and for each column `(must, goal)` or None."""

    name: str
    kind: str  # "mean" or "worst" over the seven shapes, or "long": H >= 512, B <= 16, T >= 500
    quantity: (
        str  # "train" or "forward": how many times faster; "compile" or "temporaries": how many times plain scan's
    )
    peer: tuple[float, float] | None
    users: tuple[float, float] | None
    torch: tuple[float, float] | None = None


TARGETS = (
    Target("training step, geometric mean", "mean", "train", (1.4, 2.0), (1.4, 2.0), (0.8, 1.0)),
    Target("training step, worst shape", "worst", "train", (LEVEL, 1.0), (LEVEL, 1.0)),
    Target("forward, geometric mean", "mean", "forward", (1.1, 1.3), (1.1, 1.3), (0.7, LEVEL)),
    Target("training step, H >= 512, B <= 16, T >= 500", "long", "train", (1.8, 2.5), (1.8, 2.5), (LEVEL, 1.0)),
    Target("compile time / plain, geometric mean", "mean", "compile", (1.5, 1.5), (1.5, 1.5)),
    Target("compile time / plain, worst shape", "worst", "compile", (1.5, 1.5), (1.5, 1.5)),
    Target("temporaries / plain, geometric mean", "mean", "temporaries", (1.2, 1.0), (1.2, 1.0)),
    Target("temporaries / plain, worst shape", "worst", "temporaries", (1.2, 1.0), (1.2, 1.0)),
)
COLUMNS = {"peer": LIBRARY, "users": USERS, "torch": LIBRARY}


def blocks(
    record: dict[str, Any], job: str, dtype: str = "float32", cells: Sequence[str] = LIBRARY + USERS
) -> list[Any]:
    """The record's blocks of one job, in the order of cells and of shapes."""
    found = [b for b in record["blocks"] if b["job"] == job and b["dtype"] == dtype and b["cell"] in cells]
    return sorted(found, key=lambda block: cells.index(block["cell"]))


def timed(block: dict[str, Any], name: str) -> bool:
    """Whether it was timed and agreed: who computes something else is not compared."""
    return name not in block["failed"] and "samples" in block["contenders"].get(name, {})


def fastest_peer(block: dict[str, Any]) -> str | None:
    ratios = {name: against(block, name)["median"] for name in PEERS if timed(block, name)}
    found = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    return min(found, key=found.__getitem__, default=None)


def against(block: dict[str, Any], name: str | None) -> dict[str, Any]:
    """How many times faster than `name` rnnscan is on the same cell: their seconds over ours, round by round."""
    if name is None or not timed(block, name):
        return timing.spread([])
    ours = "rnnscan-variant" if block["contenders"][name]["variant"] else "rnnscan"
    if not timed(block, ours):
        return timing.spread([])
    return timing.ratio(*(block["contenders"][n]["samples"] for n in (name, ours)))


def across_cells(record: dict[str, Any], job: str, dtype: str) -> float | None:
    """The mean against the fastest JAX peer if everyone is compared with rnnscan on the problem's cell, whatever they
    compute."""
    found = []
    for block in seven(blocks(record, job, dtype, LIBRARY)):
        taken = [block["contenders"][name]["samples"] for name in PEERS if timed(block, name)]
        if taken and timed(block, "rnnscan"):
            ours = block["contenders"]["rnnscan"]["samples"]
            found.append(min(timing.ratio(theirs, ours)["median"] for theirs in taken))
    return geomean(found)


def times_plain(block: dict[str, Any], quantity: str) -> dict[str, Any]:
    """rnnscan's compile time (compilation by compilation) or temporaries over plain lax.scan's."""
    if not timed(block, "rnnscan") or not timed(block, "plain"):
        return timing.spread([])
    ours, plain = (block["contenders"][n] for n in ("rnnscan", "plain"))
    if quantity == "compile":
        return timing.ratio(ours["compile_s"], plain["compile_s"])
    if ours["temp_bytes"] is None or not plain["temp_bytes"]:  # nothing to divide by
        return timing.spread([])
    return timing.ratio([ours["temp_bytes"]], [plain["temp_bytes"]])


def seven(blocks: Iterable[Any]) -> list[Any]:
    return [b for b in blocks if ",".join(map(str, b["shape"])) != ADDED]


def long_rows(blocks: Iterable[Any]) -> list[Any]:
    return [b for b in blocks if b["shape"][3] >= 512 and b["shape"][1] <= 16 and b["shape"][0] >= 500]


def geomean(values: Iterable[float | None]) -> float | None:
    """None where there is nothing to take the mean of; a None among the values is left out."""
    logs = [math.log(v) for v in values if v is not None]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


class Verdict(NamedTuple):
    target: Target
    column: str
    value: float | None
    where: str  # for a worst one: its cell and shape
    n: int  # how many cells at shapes it is taken over

    @property
    def bounds(self) -> tuple[float, float]:
        return getattr(self.target, self.column)

    def met(self, bound: float) -> bool | None:
        """None where nothing was measured."""
        if self.value is None:
            return None
        return self.value <= bound if self.target.quantity in ("compile", "temporaries") else self.value >= bound


def value_of(block: dict[str, Any], quantity: str, column: str) -> float | None:
    """The median that a target looks at, for one block."""
    if quantity in ("compile", "temporaries"):
        return times_plain(block, quantity)["median"]
    other = {"peer": fastest_peer(block), "users": "plain", "torch": "torch"}[column]
    return against(block, other)["median"]


def verdicts(record: dict[str, Any], dtype: str = "float32") -> list[Verdict]:
    """Every target in every column that has one."""
    found = []
    for target in TARGETS:
        for column, cells in COLUMNS.items():
            if getattr(target, column) is None:
                continue
            smaller = target.quantity in ("compile", "temporaries")
            chosen = blocks(record, "forward" if target.quantity == "forward" else "train", dtype, cells)
            chosen = (long_rows if target.kind == "long" else seven)(chosen)
            if target.kind == "worst":  # "never" means never: the added shape too
                chosen = blocks(record, "train", dtype, cells)
            values = [(value_of(block, target.quantity, column), block) for block in chosen]
            values = [(value, block) for value, block in values if value is not None]
            if target.kind == "worst" and values:
                value, block = (max if smaller else min)(values, key=lambda pair: pair[0])
                where = f"{block['cell']} ({', '.join(map(str, block['shape']))})"
                found.append(Verdict(target, column, value, where, len(values)))
            else:
                found.append(Verdict(target, column, geomean(v for v, _ in values), "", len(values)))
    return found


def verdict_text(verdict: Verdict) -> str:
    """`1.52x: must 1.4 met, goal 2 missed; n = 21`: over so many cells at shapes, or where the worst one is."""
    if verdict.value is None:
        return "not measured"
    says = {True: "met", False: "**missed**"}  # a goal may be missed without alarm
    must, goal = verdict.bounds
    judged = f"must {must:g} {says[verdict.met(must)]}"
    if goal != must:
        judged += f", goal {goal:g} {'met' if verdict.met(goal) else 'missed'}"
    return f"{verdict.value:.2f}x: {judged}; {verdict.where or f'n = {verdict.n}'}"

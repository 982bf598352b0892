"""The page that `step_time` writes, `step_time.md`: verdicts, tables for each cell, who took part, how it was done."""

from collections.abc import Sequence
from typing import Any

from . import timing
from .step_report import (
    COLUMNS,
    LIBRARY,
    TARGETS,
    USERS,
    Verdict,
    across_cells,
    against,
    blocks,
    fastest_peer,
    geomean,
    long_rows,
    seven,
    timed,
    times_plain,
    value_of,
    verdict_text,
    verdicts,
)


NAMES = {
    "plain": "lax.scan", "rnnscan": "rnnscan", "rnnscan-variant": "rnnscan, Haiku's cell", "linen": "Flax linen",
    "linen-optimized": "Flax linen, optimized", "nnx": "Flax nnx", "haiku": "Haiku", "equinox": "Equinox",
    "keras": "Keras 3 on JAX", "jax-rnn": "jax.experimental.rnn", "torch": "torch",
}  # fmt: skip
CELL_NAMES = {
    "elman": "Elman", "lstm": "LSTM", "gru": "GRU", "concat-lstm": "user's cell: TF-style concat LSTM",
    "leaky": "user's cell: leaky integrator, two layers, softmax", "norm-gru": "user's cell: layer-norm GRU",
}  # fmt: skip
JOB_NAMES = {"train": "training step", "train_dx": "training step with dx", "forward": "forward"}
ABOUT_FLOOR = (
    "A training step is the products of both loops, those with x and the gradients of both matrices; the share is what "
    "part of rnnscan's time these take by themselves. Where it is over 1, one product for all steps writes more than "
    "fits into the cache, and is slower than the same product piece by piece."
)
Table = list[Sequence[str]]


def table(head: Sequence[str], rows: Table) -> str:
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(head), line(["---"] + ["---:"] * (len(head) - 1)), *map(line, rows)])


def shape_text(block: dict[str, Any]) -> str:
    return ", ".join(map(str, block["shape"]))


def number(value: float | None, unit: str = "x") -> str:
    return "-" if value is None else f"{value:.2f}{unit}"


def mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.1f}" if size >= 10 << 20 else f"{size / 2**20:.2g}"


def milliseconds(block: dict[str, Any], name: str) -> str:
    return f"{1e3 * block['contenders'][name]['seconds']['median']:.4g}" if timed(block, name) else "-"


def verdict_table(record: dict[str, Any], dtype: str = "float32") -> str:
    found: dict[tuple[str, str], Verdict] = {(v.target.name, v.column): v for v in verdicts(record, dtype)}
    text = lambda target, column: verdict_text(found[target.name, column]) if (target.name, column) in found else "-"
    head = (
        "rnnscan is ... times faster",
        "than the fastest JAX peer",
        "than plain lax.scan, user's cells",
        "than torch",
    )
    return table(head, [(target.name, *(text(target, column) for column in COLUMNS)) for target in TARGETS])


def beyond_targets(record: dict[str, Any], dtype: str = "float32") -> str:
    """The mean and the worst block of every job, over all cells that a column has and all eight shapes."""
    columns = {"peer": LIBRARY, "users": LIBRARY + USERS, "torch": LIBRARY}
    rows: Table = []
    for job, job_name in JOB_NAMES.items():
        found = {
            column: [(v, b) for b in blocks(record, job, dtype, cells) if (v := value_of(b, job, column)) is not None]
            for column, cells in columns.items()
        }
        slowest = {column: min(pairs, key=lambda pair: pair[0], default=None) for column, pairs in found.items()}
        worst = [f"{w[0]:.2f}x {w[1]['cell']} ({shape_text(w[1])})" if w else "-" for w in slowest.values()]
        rows.append((f"{job_name}, geometric mean", *(number(geomean(v for v, _ in p)) for p in found.values())))
        rows.append((f"{job_name}, worst", *worst))
    head = (
        "rnnscan is ... times faster",
        "than the fastest JAX peer",
        "than plain lax.scan, all six cells",
        "than torch",
    )
    return table(head, rows)


def cell_table(record: dict[str, Any], job: str, cell: str, dtype: str) -> str:
    """One row a shape: rnnscan against plain lax.scan, the fastest JAX peer and torch, with quartiles; then means."""
    chosen = blocks(record, job, dtype, (cell,))
    rows: Table = []
    columns = {
        "lax.scan": lambda b: against(b, "plain"), "peer": lambda b: against(b, fastest_peer(b)),
        "torch": lambda b: against(b, "torch"), "compile": lambda b: times_plain(b, "compile"),
        "temporaries": lambda b: times_plain(b, "temporaries"),
    }  # fmt: skip
    for block in chosen:
        peer = fastest_peer(block)
        found = {name: column(block) for name, column in columns.items()}
        rows.append((
            shape_text(block), milliseconds(block, "plain"), milliseconds(block, "rnnscan"),
            timing.times(found["lax.scan"]), "-" if peer is None else f"{timing.times(found['peer'])} {NAMES[peer]}",
            timing.times(found["torch"]), number(found["compile"]["median"]), number(found["temporaries"]["median"]),
        ))  # fmt: skip
    kinds = {
        "geometric mean, seven shapes": seven,
        "geometric mean, all": list,
        "H >= 512, B <= 16, T >= 500": long_rows,
    }
    for name, kind in kinds.items():
        means = [number(geomean(column(b)["median"] for b in kind(chosen))) for column in columns.values()]
        rows.append((name, "", "", *means))
    slowest = lambda column: min((m for b in chosen if (m := column(b)["median"]) is not None), default=None)
    most = lambda column: max((m for b in chosen if (m := column(b)["median"]) is not None), default=None)
    worst = [number((most if name in ("compile", "temporaries") else slowest)(c)) for name, c in columns.items()]
    rows.append(("worst", "", "", *worst))
    head = ("T, B, in, H", "lax.scan, ms", "rnnscan, ms", "against lax.scan", "against the fastest JAX peer")
    return table((*head, "against torch", "compile / lax.scan", "temporaries / lax.scan"), rows)


def everyone_table(record: dict[str, Any], job: str, cell: str, dtype: str) -> str:
    """One row a contender: median ms and, in brackets, how many times rnnscan's time that is, paired."""
    chosen = blocks(record, job, dtype, (cell,))
    present = [name for name in NAMES if any(timed(b, name) for b in chosen)]

    def text(block: dict[str, Any], name: str) -> str:
        return f"{milliseconds(block, name)} ({number(against(block, name)['median'])})" if timed(block, name) else "-"

    rows: Table = []
    for name in present:
        mean = geomean(against(b, name)["median"] for b in seven(chosen))
        rows.append((NAMES[name], *(text(b, name) for b in chosen), number(mean)))
    return table(("ms (times rnnscan's)", *map(shape_text, chosen), "mean of seven"), rows)


def compile_table(record: dict[str, Any], job: str, cell: str, dtype: str) -> str:
    """One row a contender: seconds to trace and compile, and MiB of temporaries."""
    chosen = blocks(record, job, dtype, (cell,))

    def text(block: dict[str, Any], name: str) -> str:
        found = block["contenders"].get(name, {})
        if not timed(block, name) or "compile_s" not in found:
            return "-"
        return f"{timing.spread(found['compile_s'])['median']:.2f} s, {mebibytes(found['temp_bytes'])} MiB"

    present = [name for name in NAMES if name != "torch" and any(timed(b, name) for b in chosen)]
    return table(("", *map(shape_text, chosen)), [(NAMES[n], *(text(b, n) for b in chosen)) for n in present])


def floor_table(record: dict[str, Any], dtype: str) -> str:
    """The products alone, in ms, and what share of rnnscan's step and forward run they are."""
    parts = ("loop", "loop back", "hoisted", "weight gradients", "train", "forward")
    rows: Table = [
        (f"{f['cell']} ({shape_text(f)})", *(f"{1e3 * f['seconds'][part]['median']:.4g}" for part in parts),
         *(timing.times(f["share"][job]).replace("x", "", 1) for job in ("train", "forward")))
        for f in record["floors"] if f["dtype"] == dtype
    ]  # fmt: skip
    names = ("h @ w_h, T times", "dz @ w_h.T, T times", "xs @ w_x at once", "weight gradients at once")
    return table(("ms", *names, "training step", "forward", "share of the step", "share of forward"), rows)


def notes(record: dict[str, Any]) -> list[str]:
    """What each contender is, how far from plain lax.scan its numbers were, and who was left out or failed."""
    lines: dict[str, float] = {}
    left_out: dict[str, None] = {}
    for block in record["blocks"]:
        for name, found in block["contenders"].items():
            computes = f"; computes {found['variant']}" if found["variant"] else ""
            if name not in block["failed"]:
                line = f"{NAMES[name]}, {block['cell']}, {block['dtype']}: {found['note']}{computes}"
                lines[line] = max(lines.get(line, 0.0), found["apart"])
        for kind, found in (("left out", block["absent"]), ("FAILED", block["failed"])):
            where = block["cell"] + (f" ({shape_text(block)}) {block['job']}" if kind == "FAILED" else "")
            left_out |= {
                f"{kind}: {NAMES[name]}, {where}, {block['dtype']}: {why}": None for name, why in found.items()
            }
    said = [f"- {line}; at most {apart:.0e} away" for line, apart in lines.items()] + [f"- {line}" for line in left_out]
    why = (
        "- Why relu cells may differ by more than rounding in float32, and in float64 do not: [NOTES](../NOTES.md), 13"
    )
    return [*said, why] if any(line.startswith("FAILED") for line in left_out) else said


def fewer(record: dict[str, Any], rounds: int = 15) -> dict[str, tuple[int, int]]:
    """For each job: how many blocks have fewer rounds than this, and the fewest."""
    found: dict[str, list[int]] = {}
    for block in record["blocks"]:
        n = min((c["seconds"]["n"] for c in block["contenders"].values() if "seconds" in c), default=rounds)
        if n < rounds:
            found.setdefault(block["job"], []).append(n)
    return {job: (len(counts), min(counts)) for job, counts in found.items()}


def method(record: dict[str, Any]) -> str:
    machine, settings = record["machine"], record["settings"]
    packages = ", ".join(
        f"{p} {machine[p]}" for p in ("jax", "jaxlib", "flax", "dm-haiku", "equinox", "keras", "torch")
    )
    runs = record.get("merged", [])
    remarks = [record["note"].capitalize()] if record["note"] else []
    if runs:
        remarks.append(f"Of {len(runs)} runs, {'; '.join(runs)}: of a block that several have, the last")
    remarked = " ".join(f"{remark}." for remark in remarks)
    said = "; ".join(f"{count} of {job}, at least {least}" for job, (count, least) in fewer(record).items()) or "none"
    return "\n\n".join([
        f"{machine['processor']}, {machine['device']}, {settings['threads']} threads; Python {machine['python']}; "
        f"{packages}; XLA flags: {machine['xla_flags'] or 'none'}; OMP_WAIT_POLICY: "
        f"{machine['omp_wait_policy'] or 'not set'}; {record['date']}, rnnscan at "
        f"{machine.get('commit') or 'an unknown commit'}; load average "
        f"{record['load']['before']} before, {record['load']['after']} after. {remarked}",
        "Value and gradient of `mean(ys**2)` with respect to params (and to xs: dx). All contenders of a block (a cell "
        "at a shape) run in turn, in an order shuffled for each round; a ratio is taken within each round, and its "
        f"median and [quartiles] are shown. {settings['rounds']} rounds after two calls of warm-up; blocks with fewer "
        f"than 15: {said}. "
        f"Compile time is tracing and compiling with empty caches, {settings['compile_rounds']['train']} times for a "
        "training step. Level and never slower mean at least 0.97. The worst shape is taken over all eight.",
        "Before it is timed each contender's loss, outputs and gradients are compared with those of plain lax.scan in "
        "float32, with the same weights. What has a second bias has zeros there, and the gradient of that one is not "
        "compared; on the GRU's candidate, where the reset acts on it, it is.",
    ])  # fmt: skip


def same_cells(record: dict[str, Any], dtype: str) -> str:
    means = {job: number(across_cells(record, job, dtype)) for job in ("train", "forward")}
    return (
        "Peers are compared with rnnscan on the cell they compute. Haiku's Elman is relu, and its GRU resets before "
        "the product. The fastest peer is the one that rnnscan is the least faster than. With rnnscan on tanh and on "
        "the other GRU against these as well, the first column's geometric means would be "
        f"{means['train']} for the training step and {means['forward']} forward."
    )


def markdown(record: dict[str, Any]) -> str:
    parts = ["# step_time", method(record)]
    for dtype in sorted({b["dtype"] for b in record["blocks"]}, reverse=True):
        parts += [f"## Targets, {dtype}", verdict_table(record, dtype), same_cells(record, dtype)]
        parts += ["What has no target, over all eight shapes:", beyond_targets(record, dtype)]
        present = [c for c in LIBRARY + USERS if any(b["cell"] == c and b["dtype"] == dtype for b in record["blocks"])]
        for job, job_name in JOB_NAMES.items():
            shown = [cell for cell in present if blocks(record, job, dtype, (cell,))]
            for cell in shown:
                parts += [f"## {CELL_NAMES[cell]}: {job_name}, {dtype}", cell_table(record, job, cell, dtype)]
                parts += [everyone_table(record, job, cell, dtype)]
                parts += ["Tracing and compiling, and temporaries:", compile_table(record, job, cell, dtype)]
        if any(f["dtype"] == dtype for f in record["floors"]):
            parts += [f"## The measured floor: the products alone, {dtype}", ABOUT_FLOOR, floor_table(record, dtype)]
    return "\n\n".join([*parts, "## Contenders", "\n".join(notes(record))]) + "\n"

"""Imports point one way, JAX's internals stay in one room, and `import rnnscan` loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rnnscan"
FILES = sorted(PACKAGE.rglob("*.py"))

ORDER = (  # a room may import from its own line and from those above it
    ("_types", "_errors", "_tree", "_foreign"),
    ("_loop",),
    ("_jaxpr",),
    ("_options", "_inputs", "_notes", "_carry", "_cache", "_start"),
    ("_precision", "_rewrite", "_run"),
    ("_program", "_scan", "_chunks", "_taps", "_plan", "_explain"),
    ("cells", "wrap", "ode", "sequence", "_padded", "_packed"),
    ("train", "diagnose", "distributed", "compat", "convert", "data"),
    ("plot", "testing"),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

INTERNALS = ("jax._src", "jaxlib", "jax.interpreters", "jax.extend", "jax.core")
PUBLIC_ALL_THE_SAME = ("jax.core.Tracer",)

HEAVY = ("matplotlib", "torch", "keras", "tensorflow", "flax", "orbax", "sklearn", "diffrax")


def room_of(path):
    """The room a file is in: `cells` for rnnscan/cells/lstm.py, `_scan` for rnnscan/_scan.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path):
    """Every dotted name a file imports, relative ones made absolute, those inside functions included."""
    package = ["rnnscan", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def rooms_imported(path):
    """The other rooms of rnnscan that a file imports from; "" is the package itself."""
    for name in imported_names(path):
        if name == "rnnscan" or name.startswith("rnnscan."):
            room = name.removeprefix("rnnscan").lstrip(".").split(".")[0]
            known = room in RANK
            if room != room_of(path) or not known:
                yield room if known else ""


def dotted_names(path):
    """Every attribute chain a file writes from a module it imported, `jax.core.Tracer`, and every import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
            aliases |= {alias.name.split(".")[0]: alias.name.split(".")[0] for alias in node.names if not alias.asname}
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            parts = []
            while isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            if isinstance(node, ast.Name) and node.id in aliases:
                yield ".".join([aliases[node.id], *reversed(parts)])


def is_internal(name):
    within = lambda prefix: name == prefix or name.startswith(prefix + ".")
    private = name.startswith("jax.") and any(part.startswith("_") and part[1:2] != "_" for part in name.split("."))
    return (private or any(map(within, INTERNALS))) and not any(map(within, PUBLIC_ALL_THE_SAME))


def relative(path):
    return str(path.relative_to(ROOT))


def test_every_file_is_in_a_room_with_a_place_in_the_order():
    strays = {relative(path) for path in FILES if path != PACKAGE / "__init__.py" and room_of(path) not in RANK}
    assert not strays, f"give these rooms a line in ORDER, above: {strays}"


@pytest.mark.parametrize("path", [p for p in FILES if p != PACKAGE / "__init__.py"], ids=relative)
def test_imports_point_one_way(path):
    here = RANK[room_of(path)]
    wrong = {room or "rnnscan itself" for room in rooms_imported(path) if not room or RANK[room] > here}
    assert not wrong, f"{relative(path)} may not import {wrong}; the order is {ORDER}"


def test_no_two_rooms_import_each_other():
    graph = {room: set() for room in RANK}
    for path in FILES:
        if path != PACKAGE / "__init__.py":
            graph[room_of(path)] |= set(rooms_imported(path)) - {""}

    def reachable(room, seen):
        for after in graph[room] - seen:
            seen |= {after} | reachable(after, seen | {after})
        return seen

    circular = {room for room in graph if room in reachable(room, set())}
    assert not circular, f"these rooms import each other: {sorted(circular)}"


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) != "_jaxpr"], ids=relative)
def test_jax_internals_stay_in_jaxpr(path):
    wrong = {name for name in dotted_names(path) if is_internal(name)}
    assert not wrong, f"only rnnscan/_jaxpr/ may touch {wrong}"


def test_the_reader_of_internals_sees_each_way_to_write_them(tmp_path):
    source = tmp_path / "sample.py"
    source.write_text(
        "import jax, jax.extend as jex\nfrom jax import core\nfrom jax._src import ad\nimport jax.numpy as jnp\n"
        "a = jax.core.Tracer\nb = jax.core.Jaxpr\nc = jex.core.Primitive\nd = core.Literal\n"
        "e = jnp.zeros(jax.core.x.y)\n"
    )
    found = {name for name in dotted_names(source) if is_internal(name)}
    assert found == {
        "jax.extend",
        "jax.core",
        "jax._src.ad",
        "jax.core.Jaxpr",
        "jax.extend.core.Primitive",
        "jax.core.Literal",
        "jax.core.x.y",
    }


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_file_opens_with_what_it_holds_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    assert first.endswith((".", ":")), f"{relative(path)} should open with a docstring, one sentence on what it holds"
    assert len(text.splitlines()) <= 300, f"{relative(path)} is too long to read in one sitting: split it"


def test_importing_rnnscan_loads_nothing_heavy():
    program = f"import sys, rnnscan; rnnscan.scan; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr

"""The code blocks of a page, and `python tests/pages.py PAGE KIND`, which runs those of one kind one after another.

Kinds are info strings: "python" is our code, "python original" another library's, "python gone" code that runs nowhere
any more. On a migration page (docs/coming_from) the blocks of a kind share one namespace, an original stands right
before our code for the same task, and both print the text block that follows the pair.
"""

import contextlib
import importlib
import io
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
MIGRATION = sorted((ROOT / "docs" / "coming_from").glob("*.md"))
_BLOCK = re.compile(r"^```([\w ]*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_ALIASES = {  # Theano lives on under another name
    "theano.md": {
        "theano": "pytensor",
        "theano.tensor": "pytensor.tensor",
        "theano.scan_module": "pytensor.scan",
    }
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its info string, its text, the line its text starts at, and what follows it on the page."""

    kind: str
    text: str
    line: int
    after: tuple[str, ...] = ()  # kinds of the next two blocks
    printed: str = ""  # the text block it is held to; empty where it prints nothing


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    found = [Block(m[1].strip(), m[2], text[: m.start()].count("\n") + 2) for m in _BLOCK.finditer(text)]
    whole = []
    for place, block in enumerate(found):
        after = found[place + 1 : place + 3]
        if block.kind in ("python original", "python gone") and after and after[0].kind == "python":
            held = after[1:]  # the text follows the pair
        else:
            held = after[:1]
        printed = held[0].text if held and held[0].kind == "text" else ""
        whole.append(Block(block.kind, block.text, block.line, tuple(b.kind for b in after), printed))
    return whole


def run(page: Path, kind: str) -> list[str]:
    """What each block of a kind prints, run in order in one namespace; tracebacks show the page's own lines."""
    namespace, printed = {"__name__": "__main__"}, []
    for block in blocks_of(page):
        if block.kind == kind:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
            printed.append(out.getvalue())
    return printed


def main(page: str, kind: str) -> None:
    """Writes what the blocks print as JSON."""
    if kind == "python original":
        for name, real in _ALIASES.get(Path(page).name, {}).items():
            sys.modules[name] = importlib.import_module(real)
    json.dump(run(Path(page), kind), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])

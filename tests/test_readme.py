"""What the README and the docs show runs and prints what they say, and their links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def examples():
    """`(name, program, what it prints)` for every python block; the text block that follows is what it prints."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = list(BLOCK.finditer(text))
        for place, block in enumerate(blocks):
            if block[1] == "python":
                printed = next((after[2] for after in blocks[place + 1 : place + 2] if after[1] == "text"), None)
                yield pytest.param(block[2], printed, id=f"{page.name}:{text[: block.start()].count(chr(10)) + 1}")


@pytest.mark.parametrize(("program", "printed"), list(examples()))
def test_python_blocks_run_and_print_what_the_page_says(program, printed):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}  # a reader's settings, not the tests'
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if printed is None:
        assert not done.stdout, "the program prints something that the page does not show"
    else:
        assert done.stdout == printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith(("https://", "http://")) and not (page.parent / t).exists()]
    assert not missing, f"{page.name} links to what is not there: {missing}"


def test_the_quick_start_is_two_lines_each_with_its_own_environment():
    shell = [body for kind, body in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if kind == "bash"]
    lines = shell[0].splitlines()
    endings = ["-m examples", "-m pytest"]
    assert len(lines) == 2
    for line, ending in zip(lines, endings, strict=True):
        environment = re.fullmatch(r"python3 -m venv (\S+) && \1/bin/pip install .* && \1/bin/python (.*)", line)
        assert environment and environment[2] == ending, line
        found = subprocess.run(
            [sys.executable, ROOT / ".ci" / "readme_command.py", *ending.split()], capture_output=True, text=True
        )
        assert found.stdout.strip() == line, found.stderr


def test_the_example_in_the_readme_is_short():
    first = next(
        body for kind, body in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")) if kind == "python"
    )
    assert len([line for line in first.splitlines() if line.strip()]) <= 12

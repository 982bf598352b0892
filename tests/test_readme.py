"""What the README and the docs show runs and prints what they say, and their links lead somewhere."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.pages import MIGRATION, ROOT, blocks_of


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A reader's settings, not those of the tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
ENVIRONMENT |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}


def examples():
    """`(program, what it prints)` for every python block, each a program of its own, of pages that are no migration."""
    for page in PAGES:
        for block in blocks_of(page) if page not in MIGRATION else ():
            if block.kind == "python":
                yield pytest.param(block.text, block.printed, id=f"{page.name}:{block.line - 1}")


def python(*arguments):
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("program", "printed"), list(examples()))
def test_python_blocks_run_and_print_what_the_page_says(program, printed):
    assert python("-c", program) == printed


@pytest.mark.parametrize("page", MIGRATION, ids=lambda page: page.name)
def test_blocks_of_a_migration_page_run_one_after_another(page):
    ours = [block for block in blocks_of(page) if block.kind == "python"]
    assert ours, "the page shows no code of ours"
    assert {block.kind for block in blocks_of(page)} <= {"python", "python original", "python gone", "text", "bash"}
    printed = json.loads(python(ROOT / "tests" / "pages.py", page, "python"))
    for block, text in zip(ours, printed, strict=True):
        assert text == block.printed, f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", MIGRATION, ids=lambda page: page.name)
def test_an_original_stands_right_before_our_code(page):
    for block in blocks_of(page):
        if block.kind in ("python original", "python gone"):
            assert block.after[:1] == ("python",), f"{page.name}:{block.line}"


SAMPLE = """# A page
```python original
import math as m
x = [m.floor(2.5)]
print(x)
```
```python
x = [2]
print(x)
```
```text
[2]
```
```python
assert x == [2]
```
```python gone
import nowhere
```
```python
print(x + [3])
print("done")
```
```text
[2, 3]
done
```
"""


def test_pages_are_read_and_run_as_they_say(tmp_path):
    """Blocks share a namespace within their kind; an original is held to the text after the pair."""
    page = tmp_path / "page.md"
    page.write_text(SAMPLE, encoding="utf-8")
    blocks = [block for block in blocks_of(page) if block.kind != "text"]
    assert [(block.kind, block.printed) for block in blocks] == [
        ("python original", "[2]\n"), ("python", "[2]\n"), ("python", ""),
        ("python gone", "[2, 3]\ndone\n"), ("python", "[2, 3]\ndone\n"),
    ]  # fmt: skip
    assert [SAMPLE.splitlines()[block.line - 1] for block in blocks[:2]] == ["import math as m", "x = [2]"]
    for kind in ("python", "python original"):
        printed = json.loads(python(ROOT / "tests" / "pages.py", page, kind))
        assert printed == [block.printed for block in blocks if block.kind == kind]
    page.write_text("one\n```python\nx = 1\n1 / 0\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r'page.md", line 4(.|\n)*ZeroDivisionError'):
        python(ROOT / "tests" / "pages.py", page, "python")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if not t.startswith(("https://", "http://")) and not (page.parent / t).exists()]
    assert not missing, f"{page.name} links to what is not there: {missing}"


def test_the_quick_start_is_two_lines_each_with_its_own_environment():
    lines = next(block.text for block in blocks_of(ROOT / "README.md") if block.kind == "bash").splitlines()
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
    first = next(block.text for block in blocks_of(ROOT / "README.md") if block.kind == "python")
    assert len([line for line in first.splitlines() if line.strip()]) <= 12

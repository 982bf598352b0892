"""The page of options says what the code does."""

import inspect
from pathlib import Path

import rnnscan as rs
from rnnscan._options import HONOURED, METHODS


PAGE = (Path(__file__).parents[1] / "docs" / "options.md").read_text()


def test_every_option_has_a_heading():
    options = [p.name for p in inspect.signature(rs.scan).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert {f"## `{name}`" for name in options} <= set(PAGE.splitlines())
    assert set(options) == {*HONOURED, "method"}


def test_the_table_of_methods_is_the_one_the_code_reads():
    rows = [
        [part.strip(" `") for part in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")
    ]
    says = {
        option: tuple(m for m, word in zip(METHODS, words, strict=True) if word == "yes") for option, *words in rows
    }
    assert says == HONOURED

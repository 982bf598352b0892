"""The page for those who come from TensorFlow names every argument of every loop and of every cell, and no other."""

import inspect
import re
from pathlib import Path

import pytest

from rnnscan.compat import tensorflow as tf
from rnnscan.compat.tensorflow import rnn_cell


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coming_from" / "tensorflow.md").read_text()
CELLS = [
    value
    for value in vars(rnn_cell).values()
    if isinstance(value, type) and value not in (rnn_cell.RNNCell, rnn_cell.LSTMStateTuple, rnn_cell.TFCell)
]
LOOPS = ["dynamic_rnn", "static_rnn", "bidirectional_dynamic_rnn", "static_bidirectional_rnn", "raw_rnn",
         "stack_bidirectional_dynamic_rnn"]  # fmt: skip


def rows(title):
    """The cells of each line of the table under a heading."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def names(text):
    return re.findall(r"`(\w+)`", text)


@pytest.mark.parametrize("kind", [*CELLS, rnn_cell.from_variables, rnn_cell.to_variables], ids=lambda k: k.__name__)
def test_the_table_has_every_argument_of_a_cell_once(kind):
    assert len(CELLS) == 14
    told = [name for owner, argument, _ in rows("Every argument of every cell") if kind.__name__ in names(owner)
            for name in names(argument)]  # fmt: skip
    assert sorted(told) == sorted(inspect.signature(kind).parameters)


def test_the_table_has_every_argument_of_the_loops_and_no_other():
    told = [name for argument, _, _ in rows("Every argument") for name in names(argument)]
    assert len(told) == len(set(told))
    assert set(told) == {name for loop in LOOPS for name in inspect.signature(getattr(tf, loop)).parameters}

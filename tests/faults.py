"""Rows of the tables of faults: what goes wrong, the error it must give, the call, and words of the message."""

import collections
import re

import numpy as np
import pytest

import rnnscan as rs


T, B = 5, 2
XS = np.linspace(0.1, 0.9, T * B * 3).reshape(T, B, 3)
H = np.zeros((B, 3))  # a carry for functions that add x to it
State = collections.namedtuple("State", "h c")

CARRY, OUTPUT, SEQUENCE, LENGTH = rs.CarryError, rs.CellOutputError, rs.SequenceError, rs.LengthError
BUILTIN = {
    rs.CarryError: TypeError,
    rs.CellOutputError: TypeError,
    rs.SequenceError: ValueError,
    rs.LengthError: ValueError,
    rs.PurityError: ValueError,
    rs.NonFiniteError: RuntimeError,
}


def fails(name, error, call, message):
    """One row; in `message`, `...` stands for any text, everything else for itself."""
    pattern = re.escape(message).replace(re.escape("..."), r"(.|\n)*")
    return pytest.param(error, pattern, call, id=name)


def refused(error, pattern, call):
    """Asserts that `call()` raises exactly `error`, under its builtin name too, with these words in text or notes."""
    with pytest.raises(BUILTIN.get(error, error)) as caught:
        call()
    assert type(caught.value) is error
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert re.search(pattern, text), text


def run(cell, carry=H, xs=XS, params=None, **options):
    """A call of `scan`, later."""
    return lambda: rs.scan(cell, params, carry, xs, **options)

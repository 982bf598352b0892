"""Settings of cells: normalised, hashable, equal when they mean the same; anything else is refused with advice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnscan.cells import GRU, LSTM, Elman, Linear


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Linear(3, 4), Linear(np.int64(3), np.int32(4))),
        (LSTM(3, 4), LSTM(3, 4, forget_bias=1)),
        (LSTM(3, 4, 0.5), LSTM(3, 4, forget_bias=np.float64(0.5))),
        (GRU(3, 4, True), GRU(3, 4, reset_after=np.bool_(True))),
        (Elman(3, 4, jnp.sin), Elman(3, 4, activation=jnp.sin)),
    ],
    ids=["sizes", "int-bias", "numpy-bias", "numpy-bool", "function"],
)
def test_equal_settings_make_equal_cells(a, b):
    assert a == b and hash(a) == hash(b) and repr(a) == repr(b)
    assert all(type(x) is type(y) for x, y in zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True))


def test_different_settings_make_different_cells():
    cells = [LSTM(3, 4), LSTM(4, 3), LSTM(3, 4, 0.0), GRU(3, 4), GRU(3, 4, False), Elman(3, 4), Elman(3, 4, "relu"),
             Elman(3, 4, double_bias=True), Linear(3, 4)]  # fmt: skip
    assert len(set(cells)) == len(cells)


@pytest.mark.parametrize("cell", [Linear(3, 4), Elman(3, 4), LSTM(3, 4), GRU(3, 4)], ids=repr)
def test_what_scan_and_wrappers_read(cell):
    assert (cell.in_size, cell.hidden_size, cell.out_size, cell.x_ndim, cell.float_input) == (3, 4, 4, 1, True)
    assert cell.recurrent == ((True, False) if isinstance(cell, LSTM) else True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cell.in_size = 5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LSTM(3, jnp.asarray(4)), TypeError, r"`LSTM` keeps settings, not arrays; field `hidden_size`.*params"),
        (lambda: LSTM(3, 4, np.ones(4)), TypeError, r"field `forget_bias` is an array of shape \(4,\)"),
        (lambda: Elman(3, 4, jnp.ones(4)), TypeError, r"field `activation` is an array"),
        (lambda: GRU(3.0, 4), TypeError, r"float.*integer"),
        (lambda: GRU(3, 0), ValueError, r"at least 1; got 0"),
        (lambda: Linear(-1, 4), ValueError, r"at least 1; got -1"),
        (lambda: Elman(3, 4, "sigmoyd"), ValueError, r"activation='tanh', 'relu', 'identity' or a fun.*got 'sigmoyd'"),
        (lambda: Elman(3, 4, None), TypeError, r"activation='tanh', 'relu', 'identity' or a function.*got None"),
    ],
)
def test_wrong_settings_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_cell_is_a_static_argument_that_does_not_compile_twice():
    traces = []

    def run(cell, x):
        traces.append(cell)
        return cell.initial_carry() + x

    run = jax.jit(run, static_argnums=0)
    run(GRU(3, 4), 1.0)
    run(GRU(np.int64(3), 4), 2.0)
    assert len(traces) == 1

"""What `scan` says to wrong sequences, lengths and masks: one row a fault (S: sequences, L: lengths, K: masks)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.faults import CARRY, LENGTH, SEQUENCE, XS, fails, refused, run


ELMAN, LSTM = rs.cells.Elman(3, 4), rs.cells.LSTM(3, 4)
PARAMS = ELMAN.init(jax.random.key(0), jnp.float64)
LSTM_PARAMS = LSTM.init(jax.random.key(0), jnp.float64)


def elman(xs=XS, carry=None, **options):
    return lambda: rs.scan(ELMAN, PARAMS, carry, xs, **options)


def each(xs=None, **options):
    """A map over any xs, so that only the sequences can be wrong."""
    return lambda: rs.scan(lambda params, carry, x: (carry, x), None, None, xs, **options)


def ones(*shape):
    return np.ones(shape, bool)


def traced_n_steps():
    return jax.jit(lambda n: each(XS, n_steps=n)())(3)


SEQUENCES = [
    fails("S1 scalar", SEQUENCE, each({"price": jnp.asarray(1.0)}),
          "`xs['price']` is a scalar; sequences need a time axis of length T. Use `x[None]` for one step, or pass it "
          "in params"),
    fails("S2 list of numbers", SEQUENCE, each([1.0, 2.0]),
          "`xs` is a list of Python numbers, which is a tree of 2 scalar sequences; did you mean `jnp.asarray(xs)`?"),
    fails("S2 list of lists", SEQUENCE, each([[1.0, 2.0], [3.0, 4.0]]),
          "a tree of 4 scalar sequences; did you mean `jnp.asarray(xs)`?"),
    fails("S2 list of strings", TypeError, each(["a", "b"]),
          "`xs[0]` must be an array or a number, got 'a' (str)"),
    fails("S2 rows of different lengths", TypeError, each(np.array([np.ones(2), np.ones(3)], dtype=object)),
          "`xs` must be an array or a number, got a NumPy array of dtype object. ...`rs.train.pad`"),
    fails("S2 iterator", TypeError, each(iter([1.0, 2.0])),
          "`xs` is a list_iterator, not an array; write `jnp.asarray(list(xs))`"),
    fails("S2 range", TypeError, each(range(3)), "`xs` is a range, not an array; write `jnp.asarray(list(xs))`"),
    fails("S3 no feature axis", SEQUENCE, elman(XS[:, 0, 0]),
          "`xs` has shape (5,): cell `Elman(...)` expects (T, *batch, feature), with time first"),
    fails("S3 no time axis, carry of the batch", CARRY, elman(XS[0], np.zeros((2, 4))),
          "`carry` has shape (2, 4), expected (4,) ...Is the time axis of xs missing?"),
    fails("S3 other features", SEQUENCE, elman(XS[..., :2]),
          "`xs` has 2 features (shape with time first (5, 2, 2)), but cell `Elman(...)` takes in_size = 3"),
    fails("S4 T differs", SEQUENCE, each({"x": XS, "z": XS[:4]}),
          "sequences disagree on T: `xs['x']` has 5 steps, `xs['z']` has 4. Pass n_steps=4 to use the first 4 steps "
          "of each"),
    fails("S5 n_steps above T", SEQUENCE, each({"x": XS}, n_steps=7),
          "`n_steps=7`, but `xs['x']` has only 5 steps on axis 0"),
    fails("S7 n_steps 3.7", TypeError, each(XS, n_steps=3.7),
          "`n_steps` must be an int, got 3.7"),
    fails("S7 n_steps 3.0", TypeError, each(XS, n_steps=3.0),
          "`n_steps` must be an int, got 3.0"),
    fails("S7 n_steps True", TypeError, each(XS, n_steps=True),
          "`n_steps` must be an int, got True"),
    fails("S8 n_steps negative", SEQUENCE, each(XS, n_steps=-3),
          "`n_steps` must be >= 0, got -3"),
    fails("S9 n_steps traced", TypeError, traced_n_steps,
          "`n_steps` must be an int, got ...it is a traced value...Use `lengths=`"),
    fails("S10 neither xs nor n_steps", SEQUENCE, each(),
          "got neither xs nor n_steps"),
    fails("S10 xs without leaves", SEQUENCE, each({}),
          "got neither xs nor n_steps"),
    fails("S10 lengths alone", SEQUENCE, each(lengths=[1, 2]),
          "got neither xs nor n_steps"),
    fails("S10 no carry and no xs", SEQUENCE, elman(None, n_steps=3),
          "nothing tells the batch shape for cell `Elman(...)`. Pass `carry=cell.initial_carry(batch_shape)`"),
    fails("S13 batch of carry and xs", SEQUENCE, elman(XS, np.zeros((3, 4))),
          "batch size: `carry` has (3,), xs has (2,)"),
    fails("S13 carry of one row", SEQUENCE, elman(XS, np.zeros((1, 4))),
          "batch size: `carry` has (1,), xs has (2,); `jnp.broadcast_to(carry, (2, 4))`"),
    fails("S13 batch, function", TypeError, run(lambda p, c, x: (c + x, x), np.zeros((3, 3))),
          "received x: float64[2,3], carry: float64[3,3]"),
    fails("S13 carry without a part", CARRY, lambda: rs.scan(LSTM, LSTM_PARAMS, np.zeros((2, 4)), XS),
          "must be like `initial_carry((2,))`, that is ('float64[2,4]', 'float64[2,4]'); got float64[2,4]"),
    fails("S14 whole numbers for a float cell", SEQUENCE, elman(np.ones((5, 2, 3), int)),
          "`xs` is int64, but cell `Elman(...)` works on floats. Convert it...embedding"),
    fails("S15 uint8 for a float cell", SEQUENCE, elman(np.ones((5, 2, 3), np.uint8)),
          "`xs` is uint8, but cell `Elman(...)` works on floats"),
    fails("S time_axis too large", SEQUENCE, each(XS, time_axis=3),
          "`xs` has shape (5, 2, 3), which has no axis 3 for time (`time_axis=3`)"),
    fails("S time_axis too large for y", SEQUENCE, run(lambda p, c, x: (c, x.sum()), time_axis=1),
          "`y` has shape () at each step, so that its outputs have no axis 1 for time"),
    fails("S time_axis negative", SEQUENCE, each(XS, time_axis=-1),
          "`time_axis` must be >= 0, got -1: count from the first axis"),
]  # fmt: skip

LENGTHS = [
    fails("L2 above T", LENGTH, elman(lengths=[3, 9]),
          "`lengths[1]` = 9 exceeds T = 5"),
    fails("L2 above T, n_steps below", LENGTH, elman(lengths=[6, 1], n_steps=3),
          "`lengths[0]` = 6 exceeds T = 5"),
    fails("L2 above n_steps, no xs", LENGTH, run(lambda p, c, x: (c, c), xs=None, n_steps=3, lengths=[1, 4]),
          "`lengths[1]` = 4 exceeds T = 3"),
    fails("L2 above T = 0", LENGTH, elman(XS[:0], lengths=[0, 1]),
          "`lengths[1]` = 1 exceeds T = 0"),
    fails("L2 above the largest int32", LENGTH, elman(lengths=np.array([2**32 + 3, 2])),
          "`lengths[0]` = 4294967299 exceeds T = 5"),
    fails("L2 above the largest int64", LENGTH, elman(lengths=np.array([2, 2**63], np.uint64)),
          "`lengths[1]` = 9223372036854775808 exceeds T = 5"),
    fails("L2 one number for all rows", LENGTH, elman(lengths=7),
          "`lengths` = 7 exceeds T = 5"),
    fails("L2 n_steps above T", SEQUENCE, elman(lengths=[5, 1], n_steps=7),
          "`n_steps=7`, but `xs` has only 5 steps"),
    fails("L3 negative", LENGTH, elman(lengths=jnp.array([3, -1])),
          "`lengths[1]` = -1 is negative; a row has between 0 and T valid steps"),
    fails("L4 floats", TypeError, elman(lengths=jnp.array([3.0, 4.7])),
          "`lengths` must be integers, got float64; write `jnp.asarray(lengths, jnp.int32)`"),
    fails("L4 list of floats", TypeError, elman(lengths=[3.0, 4.0]),
          "`lengths` must be integers, got float64"),
    fails("L4 bools", TypeError, elman(lengths=ones(5, 2)),
          "`lengths` must be integers, got bool[5,2]; an array of bools is a mask: `mask=`"),
    fails("L4 ragged list", TypeError, elman(lengths=[[1], [2, 3]]),
          "`lengths` must be integers, one for each row, got [[1], [2, 3]] (list)"),
    fails("L4 None in a list", TypeError, elman(lengths=[3, None]),
          "`lengths` must be integers, one for each row, got [3, None] (list)"),
    fails("L4 string", TypeError, elman(lengths="34"),
          "`lengths` must be integers, one for each row, got '34' (str)"),
    fails("L4 dict", TypeError, elman(lengths={"x": 3}),
          "`lengths` must be integers, one for each row, got {'x': 3} (dict)"),
    fails("L5 wrong batch", LENGTH, elman(lengths=[1, 2, 3]),
          "`lengths` has shape (3,), expected (B,) = (2,)"),
    fails("L5 empty list", LENGTH, elman(lengths=[]),
          "`lengths` has shape (0,), expected (B,) = (2,)"),
    fails("L5 one column", LENGTH, elman(lengths=[[1], [2]]),
          "`lengths` has shape (2, 1), expected (B,) = (2,)...Drop its last axis: `lengths[..., 0]`"),
    fails("L5 no batch axes", LENGTH, elman(XS[:, 0], lengths=[3]),
          "`lengths` has shape (1,), expected no batch axes, ()"),
    fails("L5 batch first", LENGTH, elman(XS.swapaxes(0, 1), lengths=[1, 2]),
          "`lengths` has shape (2,), expected (B,) = (5,)...with time on axis 0. If `xs` is (B, T, ...), write "
          "`time_axis=1`."),
    fails("L5 time on axis 1", LENGTH, elman(XS.swapaxes(0, 1), lengths=[1] * 5, time_axis=1),
          "`lengths` has shape (5,), expected (B,) = (2,)...with time on axis 1"),
    fails("L5 one leaf of xs without rows", LENGTH, each({"x": XS, "z": XS[:, 0, 0]}, lengths=[1, 2]),
          "`lengths` has shape (2,), expected no batch axes, ()...`xs['z']` has shape (5,)"),
    fails("L5 carry without rows", LENGTH, run(lambda p, c, x: (c + 1, x), 0.0, lengths=[1, 2]),
          "`carry` has shape (), but `lengths` defines the batch axes (2,)...`jnp.broadcast_to(value, (2,))`"),
    fails("L5 y without rows", LENGTH, run(lambda p, c, x: (c, {"sum": x.sum()}), lengths=[1, 2]),
          "`y['sum']` has shape (), but `lengths` defines the batch axes (2,)"),
    fails("L6 lengths and mask", ValueError, elman(lengths=[1, 2], mask=ones(5, 2)),
          "give `lengths` or `mask`, not both"),
]  # fmt: skip

MASKS = [
    fails("K1 wrong T", SEQUENCE, elman(mask=ones(4, 2)),
          "`mask` has shape (4, 2), expected (T, B) = (5, 2)"),
    fails("K1 wrong B", SEQUENCE, elman(mask=ones(5, 3)),
          "`mask` has shape (5, 3), expected (T, B) = (5, 2)"),
    fails("K1 transposed", SEQUENCE, elman(mask=ones(2, 5)),
          "expected (T, B) = (5, 2). It looks like (B, T): pass `mask.T`"),
    fails("K1 transposed, time on axis 1", SEQUENCE, elman(XS.swapaxes(0, 1), mask=ones(5, 2), time_axis=1),
          "expected (B, T) = (2, 5). It looks like (T, B): pass `mask.T`"),
    fails("K1 time on axis 1, one axis", SEQUENCE, elman(XS.swapaxes(0, 1), mask=ones(5), time_axis=1),
          "`mask` has shape (5,), which has no axis 1 for time"),
    fails("K1 with a feature axis", SEQUENCE, elman(mask=ones(5, 2, 1)),
          "expected (T, B) = (5, 2). Drop its last axis: `mask[..., 0]`"),
    fails("K1 one value for each feature", SEQUENCE, elman(mask=ones(5, 2, 3)),
          "`carry` has shape (2, 4), but `mask` defines the batch axes (2, 3)"),
    fails("K1 shorter than n_steps", SEQUENCE, elman(mask=ones(2, 2), n_steps=3),
          "`mask` has shape (2, 2), expected (T, B) = (5, 2)"),
    fails("K1 shorter than n_steps, no xs", SEQUENCE, run(lambda p, c, x: (c, c), xs=None, n_steps=7, mask=ones(5, 2)),
          "`n_steps=7`, but `mask` has only 5 steps"),
    fails("K1 resets transposed", SEQUENCE, elman(resets=ones(2, 5)),
          "`resets` has shape (2, 5), expected (T, B) = (5, 2). It looks like (B, T): pass `resets.T`"),
    fails("K1 mask and resets of other rows", SEQUENCE, each(XS, mask=ones(5, 2, 3), resets=ones(5, 2)),
          "`resets` has batch axes (2,), but `mask` has (2, 3); give both the same"),
    fails("K2 one step for all", SEQUENCE, elman(mask=ones(1, 2)),
          "`mask` has shape (1, 2), expected (T, B) = (5, 2)"),
    fails("K2 one row for all", SEQUENCE, elman(mask=ones(1, 5)),
          "`mask` has shape (1, 5), expected (T, B) = (5, 2)"),
    fails("K3 floats", TypeError, elman(mask=np.full((5, 2), 0.3)),
          "`mask` must be bool, got float64; use `mask > 0`"),
    fails("K3 ints", TypeError, elman(mask=[[1, 0]] * 5),
          "`mask` must be bool, got int64; use `mask > 0`"),
    fails("K3 string", TypeError, elman(mask="yes"),
          "`mask` must be bool of shape (T, *batch), got 'yes' (str)"),
    fails("K3 one bool", SEQUENCE, elman(mask=True),
          "`mask` is a scalar, expected bool of shape (T, *batch)"),
    fails("K3 resets of ints", TypeError, elman(resets=np.ones((5, 2), int)),
          "`resets` must be bool, got int64; use `resets > 0`"),
    fails("K4 lengths as mask", SEQUENCE, elman(mask=np.array([3, 4])),
          "`mask` is int64[2], one number for each of 2 rows, expected bool (T, *batch). It looks like lengths: pass "
          "`lengths=`"),
    fails("K4 one bool for each row", SEQUENCE, elman(mask=ones(2)),
          "expected (T,) = (5,). It has one value for each row; `mask` has one for each step"),
]  # fmt: skip


@pytest.mark.parametrize("error, pattern, call", SEQUENCES + LENGTHS + MASKS)
def test_sequences_lengths_and_masks(error, pattern, call):
    refused(error, pattern, call)


WHILE_TRACED = [
    fails("C5 int carry", CARRY, run(lambda p, c, x: (c.astype(float) + x, None), np.zeros((2, 3), int)),
          "`carry` is int64 but"),
    fails("S13 batch", SEQUENCE, elman(XS, np.zeros((3, 4))),
          "batch size: `carry` has (3,), xs has (2,)"),
    fails("L2 known lengths above T", LENGTH, elman(lengths=[3, 9]),
          "`lengths[1]` = 9 exceeds T = 5"),
    fails("K1 mask", SEQUENCE, elman(mask=ones(4, 2)),
          "`mask` has shape (4, 2), expected (T, B) = (5, 2)"),
]  # fmt: skip
TRANSFORMS = {
    "jit": lambda call: jax.jit(lambda unused: call())(0.0),
    "vmap": lambda call: jax.vmap(lambda unused: call())(np.zeros(2)),
    "grad": lambda call: jax.grad(lambda scale: scale * jnp.sum(call()[0]))(1.0),
    "disable_jit": lambda call: _without_jit(call),
}


def _without_jit(call):
    with jax.disable_jit():
        return call()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("error, pattern, call", WHILE_TRACED)
def test_the_same_errors_under_transformations(error, pattern, call, transform):
    refused(error, pattern, lambda: TRANSFORMS[transform](call))

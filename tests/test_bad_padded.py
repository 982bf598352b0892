"""What `last_valid`, `flip_valid`, `pack` and `unpack` say to wrong rows: one row a fault, numbered as for `scan`."""

import jax
import numpy as np
import pytest

from rnnscan import flip_valid, last_valid, pack, unpack
from tests.faults import LENGTH, SEQUENCE, XS, B, T, fails, refused


YS = np.linspace(0.1, 0.9, 4 * 3).reshape(4, 3)  # packed rows of 3 and 1 steps


def later(function, *args, **options):
    return lambda: function(*args, **options)


def ones(*shape):
    return np.ones(shape, bool)


def traced(function, *args, **options):
    """The call with its second argument, the lengths, under `jit`."""
    return lambda: jax.jit(lambda lengths: function(args[0], lengths, *args[2:], **options))(np.asarray(args[1]))


def selecting(function, root):
    """Rows that concern lengths and masks alike for both functions that take either."""
    call = lambda *args, **options: later(function, *args, **options)
    name = function.__name__
    return [
        fails(f"{name} S1 scalar", SEQUENCE, call({"price": np.float64(1.0)}),
              f"`{name}` got `{root}['price']` of shape (), which has no axis 0 for time"),
        fails(f"{name} S2 strings", TypeError, call(["a"]), f"`{root}[0]` must be an array or a number, got 'a' (str)"),
        fails(f"{name} S2 list of numbers", SEQUENCE, call([1.0, 2.0]), f"`{root}[0]` of shape ()"),
        fails(f"{name} S4 T differs", SEQUENCE, call({"x": XS, "z": XS[:4]}),
              f"sequences that disagree on T: `{root}['x']` has 5 steps, `{root}['z']` 4"),
        fails(f"{name} S10 no array", SEQUENCE, call(None, [1]), f"`{name}` got {root} without any array"),
        fails(f"{name} time_axis negative", SEQUENCE, call(XS, time_axis=-1), "`time_axis` must be >= 0, got -1"),
        fails(f"{name} time_axis 1.0", TypeError, call(XS, time_axis=1.0), "`time_axis` must be an int...got 1.0"),
        fails(f"{name} time_axis True", TypeError, call(XS, time_axis=True), "`time_axis` must be an int...got True"),
        fails(f"{name} time_axis too large", SEQUENCE, call(XS, time_axis=3), "has no axis 3 for time"),
        fails(f"{name} L2 above T", LENGTH, call(XS, [3, 9]), "`lengths[1]` = 9 exceeds T = 5"),
        fails(f"{name} L2 above T by the axis", LENGTH, call(XS, [3, 0, 0, 0, 0], time_axis=1),
              "`lengths[0]` = 3 exceeds T = 2"),
        fails(f"{name} L3 negative", LENGTH, call(XS, [3, -1]), "`lengths[1]` = -1 is negative"),
        fails(f"{name} L4 floats", TypeError, call(XS, [3.0, 1.0]), "`lengths` must be integers, got float64"),
        fails(f"{name} L4 bools", TypeError, call(XS, ones(B)), "an array of bools is a mask: `mask=`"),
        fails(f"{name} L5 wrong B", LENGTH, call(XS, [1, 2, 3]),
              f"`lengths` has shape (3,), expected (B,) = (2,): it defines the batch axes, and `{root}` has shape"),
        fails(f"{name} L5 wrong B, traced", LENGTH, traced(function, XS, [1, 2, 3]), "`lengths` has shape (3,)"),
        fails(f"{name} L5 another leaf", LENGTH, call({"x": XS, "z": XS[:, 0]}, [1, 2]), f"`{root}['z']` has shape"),
        fails(f"{name} L6 both", ValueError, call(XS, [1, 2], ones(T, B)), "give `lengths` or `mask`, not both"),
        fails(f"{name} K1 wrong T", SEQUENCE, call(XS, mask=ones(4, B)),
              "`mask` has shape (4, 2), expected (T, B) = (5, 2)"),
        fails(f"{name} K1 wrong B", SEQUENCE, call(XS, mask=ones(T, 3)),
              "`mask` has shape (5, 3), expected (T, B) = (5, 2)"),
        fails(f"{name} K1 another leaf", SEQUENCE, call({"x": XS, "z": XS[:, 0]}, mask=ones(T, B)),
              f"`mask` has shape (2,)...`{root}['z']` has shape (5, 3)"),
        fails(f"{name} K1 transposed", SEQUENCE, call(XS, mask=ones(B, T)), "It looks like (B, T): pass `mask.T`"),
        fails(f"{name} K1 one axis", SEQUENCE, call(XS, mask=ones(T), time_axis=1), "has no axis 1 for time"),
        fails(f"{name} K2 one step for all", SEQUENCE, call(XS, mask=ones(1, B)), "expected (T, B) = (5, 2)"),
        fails(f"{name} K3 floats", TypeError, call(XS, mask=np.full((T, B), 0.3)), "`mask` must be bool, got float64"),
        fails(f"{name} K3 ints", TypeError, call(XS, mask=[[1, 0]] * T), "`mask` must be bool, got int64"),
        fails(f"{name} K4 lengths as mask", SEQUENCE, call(XS, mask=np.array([3, 4])), "pass `lengths=`"),
    ]  # fmt: skip


PACK = [
    fails("pack S1 scalar", SEQUENCE, later(pack, np.float64(1.0), [1]), "`pack` got `xs` of shape ()"),
    fails("pack S4 T differs", SEQUENCE, later(pack, (XS, XS[:4]), [1, 2]), "`xs[0]` has 5 steps, `xs[1]` 4"),
    fails("pack S10 no array", SEQUENCE, later(pack, {}, [1]), "`pack` got xs without any array"),
    fails("pack L2 above T", LENGTH, later(pack, XS, [3, 9]), "`lengths[1]` = 9 exceeds T = 5"),
    fails("pack L3 negative", LENGTH, later(pack, XS, [-3, 2]), "`lengths[0]` = -3 is negative"),
    fails("pack L4 floats", TypeError, later(pack, XS, [3.0, 1.0]), "`lengths` must be integers, got float64"),
    fails("pack L4 missing", TypeError, later(pack, XS, None), "`lengths` must be integers, one...got None"),
    fails("pack L5 wrong B", LENGTH, later(pack, XS, [1, 2, 3]), "`lengths` has shape (3,), expected (B,) = (2,)"),
    fails("pack time_axis negative", SEQUENCE, later(pack, XS, [1, 2], time_axis=-1), "`time_axis` must be >= 0"),
    fails("pack total too small", LENGTH, later(pack, XS, [3, 5], total=7),
          "`lengths` adds up to 8 steps, more than `total=7`"),
    fails("pack total negative", SEQUENCE, later(pack, XS, [3, 5], total=-1), "`total` must be >= 0, got -1"),
    fails("pack total 8.0", TypeError, later(pack, XS, [3, 5], total=8.0), "`total` must be an int"),
    fails("pack total traced", TypeError, lambda: jax.jit(lambda n: pack(XS, [1, 2], total=n))(3),
          "`total` must be an int, got ...it is a traced value, and must be known when the program is traced"),
    fails("pack traced lengths", TypeError, traced(pack, XS, [3, 5]),
          "`pack` got traced lengths, so it cannot know the shape of its result: pass `total=`"),
]  # fmt: skip
UNPACK = [
    fails("unpack S1 scalar", SEQUENCE, later(unpack, np.float64(1.0), [1]), "`unpack` got `ys` of shape ()"),
    fails("unpack S4 N differs", SEQUENCE, later(unpack, (YS, YS[:2]), [3, 1]), "`ys[0]` has 4 steps, `ys[1]` 2"),
    fails("unpack S10 no array", SEQUENCE, later(unpack, None, [1]), "`unpack` got ys without any array"),
    fails("unpack L2 above n_steps", LENGTH, later(unpack, YS, [3, 1], 2),
          "`lengths` has a row of 3 steps, which `n_steps=2` cannot hold"),
    fails("unpack L3 negative", LENGTH, later(unpack, YS, [5, -1]), "`lengths[1]` = -1 is negative"),
    fails("unpack L4 floats", TypeError, later(unpack, YS, [3.0, 1.0]), "`lengths` must be integers, got float64"),
    fails("unpack sum too large", LENGTH, later(unpack, YS, [3, 2]), "adds up to 5, but `ys` has 4 steps on axis 0."),
    fails("unpack sum too small", LENGTH, later(unpack, YS, [2, 1]),
          "adds up to 3, but `ys` has 4 steps on axis 0. If `pack` was given `total=4`, say so here too"),
    fails("unpack total of other size", SEQUENCE, later(unpack, YS, [3, 1], total=5),
          "`unpack` got `total=5`, but `ys` has 4 steps"),
    fails("unpack sum above total", LENGTH, later(unpack, YS, [3, 2], total=4), "adds up to 5, but `ys` has 4 steps"),
    fails("unpack n_steps negative", SEQUENCE, later(unpack, YS, [3, 1], -3), "`n_steps` must be >= 0, got -3"),
    fails("unpack n_steps 3.0", TypeError, later(unpack, YS, [3, 1], 3.0), "`n_steps` must be an int"),
    fails("unpack time_axis too large", SEQUENCE, later(unpack, YS, [3, 1], time_axis=3),
          "`ys` has shape (4, 3): with 1 batch axes there is no axis 3 for time"),
    fails("unpack traced lengths", TypeError, traced(unpack, YS, [3, 1]),
          "`unpack` got traced lengths, so it cannot know the shape of its result: pass `n_steps=`"),
]  # fmt: skip


@pytest.mark.parametrize(
    "error, pattern, call", selecting(last_valid, "ys") + selecting(flip_valid, "xs") + PACK + UNPACK
)
def test_rows_that_do_not_fit(error, pattern, call):
    refused(error, pattern, call)

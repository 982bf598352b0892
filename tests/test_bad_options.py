"""What is said to wrong options and keys, to `bidirectional` and by `check_cell`: one row a fault (M: settings)."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan._options import HONOURED, METHODS
from tests.faults import CARRY, OUTPUT, XS, H, fails, refused, run


ELMAN, WIDE = rs.cells.Elman(3, 4), rs.cells.Elman(3, 6)
PARAMS, WIDE_PARAMS = (cell.init(jax.random.key(0), jnp.float64) for cell in (ELMAN, WIDE))
RESETS = np.ones((5, 2), bool)


def same(params, carry, x):
    return carry, x


def noisy(params, carry, x, rng):
    return carry, x + jax.random.normal(rng.per_step(), x.shape, x.dtype)


def elman(**options):
    return lambda: rs.scan(ELMAN, PARAMS, None, XS, **options)


def both(params=(PARAMS, PARAMS), carries=None, cells=(ELMAN, ELMAN), xs=XS, **options):
    return lambda: rs.bidirectional(*cells, params, carries, xs, **options)


OPTIONS = [
    fails("remat an int", NotImplementedError, run(same, remat=4),
          "`remat=4` comes in a later release. Until then `remat=None` works, and `jax.checkpoint` around your cell"),
    fails("remat sqrt", NotImplementedError, run(same, remat="sqrt"),
          "`remat='sqrt'` comes in a later release"),
    fails("method associative", NotImplementedError, run(same, method="associative"),
          "`method='associative'` comes in a later release. Until then 'sequential', 'unrolled', 'reference' work"),
    fails("method newton", NotImplementedError, run(same, method="newton"),
          "`method='newton'` comes in a later release"),
    fails("method auto", NotImplementedError, run(same, method="auto"),
          "`method='auto'` comes in a later release"),
    fails("method unknown", ValueError, run(same, method="fast"),
          "`method` must be one of 'sequential', 'unrolled', 'reference'; got 'fast'"),
    fails("optimize names", ValueError, run(same, optimize=("hoist", "fuse")),
          "`optimize` knows the rewrites 'split', 'hoist', 'sink', 'weight_grads'; got 'fuse'"),
    fails("optimize name", TypeError, run(same, optimize="hoist"), "got 'hoist'; write `optimize=('hoist',)`"),
    fails("optimize None", TypeError, run(same, optimize=None),
          "`optimize` must be True, False or a tuple of names out of 'split', 'hoist', 'sink', 'weight_grads'; "
          "got None"),
    fails("outputs unknown", ValueError, run(same, outputs="final"),
          "`outputs` must be one of 'all', 'last', 'none'; got 'final'"),
    fails("masked_output unknown", ValueError, run(same, masked_output="keep"),
          "`masked_output` must be one of 'zero', 'hold'; got 'keep'"),
    fails("reverse an int", TypeError, run(same, reverse=1),
          "`reverse` must be True or False, a Python bool; got 1"),
    fails("debug an array", TypeError, run(same, debug=jnp.asarray(True)),
          "`debug` must be True or False, a Python bool; got Array(True"),
    fails("progress a string", TypeError, run(same, progress="bar"),
          "`progress` must be True or False, a Python bool; got 'bar'"),
    fails("an option that is none", TypeError, run(same, length=5),
          "no option `length`, which is `lax.scan`'s; write `n_steps=`"),
    fails("M2 unroll 0", ValueError, run(same, unroll=0),
          "`unroll` must be an int >= 1, or True for all steps; got 0"),
    fails("M2 unroll -1", ValueError, run(same, unroll=-1),
          "`unroll` must be an int >= 1, or True for all steps; got -1"),
    fails("M2 unroll False", ValueError, run(same, unroll=False),
          "`unroll` must be an int >= 1, or True for all steps; got False"),
    fails("M2 unroll 2.5", TypeError, run(same, unroll=2.5),
          "`unroll` must be an int >= 1, or True for all steps; got 2.5"),
    fails("M4 unroll a list", TypeError, run(same, unroll=[4]),
          "`unroll` must be an int >= 1, or True for all steps; got [4]"),
    fails("M4 n_steps an array of several", TypeError, run(same, n_steps=np.array([3, 2])),
          "`n_steps` must be an int, got array([3, 2])"),
    fails("M4 an array in a cell's field", TypeError, lambda: rs.cells.LSTM(3, 4, forget_bias=jnp.ones(4)),
          "field `forget_bias` is an array of shape (4,)...Put it in params"),
    fails("resets missing", ValueError, elman(reset_carry=np.zeros((2, 4))),
          "`reset_carry` was given without `resets`"),
    fails("reset_carry of other structure", CARRY, elman(resets=RESETS, reset_carry=(H,)),
          "`reset_carry` must have the structure of the carry, float64[2,4]; got ('float64[2,3]',)"),
    fails("reset_carry of other shape", CARRY, elman(resets=RESETS, reset_carry=np.zeros((3, 4))),
          "`reset_carry` is float64[3,4], but that leaf of the carry is float64[2,4]"),
    fails("reset_carry of other dtype", CARRY, elman(resets=RESETS, reset_carry=np.zeros((2, 4), np.float32)),
          "`reset_carry` is float32[2,4], but that leaf of the carry is float64[2,4]"),
]  # fmt: skip

KEYS = [
    fails("M9 key an int", ValueError, run(noisy, None, key=0),
          "`key` must be jax.random.key(seed), got int 0"),
    fails("M9 key an array of ints", ValueError, run(noisy, None, key=jnp.arange(2)),
          "`key` must be jax.random.key(seed), got int64[2]"),
    fails("M9 key of three words", ValueError, run(noisy, None, key=np.zeros(3, np.uint32)),
          "`key` must be jax.random.key(seed), got uint32[3]"),
    fails("M9 several keys", ValueError, run(noisy, None, key=jax.random.split(jax.random.key(0), 3)),
          "`key` must be one key, got an array of keys of shape (3,)"),
    fails("M9 several legacy keys", ValueError, run(noisy, None, key=np.zeros((3, 2), np.uint32)),
          "`key` must be one key, got an array of keys of shape (3,)"),
    fails("M9 key without rng", ValueError, elman(key=jax.random.key(0)),
          "`key` was given, but cell `Elman(...)` draws no random numbers: it takes no `rng`. Leave `key` out."),
    fails("M9 rng without key", ValueError, run(noisy, None),
          "cell `noisy` is stochastic, it takes `rng` as fourth argument, and needs `key=jax.random.key(seed)`"),
    fails("M9 dropout without key", ValueError, lambda: rs.scan(rs.wrap.Dropout(ELMAN, output=0.5), PARAMS, None, XS),
          "needs `key=jax.random.key(seed)`; to run it without noise write `rs.wrap.deterministic(cell)`"),
    fails("M9 fourth argument of another name", ValueError, run(lambda p, c, x, dt: (c, x), None),
          "it takes `dt` as fourth argument, and needs `key="),
    fails("M9 rng used as a key", TypeError,
          run(lambda p, c, x, rng: (c, jax.random.normal(rng)), None, key=jax.random.key(0)),
          "`rng` is an `rs.Rng`, not a key: draw with `rng.per_step()` or `rng.per_sequence()`"),
]  # fmt: skip

BIDIRECTIONAL = [
    fails("merge unknown", ValueError, both(merge="cat"),
          "`merge` must be one of 'concat', 'sum', 'mul', 'ave' or None, got 'cat'"),
    fails("reverse", ValueError, both(reverse=True),
          "`bidirectional` runs both directions itself; leave `reverse` out"),
    fails("one params", ValueError, both(PARAMS),
          "`params` must be a pair (forward, backward), got a dict of 3"),
    fails("three params", ValueError, both((PARAMS,) * 3),
          "`params` must be a pair (forward, backward), got a tuple of 3"),
    fails("one carry", ValueError, both(carries=np.zeros((2, 4))),
          "`carries` must be a pair (forward, backward), got float64[2,4]"),
    fails("one reset_carry", ValueError, both(resets=RESETS, reset_carry=np.zeros((2, 4))),
          "`reset_carry` must be a pair (forward, backward), got float64[2,4]"),
    fails("params of the other cell", rs.ParamsError, both((PARAMS, WIDE_PARAMS)),
          "`params['b']` has shape (6,); `init` of cell `Elman(...)` makes it (4,)...raised by `bidirectional` in its "
          "backward direction"),
    fails("outputs of two sizes", ValueError, both((PARAMS, WIDE_PARAMS), cells=(ELMAN, WIDE), merge="sum"),
          "`merge='sum'` cannot join `ys` of shapes (5, 2, 4) (forward) and (5, 2, 6) (backward); with `merge=None`"),
    fails("outputs of two structures", ValueError, both((None, None), cells=(same, lambda p, c, x: (c, (x, x)))),
          "`merge='concat'` needs outputs of one structure"),
    fails("key and no rng", ValueError, both(key=jax.random.key(0)),
          "`key` was given, but neither `Elman(...)` nor `Elman(...)` takes `rng`"),
    fails("key an int", ValueError, both((None, PARAMS), cells=(noisy, ELMAN), key=3),
          "`key` must be jax.random.key(seed), got int 3"),
    fails("rng and no key", ValueError, both((None, PARAMS), cells=(noisy, ELMAN)),
          "cell `noisy` is stochastic"),
    fails("no second cell", TypeError, both(cells=(ELMAN, None)),
          "needs a cell...got None"),
]  # fmt: skip


class Leaky:
    def __call__(self, params, carry, x):
        self.seen = carry * 2
        return carry + x, x


kept = []


def appends(params, carry, x):
    kept.append(carry)
    return carry + x, x


def counts(params, carry, x):
    counts.calls = getattr(counts, "calls", 0) + 1
    return carry + counts.calls, x


def check(cell, carry=H, x=H, params=None):
    return lambda: rs.testing.check_cell(cell, params, carry, x)


PURITY = [
    fails("C15 appended to a list", rs.PurityError, check(appends),
          "cell `appends` keeps a traced value outside itself (in a list, an attribute or a global)...Return what "
          "you want to keep as part of y"),
    fails("C15 kept as attribute", rs.PurityError, check(Leaky()),
          "keeps a traced value outside itself"),
    fails("C16 np.random number", rs.PurityError, check(lambda p, c, x: (c + np.random.rand(), x)),
          "is not pure: two traces differ (`...` against `...`). A loop is traced once...Pass randomness as `rng`"),
    fails("C16 np.random array", rs.PurityError, check(lambda p, c, x: (c + np.random.rand(2, 3), x)),
          "is not pure: two traces differ (`constant float64[2,3]"),
    fails("C16 counter", rs.PurityError, check(counts),
          "cell `counts` is not pure: two traces differ...and counters in the carry"),
    fails("carry", CARRY, check(lambda p, c, x: (c[:1], None)),
          "`carry` went in as float64[2,3] and came out as float64[1,3]"),
    fails("a sequence as x", CARRY, check(lambda p, c, x: (c + x, None), x=XS),
          "`carry` went in as float64[2,3] and came out as float64[5,2,3]"),
    fails("output", OUTPUT, check(lambda p, c, x: c),
          "a cell must return (carry, y), got one array"),
    fails("a string", TypeError, check(same, x="a"),
          "`x` must be an array or a number, got 'a' (str)"),
    fails("a class", TypeError, check(rs.cells.Elman),
          "`check_cell` needs a cell; got the class `Elman`. Write `Elman(...)`"),
]  # fmt: skip


@pytest.mark.parametrize("error, pattern, call", OPTIONS + KEYS)
def test_options_and_keys(error, pattern, call):
    refused(error, pattern, call)


@pytest.mark.parametrize("error, pattern, call", BIDIRECTIONAL)
def test_bidirectional(error, pattern, call):
    refused(error, pattern, call)


@pytest.mark.parametrize("error, pattern, call", PURITY)
def test_check_cell(error, pattern, call):
    refused(error, pattern, call)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in HONOURED["unroll"]])
@pytest.mark.parametrize("unroll", [2, True])
def test_unroll_goes_with_the_methods_that_honour_it(method, unroll):
    pattern = f'`unroll={unroll}` goes with method="sequential"; method="{method}" writes out every step already'
    refused(ValueError, pattern, run(same, unroll=unroll, method=method))


def test_the_table_of_options_names_every_argument_but_the_main_ones():
    options = set(inspect.signature(rs.scan).parameters) - {"cell", "params", "carry", "xs", "method"}
    assert options == set(HONOURED)

"""`scan_taps` against a plain loop over each row's own steps: taps, options, derivatives, trees, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from tests.faults import CARRY, SEQUENCE, fails, refused
from tests.helpers import assert_close, compile_quickly, count_compiles


T, B = 7, 3
DRAW = np.random.default_rng(3)
XS = DRAW.uniform(0.2, 0.9, (T, B, 2))
ROWS = DRAW.uniform(0.2, 0.9, (3, B, 2))  # initial: three rows, oldest first
FRESH = DRAW.uniform(-0.9, -0.2, (3, B, 2))  # reset_carry
P = np.array([0.7, -0.4])
LENGTHS = np.array([7, 5, 2])
MASK = DRAW.uniform(size=(T, B)) < 0.8
RESETS = np.zeros((T, B), bool)
RESETS[[2, 4, 5, 6], [0, 1, 1, 2]] = True
X_TAPS, Y_TAPS = (2, -1, 0), (-1, -3)


def step(p, past, x):
    """Every tap has its own part, so that two exchanged ones are seen."""
    near, far = past
    ahead, behind, now = x
    return jnp.sin(p * near + 0.5 * far + 0.3 * ahead * behind - 0.8 * now)


def plain(p, initial, xs, fresh, *, valid=None, resets=None, reverse=False, hold=False):
    """`(last rows, ys)`: what step t reads is looked up by its index, row by row."""
    before, after = -min(X_TAPS), max(X_TAPS)
    valid = np.ones(xs.shape[:2], bool) if valid is None else valid
    lasts, columns = [], []
    for b in range(xs.shape[1]):
        history, column, held = [row[b] for row in initial], {}, jnp.zeros(2)
        ts = range(before, len(xs) - after)
        for t in reversed(ts) if reverse else ts:
            counts = valid[t - before : t + after + 1, b].all()
            if counts:
                boundary = t + 1 if reverse else t
                if resets is not None and boundary < len(xs) - after * reverse and resets[boundary, b]:
                    history = [row[b] for row in fresh]
                held = step(p, [history[tap] for tap in Y_TAPS], [xs[t + k, b] for k in X_TAPS])
                history.append(held)
            column[t] = held if counts or hold else jnp.zeros(2)
        lasts.append(jnp.stack(history[-3:]))
        columns.append(jnp.stack([column[t] for t in ts]))
    return jnp.stack(lasts, 1), jnp.stack(columns, 1)


def prefix(lengths):
    return np.arange(T)[:, None] < lengths


CASES = {
    "plain": ({}, {}),
    "reverse, unrolled": ({"reverse": True, "method": "unrolled"}, {"reverse": True}),
    "lengths": ({"lengths": LENGTHS}, {"valid": prefix(LENGTHS)}),
    "lengths, reverse, hold": (
        {"lengths": LENGTHS, "reverse": True, "masked_output": "hold"},
        {"valid": prefix(LENGTHS), "reverse": True, "hold": True},
    ),
    "mask, resets": ({"mask": MASK, "resets": RESETS}, {"valid": MASK, "resets": RESETS}),
    "resets, reverse, reference": (
        {"resets": RESETS, "reverse": True, "method": "reference"},
        {"resets": RESETS, "reverse": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_options_equal_the_loop_over_each_row(case):
    """Values and every gradient, with NaN wherever no step that counts may look."""
    options, words = CASES[case]
    reads = words.get("valid")
    xs = XS if reads is None else np.where(reads[..., None], XS, np.nan)
    fresh = {"reset_carry": FRESH} if "resets" in options else {}

    def loss(run):
        def value(p, initial, xs, fresh):
            last, ys = run(p, initial, xs, fresh)
            return jnp.sum(jnp.cos(ys)) + jnp.sum(jnp.sin(last)), (last, ys)

        return jax.value_and_grad(value, argnums=(0, 1, 2, 3), has_aux=True)

    def ours(p, initial, xs, fresh_rows):
        rows = {"reset_carry": fresh_rows} if fresh else {}
        return rs.scan_taps(step, p, initial, xs, x_taps=X_TAPS, y_taps=Y_TAPS, **options, **rows)

    run = loss(ours) if options.get("method") == "reference" else compile_quickly(loss(ours))
    with jax.disable_jit(options.get("method") == "reference"):
        got = run(P, ROWS, xs, FRESH)
    want = loss(lambda *data: plain(*data, **words))(P, ROWS, XS, FRESH)
    assert_close(got, want)


def test_time_axis_and_last_output_move_nothing_else():
    """Time second in xs, initial, mask, resets, ys and what is handed on; "last" is each row's last valid output."""
    last, ys = plain(P, ROWS, XS, FRESH, valid=MASK, resets=RESETS)
    swap = lambda a: np.swapaxes(a, 0, 1)
    options = {"x_taps": X_TAPS, "y_taps": Y_TAPS, "time_axis": 1, "mask": swap(MASK), "resets": swap(RESETS)}
    data = (step, P, swap(ROWS), swap(XS))
    got = rs.scan_taps(*data, reset_carry=swap(FRESH), **options)
    assert_close(got, (swap(last), swap(ys)))
    _, newest = rs.scan_taps(*data, reset_carry=swap(FRESH), outputs="last", **options)
    ran = np.stack([MASK[t - 1 : t + 3].all(0) for t in range(1, T - 2)]).any(0)
    assert ran.tolist() != [False] * B
    assert_close(newest, np.where(ran[:, None], last[-1], 0.0))


def test_n_steps_until_and_going_on():
    """Three ways to cut a run in two give the whole run; `until` sees what the next step would."""
    options = {"x_taps": X_TAPS, "y_taps": Y_TAPS}
    whole = rs.scan_taps(step, P, ROWS, XS, **options)
    first, ys = rs.scan_taps(step, P, ROWS, XS, n_steps=2, **options)
    last, more = rs.scan_taps(step, P, first, XS[2:], **options)
    assert_close((last, jnp.concatenate([ys, more])), whole)

    seen = np.asarray(whole[1])
    near_and_far = lambda past, y: (past[0] == y).all() & (past[1] == jnp.asarray(ROWS)[2]).all()  # after step 1
    result = rs.scan_taps(step, P, ROWS, XS, until=near_and_far, **options)
    assert result.n_steps == 2 and result.stopped
    assert_close((result.carry, result.ys[:2]), (first, ys))
    assert not result.ys[2:].any() and seen[2:].all()

    def loss(run):
        return jax.grad(lambda p, rows: jnp.sum(jnp.cos(run(p, rows))), argnums=(0, 1))

    stopped = lambda p, rows: rs.scan_taps(step, p, rows, XS, until=near_and_far, **options).ys[:2]
    cut = lambda p, rows: rs.scan_taps(step, p, rows, XS, n_steps=2, **options)[1]
    assert_close(loss(stopped)(P, ROWS), loss(cut)(P, ROWS))


def test_trees_take_taps_for_each_leaf():
    """Different taps side by side stand at the same t; an output without initial rows is not fed back."""

    def cell(p, past, x):
        h, u, v = past["h"], x["u"], x["v"]
        return {"h": p * h[0] + h[1] + u[0], "o": u[1] * v, "n": past["n"] + 1}

    xs = {"u": np.arange(1.0, 6), "v": np.arange(10.0, 60, 10)}
    last, ys = rs.scan_taps(
        cell, 0.5, {"h": np.array([4.0, 2.0]), "o": None, "n": np.array([7])}, xs,
        x_taps={"u": [0, 1], "v": -1}, y_taps={"h": (-1, -2), "o": None, "n": -1},
    )  # fmt: skip
    # t = 1, 2, 3: u_t = 2, 3, 4; u_{t+1} = 3, 4, 5; v_{t-1} = 10, 20, 30; h = 1+4+2, 3.5+2+3, 4.25+7+4
    assert_close(ys, {"h": np.array([7.0, 8.5, 15.25]), "o": np.array([30.0, 80, 150]), "n": np.array([8, 9, 10])})
    assert_close(last, {"h": np.array([8.5, 15.25]), "o": None, "n": np.array([10])})


def test_noise_follows_the_key(key):
    def noisy(p, past, x, rng):
        return p * past + x + jax.random.normal(rng.per_step(), (), jnp.float64)

    xs = jnp.arange(1.0, 5)
    _, ys = rs.scan_taps(noisy, 0.5, jnp.ones(1), xs, x_taps=1, key=key)
    h, want = 1.0, []
    for t in range(3):
        h = 0.5 * h + xs[t + 1] + jax.random.normal(jax.random.fold_in(key, t), (), jnp.float64)
        want.append(h)
    assert_close(ys, jnp.stack(want))


@pytest.mark.parametrize("disabled", [False, True], ids=["compiled", "disable_jit"])
def test_empty_sequences(disabled):
    """T = 0, no rows, and rows shorter than the taps reach."""
    options = {"x_taps": X_TAPS, "y_taps": Y_TAPS}
    with jax.disable_jit(disabled):
        last, ys = rs.scan_taps(step, P, ROWS, XS[:0], **options)
        assert_close((last, ys), (jnp.asarray(ROWS), jnp.zeros((0, B, 2))))
        _, none = rs.scan_taps(step, P, ROWS[:, :0], XS[:, :0], lengths=np.zeros(0, int), **options)
        assert_close(none, jnp.zeros((T - 3, 0, 2)))
        run = lambda rows: rs.scan_taps(step, P, rows, XS, lengths=np.array([0, 1, 3]), **options)
        assert_close(run(ROWS), (jnp.asarray(ROWS), jnp.zeros((T - 3, B, 2))))
        assert_close(jax.grad(lambda rows: jnp.sum(run(rows)[0] ** 2))(ROWS), 2 * ROWS)


def test_a_second_call_compiles_nothing():
    add = lambda p, past, x: p * past + x
    run = lambda: rs.scan_taps(add, 0.5, jnp.ones(1), jnp.arange(4.0), x_taps=-1, until=late, max_steps=3)
    run()
    with count_compiles() as compiled:
        run()
    assert compiled == []


def late(past, y):
    return y > 100


U, V = np.arange(1.0, 4), np.arange(1.0, 6)


def tap(initial=None, xs=U, fn=None, **options):
    return lambda: rs.scan_taps(
        fn or (lambda p, past, x: 0.5 * jnp.ravel(jnp.asarray(x))[0]), None, initial, xs, **options
    )


FAULTS = [
    fails("T1 tap 0", rs.TapError, tap(np.ones(1), y_taps=0), "output taps must be negative (past values), got 0"),
    fails("T1 tap +1", rs.TapError, tap(np.ones(2), y_taps=(-1, 1)), "taps must be negative (past values), got 1"),
    fails("T2", rs.TapError, tap(np.ones(2), y_taps=(-2, -2)), "output taps must be different, got [-2, -2]"),
    fails("T3", rs.TapError, tap(np.ones(2), y_taps=(-3,)), "`initial`: taps [-3] need 3 initial rows ...got 2"),
    fails("T3 too many", rs.TapError, tap({"h": np.ones(2)}, fn=lambda p, past, x: past),
          "`initial['h']`: taps [-1] need 1 initial row on axis 0, oldest first; got 2. ...`initial['h'][-1:]`"),
    fails("T4", rs.TapError, tap(1.0, y_taps=-2), "`initial`: taps [-2] need 2 initial rows ...got a scalar"),
    fails("T4 one row", rs.TapError, tap(1.0), "taps [-1] need 1 initial row ...got a scalar. ...`initial[None]`"),
    fails("T5", rs.TapError, tap(x_taps=9), "tap 9 leaves no steps: T=3"),
    fails("T5 both sides", rs.TapError, tap(x_taps=(-1, 2)), "taps [-1, 2] leave no steps: T=3"),
    fails("T7 unknown key", rs.TapError, tap({"h": np.ones(1)}, {"u": U}, x_taps={"w": 1}),
          "`x_taps` must be taps ...or a tree of its structure ...got {'w': 1} for {'u': 'float64[3]'}"),
    fails("taps that are no ints", rs.TapError, tap(x_taps=1.5), "`x_taps` must be an int or a list of ints, got 1.5"),
    fails("T8", CARRY, tap(np.array([1]), fn=lambda p, past, x: x * 0.5),
          "`carry[0]` is int64 but the cell returns float64 ...where `carry` is the latest"),
    fails("y without the part that is fed back", CARRY, tap({"h": np.ones(1)}, fn=lambda p, past, x: x),
          "must return outputs of the structure of `initial`...{'h': 'taps -1'}; got float64[]"),
    fails("taps without rows", ValueError, tap(np.ones(1), y_taps=None), "`y_taps` is None for an output that has"),
    fails("taps of no rows", rs.TapError, tap(y_taps=-2), "`y_taps=-2` was given without `initial` rows"),
    fails("taps of no input", rs.TapError, tap(np.ones(1), None, x_taps=(0, -1), n_steps=2),
          "`x_taps=(0, -1)` was given without `xs`"),
    fails("max_steps alone", ValueError, tap(max_steps=2), "`max_steps` goes with `until`"),
    fails("taps of one that is not fed back", rs.TapError,
          tap({"h": np.ones(2), "o": None}, y_taps={"h": (-1, -2), "o": -2}), "`y_taps` has -2 for an output without"),
    fails("and in until", jax.errors.TracerBoolConversionError,
          tap(np.ones(1), until=lambda past, y: past > 1 and y < 2),
          "Values inside `until` are traced, not known...`a & b` for `a and b`...`<lambda>`...as `until(past, y)`"),
    fails("no bound", SEQUENCE, tap(np.ones(1), None, until=late), "needs `max_steps`"),
    fails("n_steps beyond the taps", SEQUENCE, tap(x_taps=1, n_steps=3), "`n_steps=3`, but `xs` has only 2 steps"),
    fails("T differs", SEQUENCE, tap(None, {"u": U, "v": V}, x_taps=1), "`xs['u']` has 3 steps, `xs['v']` has 5"),
    fails("mask cut by hand", SEQUENCE, tap(x_taps=1, mask=np.ones(2, bool)), "`mask` has shape (2,)"),
    fails("reset_carry of another form", ValueError, tap(np.ones(1), resets=np.ones(3, bool), reset_carry=(1.0,)),
          "`reset_carry` must have the structure of `initial`"),
    fails("an unknown option", TypeError, tap(what=1), "got an unexpected keyword argument `what`. It takes `initial`, "
          "`xs`, `x_taps`, `y_taps`, `until`, `max_steps`, `n_steps`"),
    fails("a slip of the pen", TypeError, tap(y_tap=-1), "keyword argument `y_tap`. Did you mean `y_taps`?"),
    fails("Theano's taps", TypeError, tap(taps=[1]), "no option `taps`, which is Theano's; write `x_taps=` for inputs"),
    fails("scan's carry", TypeError, tap(carry=1.0), "no option `carry`, which is `scan`'s; write `initial=`"),
    fails("lax.scan's init", TypeError, tap(init=1.0), "no option `init`, which is `lax.scan`'s; write `initial=`"),
    fails("no step", TypeError, lambda: rs.scan_taps(U, None), "needs a step, a function `(params, past, x) -> y`"),
    fails("past is None", TypeError, tap(fn=lambda p, past, x: past + x), "`past` is None. ...give rows, `initial="),
    fails("x is None", TypeError, tap(np.ones(1), None, lambda p, past, x: past + x, n_steps=2), "`x` is None. With"),
    fails("time_axis", SEQUENCE, tap(time_axis=-1), "`time_axis` must be >= 0, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "pattern", "call"), FAULTS)
def test_bad_taps(error, pattern, call):
    refused(error, pattern, call)


def test_future_taps_shrink():
    """T6: taps 0 and 2 of five elements leave three steps."""
    _, ys = rs.scan_taps(lambda p, past, x: x[1] - x[0], None, None, V**2, x_taps=(0, 2))
    assert ys.tolist() == [8.0, 12.0, 16.0]

"""`scan_until` against the plain loop that breaks: values, derivatives of both modes and orders, options, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan._options import METHODS
from rnnscan._tree import at_time
from tests.helpers import assert_close, count_compiles


T, B = 5, 3
XS = np.array([[4.0, 1.0, 2.0], [1.0, 3.0, -2.0], [5.0, -1.0, -1.0], [-3.0, -2.0, -4.0], [-1.0, -3.0, -2.0]])
P = 0.7


def root(p, h, x):
    """Singular where x is negative, which is past the stop."""
    h = 0.5 * h + jnp.sqrt(p * x)
    return h, jnp.sin(h)


def ahead(p, carry, x):
    """`root` that knows the next input, so that a stop can come before the singular step."""
    h, y = root(p, carry["h"], x["now"])
    return {"h": h, "next": x["next"]}, y


FIRST = {"h": jnp.full(B, 0.3), "next": jnp.zeros(B)}
INPUTS = {"now": XS, "next": np.concatenate([XS[1:], -np.ones((1, B))])}
BY_ROW = lambda carry, y: carry["next"] < 0
BY_ALL = lambda carry, y: (carry["next"] < 0).any()
NEVER = lambda carry, y: jnp.full(B, False)
AT_ONCE = lambda carry, y: jnp.full(B, True)


def trimmed(cell, params, carry, xs, until, n_steps, valid=None, reverse=False):
    """Row by row and step by step with `break`; a scalar `until` must have been found by running all rows at once."""
    valid = np.ones((n_steps, B), bool) if valid is None else valid
    order = list(range(n_steps))[:: -1 if reverse else 1]
    places = np.full(B, n_steps)
    if jnp.ndim(until(carry, carry["h"])) == 0:  # find the common place first, on numbers
        state = carry
        for place, t in enumerate(order):
            new, y = cell(params, state, at_time(xs, t))
            state = jax.tree.map(lambda a, b: jnp.where(valid[t], a, b), new, state)  # noqa: B023
            if until(state, y) and valid[t].any():
                places[:] = place + 1
                break
    rows, ys, counts, stopped = [], np.zeros((n_steps, B), object), [], []
    for b in range(B):
        state, count, fired = at_time(carry, b), 0, False
        for place, t in enumerate(order):
            ys[t, b] = jnp.zeros(())
            if fired or place >= places[b] or not valid[t, b]:
                continue
            state, ys[t, b] = cell(params, state, at_time(xs, (t, b)))
            count += 1
            fired = bool(jnp.ravel(until(jax.tree.map(lambda s: jnp.full(B, jax.lax.stop_gradient(s)), state), 0.0))[0])
        rows.append(state), counts.append(count), stopped.append(fired)
    carry = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    return carry, jnp.stack([jnp.stack(list(row)) for row in ys]), np.array(counts), np.array(stopped)


@pytest.mark.parametrize("until", [BY_ROW, BY_ALL, NEVER, AT_ONCE], ids=["rows", "all", "never", "at once"])
@pytest.mark.parametrize("method", METHODS)
def test_values_equal_the_loop_that_breaks(until, method):
    xs = jax.tree.map(np.abs, INPUTS) if until is NEVER else INPUTS
    carry, ys, counts, _ = trimmed(ahead, P, FIRST, xs, until, T)
    got = rs.scan_until(ahead, P, FIRST, xs, until=until, method=method)
    if until is BY_ALL:  # x of row 2 turns negative first, after step 0
        assert got.n_steps == 1 and got.stopped.shape == () and got.stopped
        counts = np.int32(1)
    else:
        assert_close(got.stopped, np.full(B, until is not NEVER))
    assert_close((got.carry, got.ys, got.n_steps), (carry, ys, counts.astype(np.int32)))


LENGTHS = np.array([2, 5, 0], np.int32)
MASK = np.array([[0, 1, 1], [1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 1]], bool)
POSITIVE = {"now": np.abs(XS), "next": np.sin(np.arange(15.0).reshape(5, 3))}


@pytest.mark.parametrize("until", [lambda c, y: c["next"] < -0.4, lambda c, y: (c["next"] < -0.4).any()],
                         ids=["rows", "all"])  # fmt: skip
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("select", ["lengths", "mask"])
def test_a_masked_step_never_fires(select, reverse, until):
    valid = MASK if select == "mask" else np.arange(T)[:, None] < LENGTHS
    given = {"mask": MASK} if select == "mask" else {"lengths": LENGTHS}
    carry, ys, counts, _ = trimmed(ahead, P, FIRST, POSITIVE, until, T, valid, reverse)
    got = rs.scan_until(ahead, P, FIRST, POSITIVE, until=until, reverse=reverse, **given)
    assert_close((got.carry, got.ys, got.n_steps), (carry, ys, counts.astype(np.int32)))
    assert counts.max() > counts.min()


def objective(carry, ys):
    return jnp.sum(jnp.cos(ys) * jnp.arange(1.0, 1 + ys.size).reshape(ys.shape)) + jnp.sum(jnp.sin(3 * carry["h"]))


def derivatives(run):
    """Reverse mode, forward mode, and forward over reverse, all with respect to params, carry and inputs."""
    tangent = (0.3, 1.1)

    def loss(p, h):
        carry, ys = run(p, {"h": h, "next": FIRST["next"]})
        return objective(carry, ys)

    point = (jnp.asarray(P), FIRST["h"])
    along = (jnp.asarray(tangent[0]), jnp.full(B, tangent[1]))
    gradient = jax.grad(loss, (0, 1))
    return gradient(*point), jax.jvp(loss, point, along)[1], jax.jvp(gradient, point, along)[1]


@pytest.mark.parametrize("until", [BY_ROW, BY_ALL], ids=["rows", "all"])
def test_derivatives_are_those_of_the_trimmed_loop_where_the_cell_is_singular_past_the_stop(until):
    want = derivatives(lambda p, carry: trimmed(ahead, p, carry, INPUTS, until, T)[:2])
    for method in ("sequential", "unrolled"):
        run = jax.jit(lambda p, carry: rs.scan_until(ahead, p, carry, INPUTS, until=until, method=method)[:2])  # noqa: B023
        assert_close(derivatives(run), want)


def test_under_vmap_each_copy_stops_by_itself():
    def run(p, xs):
        result = rs.scan_until(ahead, p, FIRST, xs, until=BY_ALL)
        return objective(result.carry, result.ys), result.n_steps

    copies = jax.tree.map(lambda x: np.stack([x, x[:, ::-1], np.abs(x)]), INPUTS)
    ps = jnp.array([0.5, 0.7, 0.9])
    got = jax.jit(jax.vmap(jax.value_and_grad(run, has_aux=True)))(ps, copies)
    want = [jax.value_and_grad(run, has_aux=True)(p, at_time(copies, i)) for i, p in enumerate(ps)]
    assert_close(got, jax.tree.map(lambda *leaves: jnp.stack(leaves), *want))
    assert got[0][1].tolist() == [1, 1, 5]


def test_what_cell_and_until_close_over_gets_its_gradient():
    def loss(p, use):
        cell = lambda nothing, carry, x: ahead(p, carry, x)
        until = lambda carry, y: carry["next"] * p < 0  # closed over too; the stop itself has no derivative
        if use == "closure":
            result = rs.scan_until(cell, None, FIRST, INPUTS, until=until)
        else:
            result = rs.scan_until(ahead, p, FIRST, INPUTS, until=BY_ROW)
        return objective(result.carry, result.ys)

    for under in (jax.grad, lambda f, **k: jax.jit(jax.grad(f, **k), static_argnums=1), jax.hessian):
        assert_close(under(loss, argnums=0)(P, "closure"), under(loss, argnums=0)(P, "params"))


def test_the_step_that_fires_is_kept_and_max_steps_bounds():
    halve = lambda p, h, x: (h / 2, h)
    got = rs.scan_until(halve, None, 16.0, until=lambda h, y: h <= 2, max_steps=6)
    assert_close(got, rs.ScanUntil(jnp.array(2.0), jnp.array([16.0, 8, 4, 0, 0, 0]), jnp.int32(3), jnp.array(True)))
    got = rs.scan_until(halve, None, 16.0, until=lambda h, y: h <= 2, max_steps=2)
    assert_close(got, rs.ScanUntil(jnp.array(4.0), jnp.array([16.0, 8]), jnp.int32(2), jnp.array(False)))
    add = lambda p, h, x: (h + x, h)
    for most, n in ((2, 2), (9, 3)):  # a bound cuts xs, and may be larger than T
        assert rs.scan_until(add, None, 0.0, jnp.ones(3), until=lambda h, y: h > 9, max_steps=most).n_steps == n


@pytest.mark.parametrize("outputs", ["last", "none"])
def test_options_follow_the_stop(outputs):
    whole = rs.scan_until(ahead, P, FIRST, INPUTS, until=BY_ROW, masked_output="hold")
    got = rs.scan_until(ahead, P, FIRST, INPUTS, until=BY_ROW, outputs=outputs)
    assert_close(got.carry, whole.carry)
    assert_close(got.ys, whole.ys[-1] if outputs == "last" else None)
    assert np.isfinite(whole.ys).all() and (np.asarray(whole.ys) != 0).all()


def test_no_steps_and_no_rows():
    for xs, first in ((np.zeros((0, B)), jnp.ones(B)), (np.zeros((4, 0)), jnp.ones(0))):
        got = rs.scan_until(lambda p, h, x: (h + x, h), None, first, xs, until=lambda h, y: h < 9)
        assert_close((got.carry, got.ys), (first, jnp.asarray(xs)))
        assert_close(got.n_steps, jnp.zeros(len(first), jnp.int32))
        assert_close(got.stopped, jnp.zeros(len(first), bool))


def test_a_stochastic_cell_and_the_search_draw_the_same_noise(key):
    def walk(p, h, x, rng):
        h = h + jax.random.normal(rng.per_step(), h.shape)
        return h, h

    path = rs.scan(walk, None, jnp.zeros(B), n_steps=40, key=key)[1]
    got = rs.scan_until(walk, None, jnp.zeros(B), until=lambda h, y: jnp.abs(h) > 2, max_steps=40, key=key)
    want = np.argmax(np.abs(path) > 2, axis=0) + 1
    assert_close(got.n_steps, want.astype(np.int32))
    assert_close(got.carry, path[want - 1, np.arange(B)])


def test_a_second_call_compiles_nothing():
    run = lambda: rs.scan_until(ahead, P, FIRST, INPUTS, until=BY_ROW)
    run()
    with count_compiles() as compiled:
        run()
    assert not compiled


def test_shapes_follow_what_defines_the_batch_axes():
    """Resets define them too; and a NumPy integer is a bound like any other."""
    resets = np.zeros((T, B), bool)
    for xs in (XS, XS[:0]):
        result = rs.scan_until(add, None, jnp.zeros(B), xs, until=lambda c, y: (c > 4).any(), resets=resets[: len(xs)])
        assert (result.n_steps.shape, result.stopped.shape) == ((B,), ())
    result = rs.scan_until(add, None, jnp.zeros(B), XS, until=lambda c, y: c > 4, max_steps=np.int64(T + 9))
    assert result.n_steps.tolist() == [2, T, T]


def add(params, h, x):
    return h + x, h + x


@pytest.mark.parametrize(("masked_output", "steps"), [("hold", [1, 2, 2]), ("zero", [1, 3, 3])])
def test_until_sees_the_outputs_that_are_returned(masked_output, steps):
    """The first row ends after a step: held, its output counts on; zero, the others alone must reach the limit."""
    options = {"lengths": jnp.array([1, T, T]), "masked_output": masked_output}
    result = rs.scan_until(add, None, jnp.zeros(B), jnp.ones((T, B)), until=lambda c, y: y.sum() > 4.5, **options)
    assert result.n_steps.tolist() == steps
    assert (result.ys.sum(axis=1) > 4.5)[: max(steps)].tolist() == [False] * (max(steps) - 1) + [True]


@pytest.mark.parametrize("closed", [False, True], ids=["params", "closed over"])
@pytest.mark.parametrize("until", [lambda c, y: c > 1, lambda c, y: (c > 1).any()], ids=["rows", "all"])
def test_rows_split_over_devices(until, closed):
    """A carry of zeros is the same on all devices, and after the first step it is not."""
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    xs = jnp.abs(jnp.concatenate([XS, XS[:, :1]], axis=1))

    def loss(p, xs):
        cell = (lambda _, h, x: root(p, h, x)) if closed else root
        return jnp.sum(jnp.cos(rs.scan_until(cell, p, jnp.zeros(2), xs, until=until).ys))

    local = lambda p, xs: jax.lax.psum(loss(p, xs), "rows")
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(jax.P(), jax.P(None, "rows")), out_specs=jax.P())
    by_device = lambda p, xs: loss(p, xs[:, :2]) + loss(p, xs[:, 2:])
    got, want = (jax.jit(jax.value_and_grad(f))(P, xs) for f in (sharded, by_device))
    assert_close(got, want)


BAD = [
    ({"until": lambda c, y: c["next"]}, rs.CellOutputError, r"scalar bool.*got float64\[3\]; compare"),
    ({"until": lambda c, y: (True,)}, rs.CellOutputError, "got a tuple"),
    ({"until": lambda c, y: (c["next"] > 0)[:2], "lengths": LENGTHS}, rs.CellOutputError, r"\(3,\).*bool\[2\]; reduce"),
    ({"until": lambda c, y: (c["next"] > 0)[:2]}, rs.SequenceError, r"`until` defines the batch axes \(2,\)"),
    ({"until": 3}, TypeError, "`until` must be a function"),
    ({"until": BY_ROW, "n_steps": 3}, TypeError, "`max_steps` is the bound"),
    ({"until": BY_ROW, "max_steps": -1}, rs.SequenceError, "`max_steps` must be >= 0, got -1"),
    ({"until": BY_ROW, "max_steps": 3.7}, TypeError, "`max_steps` must be an int, got 3.7"),
    ({"until": BY_ROW, "until_": 3}, TypeError, "unexpected keyword argument `until_`"),
    ({"until": BY_ROW, "xs": None}, rs.SequenceError, "needs `max_steps`"),
    ({"until": lambda c, y: c["h"] < c["hh"]}, KeyError, "hh"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change, error, message):
    given = {"xs": INPUTS, **change}
    with pytest.raises(error, match=message):
        rs.scan_until(ahead, P, FIRST, given.pop("xs"), **given)


def test_an_error_inside_until_says_how_it_is_called():
    with pytest.raises(TypeError) as caught:
        rs.scan_until(ahead, P, FIRST, INPUTS, until=lambda carry: carry["h"] > 1)
    with pytest.raises(jax.errors.TracerBoolConversionError) as asked:
        rs.scan_until(ahead, P, FIRST, INPUTS, until=lambda c, y: (c["h"] > 1).all() and (c["h"] < 2).all())
    assert any("Values inside `until` are traced" in note and "`a & b`" in note for note in asked.value.__notes__)
    assert any("`until(carry, y)`" in note and "carry['h']: float64[3]" in note for note in caught.value.__notes__)

"""What a newcomer gets wrong at first, and what is said about it."""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rnnscan as rs
from rnnscan import _precision
from rnnscan._types import name_of


LSTM = rs.cells.LSTM(3, 4)
PARAMS = LSTM.init(jax.random.key(0))


def notes_of(act, error):
    with pytest.raises(error) as raised:
        act()
    return "\n".join(raised.value.__notes__)


def two_arguments(params, batch):
    return jnp.mean((batch["x"] - params) ** 2)


def other_names(params, batch, key):
    return jnp.mean((batch["y"] - params) ** 2)


@pytest.mark.parametrize(("loss", "error"), [(two_arguments, TypeError), (other_names, KeyError)])
@pytest.mark.parametrize("how", ["fit", "make_step"])
def test_a_loss_that_raises_is_told_what_it_gets(how, loss, error):
    key, batch = jax.random.key(0), {"x": jnp.ones((2, 3))}
    start, step = jnp.ones(()), rs.train.make_step(loss, optax.sgd(0.1))
    act = {
        "fit": lambda: rs.train.fit(loss, start, optax.sgd(0.1), [batch], key=key, progress=False),
        "make_step": lambda: step(start, step.init(start), batch, key),
    }[how]
    said = r"call as `loss\(params, batch, key\)`; it got batch\['x'\]: float64\[2,3\], key: key<fry>\[\]"
    assert re.search(said, notes_of(act, error))


@pytest.mark.parametrize("make", [
    lambda key: LSTM.init(key),
    lambda key: rs.cells.Elman(3, 4).init(key),
    lambda key: rs.cells.GRU(3, 4).init(key),
    lambda key: rs.cells.Linear(3, 4).init(key),
    lambda key: rs.wrap.Stack(LSTM).init(key),
    lambda key: rs.wrap.Project(LSTM, 2).init(key),
    lambda key: rs.wrap.Residual(rs.wrap.Dropout(rs.cells.Linear(3, 3), input=0.1)).init(key),
])  # fmt: skip
def test_init_takes_one_key(make):
    for key, came in [(0, "int 0"), (None, "NoneType None"), (jnp.zeros(2), r"float64\[2\]")]:
        with pytest.raises(ValueError, match=rf"`key` must be jax.random.key\(seed\), got {came}"):
            make(key)
    with pytest.raises(ValueError, match=r"`key` must be one key, got an array of keys of shape \(2,\)"):
        make(jax.random.split(jax.random.key(0)))


WEIGHTS = {"w": np.ones((3, 5)), "u": np.ones((5, 5))}


def own(params, h, x):
    h = jnp.tanh(x @ params["w"] + h @ params["u"])
    return h, h


def test_arguments_that_changed_places():
    h_0, xs = np.zeros((2, 5)), np.ones((7, 2, 3))
    assert "`params` is not a dict, but `carry` is one with keys ['u', 'w']: did they change places?" in notes_of(
        lambda: rs.scan(own, h_0, WEIGHTS, xs), TypeError
    )
    said = notes_of(lambda: rs.scan(own, WEIGHTS, h_0, xs.swapaxes(0, 1)), TypeError)
    assert "x has 7 rows at each step, the carry has 2: if xs is (batch, time, ...), pass `time_axis=1`." in said
    assert "change" not in said and "rows" not in notes_of(lambda: rs.scan(own, WEIGHTS, h_0, xs[..., :2]), TypeError)


def test_a_list_of_time_steps_is_to_be_stacked():
    steps = [jnp.ones((2, 3))] * 5
    said = notes_of(lambda: rs.scan(LSTM, PARAMS, None, steps), TypeError)
    assert "x is a list of 5 arrays" in said and "If it is a list of time steps, write `jnp.stack(xs)`." in said
    add = lambda params, s, x: (s + x, s)
    assert "write `jnp.stack(xs)`" in notes_of(lambda: rs.scan(add, None, jnp.zeros(3), steps), TypeError)
    for given, write in [([jnp.ones(())] * 3, r"`jnp.stack\(xs\)`"), ([0.5, 1.5], r"did you mean `jnp.asarray\(xs\)`")]:
        with pytest.raises(rs.SequenceError, match=f"`xs` is a list of .*{write}"):
            rs.scan(add, None, 0.0, given)


def step(params, carry, x):
    return carry, x


@pytest.mark.parametrize(
    "wrapped",
    [functools.partial(step), jax.jit(step), jax.checkpoint(step), jax.jit(functools.partial(functools.partial(step)))],
    ids=["partial", "jit", "checkpoint", "jit of partials"],
)
def test_messages_name_the_function_inside(wrapped):
    assert name_of(wrapped) == "step"
    with pytest.raises(ValueError, match="cell `step` draws no random numbers: it takes no `rng`"):
        rs.scan(wrapped, None, None, jnp.ones(3), key=jax.random.key(0))


def test_messages_show_the_library_cell_inside():
    assert name_of(jax.jit(LSTM)) == name_of(LSTM) == repr(LSTM)


@pytest.fixture
def nothing_told(monkeypatch):
    monkeypatch.setattr(_precision, "_low_precision_told", set())


def long_scan(cell):
    """A scan of 300 steps in bfloat16, whose sums of ones stop growing at 256; seen as shapes only."""
    carry = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), cell.initial_carry(()))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), cell.init(jax.random.key(0)))
    jax.eval_shape(lambda: rs.scan(cell, params, carry, jnp.ones((300, 3), jnp.bfloat16)))


BOUNDED = [
    LSTM,
    rs.cells.GRU(3, 4),
    rs.cells.Elman(3, 4),
    rs.wrap.Project(LSTM, 2),
    rs.wrap.Stack(LSTM, rs.cells.GRU(4, 2)),
]
NOT_BOUNDED = [rs.cells.Linear(3, 4), rs.cells.Elman(3, 4, "relu"), rs.wrap.Stack(LSTM, rs.cells.Linear(4, 2))]


@pytest.mark.parametrize("cell", BOUNDED, ids=repr)
def test_low_precision_is_no_matter_where_nothing_is_summed_up(cell, nothing_told):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        long_scan(cell)
    assert [str(warning.message) for warning in said] == []


@pytest.mark.parametrize("cell", NOT_BOUNDED, ids=repr)
def test_low_precision_is_told_with_the_users_line(cell, nothing_told):
    with pytest.warns(UserWarning, match="bfloat16 and T = 300 > 256: sums of ones stop growing at 256") as said:
        long_scan(cell)
    assert [warning.filename for warning in said] == [__file__]


def test_an_attribute_of_the_users_own_is_no_promise(nothing_told):
    class Sum:
        bounded = (1.5, "yes")

        def __call__(self, params, s, x):
            return s + x, None

    with pytest.warns(UserWarning, match="sums of ones stop growing"):
        rs.scan(Sum(), None, jnp.zeros((), jnp.bfloat16), jnp.ones(300, jnp.bfloat16))


def test_a_field_of_other_arguments_is_told_how_it_is_called():
    def decay(t, y):
        return -y

    cell = rs.ode.RK4(decay, 0.1)
    said = notes_of(lambda: rs.scan(cell, (), cell.start(np.ones(2)), n_steps=3), TypeError)
    assert "`RK4` calls its field as `field(params, t, y, u)`" in said and "`decay` is defined with other" in said


def test_a_field_that_raises_for_another_reason_is_not_blamed_for_its_arguments():
    cell = rs.ode.Euler(lambda params, t, y, u: -y + None, 0.1)
    assert "calls its field" not in notes_of(lambda: rs.scan(cell, (), cell.start(np.ones(2)), n_steps=3), TypeError)


def test_a_list_of_time_steps_with_a_carry_given():
    carry = (jnp.zeros((2, 4)), jnp.zeros((2, 4)))
    with pytest.raises(rs.CarryError, match=r"If xs is a list of time steps, write `jnp.stack\(xs\)`"):
        rs.scan(LSTM, PARAMS, carry, [jnp.ones((2, 3))] * 5)


def test_the_warning_of_fresh_functions_points_at_the_line_that_makes_them():
    with pytest.warns(UserWarning, match="compiled 8 times") as caught:
        for _ in range(8):
            rs.scan(lambda params, h, x: (h + x, h), None, 0.0, jnp.ones(3))
    assert caught[0].filename == __file__


def test_the_warning_of_fresh_functions_comes_under_an_eager_derivative_too():
    """`jax.grad` without `jit` compiles a fresh function at every call, whether it closes over tracers or not."""
    passed = lambda w: rs.scan(lambda params, h, x: (h + params * x, h), w, 0.0, jnp.ones(3))[0]
    closed = lambda w: rs.scan(lambda params, h, x: (h + w * x, h), None, 0.0, jnp.ones(3))[0]
    for loss in (passed, closed):
        with pytest.warns(UserWarning, match="compiled 8 times.*put `jax.jit` around"):
            for _ in range(8):
                assert jax.grad(loss)(2.0) == 3.0


def test_no_warning_under_jit():
    @jax.jit
    def many(w):
        return sum(rs.scan(lambda params, h, x: (h + w * x, h), None, 0.0, jnp.ones(3))[0] for _ in range(9))

    assert many(2.0) == 54.0

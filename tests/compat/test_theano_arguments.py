"""`rnnscan.compat.theano`: no argument is ignored, what has no meaning raises, and errors say what to write."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnscan as rs
from rnnscan.compat import theano
from tests.faults import fails, refused


X = np.arange(1.0, 6.0)


def decay(x, h, *constants):
    return 0.5 * h + x + sum(constants)


def grow(h, *constants):
    return 2 * h + sum(constants)


def square(x, *constants):
    return x * x + sum(constants)


CALLS = {"scan": {"fn": decay, "sequences": X, "outputs_info": 0.3}, "map": {"fn": square, "sequences": X}}
CALLS |= {name: CALLS["scan"] for name in ("reduce", "foldl", "foldr")}
CHANGES = {
    "fn": lambda x, *rest: 3 * x,
    "sequences": X + 1,
    "outputs_info": 0.4,
    "non_sequences": [2.0],
    "n_steps": 3,
    "truncate_gradient": 2,
    "go_backwards": True,
    "mode": "FAST_RUN",
    "name": "layer",
    "profile": True,
    "allow_gc": True,
    "strict": True,
    "return_list": True,
    "trim": False,
}
ROWS = [(name, argument) for name in CALLS for argument in inspect.signature(getattr(theano, name)).parameters]


def everything(function, /, **arguments):
    """All one can see of a call: kinds and values, derivatives, the program's text, or the error."""
    if "trim" in arguments or "strict" in arguments:  # these speak of a step that stops, of one that closes over arrays
        step, offset = arguments["fn"], jnp.asarray(0.0)
        arguments["fn"] = lambda *a: ([step(*a) + offset], theano.until(a[0] > 2))
    call = getattr(theano, function)

    def run(x):
        outputs, updates = call(**{**arguments, "sequences": arguments["sequences"] + x})
        return sum(jnp.sum(y) for y in jax.tree.leaves(outputs)), (outputs, updates)

    try:
        (_, (outputs, updates)), derivative = jax.value_and_grad(run, has_aux=True)(jnp.zeros(5))
        text = "" if updates else jax.jit(run).lower(jnp.zeros(5)).as_text(debug_info=True)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    leaves = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), (outputs, updates, derivative))
    return repr(leaves), "layer" in text


@pytest.mark.parametrize(("name", "argument"), ROWS)
def test_each_argument_changes_something(name, argument):
    default = {argument: not CHANGES[argument]} if argument in ("trim", "strict") else {}
    before = everything(name, **CALLS[name], **default)
    assert everything(name, **{**CALLS[name], argument: CHANGES[argument]}) != before


NAMES = "fn sequences outputs_info non_sequences n_steps truncate_gradient go_backwards mode name profile allow_gc"


def test_signatures_are_theanos():
    parameters = inspect.signature(theano.scan).parameters
    assert list(parameters) == [*NAMES.split(), "strict", "return_list", "trim"]
    defaults = {"fn": inspect.Parameter.empty, "truncate_gradient": -1, "go_backwards": False, "profile": False}
    defaults |= {"strict": False, "return_list": False, "trim": True}
    assert {n: p.default for n, p in parameters.items()} == {n: defaults.get(n) for n in parameters}
    assert list(inspect.signature(theano.reduce).parameters) == [*NAMES.split()[:4], "go_backwards", "mode", "name"]
    assert list(inspect.signature(theano.foldl).parameters) == [*NAMES.split()[:4], "mode", "name"]
    assert inspect.signature(theano.foldr) == inspect.signature(theano.foldl)


def scan(fn=decay, sequences=X, outputs_info=0.3, *rest, **options):
    return lambda: theano.scan(fn, sequences, outputs_info, *rest, **options)


def tapped(**info):
    return scan(lambda x, *past: sum(past), X, info)


def returns(value):
    return scan(lambda x: value(x), X, None)


def traced_n_steps():
    return jax.jit(lambda n: theano.scan(grow, None, 1.0, n_steps=n)[0])(3)


WEIGHT = jnp.array([0.5, 0.7])
FAULTS = [
    fails("T1", rs.TapError, tapped(initial=X, taps=[0]), "output taps must be negative (past values), got 0"),
    fails("T1 future", rs.TapError, tapped(initial=X, taps=[-1, 1]), "must be negative (past values), got 1"),
    fails("T2", rs.TapError, tapped(initial=X, taps=[-2, -2]), "output taps must be different, got [-2, -2]"),
    fails("T3", rs.TapError, tapped(initial=X[:2], taps=[-3]),
          "`outputs_info[0]`: taps [-3] need 3 initial rows, oldest first; got 2"),
    fails("T4", rs.TapError, tapped(initial=1.0, taps=[-2]),
          "taps [-2] need 2 initial rows, oldest first; got a scalar"),
    fails("T5", rs.TapError, scan(square, {"input": X[:3], "taps": 9}, None),
          "`sequences[0]`: tap 9 leaves no steps: T=3"),
    fails("T7 sequences", TypeError, scan(square, {"input": X, "tap": [1]}, None),
          "`sequences[0]` has unknown keys ['tap']; write `dict(input=..., taps=[...])`"),
    fails("T7 outputs", TypeError, tapped(initial=1.0, inplace=None),
          "`outputs_info[0]` has unknown keys ['inplace']; write `dict(initial=..., taps=[...])`"),
    fails("T8", rs.CarryError, scan(lambda x, h: x, X, np.array(1)),
          "`outputs_info[0]` is int64[], but output 0 of `<lambda>` is float64[]. Start from "
          "`value.astype(jnp.float64)`, or return `y.astype(jnp.int64)`; a Python number ...raised by `theano.scan`"),
    fails("T8 float stays", rs.CarryError, scan(lambda x, h: jnp.int64(3), X, 0.5),
          "`outputs_info[0]` is float64[], but output 0 of `<lambda>` is int64[]. Start from `value.astype(jnp.int"),
    fails("T8 key", rs.CarryError, scan(lambda x, h: x, X, jax.random.key(0)), "is what its initial value is: a key"),
    fails("T9 outputs in another order", rs.CarryError,
          scan(lambda x, h: [jnp.stack([x, h[0], x]), h + x], X, [np.ones(2), None]),
          "`outputs_info[0]` is float64[2], but output 0 of `<lambda>` is float64[3]. Output 1 has that shape: are the "
          "outputs in the order of outputs_info?"),
    fails("T9 dtypes in another order", rs.CarryError,
          scan(lambda x, n, h: [h + x, n + 1], X, [np.array(1), np.array(0.5)]),
          "`outputs_info[0]` is int64[], but output 0 of `<lambda>` is float64[]. Output 1 has that dtype"),
    fails("T9 no batch", rs.CarryError, scan(lambda x, h: h + x, np.ones((5, 4, 2)), np.ones(2)),
          "`outputs_info[0]` is float64[2], but output 0 of `<lambda>` is float64[4,2]. Start from "
          "`jnp.broadcast_to(value, (4, 2))`: nothing is broadcast"),
    fails("T9 scalar", rs.CarryError, scan(lambda x, h: h + x, np.ones((5, 2)), 0.0), "from `jnp.full((2,), value)`"),
    fails("T9 grows", rs.CarryError, scan(lambda x, h: jnp.append(h, x), X, np.ones(2)),
          "is float64[3]. An output that is fed back keeps the shape of its initial value"),
    fails("T9 rows", rs.CarryError, scan(lambda x, h: h[:2], X, dict(initial=np.ones((2, 3)), taps=[-2])),
          "each row of `outputs_info[0]` is float64[3], but output 0 of `<lambda>` is float64[2]"),
    fails("taps without initial", rs.TapError, tapped(taps=[-1]), "has taps [-1] without an initial value"),
    fails("initial with taps=None", rs.TapError, tapped(initial=1.0, taps=None),
          "Write None for the first, `dict(initial=..., taps=[-1])` for the second"),
    fails("taps that are no ints", rs.TapError, tapped(initial=1.0, taps=[-1.5]), "must be an int or a list of ints"),
    fails("no input", TypeError, scan(sequences={"taps": [0]}), "`sequences[0]` has no input; write `dict(input=x"),
    fails("scalar sequence", rs.SequenceError, scan(sequences=[X, 2.0]), "`sequences[1]` is a scalar"),
    fails("text", TypeError, scan(sequences="abc"), "`sequences[0]` must be an array or a number, got 'abc'"),
    fails("U2 no bound", rs.SequenceError, scan(grow, None, 1.0), "got neither sequences nor n_steps"),
    fails("too many steps", rs.SequenceError, scan(n_steps=6), "`n_steps=6`, but `sequences[0]` has only 5 steps"),
    fails("negative n_steps", rs.SequenceError, scan(n_steps=-1), "`n_steps` must be >= 0, got -1"),
    fails("n_steps 2.0", TypeError, scan(n_steps=2.0), "`n_steps` must be an int, got 2.0"),
    fails("n_steps True", TypeError, scan(n_steps=True), "`n_steps` must be an int, got True"),
    fails("traced n_steps", TypeError, traced_n_steps, "`n_steps` is a traced value...or a bound and `until`"),
    fails("truncate 0", rs.SequenceError, scan(truncate_gradient=0), "must be -1 (all steps) or at least 1, got 0"),
    fails("truncate 1.5", TypeError, scan(truncate_gradient=1.5), "`truncate_gradient` must be an int, got 1.5"),
    fails("go_backwards", TypeError, scan(go_backwards=1), "`go_backwards` must be True or False, got 1"),
    fails("go_backwards of a fold", TypeError, lambda: theano.reduce(decay, X, 0.3, go_backwards=1),
          "`go_backwards` must be True or False, got 1...raised by `theano.reduce`"),
    fails("mode", ValueError, scan(mode="FAST_RUN"), "`theano.scan` got mode='FAST_RUN'; leave it at None: `jax.jit`"),
    fails("mode of a fold", ValueError, lambda: theano.foldl(decay, X, 0.3, mode=1), "`theano.foldl` got mode=1"),
    fails("profile", ValueError, scan(profile=True), "leave it at False: profile with `jax.profiler.trace`"),
    fails("allow_gc", ValueError, scan(allow_gc=False), "leave it at None: XLA plans the memory"),
    fails("name", TypeError, scan(name=3), "`name` must be a str, got 3"),
    fails("fn", TypeError, scan(3.0), "`theano.scan`: fn must be a function of (sequences..., past outputs..., "
          "non_sequences...); got a float: the order is theano.scan(fn, sequences, ...)"),
    fails("fn second", TypeError, lambda: theano.reduce(X, decay, 0.3), "`theano.reduce`: fn must be ...got an array: "
          "the order is theano.reduce(fn, sequences, ...)"),
    fails("no fn", TypeError, scan(None), "fn must be ...got None"),
    fails("fn as a class", TypeError, scan(dict), "got the class `dict`. Write `dict(...)`"),
    fails("if", jax.errors.TracerBoolConversionError, returns(lambda x: x if x > 2 else -x),
          "Values inside `<lambda>` are traced, not known: use `jnp.where` ...called with 1 argument: sequences[0][t]"),
    fails("and in until", jax.errors.TracerBoolConversionError, returns(lambda x: (x, theano.until(x > 1 and x < 4))),
          "`a & b` for `a and b`"),
    fails("NumPy rows", jax.errors.TracerIntegerConversionError, scan(lambda i: [1.0, 2.0][i], np.arange(2), None),
          "`jnp.asarray(a_list)[i]` for `a_list[i]`"),
    fails("no arguments", TypeError, scan(square, None, None, n_steps=2), "called without arguments (there are no seq"),
    fails("near miss", TypeError, scan(output_info=0.3), "argument `output_info`. Did you mean `outputs_info`?"),
    fails("ours", TypeError, scan(reverse=True), "`theano.scan` has no option `reverse`, which is `rs.scan`'s; write "
          "`go_backwards=True`"),
    fails("scan's", TypeError, lambda: theano.map(square, X, n_steps=3), "`theano.map` has no option `n_steps`"),
    fails("too few outputs", ValueError, scan(outputs_info=[0.3, None]),
          "`decay` returns 1 output, but outputs_info has 2 entries. Give None for each output that is not fed back"),
    fails("too many outputs", ValueError, scan(lambda x, h: [x, h]), "returns 2 outputs...has 1 entry. Give"),
    fails("arguments in another order", TypeError, scan(lambda h: h), "`theano.scan` called with 2 arguments: "
          "sequences[0][t]: float64[], outputs_info[0][t-1]: float64[]"),
    fails("tap names", TypeError, scan(lambda: 0, {"input": X, "taps": [-1, 2]}, {"initial": X, "taps": [-2]}, 3.0),
          "sequences[0][t-1]: float64[], sequences[0][t+2]: float64[], outputs_info[0][t-2]: float64[], "
          "non_sequences[0]: float64[]"),
    fails("updates", TypeError, returns(lambda x: (x, {"shared": x})), "returned updates for 1 shared variable; arrays "
          "do not change in JAX. Make each a state"),
    fails("updates as pairs", TypeError, returns(lambda x: (x, [(1, x), (2, x)])), "updates for 2 shared variables"),
    fails("updates of arrays", TypeError, returns(lambda x: (x, [(x, x)])), "updates for 1 shared variable; arrays"),
    fails("updates beside those of until", TypeError, returns(lambda x: (x, {"n_steps": 1, "stopped": x > 1, "w": x})),
          "updates for 1 shared variable"),
    fails("a dict of outputs", TypeError, returns(lambda x: {"n_steps": x}), "a dict is taken for updates"),
    fails("updates alone", TypeError, returns(lambda x: {"shared": x}), "returned updates for 1 shared variable"),
    fails("until before outputs", rs.CellOutputError, returns(lambda x: (theano.until(x > 2), x)),
          "then until(cond) if any, each at most once and in this order; got (until, float64[])"),
    fails("None", rs.CellOutputError, returns(lambda x: None), "must return outputs"),
    fails("U4 number", rs.CellOutputError, returns(lambda x: (x, theano.until(x))),
          "until(cond) with a scalar bool, got float64[]"),
    fails("U4 vector", rs.CellOutputError, returns(lambda x: (x, theano.until(jnp.array([True, False])))),
          "until(cond) with a scalar bool, got bool[2]"),
    fails("strict", ValueError, scan(lambda x, h: h + x * WEIGHT.sum(), strict=True),
          "strict=True, but `<lambda>` reads float64[2] that is not among its arguments. Pass every array in"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "pattern", "call"), FAULTS)
def test_bad_input(error, pattern, call):
    refused(error, pattern, call)


@pytest.mark.parametrize(
    ("name", "words"),
    [("shared", "pass it as an argument"), ("function", "`jax.jit(function)`"), ("tensor", "`import jax.numpy as T`"),
     ("config", "jax.config.update"), ("grad", "`jax.grad(cost)(params)`"), ("printing", "jax.debug.print")],
)  # fmt: skip
def test_names_that_have_no_place_here_are_answered(name, words):
    with pytest.raises(AttributeError, match=f"`theano.{name}` is not in .*{re.escape(words)}"):
        getattr(theano, name)


def test_other_names_are_as_in_any_module():
    with pytest.raises(AttributeError, match="'rnnscan.compat.theano' has no attribute 'no_such_name'"):
        _ = theano.no_such_name
    from rnnscan.compat.theano.scan_module import until

    assert until is theano.until is theano.scan_module.until and theano.scan_module.scan is theano.scan


def test_strict_takes_what_is_passed():
    outputs, _ = theano.scan(lambda x, h, w: h + x * w.sum(), X, 0.0, non_sequences=WEIGHT, strict=True)
    np.testing.assert_allclose(outputs, 1.2 * np.cumsum(X))


def test_the_name_is_in_errors_and_in_the_program():
    with pytest.raises(rs.SequenceError) as caught:
        theano.scan(decay, X, 0.3, n_steps=9, name="encoder")
    assert "raised by `theano.scan` named 'encoder'" in caught.value.__notes__
    run = lambda x: theano.scan(decay, x, 0.3, name="encoder")[0]
    assert re.search(r'"[^"]*encoder', jax.jit(run).lower(X).as_text(debug_info=True))


class simpleRNN:
    """The tutorial's class: weights on self, the step a method, its output not fed back."""

    def __init__(self, n_in, n_hidden, n_out, seed=0):
        draw = np.random.default_rng(seed)
        self.W_in = jnp.asarray(draw.uniform(-0.5, 0.5, (n_in, n_hidden)))
        self.W_hh = jnp.asarray(draw.uniform(-0.5, 0.5, (n_hidden, n_hidden)))
        self.W_out = jnp.asarray(draw.uniform(-0.5, 0.5, (n_hidden, n_out)))
        self.b_h, self.b_out, self.h0 = jnp.zeros(n_hidden), jnp.zeros(n_out), jnp.zeros(n_hidden)
        self.params = {name: getattr(self, name) for name in ("W_in", "W_hh", "W_out", "b_h", "b_out", "h0")}

    def step(self, x_t, h_tm1):
        h_t = jnp.tanh(jnp.dot(x_t, self.W_in) + jnp.dot(h_tm1, self.W_hh) + self.b_h)
        y_t = jnp.dot(h_t, self.W_out) + self.b_out
        return h_t, y_t

    def cost(self, x, target):
        [h, y], _ = theano.scan(fn=self.step, sequences=x, outputs_info=[self.h0, None])
        return jnp.mean((y - target) ** 2)


def rms_prop(params, gradients, memory, rate=0.02):
    """RMSProp as Theano users wrote it."""
    for name, g in gradients.items():
        memory[name] = 0.9 * memory[name] + 0.1 * g**2
        params[name] = params[name] - rate * g / jnp.sqrt(memory[name] + 1e-6)


def test_the_tutorials_class_trains_with_its_imports_changed():
    """It learns to give back the input of two steps ago, which takes memory: the mean would cost the variance."""
    x = jnp.asarray(np.random.default_rng(4).uniform(-1, 1, (40, 1)))
    target = jnp.concatenate([jnp.zeros((2, 1)), x[:-2]])
    net = simpleRNN(1, 6, 1)

    @jax.jit
    def cost_and_gradients(params):
        def cost(params):
            vars(net).update(params)  # what theano.shared variables were: the class reads its weights from itself
            return net.cost(x, target)

        return jax.value_and_grad(cost)(params)

    params, memory = dict(net.params), dict.fromkeys(net.params, 0.0)
    costs = []
    for _ in range(150):
        value, gradients = cost_and_gradients(params)
        rms_prop(params, gradients, memory)
        costs.append(float(value))
    assert costs[0] > 0.8 * float(jnp.var(target))
    assert costs[-1] < 0.15 * float(jnp.var(target))
    assert all(bool(jnp.any(g != 0)) for g in gradients.values())

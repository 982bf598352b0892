"""Flax's linen and nnx RNN and Haiku's unrolls against `scan`: the same cell functions, or copied weights; float64."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import strategies as st

import rnnscan as rs
from rnnscan import flip_valid
from tests.helpers import assert_close, compile_quickly
from tests.oracles.programs import differential


T, B, IN, HIDDEN = 5, 3, 3, 4
NORMAL = nn.initializers.normal()
F64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
join = lambda parts: jnp.concatenate(list(parts), axis=-1)


def equal(theirs, ours, *arguments):
    """Values, and gradients with respect to every argument, of a loss in which every number counts differently."""

    def uneven(tree):
        return sum(jnp.sum(jnp.cos(a) * jnp.linspace(0.3, 1.7, a.size).reshape(a.shape)) for a in jax.tree.leaves(tree))

    def both(*arguments):
        numbers = tuple(range(len(arguments)))
        losses = [lambda *a, f=f: (uneven(f(*a)), f(*a)) for f in (theirs, ours)]
        return [jax.value_and_grad(loss, numbers, has_aux=True)(*arguments) for loss in losses]

    assert_close(*compile_quickly(both)(*arguments))


def drawn(random, like):
    """Random numbers in the place of every leaf."""
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), like)


def own(params, carry, x):
    """A user's step: two leaves of state, a dict of outputs that are no state."""
    a, n = carry
    a = jnp.tanh(x @ params["w"] + params["u"] * a)
    n = 0.9 * n + a.sum(-1)
    return (a, n), {"part": a[..., :2] * n[..., None], "n": jnp.sin(n)}


def own_start(batch):
    return jnp.zeros((*batch, HIDDEN)), jnp.zeros(batch)


class LinenOwn(nn.RNNCellBase):
    @nn.compact
    def __call__(self, carry, x):
        w, u = self.param("w", NORMAL, (IN, HIDDEN), jnp.float64), self.param("u", NORMAL, (HIDDEN,), jnp.float64)
        return own({"w": w, "u": u}, carry, x)

    def initialize_carry(self, rng, input_shape):
        return own_start(input_shape[:-1])

    @property
    def num_feature_axes(self):
        return 1


class NnxOwn(nnx.RNNCellBase):
    def __init__(self, *sizes, rngs, **dtypes):
        self.w, self.u = nnx.Param(jnp.zeros((IN, HIDDEN))), nnx.Param(jnp.zeros(HIDDEN))

    def __call__(self, carry, x):
        return own({"w": self.w[...], "u": self.u[...]}, carry, x)

    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        return own_start(input_shape[:-1])

    @property
    def num_feature_axes(self):
        return 1


class HaikuOwn(hk.RNNCore):
    def __call__(self, x, state):
        w, u = (hk.get_parameter(name, shape, jnp.float64, jnp.zeros)
                for name, shape in (("w", (IN, HIDDEN)), ("u", (HIDDEN,))))  # fmt: skip
        return own({"w": w, "u": u}, state, x)[::-1]

    def initial_state(self, batch_size):
        return own_start(() if batch_size is None else (batch_size,))


def gates(p, side, names, part="kernel"):
    return join(p[side + name][part] for name in names)


COPIES = {  # rnnscan's cell, and its params from those of linen
    "SimpleCell": (rs.cells.Elman, lambda p: {"w_x": p["i"]["kernel"], "w_h": p["h"]["kernel"], "b": p["i"]["bias"]}),
    "LSTMCell": (rs.cells.LSTM, lambda p: {
        "w_x": gates(p, "i", "ifgo"), "w_h": gates(p, "h", "ifgo"), "b": gates(p, "h", "ifgo", "bias")}),
    "GRUCell": (rs.cells.GRU, lambda p: {
        "w_x": gates(p, "i", "rzn"), "w_h": gates(p, "h", "rzn"), "b": gates(p, "i", "rzn", "bias"),
        "b_h": jnp.pad(p["hn"]["bias"], (2 * HIDDEN, 0))}),
}  # fmt: skip
COPIES["OptimizedLSTMCell"] = COPIES["LSTMCell"]
LINEN = {name: getattr(nn, name)(HIDDEN, **F64) for name in (*COPIES, "MGUCell")} | {"own": LinenOwn()}
OF_RNN = {
    "reverse": st.booleans(),
    "keep_order": st.booleans(),
    "time_major": st.booleans(),
    "return_carry": st.booleans(),
    "unroll": st.integers(1, 2),
    "first_carry": st.booleans(),
    "batch": st.sampled_from([(), (B,), (2, B)]),
    "lengths": st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B),
    "seed": st.integers(0, 10**6),
}


def check_rnn(program, theirs_of, step, params_like, start):
    """Both RNN classes take the same arguments; `theirs_of(options)(params, xs, **call)`, `step` as for `scan`."""
    random = np.random.default_rng(program["seed"])
    batch = program["batch"]
    lengths = np.array(program["lengths"]) if batch == (B,) and program["lengths"] else None
    axis = 0 if program["time_major"] else len(batch)
    xs = np.moveaxis(random.normal(size=(T, *batch, IN)), 0, axis)
    names = ("reverse", "keep_order", "time_major", "unroll")
    rnn = theirs_of({name: program[name] for name in names})
    valid = np.ones((T, *batch), bool) if lengths is None else np.arange(T)[:, None] < lengths
    valid = np.moveaxis(valid, 0, axis)
    zero = lambda y: jnp.where(valid.reshape(valid.shape + (1,) * (y.ndim - valid.ndim)), y, 0)

    def theirs(params, xs, *first):
        result = rnn(params, xs, initial_carry=first[0] if first else None, seq_lengths=lengths,
                     return_carry=program["return_carry"])  # fmt: skip
        carry, ys = result if program["return_carry"] else ((), result)
        return carry, jax.tree.map(zero, ys)  # outputs in padding are whatever the cell made of it

    def ours(params, xs, *first):
        carry, ys = rs.scan(step, params, first[0] if first else start(batch), xs, lengths=lengths, time_axis=axis,
                            reverse=program["reverse"])  # fmt: skip
        if program["reverse"] and not program["keep_order"]:
            ys = flip_valid(ys, lengths, time_axis=axis)
        return (carry if program["return_carry"] else ()), ys

    first = [drawn(random, start(batch))] if program["first_carry"] else []
    equal(theirs, ours, drawn(random, params_like), xs, *first)


@differential(st.fixed_dictionaries({"kind": st.sampled_from(list(LINEN)), "copied": st.booleans(), **OF_RNN}), full=80)
def test_linen_rnn(program):
    cell = LINEN[program["kind"]]

    def theirs_of(options):
        return lambda params, xs, **call: nn.RNN(cell, **options).apply({"params": {"cell": params}}, xs, **call)

    def step(params, carry, x):
        return cell.apply({"params": params}, carry, x)

    def copied(params, carry, x):
        make, convert = COPIES[program["kind"]]
        swap = (lambda c: c[::-1]) if isinstance(carry, tuple) else (lambda c: c)  # Flax: (c, h)
        carry, y = make(IN, HIDDEN)(convert(params), swap(carry), x)
        return swap(carry), y

    start = lambda batch: cell.initialize_carry(jax.random.key(0), (*batch, IN))
    like = cell.init(jax.random.key(0), start(()), jnp.ones(IN))["params"]
    check_rnn(program, theirs_of, copied if program["copied"] and program["kind"] in COPIES else step, like, start)


NNX = {name: getattr(nnx, name) for name in ("SimpleCell", "LSTMCell", "OptimizedLSTMCell", "GRUCell")}
NNX["own"] = NnxOwn


@differential(st.fixed_dictionaries({"kind": st.sampled_from(list(NNX)), **OF_RNN}), full=40)
def test_nnx_rnn(program):
    cell = NNX[program["kind"]](IN, HIDDEN, rngs=nnx.Rngs(0), **F64)
    definition, params, rest = nnx.split(cell, nnx.Param, ...)
    build = lambda params: nnx.merge(definition, params, rest)

    def theirs_of(options):
        return lambda params, xs, **call: nnx.RNN(build(params), **options)(xs, **call)

    step = lambda params, carry, x: build(params)(carry, x)
    check_rnn(program, theirs_of, step, params, lambda batch: cell.initialize_carry((*batch, IN), nnx.Rngs(0).carry))


def from_lstm(p):
    """Haiku: one product over [x, h], gates i g f o, and 1 added to f in the step."""
    w = jnp.split(p["lstm/linear"]["w"], 4, axis=-1)
    b = jnp.split(p["lstm/linear"]["b"], 4)
    w, b = join(w[k] for k in (0, 2, 1, 3)), join((b[0], b[2] + 1, b[1], b[3]))
    return {"w_x": w[:IN], "w_h": w[IN:], "b": b}


def from_gru(p):
    """Haiku: gates z r a, and z weighs the new state, so that our z is 1 - z: its block changes sign."""
    z, r, a = (slice(k * HIDDEN, (k + 1) * HIDDEN) for k in range(3))
    turn = lambda w: join((w[..., r], -w[..., z], w[..., a]))
    return {"w_x": turn(p["gru"]["w_i"]), "w_h": turn(p["gru"]["w_h"]), "b": turn(p["gru"]["b"])}


def from_vanilla(p):
    below, above = p["vanilla_rnn/linear"], p["vanilla_rnn/linear_1"]
    return {"w_x": below["w"], "w_h": above["w"], "b": below["b"], "b_h": above["b"]}


HAIKU = {  # a maker of the core, rnnscan's cell, and its params
    "own": (HaikuOwn, None, None),
    "DeepRNN": (lambda: hk.DeepRNN([hk.LSTM(HIDDEN), jnp.tanh, hk.GRU(2)]), None, None),
    "VanillaRNN": (lambda: hk.VanillaRNN(HIDDEN), rs.cells.Elman(IN, HIDDEN, "relu", double_bias=True), from_vanilla),
    "LSTM": (lambda: hk.LSTM(HIDDEN), rs.cells.LSTM(IN, HIDDEN), from_lstm),
    "GRU": (lambda: hk.GRU(HIDDEN), rs.cells.GRU(IN, HIDDEN, reset_after=False), from_gru),
}
OF_UNROLL = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(list(HAIKU)),
        "copied": st.booleans(),
        "static": st.booleans(),
        "reverse": st.booleans(),
        "return_all_states": st.booleans(),
        "unroll": st.integers(1, 2),
        "time_major": st.booleans(),
        "batched": st.booleans(),
        "resets": st.booleans(),
        "seed": st.integers(0, 10**6),
    }
)


@differential(OF_UNROLL, full=80)
def test_haiku_unrolls(program):
    """`ResetCore` starts afresh before the step it flags in scan order; `resets` are boundaries, whichever way."""
    random = np.random.default_rng(program["seed"])
    make, cell, convert = HAIKU[program["kind"]]
    batch = (B,) if program["batched"] else ()
    axis = 0 if program["time_major"] or not batch else 1
    backward = program["reverse"] and not program["static"]
    all_states = program["return_all_states"] and not program["static"]
    flags = random.random((T, *batch)) < 0.4
    xs, flags_there = np.moveaxis(random.normal(size=(T, *batch, IN)), 0, axis), np.moveaxis(flags, 0, axis)

    def unroll(xs, state):
        core = make()
        if program["resets"]:
            core, xs = hk.ResetCore(core), (xs, jnp.asarray(flags_there))
        if program["static"]:
            return hk.static_unroll(core, xs, state, time_major=axis == 0)
        return hk.dynamic_unroll(core, xs, state, axis == 0, backward, all_states, program["unroll"])

    core = hk.without_apply_rng(hk.transform(lambda x, state: make()(x, state)))
    zeros = hk.transform(lambda: make().initial_state(B if batch else None)).apply({}, None)
    theirs_of = hk.without_apply_rng(hk.transform(unroll)).apply

    def step(params, carry, x):
        if cell is not None and program["copied"]:
            new, y = cell(convert(params), carry, x)
            carry = jax.tree.unflatten(jax.tree.structure(carry), jax.tree.leaves(new))  # LSTMState: (h, c), as here
        else:
            y, carry = core.apply(params, x, carry)
        return carry, (y, carry) if all_states else y

    def ours(params, carry, xs):
        options = {"reverse": backward, "time_axis": axis}
        if program["resets"]:
            if backward:  # before the flagged step in scan order is the boundary after it in time
                start = lambda c, z: jnp.where(flags[-1].reshape(*batch, *(1,) * (c.ndim - len(batch))), z, c)
                carry = jax.tree.map(start, carry, zeros)
            boundaries = np.concatenate([np.zeros_like(flags[:1]), flags[:-1]]) if backward else flags
            options |= {"resets": np.moveaxis(boundaries, 0, axis), "reset_carry": zeros}
        carry, out = rs.scan(step, params, carry, xs, **options)
        return out if all_states else (out, carry)

    params = core.init(jax.random.key(0), jnp.ones((*batch, IN)), zeros)
    theirs = lambda params, carry, xs: theirs_of(params, xs, carry)
    equal(theirs, ours, drawn(random, params), drawn(random, zeros), xs)

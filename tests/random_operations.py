"""Whatever else random cells are made of: functions, control flow, integers, random numbers, leaves of the carry.

Each takes values of shape `(rows, width)` that the step has and defines a new one; what else it needs it adds: params,
weights to close over, inputs, leaves of the carry.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.random_writer import ACTIVATIONS, Operation, product, registering


OTHERS: dict[str, Operation] = {}
"""Name -> what writes it."""
operation = registering(OTHERS)

KEYS = ("unsafe_rbg", "unsafe_rbg", "threefry2x32")  # the first is for the compiler a hundredth of the second


@operation
def activation(w):
    a = w.pick()
    w.define(f"{w.choose(ACTIVATIONS)}({a})", w.width[a])


@operation
def elementwise_params(w):
    a = w.pick()
    n = w.width[a]
    forms = (
        lambda: f"{w.array(n)} * {a}",
        lambda: f"{a} * {w.array()} + {w.array(n)}",
        lambda: f"{a} / (1 + jax.nn.softplus({w.array(n)}))",
    )
    w.define(w.choose(forms)(), n)


@operation
def two_values(w):
    a = w.pick()
    b = w.pick(w.width[a])
    forms = (f"{a} * {b}", f"{a} - 0.5 * {b}", f"jax.nn.sigmoid({a}) * {b}", f"jnp.maximum({a}, 0.9 * {b})")
    w.define(w.choose(forms), w.width[a])


@operation
def layer_norm(w):
    a = product(w, w.pick(), 4)
    norm = "(lambda a: (a - a.mean(-1, keepdims=True)) * jax.lax.rsqrt(a.var(-1, keepdims=True) + 0.1))"
    w.define(f"{norm}({a}) * {w.array(4)} + {w.array(4)}", 4)


@operation
def softmax(w):
    a = w.pick()
    w.define(f"{w.choose(('jax.nn.softmax', 'jax.nn.log_softmax'))}({a}, axis=-1)", w.width[a])


@operation
def reduction(w):
    a = w.pick()
    kind = w.choose(("sum", "mean", "max", "prod"))
    if kind == "max":  # of what XLA computes once: where it computes `a` twice, with two roundings, `a == max(a)` fails
        a = w.define(f"{a} @ {w.matrix(w.width[a], w.width[a])}", w.width[a])
    n = w.size()
    w.define(f"jnp.tanh(jnp.{kind}({a}, axis=-1, keepdims=True)) * {w.pick(n)}", n)


@operation
def moves_of_features(w):
    a = w.pick()
    forms = ("{}[:, ::-1]", "jnp.cumsum({}, axis=-1)", "jnp.roll({}, 1, axis=1)", "jnp.sort({}, axis=-1)")
    w.define(w.choose(forms).format(a), w.width[a])


@operation
def where(w):
    a = w.pick()
    b = w.pick(w.width[a])
    forms = (
        f"jnp.where({a} > 0.17, {b}, 0.3 * {a})",
        f"jnp.where(jnp.sum({w.pick()}, -1, keepdims=True) > 0.11, {a}, {b})",
        f"jnp.clip({a}, -0.43, 0.57)",
        f"jax.lax.select({b} < 0.21, {a}, -{a})",
    )
    w.define(w.choose(forms), w.width[a])


@operation
def cond(w):
    a, b = w.pick(), w.pick()
    n = w.width[b]
    w.mixed = True  # one predicate for all rows
    branches = f"lambda v: jnp.tanh(v @ {w.matrix(n, n)}), lambda v: 0.5 * v"
    w.define(f"jax.lax.cond(jnp.sum({a}) > 0.13, {branches}, {b})", n)


@operation
def inner_scan(w):
    a = w.pick()
    n = w.width[a]
    w.define(f"jax.lax.scan(lambda s, w: (jnp.tanh(s @ w), None), {a}, {w.array(2, n, n)})[0]", n)


@operation
def fori_loop(w):
    a = w.pick()
    w.define(f"jax.lax.fori_loop(0, 2, lambda i, s: jnp.sin(s) + 0.3 * {a}, {a})", w.width[a])


def add_counter(w):
    """A counter in the carry: one for each row or one for all."""
    k, alone = w.fresh("k"), w.chance(0.4)
    w.mixed |= alone
    w.leaves[k] = (np.zeros(() if alone else w.rows, np.int32), f"{k} + 1")
    return k, alone


@operation
def counter_in_the_carry(w):
    (k, alone), m = add_counter(w), w.size()
    looked_up = f"jnp.take({w.matrix(3, m)}, {k} % 3, axis=0)"
    w.define(f"{w.pick(m)} + {looked_up}", m)
    if alone:
        w.define(f"{w.pick(m)} * jax.lax.dynamic_index_in_dim({w.array(2, m)}, {k} % 2, keepdims=False)", m)


@operation
def integer_input(w):
    i, m = w.fresh("i"), w.size()
    w.inputs[i] = w.numbers.integers(0, 3, (w.n_steps, w.rows)).astype(np.int32)
    table = w.matrix(3, m)
    forms = (f"jnp.take({table}, {i}, axis=0)", f"{table}[{i}]", f"jax.nn.one_hot({i}, 3) @ {table}")
    w.define(w.choose(forms), m)


@operation
def input_without_features(w):
    s = w.fresh("s")
    w.inputs[s] = w.away(w.n_steps, w.rows)
    w.define(f"{w.pick(2)} * {s}[:, None]", 2)


@operation
def delayed_input(w):
    if "x" in w.width:
        name = w.fresh("x_tm")
        w.leaves[name] = (w.away(w.rows, w.width["x"]), "x")
        w.width[name] = w.width["x"]
        product(w, name, w.size())


@operation
def leaf_never_read(w):
    a = w.pick()
    w.leaves[w.fresh("log")] = (w.away(w.rows, w.width[a]), f"jnp.tanh({a})")


@operation
def leaf_never_changed(w):
    name, n = w.fresh("same"), w.size()
    w.leaves[name] = (w.away(w.rows, n), name)
    if w.chance(0.7):
        w.define(f"{name} * {w.pick(n)}", n)


@operation
def second_state(w):
    c, a = w.fresh("c"), product(w, w.pick(), 3)
    gate = w.define(f"jax.nn.sigmoid({w.pick(3)})", 3)
    w.define(f"{gate} * {c} + (1 - {gate}) * jnp.tanh({a})", 3)
    w.leaves[c] = (w.away(w.rows, 3), list(w.width)[-1])


@operation
def running_mean(w):
    m, a = w.fresh("m"), w.pick()
    w.mixed = True
    w.leaves[m] = (w.away(), f"0.7 * {m} + 0.3 * jnp.tanh(jnp.mean({a}))")
    w.define(f"{a} - {m}", w.width[a])


@operation
def batch_norm(w):
    a = w.pick()
    w.mixed = True
    w.define(f"({a} - {a}.mean(0)) / jnp.sqrt({a}.var(0) + 0.5)", w.width[a])


@operation
def key_in_the_carry(w):
    key, n = w.fresh("key"), w.size()
    w.mixed = True
    start = functools.partial(jax.random.key, w.integer(0, 99), impl=w.choose(KEYS))
    w.leaves[key] = (start, f"{key}s[0]")
    w.lines.append(f"{key}s = jax.random.split({key})")
    w.define(f"{w.pick(n)} + 0.2 * jax.random.normal({key}s[1], ({w.rows}, {n}))", n)


@operation
def noise(w):
    a = w.pick()
    w.noise = True
    draw = w.choose(("per_step", "per_step", "per_sequence"))
    forms = (
        f"{a} + 0.2 * jax.random.normal(rng.{draw}(), {a}.shape)",
        f"{a} * jax.random.bernoulli(rng.child(1).{draw}(), 0.6, {a}.shape).astype({a}.dtype)",
    )
    w.define(w.choose(forms), w.width[a])


@operation
def custom_vjp(w):
    a, m = w.pick(), w.size()
    w.own_rule = "vjp"
    w.define(w.choose((f"half_backward({a} @ {w.matrix(w.width[a], m)})",
                       f"half_product({a}, {w.matrix(w.width[a], m)})")), m)  # fmt: skip


@operation
def custom_jvp(w):
    a = w.pick()
    w.own_rule = w.own_rule or "jvp"
    w.define(f"own_slope({a})", w.width[a])


@operation
def checkpoint(w):
    a = w.pick()
    n = w.width[a]
    w.define(f"jax.checkpoint(lambda v: jnp.tanh(v @ {w.matrix(n, n)}) * v)({a})", n)


@operation
def nested_jit(w):
    a, m = w.pick(), w.size()
    w.define(f"jax.jit(lambda v, w: jax.nn.relu(v @ w) + v.sum(-1, keepdims=True))({a}, {w.matrix(w.width[a], m)})", m)


@operation
def stop_gradient(w):
    a = w.pick()
    w.define(f"jax.lax.stop_gradient({a}) * {w.pick(w.width[a])}", w.width[a])


@operation
def numpy_constant(w):
    a, n = w.pick(), w.size()
    constant = np.round(w.away(w.width[a], n), 2).tolist()
    w.define(f"{a} @ np.array({constant})", n)


@jax.custom_vjp
def half_backward(v):
    """Its backward rule is not its derivative, so that a lost rule shows."""
    return jnp.sin(v)


half_backward.defvjp(lambda v: (jnp.sin(v), v), lambda v, g: (0.5 * g * jnp.cos(v),))


@jax.custom_vjp
def half_product(v, w):
    return v @ w


half_product.defvjp(lambda v, w: (v @ w, (v, w)), lambda saved, g: (0.5 * g @ saved[1].T, 0.5 * saved[0].T @ g))


@jax.custom_jvp
def own_slope(v):
    """Its tangent rule is not its derivative either."""
    return jnp.sin(v)


own_slope.defjvp(lambda primals, tangents: (own_slope(*primals), 0.7 * tangents[0] * jnp.cos(primals[0])))
FUNCTIONS = {"half_backward": half_backward, "half_product": half_product, "own_slope": own_slope}
"""What the text of a cell may call besides `jax`, `jnp` and `np`."""

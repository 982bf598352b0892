"""The layers of other JAX libraries, each as its own documentation says to run it, with the weights of a problem.

Each maker takes a `Problem` and gives a `Contender`, or raises `Absent`. Blocks of gates come as `rs.cells` has them:
LSTM i f g o, GRU r z n.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .contenders import OF_HAIKU, Absent, Contender, Problem, Weights


def blocks(array: jax.Array, order: tuple[int, ...], axis: int = -1) -> jax.Array:
    """The gates of `array` in another order; `order[k]` is the block that comes as the k-th."""
    parts = jnp.split(array, len(order), axis)
    return jnp.concatenate([parts[k] for k in order], axis)


def linen(problem: Problem, optimized: bool = False) -> Contender:
    """`flax.linen.RNN` over SimpleCell, LSTMCell, GRUCell; `optimized`: OptimizedLSTMCell."""
    if optimized and problem.cell != "lstm":
        raise Absent("only the LSTM has an optimised cell")
    from flax import linen as nn

    dtype = jnp.dtype(problem.dtype)
    options = {"features": problem.shape[3], "dtype": dtype, "param_dtype": dtype}
    cells = {"elman": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell if optimized else nn.LSTMCell, "gru": nn.GRUCell}
    layer = nn.RNN(cells[problem.cell](**options), time_major=True)
    carry = (problem.zeros(), problem.zeros()) if problem.cell == "lstm" else problem.zeros()

    def into(w: Weights) -> Any:
        if problem.cell == "elman":
            cell = {"i": {"kernel": w["w_x"], "bias": w["b"]}, "h": {"kernel": w["w_h"]}}
        else:
            gates = "ifgo" if problem.cell == "lstm" else "rzn"
            x, h, b = (dict(zip(gates, jnp.split(w[n], len(gates), -1), strict=True)) for n in ("w_x", "w_h", "b"))
            cell = {f"i{k}": {"kernel": x[k]} for k in gates} | {f"h{k}": {"kernel": h[k]} for k in gates}
            for k in gates:  # the LSTM has its bias at h, the GRU at i
                cell[f"{'h' if problem.cell == 'lstm' else 'i'}{k}"]["bias"] = b[k]
            if problem.cell == "gru":
                cell["hn"]["bias"] = w["b_hn"]
        return {"params": {"cell": cell}}

    forward = lambda params, xs: layer.apply(params, xs, initial_carry=carry)
    return Contender(into, forward, note=f"nn.RNN({cells[problem.cell].__name__}, time_major=True)")


def linen_optimized(problem: Problem) -> Contender:
    return linen(problem, optimized=True)


def nnx(problem: Problem) -> Contender:
    """`flax.nnx.RNN` over SimpleCell, OptimizedLSTMCell (the faster of its two), GRUCell (which has no `b_hn`)."""
    from flax import nnx as flax

    dtype, (_, _, n_in, n) = jnp.dtype(problem.dtype), problem.shape
    cells = {"elman": flax.SimpleCell, "lstm": flax.OptimizedLSTMCell, "gru": flax.GRUCell}
    cell = cells[problem.cell](n_in, n, dtype=dtype, param_dtype=dtype, rngs=flax.Rngs(0))
    graph, _, rest = flax.split(flax.RNN(cell, time_major=True), flax.Param, ...)
    carry = (problem.zeros(), problem.zeros()) if problem.cell == "lstm" else problem.zeros()

    def into(w: Weights) -> Any:
        i, h = {"kernel": w["w_x"]}, {"kernel": w["w_h"]}
        (h if problem.cell == "lstm" else i)["bias"] = w["b"]
        return {"cell": {"dense_i": i, "dense_h": h}}

    def forward(params: Any, xs: jax.Array) -> jax.Array:
        return flax.merge(graph, flax.State(jax.tree.map(flax.Param, params)), rest)(xs, initial_carry=carry)

    note = f"nnx.RNN({cells[problem.cell].__name__}, time_major=True)"
    return Contender(into, forward, lacks=("b_hn",), note=note)


def haiku(problem: Problem) -> Contender:
    """`hk.dynamic_unroll` of VanillaRNN (whose activation is relu), LSTM, GRU (which resets before the product)."""
    import haiku as hk

    n, dtype = problem.shape[3], problem.dtype
    cores = {"elman": lambda: hk.VanillaRNN(n, double_bias=False), "lstm": lambda: hk.LSTM(n), "gru": lambda: hk.GRU(n)}

    def unrolled(xs: jax.Array) -> jax.Array:
        core = cores[problem.cell]()
        start = jax.tree.map(lambda leaf: leaf.astype(dtype), core.initial_state(xs.shape[1]))
        return hk.dynamic_unroll(core, xs, start)[0]

    def into(w: Weights) -> Any:
        if problem.cell == "elman":
            return {"vanilla_rnn/linear": {"w": w["w_x"], "b": w["b"]}, "vanilla_rnn/linear_1": {"w": w["w_h"]}}
        if problem.cell == "lstm":  # i g f o, one matrix for [x, h], and 1 is added to the forget gate in the step
            b = w["b"] - jnp.repeat(jnp.array([0, 1, 0, 0], w["b"].dtype), n)
            w = {"w": jnp.concatenate([w["w_x"], w["w_h"]]), "b": b}
            return {"lstm/linear": {name: blocks(leaf, (0, 2, 1, 3)) for name, leaf in w.items()}}
        own = {"w_i": w["w_x"], "w_h": w["w_h"], "b": w["b"]}  # z r n, and its z weighs the new state: 1 - ours
        signs = jnp.repeat(jnp.array([-1, 1, 1], w["b"].dtype), n)
        return {"gru": {name: signs * blocks(leaf, (1, 0, 2)) for name, leaf in own.items()}}

    run = hk.without_apply_rng(hk.transform(unrolled)).apply
    variant = OF_HAIKU.get(problem.cell, "")
    lacks = ("b_hn",) if problem.cell == "gru" else ()
    name = {"elman": "VanillaRNN(double_bias=False)", "lstm": "LSTM", "gru": "GRU"}[problem.cell]
    return Contender(into, run, variant=variant, lacks=lacks, note=f"hk.dynamic_unroll of hk.{name}")


def equinox(problem: Problem) -> Contender:
    """`jax.vmap` of LSTMCell, GRUCell in `lax.scan`."""
    if problem.cell == "elman":
        raise Absent("Equinox has no Elman cell")
    import equinox as eqx

    kind = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}[problem.cell]
    made = kind(problem.shape[2], problem.shape[3], dtype=jnp.dtype(problem.dtype), key=jax.random.key(0))
    lstm = problem.cell == "lstm"
    carry = (problem.zeros(), problem.zeros()) if lstm else problem.zeros()
    names = ("weight_ih", "weight_hh", "bias", *(() if lstm else ("bias_n",)))

    def into(w: Weights) -> Any:
        leaves = (w["w_x"].T, w["w_h"].T, w["b"], *(() if lstm else (w["b_hn"],)))
        return eqx.tree_at(lambda cell: [getattr(cell, name) for name in names], made, leaves)

    def forward(cell: Any, xs: jax.Array) -> jax.Array:
        def step(state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            state = jax.vmap(cell)(x, state)
            return state, state[0] if lstm else state

        return lax.scan(step, carry, xs)[1]

    return Contender(into, forward, note=f"lax.scan of jax.vmap(eqx.nn.{kind.__name__})")


def keras(problem: Problem) -> Contender:
    """`stateless_call` of SimpleRNN, LSTM, GRU, batch first, on the JAX backend."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise Absent(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=jax")
    T, B, n_in, n = problem.shape
    kind = {"elman": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[problem.cell]
    layer = kind(n, return_sequences=True, dtype=problem.dtype)
    layer.build((B, T, n_in))
    rest = [variable.value for variable in layer.non_trainable_variables]

    def into(w: Weights) -> Any:
        if problem.cell != "gru":
            return [w["w_x"], w["w_h"], w["b"]]  # i f c o is our i f g o
        x, h, b = (blocks(w[name], (1, 0, 2)) for name in ("w_x", "w_h", "b"))  # z r h
        return [x, h, jnp.stack([b, jnp.concatenate([jnp.zeros(2 * n, b.dtype), w["b_hn"]])])]

    forward = lambda params, xs: layer.stateless_call(params, rest, xs)[0]
    note = f"keras.layers.{kind.__name__}.stateless_call" + ("; double bias" if problem.cell == "gru" else "")
    return Contender(into, forward, batch_major=True, note=note)


def jax_rnn(problem: Problem) -> Contender:
    """`jax.experimental.rnn.lstm`: cuDNN's LSTM, in float32 only."""
    if problem.cell != "lstm" or problem.dtype != "float32":
        raise Absent("jax.experimental.rnn has an LSTM in float32 and nothing else")
    if jax.default_backend() != "gpu":
        raise Absent("cuDNN needs a GPU")
    from jax.experimental import rnn

    return cudnn(problem, rnn.lstm)


def cudnn(problem: Problem, lstm: Any) -> Contender:
    """The layer around `lstm`, which is given apart so that the layout of its weights can be tested without a GPU."""
    T, B, n_in, n = problem.shape
    start, lengths = jnp.zeros((1, B, n), problem.dtype), jnp.full(B, T, jnp.int32)

    def into(w: Weights) -> jax.Array:  # W_ih, W_hh, b_ih, b_hh in one vector; i f g o
        return jnp.concatenate([w["w_x"].T.ravel(), w["w_h"].T.ravel(), w["b"], jnp.zeros_like(w["b"])])

    def forward(weights: jax.Array, xs: jax.Array) -> jax.Array:
        return lstm(xs, start, start, weights, lengths, n_in, n, 1, 0.0, False)[0]

    return Contender(into, forward, batch_major=True, note="jax.experimental.rnn.lstm; double bias")

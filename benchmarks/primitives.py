"""What the choices of `optimize=True` rest on: the same work said in several ways. `python -m benchmarks.primitives`.

Each question is a loop (or one product) written in the ways between which the optimiser chooses, timed in turn:

* **back**: the backward product `d w^T` of rows with a matrix, with w as it lies (`d, w` contracted over their last
  axes) and with a copy of w that was transposed beforehand;
* **join**: the cotangents of G gates made into one matrix before that product, by `concatenate` along the last axis, by
  way of an axis more, by padding and adding, or not at all (a product for each gate);
* **batch**: `(T * B, in) @ (in, k)` as one product of two matrices, as one with three axes, as T in a loop;
* **gates**: the forward loop of an LSTM whose input products were made beforehand, cut into gates in it or before;
* **store**: the forward loop of an LSTM that stacks some of what its derivative needs, with the operations that XLA
  makes of the loop's body;
* **layer**: the whole LSTM forward: both products in the loop, one product with `[x, h]` there, or the input's
  beforehand, cut into gates or with a product for each gate.
"""

import argparse
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from . import timing


SHAPES = (
    (28, 150, 28, 150), (100, 32, 64, 128), (1000, 8, 64, 128), (100, 64, 512, 512), (256, 256, 256, 32),
    (672, 1, 32, 32),
)  # fmt: skip
FAST = ((4, 3, 2, 5),)
QUESTIONS = ["back", "join", "batch", "gates", "store", "layer"]
GATES = 4
STEPS = 40  # of the loops that repeat one step

Ways = dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]


def back(batch: int, hidden: int) -> Ways:
    """`d w^T` in a loop."""
    w = _normal(0, hidden, GATES * hidden) / hidden
    d = _normal(1, batch, hidden)
    as_it_lies = lambda c, w: lax.dot_general(jnp.tile(c, GATES), w, (((1,), (1,)), ((), ())))
    return {
        "w as it lies": (_repeat(as_it_lies), (d, w)),
        "w transposed before": (_repeat(lambda c, w: jnp.tile(c, GATES) @ w), (d, w.T + 0)),
    }


def join(batch: int, hidden: int) -> Ways:
    """Gates' cotangents joined, then the product, in a loop that stacks them."""
    w = _normal(0, GATES * hidden, hidden) / hidden
    factors = tuple(_normal(i, STEPS, batch, hidden) for i in range(GATES))
    d = _normal(9, batch, hidden)

    def padded(parts: Any) -> Any:
        zero, n = jnp.zeros((), d.dtype), hidden
        return sum(lax.pad(p, zero, ((0, 0, 0), (i * n, (GATES - 1 - i) * n, 0))) for i, p in enumerate(parts))

    joins = {
        "concatenate": lambda parts: jnp.concatenate(parts, -1),
        "an axis more": lambda parts: jnp.stack(parts, 1).reshape(batch, GATES * hidden),
        "pad and add": padded,
    }

    def loop(joined: Callable[..., Any]) -> Callable[..., Any]:
        def step(c: Any, ks: Any) -> Any:
            z = joined([c * k for k in ks])
            return z @ w, z

        return lambda d, ks: lax.scan(step, d, ks)

    def apart(d: Any, ks: Any) -> Any:
        ws = jnp.split(w, GATES)

        def step(c: Any, ks: Any) -> Any:
            parts = [c * k for k in ks]
            return sum(p @ v for p, v in zip(parts, ws, strict=True)), parts

        return lax.scan(step, d, ks)

    return {name: (loop(way), (d, factors)) for name, way in joins.items()} | {"not at all": (apart, (d, factors))}


def batch(n_steps: int, rows: int, in_size: int, hidden: int) -> Ways:
    """The input's product for all steps."""
    xs, w = _normal(0, n_steps, rows, in_size), _normal(1, in_size, GATES * hidden)
    flat = lambda xs, w: (xs.reshape(-1, in_size) @ w).reshape(n_steps, rows, GATES * hidden)
    return {
        "two axes": (flat, (xs, w)),
        "three axes": (lambda xs, w: xs @ w, (xs, w)),
        "a step at a time": (lambda xs, w: lax.scan(lambda c, x: (c, x @ w), (), xs)[1], (xs, w)),
    }


def gates(n_steps: int, rows: int, hidden: int) -> Ways:
    """An LSTM's loop over the products of its input."""
    seq, w = _normal(0, n_steps, rows, GATES * hidden), _normal(1, hidden, GATES * hidden) / hidden**0.5
    start = (jnp.zeros((rows, hidden)), jnp.zeros((rows, hidden)))

    def step(carry: Any, cut: Any) -> Any:
        h, c = carry
        i, f, g, o = cut(jnp.split(h @ w, GATES, -1), h @ w)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    in_loop = lambda seq: lax.scan(lambda s, x: step(s, lambda _, z: jnp.split(z + x, GATES, -1)), start, seq)
    before = lambda seq: lax.scan(
        lambda s, xs: step(s, lambda zs, _: [z + x for z, x in zip(zs, xs, strict=True)]),
        start,
        jnp.split(seq, GATES, -1),
    )
    return {"cut in the loop": (in_loop, (seq,)), "cut before": (before, (seq,))}


def store(n_steps: int, rows: int, hidden: int) -> Ways:
    """An LSTM's forward loop that stacks the first few of h, c, i, f, g, o."""
    u, start = _normal(0, hidden, GATES * hidden) / hidden, (_normal(1, rows, hidden),) * 2
    xs = tuple(_normal(2 + i, n_steps, rows, hidden) for i in range(GATES))

    def stacking(count: int) -> Callable[..., Any]:
        def step(carry: Any, x: Any, u: Any) -> Any:
            h, c = carry
            i, f, g, o = (a + b for a, b in zip(jnp.split(h @ u, GATES, -1), x, strict=True))
            i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
            c = f * c + i * g
            h = o * jnp.tanh(c)
            return (h, c), (h, c, i, f, g, o)[:count]

        return lambda u, xs: lax.scan(lambda carry, x: step(carry, x, u), start, xs)

    stacked = {"nothing": 0, "h": 1, "h, c": 2, "h, c, i": 3, "h, c, i, f": 4, "h, c, i, f, g, o": 6}
    return {name: (stacking(count), (u, xs)) for name, count in stacked.items()}


def layer(n_steps: int, rows: int, in_size: int, hidden: int) -> Ways:
    """An LSTM over its inputs."""
    xs, start = _normal(0, n_steps, rows, in_size), (jnp.zeros((rows, hidden)), jnp.zeros((rows, hidden)))
    w, u = (_normal(i, n, GATES * hidden) / n**0.5 for i, n in ((1, in_size), (2, hidden)))
    parts = lambda z: jnp.split(z, GATES, -1)
    flat = lambda xs, w: (xs.reshape(-1, in_size) @ w).reshape(n_steps, rows, -1)

    def run(gates: Callable[..., Any], xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            h, c = carry
            i, f, g, o = gates(x, h)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return lax.scan(step, start, xs)[1]

    def joined(xs: Any, w: Any, u: Any, b: Any) -> Any:
        both = jnp.concatenate([w, u])
        return run(lambda x, h: parts(jnp.concatenate([x, h], -1) @ both + b), xs)

    later = lambda u, b: lambda x, h: [a + b for a, b in zip(x, parts(h @ u + b), strict=True)]
    ways = {
        "in the loop": lambda xs, w, u, b: run(lambda x, h: parts(x @ w + h @ u + b), xs),
        "[x, h] in the loop": joined,
        "[x, h], no bias": lambda xs, w, u, b: joined(xs, w, u, 0),
        "before, then cut": lambda xs, w, u, b: run(later(u, b), parts(flat(xs, w))),
        "before, gate by gate": lambda xs, w, u, b: run(later(u, b), [flat(xs, part) for part in parts(w)]),
    }
    return {name: (way, (xs, w, u, _normal(3, GATES * hidden))) for name, way in ways.items()}


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def _repeat(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda c, w: lax.scan(lambda c, _: (step(c, w), None), c, None, STEPS)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--questions", nargs="+", default=QUESTIONS, choices=QUESTIONS, metavar="NAME")
    parser.add_argument("--fast", action="store_true", help="one tiny shape: does it run?")
    options = parser.parse_args()
    print(timing.machine())
    for n_steps, rows, in_size, hidden in FAST if options.fast else SHAPES:
        print(f"\nT {n_steps}, B {rows}, in {in_size}, H {hidden}: ms, median [quartiles], and over the first")
        questions = {
            "back": back(rows, hidden),
            "join": join(rows, hidden),
            "batch": batch(n_steps, rows, in_size, hidden),
            "gates": gates(n_steps, rows, hidden),
            "store": store(n_steps, rows, hidden),
            "layer": layer(n_steps, rows, in_size, hidden),
        }
        for question in options.questions:
            report(question, questions[question], options.rounds)


def report(question: str, ways: Ways, rounds: int) -> None:
    """Times the ways of one question in turn, and prints a line for each."""
    compiled = {name: jax.jit(function).lower(*args).compile() for name, (function, args) in ways.items()}
    runs = {name: (lambda program=program, args=ways[name][1]: program(*args)) for name, program in compiled.items()}
    times = timing.run_times(runs, rounds)
    first = next(iter(times))
    for name, samples in times.items():
        own, against = timing.spread(samples), timing.ratio(samples, times[first])
        quartiles = f"[{own['q1'] * 1e3:.3f}, {own['q3'] * 1e3:.3f}]"
        body = f"  {operations(compiled[name])} operations a step" if question == "store" else ""
        print(f"  {question:6} {name:20} {own['median'] * 1e3:9.3f} {quartiles:20} {against['median']:6.2f}x{body}")


def operations(program: Any) -> int:
    """What XLA starts at each step of the only loop of a compiled program."""
    text = program.as_text()
    (name,) = re.findall(r"body=%?([\w.-]+)", text)
    (body,) = re.findall(rf"^%?{re.escape(name)} .*?\{{$(.*?)^\}}$", text, re.MULTILINE | re.DOTALL)
    free = r"= (\(.*\)|\S+) (get-tuple-element|parameter|constant|tuple|bitcast)\("
    return sum(" = " in line and re.search(free, line) is None for line in body.splitlines())


if __name__ == "__main__":
    main()

"""What the law tests share: the cells, the plain loop they are held against, covering arrays, counting compilations."""

import contextlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnscan as rs


ROWS = 3


@dataclass(frozen=True, eq=False)
class Case:
    """A cell with what the laws need to run it: params, features of one step, and a first carry."""

    name: str
    cell: Any
    params: Callable[[jax.Array], Any]  # key -> params
    features: Any = (3,)  # shape of x_t without rows, a tree of shapes, or None for no input
    carry: Callable[[jax.Array], Any] | None = None  # key -> carry of ROWS rows; None: the cell makes its own
    low: float = 0.2  # xs are uniform in [low, low + 0.6]: no zeros, so that gates and products matter
    bind: Callable[[Any, Any], tuple[Any, Any]] = lambda cell, params: (cell, params)
    stochastic: bool = False

    def __repr__(self) -> str:
        return self.name

    def make(self, key: jax.Array, n_steps: int, dtype: Any = jnp.float64) -> tuple[Any, Any, Any]:
        """`(params, carry, xs)`, all floats of one dtype; xs is `(n_steps, ROWS, ...)`."""
        key_params, key_carry, key_xs = jax.random.split(key, 3)
        shapes = jax.tree.leaves(self.features, is_leaf=lambda s: isinstance(s, tuple))
        keys = jax.random.split(key_xs, max(1, len(shapes)))
        leaves = [
            jax.random.uniform(k, (n_steps, ROWS, *s), jnp.float64, self.low, self.low + 0.6)
            for k, s in zip(keys, shapes, strict=False)
        ]
        structure = jax.tree.structure(self.features, is_leaf=lambda s: isinstance(s, tuple))
        tree = (self.params(key_params), self.carry and self.carry(key_carry), jax.tree.unflatten(structure, leaves))
        return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else a, tree)


def library(cell: Any, **changes: Any) -> Case:
    """A case of a library cell with all parameters, biases too, away from zero."""

    def params(key: jax.Array) -> Any:
        leaves, structure = jax.tree.flatten(cell.init(key, jnp.float64))
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        return jax.tree.unflatten(structure, [a + 0.3 * jax.random.normal(k, a.shape, a.dtype)
                                              for a, k in zip(leaves, keys, strict=True)])  # fmt: skip

    return Case(repr(cell), cell, params, **changes)


def normal(*shape: int) -> Callable[[jax.Array], jax.Array]:
    return lambda key: 0.5 * jax.random.normal(key, shape, jnp.float64)


def counting_dict(params, carry, x):
    """Nested params, carry, input and output; one leaf of the carry is an integer."""
    h = jnp.tanh(x["a"] @ params["w"][0] + params["w"][1] * carry["h"][0] * x["b"][0][..., None])
    return {"h": [h], "n": carry["n"] + 1}, {"sum": h.sum(-1), "both": (h * 2, x["b"][0])}


def quotient(params, h, x):
    h = params / (x - h)
    return h, h


def logarithm(params, h, x):
    h = params * jnp.log(1 - x) + 0.5 * h
    return h, jnp.sin(h)


def root(params, h, x):
    h = jnp.sqrt(x - params * h)
    return h, params * h


def clock(params, h, x):
    del x
    h = jnp.cos(params * h)
    return h, h[..., :1]


def noisy(params, h, x, rng):
    kept = jax.random.normal(rng.per_sequence(), h.shape, h.dtype)
    h = jnp.tanh(params * h + x + 0.1 * jax.random.normal(rng.per_step(), h.shape, h.dtype) + 0.2 * kept)
    return h, h


def close_over(cell, params):
    """The same weights, closed over rather than passed: the cell has no params at all."""
    del cell

    def elman(nothing, h, x):
        del nothing
        h = jnp.tanh(x @ params["w_x"] + h @ params["w_h"])
        return h, h

    return elman, None


def lotka(params, t, y, u):
    return params["r"] * y * (1 - y * params["a"]) + 0.1 * u * jnp.sin(t)[..., None]


INTEGRATOR = rs.ode.Midpoint(lotka, 0.1)
CELLS = [
    library(rs.cells.Linear(3, 4)),
    library(rs.cells.Elman(3, 4)),
    library(rs.cells.Elman(3, 4, activation="relu", double_bias=True)),  # "identity" is Linear with a bias
    library(rs.cells.LSTM(3, 4)),
    library(rs.cells.GRU(3, 4)),
    library(rs.cells.GRU(3, 4, reset_after=False)),
    library(rs.wrap.Stack(rs.cells.Elman(3, 4), rs.cells.Linear(4, 2))),
    library(rs.wrap.Project(rs.wrap.Residual(rs.cells.Linear(3, 3)), 2)),
    library(
        rs.wrap.Stack(
            rs.wrap.Dropout(rs.cells.Linear(3, 4), input=0.3, output=0.2, state=0.4), rs.cells.Elman(4, 2), dropout=0.5
        ),
        stochastic=True,
    ),
    library(rs.wrap.Dropout(rs.cells.LSTM(3, 4), state=0.4, per="sequence"), stochastic=True),
    Case("Midpoint", INTEGRATOR, lambda key: {"r": jnp.array([0.7, 0.4]), "a": jnp.array([0.3, 0.5])}, (2,),
         lambda key: INTEGRATOR.start(jnp.ones((ROWS, 2)), (ROWS,))),
    Case("nested trees", counting_dict, lambda key: {"w": (normal(3, 2)(key), jnp.array(0.7))}, {"a": (3,), "b": [()]},
         lambda key: {"h": [normal(ROWS, 2)(key)], "n": jnp.zeros(ROWS, jnp.int32)}),
    Case("closure", None, lambda key: {"w_x": normal(3, 4)(key), "w_h": normal(4, 4)(key)}, (3,), normal(ROWS, 4),
         bind=close_over),
    Case("no xs", clock, lambda key: jnp.array([0.9, 0.6]), None, normal(ROWS, 2)),
    Case("p / (x - h)", quotient, lambda key: jnp.array(0.3), (), lambda key: jnp.zeros(ROWS), low=1.5),
    Case("log(1 - x)", logarithm, lambda key: jnp.array(0.7), (), lambda key: jnp.full(ROWS, 0.1)),
    Case("sqrt(x - p h)", root, lambda key: jnp.array([0.3, 0.2]), (2,), lambda key: jnp.full((ROWS, 2), 0.1), low=1.5),
    Case("rng", noisy, lambda key: jnp.array(0.7), (2,), normal(ROWS, 2), stochastic=True),
]  # fmt: skip


def plain_loop(
    cell, params, carry, xs, *, n_steps, valid, resets=None, reset_carry=None, reverse=False, hold=False, outputs="all",
    key=None,
):  # fmt: skip
    """The meaning of `scan` as a Python loop over each row's valid steps; `valid` and `resets` are NumPy (T, ROWS).

    Rows are run one by one and see nothing but their own valid steps. A cell with `rng` draws numbers for all rows at
    once, so there all rows are stepped together, and each row keeps what its own valid steps gave.
    """
    n_rows = valid.shape[1]
    groups = [range(n_rows)] if key is not None else [range(b, b + 1) for b in range(n_rows)]
    row = lambda tree, b: jax.tree.map(lambda leaf: leaf[b], tree)
    rows = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    start = [row(carry, b) for b in range(n_rows)]
    fresh = start if reset_carry is None else [row(reset_carry, b) for b in range(n_rows)]
    shape = jax.eval_shape(lambda c: _call(cell, params, c, _step_shape(xs), key, 0)[1], carry)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), shape)
    state, last, ys = list(start), [nothing] * n_rows, [[nothing] * n_rows for _ in range(n_steps)]
    for t in reversed(range(n_steps)) if reverse else range(n_steps):
        for group in (g for g in groups if valid[t, list(g)].any()):
            boundary = t + 1 if reverse else t
            reset = [resets is not None and boundary < n_steps and resets[boundary, b] for b in group]
            went_in = rows([fresh[b] if r else state[b] for b, r in zip(group, reset, strict=True)])
            x = jax.tree.map(lambda leaf: leaf[t, group.start : group.stop], xs)  # noqa: B023
            came_out, y = _call(cell, params, went_in, x, key, t)
            for i, b in enumerate(group):
                if valid[t, b]:
                    state[b], last[b] = row(came_out, i), row(y, i)
        for b in range(n_rows):
            ys[t][b] = last[b] if valid[t, b] or hold else nothing
    carry = rows(state)
    if outputs == "none":
        return carry, None
    if outputs == "last":
        return carry, rows(last)
    if n_steps == 0:
        return carry, jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), shape)
    return carry, rows([rows(step) for step in ys])


def _step_shape(xs):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), xs)


def _call(cell, params, carry, x, key, t):
    if key is None:
        return cell(params, carry, x)
    return cell(params, carry, x, rs.Rng(key, jnp.asarray(t, jnp.int32)))


def covering_array(factors: dict[str, tuple], seed: int) -> list[dict[str, Any]]:
    """Few rows in which every pair of levels of every two factors stands together at least once (greedy, random)."""
    order, names = random.Random(seed), list(factors)
    missing = {
        frozenset([(a, i), (b, j)])
        for a, b in itertools.combinations(names, 2)
        for i, j in itertools.product(range(len(factors[a])), range(len(factors[b])))
    }
    rows = []
    while missing:
        row = dict(order.choice(sorted(map(sorted, missing))))
        for name in order.sample([n for n in names if n not in row], len(names) - 2):
            gains = [
                sum(frozenset({(name, i), pair}) in missing for pair in row.items()) for i in range(len(factors[name]))
            ]
            row[name] = order.choice([i for i, gain in enumerate(gains) if gain == max(gains)])
        missing -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        rows.append({name: factors[name][row[name]] for name in names})
    return rows


def each_level(factors: dict[str, tuple]) -> list[dict[str, Any]]:
    """As few rows as show every level of every factor."""
    return [
        {name: levels[i % len(levels)] for name, levels in factors.items()}
        for i in range(max(map(len, factors.values())))
    ]


def compile_quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` that spends little on optimising: the laws look at values, and compiling is what they cost."""
    quick = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }

    compiled = []

    def run(*args: Any) -> Any:
        if not compiled:
            lowered = jax.jit(function).lower(*args)
            try:
                compiled.append(lowered.compile(compiler_options=quick))
            except jax.errors.JaxRuntimeError as error:  # another release may have dropped one of these
                assert "xla_" in str(error)
                compiled.append(lowered.compile())
        return compiled[0](*args)

    return run


def assert_close(got: Any, want: Any, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    """Equal structures, shapes and dtypes, and values within the tolerances."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype, (path, a.dtype, b.dtype)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))


@contextlib.contextmanager
def count_compiles():
    """A list that grows by one with each program that XLA compiles inside the block."""
    compiled: list[str] = []

    def listen(event: str, duration: float, **details: Any) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

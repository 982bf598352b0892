"""What the law tests share: the cells, a quick compiler, comparing results, counting compilations."""

import contextlib
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
        numbers = draw(key_xs)
        uniform = lambda shape: numbers.uniform(self.low, self.low + 0.6, (n_steps, ROWS, *shape))
        xs = jax.tree.map(uniform, self.features, is_leaf=lambda shape: isinstance(shape, tuple))
        tree = (self.params(key_params), self.carry and self.carry(key_carry), xs)
        kind = lambda leaf: dtype if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.dtype
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, kind(leaf))), tree)


def draw(key: jax.Array) -> np.random.Generator:
    """NumPy's generator, started by a key; JAX's own compiles a program for every shape."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def library(cell: Any, **changes: Any) -> Case:
    """A case of a library cell with all parameters, biases too, away from zero."""
    made: dict[Any, Any] = {}

    def params(key: jax.Array) -> Any:
        words = tuple(np.asarray(jax.random.key_data(key)).tolist())
        if words not in made:
            numbers = draw(key)
            away = lambda leaf: np.asarray(leaf) + 0.3 * numbers.normal(size=leaf.shape)
            made[words] = jax.tree.map(away, cell.init(key, jnp.float64))
        return made[words]

    return Case(repr(cell), cell, params, **changes)


def normal(*shape: int) -> Callable[[jax.Array], np.ndarray]:
    return lambda key: 0.5 * draw(key).normal(size=shape)


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


def elman(params, h, x):
    """An Elman network without a bias, as a user writes it."""
    h = jnp.tanh(x @ params["w_x"] + h @ params["w_h"])
    return h, h


ELMAN_PARAMS = {"w_x": jnp.arange(12.0).reshape(3, 4) / 10 - 0.5, "w_h": jnp.eye(4) * 0.7 + 0.1}
XS = 0.2 + jnp.arange(30.0).reshape(5, 2, 3) / 20
"""Five steps of two rows for it."""


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


QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
"""How XLA compiles in the laws; a release that has dropped one of these does without it."""


def compile_quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` that spends little on optimising: the laws look at values, and compiling is what they cost."""
    compiled = []

    def run(*args: Any) -> Any:
        while not compiled:
            lowered = jax.jit(function).lower(*args)
            try:
                compiled.append(lowered.compile(compiler_options=dict(QUICK)))
            except jax.errors.JaxRuntimeError as error:
                unknown = [name for name in QUICK if name in str(error)]
                if not unknown:
                    raise
                for name in unknown:
                    del QUICK[name]
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

"""Dropout on a cell's input, output and state, with a fresh mask every step or one for the whole sequence."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._tree import describe, named_leaves
from .._types import Rng, call, settle
from . import _parts


PER = {"step": Rng.per_step, "sequence": Rng.per_sequence}


def drop(name: str, tree: Any, rate: float, rng: Rng, per: str) -> Any:
    """`tree` with every number zeroed with probability `rate`, the others divided by `1 - rate`.

    The expectation of the result is `tree`. Each leaf draws a mask of its own shape; rate 1 gives zeros.
    Raises TypeError for a leaf of integers, which have no halves.
    """
    dropped = []
    for i, (leaf_name, leaf) in enumerate(named_leaves(name, tree)):
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"`Dropout` scales what it keeps, so {leaf_name} must be floating; got {describe(leaf)}. "
                "Convert it, or set this rate to 0."
            )
        if rate < 1:
            keep = jax.random.bernoulli(PER[per](rng.child(i)), 1 - rate, leaf.shape)
            dropped.append(jnp.where(keep, leaf / (1 - rate), jnp.zeros_like(leaf)))
        else:  # nothing is kept, and nothing is divided by 0
            dropped.append(jnp.zeros_like(leaf))
    return jax.tree.unflatten(jax.tree.structure(tree), dropped)


@dataclass(frozen=True, repr=False)
class Dropout:
    r"""Dropout around one cell; with `m` masks of zeros and `1 / (1 - rate)`:

        carry_t, y'_t = cell(params, m_state * carry_{t-1}, m_input * x_t),   y_t = m_output * y'_t

    Params and carry are the cell's. Masks have the shape of what they multiply, so rows of a batch differ. What
    a rate of 0 concerns is left as it is and draws nothing; a rate of 1 drops everything.

    Main arguments
      `input`, `output`, `state`: rates in [0, 1], the probability of a zero; default 0.
      `per`: "step" (default) draws new masks at each step; "sequence" keeps one set of masks for all steps, the
      variational dropout of Gal & Ghahramani.

    `state` drops what the cell reads as hidden output, the leaves of the carry that its `recurrent` marks: h of an
    LSTM, not its memory c. The carry that a step returns is not dropped, so the final carry is whole. All gates see
    one mask of h; a GRU's `z * h_{t-1}` sees it too.

    Differences: Keras' `dropout` and `recurrent_dropout` are per sequence only; its `recurrent_dropout` uses one mask a
    gate and leaves the GRU's `z * h_{t-1}` whole, and its LSTM ignores `dropout=1.0`. TF1's `DropoutWrapper`
    drops the state as it leaves the step, so the final state has holes; its `variational_recurrent` shares one mask
    among all rows of a batch. torch's `dropout` is `Stack`'s.

    Raises ValueError for a rate outside [0, 1] or another `per`; TypeError for integers to be dropped, for a `state`
    rate where the carry has nothing to drop, and for a call without `rng` (give `scan` a key, or evaluate
    `deterministic(cell)`).
    Source: Gal & Ghahramani 2016, arXiv:1512.05287, section 4; scaling: Srivastava et al. 2014, section 10.

    >>> import jax, jax.numpy as jnp
    >>> import rnnscan as rs
    >>> cell = Dropout(rs.cells.LSTM(2, 3), input=0.25, state=0.25, per="sequence")
    >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 4, 2))
    >>> carry, ys = rs.scan(cell, params, None, xs, key=jax.random.key(1))  # in training
    >>> carry, ys = rs.scan(rs.wrap.deterministic(cell), params, None, xs)  # in evaluation
    >>> ys.shape
    (5, 4, 3)
    """

    cell: Any
    input: float = 0.0
    output: float = 0.0
    state: float = 0.0
    per: str = "step"
    in_size = _parts.from_cell("in_size")
    out_size = _parts.from_cell("out_size")
    x_ndim = _parts.from_cell("x_ndim", 1)
    recurrent = _parts.from_cell("recurrent", True)
    bounded = _parts.from_cell("bounded", False)
    __repr__ = _parts.show
    noise_off: ClassVar[dict[str, Any]] = {"input": 0.0, "output": 0.0, "state": 0.0}

    def __post_init__(self) -> None:
        settle(self, **{name: (lambda value, name=name: _parts.rate(name, value)) for name in self.noise_off})
        _parts.check_cell("Dropout", self.cell)
        if self.per not in PER:
            raise ValueError(f"`Dropout` takes per={' or '.join(map(repr, PER))}; got {self.per!r}.")

    @property
    def float_input(self) -> bool:
        return self.input > 0 or getattr(self.cell, "float_input", False)

    @property
    def stochastic(self) -> bool | None:
        return _parts.stochastic(self.cell, noise=max(self.input, self.output, self.state) > 0)

    def init(self, key: jax.Array, dtype: Any = None) -> Any:
        return _parts.init(self.cell, key, dtype)

    def initial_carry(self, batch_shape: Any = (), dtype: Any = None, params: Any = None) -> Any:
        return _parts.initial_carry(self.cell, batch_shape, dtype, params)

    def __call__(self, params: Any, carry: Any, x_t: Any, rng: Rng | None = None) -> tuple[Any, Any]:
        if rng is None:
            _parts.no_rng_needed(self)
            return call(self.cell, params, carry, x_t, None)
        if self.input:
            x_t = drop("x", x_t, self.input, rng.child(1), self.per)
        if self.state:
            carry = self._drop_state(carry, rng.child(3))
        carry, y_t = call(self.cell, params, carry, x_t, rng.child(0))
        if self.output:
            y_t = drop("y", y_t, self.output, rng.child(2), self.per)
        return carry, y_t

    def _drop_state(self, carry: Any, rng: Rng) -> Any:
        read = jax.tree.leaves(jax.tree.broadcast(self.recurrent, carry))
        leaves, structure = jax.tree.flatten(carry)
        chosen = [i for i, leaf in enumerate(leaves) if read[i] and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
        if not chosen:
            raise TypeError(
                f"`Dropout(state={self.state})` found no floating array in the carry that `{self.cell}` reads as "
                f"hidden output; its `recurrent` is {self.recurrent}. Leave `state` out."
            )
        for i in chosen:
            leaves[i] = drop("carry", leaves[i], self.state, rng.child(i), self.per)
        return jax.tree.unflatten(structure, leaves)

"""Wrappers that map a cell's input or output through weights of their own, or look its input up in a table."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...._tree import is_concrete
from ...._types import Rng
from ....cells import initial
from ....wrap import _parts
from . import base
from .base import check_state, scope_name
from .fields import activate, unused
from .variables import dtype_of, entry, features, linear, split, variable
from .wrappers import Wrapper


def _identity(a: Any) -> Any:
    return a


@dataclass(frozen=True, repr=False)
class InputProjectionWrapper(Wrapper):
    """The cell reads `f(x_t kernel + bias)`, of `num_proj` features.

    Params: `kernel (input_size, num_proj)`, `bias (num_proj,)`, and the cell's under its scope, `gru_cell` for one.
    `activation`: `f`, None is the identity. `input_size`: must be None. `reuse`: None or False.
    Initial params: kernel Glorot-uniform, bias zero.
    Source: `tf.contrib.rnn.InputProjectionWrapper`.
    """

    cell: Any
    num_proj: int
    activation: str | Callable[[Any], Any] | None = None
    input_size: None = None
    reuse: bool | None = None
    output_size = _parts.from_cell("output_size")
    variables = ("kernel", "bias")
    x_ndim = 1
    float_input = True
    table = None

    def __post_init__(self) -> None:
        instead = "the input's size comes with `init(key, input_size)`"
        self.settle(num_proj=initial.size, input_size=unused(self, "input_size", instead))

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> dict[str, Any]:
        dtype, (key_cell, key_own) = dtype_of(self, dtype), split(key)
        return {
            "kernel": variable(None, key_own, (features(input_size), self.num_proj), dtype),
            "bias": jnp.zeros(self.num_proj, dtype),
            scope_name(self.cell): base.init(self.cell, key_cell, self.num_proj, dtype),
        }

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[Any, Any]:
        self.check_call(params, state, self.variables)
        projected = activate(self.activation, linear(self, params, inputs, units=self.num_proj), _identity)
        return self.run_inner(params, projected, state, rng)


@dataclass(frozen=True, repr=False)
class OutputProjectionWrapper(Wrapper):
    """`output = f(y_t kernel + bias)`, with y the wrapped cell's output; the state is the cell's.

    Params: `kernel (size of y, output_size)`, `bias (output_size,)`, and the cell's under its scope, `basic_rnn_cell`
    for one. `activation`: `f`, None is the identity. `reuse`: None or False.
    Initial params: kernel Glorot-uniform, bias zero.
    Source: `tf.contrib.rnn.OutputProjectionWrapper`.
    """

    cell: Any
    output_size: int
    activation: str | Callable[[Any], Any] | None = None
    reuse: bool | None = None
    variables = ("kernel", "bias")

    def __post_init__(self) -> None:
        self.settle(output_size=initial.size)

    def init(self, key: jax.Array, input_size: Any, dtype: Any = None) -> dict[str, Any]:
        dtype, (key_cell, key_own) = dtype_of(self, dtype), split(key)
        return {
            "kernel": variable(None, key_own, (self.cell.output_size, self.output_size), dtype),
            "bias": jnp.zeros(self.output_size, dtype),
            scope_name(self.cell): base.init(self.cell, key_cell, input_size, dtype),
        }

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[Any, Any]:
        self.check_call(params, state, self.variables)
        output, state = self.run_inner(params, inputs, state, rng)
        return activate(self.activation, linear(self, params, output, units=self.output_size), _identity), state


@dataclass(frozen=True, repr=False)
class EmbeddingWrapper(Wrapper):
    """The cell reads `embedding[ids]`.

    Shapes: ids `(...,)` or `(..., 1)`, integers in [0, embedding_classes), the leading axes being those of the state.
    An id outside raises where its value is known: in a call by hand and in `dynamic_rnn` and its like outside `jit`,
    which look at the valid steps. Traced, also inside `rs.scan`, it is embedded as NaN, a negative one too.
    Params: `embedding (embedding_classes, embedding_size)`, and the cell's under its scope, `gru_cell` for one; the
    `input_size` of `init` is not used and may be None.
    `initializer`: `(key, shape, dtype) -> array`; None is U(-sqrt(3), sqrt(3)), of variance 1. `reuse`: None or False.
    For `rs.scan`: `as_cell` takes ids `(T, *batch)`; for `(T, *batch, 1)` write `as_cell(cell, x_ndim=1)`.
    Source: `tf.contrib.rnn.EmbeddingWrapper`.
    """

    cell: Any
    embedding_classes: int
    embedding_size: int
    initializer: Callable[..., Any] | None = None
    reuse: bool | None = None
    output_size = _parts.from_cell("output_size")
    variables = ("embedding",)
    x_ndim = 0
    float_input = False

    @property
    def table(self) -> Any:  # type: ignore[override]
        return self

    def __post_init__(self) -> None:
        self.settle(embedding_classes=initial.size, embedding_size=initial.size)

    def init(self, key: jax.Array, input_size: Any = None, dtype: Any = None) -> dict[str, Any]:
        del input_size  # ids have none
        dtype, (key_cell, key_own) = dtype_of(self, dtype), split(key)
        make = self.initializer or (lambda k, shape, d: jax.random.uniform(k, shape, d, -math.sqrt(3), math.sqrt(3)))
        return {
            "embedding": variable(make, key_own, (self.embedding_classes, self.embedding_size), dtype),
            scope_name(self.cell): base.init(self.cell, key_cell, self.embedding_size, dtype),
        }

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[Any, Any]:
        check_state(self, state)
        ids = self._ids(inputs, state)
        self.check_call(params, state, self.variables)
        table = entry(self, params, "embedding", (self.embedding_classes, self.embedding_size))
        if is_concrete(ids):
            self.check_ids(ids)
        outside = table.shape[0]  # negative ids would count from the end
        embedded = jnp.take(table, jnp.where(ids < 0, outside, ids), axis=0, mode="fill", fill_value=jnp.nan)
        return self.run_inner(params, embedded, state, rng)

    def check_ids(self, ids: Any) -> None:
        """ValueError if an id, whose value must be known, is outside the table."""
        ids = np.asarray(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.embedding_classes):
            raise ValueError(
                f"`{self}` looks ids up in [0, {self.embedding_classes}); got values from {ids.min()} to {ids.max()}."
            )

    def _ids(self, inputs: Any, state: Any) -> jax.Array:
        ids = jnp.asarray(inputs)
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"`{self}` looks integers up; got {ids.dtype}. Convert them, `x.astype(jnp.int32)`.")
        leaf, size = jax.tree.leaves(state)[0], jax.tree.leaves(self.state_size)[0]
        batch = jnp.shape(leaf)[: jnp.ndim(leaf) - (len(size.shape) if hasattr(size, "shape") else 1)]
        if ids.shape not in (batch, (*batch, 1)):
            raise ValueError(f"`{self}` takes one id a row, {batch} or {(*batch, 1)} as in the state; got {ids.shape}.")
        return ids.reshape(batch)

"""Attention over a cell's own last outputs, from TensorFlow 1's contrib."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...._types import Rng
from ....cells import initial
from . import base
from .base import scope_name
from .variables import dtype_of, entry, features, linear, only, split, variable
from .wrappers import Wrapper


def _given(size: Any) -> int | None:
    return None if size is None else initial.size(size)


@dataclass(frozen=True, repr=False)
class AttentionCellWrapper(Wrapper):
    r"""A cell that looks back at the last `attn_length` outputs of this wrapper, zeros before the first:

        y_t, s_t = cell([x_t; a_{t-1}] kernel + bias, s_{t-1})
        e_i = sum(attn_v * tanh(W_{t-1,i} attn_w + q_t attention/kernel + attention/bias)),  i in [0, attn_length)
        a_t = sum_i softmax(e)_i W_{t-1,i}
        out_t = [y_t; a_t] attn_output_projection/kernel + attn_output_projection/bias

    `q_t` is all of `s_t` side by side, W the window of outputs, the oldest first, to which `out_t` is added at the end.
    The window starts as zeros, which are attended to like outputs.

    State: `(s, a, W)` with W flattened, `(..., attn_length * attn_size)`; with `state_is_tuple=False` one array.
    Params: `kernel (features of x + attn_size, input_size)`, `bias`; `attention: {attn_w (1, 1, attn_size,
    attn_vec_size), attn_v (attn_vec_size,), kernel (features of s, attn_vec_size), bias}`; `attn_output_projection:
    {kernel (output_size of the cell + attn_size, attn_size), bias}`; and the cell's under its scope.

    `attn_size`: features of an output, None is the cell's `output_size`. `attn_vec_size`: of the score's hidden layer,
    None is `attn_size`. `input_size`: of what the cell reads, None is the features of x. `reuse`: None or False.
    Initial params: weights Glorot-uniform, biases zero.
    Source: `tf.contrib.rnn.AttentionCellWrapper`; Bahdanau et al. 2014, arXiv:1409.0473.
    """

    cell: Any
    attn_length: int
    attn_size: int | None = None
    attn_vec_size: int | None = None
    input_size: int | None = None
    state_is_tuple: bool = True
    reuse: bool | None = None
    variables = ("kernel", "bias", "attention", "attn_output_projection")
    x_ndim = 1
    float_input = True
    table = None

    def __post_init__(self) -> None:
        self.settle(
            attn_length=initial.size, attn_size=_given, attn_vec_size=_given, input_size=_given, state_is_tuple=bool
        )
        if not self.state_is_tuple and not isinstance(self.cell.state_size, int):
            raise ValueError(
                f"`AttentionCellWrapper(state_is_tuple=False)` joins its state into one array, but that of "
                f"`{self.cell}` is {self.cell.state_size}. Leave `state_is_tuple` out, or make the cell with "
                "`state_is_tuple=False`."
            )

    @property
    def output_size(self) -> int:  # type: ignore[override]
        return self.cell.output_size if self.attn_size is None else self.attn_size

    @property
    def state_size(self) -> Any:  # type: ignore[override]
        sizes = (self.cell.state_size, self.output_size, self.output_size * self.attn_length)
        return sizes if self.state_is_tuple else sum(sizes)

    def zero_state(self, batch_size: Any, dtype: Any = None) -> Any:
        inner = base.zero_state(self.cell, batch_size, dtype)
        dtype = jax.tree.leaves(inner)[0].dtype if dtype is None and jax.tree.leaves(inner) else dtype
        size = self.output_size
        state = (inner, *(base.zeros(n, batch_size, dtype) for n in (size, size * self.attn_length)))
        return state if self.state_is_tuple else jnp.concatenate(state, axis=-1)

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> dict[str, Any]:
        dtype, size, hidden = dtype_of(self, dtype), self.output_size, self.attn_vec_size or self.output_size
        read, query = self.input_size or features(input_size), sum(jax.tree.leaves(self.cell.state_size))
        keys = split(key, 6)

        def dense(k: jax.Array, rows: int, columns: int) -> dict[str, jax.Array]:
            return {"kernel": variable(None, k, (rows, columns), dtype), "bias": jnp.zeros(columns, dtype)}

        score = {
            "attn_w": variable(None, keys[1], (1, 1, size, hidden), dtype),
            "attn_v": variable(None, keys[2], (hidden,), dtype),
        }
        return {
            **dense(keys[0], features(input_size) + size, read),
            scope_name(self.cell): base.init(self.cell, keys[5], read, dtype),
            "attention": score | dense(keys[3], query, hidden),
            "attn_output_projection": dense(keys[4], self.cell.output_size + size, size),
        }

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[Any, Any]:
        self.check_call(params, state, self.variables)
        inner, attended, window = self._split(state)
        window = window.reshape(*window.shape[:-1], self.attn_length, self.output_size)
        read = self.input_size or jnp.shape(inputs)[-1]
        y_t, inner = self.run_inner(params, linear(self, params, inputs, attended, units=read), inner, rng)
        query = jnp.concatenate(jax.tree.leaves(inner), axis=-1)
        attended = self._attend(params["attention"], query, window)
        own = only(self, params["attn_output_projection"], ("kernel", "bias"), "attn_output_projection")
        output = linear(self, own, y_t, attended, units=self.output_size, scope="attn_output_projection")
        window = jnp.concatenate([window[..., 1:, :], output[..., None, :]], axis=-2)
        new_state = (inner, attended, window.reshape(*window.shape[:-2], -1))
        return output, new_state if self.state_is_tuple else jnp.concatenate(new_state, axis=-1)

    def _attend(self, params: Any, query: Any, window: Any) -> jax.Array:
        size, units = self.output_size, self.attn_vec_size or self.output_size
        only(self, params, ("kernel", "bias", "attn_w", "attn_v"), "attention")
        keys = window @ entry(self, params, "attn_w", (1, 1, size, units), "attention")[0, 0]
        hidden = keys + linear(self, params, query, units=units, scope="attention")[..., None, :]
        scores = (entry(self, params, "attn_v", (units,), "attention") * jnp.tanh(hidden)).sum(-1)
        return (jax.nn.softmax(scores, axis=-1)[..., None] * window).sum(-2)

    def _split(self, state: Any) -> Any:
        """The cell's state, what was attended to last, and the window."""
        if not self.state_is_tuple:
            if jnp.ndim(state) == 0 or jnp.shape(state)[-1] != self.state_size:
                raise ValueError(
                    f"`{self}` keeps its state in one array of {self.state_size} features; got shape "
                    f"{jnp.shape(state)}."
                )
            return jnp.split(state, [self.cell.state_size, self.cell.state_size + self.output_size], axis=-1)
        if not isinstance(state, tuple | list) or len(state) != 3:
            raise TypeError(
                f"`{self}` takes its state as (the cell's, attention, window); got a {type(state).__name__}. "
                "`cell.zero_state(batch_size)` makes one."
            )
        return state

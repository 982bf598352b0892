"""Dropout on a cell's input, output and state, as TensorFlow 1's `DropoutWrapper` drew it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ...._tree import named_leaves
from ...._types import Rng
from ....cells import initial
from ....wrap import _parts
from .base import LSTMStateTuple, check_state, no_rng_needed
from .fields import keep_probability, keep_some, refuse_arrays, seed_number, seeded
from .wrappers import Wrapper


def never_memory(state: Any) -> Any:
    """The default `dropout_state_filter_visitor`: everything but `c` of an `LSTMStateTuple`."""
    return LSTMStateTuple(c=False, h=True) if isinstance(state, LSTMStateTuple) else True


@dataclass(frozen=True, repr=False)
class DropoutWrapper(Wrapper):
    """Dropout around a cell: on its input, on its output and on the state it hands on; called with `rng`, an `rs.Rng`.

    A number is zeroed with probability `1 - keep_prob`, the others are divided by `keep_prob`. With all probabilities
    1 nothing is drawn and no `rng` is needed; `rs.wrap.deterministic` makes that cell for evaluation.
    Params and state are the cell's. The state is dropped as it *leaves* the step, so the final state has holes too.

    Main arguments
      `input_keep_prob`, `output_keep_prob`, `state_keep_prob`: shares that are kept, in [0, 1].
      `variational_recurrent`: False draws new masks at each step, a number of its own for every row; True keeps one set
      of masks for the sequence *and shares it among all rows*, as TensorFlow did (`rs.wrap.Dropout(per="sequence")` has
      masks for each row).
    Other arguments
      `input_size`: features of the input, or the shape of its features; needed with `variational_recurrent` and
      `input_keep_prob < 1`, and an input of another size raises.
      `dtype`: needed with `variational_recurrent`; whatever is dropped has this dtype, else TypeError.
      `seed`: an int that sets this wrapper's numbers apart from those of others under the same key.
      `dropout_state_filter_visitor`: called with the state and, where it answers True, with its parts; answers a bool
      for the whole or one for each part. None: everything but `c` of an `LSTMStateTuple`. Define the function once.

    Source: `tf.nn.rnn_cell.DropoutWrapper`; Gal & Ghahramani 2016, arXiv:1512.05287.
    """

    cell: Any
    input_keep_prob: float = 1.0
    output_keep_prob: float = 1.0
    state_keep_prob: float = 1.0
    variational_recurrent: bool = False
    input_size: Any = None
    dtype: Any = None
    seed: int | None = None
    dropout_state_filter_visitor: Callable[[Any], Any] | None = None
    transparent = True
    output_size = _parts.from_cell("output_size")
    noise_off: ClassVar[dict[str, Any]] = {"input_keep_prob": 1.0, "output_keep_prob": 1.0, "state_keep_prob": 1.0}

    def __post_init__(self) -> None:
        refuse_arrays(self, *self.noise_off)
        self.settle(
            variational_recurrent=bool,
            seed=seed_number,
            dtype=lambda dtype: None if dtype is None else initial.float_dtype(dtype),
            **{name: keep_probability(self, name) for name in self.noise_off},
        )
        visitor = self.dropout_state_filter_visitor
        if visitor is not None and not callable(visitor):
            raise TypeError(f"`dropout_state_filter_visitor` is a function of the state; got {visitor!r}.")
        if self.variational_recurrent and self.dtype is None:
            raise ValueError("`DropoutWrapper(variational_recurrent=True)` needs `dtype`, that of what is dropped.")
        if self.variational_recurrent and self.input_keep_prob < 1 and self.input_size is None:
            raise ValueError(
                "`DropoutWrapper(variational_recurrent=True)` with `input_keep_prob < 1` needs `input_size`, the "
                "number of the input's features."
            )

    @property
    def stochastic(self) -> bool | None:
        return _parts.stochastic(self.cell, noise=min(getattr(self, name) for name in self.noise_off) < 1)

    @property
    def float_input(self) -> bool:  # type: ignore[override]
        return self.input_keep_prob < 1 or getattr(self.cell, "float_input", False)

    def __call__(self, params: Any, inputs: Any, state: Any = None, rng: Rng | None = None) -> tuple[Any, Any]:
        if rng is None:
            no_rng_needed(self)
        check_state(self, state)
        self._check_input(inputs)
        own = rng and seeded(rng, self.seed)
        if own and self.input_keep_prob < 1:
            inputs = self._drop("inputs", inputs, self.input_keep_prob, own.child(1), self.input_size)
        output, state = self.run(params, inputs, state, rng)
        if own and self.state_keep_prob < 1:
            chosen = which(self.dropout_state_filter_visitor or never_memory, state)
            state = self._drop("state", state, self.state_keep_prob, own.child(3), self.cell.state_size, chosen)
        if own and self.output_keep_prob < 1:
            output = self._drop("output", output, self.output_keep_prob, own.child(2), self.cell.output_size)
        return output, state

    def _drop(
        self, name: str, tree: Any, keep_prob: float, rng: Rng, sizes: Any, chosen: list[bool] | None = None
    ) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        names = [leaf_name for leaf_name, _ in named_leaves(name, tree)]
        shapes = _shapes(sizes, len(leaves)) if self.variational_recurrent else [jnp.shape(leaf) for leaf in leaves]
        for i, leaf in enumerate(leaves):
            if chosen is None or chosen[i]:
                self._check_dtype(names[i], leaf)
                key = rng.child(i).per_sequence() if self.variational_recurrent else rng.child(i).per_step()
                leaves[i] = keep_some(leaf, keep_prob, key, shapes[i])
        return jax.tree.unflatten(structure, leaves)

    def _check_dtype(self, name: str, leaf: Any) -> None:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"`{self}` scales what it keeps, so `{name}` must be floating; got {dtype}. Keep it out with "
                "`dropout_state_filter_visitor`, or set this probability to 1."
            )
        if self.dtype is not None and dtype != self.dtype:
            raise TypeError(
                f"`{self}` was made for {self.dtype.name}, but `{name}` is {dtype}. Convert it, or `dtype`."
            )

    def _check_input(self, inputs: Any) -> None:
        if self.input_size is None:
            return
        leaves = jax.tree.leaves(inputs)
        for leaf, shape in zip(leaves, _shapes(self.input_size, len(leaves)), strict=True):
            if jnp.shape(leaf)[-len(shape) :] != shape:
                raise ValueError(f"`{self}` was made for inputs with features {shape}; got shape {jnp.shape(leaf)}.")


def _shapes(sizes: Any, n_leaves: int) -> list[tuple[int, ...]]:
    """The feature shapes of `n_leaves` arrays from their sizes; one array may have its shape written as a tuple."""
    leaves = jax.tree.leaves(sizes)
    if n_leaves == 1 and all(isinstance(leaf, int) for leaf in leaves):
        return [tuple(leaves)]
    if len(leaves) != n_leaves:
        raise ValueError(f"sizes for {len(leaves)} arrays, {sizes}, where there are {n_leaves}; give one for each.")
    return [tuple(leaf.shape) if hasattr(leaf, "shape") else (leaf,) for leaf in leaves]


def which(visitor: Callable[[Any], Any], tree: Any) -> list[bool]:
    """For each leaf whether the visitor, asked from the top down, lets dropout reach it."""
    answer = visitor(tree)
    n_leaves = len(jax.tree.leaves(tree))
    is_leaf = jax.tree_util.all_leaves([tree])
    if isinstance(answer, bool) and (not answer or is_leaf):
        return [answer] * n_leaves
    parts = [] if is_leaf else _parts_of(tree)
    answers = [answer] * len(parts) if isinstance(answer, bool) else _parts_of(answer)
    if is_leaf or len(answers) != len(parts) or not all(isinstance(a, bool) for a in answers):
        raise TypeError(
            f"`dropout_state_filter_visitor` answers a bool, or one for each of the {len(parts)} parts it was shown; "
            f"got {answer!r}."
        )
    chosen = []
    for a, part in zip(answers, parts, strict=True):
        chosen += which(visitor, part) if a else [False] * len(jax.tree.leaves(part))
    return chosen


def _parts_of(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda part: part is not tree)

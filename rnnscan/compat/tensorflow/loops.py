"""`dynamic_rnn` and `static_rnn`: TensorFlow 1's loops over a cell, as calls of `rs.scan`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..._scan import scan
from ..._tree import at_time
from ..._types import Rng, stochastic
from ..._types import call as call_cell
from . import checks
from .rnn_cell import as_cell


def dynamic_rnn(
    cell: Any,
    params: Any = checks.MISSING,
    inputs: Any = None,
    sequence_length: Any = None,
    initial_state: Any = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | None = None,
    *,
    key: Any = None,
) -> tuple[Any, Any]:
    r"""Runs a cell over time, `output_t, state_t = cell(params, inputs_t, state_{t-1})`, and returns (outputs, state).

    For t in [0, T); row b has `sequence_length[b]` valid steps: from then on its outputs are zeros and every part of
    its state is copied through, so that the state returned is the one after its last valid step.

    **Main arguments**, TensorFlow's but for `params`

    - `cell`: `(params, inputs, state) -> (output, state)` with `state_size` and `output_size`: one of `rnn_cell`, or
      your own.
    - `params`: what `cell.init(key, input_size)` makes, or a checkpoint's variables.
    - `inputs`: an array `(batch, T, depth, ...)`, or any nest of such arrays with one batch size and one T. (It has a
      default only to tell code without `params` where these go.)
    - `sequence_length`: integers `(batch,)`, each in [0, T]. Outside of it raises where the values are known (in
      TensorFlow more than T counts as T), and is clipped where they are traced.
    - `initial_state`: like `cell.zero_state(batch, dtype)`, which is what None means; a plain tuple or list will do
      where that has an `LSTMStateTuple` or a tuple.
    - `dtype`: of the zero state; must be given without `initial_state`. If given, the outputs must have it.
    - `time_major`: inputs and outputs are `(T, batch, ...)`.

    **Other arguments**

    - `parallel_iterations`, `swap_memory`: checked, and without effect: they moved TensorFlow's work and memory, and
      never a number. XLA schedules the loop itself.
    - `scope`: a name for profiles (`jax.named_scope`); no variables live there.
    - `key`: not TensorFlow's: a `jax.random` key, for cells that draw random numbers (`DropoutWrapper`).

    A state that is a scalar, which all rows share, ends as that of the longest row. That is TensorFlow's rule too, but
    where all lengths are 0 it runs one step. NaN in the padding reaches neither values nor gradients.

    Returns `(outputs, state)`, outputs laid out as inputs are. Raises `TypeError` or `ValueError` (`SequenceError`,
    `LengthError`, `CarryError`, `CellOutputError` among them) where the arguments do not fit together.
    Source: `tf.compat.v1.nn.dynamic_rnn`.

    >>> import jax, jax.numpy as jnp
    >>> from rnnscan.compat.tensorflow import dynamic_rnn, rnn_cell
    >>> cell = rnn_cell.BasicRNNCell(5)
    >>> params = cell.init(jax.random.key(0), 3, jnp.float32)
    >>> inputs = jnp.ones((2, 4, 3), jnp.float32)
    >>> outputs, state = dynamic_rnn(cell, params, inputs, jnp.array([4, 1]), dtype=jnp.float32)
    >>> print(outputs.shape, bool((outputs[1, 1:] == 0).all()), bool((state[1] == outputs[1, 0]).all()))
    (2, 4, 5) True True
    """
    checks.check_settings("dynamic_rnn", parallel_iterations, swap_memory, scope)
    time_axis = 0 if checks.check_flag("dynamic_rnn", "time_major", time_major) else 1
    checks.check_params("dynamic_rnn", None, params)
    checks.check_inputs("dynamic_rnn", inputs, time_axis)
    call = Call("dynamic_rnn", scope or "rnn", time_axis)
    return run(call, cell, params, inputs, sequence_length, initial_state, dtype, key)


def static_rnn(
    cell: Any,
    params: Any = checks.MISSING,
    inputs: Any = None,
    initial_state: Any = None,
    dtype: Any = None,
    sequence_length: Any = None,
    scope: str | None = None,
    *,
    key: Any = None,
) -> tuple[list[Any], Any]:
    """The same over a list of T inputs, one for each step, written out as a graph without a loop.

    - `inputs`: a list or tuple of T >= 1 arrays `(batch, ...)`, or of T nests of them.

    All else as in `dynamic_rnn`, also what it raises. Returns `(outputs, state)`, outputs a list of T. Compiling takes
    time proportional to T; `dynamic_rnn` compiles one step, and gives the same numbers.
    Source: `tf.compat.v1.nn.static_rnn`.
    """
    checks.check_settings("static_rnn", None, False, scope)
    checks.check_params("static_rnn", None, params)
    steps = checks.stack_inputs("static_rnn", inputs)
    call = Call("static_rnn", scope or "rnn", method="unrolled")
    outputs, state = run(call, cell, params, steps, sequence_length, initial_state, dtype, key)
    return [at_time(outputs, t) for t in range(len(inputs))], state


@dataclass(frozen=True)
class Call:
    """Who calls `rs.scan`, and how: a function's name and that of its state for messages, and the options it fixes."""

    name: str
    scope: str
    time_axis: int = 0
    method: str = "sequential"
    state: str = "initial_state"


def run(
    call: Call, cell: Any, params: Any, inputs: Any, sequence_length: Any, initial_state: Any, dtype: Any, key: Any
) -> tuple[Any, Any]:
    """`(outputs, state)` of one scan over inputs that are checked already."""
    checks.check_noise(call.name, cell, key)
    checks.check_params(call.name, cell, params)
    shape = jnp.shape(jax.tree.leaves(inputs)[0])
    n_steps, batch_size = shape[call.time_axis], shape[1 - call.time_axis]
    lengths = checks.check_lengths(call.name, sequence_length, n_steps, batch_size)
    checks.check_values(call.name, cell, inputs, lengths, call.time_axis)
    state = checks.first_state(call.name, cell, initial_state, dtype, batch_size, call.state)
    with checks.in_words_of(call.name), jax.named_scope(call.scope):
        scan_ = _scan_sharing_scalars if lengths is not None else scan
        state, outputs = scan_(
            as_cell(cell, x_ndim=len(shape) - 2), params, state, inputs,
            lengths=lengths, time_axis=call.time_axis, method=call.method, key=key,
        )  # fmt: skip
    checks.check_outputs(call.name, cell, outputs, dtype)
    return outputs, state


def _scan_sharing_scalars(cell: Any, params: Any, state: Any, inputs: Any, *, lengths: Any, **options: Any) -> Any:
    """`rs.scan` for states some of which are scalars that all rows share: those of the longest row are right for all.

    A scalar cannot be copied through for one row and not for another, so each row carries a copy, and the cell is given
    the copy of the row that is valid as long as any.
    """
    shared = tuple(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(state))
    if not any(shared):
        return scan(cell, params, state, inputs, lengths=lengths, **options)
    if lengths.size == 0:  # no row is valid at any step
        last, outputs = scan(cell, params, state, inputs, **options)
        return jax.tree.map(lambda first, end: jnp.asarray(first, end.dtype), state, last), outputs
    sharing, longest = _Sharing(cell, shared), jnp.argmax(lengths)
    state, outputs = scan(
        sharing, (params, longest), sharing.copied(state, lengths.size), inputs, lengths=lengths, **options
    )
    return sharing.single(state, longest), outputs


@dataclass(frozen=True)
class _Sharing:
    """A cell whose carry has a copy of each scalar state for each row; `shared` says which leaves are scalars."""

    cell: Any
    shared: tuple[bool, ...]

    @property
    def stochastic(self) -> bool | None:
        return stochastic(self.cell)

    def copied(self, state: Any, n_rows: int) -> Any:
        return self._map(lambda leaf: jnp.broadcast_to(leaf, (n_rows, *jnp.shape(leaf))), state)

    def single(self, carry: Any, row: Any) -> Any:
        return self._map(lambda leaf: leaf[row], carry)

    def _map(self, change: Callable[[Any], Any], state: Any) -> Any:
        leaves, structure = jax.tree.flatten(state)
        if len(leaves) != len(self.shared):
            return state  # `scan` says that the structure changed
        changed = [change(leaf) if one else leaf for leaf, one in zip(leaves, self.shared, strict=True)]
        return jax.tree.unflatten(structure, changed)

    def __call__(self, params: Any, carry: Any, inputs: Any, rng: Rng | None = None) -> tuple[Any, Any]:
        params, longest = params
        n_rows = jax.tree.leaves(inputs)[0].shape[0]
        state, output = call_cell(self.cell, params, self.single(carry, longest), inputs, rng)
        return self.copied(state, n_rows), output

    def __repr__(self) -> str:
        return repr(self.cell)

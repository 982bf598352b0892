"""TensorFlow 1's loops in both directions: one cell reads each row from its start, another from its end."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ... import _inputs, _tree
from ..._errors import SequenceError
from ..._padded import flip_valid
from ..._types import rng_use
from . import checks
from .loops import Call, run


def bidirectional_dynamic_rnn(
    cell_fw: Any,
    cell_bw: Any,
    params: Any = checks.MISSING,
    inputs: Any = None,
    sequence_length: Any = None,
    initial_state_fw: Any = None,
    initial_state_bw: Any = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | None = None,
    *,
    key: Any = None,
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """`dynamic_rnn` twice over the same inputs, the second time with each row's valid steps reversed.

    Both outputs are in input order: `outputs[1][b, t]` has seen the steps [t, sequence_length[b]). Each row is reversed
    by itself, so that the backward cell starts all of them at its first iteration, as in TensorFlow.

    - `cell_fw`, `cell_bw`: two cells; `params`: the pair of their params.
    - `initial_state_fw`, `initial_state_bw`: as `initial_state` in `dynamic_rnn`.
    - `key`: the forward cell gets `fold_in(key, 0)`, the backward one `fold_in(key, 1)`.

    All else as in `dynamic_rnn`. Returns `((output_fw, output_bw), (state_fw, state_bw))`; concatenate the outputs on
    their last axis to have one. Source: `tf.compat.v1.nn.bidirectional_dynamic_rnn`.
    """
    name = "bidirectional_dynamic_rnn"
    checks.check_settings(name, parallel_iterations, swap_memory, scope)
    checks.check_params(name, None, params)
    time_axis = 0 if checks.check_flag(name, "time_major", time_major) else 1
    checks.check_inputs(name, inputs, time_axis)
    call = Call(name, scope or "bidirectional_rnn", time_axis, state="initial_state_fw")
    return _both(
        call, (cell_fw, cell_bw), params, inputs, sequence_length, (initial_state_fw, initial_state_bw), dtype, key
    )


def static_bidirectional_rnn(
    cell_fw: Any,
    cell_bw: Any,
    params: Any = checks.MISSING,
    inputs: Any = None,
    initial_state_fw: Any = None,
    initial_state_bw: Any = None,
    dtype: Any = None,
    sequence_length: Any = None,
    scope: str | None = None,
    *,
    key: Any = None,
) -> tuple[list[Any], Any, Any]:
    """The same over a list of T inputs, written out without a loop; the two outputs of a step are one array.

    - `params`: the pair of the cells' params. All else as in `static_rnn` and `bidirectional_dynamic_rnn`.

    Returns `(outputs, state_fw, state_bw)`: a list of T outputs, forward and backward concatenated on axis 1, and the
    two last states. Source: `tf.compat.v1.nn.static_bidirectional_rnn`.
    """
    name = "static_bidirectional_rnn"
    checks.check_settings(name, None, False, scope)
    checks.check_params(name, None, params)
    steps = checks.stack_inputs(name, inputs)
    call = Call(name, scope or "bidirectional_rnn", method="unrolled", state="initial_state_fw")
    (fw, bw), states = _both(
        call, (cell_fw, cell_bw), params, steps, sequence_length, (initial_state_fw, initial_state_bw), dtype, key
    )
    both = _concatenated(name, fw, bw, axis=2)  # time is axis 0 here
    return [_tree.at_time(both, t) for t in range(len(inputs))], *states


def stack_bidirectional_dynamic_rnn(
    cells_fw: Any,
    cells_bw: Any,
    params: Any = checks.MISSING,
    inputs: Any = None,
    initial_states_fw: Any = None,
    initial_states_bw: Any = None,
    dtype: Any = None,
    sequence_length: Any = None,
    parallel_iterations: int | None = None,
    time_major: bool = False,
    scope: str | None = None,
    swap_memory: bool = False,
    *,
    key: Any = None,
) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """Layers of `bidirectional_dynamic_rnn`: each reads both outputs of the one before it, concatenated.

    - `cells_fw`, `cells_bw`: two lists of cells, one a layer; `params`: the pair of lists of their params.
    - `initial_states_fw`, `initial_states_bw`: None, or lists of states, one a layer.
    - `key`: layer i gets `fold_in(key, i)`.

    All else as in `bidirectional_dynamic_rnn`. Returns `(outputs, states_fw, states_bw)`: both outputs of the last
    layer concatenated on their last axis, and two tuples of last states. Source:
    `tf.contrib.rnn.stack_bidirectional_dynamic_rnn` (TensorFlow 1.15).
    """
    name = "stack_bidirectional_dynamic_rnn"
    checks.check_settings(name, parallel_iterations, swap_memory, scope)
    checks.check_params(name, None, params)
    time_axis = 0 if checks.check_flag(name, "time_major", time_major) else 1
    checks.check_inputs(name, inputs, time_axis)
    n_layers = _layers(name, "cells_fw", cells_fw, None)
    _layers(name, "cells_bw", cells_bw, n_layers)
    params = _pair(name, "params", params)
    states = []
    for side, part, given in zip(("fw", "bw"), params, (initial_states_fw, initial_states_bw), strict=True):
        _layers(name, f"params of cells_{side}", part, n_layers)
        if given is not None:
            _layers(name, f"initial_states_{side}", given, n_layers)
        states.append([None] * n_layers if given is None else list(given))
    keys = _layer_keys(name, cells_fw, cells_bw, key)
    last = []
    for i in range(n_layers):
        call = Call(name, f"{scope or 'stack_bidirectional_rnn'}/cell_{i}", time_axis, state=f"initial_states_fw[{i}]")
        cells, own = (cells_fw[i], cells_bw[i]), (params[0][i], params[1][i])
        outputs, end = _both(call, cells, own, inputs, sequence_length, (states[0][i], states[1][i]), dtype, keys[i])
        inputs = _concatenated(name, *outputs, axis=-1)
        last.append(end)
    return inputs, tuple(fw for fw, _ in last), tuple(bw for _, bw in last)


def _both(
    call: Call, cells: Any, params: Any, inputs: Any, sequence_length: Any, states: Any, dtype: Any, key: Any
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """`(outputs, states)`, pairs, of one scan forwards and one over reversed rows."""
    params, keys = _pair(call.name, "params", params), _keys(call.name, cells, key)
    shape = jnp.shape(jax.tree.leaves(inputs)[0])
    lengths = checks.check_lengths(call.name, sequence_length, shape[call.time_axis], shape[1 - call.time_axis])
    flip = lambda tree: flip_valid(tree, lengths, time_axis=call.time_axis)
    ends = []
    for i, side in enumerate(("fw", "bw")):
        one = replace(call, scope=f"{call.scope}/{side}", state=call.state.replace("fw", side))
        given = flip(inputs) if i else inputs
        ends.append(run(one, cells[i], params[i], given, lengths, states[i], dtype, keys[i]))
    (fw, state_fw), (bw, state_bw) = ends
    return (fw, flip(bw)), (state_fw, state_bw)


def _pair(caller: str, name: str, value: Any) -> Any:
    if not isinstance(value, tuple | list) or len(value) != 2:
        came = f"a {type(value).__name__}" + f" of {len(value)}" * isinstance(value, tuple | list | dict)
        raise ValueError(f"`{caller}` takes `{name}` as a pair (forward, backward); got {came}.")
    return value


def _layers(caller: str, name: str, value: Any, expected: int | None) -> int:
    if not isinstance(value, tuple | list) or not value:
        raise ValueError(f"`{caller}` takes `{name}` as a list with one entry a layer; got {value!r}.")
    if expected is not None and len(value) != expected:
        raise ValueError(
            f"`{caller}`: `{name}` has {len(value)} layers, `cells_fw` has {expected}; give both the same."
        )
    return len(value)


def _keys(caller: str, cells: Any, key: Any) -> list[Any]:
    """A key for each cell that draws random numbers; ValueError if one was given and none does."""
    if key is None:
        return [None] * len(cells)
    _inputs.check_key(key)
    uses = [rng_use(cell) for cell in cells]
    if set(uses) == {"never"}:
        raise ValueError(f"`{caller}` got `key`, but none of its cells draws random numbers. Leave it out.")
    return [None if use == "never" else jax.random.fold_in(key, i) for i, use in enumerate(uses)]


def _layer_keys(caller: str, cells_fw: Any, cells_bw: Any, key: Any) -> list[Any]:
    """A key for each layer that draws random numbers in either direction."""
    _keys(caller, [*cells_fw, *cells_bw], key)
    noisy = [{rng_use(fw), rng_use(bw)} != {"never"} for fw, bw in zip(cells_fw, cells_bw, strict=True)]
    return [jax.random.fold_in(key, i) if key is not None and noise else None for i, noise in enumerate(noisy)]


def _concatenated(caller: str, fw: Any, bw: Any, axis: int) -> Any:
    """Leafwise concatenation of the outputs of both directions, which then must fit."""
    if jax.tree.structure(fw) != jax.tree.structure(bw):
        raise SequenceError(
            f"`{caller}` concatenates outputs of one structure; `cell_fw` puts out {jax.tree.structure(fw)}, `cell_bw` "
            f"{jax.tree.structure(bw)}."
        )

    def join(name: str, f: jax.Array, b: jax.Array) -> jax.Array:
        fits = f.ndim == b.ndim >= 3 and f.dtype == b.dtype
        if fits and not [i for i in range(f.ndim) if f.shape[i] != b.shape[i] and i != axis % f.ndim]:
            return jnp.concatenate([f, b], axis)
        raise SequenceError(
            f"`{caller}` cannot concatenate `{name}`, {_tree.describe(f)} from `cell_fw` and {_tree.describe(b)} from "
            f"`cell_bw`, on axis {axis}."
        )

    pairs = zip(_tree.named_leaves("outputs", fw), jax.tree.leaves(bw), strict=True)
    return jax.tree.unflatten(jax.tree.structure(fw), [join(name, f, b) for (name, f), b in pairs])

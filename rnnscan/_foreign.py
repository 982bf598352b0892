"""Options that other libraries' loops have: what to write instead, for the TypeError of a keyword that is not ours."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar


_BATCH_FIRST = "`time_axis=1` where the batch comes first; time comes first by default"
_LENGTHS = "`lengths=`, one number of valid steps for each row"
_CARRY = "`carry=`, the third argument"
_ALWAYS = "nothing: `scan` returns `(carry, ys)`, always both"
_BACKWARDS = "`reverse=True`, which starts at each row's last valid step"

FOREIGN: dict[str, tuple[str, str]] = {
    "time_major": ("TensorFlow's and Keras'", _BATCH_FIRST),
    "batch_first": ("torch's", _BATCH_FIRST),
    "in_axes": ("Flax's", _BATCH_FIRST),
    "sequence_length": ("TensorFlow's", _LENGTHS),
    "seq_lengths": ("Flax's", _LENGTHS),
    "seq_len": ("Flax's", _LENGTHS),
    "input_length": ("Keras'", "`n_steps=` for all rows, or " + _LENGTHS),
    "go_backwards": (
        "Keras' and Theano's",
        _BACKWARDS + "; ys stay in input order, where the original turns them round",
    ),
    "keep_order": ("Flax's", "nothing: with `reverse=True` ys stay in input order, always"),
    "bidirectional": ("torch's", "`rs.bidirectional(forward, backward, params, None, xs)`"),
    "return_sequences": ("Keras'", '`outputs="all"` for True, which is the default, and `outputs="last"` for False'),
    "return_all_outputs": ("Keras'", '`outputs="all"` for True, which is the default, and `outputs="last"` for False'),
    "return_state": ("Keras'", _ALWAYS),
    "return_carry": ("Flax's", _ALWAYS),
    "return_all_states": ("Haiku's", "a cell that puts its state out, `return h, h`; `outputs` are all by default"),
    "zero_output_for_mask": ("Keras'", '`masked_output="zero"` for True, which is the default, and "hold" for False'),
    "stateful": ("Keras'", "`carry=` with the carry that the call before returned, or `rs.scan_chunks`"),
    "length": ("`lax.scan`'s", "`n_steps=`"),
    "init": ("`lax.scan`'s", _CARRY),
    "initial_state": ("TensorFlow's and Keras'", _CARRY),
    "initial_states": ("Keras'", _CARRY),
    "initial_carry": ("Flax's", _CARRY),
    "hx": ("torch's", _CARRY),
    "outputs_info": ("Theano's", _CARRY + ", and let the cell return what it puts out; or `rs.compat.theano.scan`"),
    "sequences": ("Theano's", "`xs=`, the fourth argument; or `rs.compat.theano.scan`"),
    "inputs": ("TensorFlow's and Keras'", "`xs=`, the fourth argument"),
    "non_sequences": ("Theano's", "`params`, the second argument; or `rs.compat.theano.scan`"),
    "constants": ("Keras'", "`params`, the second argument, or let the cell close over them"),
    "truncate_gradient": ("Theano's", "`rs.compat.theano.scan`; truncated backpropagation is `rs.train.tbptt`"),
    "until": ("Theano's", "`rs.scan_until(..., until=)`"),
    "dtype": ("TensorFlow's", "`carry.astype(dtype)`, or `cell.initial_carry(batch_shape, dtype)`"),
    "rng": ("Flax's and Haiku's", "`key=`"),
    "rngs": ("Flax's", "`key=`"),
    "segment_ids": ("packed batches'", "`resets=`, True where a segment begins"),
    "jit": ("other loops'", "nothing: a call of `scan` is compiled; `jax.disable_jit()` is JAX's way round that"),
}
"""Keyword -> whose it is, and what to write instead."""


def refuse(caller: str, name: str, known: Iterable[str], foreign: Mapping[str, tuple[str, str]] = FOREIGN) -> NoReturn:
    """TypeError for a keyword that `caller` does not take, with ours in its place where `foreign` has one.

    `known` are the keywords that it takes: one that looks alike is suggested for a slip of the pen.
    """
    known = list(known)
    if name in foreign and name not in known:
        whose, instead = foreign[name]
        raise TypeError(f"`{caller}` has no option `{name}`, which is {whose}; write {instead}.")
    alike = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean `{alike[0]}`?" if alike else f"It takes {', '.join(f'`{k}`' for k in known)}."
    raise TypeError(f"`{caller}` got an unexpected keyword argument `{name}`. {hint}")


Function = TypeVar("Function", bound=Callable[..., Any])


def refusing(function: Function, prefix: str = "", foreign: Mapping[str, tuple[str, str]] = FOREIGN) -> Function:
    """The same function, where a keyword that it does not take is answered by `refuse`; `prefix` is its module's."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in known:
                refuse(prefix + function.__name__, name, known, foreign)
        return function(*arguments, **keywords)

    return checked  # type: ignore[return-value]

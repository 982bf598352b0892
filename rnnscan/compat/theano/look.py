"""What `fn` returns, seen as shapes and dtypes before anything runs, and whether `outputs_info` fits it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._errors import CarryError
from ..._notes import not_known_yet
from ..._tree import describe
from ..._types import name_of
from .arguments import Outputs
from .step import read_returned


Struct = jax.ShapeDtypeStruct
_ORDER = "a function of (sequences..., past outputs..., non_sequences...)"
_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


def check_function(caller: str, fn: Any) -> None:
    """TypeError unless `fn` can be called with arrays in Theano's order."""
    if isinstance(fn, type):
        raise TypeError(f"`{caller}`: fn must be {_ORDER}; got the class `{fn.__name__}`. Write `{fn.__name__}(...)`.")
    if not callable(fn):
        came = "an array" if hasattr(fn, "shape") else "None" if fn is None else describe(fn)
        raise TypeError(f"`{caller}`: fn must be {_ORDER}; got {came}: the order is {caller}(fn, sequences, ...).")
    if hasattr(fn, "other_order"):
        raise TypeError(f"`{caller}`: fn must be {_ORDER}; `{name_of(fn)}` {fn.other_order}")


class Call(NamedTuple):
    """A step and what it is given: one element of each sequence, past outputs, constants, and the names of all."""

    caller: str
    fn: Callable[..., Any]
    elements: list[Any]
    outputs: Outputs
    constants: tuple[Any, ...]
    names: list[str]


def look(call: Call, strict: bool) -> bool:
    """Whether `fn` ends with `until`, after a check of its outputs against `outputs_info`.

    An error in it says what each argument was, since their order is what goes wrong most. With `strict` it raises if
    `fn` reads arrays that are not among its arguments.

    An initial value that is a Python number takes the dtype that `fn` gives it. As one number's dtype may change
    another's, this is repeated until nothing changes, in the way of `rs.scan`.
    """
    rows = [None if row is None else _struct(row) for row in call.outputs.initial or ()]
    for _ in range(4 * len(rows) + 1):  # a number's kind can rise three times, then be fixed
        outputs, stops = _trace(call, rows, strict)
        _check_count(call, len(outputs))
        promoted = [None if row is None else _promoted(row, y) for row, y in zip(rows, outputs, strict=False)]
        if promoted == rows:
            break
        rows = promoted
    _check_feedback(call, rows, outputs)
    return stops


def _struct(row: Any) -> Struct:
    """One past output; in `initial` they have a time axis in front."""
    return Struct(row.shape[1:], row.dtype, weak_type=bool(getattr(jax.typeof(row), "weak_type", False)))


def _promoted(row: Struct, y: Struct) -> Struct:
    """A Python number takes the dtype that came out, unless that would lower its kind (float to int)."""
    kinds = [next((i for i, kind in enumerate(_KINDS) if jnp.issubdtype(s.dtype, kind)), -1) for s in (row, y)]
    if not row.weak_type or kinds[1] < kinds[0]:
        return row
    return Struct(row.shape, y.dtype, weak_type=y.weak_type)


def _trace(call: Call, rows: list[Any], strict: bool) -> tuple[list[Any], bool]:
    stops = []

    def record(*arguments: Any) -> Any:
        returned = read_returned(call.fn, call.fn(*arguments))
        stops.append(returned.condition is not None)
        return returned.outputs

    taps = call.outputs.taps or ()
    past = [row for row, leaf in zip(rows, taps, strict=True) for _ in leaf or ()]
    arguments = [*call.elements, *past, *call.constants]
    try:
        closed, outputs = jax.make_jaxpr(record, return_shape=True)(*arguments)
    except Exception as error:
        for note in not_known_yet(error, f"`{name_of(call.fn)}`"):
            error.add_note(note)
        error.add_note(f"raised by `{name_of(call.fn)}`, which `{call.caller}` called {_given(call, arguments)}")
        raise
    hidden = [leaf for leaf in closed.consts if isinstance(leaf, jax.Array)]
    if strict and hidden:
        raise ValueError(
            f"strict=True, but `{name_of(call.fn)}` reads {', '.join(map(describe, hidden))} that is not among its "
            "arguments. Pass every array in non_sequences, or leave strict=False."
        )
    return list(outputs), stops[-1]


def _given(call: Call, arguments: list[Any]) -> str:
    if not arguments:
        return "without arguments (there are no sequences, no outputs that are fed back and no non_sequences)"
    described = [describe(a if hasattr(a, "shape") else jnp.asarray(a)) for a in arguments]
    shown = ", ".join(f"{name}: {what}" for name, what in zip(call.names, described, strict=True))
    return f"with {len(arguments)} argument{'s' * (len(arguments) > 1)}: {shown}"


def _check_count(call: Call, came: int) -> None:
    if call.outputs.taps is None or came == len(call.outputs.taps):
        return
    entries = len(call.outputs.taps)
    raise ValueError(
        f"`{name_of(call.fn)}` returns {came} output{'s' * (came != 1)}, but outputs_info has {entries} "
        f"entr{'y' if entries == 1 else 'ies'}. Give None for each output that is not fed back."
    )


def _check_feedback(call: Call, rows: list[Any], outputs: list[Any]) -> None:
    """Each output that is fed back has the shape and the dtype of its initial value."""
    for i, (row, y) in enumerate(zip(rows, outputs, strict=False)):
        if row is None or _alike(row, y):
            continue
        single = (call.outputs.taps or ())[i] == (-1,)
        have = f"`outputs_info[{i}]` is" if single else f"each row of `outputs_info[{i}]` is"
        free = [rows[j] is None or not _alike(rows[j], other) for j, other in enumerate(outputs)]
        fits = [j for j, other in enumerate(outputs) if free[j] and _alike(row, other)]
        if fits:
            what = "shape" if row.shape != y.shape else "dtype"
            hint = f"Output {fits[0]} has that {what}: are the outputs in the order of outputs_info?"
        else:
            hint = _other_shape(row, y) if row.shape != y.shape else _other_dtype(row, y)
        raise CarryError(f"{have} {describe(row)}, but output {i} of `{name_of(call.fn)}` is {describe(y)}. {hint}")


def _alike(row: Any, y: Any) -> bool:
    return row.shape == y.shape and row.dtype == y.dtype


def _other_shape(row: Any, y: Any) -> str:
    if row.shape == ():
        return f"Start from `jnp.full({y.shape}, value)`: nothing is broadcast over the steps."
    try:
        broadcasts = jnp.broadcast_shapes(row.shape, y.shape) == y.shape
    except ValueError:
        broadcasts = False
    if broadcasts:
        return f"Start from `jnp.broadcast_to(value, {y.shape})`: nothing is broadcast over the steps."
    return "An output that is fed back keeps the shape of its initial value."


def _other_dtype(row: Any, y: Any) -> str:
    if any(jnp.issubdtype(struct.dtype, jax.dtypes.prng_key) for struct in (row, y)):
        return "An output that is fed back is what its initial value is: a key, or numbers."
    number = ""
    if row.shape == ():
        number = "; a Python number takes the dtype of the output, but never turns from a float into an int"
    return f"Start from `value.astype(jnp.{y.dtype})`, or return `y.astype(jnp.{row.dtype})`{number}."

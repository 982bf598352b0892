"""What `theano.scan` is called with, brought to one form: sequences as tap slices, outputs as initial rows."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._errors import SequenceError, TapError
from ..._foreign import refusing
from ..._inputs import check_arrays, whole
from ..._rewrite.taps import Taps, check_output_taps, each, reach, read_taps, tapped, usable


_OURS = "`rs.scan`'s"
_FOREIGN = {
    "return_updates": ("PyTensor's", "nothing: `(outputs, updates)` comes back always"),
    "options": ("PyTensor's", "nothing: XLA chooses"),
    "until": ("`rs.scan_until`'s", "`return outputs, theano.until(condition)` at the end of `fn`"),
    "max_steps": ("`rs.scan_until`'s", "`n_steps=`, which with `until` is the bound"),
    "reverse": (_OURS, "`go_backwards=True`; outputs then come in order of iteration"),
    "xs": (_OURS, "`sequences=`, the second argument"),
    "carry": (_OURS, "`outputs_info=`, the third argument"),
    "params": (_OURS, "`non_sequences=`"),
    "lengths": (_OURS, "`rs.scan(..., lengths=)`, or `jnp.where` in `fn` with the mask among the sequences"),
    "mask": (_OURS, "`rs.scan(..., mask=)`, or `jnp.where` in `fn` with the mask among the sequences"),
    "outputs_info": ("`scan`'s", "`theano.scan`: nothing is fed back in `theano.map`"),
    "n_steps": ("`scan`'s", "`theano.scan`, or cut the sequences"),
    "go_backwards": ("`scan`'s", "`theano.reduce`; `foldl` goes forward and `foldr` backward"),
}

theanos = functools.partial(refusing, prefix="theano.", foreign=_FOREIGN)
"""A decorator: a keyword that the function does not take is answered with the one that it does."""


class Sequences(NamedTuple):
    """Every tap of every sequence as one slice, all of one length, in the order of iteration."""

    slices: tuple[jax.Array, ...]
    names: tuple[str, ...]  # of the elements the step is given, for messages
    n_steps: int


class Outputs(NamedTuple):
    """What `outputs_info` says; both have one entry for each output, or none at all."""

    initial: tuple[Any, ...] | None  # rows, oldest first; None for an output that is not fed back
    taps: tuple[tuple[int, ...] | None, ...] | None

    @property
    def names(self) -> list[str]:
        """The names of the past values that the step is given."""
        taps = enumerate(self.taps or ())
        return [f"outputs_info[{i}][t{tap}]" for i, leaf in taps for tap in leaf or ()]


def as_list(value: Any) -> list[Any]:
    """None is no entry, and what is neither a list nor a tuple is the only one."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def read_sequences(sequences: Any, n_steps: Any, go_backwards: bool) -> Sequences:
    """Tap slices of each sequence, each cut by its own taps, then flipped, then cut to a common length."""
    slices, names, lengths = [], [], {}
    for i, given in enumerate(as_list(sequences)):
        name = f"sequences[{i}]"
        x, taps = _read_sequence(name, given)
        before, after = reach([taps])
        lengths[name] = usable(name, [taps], x.shape[0])
        for tap in each(taps):
            slices.append(tapped(x, tap, before, after))
            names.append(f"{name}[t{tap:+d}]" if tap else f"{name}[t]")
    steps = _count_steps(n_steps, lengths)
    if go_backwards:
        slices = [jnp.flip(x, 0) for x in slices]
    return Sequences(tuple(x[:steps] for x in slices), tuple(names), steps)


def _read_sequence(name: str, given: Any) -> tuple[jax.Array, Taps]:
    if isinstance(given, dict):
        _check_keys(name, given, ("input", "taps"))
        if given.get("input") is None:
            raise TypeError(f"`{name}` has no input; write `dict(input=x, taps=[0, -1])`.")
        taps = given.get("taps")
        x, taps = given["input"], 0 if taps is None else taps
    else:
        x, taps = given, 0
    check_arrays(**{name: x})
    x = jnp.asarray(x)
    if x.ndim == 0:
        raise SequenceError(
            f"`{name}` is a scalar, expected a sequence with time first; constants go to non_sequences."
        )
    return x, read_taps(f"{name}['taps']", taps)


def _check_keys(name: str, given: dict[Any, Any], known: tuple[str, str]) -> None:
    unknown = [key for key in given if key not in known]
    if unknown:
        raise TypeError(f"`{name}` has unknown keys {unknown}; write `dict({known[0]}=..., {known[1]}=[...])`.")


def _count_steps(n_steps: Any, lengths: dict[str, int]) -> int:
    """`n_steps`, or the shortest sequence after its taps have cut it."""
    if n_steps is None:
        if not lengths:
            raise SequenceError(
                "`theano.scan` got neither sequences nor n_steps, so nothing bounds the number of steps; give one. "
                "With `until` the bound may be generous: the outputs end at the stop."
            )
        return min(lengths.values())
    if isinstance(n_steps, jax.core.Tracer):
        raise TypeError(
            "`n_steps` is a traced value, but the number of steps is part of the compiled program. Pass a Python int "
            "(`jax.jit(..., static_argnames=...)`), or a bound and `until`."
        )
    steps = whole("n_steps", n_steps, too_small="; to visit a sequence from its end: go_backwards=True.")
    for name, length in lengths.items():
        if length < steps:
            raise SequenceError(f"`n_steps={steps}`, but `{name}` has only {length} steps (after its taps).")
    return steps


def read_outputs(outputs_info: Any) -> Outputs:
    """`outputs_info` as initial rows and taps; an output with tap -1 alone has its initial row without a time axis."""
    infos = as_list(outputs_info)
    if not infos:
        return Outputs(None, None)
    initial, taps = zip(*(_read_output(f"outputs_info[{i}]", info) for i, info in enumerate(infos)), strict=True)
    return Outputs(tuple(initial), tuple(taps))


def _read_output(name: str, info: Any) -> tuple[Any, tuple[int, ...] | None]:
    if not isinstance(info, dict):
        info = {"initial": info}
    _check_keys(name, info, ("initial", "taps"))
    start, taps = info.get("initial"), info.get("taps", -1)
    if start is None:
        if info.get("taps") is not None:
            raise TapError(f"`{name}` has taps {info['taps']} without an initial value; give `initial=`.")
        return None, None
    if taps is None:
        raise TapError(
            f"`{name}` has an initial value and taps=None, which Theano's manual takes for an output that is not fed "
            "back and its code for taps=[-1]. Write None for the first, `dict(initial=..., taps=[-1])` for the second."
        )
    taps = read_taps(f"{name}['taps']", taps)
    check_output_taps(f"{name}['taps']", taps)
    check_arrays(**{name: start})
    start = jnp.asarray(start)
    depth = -min(each(taps))
    if depth == 1:
        return start[None], (-1,)
    if start.ndim == 0 or start.shape[0] < depth:
        came = "a scalar" if start.ndim == 0 else start.shape[0]
        raise TapError(f"`{name}`: taps {list(each(taps))} need {depth} initial rows, oldest first; got {came}.")
    return start[:depth], each(taps)  # of a longer one Theano takes the first rows


def read_non_sequences(non_sequences: Any) -> tuple[Any, ...]:
    """The arguments that are the same at every step."""
    values = tuple(as_list(non_sequences))
    check_arrays(non_sequences=values)
    return values


def refuse(caller: str, defaults: dict[str, tuple[Any, Any, str]]) -> None:
    """Raises for each argument that means nothing here and is not at its default: name -> (value, default, why)."""
    for name, (value, default, why) in defaults.items():
        if value is not default:
            raise ValueError(f"`{caller}` got {name}={value!r}; leave it at {default}: {why}")

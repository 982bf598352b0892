"""Compiled programs of eager calls, kept by what the cell *is*, without keeping dead closures alive.

A library cell is a frozen dataclass, so equal cells share a program. A function is known by identity and held weakly;
when it dies its programs go too. A program has the arrays and numbers that its function closes over built in, so they
are remembered as well (weakly; NumPy arrays by a digest), and a function whose surroundings changed is compiled anew;
`jax.jit` and `lax.scan` would go on with the old values. A function that closes over traced values is never cached.
"""

import dataclasses
import functools
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from . import _tree
from ._jaxpr.versions import under_jit
from ._notes import users_line


_MOST_PROGRAMS = 512
_FRESH_CLOSURES = 8
_MOST_SURROUNDINGS = 5000  # a function that reads more than this is not cached: looking through it takes too long
_LIBRARIES = {"jax", "jaxlib", "numpy", "scipy", "optax", "rnnscan"}
_WHOLE = (int, float, complex, str, bytes, type, types.ModuleType, types.BuiltinFunctionType, np.ndarray, jax.Array)

_programs: dict[Hashable, "_Program"] = {}
_known: set[Hashable] = set()
_fresh: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_lock = threading.RLock()


class _Program:
    """`jax.jit` of `run(cell, options, *arrays)` that holds the cell during a call only."""

    def __init__(self, run: Callable[..., Any], options: Hashable, surroundings: tuple[Any, ...]):
        self.surroundings = surroundings
        self.traced = False
        self._cell = threading.local()

        def traced(*arrays: Any) -> Any:
            self.traced = True
            return run(self._cell.value, options, *arrays)

        self._jitted = jax.jit(traced)

    def __call__(self, cell: Any, *arrays: Any) -> Any:
        outer = getattr(self._cell, "value", None)  # a cell may itself scan with an equal cell
        self._cell.value = cell
        try:
            return self._jitted(*arrays)
        finally:
            self._cell.value = outer


def run_cached(run: Callable[..., Any], cell: Any, options: Hashable, *arrays: Any) -> Any:
    """`run(cell, options, *arrays)`, compiled once for equal cells, options and shapes."""
    functions = list(functions_in(cell))
    key = _key(cell)
    if key is None and dataclasses.is_dataclass(cell):
        key = _weak(cell)  # a list or an array in a field cannot be compared: known by identity, as functions are
        functions.append(cell)
    surroundings = _all_surroundings(functions)
    if key is None or len(surroundings) > _MOST_SURROUNDINGS or not _tree.is_concrete(surroundings):
        if not under_jit():
            _warn_of_fresh(functions, True)
        return run(cell, options, *arrays)
    key = (run, key, options)
    with _lock:
        program = _programs.get(key)
        if program is None or not _same(program.surroundings, surroundings):
            changed = program is not None
            if not under_jit():
                _warn_of_fresh(functions, changed)
            program = _programs[key] = _Program(run, options, _remember(surroundings))
            while len(_programs) > _MOST_PROGRAMS:
                del _programs[next(iter(_programs))]
    program.traced = False
    result = program(cell, *arrays)
    if program.traced:  # what the cell itself changes while it is traced, a counter say, is no change to compile for
        surroundings = _all_surroundings(functions)
        if _tree.is_concrete(surroundings):
            program.surroundings = _remember(surroundings)
    return result


def _all_surroundings(functions: list[Any]) -> tuple[Any, ...]:
    return tuple(part for function in functions for part in _surroundings(function))


def _key(cell: Any) -> Hashable | None:
    """Equal for cells that are equal; functions and other objects by weak reference. None if that cannot be had."""
    if dataclasses.is_dataclass(cell) and not isinstance(cell, type):
        parts = tuple(_key(getattr(cell, field.name)) for field in dataclasses.fields(cell))
        return None if None in parts else (type(cell), parts)
    if isinstance(cell, tuple):
        parts = tuple(_key(part) for part in cell)
        return None if None in parts else parts
    if isinstance(cell, types.MethodType):
        owner = _weak(cell.__self__)
        return None if owner is None else (cell.__func__, owner)
    if callable(cell) and not isinstance(cell, type):
        return _weak(cell)
    try:
        hash(cell)
    except TypeError:
        return None
    return (type(cell), cell)  # 1 and 1.0 and True are equal, and not the same setting


class _Identity(weakref.ref):
    """A weak reference that compares by identity, whatever the object's own `==` says."""

    __slots__ = ("_id",)

    def __init__(self, thing: Any, callback: Callable[[Any], None]):
        super().__init__(thing, callback)  # type: ignore[call-arg]
        self._id = id(thing)

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Identity) and self() is not None and self() is other())


def _weak(thing: Any) -> Hashable | None:
    try:
        return _Identity(thing, _forget)
    except TypeError:
        return None


def _forget(dead: Any) -> None:
    """Drops the programs of a function that has died."""

    def holds(part: Any) -> bool:
        return part is dead or (isinstance(part, _Identity) and part() is None) or (
            isinstance(part, tuple) and any(holds(p) for p in part)
        )  # fmt: skip

    with _lock:
        for key in [key for key in _programs if holds(key)]:
            _programs.pop(key, None)
        _known.discard(dead)


def functions_in(cell: Any) -> Iterator[Any]:
    """The user's functions that a cell is or is made of."""
    if dataclasses.is_dataclass(cell) and not isinstance(cell, type):
        for field in dataclasses.fields(cell):
            yield from functions_in(getattr(cell, field.name))
    elif isinstance(cell, tuple):
        for part in cell:
            yield from functions_in(part)
    elif callable(cell) and not isinstance(cell, type):
        yield cell


def _surroundings(function: Any) -> list[Any]:
    """What a function reads from outside itself, taken apart to arrays, numbers, text and objects.

    Closed-over values, globals and defaults; of an object its attributes, however deep; of the functions it calls what
    they read in turn. A class, a module and the functions of `_LIBRARIES` are what they are.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [function]
    while waiting and len(found) <= _MOST_SURROUNDINGS:
        for part in _leaves(waiting.pop()):
            if isinstance(part, types.MethodType):  # `cell.step` is a new object each time; what it is of stays
                waiting.append(_inside(part))
                continue
            found.append(part)
            if isinstance(part, _WHOLE) or id(part) in seen:
                continue
            seen.add(id(part))
            waiting.append(_inside(part))
    return found


def _inside(part: Any) -> Any:
    """What an object holds or a function reads, as containers to be opened."""
    if isinstance(part, types.MethodType):
        return [part.__self__, part.__func__]
    if isinstance(part, functools.partial):
        return [part.func, part.args, part.keywords]
    if not isinstance(part, types.FunctionType):
        names = {n for kind in type(part).__mro__ for n in getattr(kind, "__slots__", ())} - {"__weakref__", "__dict__"}
        held = list(vars(part).values()) if hasattr(part, "__dict__") else []
        step = vars(type(part)).get("__call__")  # what a callable object does when called
        return [held, [getattr(part, n, None) for n in sorted(names)], step]
    if (part.__module__ or "").partition(".")[0] in _LIBRARIES:
        return None
    closed = [cell.cell_contents for cell in part.__closure__ or () if _filled(cell)]
    named = [part.__globals__[n] for n in _names(part.__code__) if n in part.__globals__]
    return [closed, named, part.__defaults__, part.__kwdefaults__, list(vars(part).values())]


def _leaves(value: Any) -> list[Any]:
    try:
        return jax.tree.leaves(value)
    except (TypeError, ValueError):  # a dict with keys of several kinds has no order
        return list(value.values()) if isinstance(value, dict) else [value]


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  an empty cell raises here
    except ValueError:
        return False
    return True


def _names(code: types.CodeType) -> list[str]:
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType) for name in _names(const)]
    return [*code.co_names, *inner]


def _remember(surroundings: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers and text as they are, NumPy arrays by what they hold, the rest by weak reference where it can be had."""

    def one(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            return _Held.of(part)
        if isinstance(part, int | float | complex | str | bytes | type(None)):
            return part
        try:
            return weakref.ref(part)
        except TypeError:
            return part

    return tuple(map(one, surroundings))


class _Held(NamedTuple):
    """What a NumPy array held: it may be changed where it is, `w -= rate * gradient`, and stays the same object."""

    shape: tuple[int, ...]
    dtype: Any
    digest: int

    @classmethod
    def of(cls, array: np.ndarray) -> "_Held":
        return cls(array.shape, array.dtype, hash(array.tobytes()))


def _same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    if len(before) != len(now):
        return False
    for a, b in zip(before, now, strict=True):
        if isinstance(a, _Held) and isinstance(b, np.ndarray) and a == _Held.of(b):
            continue
        if isinstance(a, weakref.ref) and a is not b:
            a = a()
        if a is not b and not (type(a) is type(b) and isinstance(a, int | float | complex | str | bytes) and a == b):
            return False
    return True


def _warn_of_fresh(functions: list[Any], changed: bool) -> None:
    """Says once that a function, or an object with `__call__`, made anew for every call is compiled for every call."""
    counted = set()  # a stack of eight equal parts is one compilation, not eight
    for function in functions:
        plain = getattr(function, "func", function)
        code = _code(plain)
        identity = _weak(function) if dataclasses.is_dataclass(function) else _key(function)
        if code is None or (identity in _known and not changed):
            continue
        _known.add(identity)
        if code in counted:
            continue
        counted.add(code)
        _fresh[code] = _fresh.get(code, 0) + 1
        if _fresh[code] == _FRESH_CLOSURES:
            name = getattr(plain, "__name__", None) or type(plain).__name__
            warnings.warn(
                f"`{name}` ({code.co_filename}:{code.co_firstlineno}) has been compiled {_FRESH_CLOSURES} times: each "
                "call brings a new function object, or what it closes over has changed. Define the cell once, outside "
                "the loop, and pass what changes in params; or put `jax.jit` around the whole computation.",
                stacklevel=users_line(),
            )


def _code(function: Any) -> types.CodeType | None:
    """The code of a function or a method, or of an object's `__call__`; None for what is not written in Python."""
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)

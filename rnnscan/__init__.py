"""Recurrences in JAX: write one step, `(params, carry, x) -> (carry, y)`; rnnscan runs it over time."""

from importlib import import_module as _import_module
from importlib.metadata import PackageNotFoundError as _PackageNotFoundError, version as _version
from typing import Any as _Any

from ._types import Cell as Cell, Rng as Rng
from ._scan import ScanUntil as ScanUntil, scan as scan, scan_until as scan_until
from ._explain import explain as explain
from ._plan import Plan as Plan
from ._chunks import Chunk as Chunk, scan_chunks as scan_chunks
from ._taps import scan_taps as scan_taps
from .sequence import bidirectional as bidirectional
from ._padded import flip_valid as flip_valid, last_valid as last_valid
from ._packed import Packed as Packed, pack as pack, unpack as unpack
from .cells.function import cell as cell
from . import cells as cells, wrap as wrap, ode as ode
from . import train as train, diagnose as diagnose, data as data
from . import compat as compat
from . import testing as testing
from ._errors import (
    CarryError as CarryError,
    CellOutputError as CellOutputError,
    DataFileError as DataFileError,
    LengthError as LengthError,
    NonFiniteError as NonFiniteError,
    ParamsError as ParamsError,
    PurityError as PurityError,
    SequenceError as SequenceError,
    TapError as TapError,
)


try:
    __version__ = _version("rnnscan")
except _PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> _Any:
    if name == "plot":  # matplotlib is an extra, and slow to import
        return _import_module(".plot", __name__)
    raise AttributeError(f"module 'rnnscan' has no attribute {name!r}")

"""Cells: frozen dataclasses called as `(params, carry, x) -> (carry, y)`."""

from .linear import Linear as Linear
from .elman import Elman as Elman
from .lstm import LSTM as LSTM
from .gru import GRU as GRU
from .function import FunctionCell as FunctionCell
from .function import cell as cell

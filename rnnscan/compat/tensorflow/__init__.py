"""TensorFlow 1's recurrences, `static_rnn` and `dynamic_rnn` with their cells, as translations to `rnnscan.scan`."""

from typing import Never as _Never

from . import contrib as contrib
from . import nn as nn
from . import rnn_cell as rnn_cell
from .bidirectional import bidirectional_dynamic_rnn as bidirectional_dynamic_rnn
from .bidirectional import stack_bidirectional_dynamic_rnn as stack_bidirectional_dynamic_rnn
from .bidirectional import static_bidirectional_rnn as static_bidirectional_rnn
from .gone import attribute as _attribute
from .loops import dynamic_rnn as dynamic_rnn
from .loops import static_rnn as static_rnn
from .raw import TensorArray as TensorArray
from .raw import raw_rnn as raw_rnn


def __getattr__(name: str) -> _Never:
    _attribute("", name)

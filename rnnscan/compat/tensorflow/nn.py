"""`tf.nn` as far as recurrences go, so that `tf.nn.dynamic_rnn` and `tf.nn.rnn_cell` may be written as they were."""

from typing import Never as _Never

from . import rnn_cell as rnn_cell
from .bidirectional import bidirectional_dynamic_rnn as bidirectional_dynamic_rnn
from .bidirectional import static_bidirectional_rnn as static_bidirectional_rnn
from .gone import attribute as _attribute
from .loops import dynamic_rnn as dynamic_rnn
from .loops import static_rnn as static_rnn
from .raw import raw_rnn as raw_rnn


def __getattr__(name: str) -> _Never:
    _attribute("nn", name)

"""`tf.contrib.rnn`: the cells, and the loops that TensorFlow 1 had there."""

from typing import Never as _Never

from ..bidirectional import stack_bidirectional_dynamic_rnn as stack_bidirectional_dynamic_rnn
from ..bidirectional import static_bidirectional_rnn as static_bidirectional_rnn
from ..gone import attribute as _attribute
from ..loops import static_rnn as static_rnn
from ..rnn_cell import AttentionCellWrapper as AttentionCellWrapper
from ..rnn_cell import BasicLSTMCell as BasicLSTMCell
from ..rnn_cell import BasicRNNCell as BasicRNNCell
from ..rnn_cell import DeviceWrapper as DeviceWrapper
from ..rnn_cell import DropoutWrapper as DropoutWrapper
from ..rnn_cell import EmbeddingWrapper as EmbeddingWrapper
from ..rnn_cell import GRUCell as GRUCell
from ..rnn_cell import HighwayWrapper as HighwayWrapper
from ..rnn_cell import InputProjectionWrapper as InputProjectionWrapper
from ..rnn_cell import LayerNormBasicLSTMCell as LayerNormBasicLSTMCell
from ..rnn_cell import LSTMCell as LSTMCell
from ..rnn_cell import LSTMStateTuple as LSTMStateTuple
from ..rnn_cell import MultiRNNCell as MultiRNNCell
from ..rnn_cell import OutputProjectionWrapper as OutputProjectionWrapper
from ..rnn_cell import ResidualWrapper as ResidualWrapper
from ..rnn_cell import RNNCell as RNNCell


def __getattr__(name: str) -> _Never:
    _attribute("contrib.rnn", name)

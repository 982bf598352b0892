"""TensorFlow 1's recurrent cells as pure functions of params: `cell(params, inputs, state) -> (output, state)`."""

from .base import LSTMStateTuple as LSTMStateTuple
from .base import RNNCell as RNNCell
from .base import check_cell as check_cell
from .base import zero_state as zero_state
from .adapter import TFCell as TFCell
from .adapter import as_cell as as_cell
from .basic import BasicRNNCell as BasicRNNCell
from .lstm import BasicLSTMCell as BasicLSTMCell
from .lstm_full import LSTMCell as LSTMCell
from .gru import GRUCell as GRUCell
from .layer_norm import LayerNormBasicLSTMCell as LayerNormBasicLSTMCell
from .multi import MultiRNNCell as MultiRNNCell
from .dropout import DropoutWrapper as DropoutWrapper
from .wrappers import DeviceWrapper as DeviceWrapper
from .wrappers import HighwayWrapper as HighwayWrapper
from .wrappers import ResidualWrapper as ResidualWrapper
from .projection import EmbeddingWrapper as EmbeddingWrapper
from .projection import InputProjectionWrapper as InputProjectionWrapper
from .projection import OutputProjectionWrapper as OutputProjectionWrapper
from .attention import AttentionCellWrapper as AttentionCellWrapper
from .checkpoint import from_variables as from_variables
from .checkpoint import to_variables as to_variables

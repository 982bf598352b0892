"""TensorFlow 1's recurrent cells as pure functions of params: `cell(params, inputs, state) -> (output, state)`."""

from .base import LSTMStateTuple as LSTMStateTuple
from .base import RNNCell as RNNCell
from .base import check_cell as check_cell
from .base import zero_state as zero_state
from .adapter import TFCell as TFCell
from .adapter import as_cell as as_cell
from .basic import BasicRNNCell as BasicRNNCell
from .lstm import BasicLSTMCell as BasicLSTMCell

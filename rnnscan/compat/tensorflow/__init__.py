"""TensorFlow 1's recurrences, `static_rnn` and `dynamic_rnn` with their cells, as translations to `rnnscan.scan`."""

from . import rnn_cell as rnn_cell

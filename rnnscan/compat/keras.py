"""Keras' backend function `rnn`, as a translation to `rnnscan.scan`."""

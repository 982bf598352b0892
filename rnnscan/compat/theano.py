"""`theano.scan` and its relatives, as translations to `rnnscan.scan`."""

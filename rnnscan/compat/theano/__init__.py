"""`theano.scan` and its relatives, as translations to `rnnscan.scan_taps`."""

from .loop import scan as scan
from .folds import foldl as foldl, foldr as foldr, map as map, reduce as reduce
from .step import until as until

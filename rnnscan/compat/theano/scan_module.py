"""The functions under their old address, `from theano.scan_module import until`."""

from .folds import foldl as foldl
from .folds import foldr as foldr
from .folds import map as map
from .folds import reduce as reduce
from .loop import scan as scan
from .step import until as until

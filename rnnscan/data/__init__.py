"""Loaders that check what they read: MNIST, scikit-learn's digits, IDX files."""

from ._mnist import mnist as mnist
from ._digits import digits as digits, Images as Images
from ._idx import read_idx as read_idx, read_idx as idx

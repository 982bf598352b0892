"""The record that image loaders return, and scikit-learn's bundled 8x8 digits, which need no download."""

from typing import NamedTuple

import numpy as np


class Images(NamedTuple):
    """Images `(N, height, width)`, float32 in [0, 1], and their classes `(N,)`, int32, for training and for testing."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def digits() -> Images:
    """1,797 handwritten digits of 8x8 pixels from scikit-learn (the extra `data`), grey levels 0 .. 16 divided by 16.

    The split is fixed: of each class every fifth image, in the order of the file, is for testing.
    Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998, test part.

    Raises: ImportError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("`rs.data.digits` needs scikit-learn: pip install 'rnnscan[data]'.") from error
    bundle = load_digits()
    images, labels = (bundle.images / 16).astype(np.float32), bundle.target.astype(np.int32)
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[4::5]] = True
    return Images(images[~test], labels[~test], images[test], labels[test])

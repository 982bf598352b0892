"""`digits`: scikit-learn's images, all of them once, in a split that never changes."""

import subprocess
import sys

import numpy as np
import pytest


sklearn_datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn (the extra `data`)")

from rnnscan.data import digits  # noqa: E402


def test_every_image_is_in_one_of_the_two_parts():
    data, bundle = digits(), sklearn_datasets.load_digits()
    parts = np.concatenate([data.train_images, data.test_images]) * 16
    as_rows = lambda images: sorted(tuple(image.ravel()) for image in images)
    assert as_rows(parts) == as_rows(bundle.images)
    pairs = lambda images, labels: {(tuple(i.ravel()), int(n)) for i, n in zip(images, labels, strict=True)}
    together = pairs(parts, np.concatenate([data.train_labels, data.test_labels]))
    assert together == pairs(bundle.images, bundle.target)


def test_the_split_is_balanced_and_fixed():
    first, again = digits(), digits()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    whole = np.bincount(sklearn_datasets.load_digits().target)
    assert np.array_equal(np.bincount(first.test_labels), whole // 5)
    assert first.train_images.dtype == np.float32 and first.train_labels.dtype == np.int32
    assert first.train_images.min() == 0.0 and first.train_images.max() == 1.0


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'rnnscan\[data\]'"):
        digits()


def test_importing_the_rooms_loads_nothing_heavy():
    code = (
        "import sys, rnnscan.train, rnnscan.data; "
        "print([m for m in ('sklearn', 'matplotlib', 'scipy.optimize', 'torch', 'flax', 'orbax') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"

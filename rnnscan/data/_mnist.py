"""MNIST: found on disk, or downloaded into the user's cache; checked either way."""

import hashlib
import http.client
import os
import tempfile
import urllib.request
import warnings
from pathlib import Path

import numpy as np

from .._errors import DataFileError
from ._digits import Images
from ._idx import read_with_md5, same_count, web_page


# name: md5 of the official .gz file, md5 of what is in it
FILES = {
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
MOST_BYTES = 2**24  # the largest official file has 9.9 million


def mnist(dir: str | os.PathLike[str] | None = None, *, download: bool = True) -> Images:
    """The 70,000 handwritten digits of MNIST, 28x28 pixels, grey levels 0 .. 255 divided by 255.

    Returns `Images`: 60,000 for training, 10,000 for testing, in the order of the files.

    The four files, under their official names with or without `.gz`, are looked for in `dir` alone if it is given,
    else in `$RNNSCAN_DATA`, `$RNNSCAN_DATA/mnist`, and the cache (`$XDG_CACHE_HOME/rnnscan/mnist`, by default
    `~/.cache/rnnscan/mnist`). The first place that has all four counts. If none has, they are downloaded into `dir`
    or the cache, unless `download=False`. Downloads are compared with the official checksums and put in place in one
    move, so that a broken download leaves nothing behind. Files on disk that are sound but are not MNIST (other data
    in the same format) give a warning.

    Raises: `DataFileError` for damaged, swapped or mismatched files, and where nothing is found and nothing can be
    downloaded. `rs.data.digits()` needs neither files nor network.
    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
    """
    places = [Path(dir).expanduser()] if dir is not None else _places()
    home = places[-1]
    found = next((place for place in places if all(_find(place, name) for name in FILES)), None)
    if found is None:
        missing = [name for name in FILES if not _find(home, name)]
        if not download:
            looked = ", ".join(map(str, places))
            raise DataFileError(
                f"cannot find MNIST: looked in {looked}; put {missing[0]}.gz and so on there, allow download=True, or "
                "use rs.data.digits()."
            )
        for name in missing:
            _download(home, name)
        found = home
    paths = [_find(found, name) or found / f"{name}.gz" for name in FILES]
    train_images, train_labels, test_images, test_labels = map(_load, FILES, paths)
    same_count(train_images, train_labels, *paths[:2])
    same_count(test_images, test_labels, *paths[2:])
    return Images(
        _scaled(train_images), train_labels.astype(np.int32), _scaled(test_images), test_labels.astype(np.int32)
    )


def _places():
    """Folders to look in when none is given; the last is the cache."""
    given = os.environ.get("RNNSCAN_DATA")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    own = [Path(given).expanduser(), Path(given).expanduser() / "mnist"] if given else []
    return [*own, Path(cache).expanduser() / "rnnscan" / "mnist"]


def _find(place, name):
    return next((path for path in (place / f"{name}.gz", place / name) if path.is_file()), None)


def _load(name, path):
    array, md5 = read_with_md5(path, expect="images" if "images" in name else "labels")
    if md5 != FILES[name][1]:
        warnings.warn(f"{path} is a sound file, but not the one of MNIST (md5 {md5}).", stacklevel=3)
    return array


def _scaled(images):
    return np.divide(images, np.float32(255), dtype=np.float32)


def _download(place, name):
    """Gets one file from the first mirror that has it whole."""
    reasons = []
    for mirror in MIRRORS:
        url = f"{mirror}{name}.gz"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                content = answer.read(MOST_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{url}: {error}")
            continue
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 == FILES[name][0]:
            return _store(place, f"{name}.gz", content)
        wrong = "a web page, not data" if web_page(content[:64]) else f"{len(content)} bytes with the wrong md5 {md5}"
        reasons.append(f"{url}: {wrong}")
    raise DataFileError(
        f"cannot download {name}.gz ({'; '.join(reasons)}); put the files in {place} or use rs.data.digits()."
    )


def _store(place, name, content):
    """Writes a file so that it is there whole or not at all."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place, prefix=f".{name}.", suffix=".tmp")
    except OSError as error:
        raise DataFileError(f"cannot write into {place}: {error}; give `dir`, a folder that can be written.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place / name)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataFileError(f"cannot write {place / name}: {error}.") from error
        raise

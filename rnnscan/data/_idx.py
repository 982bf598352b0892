"""Reader of IDX files, the format MNIST comes in; every header claim is checked against the bytes that follow it.

Layout (Y. LeCun, "The MNIST database of handwritten digits"): two zero bytes, a byte for the type, a byte for the
number of axes, then the axes as big-endian 32-bit counts, then the items, big-endian, last axis fastest.
"""

import gzip
import hashlib
import math
import zlib
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import DataFileError


TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAGIC = {"images": 0x803, "labels": 0x801}
NAMES = {number: name for name, number in MAGIC.items()}
GZIP_LIMIT = 1032  # deflate packs 258 bytes into two bits at best: 1032 to 1


def read_idx(path: str | PathLike[str], *, expect: str | None = None) -> np.ndarray:
    """The array in the IDX file at `path`, gzipped or plain (its first bytes tell), in the machine's byte order.

    `expect`: "images" (three axes of uint8) or "labels" (one axis of uint8) raises for a file of another kind; None
    takes any kind. No more memory is taken than header and file size allow for, whatever the file claims.

    Raises: `DataFileError` for a file that is missing, empty, truncated, damaged, no IDX file, not of the kind
    expected, or longer or shorter than its header says.
    """
    return read_with_md5(path, expect)[0]


def read_with_md5(path: str | PathLike[str], expect: str | None = None) -> tuple[np.ndarray, str]:
    """The array, and the md5 of the file's bytes after decompression."""
    if expect is not None and expect not in MAGIC:
        raise ValueError(f"`expect` must be 'images', 'labels' or None, got {expect!r}.")
    path = Path(fspath(path))
    try:
        return _read(path, expect)
    except EOFError as error:
        raise DataFileError(f"{path} is truncated (delete it and download again).") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(f"{path} is damaged: {error} (delete it and download again).") from error
    except OSError as error:
        raise DataFileError(f"cannot read {path}: {error.strerror or error}.") from error


def web_page(start: bytes) -> bool:
    """Whether these first bytes are those of HTML or XML."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _read(path, expect):
    size = path.stat().st_size
    with path.open("rb") as raw:
        start = raw.read(64)
        raw.seek(0)
        if not start:
            raise DataFileError(f"{path} is an empty file (delete it and download again).")
        if web_page(start):
            raise DataFileError(f"{path} starts with {start[:5]!r}: a web page, not data.")
        if not start.startswith(b"\x1f\x8b"):
            return _parse(path, raw, size, expect)
        with gzip.GzipFile(fileobj=raw) as stream:
            return _parse(path, stream, size * GZIP_LIMIT, expect)


def _parse(path, stream, most_bytes, expect):
    """Header, checks, items; `most_bytes` is the most that the stream can hold."""
    magic = stream.read(4)
    if not magic:
        raise DataFileError(f"{path} holds an empty file (delete it and download again).")
    dtype, n_axes = _parse_magic(path, magic, expect)
    axes = stream.read(4 * n_axes)
    if len(axes) < 4 * n_axes:
        raise DataFileError(f"{path} is truncated: it ends within its header (delete it and download again).")
    shape = tuple(int(n) for n in np.frombuffer(axes, ">u4"))
    n_bytes = math.prod(shape) * dtype.itemsize
    claim = f"header says {'x'.join(map(str, shape))} = {n_bytes} bytes"
    if n_bytes > most_bytes:
        raise DataFileError(f"{path}: {claim}, file cannot have more than {most_bytes}.")
    payload = stream.read(n_bytes)
    if len(payload) < n_bytes:
        raise DataFileError(f"{path}: {claim}, file has {len(payload)}.")
    if stream.read(1):  # for gzip, reading to the end is also what checks the checksum
        raise DataFileError(f"{path}: {claim}, file has more.")
    digest = hashlib.md5(magic + axes, usedforsecurity=False)
    digest.update(payload)
    items = np.frombuffer(payload, dtype)
    try:
        return items.astype(dtype.newbyteorder("=")).reshape(shape), digest.hexdigest()
    except ValueError as error:  # an empty array may still claim axes too large for NumPy
        raise DataFileError(f"{path}: {claim}, which is no array: {error}.") from error


def _parse_magic(path, magic, expect):
    number = int.from_bytes(magic, "big")
    kind = TYPES.get(magic[2]) if len(magic) == 4 else None
    if magic[:2] != b"\0\0" or kind is None or magic[3] > 32:
        raise DataFileError(f"{path} starts with {magic!r}: not an IDX file.")
    if expect is not None and number != MAGIC[expect]:
        got = f" ({NAMES[number]})" if number in NAMES else ""
        swapped = ": are the two files swapped?" if number in NAMES else "."
        raise DataFileError(f"{path}: magic 0x{number:08x}{got}, expected 0x{MAGIC[expect]:08x} ({expect}){swapped}")
    return np.dtype(kind), int(magic[3])


def same_count(images: Any, labels: Any, images_path: Any, labels_path: Any) -> None:
    """Raises unless there is one label for each image."""
    if len(images) != len(labels):
        raise DataFileError(
            f"{images_path} has {len(images)} images, {labels_path} has {len(labels)} labels; they belong together."
        )

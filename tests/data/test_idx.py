"""`read_idx` reads what is sound and says what is wrong with the rest."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from rnnscan._errors import DataFileError
from rnnscan.data import idx, read_idx


def zipped(content):
    """Gzipped without the time of day, which would give each test process other names for the same tests."""
    return gzip.compress(content, mtime=0)


def idx_bytes(array, code=0x08, dims=None):
    dims = array.shape if dims is None else dims
    return struct.pack(f">HBB{len(dims)}I", 0, code, len(dims), *dims) + array.tobytes()


IMAGES = np.arange(1, 25, dtype=np.uint8).reshape(4, 3, 2)
LABELS = np.array([3, 1, 4, 1], np.uint8)
SOUND = idx_bytes(IMAGES)
NOISE = np.random.default_rng(0).integers(0, 256, (9, 30, 20)).astype(np.uint8)  # deflate cannot shorten it
ZIPPED = zipped(idx_bytes(NOISE))


def damaged():
    content = bytearray(ZIPPED)
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def with_wrong_checksum():
    content = bytearray(ZIPPED)
    content[-8] ^= 0xFF  # the CRC of the gzip trailer
    return bytes(content)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "code, dtype, values",
    [
        (0x08, ">u1", [1, 255]),
        (0x09, ">i1", [-128, 5]),
        (0x0B, ">i2", [-300, 2]),
        (0x0C, ">i4", [-70000, 1]),
        (0x0D, ">f4", [0.5, -2.25]),
        (0x0E, ">f8", [0.1, 7.0]),
    ],
)
def test_every_type_plain_and_gzipped(code, dtype, values, packed, tmp_path):
    array = np.array([values, values[::-1], values], dtype)
    content = idx_bytes(array, code)
    path = tmp_path / "some.idx"
    path.write_bytes(zipped(content) if packed else content)
    got = idx(path)
    assert np.array_equal(got, array) and got.dtype == np.dtype(dtype).newbyteorder("=") and got.flags.writeable


def test_expect_and_text_paths_and_no_items(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(SOUND)
    assert np.array_equal(read_idx(str(path), expect="images"), IMAGES)
    path.write_bytes(idx_bytes(np.zeros(0, np.uint8)))
    assert read_idx(path, expect="labels").shape == (0,)
    with pytest.raises(ValueError, match="`expect` must be 'images', 'labels' or None, got 'pictures'"):
        read_idx(path, expect="pictures")


@pytest.mark.parametrize(
    "content, expect, message",
    [
        (ZIPPED[:-40], None, r"x.gz is truncated \(delete it and download again\)"),
        (ZIPPED[:12], None, "is truncated"),
        (damaged(), None, r"x.gz (is damaged|: header says)"),
        (with_wrong_checksum(), None, "is damaged: CRC check failed"),
        (ZIPPED + b"more", None, "is damaged: Not a gzipped file"),
        (b"<html><body>404</body></html>", None, "starts with b'<html': a web page, not data"),
        (b"\n <!DOCTYPE html>", None, "a web page, not data"),
        (b"", None, "is an empty file"),
        (zipped(b""), None, "holds an empty file"),
        (
            idx_bytes(LABELS),
            "images",
            r"magic 0x00000801 \(labels\), expected 0x00000803 \(images\): are the two",
        ),
        (zipped(SOUND), "labels", r"magic 0x00000803 \(images\), expected 0x00000801 \(labels\): are the two"),
        (idx_bytes(LABELS, 0x0B), "labels", r"magic 0x00000b01, expected 0x00000801 \(labels\)\."),
        (SOUND[:-5], None, r"header says 4x3x2 = 24 bytes, file has 19"),
        (zipped(SOUND[:-5]), None, r"header says 4x3x2 = 24 bytes, file has 19"),
        (SOUND + b"!", None, r"header says 4x3x2 = 24 bytes, file has more"),
        (zipped(SOUND + b"!"), None, r"header says 4x3x2 = 24 bytes, file has more"),
        (SOUND[:9], None, "it ends within its header"),
        (SOUND[:3], None, "not an IDX file"),
        (b"\x89PNG\r\n\x1a\n", None, r"starts with b'\\x89PNG': not an IDX file"),
        (idx_bytes(IMAGES, 0x0A), None, "not an IDX file"),
        (idx_bytes(LABELS, dims=(2**32 - 1,) * 3), None, "file cannot have more than"),
        (zipped(idx_bytes(LABELS, dims=(2**32 - 1,))), None, "= 4294967295 bytes, file cannot have more than"),
        (idx_bytes(LABELS[:0], dims=(0, 2**32 - 1, 2**32 - 1)), None, "which is no array"),
    ],
)
def test_files_that_are_not_sound(content, expect, message, tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        read_idx(path, expect=expect)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DataFileError, match="cannot read .*gone: No such file"):
        read_idx(tmp_path / "gone")
    with pytest.raises(DataFileError, match="Is a directory"):
        read_idx(tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(zipped(idx_bytes(IMAGES) + bytes(2**26)))  # 64 MiB of zeros after 24 items
    tracemalloc.start()
    with pytest.raises(DataFileError, match="file has more"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21

"""`mnist` finds, checks and downloads its four files; no test touches the network."""

import gzip
import hashlib
import http.client
import io
import os
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from rnnscan._errors import DataFileError
from rnnscan.data import _mnist, mnist


TRAIN = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 3, 2)
TEST = TRAIN[:3] + np.uint8(1)


def packed(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


TINY = {
    "train-images-idx3-ubyte": packed(TRAIN),
    "train-labels-idx1-ubyte": packed(np.array([5, 0, 4, 1], np.uint8)),
    "t10k-images-idx3-ubyte": packed(TEST),
    "t10k-labels-idx1-ubyte": packed(np.array([7, 2, 9], np.uint8)),
}


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """Tiny files are the known ones; folders are this test's own; the network is gone."""
    sums = {name: (md5(content), md5(gzip.decompress(content))) for name, content in TINY.items()}
    monkeypatch.setattr(_mnist, "FILES", sums)
    monkeypatch.delenv("RNNSCAN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    serve(monkeypatch, lambda url: urllib.error.URLError("no route to host"))


def serve(monkeypatch, answer):
    """Lets `urlopen` give what `answer(url)` returns, an exception or bytes; returns the list of urls asked for."""
    asked = []

    def urlopen(url, timeout=None):
        asked.append(url)
        content = answer(url)
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def official(url):
    return TINY[url.rsplit("/", 1)[1].removesuffix(".gz")]


def write(folder, files=TINY, unpacked=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / (name if unpacked else f"{name}.gz")
        path.write_bytes(gzip.decompress(content) if unpacked else content)
    return folder


def check(data):
    np.testing.assert_allclose(data.train_images, TRAIN / 255, rtol=1e-6)
    np.testing.assert_allclose(data.test_images, TEST / 255, rtol=1e-6)
    assert data.train_labels.tolist() == [5, 0, 4, 1] and data.test_labels.tolist() == [7, 2, 9]
    assert [part.dtype for part in data] == [np.float32, np.int32, np.float32, np.int32]


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("place", ["dir", "RNNSCAN_DATA", "RNNSCAN_DATA/mnist", "cache"])
def test_places_where_files_are_found(place, unpacked, tmp_path, monkeypatch):
    if place == "dir":
        check(mnist(write(tmp_path / "here", unpacked=unpacked)))
        return
    if place != "cache":
        monkeypatch.setenv("RNNSCAN_DATA", str(tmp_path / "RNNSCAN_DATA"))
    write(tmp_path / ("cache/rnnscan/mnist" if place == "cache" else place), unpacked=unpacked)
    check(mnist(download=False))


def test_dir_is_the_only_place_if_given(tmp_path):
    write(tmp_path / "cache/rnnscan/mnist")
    with pytest.raises(DataFileError, match=r"cannot find MNIST: looked in .*empty; put train-images-idx3-ubyte.gz"):
        mnist(tmp_path / "empty", download=False)


@pytest.mark.parametrize("dir", [None, "there"])
def test_download_into_the_cache_or_dir_once(dir, tmp_path, monkeypatch):
    asked = serve(monkeypatch, official)
    target = tmp_path / ("cache/rnnscan/mnist" if dir is None else dir)
    check(mnist(dir and target))
    assert len(asked) == 4 and sorted(p.name for p in target.iterdir()) == sorted(f"{name}.gz" for name in TINY)
    check(mnist(dir and target))
    assert len(asked) == 4


def test_download_of_the_missing_file_only(tmp_path, monkeypatch):
    asked = serve(monkeypatch, official)
    write(tmp_path, {name: content for name, content in TINY.items() if "train-labels" not in name})
    check(mnist(tmp_path))
    assert [url.rsplit("/", 1)[1] for url in asked] == ["train-labels-idx1-ubyte.gz"]


def test_the_next_mirror_is_tried(tmp_path, monkeypatch):
    first = _mnist.MIRRORS[0]
    asked = serve(monkeypatch, lambda url: b"<html>moved</html>" if url.startswith(first) else official(url))
    check(mnist())
    assert len(asked) == 8


@pytest.mark.parametrize(
    "answer, reason",
    [
        (lambda url: urllib.error.URLError("no route to host"), "no route to host"),
        (lambda url: urllib.error.HTTPError(url, 403, "Forbidden", None, None), "HTTP Error 403"),
        (lambda url: TimeoutError("timed out"), "timed out"),
        (lambda url: http.client.IncompleteRead(b"abc"), "IncompleteRead"),
        (lambda url: b"<!DOCTYPE html><html>sign in</html>", "a web page, not data"),
        (lambda url: official(url)[:-3], "bytes with the wrong md5"),
        (lambda url: packed(TRAIN[:1]), "bytes with the wrong md5"),
        (lambda url: b"", "0 bytes with the wrong md5"),
    ],
)
def test_downloads_that_fail_leave_nothing_behind(answer, reason, tmp_path, monkeypatch):
    serve(monkeypatch, answer)
    message = (
        rf"cannot download train-images-idx3-ubyte.gz .*{reason}.*put the files in .*mnist or use rs.data.digits\(\)"
    )
    with pytest.raises(DataFileError, match=message):
        mnist()
    assert not list(tmp_path.rglob("*ubyte*"))


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    serve(monkeypatch, official)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataFileError, match="No space left on device"):
        mnist()
    assert not list(tmp_path.rglob("*ubyte*"))


def test_a_cache_that_is_no_folder(tmp_path, monkeypatch):
    serve(monkeypatch, official)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataFileError, match="cannot write into .*give `dir`"):
        mnist()


def test_other_data_in_sound_files_give_a_warning(tmp_path):
    write(tmp_path, TINY | {"t10k-images-idx3-ubyte": packed(TEST + np.uint8(3))})
    with pytest.warns(
        UserWarning, match="t10k-images-idx3-ubyte.gz is a sound file, but not the one of MNIST"
    ) as caught:
        data = mnist(tmp_path)
    np.testing.assert_allclose(data.test_images, (TEST + 3) / 255, rtol=1e-6)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"train-images-idx3-ubyte": TINY["train-labels-idx1-ubyte"]},
            r"magic 0x00000801 \(labels\), expected 0x00000803 \(images\): are the two files swapped\?",
        ),
        ({"t10k-labels-idx1-ubyte": TINY["t10k-labels-idx1-ubyte"][:-9]}, "t10k-labels-idx1-ubyte.gz is truncated"),
        ({"t10k-labels-idx1-ubyte": b""}, "t10k-labels-idx1-ubyte.gz is an empty file"),
    ],
)
def test_files_on_disk_that_are_not_sound(changed, message, tmp_path):
    with pytest.raises(DataFileError, match=message):
        mnist(write(tmp_path, TINY | changed))


def test_counts_that_differ(tmp_path, monkeypatch):
    files = TINY | {"train-labels-idx1-ubyte": TINY["t10k-labels-idx1-ubyte"]}
    monkeypatch.setattr(_mnist, "FILES", {name: ("", md5(gzip.decompress(files[name]))) for name in files})
    with pytest.raises(DataFileError, match=r"has 4 images, .*has 3 labels"):
        mnist(write(tmp_path, files))


def test_the_real_files(monkeypatch):
    monkeypatch.undo()
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    place = Path(os.environ.get("RNNSCAN_DATA") or beside)
    folder = next((f for f in (place, place / "mnist") if (f / "t10k-labels-idx1-ubyte.gz").is_file()), None)
    if folder is None:
        pytest.skip(f"no MNIST in {place}; set RNNSCAN_DATA to a folder that has it")
    data = mnist(folder, download=False)  # the md5 of each file is checked: another file would warn, and so fail
    assert data.train_images.shape == (60000, 28, 28) and data.test_images.shape == (10000, 28, 28)
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as in every tutorial on MNIST
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(data.train_images.mean() - 0.1307) < 1e-4  # the mean that torch's example normalises by
    assert data.train_images.max() == 1.0 and data.train_images.min() == 0.0

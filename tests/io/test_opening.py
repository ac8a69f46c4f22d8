"""Paths that lead nowhere or to no file, and files that are something else: one reason each, at once."""

import gzip
import io
import os
import socket
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lgdea_jax.io import UnreadableImage, read_image_file
from lgdea_jax.io.opening import file_kind, printable
from tests.io.fuzz import saved

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def refused(path):
    with pytest.raises(UnreadableImage) as caught:
        read_image_file(path)
    assert str(path) not in caught.value.reason and "\n" not in caught.value.reason
    return caught.value.reason


@POSIX
def test_paths(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(GREY, "PNG"))
    os.symlink("a.png", tmp_path / "link")
    np.testing.assert_array_equal(read_image_file(tmp_path / "link")[0], GREY)
    os.symlink("nowhere", tmp_path / "dead")
    os.symlink("loop", tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
            "none.png": "missing", "dead": "a link to a file that is missing", "loop": "a loop of links",
            "a.png/x.png": "leads through a file", "x" * 300: "longer than the file system allows",
            "a\0b.png": "a null character", "a\ud800.png": "cannot be encoded", "pipe": "a named pipe",
            ".": "a folder"}.items():
        assert reason in refused(tmp_path / name), name
    with socket.socket(socket.AF_UNIX) as server:
        folder = Path.cwd()
        os.chdir(tmp_path)  # Names of sockets are short.
        try:
            server.bind("socket")
        finally:
            os.chdir(folder)
        assert "a socket" in refused(tmp_path / "socket")
    assert "a device" in refused("/dev/zero")
    if os.path.exists("/proc/self/mem"):
        assert "empty" in refused("/proc/self/mem")


@POSIX
def test_names_that_are_not_utf8(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"latin\xe9.png")
    try:
        with open(path, "wb") as file:
            file.write(saved(GREY, "PNG"))
    except OSError:
        pytest.skip("a file system of UTF-8 names only")
    np.testing.assert_array_equal(read_image_file(os.fsdecode(path))[0], GREY)
    assert printable(os.fsdecode(path)).endswith("latin\\xe9.png")
    printable(os.fsdecode(path)).encode()


def test_sizes_are_looked_at_before_memory_is_taken(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.write(saved(GREY, "PNG"))
        file.truncate(1 << 40)  # Sparse: it takes no space.
    assert "more than a radiograph can have" in refused(path)
    with open(path, "wb") as file:
        file.truncate(1 << 28)
    assert "filled with zeros" in refused(path)


def zipped(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x" * 50)
    return buffer.getvalue()


NIFTI = b"\x5c\1\0\0".ljust(344, b"\0") + b"n+1\0"
IMAGE = Image.fromarray(GREY)
KINDS = {
    "a GIF file": saved(IMAGE, "GIF"), "a BMP file": saved(IMAGE, "BMP"), "a TIFF file": saved(IMAGE, "TIFF"),
    "a WebP file": saved(IMAGE, "WEBP"), "a JPEG 2000 file": saved(IMAGE, "JPEG2000"),
    "a gzipped PNG file": gzip.compress(saved(IMAGE, "PNG")),
    "a gzipped TIFF file": gzip.compress(saved(IMAGE, "TIFF")),
    "a gzipped DICOM file": gzip.compress(b"\0" * 128 + b"DICM"), "a gzip archive": gzip.compress(b"\1\2\3"),
    "a volume (NIfTI) where a 2D image": NIFTI, "a gzipped volume (NIfTI) where": gzip.compress(NIFTI),
    "a volume (.npz)": zipped("ct.npy"), "a zip archive": zipped("a.png"), "a PDF file": b"%PDF-1.4 x",
    "a file filled with zeros": bytes(600), "a text file": b"study_id,image\n1,a.png\n",
    "a web page": b"\n<!DOCTYPE html><html>", "an XML file": b"<?xml version='1.0'?><a/>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "a git-annex pointer": b"/annex/objects/SHA256E-s1--00.png\n", "a volume (NRRD)": b"NRRD0005\n",
    "a volume (MetaImage)": b"ObjectType = Image\n", "not a PNG, JPEG or DICOM file": bytes(range(1, 200))}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_called_what_they_are(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(KINDS[kind])
    assert refused(tmp_path / "a.png").startswith(kind)


def test_kinds_of_what_is_read():
    assert file_kind(saved(IMAGE, "PNG")) == "a PNG file" and file_kind(saved(IMAGE, "JPEG")) == "a JPEG file"
    assert file_kind(b"") == ""

"""Opening files that other people named: regular files only, every failure one reason, and a word for what they are.

A path in a table may lead to a pipe that nobody writes to, to a device without an end, or nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from lgdea_jax.io.image_info import UnreadableImage

PNG = b"\x89PNG\r\n\x1a\n"
# (offset, bytes, name); the first that fits.
_MAGIC = (
    (0, PNG, "a PNG file"), (0, b"\xff\xd8\xff", "a JPEG file"), (128, b"DICM", "a DICOM file"),
    (0, b"GIF8", "a GIF file"), (0, b"BM", "a BMP file"), (0, b"II*\0", "a TIFF file"), (0, b"MM\0*", "a TIFF file"),
    (0, b"II+\0", "a TIFF file"), (8, b"WEBP", "a WebP file"), (4, b"ftyphei", "a HEIC file"),
    (4, b"ftypmif1", "a HEIF file"), (4, b"ftypavif", "an AVIF file"), (4, b"ftyp", "a video (MP4)"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 file"), (0, b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file"), (0, b"\xff\x0a", "a JPEG XL file"), (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF file"), (0, b"\x93NUMPY", "a NumPy array (.npy)"), (0, b"\x89HDF", "an HDF5 file"),
    (0, b"NRRD0", "a volume (NRRD)"), (0, b"ObjectType", "a volume (MetaImage)"),
    (344, b"n+1\0", "a volume (NIfTI)"), (344, b"ni1\0", "the header of a NIfTI pair"),
    (4, b"n+2\0", "a volume (NIfTI)"), (4, b"ni2\0", "the header of a NIfTI pair"), (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"), (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"), (0, b"Rar!", "a RAR archive"), (257, b"ustar", "a tar archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\0\x05\x16\x07", "what macOS writes beside a file (._ in its name)"),
    (0, b"\xd0\xcf\x11\xe0", "a document of an older Office"), (0, b"MATLAB 5", "a MATLAB file"),
    (0, b"SQLite format 3", "an SQLite database"), (0, b"\x89PNG\n", "a PNG file that was transferred as text"),
    (0, b"\x89PNG\r\r", "a PNG file that was transferred as text"), (0, b"\n" + PNG, "a PNG file behind other bytes"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the file's content was not fetched (git lfs pull)"),
)
_REASONS = {
    errno.ENOTDIR: "the path of the {what} leads through a file",
    errno.ENAMETOOLONG: "the name of the {what} is longer than the file system allows",
    errno.ELOOP: "the path of the {what} is a loop of links",
    errno.EACCES: "no permission to read the {what}", errno.EPERM: "no permission to read the {what}",
}
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
          (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str], what: str = "image file") -> Iterator[tuple[BinaryIO, int]]:
    """Opens a file for reading.

    Args:
      path: of a regular file, or links that lead to one. what: the word for it in reasons.

    Yields:
      (file, size): the open file and its size in bytes.

    Raises:
      UnreadableImage: missing, not a regular file, or whatever opening or reading it raises.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise UnreadableImage(f"the name of the {what} has a null character")
    except ValueError:
        raise UnreadableImage(f"the name of the {what} cannot be encoded") from None
    try:
        _check_regular(os.stat(path).st_mode, what)  # Before it is opened: that may wait, or set a device going.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _check_regular(status.st_mode, what)
            yield file, status.st_size
    except OSError as error:
        raise UnreadableImage(_reason(error, path, what)) from None


def _check_regular(mode: int, what: str) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for check, name in _KINDS if check(mode)), "something else")
        raise UnreadableImage(f"the {what} is {kind}, not a file")


def _reason(error: OSError, path: str | os.PathLike[str], what: str) -> str:
    if error.errno == errno.ENOENT:
        if os.path.islink(path):
            return f"the {what} is a link to a file that is missing (was its content fetched?)"
        return f"the {what} is missing"
    if error.errno in _REASONS:
        return _REASONS[error.errno].format(what=what)
    return f"the {what} cannot be read: {error.strerror or type(error).__name__}"


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed and written: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def file_kind(head: bytes) -> str:
    """What a file is, by its first bytes (a few hundred are enough), as "a TIFF file" or "a gzipped PNG file".

    Returns:
      A noun phrase; "" for what is not known.
    """
    if head[:2] == b"\x1f\x8b":
        inside = file_kind(_inflated(head))
        return inside.replace("a ", "a gzipped ", 1).replace("an ", "a gzipped ", 1) if inside else "a gzip archive"
    if head[:4] == b"PK\x03\x04":
        name = head[30:30 + int.from_bytes(head[26:28], "little")]
        return "a volume (.npz)" if name.endswith(b".npy") else "a zip archive"
    for offset, magic, name in _MAGIC:
        if head[offset:offset + len(magic)] == magic:
            return name
    if head and not head.strip(b"\0"):
        return "a file filled with zeros"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"annex/objects/" in head[:300]:
        return "a git-annex pointer: the file's content was not fetched (git annex get)"
    if re.match(rb"<(!doctype html|html|head)", text, re.IGNORECASE):
        return "a web page (was the download refused?)"
    if text[:5] in (b"<?xml", b"<svg "):
        return "an SVG drawing" if b"<svg" in head else "an XML file"
    if head and not re.search(rb"[^\t\r\n\x20-\x7e\x80-\xff]", head) and _is_utf8(head):
        return "a text file"
    return ""


def _inflated(head: bytes) -> bytes:
    """What a gzip file begins with."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, 512)
    except zlib.error:
        return b""


def _is_utf8(head: bytes) -> bool:
    try:
        head[:-4].decode()  # The last character may be cut.
    except UnicodeDecodeError:
        return False
    return True

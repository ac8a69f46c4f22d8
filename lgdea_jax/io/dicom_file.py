"""A DICOM file as a `pydicom.Dataset`: with or without its preamble, inflated within bounds.

Objects without an image are called what they are.
"""

from __future__ import annotations

import io as _io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

from lgdea_jax.errors import require
from lgdea_jax.io.image_info import UnreadableImage, damage_as

DAMAGED = "the DICOM file is truncated, damaged or has no usable pixels"
# What is inflated before the size of the pixels is known; and what a deflated file may hold at all.
_MAX_HEADER, _MAX_INFLATED = 1 << 23, 1 << 30
_DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_VRS = (*_LONG, b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
        b"SS", b"ST", b"TM", b"UI", b"UL", b"US")
# Objects without an image, by the beginning of their SOP class; the first that fits.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_OBJECTS = (
    ("1.2.840.10008.1.3.10", "the directory of a disc, a DICOMDIR"),
    (f"{_STORAGE}88.59", "a key object selection"), (f"{_STORAGE}88.67", "a radiation dose report"),
    (f"{_STORAGE}88.", "a structured report"), (f"{_STORAGE}11.", "a presentation state"),
    (f"{_STORAGE}104.", "an encapsulated document"), (f"{_STORAGE}9.", "a waveform"),
    (f"{_STORAGE}481.", "radiotherapy data"), (f"{_STORAGE}66", "a registration, a segmentation or raw data"))


def open_pydicom() -> Any:
    """The module `pydicom`, which keeps its warnings and the tracebacks of its decoders to itself.

    Odd values in headers are common and harmless, and what is not harmless reaches the user as one line.

    Raises:
      UserError: the extra `dicom` is not installed.
    """
    pydicom = require("pydicom", "dicom", "reading DICOM")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    # One filter for good: `warnings.catch_warnings` does not hold in threads.
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    return pydicom


def is_dicom(head: bytes) -> bool:
    """Whether a file is DICOM by its first bytes (256 are enough), with or without the preamble of 132 bytes."""
    return head[128:132] == b"DICM" or _is_bare(head, "<") or _is_bare(head, ">")


def _is_bare(head: bytes, order: str) -> bool:
    """Whether a file begins with two elements in order, the first of group 2 or 8: DICOM without a preamble."""
    offset, last = 0, (0, 0)
    for groups in ((2, 8), range(2, 0x30, 2)):
        if len(head) < offset + 12:
            return False
        group, element = struct.unpack_from(f"{order}HH", head, offset)
        if group not in groups or (group, element) <= last:
            return False
        last, vr = (group, element), head[offset + 4:offset + 6]
        if vr in _VRS:
            length = struct.unpack_from(f"{order}I" if vr in _LONG else f"{order}H", head,
                                        offset + (8 if vr in _LONG else 6))[0]
            offset += (12 if vr in _LONG else 8) + length
        else:
            offset += 8 + struct.unpack_from(f"{order}I", head, offset + 4)[0]
    return True


def read_dataset(data: bytes) -> Any:
    """The `pydicom.Dataset` of a file's bytes; compressed pixels are not decoded.

    Raises:
      UnreadableImage: damaged, or deflated to more than the image that it describes. UserError: the extra `dicom` is
        not installed.
    """
    pydicom = open_pydicom()
    with damage_as(DAMAGED):
        data = _inflate(pydicom, data)
        return pydicom.dcmread(_io.BytesIO(data), force=data[128:132] != b"DICM")


def _inflate(pydicom: Any, data: bytes) -> bytes:
    """The bytes of a deflated file as those of an explicit one, as far as its image goes; others as they are."""
    if data[128:132] != b"DICM" or _DEFLATED not in data[132:4096]:
        return data
    start = 132
    while data[start:start + 2] == b"\x02\0":  # The elements of the file meta information are not deflated.
        long = data[start + 4:start + 6] in _LONG
        start += (12 if long else 8) + struct.unpack_from("<I" if long else "<H", data, start + (8 if long else 6))[0]
    meta = data[:start].replace(_DEFLATED, _EXPLICIT)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts = [meta, inflater.decompress(data[start:], _MAX_HEADER)]
    if not inflater.eof:
        header = pydicom.dcmread(_io.BytesIO(b"".join(parts)), stop_before_pixels=True)
        sizes = [header.get(name) or 1 for name in ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")]
        pixels = math.prod(int(size) for size in sizes) * math.ceil(int(header.get("BitsAllocated") or 8) / 8)
        if pixels > _MAX_INFLATED:
            raise UnreadableImage("the DICOM image has more pixels than can be trusted")
        parts.append(inflater.decompress(inflater.unconsumed_tail, pixels + 1))
    if not inflater.eof:
        cut = not inflater.unconsumed_tail
        raise UnreadableImage(f"{DAMAGED} (the deflated data end early)" if cut else
                              "a deflated DICOM file that holds far more than the image that it describes")
    return b"".join(parts)


def object_kind(dataset: Any) -> str:
    """What a DICOM file without an image is, as "a structured report"; "" where its class tells nothing."""
    classes = [str(where.get(name) or "") for where, name in (
        (dataset, "SOPClassUID"), (dataset.get("file_meta") or getattr(dataset, "file_meta", {}) or {},
                                   "MediaStorageSOPClassUID"))]
    return next((kind for uid in classes for start, kind in _OBJECTS if uid.startswith(start)), "")


def number(value: Any) -> float:
    """A header's number, NaN where it is none; some writers put a decimal comma."""
    try:
        return float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return math.nan


def numbers(value: Any) -> list[float]:
    """The numbers of an attribute that may have none, one or several."""
    if value is None or value == "":
        return []
    many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return [number(part) for part in (value if many else [value])]

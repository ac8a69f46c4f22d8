"""The pixels of a DICOM file as the numbers that its writer meant: one way for radiographs and for slices of CT.

`pixel_array` gives the stored values, `padding_mask` where they are no image, and `rescale` what they stand for. All
three take a `pydicom.Dataset`. Compressed pixels are looked at before they are decoded, and streams that were cut or
have a hole are refused: decoders fill up what is missing without an error.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from lgdea_jax.errors import pip_line
from lgdea_jax.io.codestream import MAX_TILES, decode_jpeg, read_codestream
from lgdea_jax.io.dicom_file import DAMAGED, number, open_pydicom
from lgdea_jax.io.image_info import MAX_PIXEL_BYTES, MAX_PIXELS, UnreadableImage, damage_as

# Attributes without which pixels can still mean one thing only.
_DEFAULTS = (("SamplesPerPixel", 1), ("PixelRepresentation", 0), ("PhotometricInterpretation", "MONOCHROME2"),
             ("PlanarConfiguration", 0))
# JPEG that the standard has retired and pydicom does not read: spectral selection and full progression.
_RETIRED_JPEG = ("1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")
# Transfer syntaxes that pydicom has no name for yet.
_NEW_SYNTAXES = {"1.2.840.10008.1.2.4.110": "JPEG XL Lossless", "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
                 "1.2.840.10008.1.2.4.112": "JPEG XL"}


def fill_missing(dataset: Any) -> list[str]:
    """Fills in missing attributes of the pixels that have one possible value; ["missing tag"] if there were any."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    done = []
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
        done.append("missing tag")
    if dataset.get("BitsAllocated") in (None, ""):
        raise UnreadableImage("a DICOM file without BitsAllocated")
    dataset.PhotometricInterpretation = photometric(dataset)
    for name, value in (*_DEFAULTS, ("BitsStored", dataset.BitsAllocated), ("NumberOfFrames", 1)):
        if dataset.get(name) in (None, "", 0 if name == "NumberOfFrames" else ""):
            setattr(dataset, name, value)
            usual = name == "NumberOfFrames" or (name == "PlanarConfiguration" and int(dataset.SamplesPerPixel) == 1)
            done += [] if usual else ["missing tag"]
    if dataset.get("HighBit") in (None, ""):
        dataset.HighBit = int(dataset.BitsStored) - 1
        done.append("missing tag")
    return done[:1]  # An image counts once, however much was missing.


def photometric(dataset: Any) -> str:
    """PhotometricInterpretation in capitals."""
    return str(dataset.get("PhotometricInterpretation") or "").strip().upper()


def pixel_array(dataset: Any) -> np.ndarray:
    """The stored values of a file.

    Args:
      dataset: as `pydicom.dcmread` gives it. Missing attributes are filled in (`fill_missing`).

    Returns:
      An integer or floating array [rows, columns], or [frames, rows, columns] of several frames. Unused bits are
      cleared wherever HighBit says that they are, signs are right, neither padding nor rescale is applied. Colours are
      RGB, with a last axis of 3; PALETTE COLOR gives the indices.

    Raises:
      UnreadableImage: damaged, cut, too large, or in a transfer syntax that nothing here reads.
    """
    open_pydicom()
    with damage_as(DAMAGED):
        fill_missing(dataset)
        rows, columns, frames = (int(dataset.get(name) or 0) for name in ("Rows", "Columns", "NumberOfFrames"))
        if min(rows, columns, frames) < 1:
            raise UnreadableImage("a DICOM file without the image's size")
        samples, allocated, stored = (
            int(dataset[name].value) for name in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
        if rows * columns > MAX_PIXELS or rows * columns * samples * allocated > 8 * MAX_PIXEL_BYTES:
            raise UnreadableImage("the DICOM image has more pixels than can be trusted")
        if not 1 <= stored <= allocated:
            raise UnreadableImage("a DICOM file that stores more bits than it allocates")
        decoder = _decoder(dataset)
        _check_length(dataset, rows * columns * samples * frames * allocated // 8)
        shape = (rows, columns) if samples == 1 else (rows, columns, samples)
        shape = shape if frames == 1 else (frames, *shape)
        plain = _is_plain(dataset)
        pixels = None if plain else _decode_streams(dataset, shape)
        if plain and dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            _check_runs(dataset, rows * columns)
        if pixels is None:
            if decoder is None:
                raise UnreadableImage(f"a DICOM file in colours in {_syntax_name(dataset)}, which is not supported")
            pixels, found = decoder.as_array(dataset, correct_unused_bits=not plain)
            if samples > 1 and str(found["photometric_interpretation"]) != "RGB":
                raise UnreadableImage(f"a DICOM file in colours of kind {found['photometric_interpretation']}")
            pixels = _used_bits(pixels, dataset) if plain and samples == 1 else pixels
        if pixels.shape != shape:
            raise UnreadableImage("a DICOM file whose pixels are not the image that it describes")
        return pixels


def _decoder(dataset: Any) -> Any:
    """pydicom's decoder, None where ours has to do; raises UnreadableImage with the name of a syntax that has none."""
    from pydicom.pixels import get_decoder

    if dataset.file_meta.TransferSyntaxUID in _RETIRED_JPEG:
        return None
    try:
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    except NotImplementedError:
        raise UnreadableImage(f"a DICOM file in {_syntax_name(dataset)}, which is not supported") from None
    if not decoder.is_available:
        raise UnreadableImage(f"no decoder for a DICOM file in {_syntax_name(dataset)}: {pip_line('dicom')}")
    return decoder


def _syntax_name(dataset: Any) -> str:
    syntax = dataset.file_meta.TransferSyntaxUID
    name = syntax.name if syntax.name != syntax else _NEW_SYNTAXES.get(syntax, "an unknown transfer syntax")
    return f"{name} ({str(syntax)[:64]})"


def _check_length(dataset: Any, size: int) -> None:
    """Raises UnreadableImage where uncompressed pixels are fewer bytes than stated, or in an unclear order."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated or "PixelData" not in dataset:
        return
    if not syntax.is_little_endian and int(dataset.BitsAllocated) > 16:
        raise UnreadableImage("a DICOM file of more than 16 bits in the retired big-endian order")
    size = size * 2 // 3 if photometric(dataset) == "YBR_FULL_422" else size
    found = len(dataset.PixelData or b"")
    if found < size:
        raise UnreadableImage(f"{DAMAGED} ({found:,} of {size:,} bytes)")


def _is_plain(dataset: Any) -> bool:
    """Whether stored values come as they are, unused bits included: uncompressed, or run-length encoded."""
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    return not syntax.is_encapsulated or syntax == RLELossless


def _decode_streams(dataset: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Checks every frame's codestream, and decodes grey JPEG and JPEG-LS; None where pydicom has to decode."""
    from pydicom.encaps import generate_frames

    frames, samples = int(dataset.NumberOfFrames), int(dataset.SamplesPerPixel)
    stated = (int(dataset.Rows), int(dataset.Columns), samples)
    decoded = []
    for count, stream in enumerate(generate_frames(dataset.PixelData, number_of_frames=frames)):
        header = read_codestream(stream)
        if header is None:
            raise UnreadableImage(f"{DAMAGED} (no codestream of {_syntax_name(dataset)})")
        if ((header.rows, header.columns, header.samples) != stated or header.tiles > MAX_TILES
                or header.bits > int(dataset.BitsAllocated)):
            raise UnreadableImage("a DICOM file whose compressed pixels are not the image that it describes")
        if header.kind == "jpeg2000":
            if not header.complete:
                raise UnreadableImage(f"{DAMAGED} (parts of the codestream are missing)")
            continue
        try:
            pixels = decode_jpeg(stream, header)
        except UnreadableImage as error:
            raise UnreadableImage(f"{DAMAGED} ({error.reason})") from None
        if samples == 1:  # Colours are left to pydicom, which knows when they are YCbCr.
            decoded.append(_used_bits(_signed(pixels, dataset), dataset, shift=False))
        if count >= frames:
            break
    if len(decoded) != frames:
        return None
    return decoded[0] if frames == 1 else np.stack(decoded)


def _check_runs(dataset: Any, count: int) -> None:
    """Raises UnreadableImage where a run-length encoded segment does not hold one byte for each of `count` pixels."""
    from pydicom.encaps import generate_frames

    for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)):
        segments, *offsets = struct.unpack_from("<16I", frame)
        ends = [*offsets[1:segments], len(frame)]
        if not all(_is_run_length(frame[start:end], count) for start, end in zip(offsets, ends, strict=False)):
            raise UnreadableImage(f"{DAMAGED} (run lengths of another image)")


def _is_run_length(segment: bytes, count: int) -> bool:
    """Whether a segment (PS3.5, G.3) is `count` bytes, maybe one more to make them even, and zeros behind them."""
    position = done = 0
    while done < count:
        if position >= len(segment):
            return False
        head = segment[position]
        done += head + 1 if head < 128 else 257 - head if head > 128 else 0
        position += head + 2 if head < 128 else 2 if head > 128 else 1
    return done <= count + count % 2 and position <= len(segment) and not segment[position:].strip(b"\0")


def _signed(pixels: np.ndarray, dataset: Any) -> np.ndarray:
    return pixels.view(f"i{pixels.dtype.itemsize}") if int(dataset.PixelRepresentation) == 1 else pixels


def _used_bits(pixels: np.ndarray, dataset: Any, *, shift: bool = True) -> np.ndarray:
    """Stored values without what lies in the unused bits; pydicom overlooks HighBit.

    Codestreams hold the values from bit 0 on, whatever HighBit says: `shift` is False for them.
    """
    bits, stored = 8 * pixels.dtype.itemsize, int(dataset.BitsStored)
    if pixels.dtype.kind not in "iu" or stored >= bits:
        return pixels
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")
    by = min(max(int(dataset.HighBit) + 1 - stored, 0), int(dataset.BitsAllocated) - stored) if shift else 0
    values = unsigned >> by
    values &= unsigned.dtype.type((1 << stored) - 1)
    if pixels.dtype.kind == "i":
        values ^= unsigned.dtype.type(1 << (stored - 1))
        values = values.view(pixels.dtype)
        values -= 1 << (stored - 1)
    # What writers put into unused bits makes an image rougher. One that gets rougher without them needs them.
    if not by and not np.array_equal(values, pixels) and _roughness(pixels) < _roughness(values):
        raise UnreadableImage(f"a DICOM file whose pixels need more bits than it states ({stored})")
    return values


def _roughness(pixels: np.ndarray) -> float:
    """The mean difference of neighbours along a row, of some rows of large images."""
    rows = pixels.reshape(-1, pixels.shape[-1])
    rows = rows[::max(1, rows.size >> 22)].astype(np.float64)
    return float(np.abs(np.diff(rows)).mean()) if rows.shape[1] > 1 else 0.0


def padding_mask(dataset: Any, pixels: np.ndarray) -> np.ndarray | None:
    """bool of the stored values' shape, True where there is no image but padding (PixelPaddingValue); None without."""
    value = number(dataset.get("PixelPaddingValue"))
    limit = number(dataset.get("PixelPaddingRangeLimit"))
    if not math.isfinite(value):
        return None
    ends = [value, limit if math.isfinite(limit) else value]
    if pixels.dtype.kind == "i":  # Writers that gave the value as unsigned meant its two's complement.
        wrap = 1 << int(dataset.BitsAllocated)
        ends = [end - wrap if end >= wrap // 2 else end for end in ends]
    padding = (pixels >= min(ends)) & (pixels <= max(ends))
    return padding if padding.any() and not padding.all() else None


def rescale(dataset: Any, pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """What stored values stand for: through the modality LUT, or slope and intercept.

    Args:
      dataset: with ModalityLUTSequence, or RescaleSlope and RescaleIntercept: the file, or of an enhanced object the
        functional group of a frame. An empty slope is 1, and an empty intercept 0.
      pixels: stored values of any shape, of `pixel_array`.

    Returns:
      (values, conversions): float64 values, or the stored ones where there is nothing to do; "modality lut", and
      "rescale ignored" where the numbers are none or would blank the image. Hounsfield units cannot be had then.
    """
    if dataset.get("ModalityLUTSequence"):
        return look_up(dataset.ModalityLUTSequence[0], pixels), ["modality lut"]
    slope, intercept = (default if dataset.get(name) in (None, "") else number(dataset.get(name))
                        for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)))
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        return pixels, ["rescale ignored"]
    if (slope, intercept) == (1, 0):
        return pixels, []
    return pixels.astype(np.float64) * slope + intercept, []


def look_up(item: Any, values: np.ndarray) -> np.ndarray:
    """float64 values through a LUT (PS3.3 C.11.1.1): those before its first and after its last entry take these ones'.

    Raises:
      UnreadableImage: the table ends before an entry that is needed.
    """
    entries, data = lut_entries(item)
    first, bits = (int(part) for part in item.LUTDescriptor[1:])
    if values.dtype.kind != "u" and first >= 1 << 15:
        first -= 1 << 16  # Written as unsigned, meant as signed.
    if not 1 <= bits <= 16 or not len(data):
        raise UnreadableImage("a DICOM file whose lookup table makes no sense")
    indices = np.clip(np.rint(values.astype(np.float64)) - first, 0, entries - 1).astype(np.int64)
    if indices.size and indices.max() >= len(data):
        raise UnreadableImage("a DICOM file whose lookup table is shorter than it states")
    return data[indices].astype(np.float64)


def lut_entries(item: Any) -> tuple[int, np.ndarray]:
    """(stated number of entries, the entries) of a LUT; some have fewer than they state."""
    entries = int(item.LUTDescriptor[0]) or 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        words = np.frombuffer(data[:len(data) // 2 * 2], "<u2" if item.original_encoding[1] is not False else ">u2")
        # Entries of 8 bits may be packed, or stand in words.
        packed = int(item.LUTDescriptor[2]) <= 8 and len(data) < 2 * entries
        return entries, words.astype("<u2").view(np.uint8) if packed else words
    return entries, np.atleast_1d(np.asarray(data, np.int64))

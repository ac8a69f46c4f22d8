"""Heatmaps over the original image, as pictures: the plain image and the overlay side by side, with boxes and legend.

Image-left is patient-right, as everywhere. The pictures carry the finding and the numbers, never report text or ids.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lgdea_jax.records import Box

# Longer side of a panel in pixels: small images are enlarged to the first, large ones reduced to the second.
SMALLEST, LARGEST = 384, 768

_MARGIN = 14
_INK, _PAPER, _DIM = (235, 235, 235), (18, 18, 20), (165, 165, 170)
_BOX, _PEAK = (64, 224, 255), (255, 255, 255)
# Colours of the heatmap from low to high: darkest to lightest, so that it also reads without colour.
_COLOURS = np.array([(30, 8, 60), (105, 15, 110), (190, 45, 85), (240, 120, 30), (252, 235, 120)], np.float32)
_STRONGEST = 0.62  # Opacity of the highest value: the anatomy stays visible.


@dataclasses.dataclass(frozen=True)
class Overlay:
    """What to draw.

    Attributes:
      image: uint8 [h, w], at any resolution.
      heatmap: float [H, W] over the same field of view, at any resolution; NaN stays transparent.
      frame: (height, width) in whose pixels the boxes are given.
      boxes: reference boxes; may be empty.
      title: for example the finding.
      lines: further lines below the title.
    """

    image: np.ndarray
    heatmap: np.ndarray
    frame: tuple[int, int]
    boxes: Sequence[Box]
    title: str
    lines: Sequence[str] = ()


def draw(overlay: Overlay) -> Image.Image:
    """The picture, RGB: title and lines on top, plain image and overlay side by side, legend below."""
    height, width = panel_shape(overlay.frame)
    title, text = _font(20), _font(14)
    top = _top(overlay)
    size = (2 * width + 3 * _MARGIN, top + height + _MARGIN + 46)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN - 4), _fit(overlay.title, title, size[0] - 2 * _MARGIN), fill=_INK, font=title)
    for row, line in enumerate(overlay.lines):
        pen.text((_MARGIN, _MARGIN + 24 + 19 * row), _fit(line, text, size[0] - 2 * _MARGIN), fill=_DIM, font=text)
    grey = Image.fromarray(overlay.image).resize((width, height), Image.Resampling.BICUBIC)
    heat = resample(overlay.heatmap, (height, width))
    for left, panel in ((_MARGIN, grey.convert("RGB")), (2 * _MARGIN + width, _blend(grey, heat))):
        panel_pen = ImageDraw.Draw(panel)
        for box in overlay.boxes:
            _outline(panel_pen, box, overlay.frame, (height, width))
        if left > _MARGIN and np.isfinite(heat).any():
            _cross(panel_pen, peak(overlay.heatmap), overlay.heatmap.shape, (height, width))
        sheet.paste(panel, (left, top))
    _legend(sheet, overlay, (_MARGIN, top + height + 12), size[0] - 2 * _MARGIN, text)
    return sheet


def panel_boxes(overlay: Overlay) -> list[list[int]]:
    """[left, top, width, height] of the plain image and of the one with the heatmap, in the picture of `draw`."""
    height, width = panel_shape(overlay.frame)
    return [[left, _top(overlay), width, height] for left in (_MARGIN, 2 * _MARGIN + width)]


def _top(overlay: Overlay) -> int:
    return _MARGIN + 26 + 19 * len(overlay.lines) + 8


def panel_shape(frame: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which an image of `frame` is shown: the aspect kept, the longer side in SMALLEST..LARGEST."""
    longer = max(frame)
    target = min(max(longer, SMALLEST), LARGEST)
    if longer < SMALLEST:  # Whole multiples keep small images crisp.
        target = longer * math.ceil(SMALLEST / longer)
    return max(1, round(frame[0] * target / longer)), max(1, round(frame[1] * target / longer))


def resample(heatmap: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The heatmap at another resolution, float32 `shape`; NaN stays NaN."""
    values = np.asarray(heatmap, np.float32)
    clear = np.isnan(values)
    lowest = values[~clear].min() if (~clear).any() else np.float32(0)
    size = (shape[1], shape[0])
    out = np.array(Image.fromarray(np.where(clear, lowest, values)).resize(size, Image.Resampling.BILINEAR))
    if clear.any():
        mask = Image.fromarray(clear.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
        out[np.asarray(mask) > 0] = np.nan
    return out


def peak(heatmap: np.ndarray) -> tuple[float, float]:
    """(y, x) of the highest value, in the heatmap's pixels: the centre of the maximal pixels, if they touch."""
    best = np.argwhere(heatmap == np.nanmax(heatmap))
    centre = best.mean(0)
    nearest = best[np.abs(best - centre).sum(1).argmin()]
    # The mean of two separate maxima lies on neither: then the one nearest to it is shown.
    return tuple((centre if np.abs(nearest - centre).max() < 1 else nearest) + 0.5)


def colours(values: np.ndarray) -> np.ndarray:
    """RGB float32 [..., 3] of values in [0, 1]."""
    position = np.clip(values, 0, 1) * (len(_COLOURS) - 1)
    low = np.minimum(position.astype(int), len(_COLOURS) - 2)
    part = (position - low)[..., None]
    return _COLOURS[low] * (1 - part) + _COLOURS[low + 1] * part


def _blend(grey: Image.Image, heat: np.ndarray) -> Image.Image:
    base = np.asarray(grey.convert("RGB"), np.float32)
    low, high = _range(heat)
    scaled = np.zeros_like(heat) if high <= low else (np.nan_to_num(heat, nan=low) - low) / (high - low)
    # A power above 1: low values, most of the image, hardly tint it.
    opacity = (_STRONGEST * scaled**1.5)[..., None]
    return Image.fromarray(np.clip(base * (1 - opacity) + colours(scaled) * opacity, 0, 255).astype(np.uint8))


def _range(heat: np.ndarray) -> tuple[float, float]:
    known = heat[np.isfinite(heat)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def _outline(pen: ImageDraw.ImageDraw, box: Box, frame: tuple[int, int], shape: tuple[int, int]) -> None:
    sy, sx = shape[0] / frame[0], shape[1] / frame[1]
    corners = [box.x * sx, box.y * sy, (box.x + box.w) * sx, (box.y + box.h) * sy]
    left, top = max(corners[0], 0), max(corners[1], 0)
    right, bottom = min(corners[2], shape[1] - 1), min(corners[3], shape[0] - 1)
    if right > left and bottom > top:
        # Light on dark, so that it shows on any background.
        pen.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=4)
        pen.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=_BOX, width=2)


def _cross(pen: ImageDraw.ImageDraw, centre: tuple[float, float], heat_shape: tuple[int, ...],
           shape: tuple[int, int]) -> None:
    y, x = centre[0] * shape[0] / heat_shape[0], centre[1] * shape[1] / heat_shape[1]
    for width, colour in ((5, (0, 0, 0)), (2, _PEAK)):
        pen.line((x - 9, y, x + 9, y), fill=colour, width=width)
        pen.line((x, y - 9, x, y + 9), fill=colour, width=width)


def _legend(sheet: Image.Image, overlay: Overlay, corner: tuple[int, int], width: int,
            font: ImageFont.FreeTypeFont) -> None:
    x, y = corner
    pen = ImageDraw.Draw(sheet)
    if overlay.boxes:
        pen.rectangle((x, y + 3, x + 18, y + 15), outline=_BOX, width=2)
        pen.text((x + 25, y), "reference", fill=_DIM, font=font)
        x += 110
    pen.line((x, y + 9, x + 16, y + 9), fill=_PEAK, width=2)
    pen.line((x + 8, y + 1, x + 8, y + 17), fill=_PEAK, width=2)
    pen.text((x + 24, y), "highest value", fill=_DIM, font=font)
    x += 130
    low, high = _range(np.asarray(overlay.heatmap, np.float32))
    bar = Image.fromarray(colours(np.tile(np.linspace(0, 1, 120), (12, 1))).astype(np.uint8))
    left, right = f"{low:.2f}", f"{high:.2f}"
    pen.text((x, y), left, fill=_DIM, font=font)
    x += int(font.getlength(left)) + 6
    sheet.paste(bar, (x, y + 3))
    # Each map has its own scale: the brightest colour is no sign that something is there.
    right += ", the scale of this picture alone"
    pen.text((x + 126, y), right, fill=_DIM, font=font)
    note = "patient's right is image left"
    if width - x > 150 + font.getlength(right) + font.getlength(note):
        pen.text((corner[0] + width - font.getlength(note), y), note, fill=_DIM, font=font)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text on one line, shortened with an ellipsis to `width` pixels."""
    # No letter is narrower than a pixel; measuring text takes time that grows with its square.
    text, whole = " ".join(text[:8 * int(width)].split())[: int(width)], len(text) <= width
    if whole and font.getlength(text) <= width:
        return text
    fits = bisect.bisect_right(range(len(text) + 1), width, key=lambda n: font.getlength(text[:n].rstrip() + "...")) - 1
    return text[:max(0, fits)].rstrip() + "..."

"""Draws what a phantom picture holds without diagnostic meaning: devices, side markers and burned-in text."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np

from data_prep.synthetic.xray.canvas import Canvas, pixel_centres, ramp
from data_prep.synthetic.xray.world import Distractor


def _stroke(c: Canvas, points: list[tuple[float, float]], width: float, amount: float) -> None:
    """A bright line through body points; `width` is its half-width."""
    width = max(width, 0.45 / c.size)
    for (u0, v0), (u1, v1) in itertools.pairwise(points):
        length = math.hypot(u1 - u0, v1 - v0) + 1e-6
        rows, cols = c.window((u0 + u1) / 2, (v0 + v1) / 2, length / 2 + 2 * width)
        x, y = c.u[rows, cols] - u0, c.v[rows, cols] - v0
        along = np.clip((x * (u1 - u0) + y * (v1 - v0)) / length, 0, length)
        off = np.hypot(x - along * ((u1 - u0) / length), y - along * ((v1 - v0) / length))
        c.d[rows, cols] += amount * ramp((width - off) / max(width, 1 / c.size))


def _bend(points: list[tuple[float, float]], steps: int = 6) -> list[tuple[float, float]]:
    """A quadratic curve from the first to the last of three points."""
    (a, b), (p, q), (g, h) = points
    out = []
    for i in range(steps + 1):
        t = i / steps
        k0, k1, k2 = (1 - t) ** 2, 2 * t * (1 - t), t * t
        out.append((k0 * a + k1 * p + k2 * g, k0 * b + k1 * q + k2 * h))
    return out


def _pacemaker(c: Canvas, item: Distractor) -> None:
    at, v, half, angle = item.values
    u = item.side * at
    rows, cols = c.window(u, v, 2 * half)
    x, y = c.u[rows, cols] - u, c.v[rows, cols] - v
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = np.abs(cos * x + sin * y), np.abs(cos * y - sin * x)
    c.d[rows, cols] += 0.5 * ramp((half - x) / 0.01) * ramp((0.8 * half - y) / 0.01)
    heart = c.a.heart_v
    _stroke(c, _bend([(u, v), (-0.02, v - 0.02), (-0.035, 0.45)]), 0.004, 0.28)
    _stroke(c, _bend([(-0.035, 0.45), (-0.03, heart + 0.04), (0.07, heart + 0.05)]), 0.004, 0.28)


def _wires(c: Canvas, item: Distractor) -> None:
    p = item.values
    points = _bend([(p[0], p[1]), (p[2], p[3]), (p[4], p[5])])
    _stroke(c, points, 0.003, 0.2)
    for u, v in (points[0], points[-1]):
        rows, cols = c.window(u, v, 0.04)
        r = np.hypot(c.u[rows, cols] - u, c.v[rows, cols] - v)
        c.d[rows, cols] += 0.22 * ramp((0.008 - np.abs(r - 0.022)) / max(0.008, 1 / c.size))


def _clips(c: Canvas, item: Distractor) -> None:
    at, v, *rest = item.values
    for i in range(0, len(rest), 2):
        u0, v0 = item.side * at + rest[i], v + rest[i + 1]
        _stroke(c, [(u0, v0), (u0 + 0.3 * rest[i + 1], v0 + 0.014)], 0.0035, 0.4)


def _sternotomy(c: Canvas, item: Distractor) -> None:
    v, step, slant = item.values
    for i in range(5):
        u0, v0 = c.pose.yaw, v + i * step
        _stroke(c, [(u0 - 0.014, v0 + slant), (u0, v0 - 0.007), (u0 + 0.014, v0 - slant)], 0.0035, 0.25)


def _central_line(c: Canvas, item: Distractor) -> None:
    s = item.side
    _stroke(c, _bend([(0.34 * s, 0.2), (0.1 * s, 0.13), (-0.025, 0.26)]), 0.004, 0.16)
    _stroke(c, [(-0.025, 0.26), (-0.035, item.values[0])], 0.004, 0.16)


DEVICES: dict[str, Callable[[Canvas, Distractor], None]] = {
    "pacemaker": _pacemaker, "wires": _wires, "clips": _clips, "sternotomy": _sternotomy, "central line": _central_line}

# 5 x 7 letters, a hexadecimal number per row, the highest of five bits to the left.
_LETTERS = {
    "A": "0e11111f111111", "B": "1e11111e11111e", "C": "0e11101010110e", "E": "1f10101e10101f", "G": "0e11101713110f",
    "H": "1111111f111111", "I": "0e04040404040e", "L": "1010101010101f", "M": "111b1515111111", "N": "11191513111111",
    "O": "0e11111111110e", "P": "1e11111e101010", "R": "1e11111e141211", "S": "0f10100e01011e", "T": "1f040404040404",
    "U": "1111111111110e", " ": "00000000000000"}


@functools.lru_cache(maxsize=32)
def _bitmap(text: str) -> np.ndarray:
    """float32 [7, 6 * letters - 1]: 1 where there is ink."""
    letters = []
    for letter in text:
        code = _LETTERS[letter]
        rows = [int(code[2 * i: 2 * i + 2], 16) for i in range(7)]
        letters.append([[float(row >> (4 - j) & 1) for j in range(5)] + [0.0] for row in rows])
    return np.concatenate([np.array(x, np.float32) for x in letters], axis=1)[:, :-1]


def burn(image: np.ndarray, item: Distractor) -> None:
    """Writes text into the finished image; `item.side` +1 is the image's right edge, where the patient's left is."""
    margin, top, height = item.values
    bitmap = _bitmap(item.text)
    cell = height / 7
    width = cell * bitmap.shape[1]
    left = 1 - margin - width if item.side > 0 else margin
    rows, cols = _coverage(image.shape[0], top, cell, 7), _coverage(image.shape[0], left, cell, bitmap.shape[1])
    y, x = np.flatnonzero(rows.any(axis=1)), np.flatnonzero(cols.any(axis=1))
    if len(y) and len(x):
        share = rows[y[0]: y[-1] + 1] @ bitmap @ cols[x[0]: x[-1] + 1].T
        window = image[y[0]: y[-1] + 1, x[0]: x[-1] + 1]
        window += share * (0.96 - window)


def _coverage(size: int, start: float, cell: float, cells: int) -> np.ndarray:
    """float32 [size, cells]: the share of every pixel that each cell of a row of cells covers."""
    low = pixel_centres(size)[:, None] - 0.5 / size
    edge = start + cell * np.arange(cells, dtype=np.float32)
    return np.clip(np.minimum(low + 1 / size, edge + cell) - np.maximum(low, edge), 0, None) * size

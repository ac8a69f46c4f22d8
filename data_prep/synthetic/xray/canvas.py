"""The canvas that phantom pictures are drawn on: a density image with its coordinate maps in the patient's body."""

from __future__ import annotations

import functools
import math

import numpy as np

from data_prep.synthetic.random_stream import RandomStream
from data_prep.synthetic.xray.world import INNER, LUNG_BASE, TOP, Scene

_EDGE = 1 / 64  # Softness of anatomical borders in image sides: a pixel at the smallest size, the same at all.


def ramp(x: np.ndarray) -> np.ndarray:
    """0 below -0.5, 1 above 0.5, linear between."""
    out = x + 0.5
    return np.clip(out, 0.0, 1.0, out=out)


@functools.lru_cache(maxsize=16)
def pixel_centres(size: int) -> np.ndarray:
    """float32 [size]: relative coordinates of the pixel centres."""
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


@functools.lru_cache(maxsize=32)
def _between(size: int, knots: int) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel the knot before it (int [size]) and its smoothed share of the next one (float32 [size])."""
    at = pixel_centres(size) * (knots - 1)
    low = np.minimum(at.astype(int), knots - 2)
    share = at - low
    return low, (share * share * (3 - 2 * share)).astype(np.float32)


class Canvas:
    """The density image of a scene in the making, with its coordinate maps (all float32 [size, size]).

    Attributes:
      u, v, au: body coordinates and |u|; left: 1 where u > 0; t: relative height in the lung; depth: distance inside
        the lung's rounded border (negative outside); dome: height of the diaphragm.
      lung: share of lung in front of or behind everything; air: the lung that is seen (not behind heart and vessels).
      vessels, haze_r, haze_phi: vessel density, distance and angle from the hilum.
      d: density; coarse, fine: smooth textures with unit variance or so.
    """

    def __init__(self, scene: Scene, size: int, rng: RandomStream) -> None:
        self.scene, self.a, self.pose, self.size, self.rng = scene, scene.anatomy, scene.pose, size, rng
        pose = scene.pose
        cos, sin = math.cos(pose.rotation) / pose.scale, math.sin(pose.rotation) / pose.scale
        x = pixel_centres(size) - 0.5 - pose.shift[0]
        y = (pixel_centres(size) - 0.5 - pose.shift[1])[:, None]
        self.u = cos * x + sin * y
        self.v = cos * y - sin * x + 0.5
        self.au = np.abs(self.u)
        self.left = (self.u > 0).astype(np.float32)
        self.edge = _EDGE
        a = self.a
        apex = self.pair(a.apex)
        width = self.pair(a.width)
        self.t = (self.v - apex) / (LUNG_BASE - apex)
        self.q = np.maximum(1 - self.t / TOP, 0)
        self.half = width * (1 + 0.05 * (self.t - TOP)) - INNER
        self.depth = self.inside(1.0, 0.0)
        x = (self.au - 0.15) / (width - 0.15)
        # The halves of the diaphragm meet without a step behind the heart.
        dome = a.dome[0] + np.float32(a.dome[1] - a.dome[0]) * ramp(self.u * 10)
        self.dome = dome + a.drop * x * x * np.where(x > 0, 1.0, 0.12).astype(np.float32)
        self.lung = ramp(self.depth / self.edge) * ramp((self.dome - self.v) / self.edge) * ramp(
            (self.au - INNER) / self.edge)
        texture = RandomStream(a.texture)
        self.fine = self.field(22, texture)
        self.coarse = self.field(9, texture)

    def pair(self, values: tuple[float, float]) -> np.ndarray:
        """The (right, left) values on their sides of the body."""
        return values[0] + np.float32(values[1] - values[0]) * self.left

    def field(self, knots: int, rng: RandomStream) -> np.ndarray:
        """A smooth random texture."""
        # No matrix product: BLAS threads would fight with the worker processes over the cores.
        low, share = _between(self.size, knots)
        values = rng.normal((knots, knots))
        rows = values[low] + share[:, None] * (values[low + 1] - values[low])
        return rows[:, low] + share * (rows[:, low + 1] - rows[:, low])

    def inside(self, share: float | np.ndarray, drop: float) -> np.ndarray:
        """Distance inside a lung outline that is `share` as wide and whose apex lies `drop` lower."""
        q = self.q if drop == 0 else np.maximum(1 - (self.t - drop) / (TOP - 0.5 * drop), 0)
        x = (self.au - INNER) / (self.half * share)
        return (1 - x * x - q * q) * 0.13

    def side(self, side: int) -> np.ndarray:
        """1 on this side of the midline."""
        return self.left if side > 0 else 1 - self.left

    def window(self, u: float, v: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns that hold everything within `reach` of a body point; never empty."""
        pose = self.pose
        cos, sin = math.cos(pose.rotation) * pose.scale, math.sin(pose.rotation) * pose.scale
        x = 0.5 + pose.shift[0] + cos * u - sin * (v - 0.5)
        y = 0.5 + pose.shift[1] + sin * u + cos * (v - 0.5)
        reach *= pose.scale
        out = []
        for at in (y, x):
            low = min(max(int((at - reach) * self.size) - 1, 0), self.size - 2)
            high = max(min(int((at + reach) * self.size) + 2, self.size), low + 2)
            out.append(slice(low, high))
        return out[0], out[1]

"""Draws the picture of a phantom `Scene`: a schematic frontal chest radiograph, with the box of every finding.

Everything is given in relative coordinates and every edge is a ramp of at least a pixel, so a study looks the same at
every size. Densities add up along the ray, as attenuation does; the display window turns them into grey levels.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np

from data_prep.sources.phantom_world import INNER, LUNG_BASE, TOP, Dice, Distractor, Lesion, Scene, Spot

MINIMUM_BOX = 0.08  # Five pixels at 64 px: smaller boxes are widened to it about their centre.
_EDGE = 0.012  # Softness of anatomical borders, image sides.

Extent = tuple[float, float, float, float]


def render(scene: Scene, size: int, dice: Dice) -> tuple[np.ndarray, list[tuple[Extent, ...]]]:
    """The picture of a scene.

    Args:
      scene: what to draw.
      size: side of the square image in pixels.
      dice: texture and noise; the same key gives the same picture.

    Returns:
      (pixels uint8 [size, size], boxes): for every lesion of the scene, in its order, the relative boxes (x, y, w, h)
      of its parts, inside the unit square.
    """
    canvas = Canvas(scene, size, dice)
    _draw_body(canvas)
    boxes = []
    for lesion in scene.lesions:
        draw = _LESIONS[lesion.finding]
        boxes.append(tuple(_widen(draw(canvas, spot, lesion)) for spot in lesion.spots))
    for item in scene.distractors:
        if item.kind in _DEVICES:
            _DEVICES[item.kind](canvas, item)
    return _display(canvas), boxes


def _ramp(x: np.ndarray) -> np.ndarray:
    """0 below -0.5, 1 above 0.5, linear between."""
    out = x + 0.5
    return np.clip(out, 0.0, 1.0, out=out)


@functools.lru_cache(maxsize=16)
def _grid(size: int) -> np.ndarray:
    """float32 [size]: relative coordinates of the pixel centres."""
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


@functools.lru_cache(maxsize=32)
def _basis(size: int, knots: int) -> np.ndarray:
    """float32 [size, knots]: smooth interpolation weights from knots to pixels."""
    at = _grid(size) * (knots - 1)
    low = np.minimum(at.astype(int), knots - 2)
    share = at - low
    share = share * share * (3 - 2 * share)
    out = np.zeros((size, knots), np.float32)
    rows = np.arange(size)
    out[rows, low] = 1 - share
    out[rows, low + 1] = share
    return out


class Canvas:
    """The density image of a scene in the making, with its coordinate maps (all float32 [size, size]).

    Attributes:
      u, v, au: body coordinates and |u|; left: 1 where u > 0; t: relative height in the lung; depth: distance inside
        the lung's rounded border (negative outside); dome: height of the diaphragm.
      lung: share of lung in front of or behind everything; air: the lung that is seen (not behind heart and vessels).
      vessels, haze_r, haze_phi: vessel density, distance and angle from the hilum.
      d: density; coarse, fine: smooth textures with unit variance or so.
    """

    def __init__(self, scene: Scene, size: int, dice: Dice) -> None:
        self.scene, self.a, self.pose, self.size, self.dice = scene, scene.anatomy, scene.pose, size, dice
        pose = scene.pose
        cos, sin = math.cos(pose.rotation) / pose.scale, math.sin(pose.rotation) / pose.scale
        x = _grid(size) - 0.5 - pose.shift[0]
        y = (_grid(size) - 0.5 - pose.shift[1])[:, None]
        self.u = cos * x + sin * y
        self.v = cos * y - sin * x + 0.5
        self.au = np.abs(self.u)
        self.left = (self.u > 0).astype(np.float32)
        self.edge = max(_EDGE, 1.0 / size)
        a = self.a
        apex = self.pair(a.apex)
        width = self.pair(a.width)
        self.t = (self.v - apex) / (LUNG_BASE - apex)
        self.q = np.maximum(1 - self.t / TOP, 0)
        self.half = width * (1 + 0.05 * (self.t - TOP)) - INNER
        self.depth = self.inside(1.0, 0.0)
        x = (self.au - 0.15) / (width - 0.15)
        self.dome = self.pair(a.dome) + a.drop * x * x * np.where(x > 0, 1.0, 0.12).astype(np.float32)
        self.lung = _ramp(self.depth / self.edge) * _ramp((self.dome - self.v) / self.edge) * _ramp(
            (self.au - INNER) / self.edge)
        texture = Dice(a.texture)
        self.fine = self.field(22, texture)
        self.coarse = self.field(9, texture)

    def pair(self, values: tuple[float, float]) -> np.ndarray:
        """The (right, left) values on their sides of the body."""
        return values[0] + np.float32(values[1] - values[0]) * self.left

    def field(self, knots: int, dice: Dice) -> np.ndarray:
        """A smooth random texture."""
        basis = _basis(self.size, knots)
        return basis @ dice.normal((knots, knots)) @ basis.T

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


def _draw_body(c: Canvas) -> None:
    """Everything that is no finding: soft tissue, lungs, mediastinum, bones, vessels."""
    a, u, v, au, e = c.a, c.u, c.v, c.au, c.edge
    neck = np.clip((au - 0.07) * 16, 0, 1)
    shoulder = neck * (0.03 + a.shoulder * np.clip((au - 0.1) * 2.6, 0, 1)) - 0.3 * (1 - neck)
    torso = a.torso + 0.2 * np.clip((0.5 - v) * 3, 0, 1)
    ratio = au / torso
    ratio *= ratio
    body = _ramp((v - shoulder) / 0.02) * _ramp((torso - au) / 0.02)
    below = _ramp((v - c.dome) / e)
    c.d = body * (0.5 + a.fat - 0.14 * ratio * ratio + 0.13 * below)
    mid = u - c.pose.yaw
    width = a.heart_width
    x = mid - 0.17 * width
    y = (v - a.heart_v - a.heart_tilt * x) / a.heart_height
    x = x / (0.5 * width)
    c.heart = _ramp((1 - x * x - y * y) * (0.07 / e))
    superior = 0.046 + 0.19 * np.square(np.clip(v - 0.14, 0, 0.5)) - np.abs(mid - 0.06 * np.clip(v - 0.3, 0, 0.4))
    superior = _ramp(superior / 0.02)
    knob = _ramp((a.knob - np.hypot(mid - 0.05, v - 0.3)) / 0.015)
    mediastinum = np.maximum(np.maximum(superior, knob), c.heart)
    c.air = c.lung * (1 - mediastinum)
    c.aeration = a.aeration * (1.05 - 0.12 * c.t + 0.03 * c.coarse)
    c.d -= c.aeration * c.air
    c.d += body * (0.04 * mediastinum + 0.05 * c.heart)
    spine = (mid - a.scoliosis * np.sin(5 * v)) * (1 / 0.034)
    spine = np.exp(-spine * spine * spine * spine)
    c.d += body * spine * (a.spine_contrast * (0.85 + 0.3 * np.cos(v * (2 * math.pi / 0.05))))
    windpipe = (mid + 0.006) * (1 / 0.015)
    c.d -= 0.09 * np.exp(-windpipe * windpipe) * _ramp((0.37 - v) / 0.05) * body
    _draw_vessels(c)
    _draw_bones(c)
    if a.breast > 0.005:
        x, y = (au - 0.2) / 0.14, (v - a.breast_v) / 0.13
        c.d += a.breast * _ramp((1 - x * x - y * y) * 1.6) * body
    if a.bubble:
        rows, cols = c.window(a.bubble_u, a.dome[1] + 0.05, 2.2 * a.bubble)
        x, y = (u[rows, cols] - a.bubble_u) / (1.5 * a.bubble), (v[rows, cols] - a.dome[1] - 0.055) / (0.75 * a.bubble)
        c.d[rows, cols] -= 0.22 * _ramp((1 - x * x - y * y) * 2) * below[rows, cols] * body[rows, cols]
    c.body = body


def _draw_vessels(c: Canvas) -> None:
    """Vessels that stream out of the hila and branch once."""
    a = c.a
    x = c.au - 0.07
    y = c.v - a.hilum_v + 0.015 * c.left
    c.hilum_r = np.hypot(x, y)
    c.hilum_phi = np.arctan2(y, x)
    r, phi = c.hilum_r, c.hilum_phi
    p = a.vessel_phase
    wander = 1.1 * c.coarse + p[2] * c.left
    near = np.cos(5 * phi + p[0] + wander)
    far = np.cos(11 * phi + p[1] + 1.6 * wander + 7 * r)
    near = np.maximum(near, 0) ** 2
    far = np.maximum(far, 0) ** 2
    near *= near * np.exp(-r * (1 / 0.11))
    far *= far * np.exp(-np.square((r - 0.16) * (1 / 0.12)))
    c.vessels = (near * (1.25 * a.vessels) + far * (0.75 * a.vessels)) * c.air
    c.d += c.vessels
    blob = np.exp(-np.square(x * (1 / 0.035)) - np.square(y * (1 / 0.06)))
    c.d += (0.9 * a.vessels) * blob * c.air
    c.d += 0.012 * c.fine * c.air


def _draw_bones(c: Canvas) -> None:
    """Ribs (a periodic profile along curved heights), clavicles, shoulder blades; fractures shift their rib."""
    a, v, au = c.a, c.v, c.au
    width = c.pair(a.width)
    share = au / width
    shift = a.rib_start + a.rib_slope * share * share
    for lesion in c.scene.lesions:
        if lesion.finding == "Fracture":
            for spot in lesion.spots:
                rows, cols = c.window(spot.u, spot.v, 0.07)
                along = (au[rows, cols] - abs(spot.u)) * (1 / 0.055)
                near = np.clip(1 - np.abs(v[rows, cols] - spot.v) * (1 / 0.05), 0, 1) > 0.2
                step = np.where((along > 0) & (along < 1), 1 - along, 0) * near * c.side(spot.side)[rows, cols]
                shift[rows, cols] += (0.028 * spot.shape[1] * spot.strength) * step
    cage = _ramp((c.depth + 0.012) * (1 / 0.015)) * _ramp((au - 0.035) * 50)
    phase = (v - shift) * (1 / a.rib_spacing)
    index = np.rint(phase)
    near = np.abs(phase - index)
    rib = _ramp((0.21 - near) * 9) * (0.7 + 1.6 * near) * ((index >= 0) & (index < 9.5))
    phase = (v - a.rib_start - 0.03 - 0.17 * (1 - share)) * (1 / (1.12 * a.rib_spacing))
    index = np.rint(phase)
    front = _ramp((0.24 - np.abs(phase - index)) * 5) * ((index >= 0) & (index < 6.5)) * _ramp((share - 0.42) * 5)
    below = 0.35 + 0.65 * _ramp((c.dome - v) * 30)
    c.d += (a.rib_contrast * (rib + 0.5 * front)) * cage * below
    line = v - a.clavicle_v + a.clavicle_slope * (au - 0.05) * 3.5 - 0.01 * np.sin(18 * au)
    c.d += 0.1 * _ramp((0.013 - np.abs(line)) * 60) * _ramp((au - 0.035) * 60) * _ramp((0.36 - au) * 40)
    c.d += 0.05 * _ramp((au - 0.3 - 0.2 * (v - 0.15)) * 40) * _ramp((0.42 - v) * 14) * _ramp((v - 0.15) * 20)


# ---- findings: each draws its part and returns the part's relative extent --------------------------------------------

def _extent(c: Canvas, mask: np.ndarray, rows: slice = slice(0, None), cols: slice = slice(0, None),
            level: float = 0.4) -> Extent:
    """Bounding box of `mask > level`, with the crossing interpolated between pixels."""
    out = []
    for profile, start in ((mask.max(axis=0), cols.start), (mask.max(axis=1), rows.start)):
        p = profile.tolist()
        over = [i for i, value in enumerate(p) if value > level] or [max(range(len(p)), key=p.__getitem__)]
        i, j = over[0], over[-1]
        low = i + 0.5 - (p[i] - level) / (p[i] - p[i - 1]) if i > 0 and p[i] > level else i + 0.5 * (i > 0)
        high = j + 0.5 + (p[j] - level) / (p[j] - p[j + 1]) if j + 1 < len(p) and p[j] > level else j + 1.0
        out.append(((start + low) / c.size, (start + high) / c.size))
    (x0, x1), (y0, y1) = out
    return x0, y0, x1 - x0, y1 - y0


def _widen(box: Extent) -> Extent:
    """At least MINIMUM_BOX on each side, inside the unit square."""
    out = []
    for start, length in ((box[0], box[2]), (box[1], box[3])):
        wide = max(length, MINIMUM_BOX)
        low = start + length / 2 - wide / 2
        high = min(max(low + wide, MINIMUM_BOX), 1.0)
        low = min(max(low, 0.0), 1.0 - MINIMUM_BOX)
        out.append((low, high - low))
    return out[0][0], out[1][0], out[0][1], out[1][1]


def _polar(c: Canvas, spot: Spot, rows: slice, cols: slice) -> tuple[np.ndarray, np.ndarray]:
    return c.u[rows, cols] - spot.u, c.v[rows, cols] - spot.v


def _nodule(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u, spot.v, 1.3 * spot.size)
    x, y = _polar(c, spot, rows, cols)
    mask = np.clip((spot.size - np.hypot(x, y)) / (0.6 * spot.size) + 0.2, 0, 1)
    c.d[rows, cols] += 0.27 * spot.strength * mask
    return _extent(c, mask, rows, cols, 0.15)


def _granuloma(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u, spot.v, 1.6 * spot.size)
    x, y = _polar(c, spot, rows, cols)
    mask = _ramp((spot.size - np.hypot(x, y * spot.shape[3])) / max(0.008, 1 / c.size))
    c.d[rows, cols] += 0.6 * spot.strength * mask
    return _extent(c, mask, rows, cols)


def _outline(x: np.ndarray, y: np.ndarray, spot: Spot, amounts: tuple[float, float, float]) -> np.ndarray:
    """Distance over radius of an outline made irregular by three harmonics."""
    p = spot.shape
    theta = np.arctan2(y, x)
    radius = 1 + amounts[0] * np.cos(2 * theta + p[0]) + amounts[1] * np.cos(3 * theta + p[1]) + amounts[2] * np.cos(
        7 * theta + p[2])
    return np.hypot(x * p[3], y / p[3]) / (spot.size * radius)


def _mass(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u, spot.v, 1.55 * spot.size)
    x, y = _polar(c, spot, rows, cols)
    ratio = _outline(x, y, spot, (0.1, 0.09, 0.06))
    mask = _ramp((1 - ratio) * (spot.size / 0.02)) * _ramp((c.depth[rows, cols] + 0.02) / 0.02)
    c.d[rows, cols] += 0.34 * spot.strength * mask * (1.08 - 0.25 * ratio * ratio)
    return _extent(c, mask, rows, cols)


def _consolidation(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u, spot.v, 1.6 * spot.size)
    x, y = _polar(c, spot, rows, cols)
    ratio = _outline(x, y, spot, (0.14, 0.1, 0.0)) + 0.17 * c.fine[rows, cols]
    mask = _ramp((1 - ratio) * (spot.size / 0.07)) * c.lung[rows, cols]
    streaks = np.cos(16 * c.hilum_phi[rows, cols] + spot.shape[0] + 2.2 * c.coarse[rows, cols] + 9 * ratio)
    streaks = np.maximum(streaks, 0) ** 4
    density = (0.27 + 0.05 * c.fine[rows, cols] - 0.13 * streaks) * (1 - 0.4 * c.heart[rows, cols])
    c.d[rows, cols] += mask * (spot.strength * density - 0.7 * c.vessels[rows, cols])
    return _extent(c, mask, rows, cols)


def _effusion(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    a = c.a
    width, dome = a.width[spot.side > 0], a.dome[spot.side > 0]
    across = np.clip((c.au - INNER) / (width - INNER), 0, 1) ** spot.shape[0]
    level = dome + a.drop - spot.size * (0.4 + 0.6 * across)
    mask = _ramp((c.v - level) / 0.022) * c.lung * c.side(spot.side)
    c.d += mask * (spot.strength * (c.aeration + 0.11) * (1 - 0.5 * c.heart) - c.vessels)
    return _extent(c, mask)


def _pneumothorax(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    reach = 1.0 if spot.size > 0.5 else np.clip(1.2 - 1.6 * c.t, 0, 1)
    inner = c.inside(1 - (0.1 + 0.34 * spot.size) * reach, 0.055 + 0.17 * spot.size)
    lung = c.lung * c.side(spot.side)
    rim = _ramp(-inner / c.edge) * lung
    c.d -= rim * (c.vessels + 0.1 * spot.strength)
    line = inner * (1 / max(0.0065, 0.6 / c.size))
    c.d += lung * ((0.15 * spot.strength) * np.exp(-line * line) + (0.07 * spot.size) * (1 - rim) * c.air)
    return _extent(c, rim)


def _cardiomegaly(c: Canvas, _: Spot, __: Lesion) -> Extent:
    return _extent(c, c.heart, level=0.5)


def _atelectasis(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u, spot.v, 1.6 * spot.size)
    x, y = _polar(c, spot, rows, cols)
    x = x * spot.side
    cos, sin = math.cos(spot.angle), math.sin(spot.angle)
    along, across = (cos * x + sin * y) * (1 / spot.size), cos * y - sin * x
    wedge, second = spot.shape
    half = 0.017 + (0.03 + 0.03 * along) * wedge
    ends = _ramp((1 - np.abs(along)) * (spot.size / 0.025))
    mask = _ramp((half - np.abs(across + 0.006 * along)) / max(0.014, 1 / c.size)) * ends
    if second > 0.45 and not wedge:
        mask = np.maximum(mask, _ramp((0.011 - np.abs(across + 0.042)) / max(0.012, 1 / c.size)) * _ramp(
            (0.6 - np.abs(along - 0.15)) * (spot.size / 0.025)))
    mask = mask * _ramp((c.depth[rows, cols] + 0.005) / 0.02) * _ramp((c.au[rows, cols] - INNER) / 0.02)
    c.d[rows, cols] += 0.28 * spot.strength * mask * (1 - 0.5 * c.heart[rows, cols])
    return _extent(c, mask, rows, cols)


def _edema(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    side = c.side(spot.side)
    haze = np.exp(-np.square(c.hilum_r * (1 / (0.14 + 0.07 * spot.size)))) * (0.95 + 0.3 * c.fine)
    share = (c.au - INNER) / (c.half + INNER)
    kerley = np.cos(c.v * (2 * math.pi / 0.034)) > 0.35
    kerley = kerley * _ramp((share - 0.66) * 12) * _ramp((c.t - 0.55) * 12)
    c.d += side * c.air * (spot.strength * ((0.17 + 0.06 * spot.size) * haze + 0.07 * kerley + 0.03))
    return _extent(c, c.lung * side, level=0.5)


def _emphysema(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    side = c.side(spot.side)
    bullae = np.clip(c.coarse + 0.4 * c.fine - 0.25, 0, 1.2) * np.clip(1.2 - 0.9 * c.t, 0, 1)
    c.d -= side * c.air * spot.strength * (0.03 + 0.075 * bullae)
    return _extent(c, c.lung * side, level=0.5)


def _fracture(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u, spot.v, 1.4 * spot.size)
    x, y = _polar(c, spot, rows, cols)
    slope = 2 * c.a.rib_slope * abs(spot.u) / c.a.width[spot.side > 0] ** 2
    across = y - slope * x * spot.side
    gap = np.exp(-np.square(x / max(0.009, 0.55 / c.size)) - np.square(across * (1 / 0.022)))
    callus = np.exp(-np.square((np.abs(x) - 0.024) * (1 / 0.015)) - np.square(across * (1 / 0.019)))
    c.d[rows, cols] += spot.strength * (0.2 * callus - 0.22 * gap)
    mask = np.clip(1 - np.hypot(x, y) * (0.5 / spot.size), 0, 1)
    return _extent(c, mask, rows, cols, 0.5)


def _hernia(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u + c.pose.yaw, spot.v, 1.5 * spot.size)
    x = (c.u[rows, cols] - spot.u - c.pose.yaw) * spot.shape[1]
    y = c.v[rows, cols] - spot.v
    r = np.hypot(x, y)
    mask = _ramp((spot.size - r) / 0.015)
    level = _ramp((y - spot.shape[0] * spot.size) / max(0.008, 1 / c.size))
    wall = np.exp(-np.square((r - spot.size) * (1 / 0.011)))
    c.d[rows, cols] += spot.strength * (mask * (0.3 * level - 0.17) + 0.12 * wall)
    return _extent(c, mask, rows, cols)


_LESIONS: dict[str, Callable[[Canvas, Spot, Lesion], Extent]] = {
    "Nodule": _nodule, "Mass": _mass, "Consolidation": _consolidation, "Pleural Effusion": _effusion,
    "Pneumothorax": _pneumothorax, "Cardiomegaly": _cardiomegaly, "Atelectasis": _atelectasis, "Edema": _edema,
    "Fracture": _fracture, "Emphysema": _emphysema, "Hernia": _hernia, "Granuloma": _granuloma}


# ---- distractors and display -----------------------------------------------------------------------------------------

def _stroke(c: Canvas, points: list[tuple[float, float]], width: float, amount: float) -> None:
    """A bright line through body points; `width` is its half-width."""
    width = max(width, 0.45 / c.size)
    for (u0, v0), (u1, v1) in itertools.pairwise(points):
        length = math.hypot(u1 - u0, v1 - v0) + 1e-6
        rows, cols = c.window((u0 + u1) / 2, (v0 + v1) / 2, length / 2 + 2 * width)
        x, y = c.u[rows, cols] - u0, c.v[rows, cols] - v0
        along = np.clip((x * (u1 - u0) + y * (v1 - v0)) / length, 0, length)
        off = np.hypot(x - along * ((u1 - u0) / length), y - along * ((v1 - v0) / length))
        c.d[rows, cols] += amount * _ramp((width - off) / max(width, 1 / c.size))


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
    c.d[rows, cols] += 0.5 * _ramp((half - x) / 0.01) * _ramp((0.8 * half - y) / 0.01)
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
        c.d[rows, cols] += 0.22 * _ramp((0.008 - np.abs(r - 0.022)) / max(0.008, 1 / c.size))


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


_DEVICES: dict[str, Callable[[Canvas, Distractor], None]] = {
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


def _burn(image: np.ndarray, item: Distractor) -> None:
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
    low = _grid(size)[:, None] - 0.5 / size
    edge = start + cell * np.arange(cells, dtype=np.float32)
    return np.clip(np.minimum(low + 1 / size, edge + cell) - np.maximum(low, edge), 0, None) * size


def _display(c: Canvas) -> np.ndarray:
    """Window, gamma, exposure gradient, noise, collimation and burned-in text: density to uint8 grey levels."""
    pose, n = c.pose, c.size
    g = _grid(n) - 0.5
    image = c.d + (pose.tilt[0] * g + (pose.tilt[1] * g)[:, None])
    image -= pose.low
    image *= 1 / (pose.high - pose.low)
    np.clip(image, 0, 1, out=image)
    if pose.gamma != 1:
        np.power(image, pose.gamma, out=image)
    image += pose.noise * c.dice.normal((n, n))
    top, right, bottom, left = (round(x * n) for x in pose.collimation)
    if top:
        image[:top] = 0.02
    if bottom:
        image[n - bottom:] = 0.02
    if left:
        image[:, :left] = 0.02
    if right:
        image[:, n - right:] = 0.02
    for item in c.scene.distractors:
        if item.kind in ("marker", "text"):
            _burn(image, item)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)

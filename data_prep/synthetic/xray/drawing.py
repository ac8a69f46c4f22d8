"""Draws the picture of a phantom `Scene`: a schematic frontal chest radiograph, with the box of every finding.

Everything is given in relative coordinates and every edge is a ramp of at least a pixel, so a study looks the same at
every size. Densities add up along the ray, as attenuation does; the display window turns them into grey levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from data_prep.synthetic.random_stream import RandomStream
from data_prep.synthetic.xray.canvas import Canvas, pixel_centres, ramp
from data_prep.synthetic.xray.distractors import DEVICES, burn
from data_prep.synthetic.xray.world import INNER, Lesion, Scene, Spot

MINIMUM_BOX = 0.08  # Five pixels at 64 px: smaller boxes are widened to it about their centre.

Extent = tuple[float, float, float, float]


def render(scene: Scene, size: int, rng: RandomStream) -> tuple[np.ndarray, list[tuple[Extent, ...]]]:
    """The picture of a scene.

    Args:
      scene: what to draw.
      size: side of the square image in pixels.
      rng: texture and noise; the same key gives the same picture.

    Returns:
      (pixels uint8 [size, size], boxes): for every lesion of the scene, in its order, the relative boxes (x, y, w, h)
      of its parts, inside the unit square.
    """
    canvas = Canvas(scene, size, rng)
    _draw_body(canvas)
    boxes = []
    for lesion in scene.lesions:
        draw = _LESIONS[lesion.finding]
        boxes.append(tuple(_widen(draw(canvas, spot, lesion)) for spot in lesion.spots))
    for item in scene.distractors:
        if item.kind in DEVICES:
            DEVICES[item.kind](canvas, item)
    return _display(canvas), boxes


def _draw_body(c: Canvas) -> None:
    """Everything that is no finding: soft tissue, lungs, mediastinum, bones, vessels."""
    a, u, v, au, e = c.a, c.u, c.v, c.au, c.edge
    neck = np.clip((au - 0.07) * 16, 0, 1)
    shoulder = neck * (0.03 + a.shoulder * np.clip((au - 0.1) * 2.6, 0, 1)) - 0.3 * (1 - neck)
    torso = a.torso + 0.2 * np.clip((0.5 - v) * 3, 0, 1)
    ratio = au / torso
    ratio *= ratio
    body = ramp((v - shoulder) / 0.02) * ramp((torso - au) / 0.02)
    below = ramp((v - c.dome) / e)
    c.d = body * (0.5 + a.fat - 0.14 * ratio * ratio + 0.13 * below)
    mid = u - c.pose.yaw
    width = a.heart_width
    x = mid - 0.17 * width
    y = (v - a.heart_v - a.heart_tilt * x) / a.heart_height
    x = x / (0.5 * width)
    c.heart = ramp((1 - x * x - y * y) * (0.055 / e))
    superior = 0.046 + 0.19 * np.square(np.clip(v - 0.14, 0, 0.5)) - np.abs(mid - 0.06 * np.clip(v - 0.3, 0, 0.4))
    superior = ramp(superior / 0.02)
    knob = ramp((a.knob - np.hypot(mid - 0.05, v - 0.3)) / 0.015)
    mediastinum = np.maximum(np.maximum(superior, knob), c.heart)
    c.air = c.lung * (1 - mediastinum)
    c.aeration = a.aeration * (1.05 - 0.12 * c.t + 0.03 * c.coarse)
    c.d -= c.aeration * c.air
    c.d += body * (0.04 * mediastinum + 0.05 * c.heart)
    spine = (mid - a.scoliosis * np.sin(5 * v)) * (1 / 0.034)
    spine = np.exp(-spine * spine * spine * spine)
    c.d += body * spine * (a.spine_contrast * (0.85 + 0.3 * np.cos(v * (2 * math.pi / 0.05))))
    windpipe = (mid + 0.006) * (1 / 0.015)
    c.d -= 0.09 * np.exp(-windpipe * windpipe) * ramp((0.37 - v) / 0.05) * body
    _draw_vessels(c)
    _draw_bones(c)
    if a.breast > 0.005:
        x, y = (au - 0.2) / 0.14, (v - a.breast_v) / 0.13
        c.d += a.breast * ramp((1 - x * x - y * y) * 1.6) * body
    if a.bubble:
        rows, cols = c.window(a.bubble_u, a.dome[1] + 0.05, 2.2 * a.bubble)
        x, y = (u[rows, cols] - a.bubble_u) / (1.5 * a.bubble), (v[rows, cols] - a.dome[1] - 0.055) / (0.75 * a.bubble)
        c.d[rows, cols] -= 0.22 * ramp((1 - x * x - y * y) * 2) * below[rows, cols] * body[rows, cols]
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
    cage = ramp((c.depth + 0.012) * (1 / 0.015)) * ramp((au - 0.035) * 50)
    phase = (v - shift) * (1 / a.rib_spacing)
    index = np.rint(phase)
    near = np.abs(phase - index)
    rib = ramp((0.21 - near) * 9) * (0.7 + 1.6 * near) * ((index >= 0) & (index < 9.5))
    phase = (v - a.rib_start - 0.03 - 0.17 * (1 - share)) * (1 / (1.12 * a.rib_spacing))
    index = np.rint(phase)
    front = ramp((0.24 - np.abs(phase - index)) * 5) * ((index >= 0) & (index < 6.5)) * ramp((share - 0.42) * 5)
    below = 0.35 + 0.65 * ramp((c.dome - v) * 30)
    c.d += (a.rib_contrast * (rib + 0.5 * front)) * cage * below
    line = v - a.clavicle_v + a.clavicle_slope * (au - 0.05) * 3.5 - 0.01 * np.sin(18 * au)
    c.d += 0.1 * ramp((0.013 - np.abs(line)) * 60) * ramp((au - 0.035) * 60) * ramp((0.36 - au) * 40)
    c.d += 0.05 * ramp((au - 0.3 - 0.2 * (v - 0.15)) * 40) * ramp((0.42 - v) * 14) * ramp((v - 0.15) * 20)


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
    mask = ramp((spot.size - np.hypot(x, y * spot.shape[3])) / max(0.008, 1 / c.size))
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
    mask = ramp((1 - ratio) * (spot.size / 0.02)) * ramp((c.depth[rows, cols] + 0.02) / 0.02)
    seen = 0.35 + 0.65 * c.air[rows, cols]  # Less of it shows in front of the mediastinum and the chest wall.
    c.d[rows, cols] += 0.34 * spot.strength * seen * mask * (1.08 - 0.25 * ratio * ratio)
    return _extent(c, mask, rows, cols)


def _consolidation(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u, spot.v, 1.6 * spot.size)
    x, y = _polar(c, spot, rows, cols)
    ratio = _outline(x, y, spot, (0.14, 0.1, 0.0)) + 0.17 * c.fine[rows, cols]
    mask = ramp((1 - ratio) * (spot.size / 0.07)) * c.lung[rows, cols]
    streaks = np.cos(15 * c.hilum_phi[rows, cols] + spot.shape[0] + 1.3 * c.coarse[rows, cols])
    streaks = np.maximum(streaks, 0) ** 4
    density = (0.31 + 0.05 * c.fine[rows, cols] - 0.13 * streaks) * (1 - 0.65 * c.heart[rows, cols])
    c.d[rows, cols] += mask * (spot.strength * density - 0.7 * c.vessels[rows, cols])
    return _extent(c, mask, rows, cols)


def _effusion(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    a = c.a
    width, dome = a.width[spot.side > 0], a.dome[spot.side > 0]
    across = np.clip((c.au - INNER) / (width - INNER), 0, 1) ** spot.shape[0]
    level = dome + a.drop - spot.size * (0.4 + 0.6 * across)
    mask = ramp((c.v - level) / 0.022) * c.lung * c.side(spot.side)
    c.d += mask * (spot.strength * (c.aeration + 0.11) * (1 - 0.85 * c.heart) - c.vessels)
    return _extent(c, mask)


def _pneumothorax(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    # A small one is apical: its rim thins out downwards, and line and box end where it is hardly there.
    reach = 1.0 if spot.size > 0.5 else np.clip(1.2 - 1.6 * c.t, 0, 1)
    shown = 1.0 if spot.size > 0.5 else ramp((reach - 0.35) * 12)
    inner = c.inside(1 - (0.1 + 0.34 * spot.size) * reach, 0.055 + 0.17 * spot.size)
    lung = c.lung * c.side(spot.side)
    rim = ramp(-inner / c.edge) * lung
    c.d -= rim * (c.vessels + 0.1 * spot.strength)
    line = inner * (1 / max(0.0065, 0.6 / c.size))
    c.d += lung * shown * ((0.15 * spot.strength) * np.exp(-line * line) + (0.07 * spot.size) * (1 - rim) * c.air)
    return _extent(c, rim * shown)


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
    ends = ramp((1 - np.abs(along)) * (spot.size / 0.025))
    mask = ramp((half - np.abs(across + 0.006 * along)) / max(0.014, 1 / c.size)) * ends
    if second > 0.45 and not wedge:
        mask = np.maximum(mask, ramp((0.011 - np.abs(across + 0.042)) / max(0.012, 1 / c.size)) * ramp(
            (0.6 - np.abs(along - 0.15)) * (spot.size / 0.025)))
    mask = mask * ramp((c.depth[rows, cols] + 0.005) / 0.02) * ramp((c.au[rows, cols] - INNER) / 0.02)
    c.d[rows, cols] += 0.28 * spot.strength * mask * (1 - 0.5 * c.heart[rows, cols])
    return _extent(c, mask, rows, cols)


def _edema(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    side = c.side(spot.side)
    haze = np.exp(-np.square(c.hilum_r * (1 / (0.14 + 0.07 * spot.size)))) * (0.95 + 0.3 * c.fine)
    share = (c.au - INNER) / (c.half + INNER)
    kerley = np.cos(c.v * (2 * math.pi / 0.034)) > 0.35
    kerley = kerley * ramp((share - 0.66) * 12) * ramp((c.t - 0.55) * 12)
    c.d += side * c.air * (spot.strength * ((0.18 + 0.06 * spot.size) * haze + 0.08 * kerley + 0.03))
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
    c.d[rows, cols] += spot.strength * (0.26 * callus - 0.26 * gap)
    mask = np.clip(1 - np.hypot(x, y) * (0.5 / spot.size), 0, 1)
    return _extent(c, mask, rows, cols, 0.5)


def _hernia(c: Canvas, spot: Spot, _: Lesion) -> Extent:
    rows, cols = c.window(spot.u + c.pose.yaw, spot.v, 1.5 * spot.size)
    x = (c.u[rows, cols] - spot.u - c.pose.yaw) * spot.shape[1]
    y = c.v[rows, cols] - spot.v
    r = np.hypot(x, y)
    mask = ramp((spot.size - r) / 0.015)
    level = ramp((y - spot.shape[0] * spot.size) / max(0.008, 1 / c.size))
    wall = np.exp(-np.square((r - spot.size) * (1 / 0.011)))
    c.d[rows, cols] += spot.strength * (mask * (0.3 * level - 0.17) + 0.12 * wall)
    return _extent(c, mask, rows, cols)


_LESIONS: dict[str, Callable[[Canvas, Spot, Lesion], Extent]] = {
    "Nodule": _nodule, "Mass": _mass, "Consolidation": _consolidation, "Pleural Effusion": _effusion,
    "Pneumothorax": _pneumothorax, "Cardiomegaly": _cardiomegaly, "Atelectasis": _atelectasis, "Edema": _edema,
    "Fracture": _fracture, "Emphysema": _emphysema, "Hernia": _hernia, "Granuloma": _granuloma}


def _display(c: Canvas) -> np.ndarray:
    """Window, gamma, exposure gradient, noise, collimation and burned-in text: density to uint8 grey levels."""
    pose, n = c.pose, c.size
    g = pixel_centres(n) - 0.5
    image = c.d + (pose.tilt[0] * g + (pose.tilt[1] * g)[:, None])
    image -= pose.low
    image *= 1 / (pose.high - pose.low)
    np.clip(image, 0, 1, out=image)
    if pose.gamma != 1:
        np.power(image, pose.gamma, out=image)
    image += pose.noise * c.rng.normal((n, n))
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
            burn(image, item)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)

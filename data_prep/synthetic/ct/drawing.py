"""Draws a `ct.world.Scene` as a volume in Hounsfield units, with the extent of every lesion."""

from __future__ import annotations

import math

import numpy as np

from data_prep.synthetic.ct.world import FIELD, Scene
from data_prep.synthetic.random_stream import RandomStream

# Where the middle of each lobe lies, relative to its lung's half-axes (x outwards, y, z).
_LOBE_CENTRES = {
    "right upper lobe": (0.05, -0.1, 0.5), "right middle lobe": (0.1, -0.55, -0.05),
    "right lower lobe": (0.1, 0.5, -0.3), "left upper lobe": (0.05, -0.1, 0.5), "lingula": (0.3, -0.5, -0.05),
    "left lower lobe": (0.1, 0.5, -0.3)}


class _Canvas:
    """A volume in HU and the mm of its voxels' middles."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.spacing = tuple(extent / n for extent, n in zip(FIELD, shape))
        self.axes = [((np.arange(n) + 0.5) * mm - extent / 2).astype(np.float32)
                     for n, mm, extent in zip(shape, self.spacing, FIELD)]
        self.z, self.y, self.x = (axis.reshape([-1 if i == k else 1 for i in range(3)])
                                  for k, axis in enumerate(self.axes))
        self.hu = np.full(shape, -1000.0, np.float32)
        self.edge = float(np.mean(self.spacing)) / 2  # Partial volume: surfaces are as soft as a voxel is wide.

    def near(self, middle: tuple[float, float, float], reach: tuple[float, float, float]) -> tuple[slice, ...]:
        """The part of the volume within `reach` of a point."""
        out = []
        for axis, at, far, mm in zip(self.axes, middle, reach, self.spacing):
            low, high = np.searchsorted(axis, (at - far - mm, at + far + mm))
            out.append(slice(int(low), max(int(high), int(low) + 1)))
        return tuple(out)

    def ellipsoid(self, middle: tuple[float, float, float], half: tuple[float, float, float], *,
                  part: tuple[slice, ...] | None = None) -> np.ndarray:
        """Share of each voxel of `part` (default: all) inside an ellipsoid, float32."""
        part = part or (slice(None),) * 3
        z, y, x = self.z[part[0]], self.y[:, part[1]], self.x[:, :, part[2]]
        radius = np.sqrt(((z - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2
                         + ((x - middle[2]) / half[2]) ** 2)
        return np.clip((1 - radius) * min(half) / (2 * self.edge) + 0.5, 0, 1)

    def paint(self, weight: np.ndarray, value: float | np.ndarray, part: tuple[slice, ...] | None = None) -> None:
        """Blends `value` in."""
        part = part or (slice(None),) * 3
        self.hu[part] += weight * (value - self.hu[part])


Extent = tuple[float, float, float, float, float, float]  # (z, y, x, depth, height, width) in voxels.


def _extent(weight: np.ndarray, part: tuple[slice, ...]) -> Extent | None:
    """The voxels that a lesion changed by half or more; None where there are none."""
    if not weight.size or weight.max() <= 0.05:
        return None
    inside = weight >= min(0.5, float(weight.max()) / 2)
    low, size = [], []
    for axis in range(3):
        found = np.flatnonzero(inside.any(axis=tuple(i for i in range(3) if i != axis)))
        low.append(float(found[0] + (part[axis].start or 0)))
        size.append(float(found[-1] - found[0] + 1))
    return (*low, *size)


def render(scene: Scene, shape: tuple[int, int, int], rng: RandomStream
           ) -> tuple[np.ndarray, tuple[tuple[Extent, ...], ...]]:
    """Draws a scene.

    Args:
      scene: what to draw; shape: voxels (z, y, x) over FIELD; rng: of the noise.

    Returns:
      (int16 [z, y, x] HU, extents of every lesion's sites in the order of `scene.lesions`; a site that is smaller
      than a voxel has none).
    """
    canvas = _Canvas(shape)
    lungs = _draw_anatomy(canvas, scene)
    extents = []
    for lesion in scene.lesions:
        found = _DRAW[lesion.finding](canvas, scene, lesion, lungs, RandomStream(lesion.seed))
        extents.append(tuple(extent for extent in found if extent is not None))
    canvas.hu += rng.normal(shape) * np.float32(scene.noise)
    return np.clip(np.rint(canvas.hu), -1024, 3071).astype(np.int16), tuple(extents)


def _heart_half(scene: Scene) -> tuple[float, float, float]:
    size = scene.anatomy.heart_size
    for lesion in scene.lesions:
        if lesion.finding == "Cardiomegaly":
            size *= 1.22 + 0.08 * lesion.size
    return 46 * size, 42 * size, 52 * size


def _draw_anatomy(canvas: _Canvas, scene: Scene) -> dict[str, np.ndarray]:
    """Paints the body; the weights of the lungs, before anything lies in them."""
    a, z, y = scene.anatomy, canvas.z, canvas.y
    x = canvas.x - a.turn * y / 100
    radius = np.sqrt((y / a.body[0]) ** 2 + (x / a.body[1]) ** 2)
    body = np.clip((1 - radius) * a.body[0] / (2 * canvas.edge) + 0.5, 0, 1)
    canvas.paint(body, -90.0)
    inner = np.clip((1 - a.wall / 2 / a.body[0] - radius) * a.body[0] / (2 * canvas.edge) + 0.5, 0, 1)
    canvas.paint(inner * np.ones_like(z), 45.0)
    # The mediastinum is fat with vessels in it; below the diaphragm lies the abdomen.
    middle = np.clip((34 - np.abs(x)) / (2 * canvas.edge) + 0.5, 0, 1) * np.clip(
        (70 - np.abs(y - 5)) / (2 * canvas.edge) + 0.5, 0, 1) * np.clip((z + 70) / (2 * canvas.edge) + 0.5, 0, 1)
    canvas.paint(middle, -85.0)
    lungs = {}
    for side, sign, dome in (("right", -1, a.domes[0]), ("left", 1, a.domes[1])):
        lung = canvas.ellipsoid((5.0, 0.0, sign * a.lung_x), a.lung)
        floor = dome + 26 * (1 - ((x - sign * a.lung_x) / 60) ** 2 - (y / 95) ** 2)
        lungs[side] = lung * np.clip((z - floor) / (2 * canvas.edge) + 0.5, 0, 1)
        canvas.paint(lungs[side], a.lung_hu + 25 * y / 90)  # Blood sinks: the back is denser.
        ring = lung * (1 - canvas.ellipsoid((5.0, 0.0, sign * a.lung_x), tuple(h - 7 for h in a.lung)))
        canvas.paint(ring * 0.5 * (np.sin((z - 0.4 * y) / 7) > 0.3) * (lungs[side] > 0.3), 120.0)  # Ribs.
    half = _heart_half(scene)
    heart = canvas.ellipsoid(a.heart, half)
    for side in lungs:
        lungs[side] = lungs[side] * (1 - heart)
    canvas.paint(heart, 48.0)
    tube = np.sqrt((y - 2) ** 2 + x**2)
    canvas.paint(np.clip((9 - tube) / (2 * canvas.edge) + 0.5, 0, 1) * np.clip((z - 25) / 10, 0, 1), -1000.0)
    for middle_y, middle_x, top in ((52.0, 22.0, 58.0), (-12.0, -8.0, 58.0)):  # Descending and ascending aorta.
        tube = np.sqrt((y - middle_y) ** 2 + (x - middle_x) ** 2)
        above = np.clip((top - z) / 8, 0, 1) * (np.clip((z + 20) / 8, 0, 1) if middle_y < 0 else 1)
        canvas.paint(np.clip((a.aorta - tube) / (2 * canvas.edge) + 0.5, 0, 1) * above, 50.0)
    for share in np.linspace(0, 1, 9):  # The arch.
        at = _arch(share)
        part = canvas.near(at, (a.aorta,) * 3)
        canvas.paint(canvas.ellipsoid(at, (a.aorta,) * 3, part=part), 50.0, part)
    spine = np.sqrt((y - 78) ** 2 + x**2)
    canvas.paint(np.clip((19 - spine) / (2 * canvas.edge) + 0.5, 0, 1) * np.ones_like(z), 260.0)
    sternum = np.clip((14 - np.abs(x)) / (2 * canvas.edge) + 0.5, 0, 1) * np.clip(
        (6 - np.abs(y + a.body[0] - a.wall / 2 - 8)) / (2 * canvas.edge) + 0.5, 0, 1) * np.clip((z + 40) / 10, 0, 1)
    canvas.paint(sternum, 230.0)
    return lungs


def _arch(share: float) -> tuple[float, float, float]:
    """A point on the aortic arch, from the ascending (0) to the descending aorta (1)."""
    return 58 + 12 * math.sin(math.pi * share), -12 + 64 * share, -8 + 30 * share


def _in_lobe(scene: Scene, lobe: str, rng: RandomStream, spread: float = 0.14) -> tuple[float, float, float]:
    a = scene.anatomy
    out, back, up = _LOBE_CENTRES[lobe]
    sign = -1 if lobe.startswith("right") else 1
    return (5 + a.lung[0] * (up + rng.uniform(-spread, spread)), a.lung[1] * (back + rng.uniform(-spread, spread)),
            sign * (a.lung_x + a.lung[2] * (out + rng.uniform(-spread, spread))))


def _lung_of(site: str) -> str:
    return "right" if site.startswith("right") else "left"


def _blob(canvas: _Canvas, middle: tuple[float, float, float], half: tuple[float, float, float], value: float,
          inside: np.ndarray | None = None, strength: float = 1.0) -> Extent | None:
    part = canvas.near(middle, half)
    weight = canvas.ellipsoid(middle, half, part=part) * strength
    if inside is not None:
        weight = weight * inside[part]
    canvas.paint(weight, value, part)
    return _extent(weight / strength, part)


def _nodule(canvas, scene, lesion, lungs, rng):  # noqa: ANN001 (as _DRAW)
    radius = (9.0, 11.5, 14.5)[lesion.size]
    return [_blob(canvas, _in_lobe(scene, lobe, rng), (radius,) * 3, 60.0, lungs[_lung_of(lobe)])
            for lobe in lesion.sites]


def _cloud(value: float, strength: float, low: float, high: float):
    def draw(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
        size = 1 + 0.3 * (lesion.size - 1)
        return [_blob(canvas, _in_lobe(scene, lobe, rng), tuple(rng.uniform(low, high) * size for _ in range(3)),
                      value, lungs[_lung_of(lobe)], strength) for lobe in lesion.sites]

    return draw


def _atelectasis(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    found = []
    for lobe in lesion.sites:
        z, y, x = _in_lobe(scene, lobe, rng, 0.08)
        slope = rng.uniform(-0.35, 0.35)
        disc = canvas.ellipsoid((z - 12, y, x), (90.0, 38.0 + 8 * lesion.size, 34.0 + 6 * lesion.size))
        plate = np.clip((7 + 2 * lesion.size - np.abs(canvas.z - (z - 12) - slope * (canvas.x - x)))
                        / (2 * canvas.edge) + 0.5, 0, 1)
        weight = disc * plate * lungs[_lung_of(lobe)]
        canvas.paint(weight, 35.0)
        found.append(_extent(weight, (slice(None),) * 3))
    return found


def _effusion(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    found = []
    for side in lesion.sites:
        level = scene.anatomy.lung[1] * (0.62 - 0.22 * lesion.size) + rng.uniform(-5, 5)
        weight = lungs[side] * np.clip((canvas.y - level - 0.25 * (canvas.z + 20)) / (2 * canvas.edge) + 0.5, 0, 1)
        canvas.paint(weight, 10.0)
        found.append(_extent(weight, (slice(None),) * 3))
    return found


def _emphysema(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    found = []
    for side, sign in (("right", -1), ("left", 1)):
        top = lungs[side] * np.clip((canvas.z - 15 + 12 * lesion.size) / 15, 0, 1)
        canvas.paint(top * (0.45 + 0.15 * lesion.size), -985.0)
        a = scene.anatomy
        for _ in range(5 + 3 * lesion.size):
            at = (5 + a.lung[0] * rng.uniform(0.15, 0.75), a.lung[1] * rng.uniform(-0.55, 0.55),
                  sign * (a.lung_x + a.lung[2] * rng.uniform(-0.4, 0.45)))
            radius = rng.uniform(8, 14)
            _blob(canvas, at, (radius,) * 3, -1010.0, lungs[side])
        found.append(_extent(top, (slice(None),) * 3))
    return found


def _cardiomegaly(canvas, scene, lesion, lungs, rng):  # noqa: ANN001 (drawn with the anatomy)
    half = _heart_half(scene)
    part = canvas.near(scene.anatomy.heart, half)
    return [_extent(canvas.ellipsoid(scene.anatomy.heart, half, part=part), part)]


def _pericardial(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    half = _heart_half(scene)
    thick = 13.0 + 5 * lesion.size
    heart, fat = canvas.ellipsoid(scene.anatomy.heart, half), tuple(h + 5 for h in half)
    sac = canvas.ellipsoid(scene.anatomy.heart, tuple(h + thick for h in half))
    above = np.clip((canvas.z - scene.anatomy.domes[1] + 15) / 15, 0, 1)
    canvas.paint(sac * (1 - heart) * above, 8.0)
    canvas.paint(canvas.ellipsoid(scene.anatomy.heart, fat) * (1 - heart) * above, -70.0)
    for side in lungs:
        lungs[side] *= 1 - sac
    return [_extent(sac * above, (slice(None),) * 3)]


def _arterial(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    extents = []
    for _ in range(2 + 2 * lesion.size):
        z, y, x = _arch(rng.uniform(0, 1))
        angle = rng.uniform(0, 2 * math.pi)
        at = (z + scene.anatomy.aorta * 0.8 * math.sin(angle), y, x + scene.anatomy.aorta * 0.8 * math.cos(angle))
        extents.append(_blob(canvas, at, (6.5, 7.5, 6.5), 850.0))
    return [_union(extents)]


def _coronary(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    (z, y, x), half = scene.anatomy.heart, _heart_half(scene)
    extents = []
    for _ in range(2 + lesion.size):
        angle = rng.uniform(0.2, 1.3)
        at = (z + half[0] * 0.75 * math.sin(angle), y - half[1] * 0.75 * math.cos(angle), x + rng.uniform(-14, 14))
        extents.append(_blob(canvas, at, (6.0, 6.5, 6.5), 750.0))
    return [_union(extents)]


def _hernia(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    radius = 19.0 + 4 * lesion.size
    at = (rng.uniform(-66, -56), 44.0, rng.uniform(-6, 10))
    extent = _blob(canvas, at, (radius,) * 3, 35.0)
    _blob(canvas, (at[0] + 4, at[1] - 5, at[2]), (radius * 0.5,) * 3, -900.0)
    for side in lungs:
        lungs[side] *= 1 - canvas.ellipsoid(at, (radius,) * 3)
    return [extent]


def _nodes(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    extents = []
    for _ in range(2 + lesion.size):
        at = (rng.uniform(15, 60), rng.uniform(-45, 25), rng.uniform(-26, -10))
        radius = rng.uniform(9, 12) + lesion.size
        extents.append(_blob(canvas, at, (radius, radius, radius), 70.0))
    return [_union(extents)]


def _device(canvas, scene, lesion, lungs, rng):  # noqa: ANN001
    a = scene.anatomy
    at = (rng.uniform(72, 92), -a.body[0] * 0.74 + 4, rng.uniform(62, 78))
    extents = [_blob(canvas, at, (17.0, 6.5, 20.0), 2600.0)]
    goal = (a.heart[0], a.heart[1], a.heart[2] - 15)
    for share in np.linspace(0.1, 1, 14):  # The lead.
        point = tuple(p + share * (q - p) for p, q in zip(at, goal))
        _blob(canvas, point, (4.0, 4.0, 4.0), 1500.0)
    return [_union(extents)]


def _union(extents: list[Extent | None]) -> Extent | None:
    there = np.array([extent for extent in extents if extent is not None])
    if not len(there):
        return None
    low, high = there[:, :3].min(0), (there[:, :3] + there[:, 3:]).max(0)
    return (*low.tolist(), *(high - low).tolist())


# Finding -> draw(canvas, scene, lesion, lungs, rng) -> an extent per site.
_DRAW = {
    "Medical Material": _device, "Arterial Wall Calcification": _arterial, "Cardiomegaly": _cardiomegaly,
    "Pericardial Effusion": _pericardial, "Coronary Artery Wall Calcification": _coronary, "Hernia": _hernia,
    "Lymphadenopathy": _nodes, "Emphysema": _emphysema, "Atelectasis": _atelectasis, "Nodule": _nodule,
    "Lung Opacity": _cloud(-480.0, 0.75, 24, 36), "Pleural Effusion": _effusion,
    "Consolidation": _cloud(40.0, 0.97, 21, 32),
}

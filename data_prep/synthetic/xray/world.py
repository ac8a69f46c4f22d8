"""What a phantom study consists of: anatomy, pose and exposure, findings, distractors; and the dice that draw them.

`xray.findings` puts the findings in; `xray.drawing` makes the picture of a `Scene`, `xray.reports` its report.

Coordinates are relative. Body coordinates (u, v) have u = 0 at the midline, growing towards the patient's left (the
image's right: the radiographic convention), v = 0 at the neck and 1 at the lower edge; one unit is the side of an
image taken at scale 1. Sides are -1 (patient's right), +1 (patient's left) and 0 (midline).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

FINDINGS = ("Nodule", "Mass", "Consolidation", "Pleural Effusion", "Pneumothorax", "Cardiomegaly", "Atelectasis",
            "Edema", "Fracture", "Emphysema", "Hernia", "Granuloma")
SEVERITIES = ("mild", "moderate", "severe")
CHRONIC = ("Cardiomegaly", "Emphysema", "Hernia", "Granuloma")

INNER = 0.05  # Half-width of the strip between the lungs.
TOP = 0.55  # Share of the lung's height that the rounded top takes.
LUNG_BASE = 0.8  # v where the relative height t is 1.


class Dice:
    """Random numbers of one stream, keyed by integers: the same key gives the same numbers in any process."""

    def __init__(self, *key: int) -> None:
        self._rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        self._buffer: list[float] = []

    def random(self) -> float:
        """Uniform in [0, 1)."""
        if not self._buffer:
            self._buffer = self._rng.random(96).tolist()
        return self._buffer.pop()

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random() < probability

    def integer(self, low: int, high: int) -> int:
        """One of low, ..., high."""
        return low + int((high - low + 1) * self.random())

    def pick(self, items: Sequence):  # noqa: ANN201 (the items' type)
        """One of the items, all equally likely."""
        return items[int(len(items) * self.random())]

    def weighted(self, weights: Sequence[float]) -> int:
        """An index, with probability in proportion to its weight."""
        left = self.random() * sum(weights)
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return index
        return len(weights) - 1

    def shuffled(self, items: Sequence) -> list:
        """The items in random order."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = int((i + 1) * self.random())
            out[i], out[j] = out[j], out[i]
        return out

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32 standard normal numbers."""
        return self._rng.standard_normal(shape, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """The patient's own build: lengths in body units, pairs are (right, left)."""

    sex: str
    age: float
    width: tuple[float, float]
    apex: tuple[float, float]
    dome: tuple[float, float]
    drop: float
    aeration: float
    ctr: float
    heart_v: float
    heart_height: float
    heart_tilt: float
    knob: float
    hilum_v: float
    torso: float
    shoulder: float
    fat: float
    breast: float
    breast_v: float
    rib_start: float
    rib_spacing: float
    rib_slope: float
    rib_contrast: float
    clavicle_v: float
    clavicle_slope: float
    spine_contrast: float
    scoliosis: float
    bubble: float
    bubble_u: float
    vessels: float
    vessel_phase: tuple[float, float, float, float]
    texture: int

    @property
    def heart_width(self) -> float:
        """Transverse diameter of the heart: the cardiothoracic ratio times the inner width of the thorax."""
        return self.ctr * (self.width[0] + self.width[1])

    def relative_height(self, v: float, side: int) -> float:
        """0 at the apex of the lung on this side, 1 at LUNG_BASE."""
        apex = self.apex[side > 0]
        return (v - apex) / (LUNG_BASE - apex)

    def lateral(self, v: float, side: int) -> float:
        """|u| of the lung's lateral border at height v."""
        t = self.relative_height(v, side)
        q = min(max(1 - t / TOP, 0.0), 1.0)
        return INNER + (self.width[side > 0] * (1 + 0.05 * (t - TOP)) - INNER) * math.sqrt(1 - q * q)

    def rib(self, index: float, side: int, at: float) -> float:
        """v of the centre line of posterior rib `index` at |u| = at."""
        return self.rib_start + index * self.rib_spacing + self.rib_slope * (at / self.width[side > 0]) ** 2

    def in_heart(self, u: float, v: float) -> bool:
        """Whether (u, v) lies in the heart's outline."""
        width = self.heart_width
        x = (u - 0.17 * width) / (0.5 * width)
        y = (v - self.heart_v - self.heart_tilt * (u - 0.17 * width)) / self.heart_height
        return x * x + y * y < 1


@dataclasses.dataclass(frozen=True)
class Spot:
    """One drawn part of a finding: where it is, how large and how strong (0 to 1), and its free shape parameters."""

    side: int
    u: float
    v: float
    size: float
    strength: float
    angle: float = 0.0
    shape: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Lesion:
    """A finding: `side` is "left", "right", "bilateral" or ""; `zone` is "upper", "mid", "lower", "apex", "base",
    "retrocardiac" or "" (whole lung or organ); `subtle` lesions are drawn with little contrast."""

    finding: str
    side: str
    zone: str
    severity: str
    subtle: bool
    spots: tuple[Spot, ...]
    chronic: bool = False


@dataclasses.dataclass(frozen=True)
class Pose:
    """How the image was taken. Rotation in radians, shifts in image sides; display window and noise."""

    view: str
    rotation: float
    shift: tuple[float, float]
    scale: float
    yaw: float
    low: float
    high: float
    gamma: float
    noise: float
    tilt: tuple[float, float]
    collimation: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Distractor:
    """A device, marker or text without diagnostic meaning; `values` are its free parameters."""

    kind: str
    side: int
    text: str
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything that is in one study. `prior` says whether the patient has an earlier study in this world."""

    anatomy: Anatomy
    pose: Pose
    lesions: tuple[Lesion, ...]
    distractors: tuple[Distractor, ...]
    prior: bool

    @property
    def present(self) -> frozenset[str]:
        """Names of the findings that are there."""
        return frozenset(lesion.finding for lesion in self.lesions)


def sample_anatomy(dice: Dice) -> Anatomy:
    """A patient: everything that stays the same from study to study, without findings."""
    sex = "F" if dice.chance(0.48) else "M"
    width = dice.uniform(0.29, 0.355)
    apex = dice.uniform(0.115, 0.165)
    dome = dice.uniform(0.66, 0.725)
    return Anatomy(
        sex=sex,
        age=float(dice.integer(21, 91)),
        width=(width * dice.uniform(0.97, 1.03), width * dice.uniform(0.95, 1.01)),
        apex=(apex + dice.uniform(-0.008, 0.008), apex + dice.uniform(-0.008, 0.008)),
        dome=(dome, dome + dice.uniform(0.005, 0.035)),
        drop=dice.uniform(0.075, 0.11),
        aeration=dice.uniform(0.31, 0.36),
        ctr=dice.uniform(0.37, 0.49),
        heart_v=dome - dice.uniform(0.055, 0.085),
        heart_height=dice.uniform(0.125, 0.15),
        heart_tilt=dice.uniform(0.2, 0.45),
        knob=dice.uniform(0.028, 0.042),
        hilum_v=dice.uniform(0.41, 0.46),
        torso=min(width + dice.uniform(0.08, 0.17), 0.5),
        shoulder=dice.uniform(0.08, 0.14),
        fat=dice.uniform(-0.03, 0.05),
        breast=dice.uniform(0.03, 0.085) if sex == "F" else (dice.uniform(0.0, 0.025)),
        breast_v=dice.uniform(0.58, 0.68),
        rib_start=apex + dice.uniform(-0.015, 0.015),
        rib_spacing=dice.uniform(0.066, 0.08),
        rib_slope=dice.uniform(0.05, 0.11),
        rib_contrast=dice.uniform(0.035, 0.07),
        clavicle_v=apex + dice.uniform(0.055, 0.085),
        clavicle_slope=dice.uniform(0.03, 0.1),
        spine_contrast=dice.uniform(0.04, 0.1),
        scoliosis=dice.uniform(-0.015, 0.015),
        bubble=dice.uniform(0.03, 0.06) if dice.chance(0.6) else 0.0,
        bubble_u=dice.uniform(0.12, 0.18),
        vessels=dice.uniform(0.08, 0.13),
        vessel_phase=(dice.uniform(0, 6.28), dice.uniform(0, 6.28), dice.uniform(-0.7, 0.7), dice.uniform(0.8, 1.2)),
        texture=int(dice.random() * 2**31),
    )


def sample_pose(dice: Dice) -> Pose:
    """Positioning and exposure of one study."""
    low = dice.uniform(-0.02, 0.05)
    border = tuple(dice.uniform(0.01, 0.05) if dice.chance(0.5) else 0.0 for _ in range(4))
    return Pose(
        view="AP" if dice.chance(0.4) else "PA",
        rotation=dice.uniform(-0.075, 0.075),
        shift=(dice.uniform(-0.03, 0.03), dice.uniform(-0.03, 0.03)),
        scale=dice.uniform(0.95, 1.1),
        yaw=dice.uniform(-0.012, 0.012),
        low=low,
        high=low + dice.uniform(0.78, 1.0),
        gamma=dice.uniform(0.8, 1.25),
        noise=dice.uniform(0.006, 0.02),
        tilt=(dice.uniform(-0.04, 0.04), dice.uniform(-0.03, 0.03)),
        collimation=border if dice.chance(0.35) else (0.0, 0.0, 0.0, 0.0),
    )


def sample_distractors(dice: Dice) -> tuple[Distractor, ...]:
    """Devices, markers and burned-in text, each with its own probability, whatever the findings are."""
    out = []
    if dice.chance(0.12):
        side = 1 if dice.chance(0.8) else -1
        out.append(Distractor("pacemaker", side, "", (dice.uniform(0.22, 0.27), dice.uniform(0.2, 0.25),
                                                      dice.uniform(0.028, 0.04), dice.uniform(-0.5, 0.5))))
    if dice.chance(0.2):
        points = tuple(dice.uniform(-0.34, 0.34) if i % 2 == 0 else dice.uniform(0.15, 0.85) for i in range(6))
        out.append(Distractor("wires", 0, "", points))
    if dice.chance(0.12):
        side = dice.pick((-1, 1))
        points = tuple(dice.uniform(-0.04, 0.04) for _ in range(2 * dice.integer(2, 4)))
        out.append(Distractor("clips", side, "", (dice.uniform(0.3, 0.36), dice.uniform(0.2, 0.3), *points)))
    if dice.chance(0.1):
        out.append(Distractor("sternotomy", 0, "", (dice.uniform(0.26, 0.3), dice.uniform(0.055, 0.075),
                                                    dice.uniform(-0.006, 0.006))))
    if dice.chance(0.12):
        out.append(Distractor("central line", 1 if dice.chance(0.3) else -1, "", (dice.uniform(0.36, 0.46),)))
    if dice.chance(0.6):
        side = 1 if dice.chance(0.55) else -1
        place = (dice.uniform(0.025, 0.09), dice.uniform(0.02, 0.14), dice.uniform(0.06, 0.085))
        out.append(Distractor("marker", side, "L" if side > 0 else "R", place))
    if dice.chance(0.3):
        text = dice.pick(("PORTABLE", "AP ERECT", "SUPINE", "PA", "UPRIGHT", "CHEST", "SEMI UPRIGHT"))
        out.append(Distractor("text", dice.pick((-1, 1)), text, (dice.uniform(0.01, 0.06), dice.uniform(0.9, 0.93),
                                                                 dice.uniform(0.028, 0.042))))
    return tuple(out)

"""What a phantom study consists of: anatomy, pose and exposure, findings, distractors; and the rng that draw them.

`xray.findings` puts the findings in; `xray.drawing` makes the picture of a `Scene`, `xray.reports` its report.

Coordinates are relative. Body coordinates (u, v) have u = 0 at the midline, growing towards the patient's left (the
image's right: the radiographic convention), v = 0 at the neck and 1 at the lower edge; one unit is the side of an
image taken at scale 1. Sides are -1 (patient's right), +1 (patient's left) and 0 (midline).
"""

from __future__ import annotations

import dataclasses
import math

from data_prep.synthetic.random_stream import RandomStream

FINDINGS = ("Nodule", "Mass", "Consolidation", "Pleural Effusion", "Pneumothorax", "Cardiomegaly", "Atelectasis",
            "Edema", "Fracture", "Emphysema", "Hernia", "Granuloma")
SEVERITIES = ("mild", "moderate", "severe")
CHRONIC = ("Cardiomegaly", "Emphysema", "Hernia", "Granuloma")

INNER = 0.05  # Half-width of the strip between the lungs.
TOP = 0.55  # Share of the lung's height that the rounded top takes.
LUNG_BASE = 0.8  # v where the relative height t is 1.


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
    """Everything that is in one study. `prior`: whether the patient has an earlier study in this world."""

    anatomy: Anatomy
    pose: Pose
    lesions: tuple[Lesion, ...]
    distractors: tuple[Distractor, ...]
    prior: bool

    @property
    def present(self) -> frozenset[str]:
        """Names of the findings that are there."""
        return frozenset(lesion.finding for lesion in self.lesions)


def sample_anatomy(rng: RandomStream) -> Anatomy:
    """A patient: everything that stays the same from study to study, without findings."""
    sex = "F" if rng.chance(0.48) else "M"
    width = rng.uniform(0.29, 0.355)
    apex = rng.uniform(0.115, 0.165)
    dome = rng.uniform(0.66, 0.725)
    return Anatomy(
        sex=sex,
        age=float(rng.integer(21, 91)),
        width=(width * rng.uniform(0.97, 1.03), width * rng.uniform(0.95, 1.01)),
        apex=(apex + rng.uniform(-0.008, 0.008), apex + rng.uniform(-0.008, 0.008)),
        dome=(dome, dome + rng.uniform(0.005, 0.035)),
        drop=rng.uniform(0.075, 0.11),
        aeration=rng.uniform(0.31, 0.36),
        ctr=rng.uniform(0.37, 0.49),
        heart_v=dome - rng.uniform(0.055, 0.085),
        heart_height=rng.uniform(0.125, 0.15),
        heart_tilt=rng.uniform(0.2, 0.45),
        knob=rng.uniform(0.028, 0.042),
        hilum_v=rng.uniform(0.41, 0.46),
        torso=min(width + rng.uniform(0.08, 0.17), 0.5),
        shoulder=rng.uniform(0.08, 0.14),
        fat=rng.uniform(-0.03, 0.05),
        breast=rng.uniform(0.03, 0.085) if sex == "F" else (rng.uniform(0.0, 0.025)),
        breast_v=rng.uniform(0.58, 0.68),
        rib_start=apex + rng.uniform(-0.015, 0.015),
        rib_spacing=rng.uniform(0.066, 0.08),
        rib_slope=rng.uniform(0.05, 0.11),
        rib_contrast=rng.uniform(0.035, 0.07),
        clavicle_v=apex + rng.uniform(0.055, 0.085),
        clavicle_slope=rng.uniform(0.03, 0.1),
        spine_contrast=rng.uniform(0.04, 0.1),
        scoliosis=rng.uniform(-0.015, 0.015),
        bubble=rng.uniform(0.03, 0.06) if rng.chance(0.6) else 0.0,
        bubble_u=rng.uniform(0.12, 0.18),
        vessels=rng.uniform(0.08, 0.13),
        vessel_phase=(rng.uniform(0, 6.28), rng.uniform(0, 6.28), rng.uniform(-0.7, 0.7), rng.uniform(0.8, 1.2)),
        texture=int(rng.random() * 2**31),
    )


def sample_pose(rng: RandomStream) -> Pose:
    """Positioning and exposure of one study."""
    low = rng.uniform(-0.02, 0.05)
    border = tuple(rng.uniform(0.01, 0.05) if rng.chance(0.5) else 0.0 for _ in range(4))
    return Pose(
        view="AP" if rng.chance(0.4) else "PA",
        rotation=rng.uniform(-0.075, 0.075),
        shift=(rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
        scale=rng.uniform(0.95, 1.1),
        yaw=rng.uniform(-0.012, 0.012),
        low=low,
        high=low + rng.uniform(0.78, 1.0),
        gamma=rng.uniform(0.8, 1.25),
        noise=rng.uniform(0.006, 0.02),
        tilt=(rng.uniform(-0.04, 0.04), rng.uniform(-0.03, 0.03)),
        collimation=border if rng.chance(0.35) else (0.0, 0.0, 0.0, 0.0),
    )


def sample_distractors(rng: RandomStream) -> tuple[Distractor, ...]:
    """Devices, markers and burned-in text, each with its own probability, whatever the findings are."""
    out = []
    if rng.chance(0.12):
        side = 1 if rng.chance(0.8) else -1
        out.append(Distractor("pacemaker", side, "", (rng.uniform(0.22, 0.27), rng.uniform(0.2, 0.25),
                                                      rng.uniform(0.028, 0.04), rng.uniform(-0.5, 0.5))))
    if rng.chance(0.2):
        points = tuple(rng.uniform(-0.34, 0.34) if i % 2 == 0 else rng.uniform(0.15, 0.85) for i in range(6))
        out.append(Distractor("wires", 0, "", points))
    if rng.chance(0.12):
        side = rng.pick((-1, 1))
        points = tuple(rng.uniform(-0.04, 0.04) for _ in range(2 * rng.integer(2, 4)))
        out.append(Distractor("clips", side, "", (rng.uniform(0.3, 0.36), rng.uniform(0.2, 0.3), *points)))
    if rng.chance(0.1):
        out.append(Distractor("sternotomy", 0, "", (rng.uniform(0.26, 0.3), rng.uniform(0.055, 0.075),
                                                    rng.uniform(-0.006, 0.006))))
    if rng.chance(0.12):
        out.append(Distractor("central line", 1 if rng.chance(0.3) else -1, "", (rng.uniform(0.36, 0.46),)))
    if rng.chance(0.6):
        side = 1 if rng.chance(0.55) else -1
        place = (rng.uniform(0.025, 0.09), rng.uniform(0.02, 0.14), rng.uniform(0.06, 0.085))
        out.append(Distractor("marker", side, "L" if side > 0 else "R", place))
    if rng.chance(0.3):
        text = rng.pick(("PORTABLE", "AP ERECT", "SUPINE", "PA", "UPRIGHT", "CHEST", "SEMI UPRIGHT"))
        out.append(Distractor("text", rng.pick((-1, 1)), text, (rng.uniform(0.01, 0.06), rng.uniform(0.9, 0.93),
                                                                 rng.uniform(0.028, 0.042))))
    return tuple(out)

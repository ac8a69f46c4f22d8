"""The phantom CT world: schematic chests in three dimensions with known findings; drawn at any voxel size.

Places are in mm from the middle of the volume: x to the patient's left, y to the back, z to the head, as the canonical
frame of `lgdea_jax.io.volumes`; the field of view is FIELD whatever the number of voxels. Intensities are Hounsfield
units. Anatomy varies from subject to subject; the pictures carry no medical truth.
"""

from __future__ import annotations

import dataclasses

from data_prep.synthetic.random_stream import RandomStream

# A part of the 18 findings of CT-RATE, in its order.
FINDINGS = ("Medical Material", "Arterial Wall Calcification", "Cardiomegaly", "Pericardial Effusion",
            "Coronary Artery Wall Calcification", "Hernia", "Lymphadenopathy", "Emphysema", "Atelectasis", "Nodule",
            "Lung Opacity", "Pleural Effusion", "Consolidation")
FIELD = (320.0, 360.0, 360.0)  # mm (z, y, x).
LOBES = ("right upper lobe", "right middle lobe", "right lower lobe", "left upper lobe", "lingula", "left lower lobe")
SEVERITIES = ("small", "moderate", "large")
_WEIGHTS = (0.6, 0.9, 0.8, 0.7, 0.8, 0.7, 0.8, 0.9, 1.2, 1.4, 1.4, 1.3, 1.2)
_SEVERAL = ("Nodule", "Lung Opacity", "Consolidation", "Atelectasis", "Pleural Effusion")


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """What belongs to the subject: half-axes and positions in mm, HU, sex and age."""

    sex: str
    age: float
    body: tuple[float, float]  # Half-axes (y, x).
    wall: float  # Thickness of the chest wall.
    lung: tuple[float, float, float]  # Half-axes (z, y, x).
    lung_x: float
    domes: tuple[float, float]  # Height of the right and left diaphragm.
    heart: tuple[float, float, float]  # Middle (z, y, x).
    heart_size: float
    aorta: float  # Radius.
    lung_hu: float
    turn: float  # The patient lies a little askew: mm that x moves from front to back.


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One finding at one or several sites.

    Attributes:
      finding: one of FINDINGS.
      sites: lobes for findings of the lung, "right" and "left" for effusions, () where there is one site only.
      size: 0 to 2, an index into SEVERITIES.
      seed: of the details of its picture.
    """

    finding: str
    sites: tuple[str, ...]
    size: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """A study before it is drawn and described."""

    anatomy: Anatomy
    lesions: tuple[Lesion, ...]
    noise: float  # HU.

    @property
    def present(self) -> frozenset[str]:
        """Names of the findings; a consolidation is an opacity by definition (`findings.vocabulary`)."""
        names = {lesion.finding for lesion in self.lesions}
        return frozenset(names | ({"Lung Opacity"} if "Consolidation" in names else set()))


def sample_anatomy(rng: RandomStream) -> Anatomy:
    """A subject."""
    female = rng.chance(0.5)
    size = rng.uniform(0.9, 1.02) - (0.05 if female else 0.0)
    return Anatomy(
        sex="F" if female else "M", age=float(rng.integer(25, 88)),
        body=(rng.uniform(104, 124) * size, rng.uniform(148, 168) * size), wall=rng.uniform(16, 28),
        lung=(rng.uniform(108, 128) * size, rng.uniform(78, 90) * size, rng.uniform(50, 58) * size),
        lung_x=rng.uniform(66, 74) * size, domes=(rng.uniform(-78, -58), rng.uniform(-86, -68)),
        heart=(rng.uniform(-48, -36), rng.uniform(-36, -24), rng.uniform(14, 26)),
        heart_size=rng.uniform(0.88, 1.05), aorta=rng.uniform(12, 15), lung_hu=rng.uniform(-880, -810),
        turn=rng.uniform(-10, 10))


def sample_scene(seed: int, world: int, index: int, *, normal_share: float, max_findings: int,
                 repeat_share: float) -> tuple[Scene, int]:
    """(scene, subject number) of study `index` of a world; a share of subjects has two studies."""
    subject = index
    if index % 2 and RandomStream(seed, world, 20, index).chance(2 * repeat_share):
        subject = index - 1
    anatomy = sample_anatomy(RandomStream(seed, world, 21, subject))
    rng = RandomStream(seed, world, 22, index)
    lesions: list[Lesion] = []
    if not rng.chance(normal_share):
        weights = list(_WEIGHTS)
        for _ in range(rng.integer(1, max_findings)):
            number = rng.weighted(weights)
            weights[number] = 0.0
            lesions.append(_lesion(FINDINGS[number], rng))
    lesions.sort(key=lambda lesion: FINDINGS.index(lesion.finding))
    return Scene(anatomy, tuple(lesions), rng.uniform(10, 30)), subject


def _lesion(finding: str, rng: RandomStream) -> Lesion:
    sites: tuple[str, ...] = ()
    if finding in _SEVERAL:
        count = 1 + rng.weighted((0.55, 0.3, 0.15))
        if finding == "Pleural Effusion":
            sites = ("right", "left") if count > 1 else (rng.pick(("right", "left")),)
        else:
            lobes = [lobe for lobe in LOBES if finding != "Atelectasis" or "upper" not in lobe]
            chosen = rng.shuffled(lobes)[:count]
            sites = tuple(lobe for lobe in LOBES if lobe in chosen)
    return Lesion(finding, sites, rng.weighted((0.35, 0.4, 0.25)), rng.integer(0, 2**31 - 2))



"""Chooses and places the findings of a phantom study: co-occurrence, side, zone, severity; makes the whole scene."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from data_prep.synthetic.random_stream import RandomStream
from data_prep.synthetic.xray.world import (
    CHRONIC,
    FINDINGS,
    INNER,
    SEVERITIES,
    Anatomy,
    Lesion,
    Scene,
    Spot,
    sample_anatomy,
    sample_distractors,
    sample_pose,
)

# How often a finding comes first, and what comes with it (probability of each companion, tried in this order).
_PRIMARY = {"Nodule": 1.05, "Mass": 1.1, "Consolidation": 1.05, "Pleural Effusion": 0.6, "Pneumothorax": 0.9,
            "Cardiomegaly": 0.7, "Atelectasis": 0.65, "Edema": 1.0, "Fracture": 1.0, "Emphysema": 0.9, "Hernia": 1.2,
            "Granuloma": 1.05}
_COMPANIONS = {
    "Nodule": (("Granuloma", 0.12), ("Emphysema", 0.1)),
    "Mass": (("Pleural Effusion", 0.2), ("Atelectasis", 0.15), ("Nodule", 0.12), ("Emphysema", 0.1)),
    "Consolidation": (("Pleural Effusion", 0.28), ("Atelectasis", 0.12)),
    "Pleural Effusion": (("Atelectasis", 0.35), ("Cardiomegaly", 0.2), ("Edema", 0.15), ("Consolidation", 0.15)),
    "Pneumothorax": (("Fracture", 0.25), ("Emphysema", 0.2), ("Atelectasis", 0.1)),
    "Cardiomegaly": (("Edema", 0.35), ("Pleural Effusion", 0.25)),
    "Atelectasis": (("Pleural Effusion", 0.35), ("Consolidation", 0.1)),
    "Edema": (("Cardiomegaly", 0.45), ("Pleural Effusion", 0.4)),
    "Fracture": (("Pneumothorax", 0.22), ("Pleural Effusion", 0.12)),
    "Emphysema": (("Pneumothorax", 0.22), ("Nodule", 0.14), ("Granuloma", 0.1)),
    "Hernia": (("Atelectasis", 0.14), ("Cardiomegaly", 0.1)),
    "Granuloma": (("Nodule", 0.1), ("Emphysema", 0.08)),
}
_UNRELATED = 0.12
_EXCLUDES = {("Edema", "Emphysema"), ("Emphysema", "Edema")}
_SAME_SIDE = 0.8  # An effusion and its atelectasis, a pneumothorax and its fracture: mostly on one side.

# Placement order: what changes the anatomy or fills regions first, so that small lesions keep clear of it.
_ORDER = ("Emphysema", "Cardiomegaly", "Edema", "Pneumothorax", "Pleural Effusion", "Atelectasis", "Mass",
          "Consolidation", "Hernia", "Fracture", "Nodule", "Granuloma")


def sample_findings(rng: RandomStream, *, normal_share: float, max_findings: int, kept: Sequence[str] = ()
                    ) -> list[str]:
    """Names of the findings of one study, with their usual companions; `kept` stay from before."""
    if max_findings == 0:
        return []
    if kept:
        chosen = list(kept)[:max_findings]
        if rng.chance(0.4):
            return chosen
    elif rng.chance(normal_share):
        return []
    else:
        chosen = [FINDINGS[rng.weighted([_PRIMARY[name] for name in FINDINGS])]]
    for name in tuple(chosen):
        for companion, probability in _COMPANIONS[name]:
            if rng.chance(probability):
                chosen.append(companion)
    if rng.chance(_UNRELATED):
        chosen.append(rng.pick(FINDINGS))
    out: list[str] = []
    for name in chosen:
        if len(out) < max_findings and name not in out and not any((name, other) in _EXCLUDES for other in out):
            out.append(name)
    return out


def place_findings(names: Sequence[str], anatomy: Anatomy, rng: RandomStream, kept: Sequence[Lesion] = ()
                   ) -> tuple[tuple[Lesion, ...], Anatomy]:
    """Gives every finding side, zone, severity and position; changes the anatomy where the finding does."""
    old = {lesion.finding: lesion for lesion in kept}
    lesions: list[Lesion] = []
    for name in sorted(names, key=_ORDER.index):
        if name in old:
            lesion = dataclasses.replace(old[name], chronic=True)
        else:
            lesion = _place(name, anatomy, rng, lesions)
        anatomy = _deform(anatomy, lesion)
        lesions.append(lesion)
    return tuple(lesions), anatomy


def _deform(a: Anatomy, lesion: Lesion) -> Anatomy:
    """Findings that show in the anatomy itself: heart size, inflation, volume loss."""
    spot = lesion.spots[0]
    if lesion.finding == "Cardiomegaly":
        return dataclasses.replace(a, ctr=spot.size, heart_height=a.heart_height * (0.8 + 0.6 * spot.size),
                                   heart_v=a.heart_v - 0.01)
    if lesion.finding == "Emphysema":
        s = spot.strength
        return dataclasses.replace(
            a, dome=(a.dome[0] + 0.05 * s, a.dome[1] + 0.045 * s), drop=a.drop * (1 - 0.75 * s),
            ctr=a.ctr * (1 - 0.12 * s), aeration=a.aeration + 0.045 * s, vessels=a.vessels * (1 - 0.5 * s),
            width=(min(a.width[0] * (1 + 0.05 * s), 0.37), min(a.width[1] * (1 + 0.05 * s), 0.37)))
    if lesion.finding == "Atelectasis":
        dome = list(a.dome)
        for spot in lesion.spots:
            dome[spot.side > 0] -= 0.015 + 0.03 * spot.strength
        return dataclasses.replace(a, dome=(dome[0], dome[1]))
    if lesion.finding == "Edema":
        return dataclasses.replace(a, vessels=a.vessels * (1 + 0.35 * spot.strength))
    return a


def _severity(rng: RandomStream) -> tuple[str, float, float, bool]:
    """(severity, its size in [0, 1], contrast in [0.45, 1], subtle)."""
    level = rng.weighted((0.36, 0.4, 0.24))
    size = (level + rng.random()) / 3
    contrast = (rng.uniform(0.55, 0.8), rng.uniform(0.75, 0.92), rng.uniform(0.9, 1.0))[level]
    return SEVERITIES[level], size, contrast, contrast < 0.65


def _choose_side(rng: RandomStream, lesions: Sequence[Lesion], bilateral: float) -> str:
    if rng.chance(bilateral):
        return "bilateral"
    for lesion in lesions:
        if lesion.side in ("left", "right") and rng.chance(_SAME_SIDE):
            return lesion.side
    return "right" if rng.chance(0.52) else "left"


def _sides(side: str) -> tuple[int, ...]:
    return {"right": (-1,), "left": (1,), "bilateral": (-1, 1), "": (0,)}[side]


def _place(name: str, a: Anatomy, rng: RandomStream, lesions: Sequence[Lesion]) -> Lesion:
    severity, size, contrast, subtle = _severity(rng)
    make = {"Pleural Effusion": _effusion, "Pneumothorax": _pneumothorax, "Atelectasis": _atelectasis,
            "Fracture": _fracture}.get(name)
    if make is not None:
        side, zone, spots = make(a, rng, lesions, size, contrast)
    elif name in ("Edema", "Emphysema"):
        side, zone = "bilateral", ""
        spots = tuple(Spot(s, 0.0, 0.0, size, contrast * rng.uniform(0.9, 1.0)) for s in (-1, 1))
    elif name == "Cardiomegaly":
        side, zone = "", ""
        spots = (Spot(0, 0.0, 0.0, 0.55 + 0.17 * size, contrast),)
    elif name == "Hernia":
        side, zone = "", "retrocardiac"
        spots = (Spot(0, rng.uniform(-0.01, 0.06), a.heart_v + rng.uniform(0.0, 0.04), 0.06 + 0.045 * size, contrast,
                      0.0, (rng.uniform(-0.35, 0.25), rng.uniform(0.85, 1.2))),)
    else:
        side, zone, spots = _focal(name, a, rng, lesions, size, contrast)
    return Lesion(name, side, zone, severity, subtle, spots)


def _effusion(a: Anatomy, rng: RandomStream, lesions: Sequence[Lesion], size: float, contrast: float
              ) -> tuple[str, str, tuple[Spot, ...]]:
    side = _choose_side(rng, lesions, 0.35)
    height = 0.085 + 0.27 * size**1.4
    return side, "base", tuple(
        Spot(s, 0.0, 0.0, height * (rng.uniform(0.75, 1.1) if side == "bilateral" else 1.0), 0.25 + 0.75 * contrast,
             0.0, (rng.uniform(2.0, 3.5),)) for s in _sides(side))


def _pneumothorax(a: Anatomy, rng: RandomStream, lesions: Sequence[Lesion], size: float, contrast: float
                  ) -> tuple[str, str, tuple[Spot, ...]]:
    side = _choose_side(rng, lesions, 0.0)
    zone = "apex" if size < 0.5 else ""
    return side, zone, (Spot(_sides(side)[0], 0.0, 0.0, size, contrast, 0.0, (rng.uniform(0.9, 1.1),)),)


def _atelectasis(a: Anatomy, rng: RandomStream, lesions: Sequence[Lesion], size: float, contrast: float
                 ) -> tuple[str, str, tuple[Spot, ...]]:
    side = _choose_side(rng, lesions, 0.22)
    zone = ("base", "lower", "mid")[rng.weighted((0.5, 0.25, 0.25))]
    spots = []
    for s in _sides(side):
        fluid = _fluid_level(lesions, a, s)
        t = {"base": 0.8, "lower": 0.7, "mid": 0.5}[zone] + rng.uniform(-0.05, 0.05)
        v = min(a.apex[s > 0] + t * (a.dome[s > 0] - a.apex[s > 0]), fluid - 0.05)
        at = (INNER + a.lateral(v, s)) / 2 + rng.uniform(-0.01, 0.04)
        while a.in_heart(s * (at - 0.05), v) and at < 0.24:
            at += 0.015
        wedge = 1.0 if size > 0.72 else 0.0
        spots.append(Spot(s, s * at, v, 0.07 + 0.055 * size, contrast, rng.uniform(-0.5, 0.25),
                          (wedge, rng.random())))
    return side, zone, tuple(spots)


def _fracture(a: Anatomy, rng: RandomStream, lesions: Sequence[Lesion], size: float, contrast: float
              ) -> tuple[str, str, tuple[Spot, ...]]:
    side = _choose_side(rng, lesions, 0.0)
    s = _sides(side)[0]
    at, index, v = 0.0, 0, 0.0
    for _ in range(12):
        index = rng.integer(2, 7)
        at = a.width[s > 0] * rng.uniform(0.55, 0.86)
        v = a.rib(index, s, at)
        if at < a.lateral(v, s) - 0.03 and v < min(a.dome[s > 0], _fluid_level(lesions, a, s)) - 0.02:
            break
    t = (v - a.apex[s > 0]) / (a.dome[s > 0] - a.apex[s > 0])
    zone = "upper" if t < 0.38 else "mid" if t < 0.66 else "lower"
    spot = Spot(s, s * at, v, 0.062 + 0.018 * size, contrast, 0.0, (float(index), rng.uniform(0.5, 0.9)))
    return side, zone, (spot,)


def _fluid_level(lesions: Sequence[Lesion], a: Anatomy, side: int) -> float:
    """v above which (smaller v) the lung on this side is free of pleural fluid."""
    for lesion in lesions:
        for spot in lesion.spots:
            if lesion.finding == "Pleural Effusion" and spot.side == side:
                return a.dome[side > 0] + a.drop - spot.size
    return 1.0


def _clear(u: float, v: float, radius: float, lesions: Sequence[Lesion], a: Anatomy) -> bool:
    """Whether a lesion of this radius at (u, v) keeps clear of the others."""
    side = 1 if u > 0 else -1
    if v + radius > _fluid_level(lesions, a, side):
        return False
    for lesion in lesions:
        for spot in lesion.spots:
            if lesion.finding == "Pneumothorax" and spot.side == side and (
                    abs(u) + radius > a.lateral(v, side) * (1 - 0.12 - 0.33 * spot.size)
                    or v - radius < a.apex[side > 0] + 0.1 + 0.2 * spot.size):
                return False
            if lesion.finding not in ("Edema", "Emphysema", "Cardiomegaly", "Pneumothorax", "Pleural Effusion") and (
                    math.hypot(u - spot.u, v - spot.v) < radius + spot.size + 0.01):
                return False
    return True


def _focal(name: str, a: Anatomy, rng: RandomStream, lesions: Sequence[Lesion], size: float, contrast: float
           ) -> tuple[str, str, tuple[Spot, ...]]:
    """Round or patchy lesions: radius by severity, position by side and zone, clear of heart and other lesions."""
    radius = {"Nodule": 0.048 + 0.02 * size, "Mass": 0.085 + 0.06 * size, "Consolidation": 0.085 + 0.06 * size,
              "Granuloma": 0.034 + 0.01 * size}[name]
    strength = {"Granuloma": 0.55 + 0.45 * contrast}.get(name, contrast)
    both = name == "Consolidation" and rng.chance(0.15)
    side = "bilateral" if both else _choose_side(rng, lesions, 0.0)
    zone = rng.pick(("upper", "mid", "lower"))
    if name == "Consolidation" and not both and rng.chance(0.08):
        u = rng.uniform(0.085, 0.11)
        return "left", "retrocardiac", (
            Spot(1, u, a.heart_v + rng.uniform(0.01, 0.03), min(radius, 0.085), strength, 0.0, _wobble(rng)),)
    spots: list[Spot] = []
    for which in _sides(side):
        s, u, v = which, which * 0.2, 0.4
        for attempt in range(60):
            if not both and attempt >= 20:  # No room there: anywhere else.
                s, zone = rng.pick((-1, 1)), rng.pick(("upper", "mid", "lower"))
            t = rng.uniform(*{"upper": (0.16, 0.36), "mid": (0.42, 0.62), "lower": (0.7, 0.9)}[zone])
            v = a.apex[s > 0] + t * (a.dome[s > 0] - a.apex[s > 0])
            inner, outer = INNER + 0.02 + 0.6 * radius, a.lateral(v, s) - 0.7 * radius
            if outer <= inner:
                continue
            u = s * rng.uniform(inner, outer)
            if not a.in_heart(u - s * 0.7 * radius, v) and _clear(u, v, radius, lesions, a):
                break
        spots.append(Spot(s, u, v, radius * (rng.uniform(0.8, 1.0) if both else 1.0), strength, rng.uniform(0, 3.14),
                          _wobble(rng)))
    if not both:
        side = "left" if spots[0].side > 0 else "right"
    return side, zone, tuple(spots)


def _wobble(rng: RandomStream) -> tuple[float, ...]:
    """Phases of the harmonics that make an outline irregular, and an axis ratio."""
    return (rng.uniform(0, 6.28), rng.uniform(0, 6.28), rng.uniform(0, 6.28), rng.uniform(0.8, 1.25))


def sample_scene(*, seed: int, world: int, index: int, normal_share: float, max_findings: int, repeat_share: float,
                 distractors: bool) -> tuple[Scene, str]:
    """The scene of study `index` of a world, and the name of its subject within the world.

    Neighbouring studies 2k and 2k+1 belong to one subject with probability `repeat_share`: the second then keeps the
    anatomy and the chronic findings of the first. No other study is looked at.
    """
    first = index - index % 2
    repeated = RandomStream(seed, world, 0, first).chance(repeat_share)
    subject = first if repeated else index
    body = sample_anatomy(RandomStream(seed, world, 1, subject))
    kept: tuple[Lesion, ...] = ()
    if repeated and index != first:
        rng = RandomStream(seed, world, 2, first)
        names = sample_findings(rng, normal_share=normal_share, max_findings=max_findings)
        kept = tuple(x for x in place_findings(names, body, rng)[0] if x.finding in CHRONIC)
    rng = RandomStream(seed, world, 2, index)
    names = sample_findings(rng, normal_share=normal_share, max_findings=max_findings, kept=[x.finding for x in kept])
    lesions, anatomy = place_findings(names, body, rng, kept)
    rng = RandomStream(seed, world, 3, index)
    scene = Scene(anatomy, sample_pose(rng), lesions, sample_distractors(rng) if distractors else (),
                  prior=repeated and index != first)
    return scene, f"{subject:07d}"

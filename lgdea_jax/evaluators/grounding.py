"""Phrase grounding: the heatmap of a phrase against its box.

A sample is an image with a phrase and the boxes of that phrase (rows that share both are one sample). The heatmap is
the dot product of the phrase's query with every patch, mapped back onto the original pixels, in 2D or 3D. Labels only
enter the aggregate: mean inside a finding, then over findings. The query of a box without a phrase is the mean
over its finding's positive prompts.

Modes: "clean" takes all boxes as one mask, and mIoU thresholds the heatmap rescaled to 0..1. "official" is the rule of
the public scripts (vios-s/ldm-phrase-grounding on hi-ml's heatmaps; pointing game as in MedKLIP): the raw heatmap
(cosine similarities) is clamped at 0; CNR takes one box after another and counts an undefined one as 0; boxes of which
the crop leaves nothing are dropped, and samples without any other; a sample is an image with a phrase, under the
finding of its first box; any maximal pixel inside is a hit.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.errors import choose
from lgdea_jax.evaluators.data import EvalData, ProgressCallback, no_progress
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator, Samples
from lgdea_jax.findings import prompts
from lgdea_jax.metrics import grounding
from lgdea_jax.records import Box

MODES = ("clean", "official")
COLUMNS = ("cnr", "cnr_signed", "pointing", "miou", "dice", "dice_best")
PER_FINDING = ("cnr", "pointing")
DICE_THRESHOLD = 0.5  # Of the fixed-threshold Dice, on the same heatmap as mIoU.


@dataclasses.dataclass(frozen=True)
class GroundingSamples(Samples):
    """`arrays`: values float64 [N, 6] (COLUMNS), category int64 [N] into `names["findings"]`, image int64 [N].

    `info`: mode, model_grounds, grid, sigma, transform; samples, images, boxes; without_phrase (samples),
    outside_the_image (samples without a pixel of their box), pointing_by_chance (the boxes' mean share of the image).
    """

    task: ClassVar[str] = "grounding"

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """Means inside each finding, then over findings; `grounding/cnr/FINDING` and `pointing/FINDING` besides."""
        values, category = self.arrays["values"], self.arrays["category"]
        out = {f"grounding/{name}": grounding.category_mean(values[:, c], category, weights)
               for c, name in enumerate(COLUMNS)}
        for f, finding in enumerate(self.names["findings"]):
            rows = np.flatnonzero(category == f)
            part = None if weights is None else np.take(weights, rows, axis=1)
            for name in PER_FINDING:
                out[f"grounding/{name}/{finding}"] = grounding.category_mean(
                    values[rows, COLUMNS.index(name)], category[rows], part)
        return out

    def image_rows(self) -> np.ndarray:
        """As in `Samples`."""
        return self.arrays["image"]

    def sizes(self) -> dict[str, int]:
        """Number of samples with a defined value."""
        known, category = ~np.isnan(self.arrays["values"]), self.arrays["category"]
        out = {f"grounding/{name}": int(known[:, c].sum()) for c, name in enumerate(COLUMNS)}
        for f, finding in enumerate(self.names["findings"]):
            out |= {f"grounding/{name}/{finding}": int(known[category == f, COLUMNS.index(name)].sum())
                    for name in PER_FINDING}
        return out


@dataclasses.dataclass(frozen=True)
class GroundingSample:
    """An image row, a phrase ("" if the boxes have none), its finding, and its boxes."""

    image: int
    phrase: str
    finding: str
    boxes: tuple[Box, ...]


@dataclasses.dataclass(frozen=True)
class Grounding(Evaluator):
    """Phrase grounding on the images with boxes.

    Attributes:
      data: the images.
      mode: "clean" or "official".
      sigma: standard deviation of a Gaussian over the patch grid before mapping back (MS-CXR's script: 1.5); 0, none.
      progress: called with ("grounding", done, total).
    """

    data: EvalData
    mode: str = "clean"
    sigma: float = 0.0
    progress: ProgressCallback = no_progress

    def __post_init__(self) -> None:
        choose("mode", self.mode, MODES)

    def run(self, model: Model | Encoder) -> GroundingSamples:
        """Measures every sample's heatmap in original pixels."""
        encoder = Encoder.of(model, self.data)
        official = self.mode == "official"
        samples = grounding_samples(self.data, by_finding=not official) if encoder.grounds else ()
        queries = sample_queries(encoder, samples)
        findings = tuple(sorted({sample.finding for sample in samples}))
        values = np.full((len(samples), len(COLUMNS)), np.nan)
        chance = np.full(len(samples), np.nan)
        for row, (sample, query) in enumerate(zip(samples, queries)):
            heat = sample_heatmap(encoder, sample, query, sigma=self.sigma)
            boxes = box_slices(sample.boxes, heat.shape)
            if official:
                heat = np.maximum(heat, 0)  # NaN stays.
                boxes = [boxes[number] for number in grounding.visible(heat, boxes)]
            mask = grounding.union_mask(boxes, heat.shape)
            chance[row] = mask.mean() if mask.any() else np.nan
            scaled = heat if official else grounding.rescaled(heat)
            values[row] = (*grounding.cnr(heat, boxes, mode=self.mode, undefined=0.0 if official else None),
                           grounding.pointing(heat, mask, mode=self.mode),
                           grounding.miou(scaled, mask), grounding.dice(scaled, mask, DICE_THRESHOLD),
                           grounding.best_dice(heat, mask))
            self.progress("grounding", row + 1, len(samples))
        category = np.array([findings.index(sample.finding) for sample in samples], np.int64)
        images = np.array([sample.image for sample in samples], np.int64)
        by_chance = grounding.category_mean(chance, category)
        info = {"mode": self.mode, "model_grounds": encoder.grounds, "grid": list(encoder.grid), "sigma": self.sigma,
                "transform": self.data.transform, "samples": len(samples), "images": len(set(images.tolist())),
                "boxes": sum(len(sample.boxes) for sample in samples),
                "without_phrase": sum(not sample.phrase for sample in samples),
                "outside_the_image": int(np.isnan(chance).sum()),
                "pointing_by_chance": None if np.isnan(by_chance) else by_chance}
        return GroundingSamples(self.data.subjects[images], {"values": values, "category": category, "image": images},
                                {"findings": findings}, info)


def grounding_samples(data: EvalData, *, by_finding: bool = True) -> tuple[GroundingSample, ...]:
    """The samples of a split, in the order of its images: boxes of one image with equal phrase and finding are one.

    Without `by_finding`, those with an equal phrase are one, whatever their findings.
    """
    out = []
    for image, boxes in enumerate(data.boxes):
        groups: dict[tuple[str, str], list[Box]] = {}
        for box in boxes:
            apart = by_finding or not box.phrase
            groups.setdefault((box.phrase, box.finding if apart else ""), []).append(box)
        out += [GroundingSample(image, phrase, group[0].finding, tuple(group))
                for (phrase, _), group in groups.items()]
    return tuple(out)


def sample_queries(encoder: Encoder, samples: tuple[GroundingSample, ...]) -> list[np.ndarray]:
    """The query vector [Q] of each sample: of its phrase, or the mean over its finding's positive prompts."""
    wanted = [(s.phrase,) if s.phrase else prompts.positive_prompts(s.finding, style=encoder.data.style)
             for s in samples]
    _, queries = encoder.prompts([text for texts in wanted for text in texts])
    ends = np.cumsum([len(texts) for texts in wanted])
    return [part.mean(0) for part in np.split(queries, ends[:-1])] if samples else []


def sample_heatmap(encoder: Encoder, sample: GroundingSample, query: np.ndarray, *, sigma: float = 0.0) -> np.ndarray:
    """float32 heatmap of a sample in original pixels."""
    grid = (encoder.patches(sample.image) @ query).reshape(encoder.grid)
    if sigma > 0:
        from scipy.ndimage import gaussian_filter

        grid = gaussian_filter(grid, sigma)
    return encoder.data.geometry(sample.image).heatmap(grid, patch_offset=encoder.patch_offset)


def box_slices(boxes: tuple[Box, ...], shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """The pixels (voxels) of boxes in an image of `shape`, (h, w) or (d, h, w)."""
    axes = len(shape)
    return [grounding.box_slices((b.z, b.y, b.x)[-axes:], (b.d, b.h, b.w)[-axes:], shape) for b in boxes]

"""Pictures of an evaluation: heatmaps of a seeded sample over the original images, and a list of what each shows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.grounding import (
    GroundingSample,
    box_slices,
    grounding_samples,
    sample_heatmap,
    sample_queries,
)
from lgdea_jax.evaluators.volumes import Volumes
from lgdea_jax.findings.vocabulary import LABELLED
from lgdea_jax.inference.overlay import Overlay, draw, panel_boxes
from lgdea_jax.io import decode_image
from lgdea_jax.metrics import grounding
from lgdea_jax.records import POSITIVE, Record

LIST = "overlays.json"


def draw_overlays(encoder: Encoder, records: Sequence[Record], folder: Path, count: int, seed: int, *,
                  sigma: float = 0.0, progress: Any = None) -> int:
    """Draws a seeded sample of grounding samples; without boxes, of positive findings with their prompts.

    File names hold a running number and the finding only; LIST describes each file. Pictures of an earlier
    evaluation are removed.

    Returns:
      Number of pictures.
    """
    for old in (*folder.glob("[0-9][0-9][0-9]_*.png"), *folder.glob(LIST)):
        old.unlink()
    data = encoder.data
    samples = grounding_samples(data) or positive_samples(data)
    if not count or not samples or not encoder.grounds:
        return 0
    chosen = sorted(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    samples = tuple(samples[i] for i in chosen)
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    for number, (sample, query) in enumerate(zip(samples, sample_queries(encoder, samples))):
        record = records[int(data.record_rows[sample.image])]
        heat = sample_heatmap(encoder, sample, query, sigma=sigma)
        if isinstance(data.images, Volumes):
            shown = slice_overlay(encoder, sample, query, heat)
        else:
            shown = sample_overlay(sample, decode_image(record.image, record.image_format), heat)
        picture = draw(shown)
        name = "".join(c if c.isalnum() else "_" for c in sample.finding.lower())
        file = f"{number:03d}_{name}.png"
        picture.save(folder / file)
        listed.append({"file": file, "title": shown.title, "lines": list(shown.lines), "panels": panel_boxes(shown)})
        if progress is not None:
            progress("overlays", number + 1, len(samples))
    (folder / LIST).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return len(samples)


def positive_samples(data: EvalData) -> tuple[GroundingSample, ...]:
    """A sample without boxes for every positive label that has prompts."""
    known = [c for c, name in enumerate(data.label_names) if name in LABELLED]
    return tuple(GroundingSample(image, "", data.label_names[c], ())
                 for image in range(len(data.images)) for c in known if data.labels[image, c] == POSITIVE)


def grey_plane(volumes: Volumes, plane: np.ndarray) -> np.ndarray:
    """uint8 [H, W] of a slice [H, W] of `volumes` in HU: the window's ends become 0 and 255."""
    low, high = volumes.view.window
    return np.rint(np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def slice_overlay(encoder: Encoder, sample: GroundingSample, query: np.ndarray, heat: np.ndarray) -> Overlay:
    """The picture of a sample of a volume: the slice through its first box's middle, or through the heatmap's maximum.

    The slice is the model's input, windowed; the numbers below it were measured in original voxels.

    Args:
      heat: float32 [D, H, W] in original voxels.
    """
    data = encoder.data
    geometry = data.geometry(sample.image)
    volume = data.images[sample.image][..., 0]
    grid = (encoder.patches(sample.image) @ query).reshape(encoder.grid)
    shown = geometry.of_model().heatmap(grid, patch_offset=encoder.patch_offset)
    boxes = tuple(geometry.map.box(box) for box in sample.boxes)
    middle = boxes[0].z + boxes[0].d / 2 if boxes else np.unravel_index(shown.argmax(), shown.shape)[0]
    z = int(np.clip(middle, 0, len(volume) - 1))
    plane = grey_plane(data.images, volume[z])
    cut = tuple(box for box in boxes if box.z < z + 1 and box.z + box.d > z)
    line = sample_overlay(sample, plane, heat).lines[0].replace("of the image", "of the volume")
    lines = (line, f"slice {z} of the {len(volume)} of the model's input")
    return Overlay(plane, shown[z], plane.shape, cut, sample.finding, lines)


def sample_overlay(sample: GroundingSample, image: np.ndarray, heat: np.ndarray) -> Overlay:
    """The picture of a sample: the image as stored, its heatmap in original pixels, and what was measured."""
    if not sample.boxes:
        line = "no reference box; query from prompts"
    else:
        boxes = box_slices(sample.boxes, heat.shape)
        mask = grounding.union_mask(boxes, heat.shape)
        hit, contrast = grounding.pointing(heat, mask), grounding.cnr(heat, boxes)[1]
        if math.isnan(hit):
            line = "reference box outside the image"
        else:
            verdict = "hit" if hit == 1 else "miss" if hit == 0 else f"tie, {hit:.2f} inside"
            line = f"pointing: {verdict}    CNR {contrast:+.2f}    box {100 * mask.mean():.1f}% of the image"
    return Overlay(image, heat, heat.shape, sample.boxes, sample.finding, (line,))

"""What the evidence prototypes of a run stand for, on the records of a data set: phrases, findings, image patches.

A phrase of a report belongs to prototype k with the probability p(k | phrase) (equation 4 of arXiv 2602.07540); the
similarity of an image patch and a prototype is their dot product.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lgdea_jax.errors import UserError
from lgdea_jax.io import decode_image
from lgdea_jax.preprocess.image import Letterbox, letterbox
from lgdea_jax.records import Box
from lgdea_jax.runtime.progress import Progress

FILE, PATCHES = "prototypes.json", "patches"
NEAREST = 20  # Images of each prototype that are kept.
SHOWN, TILE = 4, 112  # Of them shown, and the side of each in pixels.
PHRASES, FINDINGS = 5, 4
# A prototype takes part in the table from this share of the phrases on; the rest is counted.
LEAST_SHARE = 0.001


@dataclasses.dataclass(frozen=True)
class Phrases:
    """The evidence phrases of a split: distinct ones, how often each occurs, and its most frequent finding."""

    texts: tuple[str, ...]
    counts: np.ndarray
    findings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Near:
    """Images nearest to each prototype: score float32 [K, n], image (record row) and patch int64 [K, n]."""

    scores: np.ndarray
    images: np.ndarray
    patches: np.ndarray


def prototype_vectors(predict: Any) -> np.ndarray:
    """float32 [K, D], mu of a run's predictor.

    Raises:
      UserError: the method has no prototypes.
    """
    params = predict.params
    if "prototypes" not in params:
        raise UserError(f"the method {predict.config.method} has no prototypes")
    return np.asarray(params["prototypes"]["mu"], np.float32)


def assignments(predict: Any, texts: Sequence[str], count: int) -> np.ndarray:
    """float32 [P, K], p(k | phrase): the first K entries of a text's embedding are its evidence."""
    return predict.texts(list(texts), [(text,) for text in texts])["embedding"][:, :count]


def read_records(predict: Any, mu: np.ndarray, source: Sequence[Any], rows: np.ndarray, *, show: bool = False,
         ) -> tuple[Phrases, Near, dict[int, dict[str, np.ndarray]]]:
    """Reads the records once: (phrases, nearest images of each prototype, {record row: {finding: bool [L]}}).

    The last says which patches of an image lie in a box of a finding.

    Args:
      predict: the model; mu: [K, D]; source: records; rows: which of them; show: whether to show progress.

    Raises:
      UserError: there is no image, or no evidence.
    """
    progress = Progress(len(rows), "record", active=show)
    counts: dict[str, dict[str, int]] = {}
    best = Near(np.full((len(mu), 0), -np.inf, np.float32), np.zeros((len(mu), 0), np.int64),
                np.zeros((len(mu), 0), np.int64))
    cells: dict[int, dict[str, np.ndarray]] = {}
    subjects: dict[int, str] = {}
    batch: list[tuple[int, np.ndarray]] = []
    studies: set[str] = set()

    def flush(best: Near) -> Near:
        if not batch:
            return best
        patches = predict.images(np.stack([image for _, image in batch]))["patches"]
        similar = patches @ mu.T  # [B, L, K]
        scores, patch = similar.max(1).T, similar.argmax(1).T
        images = np.broadcast_to(np.array([row for row, _ in batch]), scores.shape)
        batch.clear()
        return nearest(best, Near(scores, images, patch), subjects)

    for row in rows.tolist():
        record = source[row]
        if record.has_report and record.study_id not in studies:
            studies.add(record.study_id)
            for item in record.evidence:
                if item.certainty != "absent":
                    found = counts.setdefault(" ".join(item.phrase.split()), {})
                    found[item.finding] = found.get(item.finding, 0) + 1
        if record.has_image:
            try:
                image = letterbox(decode_image(record.image, record.image_format), predict.image_size)
            except ValueError:
                continue  # The evaluations report what cannot be read.
            geometry = Letterbox.of(tuple(record.original_shape), predict.image_size, tuple(record.image_shape))
            cells[row] = covered([geometry.box(box) for box in record.boxes], predict.grid, predict.image_size,
                                 predict.patch_offset)
            subjects[row] = record.subject_id
            batch.append((row, image))
            if len(batch) == predict.batch_size:
                best = flush(best)
        progress.advance()
    best = flush(best)
    progress.end()
    if not cells or not counts:
        raise UserError("the split has no images" if not cells else "the split has no evidence phrases")
    texts = tuple(counts)
    return Phrases(texts, np.array([sum(counts[text].values()) for text in texts]),
                   tuple(max(counts[text], key=counts[text].get) for text in texts)), best, cells


def nearest(have: Near, more: Near, subjects: dict[int, str], limit: int = NEAREST) -> Near:
    """The `limit` nearest of both, at most one image a subject, nearest first."""
    joined = [np.concatenate(parts, axis=1) for parts in
              ((have.scores, more.scores), (have.images, more.images), (have.patches, more.patches))]
    order = np.argsort(-joined[0], axis=1, kind="stable")
    width = min(limit, len({subjects[int(row)] for row in joined[1][0]}))
    kept = np.zeros((len(order), width), np.int64)
    for k, line in enumerate(order):
        first: dict[str, int] = {}
        for column in line:
            first.setdefault(subjects[int(joined[1][k, column])], int(column))
            if len(first) == width:
                break
        kept[k] = list(first.values())
    return Near(*(np.take_along_axis(part, kept, axis=1) for part in joined))


def describe(assigned: np.ndarray, phrases: Phrases, near: Near, cells: Mapping[int, Mapping[str, np.ndarray]],
             ) -> list[dict[str, Any]]:
    """A row for each prototype, most used first.

    Args:
      assigned: p(k | phrase), float [P, K].
      phrases: P distinct ones.
      near: of K prototypes.
      cells: of `read_records`.
    """
    weight = phrases.counts[:, None] * assigned
    share = weight.sum(0) / phrases.counts.sum()
    names = sorted(set(phrases.findings))
    member = np.array([[finding == name for finding in phrases.findings] for name in names], np.float64)
    of_finding = (member @ weight) / np.maximum(weight.sum(0), 1e-12)  # [F, K]
    chance = {name: float(np.mean([found[name].mean() if name in found else 0.0 for found in cells.values()]))
              for name in names}
    table = []
    for k in np.argsort(-share, kind="stable").tolist():
        order = [f for f in np.argsort(-of_finding[:, k], kind="stable")[:FINDINGS] if of_finding[f, k] >= 0.005]
        # Many phrases have p near 1: of those the most frequent.
        best = np.lexsort((-phrases.counts, -np.round(assigned[:, k], 2)))[:PHRASES]
        first = names[order[0]] if order else ""
        inside = sum(bool(cells[int(row)][first][patch]) for row, patch in zip(near.images[k], near.patches[k])
                     if first in cells[int(row)])
        table.append({
            "prototype": k, "share": float(share[k]),
            "findings": [{"finding": names[f], "share": float(of_finding[f, k])} for f in order],
            "phrases": [{"phrase": phrases.texts[p], "finding": phrases.findings[p], "p": float(assigned[p, k]),
                         "count": int(phrases.counts[p])} for p in best],
            "patches": {"images": len(near.images[k]), "in_a_box": inside if chance.get(first) else None,
                        "by_chance": chance.get(first) or None}})
    return table


def covered(boxes: Sequence[Box], grid: tuple[int, ...], size: int, offset: float) -> dict[str, np.ndarray]:
    """{finding: bool [L]}, which patches have their middle in a box of it (boxes in the model's pixels)."""
    high, wide = grid
    y = np.repeat((np.arange(high) + 0.5 + offset) * size / high, wide)
    x = np.tile((np.arange(wide) + 0.5 + offset) * size / wide, high)
    out: dict[str, np.ndarray] = {}
    for box in boxes:
        inside = (x >= box.x) & (x < box.x + box.w) & (y >= box.y) & (y < box.y + box.h)
        out[box.finding] = out.get(box.finding, np.zeros(high * wide, bool)) | inside
    return out


def draw_patches(table: Sequence[dict[str, Any]], near: Near, source: Sequence[Any], predict: Any,
                 folder: Path) -> None:
    """A strip of the nearest images of each prototype with a frame around the best patch; adds "file" to the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9][0-9].png"):
        old.unlink()
    size, (high, wide) = predict.image_size, predict.grid
    for row in table:
        if row["share"] < LEAST_SHARE:
            row["file"] = ""
            continue
        k = row["prototype"]
        strip = Image.new("RGB", (SHOWN * (TILE + 4) - 4, TILE), (18, 18, 20))
        for number, (record_row, patch) in enumerate(zip(near.images[k][:SHOWN], near.patches[k][:SHOWN])):
            record = source[int(record_row)]
            square = letterbox(decode_image(record.image, record.image_format), size)
            tile = Image.fromarray(square).resize((TILE, TILE), Image.Resampling.BICUBIC).convert("RGB")
            y, x = divmod(int(patch), wide)
            top, left = (y + predict.patch_offset) * TILE / high, (x + predict.patch_offset) * TILE / wide
            # The patch and half of its neighbours: the field of view of a patch is wider than its cell.
            frame = (left - 0.5 * TILE / wide, top - 0.5 * TILE / high, left + 1.5 * TILE / wide,
                     top + 1.5 * TILE / high)
            pen = ImageDraw.Draw(tile)
            pen.rectangle([max(0, min(TILE - 1, edge)) for edge in frame], outline=(0, 0, 0), width=3)
            pen.rectangle([max(1, min(TILE - 2, edge)) for edge in frame], outline=(64, 224, 255), width=1)
            strip.paste(tile, (number * (TILE + 4), 0))
        row["file"] = f"{k:04d}.png"
        strip.save(folder / row["file"])


def load(folder: Path) -> dict[str, Any]:
    """Reads OUT/prototypes.json.

    Raises:
      UserError: there is none, or it is not one of ours.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        content["prototypes"], content["checkpoint"], content["effective_number"]
    except FileNotFoundError:
        raise UserError(f"no {FILE} in {folder}: run python -m lgdea_jax.prototypes first") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / FILE} is not a prototype table") from None
    return content

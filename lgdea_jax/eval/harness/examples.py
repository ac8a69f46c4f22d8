"""Retrieval examples of an evaluation: images of a seeded sample with the reports that the model ranks first.

They contain report texts: by default they are written only where every source of the data is open.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lgdea_jax.eval.harness.pictures import grey_plane
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.volumes import Volumes
from lgdea_jax.io import decode_image
from lgdea_jax.preprocess.image import fit_shape, resize
from lgdea_jax.records import POSITIVE, Record

FOLDER, LIST = "retrieval", "examples.json"
FIRST = 3  # Reports shown of each ranking.
LONGEST = 256  # Pixels of the pictures.


def write_examples(encoder: Encoder, records: Sequence[Record], folder: Path, count: int, seed: int) -> int:
    """Writes FOLDER/LIST and a small picture for each query image; an earlier evaluation's are removed.

    Ranks count as in the clean recall: the first report with the image's own words; ties take the middle rank.

    Args:
      encoder: of the data; records: the split's; folder: to write to; count: of images at most; seed: of the sample.

    Returns:
      Number of examples.
    """
    for old in (*folder.glob("[0-9][0-9][0-9].png"), *folder.glob(LIST)):
        old.unlink()
    data = encoder.data
    queries = np.flatnonzero(data.report_of >= 0)
    if not count or not len(queries) or not len(data.reports):
        return 0
    chosen = np.sort(np.random.default_rng(seed).permutation(queries)[:count])
    words = [" ".join(text.split()) for text in data.reports]
    distinct = list(dict.fromkeys(words))  # Equal reports would take the first ranks together.
    row_of = {text: row for row, text in enumerate(distinct)}
    first = np.array([words.index(text) for text in distinct])
    embeddings, _ = encoder.texts([data.reports[r] for r in first], [data.phrases[r] for r in first])
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    for number, image in enumerate(chosen.tolist()):
        scores = embeddings @ encoder.images()[image]
        own = row_of[words[data.report_of[image]]]
        rank = 1 + int((scores > scores[own]).sum()) + int((scores == scores[own]).sum() - 1) // 2
        order = np.argsort(-scores, kind="stable")[:FIRST]
        if isinstance(data.images, Volumes):  # The middle slice of the model's input.
            volume = data.images[image][..., 0]
            grey = grey_plane(data.images, volume[len(volume) // 2])
        else:
            record = records[int(data.record_rows[image])]
            grey = decode_image(record.image, record.image_format)
        Image.fromarray(resize(grey, fit_shape(grey.shape, LONGEST, enlarge=True))).save(folder / f"{number:03d}.png")
        listed.append({
            "file": f"{number:03d}.png", "findings": _findings(data, data.labels[image]), "report": distinct[own],
            "rank": rank, "candidates": len(distinct), "score": float(scores[own]),
            "first": [{"report": distinct[row], "score": float(scores[row]), "own": bool(row == own),
                       "findings": _findings(data, data.report_labels[first[row]])} for row in order]})
    (folder / LIST).write_text(json.dumps(listed, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return len(listed)


def _findings(data: Any, labels: np.ndarray) -> list[str]:
    return [name for name, value in zip(data.label_names, labels) if value == POSITIVE]

"""Scores files batch by batch and writes the results as they come; memory does not grow with their number.

OUT/scores.csv has a row per image, OUT/predictions.jsonl a line per image with more detail, OUT/about.json what holds
for all of them, OUT/rejected.csv the files that could not be read. With the flags: OUT/embeddings.npy, OUT/heatmaps.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.inference.calibration import Calibration
from lgdea_jax.inference.images import Picture, Rejected
from lgdea_jax.inference.model import EncodedPrompts, Model
from lgdea_jax.inference.overlay import Overlay, draw
from lgdea_jax.inference.volumes import Scan, slice_overlay, window_of
from lgdea_jax.io.opening import printable
from lgdea_jax.io.raw_volume import NO_HEADER, VolumeHeader
from lgdea_jax.preprocess.image_spec import input_dtype
from lgdea_jax.runtime.files import TableWriter, leftovers, write_text_atomically
from lgdea_jax.runtime.progress import Progress

RESEARCH_ONLY = "Research use only, not a medical device."
SCORES, REJECTED, PREDICTIONS, ABOUT = "scores.csv", "rejected.csv", "predictions.jsonl", "about.json"
EMBEDDINGS, HEATMAPS = "embeddings.npy", "heatmaps"
_HEATMAP_FILE = re.compile(r"\d{6}_.*\.png")


@dataclasses.dataclass
class Clock:
    """Where the time went, in seconds: the model, waiting for images to be read, writing."""

    model: float = 0.0
    reading: float = 0.0
    writing: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.model + self.reading + self.writing


def run(model: Model, paths: Sequence[str], writer: Writer, *, threads: int = 0,
        header: VolumeHeader = NO_HEADER) -> Clock:
    """Predicts for all files, batch by batch.

    Args:
      model: of `model.load`.
      paths: files.
      writer: gets the results; it is closed in any case, also on Ctrl-C, so that all results so far can be read.
      threads: that read files ahead of the model; 0: see `Model.read_ahead`.
      header: spacing and axes of .npz volumes, whose files lack them.
    """
    clock = Clock()
    progress = Progress(len(paths), "volume" if model.volumes else "image", active=True)
    try:
        # Reading begins here, so that the first batches are there when the model has been compiled.
        sources = ((path, printable(path)) for path in paths)
        with closing(model.read_ahead(sources, threads=threads, keep=writer.heatmaps, header=header)) as batches:
            # Compiles, once; the clock does not count it.
            model.predictor.images(np.zeros((1, *model.predictor.image_shape), input_dtype(model.predictor.frame)))
            mark = time.perf_counter()
            for batch in batches:
                clock.reading += time.perf_counter() - mark
                usable = [item for item in batch if not isinstance(item, Rejected)]
                out: dict[str, np.ndarray] = {}
                mark = time.perf_counter()
                if usable:
                    out = model.predictor.images(np.stack([item.model_input for item in usable]))
                clock.model += time.perf_counter() - mark
                mark = time.perf_counter()
                writer.write(batch, out)
                for _ in batch:
                    progress.advance()
                clock.writing += time.perf_counter() - mark
                mark = time.perf_counter()
            writer.complete = True
    finally:
        progress.end()
        writer.close()
    return clock


class Writer:
    """Writes results as they come.

    Args:
      folder: OUT; results of an earlier run there are replaced.
      encoded: the prompts; None where only embeddings are wanted.
      calibration: of `calibration.read`, or None.
      model: for heatmaps.
      head: further entries of about.json.
      embeddings, heatmaps: whether to write them.
      window: of the slices of volumes: a name in `inference.volumes.WINDOWS`, or "auto" by the prompt.

    Attributes:
      count: images with results; warned: those with warnings; rejected: the others.
      complete: whether all images were processed; False after Ctrl-C.
    """

    def __init__(self, folder: Path, encoded: EncodedPrompts | None, calibration: Calibration | None, model: Model, *,
                 head: Mapping[str, Any], embeddings: bool = False, heatmaps: bool = False,
                 window: str = "auto") -> None:
        self._window = window
        self._folder, self._encoded, self._calibration, self._model = folder, encoded, calibration, model
        self.heatmaps, self.count, self.warned, self.complete = heatmaps, 0, 0, False
        self.rejected: list[Rejected] = []
        self.names = [SCORES, PREDICTIONS, ABOUT, REJECTED]
        prompts = encoded.prompts if encoded else ()
        self._calibrated = [(prompt, finding, column) for column, (prompt, finding) in
                            enumerate(zip(prompts, encoded.findings if encoded else ()))
                            if calibration and finding in calibration.findings]
        for name in (EMBEDDINGS, *self.names):
            for old in (folder / name, *leftovers(folder / name)):  # Of an earlier command, perhaps a killed one.
                old.unlink(missing_ok=True)
        if (folder / HEATMAPS).is_dir():
            for old in (folder / HEATMAPS).iterdir():
                if _HEATMAP_FILE.fullmatch(old.name):
                    old.unlink()
        if heatmaps:
            (folder / HEATMAPS).mkdir(exist_ok=True)
            self.names.append(f"{HEATMAPS}/")
        self._csv_file = (folder / SCORES).open("w", encoding="utf-8", newline="")
        self._csv = TableWriter(self._csv_file)
        self._csv.writerow(["image", *prompts, *(f"probability:{prompt}" for prompt, _, _ in self._calibrated),
                            "warnings"])
        self._rejected_file = (folder / REJECTED).open("w", encoding="utf-8", newline="")
        self._rejected_csv = TableWriter(self._rejected_file)
        self._rejected_csv.writerow(["image", "reason"])
        self._lines = (folder / PREDICTIONS).open("w", encoding="utf-8")
        described = [{"prompt": prompt, "finding": finding or None, "sentences": list(sentences),
                      "warnings": list(warnings)} for prompt, finding, sentences, warnings in zip(
                          prompts, encoded.findings, encoded.sentences, encoded.warnings)] if encoded else []
        self._stems = file_stems(prompts)
        self._head = {**head, "calibration": calibration.source if calibration else None, "prompts": described}
        self._write_about()
        self._vectors = (folder / f"{EMBEDDINGS}.tmp").open("wb") if embeddings else None
        self._width = 0
        if embeddings:
            self.names.append(EMBEDDINGS)

    def write(self, batch: Sequence[Picture | Scan | Rejected], out: Mapping[str, np.ndarray]) -> None:
        """Adds a batch; `out` has a row for each of its images that could be read."""
        pictures = [item for item in batch if not isinstance(item, Rejected)]
        for item in batch:
            if isinstance(item, Rejected):
                self.rejected.append(item)
                self._rejected_csv.writerow([item.name, item.reason])
        if not pictures:
            return
        scores = self._encoded.scores(out["embedding"]) if self._encoded else np.zeros((len(pictures), 0), np.float32)
        for row, picture in enumerate(pictures):
            probabilities = {prompt: self._calibration.probability(finding, float(scores[row, column]))
                             for prompt, finding, column in self._calibrated}
            entry: dict[str, Any] = {
                "image": picture.name, **picture.size,
                "scores": {prompt: round(float(value), 6) for prompt, value in
                           zip(self._encoded.prompts if self._encoded else (), scores[row])}}
            if probabilities:
                entry["probabilities"] = {prompt: round(value, 4) for prompt, value in probabilities.items()}
            if self.heatmaps:
                entry |= self._draw(picture, self._model.patches(out)[row], scores[row], probabilities)
            entry["warnings"] = list(picture.warnings)
            # Last, and together: after Ctrl-C while a heatmap is drawn both files have the same images.
            self._csv.writerow([picture.name, *(f"{value:.6g}" for value in scores[row]),
                                *(f"{value:.4f}" for value in probabilities.values()), "; ".join(picture.warnings)])
            self._lines.write(json.dumps(entry, allow_nan=False) + "\n")
            self.count += 1
            self.warned += bool(picture.warnings)
        for file in (self._lines, self._csv_file, self._rejected_file):
            file.flush()
        if self._vectors is not None:
            self._width = out["embedding"].shape[1]
            self._vectors.write(np.ascontiguousarray(out["embedding"], "<f4").tobytes())

    def _draw(self, picture: Picture | Scan, patches: np.ndarray, scores: np.ndarray,
              probabilities: Mapping[str, float]) -> dict[str, Any]:
        """Saves an overlay per prompt: {"heatmaps": {prompt: file}}, of a volume also the "slices" (z, from 0)."""
        files, slices = {}, {}
        predictor, volume = self._model.predictor, isinstance(picture, Scan)
        # Of a volume only one slice is drawn: a whole heatmap would take hundreds of megabytes per prompt.
        maps = (self._model.grids if volume else partial(self._model.heatmap, picture))(patches, self._encoded)
        for prompt, ending, finding, heat, score in zip(self._encoded.prompts, self._stems, self._encoded.findings,
                                                        maps, scores):
            stem = re.sub(r"[^\w.-]+", "_", picture.stem)[:60]
            name = f"{self.count:06d}_{stem}_{ending}.png"
            known = f"    probability {probabilities[prompt]:.2f}" if prompt in probabilities else ""
            lines = (f"score {score:+.3f}{known}", RESEARCH_ONLY, *picture.warnings)
            if volume:
                window = window_of(prompt, finding) if self._window == "auto" else self._window
                shown, slices[prompt] = slice_overlay(picture, predictor.frame, heat, predictor.patch_offset,
                                                      window=window, title=prompt, lines=lines)
            else:
                shown = Overlay(picture.grey, heat, picture.shape, (), prompt, lines)
            draw(shown).save(self._folder / HEATMAPS / name, compress_level=1)
            files[prompt] = f"{HEATMAPS}/{name}"
        return {"heatmaps": files, **({"slices": slices} if volume else {})}

    def _write_about(self) -> None:
        counts = {"images": self.count, "rejected": len(self.rejected), "complete": self.complete}
        write_text_atomically(self._folder / ABOUT, json.dumps({**self._head, **counts}, indent=1) + "\n")

    def close(self) -> None:
        """Finishes the files, so that they can be read even if not all images were processed."""
        for file in (self._lines, self._csv_file, self._rejected_file):
            file.close()
        self._write_about()
        if self._vectors is not None:
            self._vectors.close()
            with (self._folder / EMBEDDINGS).open("wb") as file:
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._width)})
                with open(self._vectors.name, "rb") as rows:
                    while part := rows.read(1 << 20):
                        file.write(part)
            os.unlink(self._vectors.name)


def file_stems(prompts: Sequence[str]) -> list[str]:
    """A part of a file name for each prompt, all of them different: what looks alike is numbered."""
    stems: list[str] = []
    for prompt in prompts:
        stem = re.sub(r"[^a-z0-9]+", "_", prompt.lower()).strip("_")[:40] or "prompt"
        name, number = stem, 2
        while name in stems:
            name, number = f"{stem}_{number}", number + 1
        stems.append(name)
    return stems

"""A trained model on your own images or CT volumes: scores for findings or text, heatmaps. Research use only.

    python -m lgdea_jax.predict --checkpoint=RUN IMAGE... --prompt="Pleural Effusion" --prompt="TEXT" --out=OUT

    from lgdea_jax.predict import load
    model = load("RUN")
    model.scores(["a.png", "b.dcm"], ["Pleural Effusion", "nodule in the left upper lobe"])  # float32 [2, 2]

IMAGE is a PNG, JPEG or DICOM file, a folder or a pattern; for a model of CT volumes a NIfTI or .npz file, or a folder
with the slices of a DICOM series. The checkpoint is enough: no data set is needed, and volumes are brought into the
geometry that is stored in it.

- A prompt that names a finding of the vocabulary is asked for with its ensemble of prompts, as the evaluators do it;
  any other text is asked for as it stands, and its score is the plain similarity. Scores order images for one prompt;
  they are no probabilities and do not compare between prompts.
- With --calibration=FILE (made by `python -m lgdea_jax.calibrate`) findings get probabilities as well. They hold for
  images like those of the calibration, with the same share of positives.
- Warnings say where an image is unlike the training images (`image_statistics.py`), or a volume unlike a chest CT in
  its Hounsfield units or its extent (`inference.volumes.py`): a net with wide meshes.
- The heatmap of a prompt on a volume is shown over the axial slice that holds its highest value, in a lung or a
  mediastinal window as the prompt asks for (--window).

OUT/scores.csv, OUT/predictions.json, and where asked for OUT/embeddings.npy (rows as in scores.csv) and OUT/heatmaps.
What could not be read stands in OUT/rejected.csv with its reason; the exit status is then 3. RESEARCH USE ONLY, NOT A
MEDICAL DEVICE.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import difflib
import json
import logging
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax import cli
from lgdea_jax.errors import UserError, nearest
from lgdea_jax.inference.images import Picture, ReadAhead, Reader, Rejected, find_images, reading_threads
from lgdea_jax.inference.overlay import Overlay, draw
from lgdea_jax.inference.volumes import WINDOWS, Scan, Volume, VolumeReader, find_volumes, slice_overlay, window_of
from lgdea_jax.io.raw_volume import NO_HEADER, VolumeHeader

__all__ = ["Asked", "Model", "Volume", "load"]

RESEARCH_ONLY = "Research use only, not a medical device."
SCORES, REJECTED, PREDICTIONS = "scores.csv", "rejected.csv", "predictions.json"
EMBEDDINGS, HEATMAPS = "embeddings.npy", "heatmaps"
_HEATMAP_FILE = re.compile(r"\d{6}_.*\.png")


@dataclasses.dataclass(frozen=True)
class Asked:
    """Prompts, encoded.

    Attributes:
      prompts: as given.
      findings: the finding that each names, "" for free text.
      sentences: the texts that stand for each prompt (positive ones).
      queries: float32 [P, Q] for heatmaps; None in a model that cannot ground.
    """

    prompts: tuple[str, ...]
    findings: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    queries: np.ndarray | None
    _free: Mapping[str, np.ndarray]
    _ensembles: Mapping[tuple[str, int], np.ndarray]
    _together: tuple[str, ...]
    _scoring: str

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 [N, P] of image embeddings [N, E]."""
        from lgdea_jax.evaluators.zero_shot import ensemble_similarity, finding_scores

        columns: dict[str, np.ndarray] = {}
        if self._together:
            found = finding_scores(lambda finding, which: ensemble_similarity(
                embeddings, self._ensembles[finding, which]), self._together, self._scoring)
            columns = dict(zip(self._together, found.T))
        return np.stack([columns[finding] if finding else embeddings @ self._free[prompt]
                         for prompt, finding in zip(self.prompts, self.findings)], axis=1).astype(np.float32)


class Model:
    """A run's model for images that come as files, arrays or PIL images, or volumes as files or `Volume`s. See `load`.

    Attributes:
      predictor: the model as functions of arrays.
      spec: the checkpoint's.
    """

    def __init__(self, predictor: Any) -> None:
        self.predictor, self.spec = predictor, predictor.spec

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that the training data were labelled for and that have prompts."""
        from lgdea_jax.findings.vocabulary import LABELLED

        return tuple(name for name in self.spec.get("label_names", ()) if name in LABELLED)

    @property
    def volumes(self) -> bool:
        """Whether the model reads CT volumes."""
        return not isinstance(self.predictor.frame, int)

    def reader(self, *, keep: bool = False, header: VolumeHeader = NO_HEADER) -> Reader | VolumeReader:
        """What makes pictures or scans for this model.

        Args:
          keep: with their originals, for overlays.
          header: what .npz volumes do not say of themselves.
        """
        if self.volumes:
            return VolumeReader(self.predictor.frame, header, keep)
        return Reader(self.predictor.image_size, int(self.spec.get("record_size", 0)),
                      self.spec.get("image_statistics") or {}, keep)

    def ask(self, prompts: Sequence[str], *, together: Sequence[str] = ()) -> Asked:
        """Encodes prompts once, for any number of images.

        Args:
          prompts: names of findings, or free text.
          together: findings that are asked for besides: for methods whose scores depend on what is asked for together
            (`scoring` "contrast"); a calibration names those that it was made with.

        Raises:
          UserError: no prompt, an empty one, or a method without a text tower.
        """
        from lgdea_jax.evaluators.zero_shot import default_prompts
        from lgdea_jax.findings import prompts as wording

        prompts = tuple(dict.fromkeys(prompts))
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise UserError("a prompt is needed: the name of a finding, or words of a report")
        findings = tuple(finding_of(prompt) for prompt in prompts)
        everything = tuple(dict.fromkeys(finding for finding in (*together, *findings) if finding))
        scoring, context = self.predictor.scoring, self.predictor.prompt_context
        needed = (0,) if scoring == "positive" else (0, 1)
        ensembles = {(finding, which): default_prompts(finding, style=self.predictor.style)[which]
                     for finding in everything for which in needed}
        free = {prompt: (prompt,) for prompt, finding in zip(prompts, findings) if not finding}
        texts = list(dict.fromkeys(text for group in (*ensembles.values(), *free.values()) for text in group))
        encoded = self.predictor.texts([wording.in_context(text, context) for text in texts],
                                       [(wording.in_context(text, context),) for text in texts])
        row = {text: number for number, text in enumerate(texts)}

        def take(name: str, group: Iterable[str]) -> np.ndarray:
            return encoded[name][[row[text] for text in group]]

        sentences = tuple(ensembles[finding, 0] if finding else (prompt,)
                          for prompt, finding in zip(prompts, findings))
        queries = np.stack([take("query", group).mean(0) for group in sentences]) if "query" in encoded else None
        return Asked(prompts, findings, sentences, queries,
                     {prompt: take("embedding", group)[0] for prompt, group in free.items()},
                     {key: take("embedding", group) for key, group in ensembles.items()}, everything, scoring)

    def scores(self, images: Any, prompts: Sequence[str] | Asked) -> np.ndarray:
        """float32 [N, P]: how well each prompt fits each image; larger fits better.

        Args:
          images: a path, array or PIL image, or several. Arrays are [h, w] or [h, w, 3 or 4]; larger is brighter. A
            model of volumes takes paths of files or of folders with a DICOM series, and `Volume`s.
          prompts: names of findings (asked for with their prompt ensembles) or free text; or what `ask` returned.

        Raises:
          UserError: an image that cannot be read (the command reports it and goes on).
        """
        asked = prompts if isinstance(prompts, Asked) else self.ask([prompts] if isinstance(prompts, str) else prompts)
        return asked.scores(self.embeddings(images))

    def embeddings(self, images: Any) -> np.ndarray:
        """float32 [N, E], what scores are dot products with; arguments as of `scores`."""
        return np.concatenate([out["embedding"] for _, out in self._run(images)])

    def heatmaps(self, images: Any, prompts: Sequence[str] | Asked) -> list[np.ndarray]:
        """float32 [P, height, width] for each image, in its original pixels; arguments as of `scores`.

        Of a volume [P, depth, height, width] in its original voxels, NaN where the model saw nothing.

        Raises:
          UserError: a model that cannot ground, or an image that cannot be read.
        """
        asked = prompts if isinstance(prompts, Asked) else self.ask([prompts] if isinstance(prompts, str) else prompts)
        maps = []
        for pictures, out in self._run(images):
            maps += [self.heatmap(picture, patches, asked) for picture, patches in zip(pictures, self.patches(out))]
        return maps

    def patches(self, out: Mapping[str, np.ndarray]) -> np.ndarray:
        """The patches [N, L, Q] of the predictor's output.

        Raises:
          UserError: the method has none.
        """
        if "patches" not in out:
            raise UserError(f"the method {self.spec['config']['method']} cannot ground: no heatmaps")
        return out["patches"]

    def grids(self, patches: np.ndarray, asked: Asked) -> np.ndarray:
        """float32 [P, *grid]: what each prompt finds in each patch, of patches [L, Q].

        Raises:
          UserError: the method has no queries.
        """
        if asked.queries is None:
            raise UserError(f"the method {self.spec['config']['method']} cannot ground: no heatmaps")
        return (patches @ asked.queries.T).T.reshape(len(asked.prompts), *self.predictor.grid)

    def heatmap(self, picture: Picture | Scan, patches: np.ndarray, asked: Asked) -> np.ndarray:
        """float32 [P, height, width] of one picture with its patches [L, Q], [P, depth, height, width] of a scan."""
        from lgdea_jax.evaluators.volumes import VolumeGeometry
        from lgdea_jax.preprocess.image import Letterbox

        grids = self.grids(patches, asked)
        geometry: Any
        if isinstance(picture, Scan):
            geometry = VolumeGeometry(self.predictor.frame.map(picture.shape, picture.spacing))
        else:
            geometry = Letterbox.of(picture.shape, self.predictor.image_size, picture.stored)
        return np.stack([geometry.heatmap(grid, patch_offset=self.predictor.patch_offset) for grid in grids])

    def _run(self, images: Any) -> Iterator[tuple[list[Any], dict[str, np.ndarray]]]:
        sources = [(source, str(source) if isinstance(source, (str, os.PathLike)) else f"image {number}")
                   for number, source in enumerate(_several(images))]
        if not sources:
            raise UserError("no images")
        with closing(self.read_ahead(sources)) as batches:
            for batch in batches:
                for item in batch:
                    if isinstance(item, Rejected):
                        raise UserError(f"{item.name}: {item.reason}")
                yield batch, self.predictor.images(np.stack([item.seen for item in batch]))

    def read_ahead(self, sources: Iterable[tuple[Any, str]], *, threads: int = 0, keep: bool = False,
                   header: VolumeHeader = NO_HEADER) -> ReadAhead:
        """Starts to read what the model is to see, in batches; to be closed.

        Args:
          sources: (source, name) of each image.
          threads: that read; 0: as many as there are cores, but 2 for volumes, which are large.
          keep, header: as of `reader`.
        """
        return ReadAhead(sources, self.reader(keep=keep, header=header), batch_size=self.predictor.batch_size,
                         threads=threads or (2 if self.volumes else reading_threads()),
                         ahead=2 if self.volumes else 3)


def _several(images: Any) -> list[Any]:
    """One image or several as a list."""
    if isinstance(images, (str, os.PathLike)) or not isinstance(images, (Sequence, np.ndarray)):
        return [images]
    if isinstance(images, np.ndarray):
        # [h, w] and [h, w, 3] are one image, [N, h, w] several.
        return list(images) if (images.ndim == 3 and images.shape[-1] not in (3, 4)) or images.ndim == 4 else [images]
    return list(images)


def load(checkpoint: str | Path, step: str | int = "latest", *, batch_size: int = 16) -> Model:
    """The model of a run.

    Args:
      checkpoint: run directory of lgdea_jax.train (RUN).
      step: "latest", "best" or a number.
      batch_size: images of a call; of volumes at most 8, and as many as hold 4 million voxels.

    Raises:
      UserError: no such checkpoint, or one that does not fit this code.
    """
    from lgdea_jax.inference.predictor import load_predictor
    from lgdea_jax.preprocess.image import RECORD_TRANSFORM
    from lgdea_jax.preprocess.image_spec import transform_name

    for noisy in ("absl", "orbax", "jax"):  # Their warnings about reading a checkpoint tell a user nothing.
        logging.getLogger(noisy).setLevel(logging.ERROR)
    predictor = load_predictor(checkpoint, step)
    flat = isinstance(predictor.frame, int)
    # The rule for volumes is the predictor's own; with 8 the originals of three batches fit a laptop's memory.
    predictor.batch_size = batch_size if flat else min(batch_size, predictor.batch_size, 8)
    record = RECORD_TRANSFORM if flat else predictor.frame.geometry.name
    offered = f"{record}+{transform_name(predictor.frame)}"
    if predictor.transform != offered:
        raise UserError(f"the checkpoint was trained with the transform {predictor.transform}, this code would show it "
                        f"{'images' if flat else 'volumes'} through {offered}")
    return Model(predictor)


def finding_of(prompt: str) -> str:
    """The finding that a prompt names (its name, an official alias, or its usual wording), "" for free text."""
    from lgdea_jax.findings.vocabulary import LABELLED, find_label

    usual = {finding.synonyms[0]: name for name, finding in LABELLED.items() if finding.synonyms}
    return find_label(prompt) or usual.get(prompt.strip().rstrip(".").lower(), "")


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


def main(argv: list[str]) -> int:
    """Parses the flags and predicts; returns the exit status."""
    parser = cli.Parser(prog="python -m lgdea_jax.predict", description=__doc__.split("\n\n")[0],
                        epilog="\n\n".join(__doc__.split("\n\n")[3:]))
    parser.add_argument("image", nargs="*", metavar="IMAGE",
                        help="PNG, JPEG or DICOM files, folders, patterns; CT: NIfTI, .npz, folders of DICOM slices")
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT",
                        help="a finding, or words of a report; may be repeated (default: the findings that the "
                             "training data were labelled for)")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for the results")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--calibration", default="", metavar="FILE",
                        help="written by lgdea_jax.calibrate: adds probabilities")
    parser.add_argument("--embeddings", action="store_true", help="write embeddings.npy")
    parser.add_argument("--heatmaps", action="store_true",
                        help="draw a heatmap a prompt over every image, or over a slice of every volume")
    parser.add_argument("--window", choices=("auto", *WINDOWS), default="auto",
                        help="how slices of volumes are shown (default: auto, by the prompt)")
    parser.add_argument("--spacing", type=_spacing, default=NO_HEADER.spacing, metavar="Z,Y,X",
                        help="mm per voxel of .npz volumes, which do not say it themselves")
    parser.add_argument("--axes", default=NO_HEADER.axes, metavar="SPL",
                        help="where the axes of .npz volumes grow to: three of L R A P S I (default: SPL)")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N",
                        help="images of a call (default: 32), of volumes 8 at most")
    args = parser.parse_intermixed_args(argv)
    if args.batch_size < 1:
        raise UserError("--batch_size must be at least 1")
    if not args.image:
        raise UserError("an IMAGE is needed: a file, a folder or a pattern (see --help)")
    from lgdea_jax import calibrate
    from lgdea_jax.eval.harness.output import make_folder

    calibration = calibrate.read(Path(args.calibration)) if args.calibration else None
    model = load(args.checkpoint, args.step, batch_size=args.batch_size)
    for flag, default in (("window", "auto"), ("spacing", NO_HEADER.spacing), ("axes", NO_HEADER.axes)):
        if not model.volumes and getattr(args, flag) != default:
            raise UserError(f"--{flag} is for CT volumes: this checkpoint's model takes 2D images")
    paths, others = (find_volumes if model.volumes else find_images)(args.image)
    if others:
        print(f"{others} other files in the folders are left alone", file=sys.stderr)
    # Rows that are not needed are computed all the same; originals that are kept for slices are large.
    most = (2 if args.heatmaps else len(paths)) if model.volumes else max(len(paths), 8)
    model.predictor.batch_size = min(model.predictor.batch_size, most)
    if calibration:
        calibration.check(model.spec)
    prompts = args.prompt or (list(model.findings) if model.predictor.reads_text else [])
    if not prompts and not args.embeddings:
        raise UserError("say what to look for with --prompt=TEXT: the training data had no labels of known findings"
                        if model.predictor.reads_text else
                        f"the method {model.spec['config']['method']} reads no text: it has --embeddings only")
    asked = model.ask(prompts, together=calibration.asked_with if calibration else ()) if prompts else None
    if args.heatmaps and (asked is None or asked.queries is None):
        raise UserError("--heatmaps: this model cannot ground")
    print(RESEARCH_ONLY)
    if asked is not None:
        for line in explain(asked):
            print(line)
    writer = Writer(make_folder(args.out), asked, calibration, model, head={
        "notice": RESEARCH_ONLY, "command": shlex.join(["python", "-m", "lgdea_jax.predict", *argv]),
        "checkpoint": str(args.checkpoint), "step": int(model.spec["step"]), "transform": model.predictor.transform,
        "method": model.spec["config"]["method"], "scoring": model.predictor.scoring}, embeddings=args.embeddings,
        heatmaps=args.heatmaps, window=args.window)
    clock = run(model, paths, writer, header=VolumeHeader(spacing=args.spacing, axes=args.axes))
    share = 100 * clock.model / max(clock.total, 1e-9)
    what = "volumes" if model.volumes else "images"
    print(f"{writer.count} {what}, {writer.warned} with warnings, {len(writer.rejected)} rejected: "
          f"{clock.total:.1f} s, {share:.0f}% in the model, {clock.reading:.1f} s waiting for files, "
          f"{clock.writing:.1f} s writing")
    print(f"wrote {args.out}: {', '.join(writer.names)}")
    for item in writer.rejected[:5]:
        print(f"{item.name}: {item.reason}", file=sys.stderr)
    if len(writer.rejected) > 5:
        print(f"and {len(writer.rejected) - 5} more in {REJECTED}", file=sys.stderr)
    return cli.PARTIAL if writer.rejected else cli.OK


def _spacing(text: str) -> tuple[float, float, float]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(0 < mm < math.inf for mm in values):
        raise argparse.ArgumentTypeError(f"{text!r} is not three lengths in mm such as 1.5,0.75,0.75")
    return values


def explain(asked: Asked) -> list[str]:
    """A line on how each prompt is read; a misspelt finding is pointed out."""
    from lgdea_jax.findings.vocabulary import LABELLED

    lines = []
    for prompt, finding, sentences in zip(asked.prompts, asked.findings, asked.sentences):
        if finding:
            lines.append(f"  {prompt}: the finding {finding}, with {len(sentences)} prompts")
        else:
            # Free text may well contain a finding's name: only what is nearly one is a slip.
            close = difflib.get_close_matches(prompt.lower(), [name.lower() for name in LABELLED], n=1, cutoff=0.85)
            lines.append(f"  {prompt}: as free text{nearest(prompt, LABELLED) if close else ''}")
    return lines


def run(model: Model, paths: Sequence[str], writer: Writer, *, threads: int = 0,
        header: VolumeHeader = NO_HEADER) -> Clock:
    """Predicts for all files, batch by batch; memory does not grow with their number.

    Args:
      model: from `load`.
      paths: files.
      writer: takes the results; it is closed in any case, also on Ctrl-C, so that what is done can be read.
      threads: that read files while the model works; 0: see `Model.read_ahead`.
      header: what .npz volumes do not say of themselves.
    """
    from lgdea_jax.preprocess.image_spec import input_dtype
    from lgdea_jax.runtime.progress import Progress

    clock = Clock()
    progress = Progress(len(paths), "volume" if model.volumes else "image", active=True)
    try:
        # Reading begins here, so that the first batches are there when the model has been compiled.
        with closing(model.read_ahead(((path, path) for path in paths), threads=threads, keep=writer.heatmaps,
                                      header=header)) as batches:
            # Compiles: once, and not the model's own time.
            model.predictor.images(np.zeros((1, *model.predictor.image_shape), input_dtype(model.predictor.frame)))
            mark = time.perf_counter()
            for batch in batches:
                clock.reading += time.perf_counter() - mark
                usable = [item for item in batch if not isinstance(item, Rejected)]
                out: dict[str, np.ndarray] = {}
                mark = time.perf_counter()
                if usable:
                    out = model.predictor.images(np.stack([item.seen for item in usable]))
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
    """Writes results as they come: scores.csv, rejected.csv, predictions.json, embeddings.npy, heatmaps.

    Args:
      folder: OUT; results of an earlier run there are replaced.
      asked: the prompts; None where only embeddings are wanted.
      calibration: of `calibrate.read`, or None.
      model: for heatmaps.
      head: what predictions.json says besides.
      embeddings, heatmaps: whether to write them.
      window: in which slices of volumes are shown: a name in `inference.volumes.WINDOWS`, or "auto" by the prompt.

    Attributes:
      count: images with results; warned: with warnings; rejected: the others.
      complete: whether every image was seen; False after Ctrl-C.
    """

    def __init__(self, folder: Path, asked: Asked | None, calibration: Any, model: Model, *, head: Mapping[str, Any],
                 embeddings: bool = False, heatmaps: bool = False, window: str = "auto") -> None:
        self._window = window
        self._folder, self._asked, self._calibration, self._model = folder, asked, calibration, model
        self.heatmaps, self.count, self.warned, self.complete = heatmaps, 0, 0, False
        self.rejected: list[Rejected] = []
        self.names = [SCORES, PREDICTIONS, REJECTED]
        prompts = asked.prompts if asked else ()
        self._calibrated = [(prompt, finding, column) for column, (prompt, finding) in
                            enumerate(zip(prompts, asked.findings if asked else ()))
                            if calibration and finding in calibration.findings]
        for name in (EMBEDDINGS, *self.names):
            (folder / name).unlink(missing_ok=True)
        if (folder / HEATMAPS).is_dir():
            for old in (folder / HEATMAPS).iterdir():
                if _HEATMAP_FILE.fullmatch(old.name):
                    old.unlink()
        if heatmaps:
            (folder / HEATMAPS).mkdir(exist_ok=True)
            self.names.append(f"{HEATMAPS}/")
        self._csv_file = (folder / SCORES).open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._csv_file)
        self._csv.writerow(["image", *prompts, *(f"probability:{prompt}" for prompt, _, _ in self._calibrated),
                            "warnings"])
        self._rejected_file = (folder / REJECTED).open("w", encoding="utf-8", newline="")
        self._rejected_csv = csv.writer(self._rejected_file)
        self._rejected_csv.writerow(["image", "reason"])
        self._json = (folder / PREDICTIONS).open("w", encoding="utf-8")
        described = [{"prompt": prompt, "finding": finding or None, "sentences": list(sentences)}
                     for prompt, finding, sentences in zip(prompts, asked.findings, asked.sentences)] if asked else []
        head = {**head, "calibration": calibration.source if calibration else None, "prompts": described}
        self._json.write(json.dumps(head, indent=1)[:-2] + ',\n "images": [')
        self._vectors = (folder / f"{EMBEDDINGS}.tmp").open("wb") if embeddings else None
        self._width = 0
        if embeddings:
            self.names.append(EMBEDDINGS)

    def write(self, batch: Sequence[Picture | Scan | Rejected], out: Mapping[str, np.ndarray]) -> None:
        """Adds a batch; `out` has a row for each picture of it."""
        pictures = [item for item in batch if not isinstance(item, Rejected)]
        for item in batch:
            if isinstance(item, Rejected):
                self.rejected.append(item)
                self._rejected_csv.writerow([item.name, item.reason])
        if not pictures:
            return
        scores = self._asked.scores(out["embedding"]) if self._asked else np.zeros((len(pictures), 0), np.float32)
        for row, picture in enumerate(pictures):
            probabilities = {prompt: self._calibration.probability(finding, float(scores[row, column]))
                             for prompt, finding, column in self._calibrated}
            entry: dict[str, Any] = {
                "image": picture.name, **picture.size,
                "scores": {prompt: round(float(value), 6) for prompt, value in
                           zip(self._asked.prompts if self._asked else (), scores[row])}}
            if probabilities:
                entry["probabilities"] = {prompt: round(value, 4) for prompt, value in probabilities.items()}
            if self.heatmaps:
                entry |= self._draw(picture, self._model.patches(out)[row], scores[row], probabilities)
            entry["warnings"] = list(picture.warnings)
            # Last, and together: Ctrl-C while a heatmap is drawn leaves both tables of equal length.
            self._csv.writerow([picture.name, *(f"{value:.6g}" for value in scores[row]),
                                *(f"{value:.4f}" for value in probabilities.values()), "; ".join(picture.warnings)])
            self._json.write(("," if self.count else "") + "\n  " + json.dumps(entry, allow_nan=False))
            self.count += 1
            self.warned += bool(picture.warnings)
        if self._vectors is not None:
            self._width = out["embedding"].shape[1]
            self._vectors.write(np.ascontiguousarray(out["embedding"], "<f4").tobytes())

    def _draw(self, picture: Picture | Scan, patches: np.ndarray, scores: np.ndarray,
              probabilities: Mapping[str, float]) -> dict[str, Any]:
        """Saves a picture a prompt; {"heatmaps": {prompt: file}}, and of a scan the "slices" (z, from 0) they show."""
        files, slices = {}, {}
        predictor, volume = self._model.predictor, isinstance(picture, Scan)
        # Of a volume only one slice is wanted: all of them would be hundreds of megabytes a prompt.
        maps = (self._model.grids if volume else partial(self._model.heatmap, picture))(patches, self._asked)
        for prompt, finding, heat, score in zip(self._asked.prompts, self._asked.findings, maps, scores):
            stem = re.sub(r"[^\w.-]+", "_", picture.stem)[:60]
            name = f"{self.count:06d}_{stem}_{re.sub(r'[^a-z0-9]+', '_', prompt.lower())[:40]}.png"
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

    def close(self) -> None:
        """Finishes the files, so that they can be read even if not all images were seen."""
        rejected = [{"image": item.name, "reason": item.reason} for item in self.rejected]
        self._json.write(f'\n ],\n "rejected": {json.dumps(rejected)},\n "complete": {json.dumps(self.complete)}\n}}\n')
        for file in (self._json, self._csv_file, self._rejected_file):
            file.close()
        if self._vectors is not None:
            self._vectors.close()
            with (self._folder / EMBEDDINGS).open("wb") as file:
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._width)})
                with open(self._vectors.name, "rb") as rows:
                    while part := rows.read(1 << 20):
                        file.write(part)
            os.unlink(self._vectors.name)


if __name__ == "__main__":
    cli.run(main)

"""A trained model on images and volumes that come as files or arrays: scores, embeddings, heatmaps.

    import lgdea_jax

    model = lgdea_jax.load("RUN")
    model.scores(["a.png", "b.dcm"], ["Pleural Effusion", "nodule in the left upper lobe"])  # float32 [2, 2]
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError, choose, nearest
from lgdea_jax.evaluators.volumes import VolumeGeometry
from lgdea_jax.evaluators.zero_shot import default_prompts, ensemble_similarity, finding_scores
from lgdea_jax.findings import prompts as wording
from lgdea_jax.findings.vocabulary import LABELLED, find_label
from lgdea_jax.inference import loading
from lgdea_jax.inference.images import Picture, ReadAhead, Reader, Rejected, reading_threads
from lgdea_jax.inference.volumes import Scan, VolumeReader
from lgdea_jax.io.raw_volume import NO_HEADER, VolumeHeader
from lgdea_jax.preprocess.image import RECORD_TRANSFORM, Letterbox
from lgdea_jax.preprocess.image_spec import transform_name

# Pools of image towers whose features are made of the patches, not of a token beside them; "" is the default, gap.
PATCH_POOLS = ("", "gap", "mean", "max", "lse")


@dataclasses.dataclass(frozen=True)
class EncodedPrompts:
    """Prompts, encoded.

    Attributes:
      prompts: as given.
      findings: the finding (or the classifier's label) that each names, "" for free text.
      sentences: the texts that stand for each prompt (positive ones); () for a classifier's label.
      queries: float32 [P, Q] for heatmaps; None in a model that cannot ground.
      warnings: of each prompt, what the model does not read of it.
    """

    prompts: tuple[str, ...]
    findings: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    queries: np.ndarray | None
    warnings: tuple[tuple[str, ...], ...]
    _free: Mapping[str, np.ndarray]
    _ensembles: Mapping[tuple[str, int], np.ndarray]
    _together: tuple[str, ...]
    _scoring: str
    _bias: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 [N, P] of image embeddings [N, E]."""
        columns: dict[str, np.ndarray] = {}
        if self._together:
            found = finding_scores(lambda finding, which: ensemble_similarity(
                embeddings, self._ensembles[finding, which]), self._together, self._scoring)
            columns = dict(zip(self._together, found.T))
        return np.stack([columns[finding] if finding in columns else
                         embeddings @ self._free[prompt] + self._bias.get(prompt, 0.0)
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
        """The findings that the training data have labels for and that have prompts."""
        return tuple(name for name in self.spec.get("label_names", ()) if name in LABELLED)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the model's classifier scores; () for a model that reads prompts instead."""
        predictor = self.predictor
        return tuple(self.spec["label_names"]) if predictor.classifies == "image" and not predictor.reads_text else ()

    @property
    def volumes(self) -> bool:
        """Whether the model takes CT volumes."""
        return not isinstance(self.predictor.frame, int)

    def reader(self, *, keep: bool = False, header: VolumeHeader = NO_HEADER) -> Reader | VolumeReader:
        """What prepares images or volumes for this model.

        Args:
          keep: keeps the originals, for overlays.
          header: spacing and axes of .npz volumes, whose files lack them.
        """
        if self.volumes:
            return VolumeReader(self.predictor.frame, header, keep)
        return Reader(self.predictor.image_size, int(self.spec.get("record_size", 0)),
                      self.spec.get("image_statistics") or {}, keep)

    def encode_prompts(self, prompts: Sequence[str], *, together: Sequence[str] = ()) -> EncodedPrompts:
        """Encodes prompts once, for any number of images.

        Args:
          prompts: names of findings, or free text; of a classifier, its labels.
          together: further findings that are scored: the scores of some methods (`scoring` "contrast") depend on all
            findings that are scored together; a calibration names those that it was made with.

        Raises:
          UserError: no prompt, an empty one, a label that a classifier does not have, or a method without a text tower.
        """
        prompts = tuple(dict.fromkeys(prompts))
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise UserError("a prompt is needed: the name of a finding, or words of a report")
        if self.labels:
            return self._label_prompts(prompts)
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
        warnings = tuple(() if finding else self._unread(prompt) for prompt, finding in zip(prompts, findings))
        return EncodedPrompts(prompts, findings, sentences, queries, warnings,
                     {prompt: take("embedding", group)[0] for prompt, group in free.items()},
                     {key: take("embedding", group) for key, group in ensembles.items()}, everything, scoring)

    def _label_prompts(self, prompts: tuple[str, ...]) -> EncodedPrompts:
        """Labels of the classifier: scores are its log odds, and queries its weights.

        A heatmap is then the class activation map (Zhou et al., 2016, arXiv 1512.04150). It is one only where the
        pooled features are made of the patches.
        """
        known = {name.lower(): name for name in self.labels}
        names = tuple(known.get(prompt.lower()) or choose("label of this classifier", find_label(prompt) or prompt,
                                                          self.labels) for prompt in prompts)
        kernel, bias = self.predictor.classifier
        columns = [self.labels.index(name) for name in names]
        part = self.predictor.config.model.image
        queries = kernel[:, columns].T if part[part.name].pool in PATCH_POOLS else None
        return EncodedPrompts(prompts, names, ((),) * len(names), queries, ((),) * len(names),
                              dict(zip(prompts, kernel[:, columns].T)), {}, (), self.predictor.scoring,
                              {prompt: float(bias[column]) for prompt, column in zip(prompts, columns)})

    def _unread(self, prompt: str) -> tuple[str, ...]:
        cut, unknown = self.predictor.text_losses(wording.in_context(prompt, self.predictor.prompt_context))
        found = [f"cut, the model does not read {_shortened(cut.strip())!r}"] if cut.strip(" .") else []
        if unknown:
            found.append(f"unknown words: {_shortened(', '.join(unknown))}")
        return tuple(found)

    def scores(self, images: Any, prompts: str | Sequence[str] | EncodedPrompts) -> np.ndarray:
        """float32 [N, P]: how well each prompt fits each image; larger fits better.

        Args:
          images: a path, array or PIL image, or several. Arrays are [h, w] or [h, w, 3 or 4]; larger is brighter. A
            model of volumes takes paths of files or of folders with a DICOM series, and `Volume`s.
          prompts: names of findings (scored with their prompt ensembles) or free text; of a classifier, its labels
            (scored by their log odds: the sigmoid is its probability); or the result of `encode_prompts`.

        Raises:
          UserError: an image that cannot be read (the command reports it and goes on).
        """
        return self._encoded(prompts).scores(self.embeddings(images))

    def embeddings(self, images: Any) -> np.ndarray:
        """float32 [N, E], what scores are dot products with; arguments as of `scores`."""
        return np.concatenate([out["embedding"] for _, out in self._run(images)])

    def heatmaps(self, images: Any, prompts: str | Sequence[str] | EncodedPrompts) -> list[np.ndarray]:
        """float32 [P, height, width] for each image, in its original pixels; arguments as of `scores`.

        Of a volume [P, depth, height, width] in its original voxels, NaN outside the part that the model takes.

        Raises:
          UserError: a model that cannot ground, or an image that cannot be read.
        """
        encoded, maps = self._encoded(prompts), []
        for pictures, out in self._run(images):
            maps += [self.heatmap(picture, patches, encoded) for picture, patches in zip(pictures, self.patches(out))]
        return maps

    def patches(self, out: Mapping[str, np.ndarray]) -> np.ndarray:
        """The patches [N, L, Q] of the predictor's output.

        Raises:
          UserError: the method has none.
        """
        name = "label_patches" if self.labels else "patches"
        if name not in out:
            raise UserError(f"the method {self.spec['config']['method']} cannot ground: no heatmaps")
        return out[name]

    def grids(self, patches: np.ndarray, encoded: EncodedPrompts) -> np.ndarray:
        """float32 [P, *grid]: the similarity of each prompt and each patch, of patches [L, Q].

        Raises:
          UserError: the method has no queries.
        """
        if encoded.queries is None:
            raise UserError(f"the method {self.spec['config']['method']} cannot ground"
                            f"{' with this pool' if self.labels else ''}: no heatmaps")
        return (patches @ encoded.queries.T).T.reshape(len(encoded.prompts), *self.predictor.grid)

    def heatmap(self, picture: Picture | Scan, patches: np.ndarray, encoded: EncodedPrompts) -> np.ndarray:
        """float32 [P, height, width] of one picture with its patches [L, Q], [P, depth, height, width] of a scan."""
        grids = self.grids(patches, encoded)
        geometry: Any
        if isinstance(picture, Scan):
            geometry = VolumeGeometry(self.predictor.frame.map(picture.shape, picture.spacing))
        else:
            geometry = Letterbox.of(picture.shape, self.predictor.image_size, picture.stored)
        return np.stack([geometry.heatmap(grid, patch_offset=self.predictor.patch_offset) for grid in grids])

    def _encoded(self, prompts: str | Sequence[str] | EncodedPrompts) -> EncodedPrompts:
        if isinstance(prompts, EncodedPrompts):
            return prompts
        return self.encode_prompts([prompts] if isinstance(prompts, str) else prompts)

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
                yield batch, self.predictor.images(np.stack([item.model_input for item in batch]))

    def read_ahead(self, sources: Iterable[tuple[Any, str]], *, threads: int = 0, keep: bool = False,
                   header: VolumeHeader = NO_HEADER) -> ReadAhead:
        """Starts to read images in batches, ahead of the model; to be closed.

        Args:
          sources: (source, name) of each image.
          threads: number of reading threads; 0: one per core, but 2 for volumes, which are large.
          keep, header: as of `reader`.
        """
        return ReadAhead(sources, self.reader(keep=keep, header=header), batch_size=self.predictor.batch_size,
                         threads=threads or (2 if self.volumes else reading_threads()),
                         ahead=2 if self.volumes else 3)


def _shortened(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _several(images: Any) -> list[Any]:
    """One image or several as a list."""
    if isinstance(images, (str, os.PathLike)) or not isinstance(images, (Sequence, np.ndarray)):
        return [images]
    if isinstance(images, np.ndarray):
        # [h, w] and [h, w, 3] are one image, [N, h, w] several.
        return list(images) if (images.ndim == 3 and images.shape[-1] not in (3, 4)) or images.ndim == 4 else [images]
    return list(images)


def load(checkpoint: str | Path, step: str | int = "latest", *, batch_size: int = 16) -> Model:
    """The model of a run, of a folder that `lgdea_jax.export --format=lgdea` wrote, or of such a folder on the hub.

    Args:
      checkpoint: run directory of lgdea_jax.train (RUN), an exported folder, or "hf://OWNER/NAME@REVISION".
      step: "latest", "best" or a number.
      batch_size: images per call; of volumes at most 8, and at most as many as hold 4 million voxels.

    Raises:
      UserError: no such checkpoint, or one that does not fit this code.
    """
    predictor = loading.load_predictor(checkpoint, step)
    flat = isinstance(predictor.frame, int)
    # The rule for volumes is the predictor's own; with 8 the originals of three batches fit a laptop's memory.
    predictor.batch_size = batch_size if flat else min(batch_size, predictor.batch_size, 8)
    record = RECORD_TRANSFORM if flat else predictor.frame.geometry.name
    offered = f"{record}+{transform_name(predictor.frame)}"
    if predictor.transform != offered:
        raise UserError(f"the checkpoint was trained with the transform {predictor.transform}, this code "
                        f"prepares {'images' if flat else 'volumes'} with {offered}")
    return Model(predictor)


def finding_of(prompt: str) -> str:
    """The finding that a prompt names (its name, an official alias, or its usual wording), "" for free text."""
    usual = {finding.synonyms[0]: name for name, finding in LABELLED.items() if finding.synonyms}
    return find_label(prompt) or usual.get(prompt.strip().rstrip(".").lower(), "")


def explain(encoded: EncodedPrompts) -> list[str]:
    """One line per prompt: scored as a finding or as free text, and the finding that may have been meant."""
    lines = []
    for prompt, finding, sentences, warnings in zip(encoded.prompts, encoded.findings, encoded.sentences,
                                                    encoded.warnings):
        if not sentences:
            lines.append(f"  {prompt}: a label of the classifier, by its log odds")
        elif finding:
            lines.append(f"  {prompt}: the finding {finding}, with {len(sentences)} prompts")
        else:
            # Free text may contain the name of a finding; only a text that is nearly a name is a slip.
            close = difflib.get_close_matches(prompt.lower(), [name.lower() for name in LABELLED], n=1, cutoff=0.85)
            kind = f"as free text{nearest(prompt, LABELLED) if close else ''}"
            lines.append("; ".join((f"  {prompt}: {kind}", *warnings)))
    return lines

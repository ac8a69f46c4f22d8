"""What is evaluated: the checkpoint's model, the selected records of each mode, and what is fitted on other splits."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data.dataset import DatasetMetadata, load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError, choose
from lgdea_jax.eval.harness import selection
from lgdea_jax.eval.harness.benchmark import Benchmark, zero_shot
from lgdea_jax.eval.harness.selection import Selection
from lgdea_jax.evaluators import classified, probe, tasks
from lgdea_jax.evaluators.data import EvalData, ProgressCallback
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.findings.label_sets import label_columns
from lgdea_jax.inference.loading import load_predictor
from lgdea_jax.preprocess.image import MODEL_TRANSFORM
from lgdea_jax.preprocess.image_spec import ImageSpec, transform_name
from lgdea_jax.records import Record, is_frontal

# How a script selects records for each mode: (records, metadata, progress) -> {mode: selection}; a mode may be missing.
Select = Callable[[Sequence[Record], DatasetMetadata, ProgressCallback], Mapping[str, Selection]]


class Rows(Sequence[Record]):
    """Some records of a source."""

    def __init__(self, source: Sequence[Record], rows: np.ndarray) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        return self._source[int(self._rows[index])]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything that the evaluators of a run need.

    Attributes:
      args: the flags, of `flags.make_parser`; benchmark: which.
      data_dir, metadata, source: the data set, its metadata and the records of the evaluated split.
      model: the checkpoint's, an `inference.predictor.Predictor`.
      progress: called with (stage, done, total).
    """

    args: argparse.Namespace
    benchmark: Benchmark
    data_dir: Path
    metadata: DatasetMetadata
    source: Sequence[Record]
    model: Any
    progress: ProgressCallback

    @classmethod
    def open(cls, args: argparse.Namespace, benchmark: Benchmark, data_dir: Path, progress: ProgressCallback) -> Inputs:
        """Opens the split and loads the model.

        Raises:
          UserError: no such data, split or checkpoint, or a transform other than the checkpoint's.
        """
        metadata = load_metadata(data_dir)
        source = open_records(data_dir, args.split)  # First: a wrong folder is found at once, a model takes seconds.
        model = load_predictor(args.checkpoint, args.step)
        check_transform(model.transform, model.frame, metadata)
        return cls(args, benchmark, data_dir, metadata, source, model, progress)

    def read(self, source: Sequence[Record], rows: np.ndarray, transform: str = MODEL_TRANSFORM) -> EvalData:
        """The records in `rows` of `source` in memory, prepared for the model."""
        return EvalData.from_records(Rows(source, rows), self.metadata, self.model.frame, transform=transform,
                                     labels=self.args.labels, progress=self.progress)

    def select(self, modes: Sequence[str], select: Select | None) -> dict[str, Selection]:
        """{mode: what is evaluated in it}; the same object where modes agree.

        Args:
          modes: the modes that are wanted.
          select: a benchmark's own selection; None for all records that fit the benchmark, in every mode.

        Raises:
          UserError: nothing is left.
        """
        args, benchmark, source = self.args, self.benchmark, self.source
        if select is not None:
            found = select(source, self.metadata, self.progress)
            chosen = {mode: found[mode].sample(args.records, args.seed) for mode in modes if mode in found}
        else:
            frontal = args.views == "frontal"
            if frontal or benchmark.keep is not None:
                part = selection.matching(
                    source, lambda record: (not frontal or is_frontal(record.view))
                    and (benchmark.keep is None or benchmark.keep(record)),
                    ", ".join(filter(None, ("frontal images" if frontal else "", benchmark.keep_note))), self.progress)
            else:
                part = selection.all_rows(len(source))
            chosen = dict.fromkeys(modes, part.sample(args.records, args.seed))
        if not all(len(part.rows) for part in chosen.values()):
            raise UserError(f"no record of the {args.split} split is left to evaluate")
        return chosen

    def encoders(self, selected: Mapping[str, Selection]) -> dict[str, Encoder]:
        """{mode: encoder of its data}; modes with the same images under the same transform share one."""
        made: dict[tuple[int, str], Encoder] = {}
        out = {}
        for mode, part in selected.items():
            transform = self.benchmark.transform(mode) or MODEL_TRANSFORM
            key = id(part), transform
            if key not in made:
                data = part.relabel(self.read(self.source, part.rows, transform))
                made[key] = Encoder(self.model, self.benchmark.scored_labels(data), progress=self.progress)
            out[mode] = made[key]
        return out

    def thresholds(self, chosen: Sequence[str]) -> dict[str, dict[str, float]] | None:
        """Thresholds of F1 and MCC for the clean mode, chosen on the validation split; None where there is none.

        Args:
          chosen: the tasks that are run.
        """
        args, benchmark = self.args, self.benchmark
        if ("zero_shot" not in chosen or args.mode == "official" or not benchmark.public or benchmark.exclusive
                or args.split == "validation" or "validation" not in self.metadata.splits):
            return None
        source = open_records(self.data_dir, "validation")
        # `keep` selects labels that are good enough for an evaluation; for a threshold, any will do.
        rows = (selection.matching(source, lambda record: is_frontal(record.view), "", self.progress)
                if args.views == "frontal" else selection.all_rows(len(source)))
        data = benchmark.scored_labels(self.read(source, rows.sample(args.records, args.seed).rows))
        scorer = zero_shot(benchmark, data, "clean", prompting=tasks.prompt_settings(self.model))
        return classified.thresholds(scorer.run(Encoder(self.model, data, progress=self.progress)))

    def probes(self, encoders: Mapping[str, Encoder]) -> dict[str, list[probe.Probe]]:
        """{mode: probes in the order of --probe}; a mode with a transform of its own has none.

        Raises:
          UserError: DATA has no training split, or no label that is scored here.
        """
        args, benchmark, metadata = self.args, self.benchmark, self.metadata
        if not args.probe:
            return {}
        if "train" not in metadata.splits or args.split == "train":
            raise UserError(f"--probe needs labels to train on that are not evaluated: {self.data_dir} has the splits "
                            f"{', '.join(metadata.splits)}")
        features: dict[str, probe.Features] = {}
        data = next(iter(encoders.values())).data
        own = label_columns(metadata.label_names, data.label_set)
        columns = np.array([own[choose("label of the data set", name, own)] for name in data.label_names], np.int64)
        for split in ("train", "validation"):
            if split in metadata.splits and split != args.split:
                found = probe.read_features(self.model, open_records(self.data_dir, split), self.model.frame, columns,
                                            progress=self.progress)
                features[split] = dataclasses.replace(found, labels=benchmark.filled(found.labels))
        made: dict[int, list[probe.Probe]] = {}
        for mode, encoder in encoders.items():
            if benchmark.transform(mode) is None and id(encoder) not in made:
                groups = benchmark.groups_of(encoder.data)
                made[id(encoder)] = [probe.Probe(encoder.data, features["train"], features.get("validation"), share,
                                                 args.seed, groups, benchmark.exclusive) for share in args.probe]
        return {mode: made[id(encoder)] for mode, encoder in encoders.items() if id(encoder) in made}


def check_transform(trained_with: str, frame: ImageSpec, metadata: DatasetMetadata) -> None:
    """Refuses data whose transform differs from the one of training.

    Raises:
      UserError: names both.
    """
    offered = f"{metadata.transform}+{transform_name(frame)}"
    if trained_with != offered:
        raise UserError(f"the checkpoint was trained with the transform {trained_with}, this data set would be read "
                        f"with {offered}: build it with the version of lgdea-jax that made the training data")

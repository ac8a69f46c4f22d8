"""What is evaluated: the checkpoint's model, the selected records of each mode, and what is fitted on other splits."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.data.dataset import SPLIT_ORDER, DatasetMetadata, load_index, load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError, choose
from lgdea_jax.eval.harness import selection
from lgdea_jax.eval.harness.benchmark import Benchmark, zero_shot
from lgdea_jax.eval.harness.selection import Selection
from lgdea_jax.evaluators import classified, probe, tasks
from lgdea_jax.evaluators.data import EvalData, ProgressCallback
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.findings.label_sets import LABEL_PREFIX, label_columns
from lgdea_jax.inference.loading import check_transform, load_predictor
from lgdea_jax.preprocess.centre_crop import RESIZED
from lgdea_jax.preprocess.image import MODEL_TRANSFORM
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


class Splits(Sequence[Record]):
    """The records of some splits, one split after another.

    Args:
      parts: {split: its records}.
    """

    def __init__(self, parts: Mapping[str, Sequence[Record]]) -> None:
        self.parts = dict(parts)
        self._ends = np.cumsum([len(part) for part in self.parts.values()])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._ends, index, side="right"))
        part = list(self.parts.values())[which]
        return part[index - int(self._ends[which]) + len(part)]

    def rows(self, split: str) -> np.ndarray:
        """int64, where the records of a split are."""
        end = int(self._ends[list(self.parts).index(split)])
        return np.arange(end - len(self.parts[split]), end)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything that the evaluators of a run need.

    Attributes:
      args: the flags, of `flags.make_parser`; benchmark: which.
      data_dir, metadata: the data set; source: the records of the evaluated split, or, where the protocol's list is the
        whole data set and the official mode is wanted, of all splits.
      model: the checkpoint's, an `inference.predictor.Predictor`.
      progress: called with (stage, done, total).
    """

    args: argparse.Namespace
    benchmark: Benchmark
    data_dir: Path
    metadata: DatasetMetadata
    source: Splits
    model: Any
    progress: ProgressCallback

    @classmethod
    def open(cls, args: argparse.Namespace, benchmark: Benchmark, data_dir: Path, progress: ProgressCallback) -> Inputs:
        """Opens the split and loads the model.

        Raises:
          UserError: no such data, split or checkpoint, or a transform other than the checkpoint's.
        """
        metadata = load_metadata(data_dir)
        parts = {args.split: open_records(data_dir, args.split)}  # First: a wrong folder is found at once.
        model = load_predictor(args.checkpoint, args.step)
        check_transform(model.transform, model.frame, metadata.transform)
        check_data_set(benchmark, metadata, as_if=getattr(args, "as_if", False))
        if benchmark.protocol.all_splits and args.mode != "clean" and is_its_own(benchmark, metadata):
            parts = {split: parts.get(split) or open_records(data_dir, split)
                     for split in sorted(metadata.splits, key=lambda name: SPLIT_ORDER.get(name, len(SPLIT_ORDER)))}
        return cls(args, benchmark, data_dir, metadata, Splits(parts), model, progress)

    def read(self, source: Sequence[Record], rows: np.ndarray, transform: str = MODEL_TRANSFORM, labels: str = "",
             ) -> EvalData:
        """The records in `rows` of `source` in memory, prepared for the model, with one of their sets of labels."""
        return EvalData.from_records(Rows(source, rows), self.metadata, self.model.frame, transform=transform,
                                     labels=labels, progress=self.progress)

    def labels(self, mode: str) -> str:
        """The labels that are scored in a mode: those of --labels, the protocol's if the data have them, "" for own."""
        wanted = self.benchmark.protocol.labels if mode == "official" and not self.args.labels else ""
        have = any(name.startswith(LABEL_PREFIX.format(wanted)) for name in self.metadata.label_names)
        return wanted if wanted and have else self.args.labels

    def differences(self, data: EvalData) -> tuple[str, ...]:
        """How this run differs from the protocol of the official mode, beside what the protocol itself names.

        Args:
          data: of the official mode.
        """
        protocol, out = self.benchmark.protocol, []
        if protocol.source is None:
            return ()
        if not is_its_own(self.benchmark, self.metadata):
            out.append(f"the data set is {self.metadata.name}, not the benchmark's")
        if data.label_set not in ("reference", "protocol"):
            out.append(f"labels: {data.label_set}")
        elif protocol.labels and not self.labels("official"):
            out.append("the data set has no labels of this protocol: its own are scored; build it again")
        if self.args.records:
            out.append(f"a sample of {self.args.records} records")
        if protocol.crop:
            stored, original = data.stored_shapes[:, 1:].min(1), data.original_shapes[:, 1:].min(1)
            small = int((stored < np.minimum(original, RESIZED)).sum())
            if small:
                out.append(f"{small} of {len(stored)} images are stored with a shorter side under {RESIZED} px: build "
                           "the data set with a greater --config.image_size")
        return tuple(out)

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
            for mode in modes:
                rows, note = self._list(mode, part.rows)
                if note:
                    note = ", ".join(filter(None, (part.note, f"{note}: {len(rows)} records")))
                    chosen[mode] = dataclasses.replace(part, rows=rows, note=note).sample(args.records, args.seed)
        if not all(len(part.rows) for part in chosen.values()):
            raise UserError(f"no record of the {args.split} split is left to evaluate")
        return chosen

    def _list(self, mode: str, rows: np.ndarray) -> tuple[np.ndarray, str]:
        """Those of `rows` that a mode's list of images has, and the list in words, "" where it is all of them."""
        if mode != "official":
            several = len(self.source.parts) > 1  # The protocol's list is the whole data set, this mode's is not.
            return (np.intersect1d(rows, self.source.rows(self.args.split)), f"the split {self.args.split}"
                    ) if several else (rows, "")
        if self.benchmark.protocol.first_of_scan:
            studies = np.concatenate([load_index(self.data_dir, split)["study"] for split in self.source.parts])
            first = np.sort(np.unique(studies[rows], return_index=True)[1])
            return rows[first], "the first volume of each scan"
        return rows, "all splits" if len(self.source.parts) > 1 else ""

    def encoders(self, selected: Mapping[str, Selection]) -> dict[str, Encoder]:
        """{mode: encoder of its data}; modes with the same images under the same transform share one."""
        made: dict[tuple[Any, ...], Encoder] = {}
        out = {}
        for mode, part in selected.items():
            transform, labels = self.benchmark.transform(mode) or MODEL_TRANSFORM, self.labels(mode)
            own = mode if mode == "official" and self.benchmark.protocol.findings else ""
            key = id(part), transform, labels, own
            if key not in made:
                data = part.relabel(self.read(self.source, part.rows, transform, labels))
                made[key] = Encoder(self.model, self.benchmark.scored_labels(data, mode), progress=self.progress)
            out[mode] = made[key]
        return out

    def thresholds(self, chosen: Sequence[str]) -> dict[str, dict[str, float]] | None:
        """Thresholds of F1 and MCC for the clean mode, chosen on the validation split; None where there is none.

        Args:
          chosen: the tasks that are run.
        """
        args, benchmark = self.args, self.benchmark
        if ("zero_shot" not in chosen or args.mode in ("official", "ours") or not benchmark.public
                or benchmark.exclusive or args.split == "validation" or "validation" not in self.metadata.splits):
            return None
        source = open_records(self.data_dir, "validation")
        # `keep` selects labels that are good enough for an evaluation; for a threshold, any will do.
        rows = (selection.matching(source, lambda record: is_frontal(record.view), "", self.progress)
                if args.views == "frontal" else selection.all_rows(len(source)))
        data = self.read(source, rows.sample(args.records, args.seed).rows, labels=args.labels)
        data = benchmark.scored_labels(data)
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
        # Labels of a protocol have no columns among the labels that a probe is fitted to.
        encoders = {mode: encoder for mode, encoder in encoders.items()
                    if mode == "clean" or not benchmark.protocol.findings}
        if not encoders:
            raise UserError(f"--probe needs the benchmark's own labels: --mode=clean, or not --protocol="
                            f"{benchmark.protocol.name}")
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


def is_its_own(benchmark: Benchmark, metadata: DatasetMetadata) -> bool:
    """Whether a data set is the first of those that the benchmark names, or it names none."""
    return not benchmark.data_sets or metadata.config.get("source") == benchmark.data_sets[0]


def check_data_set(benchmark: Benchmark, metadata: DatasetMetadata, *, as_if: bool) -> None:
    """Refuses a data set that is not the benchmark's.

    Raises:
      UserError: names both.
    """
    source = metadata.config.get("source", "unknown")
    if benchmark.data_sets and source not in benchmark.data_sets and not as_if:
        raise UserError(f"the data set {metadata.name} comes from the source {source}, and {benchmark.name} is "
                        f"measured on {' or '.join(benchmark.data_sets)}: python -m lgdea_jax.eval.records evaluates "
                        "on any data set; --as_if takes it as if it were the benchmark's, and the results say so")

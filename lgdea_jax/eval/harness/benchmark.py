"""What sets one benchmark apart from another, and the evaluators that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lgdea_jax.eval.harness.protocol import OURS, Protocol
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.class_retrieval import ClassRetrieval
from lgdea_jax.evaluators.classifier import Classifier
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.grounding import Grounding
from lgdea_jax.evaluators.operating_point import OperatingPoint
from lgdea_jax.evaluators.retrieval import Retrieval
from lgdea_jax.evaluators.samples import Evaluator
from lgdea_jax.evaluators.volume_retrieval import VolumeRetrieval
from lgdea_jax.evaluators.zero_shot import ON_ITSELF, Prompts, ZeroShot
from lgdea_jax.findings.vocabulary import NO_FINDING
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, Record

# Labels that are no class of a long tail.
_NORMAL = (NO_FINDING, "normal")
RARE = 10  # Positives of a class of the tail, at most.


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Its modes are "clean" and, here, "official": the rules of `protocol`, whatever that mode is called in the results
    (`Protocol.mode`).

    Attributes:
      name: of its module; summary: for --help.
      data_sets: sources of `data_prep` whose data sets are this benchmark's; () for all.
      protocols: the published ones; protocol: the one that the official mode follows.
      tasks: what is measured unless --tasks says otherwise.
      findings: the labels that are scored, in order; () for all that the data set has.
      groups: {name: findings} to be averaged besides.
      long_tail: frequent and rare findings are averaged besides, as CARZero's script does it: "head" above the 65th
        percentile of the numbers of positives among the evaluated images, "tail" with at most RARE, and "medium".
      prompts: the benchmark's own, by finding.
      merged: {label: findings whose highest score it has}, see `evaluators.zero_shot`.
      volumes: of CT: retrieval is that of `evaluators.volume_retrieval`, and the official mode has an operating point.
      no_probe: why no probe can be trained for it; "" where one can.
      partial: of `findings`, those that the data set does not label are left out instead of refused.
      exclusive: an image has exactly one of the labels.
      ensemble: of prompts, where classes exclude each other and no protocol says otherwise.
      public: whether the official mode classifies by its protocol; without, both modes classify alike.
      views: "frontal" leaves laterals out.
      blank_is_negative: a label that is not given counts as negative (CheXpert's program leaves out what a report
        does not mention).
      keep: which records count; None for all. `keep_note` describes them.
      split: what is evaluated unless --split says otherwise.
      guard: refuse checkpoints that were trained on the evaluated subjects.
    """

    name: str
    summary: str
    tasks: tuple[str, ...] = tasks.TASKS
    data_sets: tuple[str, ...] = ()
    protocols: tuple[Protocol, ...] = ()
    protocol: Protocol = OURS
    findings: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    long_tail: bool = False
    prompts: Mapping[str, Prompts] = dataclasses.field(default_factory=dict)
    merged: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    volumes: bool = False
    no_probe: str = ""
    partial: bool = False
    exclusive: bool = False
    ensemble: str = "normalised"
    public: bool = True
    views: str = "all"
    blank_is_negative: bool = False
    keep: Callable[[Record], bool] | None = None
    keep_note: str = ""
    split: str = "test"
    guard: bool = True

    def filled(self, labels: np.ndarray) -> np.ndarray:
        """int8 labels with blanks as the benchmark takes them."""
        return np.where(labels == MISSING, NEGATIVE, labels).astype(np.int8) if self.blank_is_negative else labels

    def groups_of(self, data: EvalData) -> dict[str, tuple[str, ...]]:
        """`groups`, and the long tail's."""
        if not self.long_tail:
            return dict(self.groups)
        count = {name: n for name, n in zip(data.label_names, (data.labels == POSITIVE).sum(0).tolist())
                 if n and name not in _NORMAL}
        frequent = np.percentile(list(count.values()), 65) if count else 0
        return {**self.groups, "head": tuple(name for name, n in count.items() if n > frequent),
                "medium": tuple(name for name, n in count.items() if RARE < n <= frequent),
                "tail": tuple(name for name, n in count.items() if n <= RARE)}

    def scored_labels(self, data: EvalData, mode: str = "clean") -> EvalData:
        """The data with the labels that the benchmark scores in a mode."""
        own = self.protocol.findings if mode == "official" else ()
        for label, parts in self.merged.items():
            if label not in data.label_names and set(parts) <= set(data.label_names):
                data = data.with_merged(label, parts)
        names = own or self.findings
        if names and data.label_names != names:
            if (self.partial or own) and set(names) & set(data.label_names):
                names = tuple(name for name in names if name in data.label_names)
            data = data.with_labels(names)
        return dataclasses.replace(data, labels=self.filled(data.labels)) if self.blank_is_negative else data

    def transform(self, mode: str) -> str | None:
        """The transform of the images in a mode: None for the checkpoint's own."""
        return f"biovil{self.protocol.crop}@1" if self.protocol.crop and mode == "official" else None


def zero_shot(benchmark: Benchmark, data: EvalData, mode: str, *, prompting: Mapping[str, str], thresholds: Any = None,
              thresholds_from: str = "") -> ZeroShot:
    """The zero-shot evaluator of a mode: the protocol's prompts, scores and thresholds, or the model's own `prompting`
    (`evaluators.tasks.prompt_settings`)."""
    common: dict[str, Any] = {"prompts": benchmark.prompts, "exclusive": benchmark.exclusive,
                              "groups": benchmark.groups_of(data), "merged": benchmark.merged}
    if mode == "official" and benchmark.public:
        exclusive, protocol = benchmark.exclusive, benchmark.protocol
        common |= {"prompts": {**benchmark.prompts, **protocol.prompts},
                   "merged": {**benchmark.merged, **protocol.merged}}
        return ZeroShot(data, scoring="positive" if exclusive else protocol.scoring,
                        ensemble=benchmark.ensemble if protocol.source is None and exclusive else protocol.ensemble,
                        standardised=protocol.standardised, thresholds=None if exclusive else ON_ITSELF, **common)
    ensemble = benchmark.ensemble if benchmark.exclusive else "mean"
    if benchmark.exclusive:  # The class that fits best: denials of the others carry no information.
        prompting = {**prompting, "scoring": "positive"}
    return ZeroShot(data, **prompting, ensemble=ensemble, thresholds=thresholds, thresholds_from=thresholds_from,
                    **common)


def evaluator(benchmark: Benchmark, task: str, data: EvalData, mode: str, *, seed: int, prompting: Mapping[str, str],
              thresholds: Any = None, thresholds_from: str = "", candidates: str = "auto",
              label_names: Sequence[str] = ()) -> Evaluator:
    """The evaluator of a task in a mode; `label_names` are those of the model's classifier."""
    if task == "classifier":
        return Classifier(data, tuple(label_names), exclusive=benchmark.exclusive)
    if task in tasks.PAIR_TASKS:
        return tasks.pair_evaluator(task, data, seed=seed)
    if task == "zero_shot":
        return zero_shot(benchmark, data, mode, prompting=prompting, thresholds=thresholds,
                         thresholds_from=thresholds_from)
    if task == "grounding":
        return Grounding(data, mode=mode, sigma=benchmark.protocol.sigma if mode == "official" else 0.0)
    if task == "operating_point":
        return OperatingPoint(zero_shot(benchmark, data, mode, prompting=prompting),
                              rule=benchmark.protocol.operating_point)
    if benchmark.volumes:
        return VolumeRetrieval(data, mode=mode)
    if benchmark.exclusive:
        prompts = {**benchmark.prompts, **benchmark.protocol.prompts} if mode == "official" else benchmark.prompts
        return ClassRetrieval(data, mode=mode, candidates=candidates, prompts=prompts)
    return Retrieval(data, mode=mode, seed=seed)

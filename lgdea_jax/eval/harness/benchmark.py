"""What sets one benchmark apart from another, and the evaluators that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.class_retrieval import ClassRetrieval
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.grounding import Grounding
from lgdea_jax.evaluators.operating_point import OperatingPoint
from lgdea_jax.evaluators.retrieval import Retrieval
from lgdea_jax.evaluators.samples import Evaluator
from lgdea_jax.evaluators.volume_retrieval import VolumeRetrieval
from lgdea_jax.evaluators.zero_shot import ON_ITSELF, Prompts, ZeroShot
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, Record


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
      name: of its module; summary: for --help.
      tasks: what is measured unless --tasks says otherwise.
      findings: the labels that are scored, in order; () for all that the data set has.
      groups: {name: findings} to be averaged besides.
      rare_below: findings with fewer positives among the evaluated images are averaged as "tail", the others as "head";
        0 for no such split.
      prompts: the benchmark's own, by finding.
      official_prompts: the same, in the official mode only.
      merged: {label: findings whose highest score it has}, see `evaluators.zero_shot`.
      volumes: of CT: retrieval is that of `evaluators.volume_retrieval`, and the official mode has an operating point.
      no_probe: why no probe can be trained for it; "" where one can.
      partial: of `findings`, those that the data set does not label are left out instead of refused.
      exclusive: an image has exactly one of the labels.
      scoring, ensemble: of the official zero-shot protocol.
      public: whether public scripts have a protocol of their own; without one both modes classify alike.
      crop: the official geometry's crop (BioViL's 480 or 448), 0 for the checkpoint's own transform.
      sigma: of the official smoothing of heatmaps, in patches.
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
    findings: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    rare_below: int = 0
    prompts: Mapping[str, Prompts] = dataclasses.field(default_factory=dict)
    official_prompts: Mapping[str, Prompts] = dataclasses.field(default_factory=dict)
    merged: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    volumes: bool = False
    no_probe: str = ""
    partial: bool = False
    exclusive: bool = False
    scoring: str = "pair"
    ensemble: str = "normalised"
    public: bool = True
    crop: int = 0
    sigma: float = 0.0
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
        """`groups`, and head and tail by the number of positives."""
        if not self.rare_below:
            return dict(self.groups)
        count = dict(zip(data.label_names, (data.labels == POSITIVE).sum(0).tolist()))
        return {**self.groups, "head": tuple(name for name, n in count.items() if n >= self.rare_below),
                "tail": tuple(name for name, n in count.items() if n < self.rare_below)}

    def scored_labels(self, data: EvalData) -> EvalData:
        """The data with the labels that the benchmark scores."""
        for label, parts in self.merged.items():
            if label not in data.label_names and set(parts) <= set(data.label_names):
                data = data.with_merged(label, parts)
        if self.findings and data.label_names != self.findings:
            names = self.findings
            if self.partial and set(names) & set(data.label_names):
                names = tuple(name for name in names if name in data.label_names)
            data = data.with_labels(names)
        return dataclasses.replace(data, labels=self.filled(data.labels)) if self.blank_is_negative else data

    def transform(self, mode: str) -> str | None:
        """The transform of the images in a mode: None for the checkpoint's own."""
        return f"biovil{self.crop}@1" if self.crop and mode == "official" else None


def zero_shot(benchmark: Benchmark, data: EvalData, mode: str, *, prompting: Mapping[str, str], thresholds: Any = None,
              thresholds_from: str = "") -> ZeroShot:
    """The zero-shot evaluator of a mode: official scripts' cosines and thresholds, or the model's own `prompting`
    (`evaluators.tasks.prompt_settings`)."""
    common: dict[str, Any] = {"prompts": benchmark.prompts, "exclusive": benchmark.exclusive,
                              "groups": benchmark.groups_of(data), "merged": benchmark.merged}
    if mode == "official" and benchmark.public:
        exclusive = benchmark.exclusive
        common["prompts"] = benchmark.official_prompts or benchmark.prompts
        return ZeroShot(data, scoring="positive" if exclusive else benchmark.scoring, ensemble=benchmark.ensemble,
                        thresholds=None if exclusive else ON_ITSELF, **common)
    ensemble = benchmark.ensemble if benchmark.exclusive else "mean"
    if benchmark.exclusive:  # The class that fits best: denials of the others carry no information.
        prompting = {**prompting, "scoring": "positive"}
    return ZeroShot(data, **prompting, ensemble=ensemble, thresholds=thresholds, thresholds_from=thresholds_from,
                    **common)


def evaluator(benchmark: Benchmark, task: str, data: EvalData, mode: str, *, seed: int, prompting: Mapping[str, str],
              thresholds: Any = None, thresholds_from: str = "", candidates: str = "auto") -> Evaluator:
    """The evaluator of a task in a mode."""
    if task == "zero_shot":
        return zero_shot(benchmark, data, mode, prompting=prompting, thresholds=thresholds,
                         thresholds_from=thresholds_from)
    if task == "grounding":
        return Grounding(data, mode=mode, sigma=benchmark.sigma if mode == "official" else 0.0)
    if task == "operating_point":
        return OperatingPoint(zero_shot(benchmark, data, mode, prompting=prompting))
    if benchmark.volumes:
        return VolumeRetrieval(data, mode=mode)
    if benchmark.exclusive:
        return ClassRetrieval(data, mode=mode, candidates=candidates, prompts=benchmark.prompts)
    return Retrieval(data, mode=mode, seed=seed)

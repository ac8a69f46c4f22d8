"""Evaluation while training: the evaluators of the evaluation scripts on the validation split, without intervals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lgdea_jax.data import dataset, source
from lgdea_jax.errors import nearest
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.tasks import evaluate
from lgdea_jax.experiment import Experiment
from lgdea_jax.inference.predictor import Predictor
from lgdea_jax.metrics.classification import auroc
from lgdea_jax.records import NEGATIVE, POSITIVE
from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.runtime.guards import StopSignals
from lgdea_jax.runtime.log import EVALS, Clock, TrainLog
from lgdea_jax.training.data import Data

log = logging.getLogger("lgdea_jax")

# The few scores that a line has room for, and those of images that have nothing but reports.
HEADLINE = ("zero_shot/auroc", "retrieval/precision@5", "grounding/pointing", "grounding/cnr", "classifier/auroc")
OF_REPORTS = ("retrieval/recall@5/image_to_text", "retrieval/recall@5/text_to_image")


class CutShort(Exception):
    """A signal came while evaluating."""


class Evaluation:
    """Scores the state at the steps that the config names; process 0 does it, the others wait.

    Args:
      experiment: the run's.
      graphdef: static part of the model.
      data: what is trained on.
      spec: of the checkpoints.
      journal, checkpoints, clock, stop: the run's.
    """

    def __init__(self, experiment: Experiment, graphdef: Any, data: Data, spec: Mapping[str, Any], *, journal: TrainLog,
                 checkpoints: Checkpoints, clock: Clock, stop: StopSignals) -> None:
        self._experiment, self._config = experiment, experiment.config
        self._graphdef, self._data, self._spec = graphdef, data, dict(spec)
        self._journal, self._checkpoints, self._clock, self._stop = journal, checkpoints, clock, stop
        self._examples: EvalData | None = None
        self._predict: _Stoppable | None = None
        self._nothing = self._why_nothing()
        if self._nothing and jax.process_index() == 0:
            log.info("not evaluated while training: %s", self._nothing)
        elif not experiment.method.text and jax.process_index() == 0:
            log.info("evaluated while training: the classifier alone, because the method %s has no text tower",
                     experiment.method.name)

    def due(self, step: int) -> bool:
        """Whether the run evaluates after `step`."""
        every = self._config.eval.every
        return step == self._config.total_steps or bool(every and step and step % every == 0)

    def missing(self, step: int) -> bool:
        """Whether the evaluation at `step` was due but never finished: a preemption cut it short."""
        return self.due(step) and bool(sharding.from_first(float(not self._journal.has_eval(step))))

    def run(self, step: int, state: Mapping[str, Any]) -> bool:
        """Evaluates the state at `step`, and remembers its checkpoint if it is the best.

        Returns:
          False when a signal cut it short: nothing is written then, and the resumed run evaluates again.
        """
        with self._clock.pause("evaluate"):
            params = sharding.whole_on_host(state["ema"] or state["params"])
            scores, finished = {}, True
            if jax.process_index() == 0:
                try:
                    scores = self._scores(params)
                except CutShort:
                    finished = False
            metric = self._config.eval.metric
            finished = bool(sharding.from_first(float(finished)))
            value = sharding.from_first(scores.get(metric, float("nan")))
            if not finished:
                return False
            if scores:
                self._journal.write(step, scores, file=EVALS)
                log.info("step %d  %s", step, headline(scores))
                if metric not in scores:
                    log.warning("eval.metric %r is not among the scores%s: no checkpoint is the best", metric,
                                nearest(metric, scores))
            self._checkpoints.score(step, value)
        return True

    def _scores(self, params: Any) -> dict[str, float]:
        """Scores by metric name; {} when there is nothing to evaluate on."""
        if self._nothing:
            return {}
        if self._examples is None:
            self._examples = self._read()
        if self._predict is None:  # One for all evaluations: what it has compiled stays.
            self._predict = _Stoppable(Predictor(self._experiment, params=params, graphdef=self._graphdef,
                                                 tokenizer=self._data.tokenizer, spec=self._spec), self._stop)
        self._predict.model.set_params(params)
        if self._predict.model.reads_text and self._predict.model.reads_images:
            return evaluate(self._predict, self._examples, seed=0)
        return classifier_scores(self._predict, self._examples, self._data.label_names)

    @property
    def _directory(self) -> str:
        return self._config.eval.dir or self._config.data.dir

    def _why_nothing(self) -> str:
        """Why there is nothing to evaluate on; "" if there is."""
        if not self._directory:
            return "neither eval.dir nor data.dir names a data set"
        splits = dataset.load_metadata(self._directory).splits
        if self._config.eval.split in splits:
            return ""
        return (f"the data set at {self._directory} has no split {self._config.eval.split!r} (it has: "
                f"{', '.join(splits)}); --config.eval.split names another one")

    def _read(self) -> EvalData:
        part = self._config.eval
        metadata, records = dataset.load_metadata(self._directory), source.open_records(self._directory, part.split)
        count = min(part.records or len(records), len(records))
        chosen = np.sort(np.random.default_rng(0).permutation(len(records))[:count])
        examples = EvalData.from_records([records[int(row)] for row in chosen], metadata, self._experiment.image_spec)
        if examples.label_note:
            log.info("evaluating on the split %s: %s", part.split, examples.label_note)
        if examples.lacks:
            log.info("evaluating on the split %s: %s", part.split, "; ".join(examples.lacks.values()))
        return examples


def headline(scores: Mapping[str, float]) -> str:
    """The scores of a step that its line shows, with their names."""
    defined = {name: f"{name} {scores[name]:.3f}" for name in (*HEADLINE, *OF_REPORTS)
               if np.isfinite(scores.get(name, np.nan))}
    shown = [defined[name] for name in HEADLINE if name in defined] or list(defined.values())
    return "  ".join(shown) or "nothing is measured"


class _Stoppable:
    """A predictor that stops between two batches when a signal has come."""

    def __init__(self, model: Predictor, stop: StopSignals) -> None:
        self.model, self._stop = model, stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def images(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As the predictor's."""
        self._check()
        return self.model.images(images)

    def texts(self, *args: Any) -> dict[str, np.ndarray]:
        """As the predictor's."""
        self._check()
        return self.model.texts(*args)

    def _check(self) -> None:
        if self._stop.number:
            raise CutShort


def classifier_scores(predict: Any, examples: EvalData, label_names: tuple[str, ...]) -> dict[str, float]:
    """AUROC of a classifier head for each label of which the examples hold both classes, and their mean.

    The classifier is that of the images, or that of the reports in a model without an image tower.

    Returns:
      {"classifier/auroc": macro, "classifier/auroc/NAME": value}; {} for a model without a classifier.
    """
    if not predict.classifies:
        return {}
    size = predict.batch_size  # Batch by batch: the patches of all images need not fit the memory.
    if predict.reads_images:
        images, table = examples.images, examples.labels
        parts = [predict.images(images[start:start + size])["logits"] for start in range(0, len(images), size)]
    else:
        texts, phrases, table = examples.reports, examples.phrases, examples.report_labels
        parts = [predict.texts(texts[start:start + size], phrases[start:start + size])["logits"]
                 for start in range(0, len(texts), size)]
    if not parts:
        return {}
    found = np.concatenate(parts)
    scores: dict[str, float] = {}
    for column, name in enumerate(examples.label_names):
        labels = table[:, column]
        if name in label_names and (labels == POSITIVE).any() and (labels == NEGATIVE).any():
            known = np.isin(labels, (POSITIVE, NEGATIVE))
            logits = found[known, label_names.index(name)]
            scores[f"classifier/auroc/{name}"] = float(auroc(logits, labels[known]))
    return {"classifier/auroc": float(np.mean(list(scores.values()))), **scores} if scores else {}

"""All evaluators by task name, the light evaluation for the training loop, and samples read from disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lgdea_jax.errors import UserError, choose
from lgdea_jax.evaluators.classifier import TrainedSamples
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.grounding import Grounding, GroundingSamples
from lgdea_jax.evaluators.operating_point import OperatingPointSamples
from lgdea_jax.evaluators.probe import ProbeSamples
from lgdea_jax.evaluators.progression import Progression, ProgressionSamples
from lgdea_jax.evaluators.retrieval import Retrieval, RetrievalSamples
from lgdea_jax.evaluators.samples import Evaluator, Samples
from lgdea_jax.evaluators.sentences import SentenceSamples, SentenceSimilarity
from lgdea_jax.evaluators.zero_shot import ZeroShot, ZeroShotSamples
from lgdea_jax.findings.prompts import BARE

TASKS = ("zero_shot", "retrieval", "grounding")  # On any data set.
PAIR_TASKS = ("progression", "sentences")  # On data sets of pairs of images or sentences.
MODES = ("clean", "official")
# What results call them: "ours" is the second one where it is not a public script's (`eval.harness.protocol`).
RESULT_MODES = ("clean", "official", "ours")
SAMPLES: Mapping[str, type[Samples]] = {"zero_shot": ZeroShotSamples, "retrieval": RetrievalSamples,
                                        "grounding": GroundingSamples, "probe": ProbeSamples,
                                        "classifier": TrainedSamples,
                                        "operating_point": OperatingPointSamples,
                                        "progression": ProgressionSamples, "sentences": SentenceSamples}


def evaluator(task: str, data: EvalData, *, mode: str = "clean", seed: int = 0, scoring: str = "pair",
              context: str = BARE) -> Evaluator:
    """The evaluator of a task. Zero-shot classification is the same in both modes; `scoring` and `context` are the
    model's own, see `prompt_settings`.

    Raises:
      UserError: unknown task or mode.
    """
    choose("task", task, TASKS)
    choose("mode", mode, MODES)
    if task == "zero_shot":
        return ZeroShot(data, scoring=scoring, context=context)
    if task == "retrieval":
        return Retrieval(data, mode=mode, seed=seed)
    return Grounding(data, mode=mode)


def known(own: Sequence[str]) -> tuple[str, ...]:
    """The tasks of a benchmark whose `own` these are: those on any data set too."""
    return tuple(dict.fromkeys((*TASKS, *own)))


def pair_evaluator(task: str, data: EvalData, *, seed: int = 0) -> Evaluator:
    """The evaluator of one of PAIR_TASKS, the same in both modes."""
    return {"progression": Progression, "sentences": SentenceSimilarity}[task](data, seed)


def prompt_settings(model: Model) -> dict[str, str]:
    """A model's `scoring` and the `context` of its prompts, see `zero_shot`; defaults where it has none."""
    return {"scoring": getattr(model, "scoring", "pair"), "context": getattr(model, "prompt_context", BARE)}


def evaluate(model: Model | Encoder, data: EvalData, *, tasks: Sequence[str] = TASKS, seed: int = 0,
             mode: str = "clean", batch_size: int | None = None) -> dict[str, float]:
    """Values of all metrics without intervals, for the training loop.

    A pure function of its arguments that keeps no state: an evaluation that was interrupted is simply run again.

    Args:
      model: the model, or an `Encoder` of `data`.
      data: for example `EvalData.from_records` of some validation records, made once.
      tasks: some of TASKS.
      seed: of the balanced draw in retrieval.
      mode: "clean" or "official".
      batch_size: every call of the model has this many rows; by default the model's own `batch_size`, or 64.

    Returns:
      {name: value}; NaN where undefined (for example grounding without boxes). {} for a model without a text tower
      (`model.reads_text` is False) or an image tower (`model.reads_images`): every task needs both.
    """
    encoder = model if isinstance(model, Encoder) else Encoder(model, data, batch_size=batch_size)
    if not (getattr(encoder.model, "reads_text", True) and getattr(encoder.model, "reads_images", True)):
        return {}
    out: dict[str, float] = {}
    for task in tasks:
        out |= evaluator(task, data, mode=mode, seed=seed, **prompt_settings(encoder.model)).run(encoder).metrics()
    return out


def load_samples(path: Path, mode: str = "clean") -> dict[str, Samples]:
    """{key: samples} of one mode, for intervals and paired tests; `eval.harness.output.save_samples` writes them.

    A key is the task's name; those of probes name their share too, "probe@0.1".

    Raises:
      UserError: no such file or mode.
    """
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the samples in {path} ({type(error).__name__})") from None
    with archive:
        modes = sorted({key.split("/", 1)[0] for key in archive.files})
        choose("mode", mode, modes)
        out: dict[str, Samples] = {}
        tails = [name.split("/") for name in archive.files if name.startswith(f"{mode}/")]
        for key in [tail[1] for tail in tails if tail[2] == "meta"]:
            prefix = f"{mode}/{key}/"
            meta = json.loads(str(archive[f"{prefix}meta"]))
            start = len(f"{prefix}array/")
            arrays = {name[start:]: archive[name] for name in archive.files if name.startswith(f"{prefix}array/")}
            names = {name: tuple(value) for name, value in meta["names"].items()}
            out[key] = SAMPLES[key.split("@")[0]](archive[f"{prefix}subjects"], arrays, names, meta["info"])
    return out

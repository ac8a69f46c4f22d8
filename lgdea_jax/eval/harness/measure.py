"""The evaluators of each mode, their metrics with intervals, and the same by subgroup."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lgdea_jax.eval.harness import subgroups
from lgdea_jax.eval.harness.benchmark import Benchmark, evaluator
from lgdea_jax.eval.harness.output import ModeResult
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.data import ProgressCallback, no_progress
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.samples import Evaluator, Samples
from lgdea_jax.metrics import bootstrap
from lgdea_jax.metrics.bootstrap import Interval

# Results of evaluators that were run already, by `_key`.
Done = dict[Any, tuple[Samples, dict[str, Interval]]]


def evaluators(benchmark: Benchmark, encoder: Encoder, mode: str, chosen: Sequence[str], *, seed: int,
               thresholds: Mapping[str, Mapping[str, float]] | None = None, candidates: str = "auto",
               ) -> dict[str, Evaluator]:
    """{task: evaluator} of a mode.

    Args:
      benchmark: which.
      encoder: of the mode's data.
      mode: "clean" or "official".
      chosen: the tasks to run. In the official mode an operating point of zero-shot classification is added where the
        protocol has one.
      seed: of balanced draws.
      thresholds: of F1 and MCC in the clean mode, from the validation split.
      candidates: what precision@K ranks, see `ClassRetrieval`.
    """
    names = list(chosen)
    if mode == "official" and benchmark.protocol.operating_point and "zero_shot" in chosen:
        names.append("operating_point")
    label_names = getattr(encoder.model, "spec", {}).get("label_names", ())
    return {name: evaluator(benchmark, name, encoder.data, mode, seed=seed,
                            prompting=tasks.prompt_settings(encoder.model), label_names=label_names,
                            thresholds=thresholds, thresholds_from="the validation split" if thresholds else "",
                            candidates=candidates)
            for name in names}


def measure(encoder: Encoder, items: Mapping[str, Evaluator], mode: str, done: Done, *, seed: int, resamples: int,
            progress: ProgressCallback = no_progress, note: str = "") -> ModeResult:
    """Runs the evaluators of one mode and makes intervals, in all and by subgroup.

    Args:
      encoder: of the mode's data.
      items: {task or probe: evaluator}.
      mode: "clean" or "official".
      done: results of earlier modes, added to here: an equal evaluator is not run again.
      seed, resamples: of the bootstrap over subjects.
      progress: called after each evaluator.
      note: what was selected, for `info`.
    """
    intervals, sizes, info, kept = {}, {}, {}, []
    for task, item in items.items():
        key = _key(item)
        if key not in done:
            samples = item.run(encoder)
            done[key] = samples, bootstrap.intervals(samples.metrics, samples.subjects, resamples=resamples, seed=seed)
        samples, found = done[key]
        intervals |= found
        sizes |= samples.sizes()
        info[task] = dict(samples.info)
        kept.append(samples)
        progress(f"{task} ({mode})", 1, 1)
    if note:
        info["selection"] = note
    groups = subgroups.measure(kept, encoder.data, resamples=resamples, seed=seed)
    return ModeResult(mode, intervals, sizes, info, tuple(kept), groups)


def _key(item: Any) -> Any:
    """Equal for evaluators that give equal results; arrays count by identity."""
    return type(item), tuple((field.name, repr(value) if isinstance(value, (str, float, int, dict, type(None)))
                              else id(value))
                             for field in dataclasses.fields(item) for value in [getattr(item, field.name)])

"""What a reader must know beside the numbers of a mode, as sentences, from the `info` in results.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Fewer clusters give percentile intervals that cover clearly less than they state.
ENOUGH_SUBJECTS = 20


def few_subjects(subjects: int) -> str:
    """A caution on intervals over so few subjects; "" where they are enough."""
    if subjects >= ENOUGH_SUBJECTS:
        return ""
    return (f"{subjects} subjects are too few for intervals by resampling: these are too narrow, and a metric of few "
            "images (n) says little")


def notes(infos: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The remarks on some modes, each once; a remark on some of the modes names them.

    Args:
      infos: {mode: `info` of its entry in `results`}.
    """
    modes: dict[str, list[str]] = {}
    for mode, info in infos.items():
        for line in _of_mode(info):
            modes.setdefault(line, []).append(mode)
    return [line if len(named) == len(infos) else f"{', '.join(named)}: {line}" for line, named in modes.items()]


def _of_mode(info: Mapping[str, Any]) -> list[str]:
    lines = _protocol(info["protocol"]) if "protocol" in info else []
    lines += [str(info["selection"])] if info.get("selection") else []
    if "zero_shot" in info:
        lines += _zero_shot(info["zero_shot"])
    if "classifier" in info:
        part = info["classifier"]
        left = [f"{why}: {', '.join(names)}" for why, names in (
            ("one class only", part["one_class_only"]), ("not among the classifier's", part["unknown"])) if names]
        lines.append(f"classifier: the model's own, on {part['images']} images"
                     + (f"; labels left out, {'; '.join(left)}" if left else ""))
    if "retrieval" in info:
        lines += _retrieval(info["retrieval"])
    if info.get("grounding", {}).get("samples"):
        part = info["grounding"]
        smooth = f", smoothed by {part['sigma']:g} patches" if part["sigma"] else ""
        lines.append(f"grounding: {part['boxes']} boxes of {part['images']} images, transform {part['transform']}, "
                     f"grid {' x '.join(map(str, part['grid']))}{smooth}, pointing by chance "
                     f"{part['pointing_by_chance']:.3f}")
    if "progression" in info:
        part = info["progression"]
        lines.append(f"progression: {part['pairs']} pairs of images; accuracy by logistic regression on "
                     f"{part['width']} features of a pair in {part['folds']} folds of subjects, mean over the classes")
    if "sentences" in info:
        part = info["sentences"]
        lines.append(f"sentences: {part['pairs']} pairs by cosine; accuracy at the best threshold of the other "
                     f"{part['folds'] - 1} folds")
    for name, part in info.items():
        if name.startswith("probe@"):
            lines.append(f"{name}: logistic regression on {part['width']} frozen features of {part['train_images']} "
                         f"images ({part['train_subjects']} subjects), C = {part['penalty']} ({part['penalty_from']})"
                         + (f"; leaves out {', '.join(part['left_out'])}" if part["left_out"] else ""))
    return lines


def _protocol(info: Mapping[str, Any]) -> list[str]:
    where = f" of {info['repository'].removeprefix('https://github.com/')} at {info['commit'][:8]}" if info.get(
        "repository") else ", without a public script"
    parts = [f"{part} not the script's ({why})" for part, why in info["not_the_scripts"].items()]
    return [f"protocol {info['name']}{where}", *(f"protocol: {line}" for line in (*parts, *info["differs"]))]


def _zero_shot(info: Mapping[str, Any]) -> list[str]:
    by = {"mean": "mean of the prompts' embeddings", "normalised": "cosine to the mean of the normalised prompts",
          "raw": "cosine to the mean of the prompts", "mean_cosine": "mean of the cosines to the prompts",
          "max": "cosine to the nearest prompt"}[info["ensemble"]]
    by += ", standardised over the images" if info.get("standardised") else ""
    against = ", against the negative prompts" if info["scoring"] == "pair" else ", positive prompts only"
    lines = [f"zero-shot: {by}{against}"]
    if info.get("own_prompts"):
        lines.append(f"zero-shot: the benchmark's own prompts for {', '.join(info['own_prompts'])}")
    if "thresholds" in info:
        lines.append(f"zero-shot: thresholds of F1 and MCC chosen on {info['thresholds_from']}")
    lines.append("accuracy, kappa and the macro values: over images of exactly one class")
    return lines + [f"zero-shot leaves out {', '.join(info[key])} ({why})"
                    for key, why in (("one_class_only", "one class only"), ("no_prompts", "no prompts")) if info[key]]


def _retrieval(info: Mapping[str, Any]) -> list[str]:
    lines = []
    if "class_candidates" in info:
        part = info["class_candidates"]
        own = ", the own report left out" if info["mode"] == "clean" and "report" in part["kind"] else ""
        lines.append(f"precision@K: {part['queries']} images, {part['candidates']} candidates ({part['kind']}){own}")
    if "precision" in info:
        part = info["precision"]
        own = "the own one among them" if part["own_report_is_a_candidate"] else "the own one left out"
        chance = "" if part["chance"] is None else f", chance {part['chance']:.3f}"
        few = f"; too few of {', '.join(part['classes_left_out'])}" if part["classes_left_out"] else ""
        if part["candidates"] > 0:
            lines.append(f"precision@K: {part['candidates']} reports of single-finding studies, {own}, "
                         f"{part['per_class']} in each of {len(part['classes'])} classes{chance}{few}")
        else:
            lines.append(f"precision@K: undefined without two classes of single-finding studies{few}")
    if "volumes" in info:
        part = info["volumes"]
        own = "the own scan left out" if info["mode"] == "clean" else \
            "the query and its scan among them, and each K averages the smaller ones too"
        lines.append(f"jaccard@K (printed as MAP@K in the literature): {part['queries']} volumes as queries, "
                     f"{part['gallery']} with a positive label as candidates, {own}")
        if info["mode"] == "clean":
            lines.append(f"recall@K: {part['reports']} reports of {part['scans']} scans")
        else:
            lines.append(f"recall@K: a pool of {part['pool']} volumes; @first: of the {part['pool_first']} that are "
                         "the first of their scan")
    if "recall" in info:
        part = info["recall"]
        lines.append(f"recall@K: {part['reports']} reports, one per study ({part['distinct_reports']} counted as "
                     f"distinct), {part['images']} images; a hit is {part['hit']}")
    return lines

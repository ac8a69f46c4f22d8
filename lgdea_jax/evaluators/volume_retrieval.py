"""Retrieval of CT volumes: volume -> volume by their labels ("MAP@K" in the literature), report -> volume.

- retrieval/jaccard@K: mean Jaccard index of the positive labels over the K nearest volumes by cosine.
- retrieval/map@K ("clean" only): a true mean average precision, where sharing a positive label is relevant.
- retrieval/recall@K/text_to_image: a report finds its volume among those of all scans.

Modes: "official" does as CT-CLIP's scripts do, quirks included (`metrics/volume_retrieval.py` lists them); "clean"
leaves the query's scan out of the gallery, and any volume whose report has the same words is a hit. The literature has
two pools, all volumes or the first of each scan, and often does not say which. "official" prints both: names with
"@first" are of the second; and RadFinder's MAP, `retrieval/map_over_k@K`, beside CT-CLIP's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lgdea_jax.errors import choose
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.retrieval import MODES, RetrievalSamples, same_text
from lgdea_jax.evaluators.samples import Evaluator
from lgdea_jax.findings.vocabulary import NO_FINDING
from lgdea_jax.metrics import recall
from lgdea_jax.metrics import volume_retrieval as metric
from lgdea_jax.records import POSITIVE


@dataclasses.dataclass(frozen=True)
class VolumeRetrieval(Evaluator):
    """Retrieval on a split of volumes.

    Attributes:
      data: volumes and reports; volumes with an equal key in `scans` are reconstructions of one scan.
      mode: "clean" or "official".
    """

    data: EvalData
    mode: str = "clean"

    def __post_init__(self) -> None:
        choose("mode", self.mode, MODES)

    def run(self, model: Model | Encoder) -> RetrievalSamples:
        """Ranks in blocks of queries: nothing of size volumes x volumes is held."""
        data, encoder = self.data, Encoder.of(model, self.data)
        n = len(data.images)
        real = np.array([name != NO_FINDING for name in data.label_names], bool)
        positive = (data.labels == POSITIVE) & real
        scans = data.scans if len(data.scans) == n else np.arange(n)
        first = np.sort(np.unique(scans, return_index=True)[1])
        columns: dict[str, np.ndarray] = {}

        def put(name: str, ks: tuple[int, ...], found: np.ndarray, rows: np.ndarray | slice = slice(0, n)) -> None:
            for c, k in enumerate(ks):
                column = columns.setdefault(name.format(k), np.full(n + len(data.reports), np.nan))
                column[rows] = found[:, c]

        embeddings = encoder.images()
        if self.mode == "official":
            put("retrieval/jaccard@{}", metric.KS, metric.jaccard_official(embeddings, positive))
            put("retrieval/map_over_k@{}", metric.KS, metric.average_precision_over_k(embeddings, positive))
            put("retrieval/map_over_k@{}@first", metric.KS,
                metric.average_precision_over_k(embeddings[first], positive[first]), first)
        else:
            gain, precision = metric.jaccard_clean(embeddings, positive, scans)
            put("retrieval/jaccard@{}", metric.KS, gain)
            put("retrieval/map@{}", metric.KS, precision)
        paired = np.flatnonzero(data.report_of >= 0)
        words = np.unique(data.report_of[paired])
        texts = encoder.texts([data.reports[r] for r in words], [data.phrases[r] for r in words])[0]
        name = "retrieval/recall@{}/text_to_image"
        put(name, metric.RECALL_KS, np.full((n, len(metric.RECALL_KS)), np.nan))
        if self.mode == "official":
            for pool, rows in (("", paired), ("@first", np.intersect1d(first, paired))):
                own = texts[np.searchsorted(words, data.report_of[rows])]
                put(name + pool, metric.RECALL_KS,
                    metric.recall_official(metric.unit(own), metric.unit(embeddings[rows])), rows)
        elif len(paired):
            group = same_text([data.reports[r] for r in words])
            of_volume = group[np.searchsorted(words, data.report_of[paired])]
            found = recall.recall_both_ways(embeddings[paired], texts, of_volume, group, metric.RECALL_KS)[1]
            found[:, [k > len(paired) for k in metric.RECALL_KS]] = np.nan
            put(name, metric.RECALL_KS, found, n + words)
        info: dict[str, Any] = {"mode": self.mode, "images": n, "volumes": {
            "queries": int(n if self.mode == "official" else positive.any(1).sum()),
            "gallery": int(positive.any(1).sum()), "scans": len(first), "reports": len(words),
            "pool": len(paired), "pool_first": int(np.isin(first, paired).sum())}}
        names = tuple(columns)
        return RetrievalSamples(np.concatenate([data.subjects, data.report_subjects]),
                                {"values": np.stack([columns[name] for name in names], 1)}, {"metrics": names}, info)

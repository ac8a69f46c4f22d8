"""Retrieval between images and reports.

- precision@K: the 5x200 protocol on any data set. Queries and candidates come from studies with exactly one positive
  finding, equally many of each (a seeded draw); a query image ranks the reports, and the share of its own class among
  the first K counts.
- recall@K: image -> its report among the reports of all studies with images, and report -> its image.
- jaccard@K and map@K: query images with any positive finding rank the reports of all other studies; worth is the
  Jaccard index of the positive labels, or that they share one.

Modes: "clean" leaves the query's own report out of precision@K, jaccard@K and map@K, and in recall@K any report of the
same words is a hit. "official" does as public scripts do: the own report is a candidate, and only the paired index is
a hit. In both, ties share their ranks (`metrics/retrieval.py`). Values depend on the gallery: its size is in `info`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from lgdea_jax.errors import choose
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.samples import Evaluator, Samples, weighted_mean
from lgdea_jax.findings.vocabulary import NO_FINDING
from lgdea_jax.metrics import recall, retrieval
from lgdea_jax.records import POSITIVE, UNCERTAIN

MODES = ("clean", "official")
PRECISION_KS = (1, 2, 5, 10)
RECALL_KS = (1, 5, 10)

# Scores of one block of queries: 4M floats.
_BLOCK = 4_000_000


@dataclasses.dataclass(frozen=True)
class RetrievalSamples(Samples):
    """`arrays["values"]`: float64 [N, M], the query's value of metric `names["metrics"][m]`, NaN where it is no query.

    Rows are the images, then the reports. In a bootstrap the queries are resampled and the gallery is held fixed.

    `info`: mode, images, candidates (reports), and for each protocol its gallery: "precision" (candidates, queries,
    classes, per_class, chance, ceiling by K), "recall" (reports, distinct_reports, images, what a hit is), "overlap"
    (queries, candidates), or "class_candidates" and "volumes" of the other retrieval evaluators.
    """

    task: ClassVar[str] = "retrieval"

    def image_rows(self) -> np.ndarray:
        """As in `Samples`."""
        images = self.info["images"]
        return np.where(np.arange(len(self.subjects)) < images, np.arange(len(self.subjects)), -1)

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """Means over the queries."""
        means = weighted_mean(self.arrays["values"], weights)
        if weights is None:
            return {name: float(value) for name, value in zip(self.names["metrics"], means)}
        return {name: means[:, m] for m, name in enumerate(self.names["metrics"])}

    def sizes(self) -> dict[str, int]:
        """Number of queries."""
        return dict(zip(self.names["metrics"], (~np.isnan(self.arrays["values"])).sum(0).tolist()))


@dataclasses.dataclass(frozen=True)
class Retrieval(Evaluator):
    """Retrieval on a split.

    Attributes:
      data: images and reports.
      mode: "clean" or "official".
      seed: of the draw that balances the classes.
      per_class: at most so many studies of each class for precision@K.
      min_per_class: classes with fewer are left out (and listed).
    """

    data: EvalData
    mode: str = "clean"
    seed: int = 0
    per_class: int = 200
    min_per_class: int = 5

    def __post_init__(self) -> None:
        choose("mode", self.mode, MODES)

    def run(self, model: Model | Encoder) -> RetrievalSamples:
        """Ranks and counts in blocks of queries: nothing of size images x reports is held."""
        data, encoder = self.data, Encoder.of(model, self.data)
        images, reports = len(data.images), len(data.reports)
        columns: dict[str, np.ndarray] = {}
        info: dict[str, Any] = {"mode": self.mode, "gallery_unit": "report of a study", "candidates": reports,
                                "images": images}
        texts = _Gallery(encoder, range(reports))
        self._precision(encoder, texts, columns, info)
        self._recall(encoder, texts, columns, info)
        self._overlap(encoder, texts, columns, info)
        names = tuple(columns)
        values = np.full((images + reports, len(names)), np.nan)
        for m, column in enumerate(columns.values()):
            values[:, m] = column
        return RetrievalSamples(np.concatenate([data.subjects, data.report_subjects]), {"values": values},
                                {"metrics": names}, info)

    def _columns(self, ks: Sequence[int]) -> dict[int, np.ndarray]:
        return {k: np.full(len(self.data.images) + len(self.data.reports), np.nan) for k in ks}

    def _precision(self, encoder: Encoder, texts: _Gallery, columns: dict[str, np.ndarray], info: dict[str, Any],
                   ) -> None:
        """precision@K, restricted to studies with one positive finding."""
        data = self.data
        chosen, classes, left_out = self._single_class_studies()
        gallery = texts.only(chosen)
        queries = np.flatnonzero(np.isin(data.report_of, chosen))
        of_candidate = classes[chosen]
        own = self.mode == "clean"
        available = max(0, len(chosen) - own)
        per_class = len(chosen) // max(1, len(np.unique(of_candidate)))
        names = sorted({data.label_names[c] for c in of_candidate})
        info["precision"] = {
            "candidates": available, "queries": len(queries), "classes": names, "per_class": per_class,
            "own_report_is_a_candidate": not own, "classes_left_out": left_out,
            "chance": (per_class - own) / available if available > 0 else None}
        ks = [k for k in PRECISION_KS if k <= available]
        info["precision"]["ceiling"] = {str(k): min(1.0, (per_class - own) / k) for k in ks}
        out = self._columns(PRECISION_KS)
        excluded = data.report_of[queries] if own else np.full(len(queries), -1)
        found = class_precision(lambda rows: gallery.scores(encoder.images()[queries[rows]]),
                                classes[data.report_of[queries]], of_candidate, excluded, chosen, ks)
        for c, k in enumerate(ks):
            out[k][queries] = found[:, c]
        columns |= {f"retrieval/precision@{k}": column for k, column in out.items()}

    def _single_class_studies(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(chosen reports ascending, class of every report or -1, names of classes that are too small)."""
        data = self.data
        real = np.array([name != NO_FINDING for name in data.label_names], bool)
        positive = (data.report_labels == POSITIVE) & real
        uncertain = (data.report_labels == UNCERTAIN) & real
        pictured = np.isin(np.arange(len(data.reports)), data.report_of)
        single = (positive.sum(1) == 1) & ~uncertain.any(1) & pictured
        classes = np.where(single, positive.argmax(1) if positive.shape[1] else 0, -1)
        counts = np.bincount(classes[single], minlength=len(real))
        kept = np.flatnonzero(counts >= max(1, self.min_per_class))
        left_out = [data.label_names[c] for c in np.flatnonzero((counts > 0) & (counts < max(1, self.min_per_class)))]
        if len(kept) < 2:  # One class: every candidate is right.
            return np.zeros(0, np.int64), classes, left_out + [data.label_names[c] for c in kept]
        size = min(self.per_class, int(counts[kept].min()))
        rng = np.random.default_rng(self.seed)
        drawn = [rng.choice(np.flatnonzero(classes == c), size, replace=False) for c in kept]
        return np.sort(np.concatenate(drawn)), classes, left_out

    def _recall(self, encoder: Encoder, texts: _Gallery, columns: dict[str, np.ndarray], info: dict[str, Any],
                ) -> None:
        """recall@K both ways."""
        data, n = self.data, len(self.data.images)
        queries = np.flatnonzero(data.report_of >= 0)
        chosen = np.unique(data.report_of[queries])  # Reports with an image, in order.
        group = same_text([data.reports[r] for r in chosen]) if self.mode == "clean" else np.arange(len(chosen))
        of_image = group[np.searchsorted(chosen, data.report_of[queries])]
        info["recall"] = {"reports": len(chosen), "images": len(queries), "distinct_reports": len(set(group.tolist())),
                          "hit": "any report of the same words" if self.mode == "clean" else "the paired index"}
        to_text, to_image = self._columns(RECALL_KS), self._columns(RECALL_KS)
        pictures = encoder.images()[queries]
        words = texts.embeddings(chosen) if len(chosen) else np.zeros((0, pictures.shape[1]), np.float32)
        found = recall.recall_both_ways(pictures, words, of_image, group, RECALL_KS)
        for c, k in enumerate(RECALL_KS):
            if k <= len(chosen):  # In a smaller gallery everything would be a hit.
                to_text[k][queries] = found[0][:, c]
            if k <= len(queries):
                to_image[k][n + chosen] = found[1][:, c]
            columns[f"retrieval/recall@{k}/image_to_text"] = to_text[k]
            columns[f"retrieval/recall@{k}/text_to_image"] = to_image[k]

    def _overlap(self, encoder: Encoder, texts: _Gallery, columns: dict[str, np.ndarray], info: dict[str, Any],
                 ) -> None:
        """jaccard@K and map@K over all reports."""
        data = self.data
        real = np.array([name != NO_FINDING for name in data.label_names], bool)
        of_image, of_report = (data.labels == POSITIVE) & real, (data.report_labels == POSITIVE) & real
        queries = np.flatnonzero(of_image.any(1))
        own = self.mode == "clean"
        ks = [k for k in PRECISION_KS if k <= len(data.reports) - own]
        info["overlap"] = {"queries": len(queries), "candidates": len(data.reports) - own}
        gain, precision = self._columns(PRECISION_KS), self._columns(PRECISION_KS)
        for rows in _blocks(queries, len(data.reports)):
            if not ks:
                break
            scores = texts.scores(encoder.images()[rows])
            if own:
                scores = np.where(data.report_of[rows][:, None] == np.arange(len(data.reports)), -np.inf, scores)
            worth = retrieval.jaccard(of_image[rows], of_report)
            by_jaccard = retrieval.rank_profile(scores, worth, max(ks))
            by_sharing = retrieval.rank_profile(scores, worth > 0, max(ks))
            for k in ks:
                gain[k][rows] = retrieval.mean_gain_at_k(by_jaccard, k)
                precision[k][rows] = retrieval.average_precision_at_k(by_sharing, k)
        columns |= {f"retrieval/map@{k}": column for k, column in precision.items()}
        columns |= {f"retrieval/jaccard@{k}": column for k, column in gain.items()}


def class_precision(scores: Callable[[np.ndarray], np.ndarray], of_query: np.ndarray, of_candidate: np.ndarray,
                    excluded: np.ndarray, candidates: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Share of the query's class among its first K candidates, float64 [Q, len(ks)], in blocks of queries.

    Args:
      scores: rows of queries -> float [rows, N].
      of_query: [Q], of_candidate: [N], classes.
      excluded: [Q], the id of the candidate that a query may not find (its own report), -1 for none.
      candidates: [N], ids.
      ks: each at most the number of candidates that a query has.
    """
    out = np.full((len(of_query), len(ks)), np.nan)
    for rows in _blocks(np.arange(len(of_query)), len(candidates)) if ks else ():
        table = np.where(excluded[rows][:, None] == candidates[None, :], -np.inf, scores(rows))
        profile = retrieval.rank_profile(table, of_query[rows][:, None] == of_candidate[None, :], max(ks))
        for c, k in enumerate(ks):
            out[rows, c] = retrieval.mean_gain_at_k(profile, k)
    return out


class _Gallery:
    """Report embeddings, each distinct input once: equal reports then get equal scores, to the last bit."""

    def __init__(self, encoder: Encoder, reports: range | np.ndarray, parts: tuple[np.ndarray, ...] | None = None,
                 ) -> None:
        if parts is None:
            data = encoder.data
            keys = [(data.reports[r], data.phrases[r]) for r in reports]
            distinct = {key: i for i, key in enumerate(dict.fromkeys(keys))}
            embeddings, _ = encoder.texts([key[0] for key in distinct], [key[1] for key in distinct])
            parts = embeddings, np.array([distinct[key] for key in keys], np.int64)
        self._embeddings, self._row = parts

    def only(self, reports: np.ndarray) -> _Gallery:
        """The gallery of those reports."""
        used, row = np.unique(self._row[reports], return_inverse=True)
        return _Gallery(None, reports, (self._embeddings[used], row))  # type: ignore[arg-type]

    def embeddings(self, reports: np.ndarray) -> np.ndarray:
        """float32 [len(reports), E]."""
        return self._embeddings[self._row[reports]]

    def scores(self, images: np.ndarray) -> np.ndarray:
        """float32 [B, reports]."""
        return np.take(images @ self._embeddings.T, self._row, axis=1)


def _blocks(rows: np.ndarray, width: int) -> list[np.ndarray]:
    step = max(1, _BLOCK // max(1, width))
    return [rows[start:start + step] for start in range(0, len(rows), step)]


def same_text(texts: list[str]) -> np.ndarray:
    """Group numbers: equal for texts with the same words, whatever the white space."""
    groups: dict[str, int] = {}
    return np.array([groups.setdefault(" ".join(text.split()), len(groups)) for text in texts], np.int64)

"""Precision@K of the 5x200 protocol: an image of one class ranks texts of all classes, and the share of its own counts.

Candidates are the reports of the images themselves, or, where there are none, the prompts of each class (equally many
of each, so that chance is the same for all). Modes: in "clean" the query's own report is no candidate; in "official" it
is, as in public scripts. Values depend on what the candidates are: see `info`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from lgdea_jax.errors import UserError, choose
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder, Model
from lgdea_jax.evaluators.retrieval import MODES, RetrievalSamples, class_precision
from lgdea_jax.evaluators.samples import Evaluator
from lgdea_jax.evaluators.zero_shot import Prompts
from lgdea_jax.findings import prompts
from lgdea_jax.records import POSITIVE

KS = (1, 2, 5, 10, 100)
CANDIDATES = ("auto", "reports", "prompts")


@dataclasses.dataclass(frozen=True)
class ClassRetrieval(Evaluator):
    """Image -> texts of its class.

    Attributes:
      data: images of exactly one class each (others are no queries); `label_names` are the classes.
      mode: "clean" or "official".
      candidates: one of CANDIDATES; "auto" takes the reports if every query image has one.
      prompts: of classes that do not use those of `findings/prompts.py`.
    """

    data: EvalData
    mode: str = "clean"
    candidates: str = "auto"
    prompts: Mapping[str, Prompts] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        choose("mode", self.mode, MODES)
        choose("candidates", self.candidates, CANDIDATES)

    def run(self, model: Model | Encoder) -> RetrievalSamples:
        """Ranks the candidates for every image of one class.

        Raises:
          UserError: reports are wanted and an image has none.
        """
        encoder, data = Encoder.of(model, self.data), self.data
        positive = data.labels == POSITIVE
        queries = np.flatnonzero(positive.sum(1) == 1)
        of_image = np.where(positive.sum(1) == 1, positive.argmax(1) if positive.shape[1] else 0, -1)
        reports = bool(len(queries)) and bool((data.report_of[queries] >= 0).all())
        if self.candidates == "reports" and not reports:
            raise UserError("--candidates=reports, but some of the images have no report")
        if reports and self.candidates != "prompts":
            ids = np.unique(data.report_of[queries])
            class_of = dict(zip(data.report_of[queries].tolist(), of_image[queries].tolist()))
            of_text = np.array([class_of[report] for report in ids.tolist()])
            vectors = encoder.texts([data.reports[i] for i in ids], [data.phrases[i] for i in ids])[0]
            excluded = data.report_of[queries] if self.mode == "clean" else np.full(len(queries), -1)
            kind = "reports of the images"
        else:
            texts = [self.prompts[name][0] if name in self.prompts else prompts.positive_prompts(
                name, style=data.style) for name in data.label_names]
            each = min(map(len, texts))
            of_text = np.repeat(np.arange(len(texts)), each)
            ids, excluded = np.arange(len(of_text)), np.full(len(queries), -1)
            vectors = encoder.prompts([sentence for group in texts for sentence in group[:each]])[0]
            kind = f"{each} prompts of each class"
        available = len(ids) - bool((excluded >= 0).any())
        ks = [k for k in KS if k <= available] if len(queries) else []
        values = np.full((len(data.images), len(KS)), np.nan)
        values[queries, :len(ks)] = class_precision(lambda rows: encoder.images()[queries[rows]] @ vectors.T,
                                                    of_image[queries], of_text, excluded, ids, ks)
        sizes = np.bincount(of_text, minlength=len(data.label_names))
        info = {"mode": self.mode, "images": len(data.images), "class_candidates": {
            "kind": kind, "candidates": available, "queries": len(queries),
            "of_each": {name: int(n) for name, n in zip(data.label_names, sizes)}}}
        return RetrievalSamples(data.subjects, {"values": values},
                                {"metrics": tuple(f"retrieval/precision@{k}" for k in KS)}, info)

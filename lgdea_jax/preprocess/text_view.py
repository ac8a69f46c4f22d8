"""The text that a method reads, as tokens of a fixed shape: whole reports, their evidence, or single phrases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lgdea_jax import records
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.vocabulary import FINDINGS
from lgdea_jax.preprocess.evidence_text import NO_FINDING, canonical_phrase, usable_evidence
from lgdea_jax.preprocess.text import TextTokenizer

FINDING_IDS: Mapping[str, int] = {finding.name: index for index, finding in enumerate(FINDINGS)}


@dataclasses.dataclass(frozen=True)
class TextView:
    """Which text a method reads, as fixed-shape tokens.

    Attributes:
      kind: "report" (the whole report, [T]), "evidence" (its evidence phrases in one text, [T]), "phrases" (one row a
        phrase, [P, T]).
      length: T, tokens of a row.
      phrases: P, phrases kept of a report (present ones before uncertain ones).
      uncertain_weight: weight of a phrase that the report hedges, in [0, 1]; a present one has 1.
      variants: the wordings of a phrase in training, one drawn at random: "verbatim" (the report's own words) and
        "canonical" ("small right pleural effusion", written from the extracted attributes).
    """

    kind: str
    length: int
    phrases: int
    uncertain_weight: float
    variants: tuple[str, ...]

    def __post_init__(self) -> None:
        choose("text.kind", self.kind, ("report", "evidence", "phrases"))
        if not self.variants:
            raise UserError("text.variants: at least one of verbatim, canonical")
        for variant in self.variants:
            choose("text variant", variant, ("verbatim", "canonical"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one report's tokens: (T,) or (P, T)."""
        return (self.phrases, self.length) if self.kind == "phrases" else (self.length,)

    @property
    def num_variants(self) -> int:
        """Wordings of a report, of which training draws one; a whole report has one."""
        return 1 if self.kind == "report" else len(self.variants)

    def tokens(self, reports: Sequence[str], phrases: Sequence[Sequence[str]], tokenizer: TextTokenizer) -> np.ndarray:
        """int32 [N, *shape]: tokens of N reports with their evidence phrases, of which the first P count."""
        phrases = [some[: self.phrases] for some in phrases]
        if self.kind == "report":
            return tokenizer.encode(reports, self.length)
        if self.kind == "evidence":
            return tokenizer.encode([". ".join(some) for some in phrases], self.length)
        tokens = np.full((len(phrases), *self.shape), tokenizer.pad_id, np.int32)
        for row, some in zip(tokens, phrases, strict=True):
            if some:
                row[: len(some)] = tokenizer.encode(some, self.length)
        return tokens


def phrases_of(record: records.Record, view: TextView, variant: str) -> list[tuple[str, int, float]]:
    """(phrase, finding id, weight) of a record's report; a stated normal study gives "no finding" (id -1)."""
    items = usable_evidence(record.evidence, limit=view.phrases)
    if not items:
        return [(NO_FINDING, -1, 1.0)] if record.normal else []
    write = canonical_phrase if variant == "canonical" else lambda evidence: evidence.phrase
    weights = {"present": 1.0, "uncertain": view.uncertain_weight}
    return [(write(item), FINDING_IDS.get(item.finding, -1), weights[item.certainty]) for item in items]


def encode_text(record: records.Record, view: TextView, tokenizer: TextTokenizer) -> dict[str, np.ndarray]:
    """Tokens of one record's report.

    Returns:
      tokens: int32 [V, T] ("report", "evidence") or [V, P, T] ("phrases"), V = `view.num_variants`.
      weight: float32 [P], 0 where there is no phrase; finding: int32 [P], -1 where there is none.
      normal: bool, normality is stated and nothing else.
    """
    per_variant = [phrases_of(record, view, variant) for variant in view.variants[: view.num_variants]]
    weight = np.zeros([view.phrases], np.float32)
    finding = np.full([view.phrases], -1, np.int32)
    for slot, (_, number, value) in enumerate(per_variant[0]):
        weight[slot], finding[slot] = value, number
    wordings = [[text for text, _, _ in phrases] for phrases in per_variant]
    tokens = view.tokens([record.report] * len(wordings), wordings, tokenizer)
    normal = bool(record.normal and not usable_evidence(record.evidence, limit=1))
    return {"tokens": tokens, "weight": weight, "finding": finding, "normal": np.asarray(normal)}

"""A report's statement about a finding as one of the five ordinal `measures.LEVELS`, from labels or from evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.extract.schema import Extraction
from data_prep.scoring import measures
from lgdea_jax.findings import hedging
from lgdea_jax.findings.label_sets import labels_from_evidence
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN

_OF_LABEL = {POSITIVE: measures.PRESENT, NEGATIVE: measures.ABSENT, UNCERTAIN: measures.LIKELY,
             MISSING: measures.UNMENTIONED}


def of_labels(labels: np.ndarray) -> np.ndarray:
    """Labels int8 of `records` to levels int8 of the same shape; UNCERTAIN is LIKELY."""
    return np.vectorize(_OF_LABEL.get, otypes=[np.int8])(labels)


def of_extractions(extractions: Iterable[Extraction], names: Sequence[str]) -> np.ndarray:
    """Grades int8 [reports, names]; a label that is UNCERTAIN only through what is merely possible is POSSIBLE."""
    pairs = [[labels_from_evidence(chosen(item.evidence), item.normal, names)
              for chosen in (tuple, hedging.without_possibilities)] for item in extractions]
    labels, surer = np.moveaxis(np.array(pairs, np.int8).reshape(-1, 2, len(names)), 1, 0)
    levels = of_labels(labels)
    levels[(labels == UNCERTAIN) & (surer != UNCERTAIN)] = measures.POSSIBLE
    return levels

"""Named lists of findings, and how the evidence of a report becomes one label per finding.

Orders are the official ones: `chexpert14` as the CheXpert labeler writes it, `ct_rate18` as CT-RATE's label files,
`chestxray14` as listed by Wang et al. Names are ours (`vocabulary.find` maps the official spellings to them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.vocabulary import BY_NAME, NO_FINDING
from lgdea_jax.records import LABEL_SETS_OF_RECORDS, MISSING, NEGATIVE, POSITIVE, UNCERTAIN, Evidence

LABEL_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "chexpert14": (
        "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema",
        "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
        "Support Devices"),
    "chexpert5": ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
    "chestxray14": (
        "Atelectasis", "Cardiomegaly", "Pleural Effusion", "Infiltrate", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
        "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia"),
    "chestxdet10": (
        "Atelectasis", "Calcification", "Consolidation", "Pleural Effusion", "Emphysema", "Fibrosis", "Fracture",
        "Mass", "Nodule", "Pneumothorax"),
    "vindr28": (
        "Aortic Enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle Fracture", "Consolidation",
        "Edema", "Emphysema", "Enlarged Pulmonary Artery", "Interstitial Lung Disease", "Infiltrate", "Lung Opacity",
        "Cavitation", "Lung Cyst", "Mediastinal Shift", "Nodule Or Mass", "Pleural Effusion", "Pleural Thickening",
        "Pneumothorax", "Fibrosis", "Rib Fracture", "Other Lesion", "COPD", "Lung Tumor", "Pneumonia", "Tuberculosis",
        "Other Disease", "No Finding"),
    "ms_cxr8": (
        "Cardiomegaly", "Lung Opacity", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax",
        "Pleural Effusion"),
    "covidx3": ("No Finding", "Pneumonia", "COVID-19"),
    "ct_rate18": (
        "Medical Material", "Arterial Wall Calcification", "Cardiomegaly", "Pericardial Effusion",
        "Coronary Artery Wall Calcification", "Hernia", "Lymphadenopathy", "Emphysema", "Atelectasis", "Nodule",
        "Lung Opacity", "Pulmonary Fibrotic Sequela", "Pleural Effusion", "Mosaic Attenuation Pattern",
        "Peribronchial Thickening", "Consolidation", "Bronchiectasis", "Interlobular Septal Thickening"),
    "openi33": (
        "No Finding", "Cardiomegaly", "Enlarged Cardiomediastinum", "Lung Opacity", "Consolidation", "Infiltrate",
        "Pneumonia", "Edema", "Pulmonary Congestion", "Atelectasis", "Pneumothorax", "Pleural Effusion",
        "Costophrenic Blunting", "Pleural Other", "Nodule", "Mass", "Lung Lesion", "Granuloma", "Calcification Other",
        "Emphysema", "COPD", "Hyperinflation", "Low Lung Volume", "Fibrosis", "Scar", "Hernia", "Fracture",
        "Support Devices", "Surgical Hardware", "Scoliosis Or Kyphosis", "Degenerative Spine", "Aortic Abnormality",
        "Elevated Diaphragm"),
    "phantom": (
        "Nodule", "Mass", "Consolidation", "Pleural Effusion", "Pneumothorax", "Cardiomegaly", "Atelectasis", "Edema",
        "Fracture", "Emphysema", "Hernia", "Granuloma"),
})

# How a set of labels other than the reference is marked in `label_names`.
LABEL_PREFIX = "{}:"

# Stronger statements win: a finding called present anywhere in the report is present.
_STRENGTH = {"absent": 1, "uncertain": 2, "present": 3}
_LABEL = {0: MISSING, 1: NEGATIVE, 2: UNCERTAIN, 3: POSITIVE}


def strengths(evidence: Sequence[Evidence]) -> dict[str, int]:
    """Strongest statement about each finding: 1 absent, 2 uncertain, 3 present; findings not mentioned are left out.

    Historical evidence ("history of pneumonia") is not about this study and is left out.
    """
    found: dict[str, int] = {}
    for item in evidence:
        if item.temporality != "historical":
            found[item.finding] = max(found.get(item.finding, 0), _STRENGTH[item.certainty])
    return found


def labels_from_evidence(evidence: Sequence[Evidence], normal: bool, names: Sequence[str], *,
                         unmentioned: int = MISSING, hierarchy: bool = False) -> np.ndarray:
    """One label per name from a report's evidence.

    A finding takes the strongest statement about it or, for present and uncertain ones, about its members (a nodule is
    a lung lesion). It is absent through its members only when all of them are. "No Finding" is POSITIVE when normality
    is stated and nothing but devices is present or uncertain, NEGATIVE when something is. In a study stated normal,
    diseases that are not mentioned are NEGATIVE; devices are not (a normal chest may hold a pacemaker).

    Args:
      evidence: statements of one report.
      normal: whether the report states normality.
      names: canonical finding names.
      unmentioned: MISSING or NEGATIVE, the label of findings that the report does not mention.
      hierarchy: also lets present and uncertain findings rise to their CheXpert parents.

    Returns:
      int8 [len(names)] of POSITIVE, NEGATIVE, UNCERTAIN, MISSING.
    """
    if unmentioned not in (MISSING, NEGATIVE):
        raise ValueError(f"unmentioned must be MISSING or NEGATIVE, not {unmentioned}")
    found = strengths(evidence)
    if hierarchy:
        _raise_to_parents(found)
    abnormal = any(strength > 1 and BY_NAME[name].kind == "disease" for name, strength in found.items())
    labels = np.empty(len(names), np.int8)
    for i, name in enumerate(names):
        if name == NO_FINDING:
            labels[i] = NEGATIVE if abnormal else POSITIVE if normal else unmentioned
            continue
        strength = _with_members(name, found)
        if strength:
            labels[i] = _LABEL[strength]
        elif normal and not abnormal and BY_NAME[name].kind == "disease":
            labels[i] = NEGATIVE
        else:
            labels[i] = unmentioned
    return labels


def _with_members(name: str, found: Mapping[str, int]) -> int:
    own, members = found.get(name, 0), BY_NAME[name].members
    if not members:
        return own
    below = [_with_members(member, found) for member in members]
    return max(own, max(below) if max(below) > 1 else min(below))


def _raise_to_parents(found: dict[str, int]) -> None:
    pending = [name for name, strength in found.items() if strength > 1]
    while pending:
        name = pending.pop()
        for parent in BY_NAME[name].parents:
            if found.get(parent, 0) < found[name]:
                found[parent] = found[name]
                pending.append(parent)


def own_label_set(label_names: Sequence[str]) -> str:
    """The set of labels that an evaluation goes by unless told otherwise: the first one that the data set has.

    Returns:
      One of `records.LABEL_SETS_OF_RECORDS`, in their order; "reference" where there is no label at all.
    """
    kinds = {prefix if prefix in LABEL_SETS_OF_RECORDS else LABEL_SETS_OF_RECORDS[0]
             for prefix in (name.partition(":")[0] for name in label_names)}
    return next((kind for kind in LABEL_SETS_OF_RECORDS if kind in kinds), LABEL_SETS_OF_RECORDS[0])


def label_columns(label_names: Sequence[str], labels: str = "") -> dict[str, int]:
    """The columns of `Record.labels` that belong to one set of labels.

    Args:
      label_names: the data set's. Names outside the reference set start with their set and a colon ("silver:Nodule").
      labels: one of `records.LABEL_SETS_OF_RECORDS`; "" and "reference" are the names without a prefix.

    Returns:
      {finding: column}.

    Raises:
      UserError: unknown set, or the data set has none of its labels.
    """
    if labels:
        choose("data.labels", labels, LABEL_SETS_OF_RECORDS)
    prefix = "" if labels in ("", "reference") else LABEL_PREFIX.format(labels)
    found = {name.removeprefix(prefix): column for column, name in enumerate(label_names)
             if (name.startswith(prefix) if prefix else name.partition(":")[0] not in LABEL_SETS_OF_RECORDS)}
    if prefix and not found:
        raise UserError(f"data.labels={labels}: the data set has no such labels; build it with "
                        f"--config.derived_labels={labels}")
    return found

"""Labels, sides and anatomical sites from the MeSH codes of the Open-I reports.

A code is "heading/qualifier/..."; qualifiers mix site, side, severity and kind in any order. Coders wrote down what is
there: no code means denied or not mentioned. "normal" alone is a normal study, "No Indexing" one without codes.
(Demner-Fushman et al., JAMIA 2016;23(2):304-310.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from data_prep.study import Attribute
from lgdea_jax.findings.label_sets import LABEL_PREFIX
from lgdea_jax.findings.protocol_labels import OPENI18
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE

NORMAL, NOT_CODED = "normal", "no indexing"


@dataclasses.dataclass(frozen=True)
class Rule:
    """A finding is coded by one of `headings` with, where given, one of `needs` and none of `without` as qualifier."""

    finding: str
    headings: frozenset[str]
    needs: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()


def _rule(finding: str, headings: str, needs: str = "", without: str = "") -> Rule:
    return Rule(finding, *(frozenset(filter(None, text.split("|"))) for text in (headings, needs, without)))


RULES = (
    _rule("Enlarged Cardiomediastinum", "mediastinum", "enlarged|prominent", "lymph nodes|paratracheal"),
    _rule("Cardiomegaly", "cardiomegaly"),
    _rule("Cardiomegaly", "cardiac shadow", "enlarged|borderline|prominent"),
    _rule("Lung Lesion", "nodule|mass|cavitation"),
    _rule("Lung Opacity", "airspace disease|infiltrate|consolidation"),
    _rule("Lung Opacity", "opacity|density", "lung|retrocardiac"),
    _rule("Edema", "pulmonary edema"),
    _rule("Consolidation", "consolidation"),
    _rule("Pneumonia", "pneumonia"),
    _rule("Atelectasis", "pulmonary atelectasis"),
    _rule("Pneumothorax", "pneumothorax|hydropneumothorax|hemopneumothorax"),
    _rule("Pleural Effusion", "pleural effusion|hydropneumothorax|hemopneumothorax|hemothorax"),
    _rule("Pleural Other", "thickening|calcinosis|cicatrix|opacity|density", "pleura"),
    _rule("Costophrenic Blunting", "costophrenic angle|costophrenic sulcus|sulcus|pleura", "blunted"),
    _rule("Fracture", "fractures, bone"),
    _rule("Support Devices", "catheters, indwelling|implanted medical device|medical device|tube, inserted"),
    _rule("Surgical Hardware", "surgical instruments|spinal fusion|stents|sutures|breast implants"),
    _rule("Infiltrate", "infiltrate"),
    _rule("Pulmonary Congestion", "pulmonary congestion"),
    _rule("Nodule", "nodule"),
    _rule("Mass", "mass"),
    _rule("Cavitation", "cavitation"),
    _rule("Granuloma", "calcified granuloma|granuloma|granulomatous disease"),
    _rule("Calcification Other", "calcinosis"),
    _rule("Emphysema", "emphysema|pulmonary emphysema|bullous emphysema"),
    _rule("COPD", "pulmonary disease, chronic obstructive"),
    _rule("Hyperinflation", "lung", "hyperdistention"),
    _rule("Hyperinflation", "lung, hyperlucent"),
    _rule("Hyperinflation", "diaphragm", "flattened"),
    _rule("Low Lung Volume", "lung", "hypoinflation"),
    _rule("Fibrosis", "pulmonary fibrosis|fibrosis|lung diseases, interstitial"),
    _rule("Scar", "cicatrix"),
    _rule("Hernia", "hernia, hiatal|hernia, diaphragmatic"),
    _rule("Scoliosis Or Kyphosis", "scoliosis|kyphosis"),
    _rule("Degenerative Spine", "spine|thoracic vertebrae|cervical vertebrae|lumbar vertebrae", "degenerative"),
    _rule("Degenerative Spine", "osteophyte|spondylosis"),
    _rule("Aortic Abnormality", "aorta|aorta, thoracic|aortic aneurysm|atherosclerosis"),
    _rule("Aortic Abnormality", "calcinosis", "aorta|aorta, thoracic"),
    _rule("Elevated Diaphragm", "diaphragm", "elevated"),
    _rule("Elevated Diaphragm", "diaphragmatic eventration"),
    _rule("Subcutaneous Emphysema", "subcutaneous emphysema"),
    _rule("Pericardial Effusion", "pericardial effusion"),
    _rule("Bronchiectasis", "bronchiectasis"),
)

LABEL_NAMES = ("No Finding", *dict.fromkeys(rule.finding for rule in RULES))
PROTOCOL_NAMES = tuple(LABEL_PREFIX.format("protocol") + name for name in OPENI18)


def labels_from_mesh(terms: Iterable[str]) -> dict[str, int]:
    """Labels of one report.

    Args:
      terms: its major MeSH codes.

    Returns:
      LABEL_NAMES -> POSITIVE where coded, else NEGATIVE (denied or not mentioned); all MISSING when it was not coded.
    """
    codes = [[part.strip().lower() for part in term.split("/")] for term in terms if term.strip()]
    if not codes or any(code[0] == NOT_CODED for code in codes):
        return dict.fromkeys(LABEL_NAMES, MISSING)
    labels = dict.fromkeys(LABEL_NAMES, NEGATIVE)
    for code in codes:
        labels.update(dict.fromkeys(_findings(code), POSITIVE))
    if all(code == [NORMAL] for code in codes):
        labels["No Finding"] = POSITIVE
    return labels


def labels_from_automatic(terms: Sequence[str] | None) -> dict[str, int]:
    """CARZero's 18 labels of one report.

    Args:
      terms: its automatic MeSH terms; None where they are not known.

    Returns:
      PROTOCOL_NAMES -> POSITIVE where one of the label's words stands in a term, else NEGATIVE; MISSING without terms.
    """
    if terms is None:
        return dict.fromkeys(PROTOCOL_NAMES, MISSING)
    text = "|".join(sorted({term.lower() for term in terms}))
    return {name: POSITIVE if any(word in text for word in words) else NEGATIVE
            for name, words in zip(PROTOCOL_NAMES, OPENI18.values(), strict=True)}


def _findings(code: Sequence[str]) -> tuple[str, ...]:
    """What one code stands for: its heading, then qualifiers, in lower case."""
    heading, *qualifiers = code
    given = set(qualifiers)
    return tuple(dict.fromkeys(
        rule.finding for rule in RULES
        if heading in rule.headings and (not rule.needs or rule.needs & given) and not rule.without & given))


_SIDES = frozenset(("left", "right", "bilateral"))
# Qualifiers of the site; the others are of size, kind or time.
_SITES = frozenset((
    "lung", "upper lobe", "middle lobe", "lower lobe", "lingula", "base", "apex", "hilum", "interstitial",
    "retrocardiac", "pleura", "costophrenic angle", "mediastinum", "paratracheal", "lymph nodes", "heart", "aorta",
    "aorta, thoracic", "thorax", "ribs", "clavicle", "sternum", "shoulder", "humerus", "spine", "cervical vertebrae",
    "thoracic vertebrae", "lumbar vertebrae", "abdomen", "breast", "neck"))


def attributes_from_mesh(uid: str, terms: Iterable[str]) -> tuple[Attribute, ...]:
    """Where the findings of one report are: an `Attribute` for each finding of each code with a side or site."""
    found = []
    for term in terms:
        code = [part.strip().lower() for part in term.split("/")]
        sides = _SIDES.intersection(code[1:])
        side = "bilateral" if len(sides) > 1 else "".join(sides)
        sites = tuple(part for part in code[1:] if part in _SITES)
        if side or sites:
            found += [Attribute(uid, finding, side, sites) for finding in _findings(code)]
    return tuple(found)

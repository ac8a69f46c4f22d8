"""Prompt sentences for zero-shot classification, worded like the evidence phrases a text tower is trained on.

A bare finding name can invert a finding (it is rare in the training texts), so each class is an ensemble of report
phrases over plausible anatomical regions, sides and severities; the class embedding is the mean over the ensemble.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from lgdea_jax.errors import UserError
from lgdea_jax.findings.vocabulary import LABELLED, NO_FINDING

STYLES = ("cxr", "ct")

BARE = "{}"  # A prompt as it is.
# A short report around a prompt, in words that are not about the findings: for text towers of whole reports, of
# radiographs and of CT. Sentences on airways and oesophagus instead scored CT no better (phantom CT world).
REPORT = "FINDINGS: {} The mediastinal contours are normal. The soft tissues are unremarkable.\nIMPRESSION: {}"


@dataclasses.dataclass(frozen=True)
class _Bank:
    positive: tuple[str, ...]
    negative: tuple[str, ...]


def _cross(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """All combinations of the parts, joined by single spaces, as sentences that start with a capital."""
    texts = [""]
    for part in parts:
        texts = [f"{text} {word}".strip() for text in texts for word in part]
    return tuple(text[0].upper() + text[1:] for text in texts)


_SIDES = ("right", "left")
_LOBES = ("in the right upper lobe", "in the left upper lobe", "in the right middle lobe", "in the right lower lobe",
          "in the left lower lobe")
_BASES = ("at the right lung base", "at the left lung base", "at both lung bases")

_BANKS: Mapping[str, _Bank] = MappingProxyType({
    NO_FINDING: _Bank(
        ("No acute cardiopulmonary abnormality.", "Normal chest.", "No acute disease.", "The lungs are clear.",
         "Heart size and mediastinal contours are normal.",
         "No focal consolidation, pleural effusion or pneumothorax."),
        ("Abnormal chest.", "Acute cardiopulmonary abnormality.", "There is an abnormality in the lungs.",
         "Findings as described above.")),
    "Cardiomegaly": _Bank(
        ("Cardiomegaly", "Mild cardiomegaly", "Moderate cardiomegaly", "Severe cardiomegaly", "Stable cardiomegaly",
         "The heart is enlarged", "The heart is mildly enlarged", "Enlarged cardiac silhouette",
         "The cardiac silhouette is enlarged"),
        ("No cardiomegaly", "Heart size is normal", "Normal heart size", "The heart is normal in size",
         "The cardiac silhouette is within normal limits", "The heart is not enlarged")),
    "Enlarged Cardiomediastinum": _Bank(
        ("Widened mediastinum", "The mediastinum is widened", "Widening of the superior mediastinum",
         "Enlarged cardiomediastinal silhouette", "The cardiomediastinal silhouette is enlarged",
         "Prominent mediastinum"),
        ("No mediastinal widening", "The mediastinum is not widened", "Normal mediastinal contours",
         "The cardiomediastinal silhouette is normal", "Mediastinal contours are unremarkable")),
    "Pleural Effusion": _Bank(
        (*_cross(("small", "moderate", "large"), _SIDES, ("pleural effusion",)), "Small bilateral pleural effusions",
         "Bilateral pleural effusions", "Right-sided pleural effusion", "Left-sided pleural effusion",
         "Trace left pleural effusion", "Pleural effusion is present"),
        ("No pleural effusion", "No pleural effusions", "There is no pleural effusion", "No effusion is seen",
         "Costophrenic angles are sharp", "No evidence of pleural effusion")),
    "Pneumothorax": _Bank(
        (*_cross(("small", "large"), _SIDES, ("pneumothorax",)), "Small right apical pneumothorax",
         "Small left apical pneumothorax", "Right-sided pneumothorax", "Left-sided pneumothorax",
         "There is a pneumothorax", "Tension pneumothorax"),
        ("No pneumothorax", "There is no pneumothorax", "No pneumothorax is seen", "No evidence of pneumothorax",
         "No visible pneumothorax", "No pneumothoraces")),
    "Consolidation": _Bank(
        (*_cross(("consolidation",), (*_LOBES, *_BASES)), "Right lower lobe consolidation",
         "Left lower lobe consolidation", "Right upper lobe consolidation", "Dense airspace consolidation",
         "Multifocal consolidation"),
        ("No consolidation", "No focal consolidation", "There is no focal consolidation", "The lungs are clear",
         "No focal airspace consolidation", "No evidence of consolidation")),
    "Pneumonia": _Bank(
        ("Right lower lobe pneumonia", "Left lower lobe pneumonia", "Right upper lobe pneumonia",
         "Right middle lobe pneumonia", "Multifocal pneumonia", "Findings consistent with pneumonia",
         "Opacity at the left lung base consistent with pneumonia", "Bilateral pneumonia"),
        ("No pneumonia", "No evidence of pneumonia", "There is no pneumonia", "The lungs are clear",
         "No findings to suggest pneumonia")),
    "Lung Opacity": _Bank(
        (*_cross(("patchy opacity",), (*_LOBES, *_BASES)), "Bilateral airspace opacities",
         "Hazy opacity in the right lung", "Hazy opacity in the left lung", "Left basilar opacity",
         "Right basilar airspace disease"),
        ("No focal opacity", "No airspace opacity", "The lungs are clear", "Lungs are clear bilaterally",
         "No focal airspace disease")),
    "Infiltrate": _Bank(
        (*_cross(("infiltrate",), (*_LOBES, *_BASES)), "Right lower lobe infiltrate", "Left lower lobe infiltrate",
         "Bilateral infiltrates", "Patchy infiltrates"),
        ("No infiltrate", "No focal infiltrate", "No infiltrates are seen", "The lungs are clear",
         "No pulmonary infiltrate")),
    "Atelectasis": _Bank(
        (*_cross(("left", "right"), ("basilar", "lower lobe"), ("atelectasis",)), "Bibasilar atelectasis",
         "Linear atelectasis at the left lung base", "Linear atelectasis at the right lung base",
         "Subsegmental atelectasis in the right middle lobe", "Right upper lobe atelectasis",
         "Left upper lobe atelectasis", "Platelike atelectasis", "Mild bibasilar atelectasis"),
        ("No atelectasis", "There is no atelectasis", "No evidence of atelectasis",
         "The lungs are well expanded and clear", "No lobar collapse")),
    "Edema": _Bank(
        ("Pulmonary edema", "Mild pulmonary edema", "Moderate pulmonary edema", "Severe pulmonary edema",
         "Interstitial pulmonary edema", "Alveolar edema in both lungs", "Mild interstitial edema",
         "Bilateral perihilar opacities consistent with pulmonary edema", "Diffuse pulmonary edema"),
        ("No pulmonary edema", "No edema", "There is no pulmonary edema", "No evidence of pulmonary edema",
         "Pulmonary vasculature is normal", "No overt pulmonary edema")),
    "Fracture": _Bank(
        (*_cross(_SIDES, ("rib fracture", "clavicle fracture")), "Displaced right rib fracture",
         "Displaced left rib fracture", "Acute rib fracture", "Fracture of the right lateral rib",
         "Fracture of the left posterior rib", "Healed left rib fractures",
         "Compression fracture of the thoracic spine"),
        ("No fracture", "No acute fracture", "No displaced rib fracture", "No rib fractures",
         "Bony structures are intact", "No acute bony abnormality")),
    "Emphysema": _Bank(
        ("Emphysema", "Emphysematous changes", "Severe emphysema", "Mild emphysema", "Upper lobe emphysema",
         "Emphysema in both upper lobes", "Bullous emphysema", "Hyperlucent lungs with emphysematous changes"),
        ("No emphysema", "No emphysematous changes", "No evidence of emphysema", "There is no emphysema",
         "The lungs are normally expanded")),
    "Nodule": _Bank(
        (*_cross(("nodule",), _LOBES), "Right upper lobe nodule", "Left upper lobe nodule", "Right lower lobe nodule",
         "Left lower lobe nodule", "Small pulmonary nodule", "Solitary pulmonary nodule", "Nodule in the right lung",
         "Nodule in the left lung"),
        ("No nodule", "No pulmonary nodule", "No suspicious pulmonary nodules", "No nodules are seen",
         "No pulmonary nodules or masses")),
    "Mass": _Bank(
        (*_cross(("mass",), _LOBES), "Right upper lobe mass", "Left upper lobe mass", "Right lower lobe mass",
         "Left lower lobe mass", "Large lung mass", "Right hilar mass", "Left hilar mass", "Mass in the right lung",
         "Mass in the left lung"),
        ("No mass", "No pulmonary mass", "No lung mass is seen", "No pulmonary nodules or masses",
         "No suspicious mass")),
    "Lung Lesion": _Bank(
        (*_cross(("nodule", "mass"), _LOBES), "Lung lesion", "Pulmonary mass", "Pulmonary nodule", "Cavitary lesion"),
        ("No lung lesion", "No pulmonary nodule or mass", "No suspicious pulmonary lesion", "No nodules or masses")),
    "Granuloma": _Bank(
        (*_cross(("calcified granuloma",), _LOBES), "Calcified granuloma", "Right calcified granuloma",
         "Left calcified granuloma", "Small calcified nodule in the right lung",
         "Small calcified nodule in the left lung", "Calcified granulomas", "Old granulomatous disease"),
        ("No granuloma", "No calcified granulomas", "No calcified nodules", "No evidence of granulomatous disease")),
    "Hernia": _Bank(
        ("Hiatal hernia", "Small hiatal hernia", "Large hiatal hernia", "Moderate hiatal hernia", "Hiatus hernia",
         "Retrocardiac density consistent with hiatal hernia", "Hiatal hernia behind the heart"),
        ("No hiatal hernia", "No hernia", "There is no hiatal hernia", "No evidence of hiatal hernia")),
    "Pleural Thickening": _Bank(
        ("Pleural thickening", "Right apical pleural thickening", "Left apical pleural thickening",
         "Biapical pleural thickening", "Right pleural thickening", "Left pleural thickening",
         "Mild pleural thickening"),
        ("No pleural thickening", "There is no pleural thickening", "The pleura is normal", "No pleural abnormality")),
    "Pleural Other": _Bank(
        ("Pleural thickening", "Biapical pleural thickening", "Pleural plaques", "Calcified pleural plaques",
         "Right pleural thickening", "Left pleural thickening", "Pleural scarring"),
        ("No pleural thickening", "No pleural plaques", "No pleural abnormality", "The pleura is normal")),
    "Fibrosis": _Bank(
        ("Pulmonary fibrosis", "Interstitial fibrosis", "Bibasilar fibrosis", "Chronic interstitial changes",
         "Upper lobe fibrosis", "Interstitial lung disease", "Fibrotic changes at the lung bases"),
        ("No fibrosis", "No pulmonary fibrosis", "No interstitial lung disease", "No fibrotic changes")),
    "Support Devices": _Bank(
        ("Endotracheal tube in place", "Right central venous catheter", "Left-sided pacemaker",
         "Nasogastric tube in place", "Right chest tube", "Left chest tube", "Right PICC line", "Tracheostomy tube",
         "Support devices"),
        ("No support devices", "No lines or tubes", "No catheters or tubes", "No pacemaker")),
})


def _regions(style: str) -> tuple[str, ...]:
    chest = ("in the right lung", "in the left lung", "in both lungs")
    return (*chest, *_LOBES) if style == "ct" else (*chest, *_BASES)


def _check(finding: str, style: str) -> None:
    if finding not in LABELLED:
        raise UserError(f"no prompts for {finding!r}: not a finding of the vocabulary")
    if style not in STYLES:
        raise UserError(f"unknown prompt style {style!r}; known: {', '.join(STYLES)}")


# Findings of lung tissue take a region; for the rest "in the right lung" would be nonsense.
_IN_LUNG = frozenset({"Cavitation", "Scar", "Mosaic Attenuation Pattern", "Peribronchial Thickening", "Bronchiectasis",
                      "Interlobular Septal Thickening", "Pulmonary Fibrotic Sequela", "Calcification Other",
                      "Pulmonary Congestion"})


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def in_context(prompt: str, context: str) -> str:
    """`prompt` for every "{}" of `context`, as a sentence with its full stop unless the context is `BARE`."""
    return prompt if context == BARE else context.replace("{}", prompt.rstrip(".") + ".")


def positive_prompts(finding: str, *, style: str = "cxr") -> tuple[str, ...]:
    """Phrases that state the finding, at least four and without repeats.

    Args:
      finding: canonical name.
      style: "cxr" or "ct" (regions are named by lobe).

    Raises:
      UserError: unknown finding or style.
    """
    _check(finding, style)
    if finding in _BANKS:
        return _BANKS[finding].positive
    names = LABELLED[finding].synonyms[:6]
    texts = [_sentence(name) for name in names] + [f"There is {names[0]}", f"Findings consistent with {names[0]}",
                                                   f"Mild {names[0]}"]
    if finding in _IN_LUNG:
        texts += [f"{_sentence(names[0])} {region}" for region in _regions(style)]
    return tuple(dict.fromkeys(texts))


def negative_prompts(finding: str, *, style: str = "cxr") -> tuple[str, ...]:
    """Phrases that deny the finding, at least four and without repeats; arguments as in `positive_prompts`."""
    _check(finding, style)
    if finding in _BANKS:
        return _BANKS[finding].negative
    name, *others = LABELLED[finding].synonyms[:3]
    texts = [f"No {name}", f"There is no {name}", f"No evidence of {name}", f"No {name} is seen",
             *(f"No {other}" for other in others)]
    return tuple(dict.fromkeys(texts))

"""Reports of the phantom CT world, in the manner of translated chest CT reports: they hedge, compare, list and deny.

The wordings were written from how such reports read, not from the lexicon of `data_prep.extract`: an extractor meets
words that it does not know ("the cardiothoracic index has increased in favour of the heart"), findings that the report
passes over, doubts about what is not there, and what was there before. So its labels are imperfect, as they are on real
reports. `FINDINGS` and `LOBES` are those of `ct.world`.
"""

from __future__ import annotations

import dataclasses

from data_prep.synthetic.ct.world import FINDINGS, Lesion, Scene
from data_prep.synthetic.random_stream import RandomStream

# {where}: "in the right upper lobe and lingula"; {size}: an adjective with a space after it; {mm}: a diameter.
# The last wording of each list is used in the test world only.
_PRESENT = {
    "Medical Material": (
        "A pacemaker is seen in the left anterior chest wall with its lead in the right ventricle",
        "Battery of a cardiac pacemaker on the left; its electrode ends in the right heart",
        "There is an ICD generator in the left pectoral region",
        "Metallic artefacts of an implanted generator are present at the left anterior chest wall",
        "A cardiac pacing device is noted under the left clavicle"),
    "Arterial Wall Calcification": (
        "Calcific atheroma plaques are observed in the aortic arch",
        "There are atherosclerotic calcifications in the wall of the thoracic aorta",
        "Wall calcifications are seen in the aorta and its supraaortic branches",
        "The aortic arch shows calcified plaque formations",
        "Millimetric calcified atheromatous plaques of the aorta"),
    "Cardiomegaly": (
        "The heart is {much} enlarged",
        "The cardiothoracic index has increased in favour of the heart",
        "Cardiomegaly is present",
        "Heart size has increased",
        "All cardiac chambers are dilated and the heart exceeds its usual size"),
    "Pericardial Effusion": (
        "A {size}pericardial effusion is observed",
        "There is fluid between the leaves of the pericardium measuring {mm} mm at its thickest",
        "Pericardial fluid reaching {mm} mm is present",
        "Pericardial effusion measuring {mm} mm in thickness is noted",
        "Effusion is noted in the pericardial space"),
    "Coronary Artery Wall Calcification": (
        "Calcific plaques are present in the coronary arteries",
        "Coronary artery calcification is seen, most marked in the LAD",
        "There are calcified atheroma plaques in the walls of the coronary vessels",
        "Coronary calcifications are noted",
        "The left anterior descending artery is calcified"),
    "Hernia": (
        "A {size}hiatal hernia is observed at the lower end of the esophagus",
        "There is a sliding type hiatus hernia",
        "A hiatal hernia is seen",
        "Part of the stomach lies above the diaphragm",
        "Hiatal hernia containing the gastric fundus is noted"),
    "Lymphadenopathy": (
        "Lymphadenopathy is seen in the right paratracheal area",
        "There are enlarged lymph nodes in the mediastinum, the largest {mm} mm in short axis",
        "Several lymph nodes with a short axis above 10 mm lie in the pretracheal station",
        "Mediastinal lymphadenopathies up to {mm} mm are observed",
        "Pathologically enlarged paratracheal lymph nodes are noted"),
    "Emphysema": (
        "Emphysematous changes are observed in the upper lobes of both lungs",
        "There is centriacinar emphysema, predominantly in the upper zones",
        "Both upper lobes show emphysematous aeration increase",
        "{Size}emphysema is present in both lungs",
        "Areas of destroyed parenchyma with low density in both upper lobes"),
    "Atelectasis": (
        "Linear atelectasis is observed {where}",
        "There are subsegmental atelectatic changes {where}",
        "Band-shaped atelectasis {where}",
        "Atelectatic areas are seen {where}",
        "Plate-like volume loss is noted {where}"),
    "Nodule": (
        "A {mm} mm nodule is observed {where}",
        "There are nodules {where}, the largest {mm} mm in diameter",
        "Nonspecific pulmonary nodules up to {mm} mm are present {where}",
        "A well circumscribed solid nodule of {mm} mm lies {where}",
        "A rounded lesion of {mm} mm in diameter is noted {where}"),
    "Lung Opacity": (
        "Ground glass opacities are observed {where}",
        "There are patchy areas of ground glass density {where}",
        "{Size}ground-glass opacity {where}",
        "Areas of increased density in the form of ground glass are seen {where}",
        "Frosted glass attenuation is noted {where}"),
    "Pleural Effusion": (
        "A {size}pleural effusion is observed {where}",
        "There is pleural effusion {where} reaching {mm} mm in thickness",
        "Free fluid is seen between the pleural leaves {where}",
        "{Size}pleural fluid {where}",
        "Pleural effusion measuring {mm} mm is noted {where}"),
    "Consolidation": (
        "Consolidation is observed {where}",
        "There are consolidated areas with air bronchograms {where}",
        "Consolidative infiltration {where}",
        "A consolidation area containing air bronchograms is seen {where}",
        "Dense airless parenchyma with open bronchi is noted {where}"),
}
_HEDGED = (
    "{noun} {where} cannot be excluded", "An appearance suspicious for {noun} {where}",
    "Findings {where} may be compatible with {noun}", "Possible {noun} {where}",
    "The appearance {where} raises the question of {noun}")
_UNCHANGED = ("{noun} {where} is unchanged compared with the previous examination",
              "{noun} {where}, stable when compared with the prior CT",
              "{noun} {where} has regressed since the previous study but persists",
              "No significant change in the {noun} {where} described before",
              "The previously known {noun} {where} has progressed")
_RESOLVED = ("The previously described {noun} is no longer seen", "The {noun} of the previous examination has resolved",
             "{noun} seen on the prior CT has disappeared completely")
_NOUNS = {
    "Medical Material": "pacemaker", "Arterial Wall Calcification": "aortic wall calcification",
    "Cardiomegaly": "cardiomegaly", "Pericardial Effusion": "pericardial effusion",
    "Coronary Artery Wall Calcification": "coronary artery calcification", "Hernia": "hiatal hernia",
    "Lymphadenopathy": "mediastinal lymphadenopathy", "Emphysema": "emphysema", "Atelectasis": "atelectasis",
    "Nodule": "pulmonary nodule", "Lung Opacity": "ground glass opacity", "Pleural Effusion": "pleural effusion",
    "Consolidation": "consolidation"}
# Denials: what they deny together, and how. The first whose findings are all absent and not denied yet are used.
_ABSENT = (
    (("Pericardial Effusion",), ("Pericardial effusion-thickening was not observed", "No pericardial effusion",
                                 "The pericardium is free of effusion")),
    (("Cardiomegaly",), ("Heart contour and size are normal", "The heart is of normal size",
                         "Mediastinal main vascular structures and heart size are within normal limits")),
    (("Lymphadenopathy",), ("No enlarged lymph nodes in pathological dimensions were detected",
                            "There is no mediastinal or hilar lymphadenopathy",
                            "Lymph nodes of pathological size and appearance were not detected")),
    (("Pleural Effusion",), ("Pleural effusion-thickening was not detected", "No pleural effusion or pneumothorax",
                             "Both pleural spaces are free of fluid")),
    (("Nodule", "Consolidation", "Lung Opacity"), (
        "No active infiltration, consolidation or mass lesion was detected in both lungs",
        "There is no nodule, consolidation or ground glass opacity in either lung",
        "Aeration of both lung parenchyma is normal and no nodular or infiltrative lesion is detected")),
    (("Consolidation",), ("No consolidation was seen", "There is no sign of consolidation")),
    (("Nodule",), ("No pulmonary nodule was detected", "No nodule or mass in the lungs")),
    (("Emphysema",), ("There is no emphysema", "No emphysematous change")),
    (("Atelectasis",), ("No atelectasis", "Atelectasis was not observed")),
    (("Hernia",), ("No hiatal hernia", "Hiatal hernia was not observed")),
    (("Arterial Wall Calcification", "Coronary Artery Wall Calcification"), (
        "No calcified plaque in the aorta or the coronary arteries", "Thoracic aorta and coronary arteries are free of "
        "calcification")),
)
_OTHER = (
    "Trachea and both main bronchi are open", "The calibration of the thoracic esophagus is normal",
    "Hepatosteatosis is present", "Gallbladder is operated",
    "Degenerative changes are observed in the bone structures", "No lytic-destructive lesion in the bones",
    "A 12 mm cortical cyst in the left kidney", "Upper abdominal organs included in the sections are normal",
    "Thyroid gland is heterogeneous", "Vertebral corpus heights are preserved")
_NORMAL = ("Thoracic CT examination within normal limits", "No acute cardiopulmonary disease",
           "Examination without pathological findings")
_SIZES = (("minimal ", "mild ", "small "), ("moderate ", ""), ("large ", "marked ", "extensive "))


@dataclasses.dataclass(frozen=True)
class Rates:
    """How often a report strays from the picture.

    Attributes:
      omitted: share of findings that the report does not mention.
      hedged: share of the mentioned ones that it doubts; compared: that it compares with an earlier examination.
      overcalled: chance per absent finding that the report suspects it; resolved: that it was there before.
      denied: chance that a denial is written where it could be.
    """

    omitted: float = 0.05
    hedged: float = 0.12
    compared: float = 0.15
    overcalled: float = 0.012
    resolved: float = 0.02
    denied: float = 0.75


@dataclasses.dataclass(frozen=True)
class Report:
    """A report and the words that state each lesion of the scene ("" where it is passed over), in the scene's order."""

    text: str
    phrases: tuple[str, ...]


def write_report(scene: Scene, rng: RandomStream, rates: Rates = Rates(), *, test: bool = False) -> Report:
    """Writes the report of a scene: findings by organ, other organs between them, and an impression.

    Args:
      scene: what the picture shows; rng: of this report; rates: see `Rates`; test: whether the test world's wordings
        are used too.
    """
    sentences: list[tuple[int, str]] = []
    phrases = []
    for lesion in scene.lesions:
        phrase = "" if rng.chance(rates.omitted) else _state(lesion, rng, rates, test)
        phrases.append(phrase)
        if phrase:
            sentences.append((_place_in_report(lesion.finding), phrase))
    silent = {lesion.finding for lesion in scene.lesions}
    spoken = set(silent)
    for finding in FINDINGS:
        if finding in silent or (finding == "Lung Opacity" and "Consolidation" in silent):
            continue
        if rng.chance(rates.overcalled):
            doubt = _fill(rng.pick(_HEDGED), _NOUNS[finding], _guess(finding, rng))
            sentences.append((_place_in_report(finding), doubt))
            spoken.add(finding)
        elif rng.chance(rates.resolved) and finding not in ("Medical Material", "Emphysema"):
            sentences.append((_place_in_report(finding), _fill(rng.pick(_RESOLVED), _NOUNS[finding], "")))
            spoken.add(finding)
    for findings, wordings in _ABSENT:
        if spoken.isdisjoint(findings) and rng.chance(rates.denied):
            sentences.append((_place_in_report(findings[0]), rng.pick(wordings)))
            spoken.update(findings)
    for other in rng.shuffled(_OTHER)[: rng.integer(2, 4)]:
        sentences.append((rng.integer(0, 12), other))
    sentences.sort(key=lambda pair: pair[0])
    findings = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for _, sentence in sentences)
    stated = [phrase for phrase in phrases if phrase]
    if stated:
        kept = [phrase for phrase in stated if rng.chance(0.6)] or stated[:1]
        impression = " ".join(f"{phrase[0].upper()}{phrase[1:]}." for phrase in kept)
    else:
        impression = f"{rng.pick(_NORMAL)}." if not scene.lesions else "No change in the general findings."
    return Report(f"FINDINGS: {findings}\nIMPRESSION: {impression}", tuple(
        f"{phrase[0].upper()}{phrase[1:]}" if phrase else "" for phrase in phrases))


_ORDER = {"Cardiomegaly": 1, "Pericardial Effusion": 1, "Arterial Wall Calcification": 2,
          "Coronary Artery Wall Calcification": 2, "Medical Material": 3, "Lymphadenopathy": 4, "Emphysema": 6,
          "Nodule": 7, "Lung Opacity": 8, "Consolidation": 8, "Atelectasis": 9, "Pleural Effusion": 10, "Hernia": 11}


def _place_in_report(finding: str) -> int:
    return _ORDER[finding]


def _state(lesion: Lesion, rng: RandomStream, rates: Rates, test: bool) -> str:
    where = _where(lesion, rng)
    kind = rng.random()
    if kind < rates.hedged:
        return _fill(rng.pick(_HEDGED), _NOUNS[lesion.finding], where)
    if kind < rates.hedged + rates.compared:
        return _fill(rng.pick(_UNCHANGED), _NOUNS[lesion.finding], where)
    wordings = _PRESENT[lesion.finding]
    wordings = wordings if test else wordings[:-1]
    if lesion.finding == "Nodule" and len(lesion.sites) > 1:
        wordings = tuple(wording for wording in wordings if not wording.startswith("A "))
    pattern = rng.pick(wordings)
    size = rng.pick(_SIZES[lesion.size])
    return _tidy(pattern.format(where=where, size=size, Size=size.capitalize(), mm=_millimetres(lesion, rng),
                                much=("mildly", "moderately", "markedly")[lesion.size]))


def _millimetres(lesion: Lesion, rng: RandomStream) -> int:
    low = {"Nodule": (16, 21, 27), "Lymphadenopathy": (16, 19, 22), "Pericardial Effusion": (8, 13, 18),
           "Pleural Effusion": (15, 28, 45)}.get(lesion.finding, (5, 8, 12))[lesion.size]
    return low + rng.integer(0, 3)


def _fill(pattern: str, noun: str, where: str) -> str:
    return _tidy(pattern.format(noun=noun, where=where))


def _tidy(text: str) -> str:
    text = " ".join(text.split()).replace(" ,", ",").replace("A extensive", "An extensive")
    return text[0].upper() + text[1:]


def _where(lesion: Lesion, rng: RandomStream) -> str:
    """"in the right upper lobe and lingula", "bilaterally", ...; "" for findings that have one site only."""
    if not lesion.sites:
        return ""
    if lesion.finding == "Pleural Effusion":
        return rng.pick(("bilaterally", "on both sides", "in both hemithoraces")) if len(lesion.sites) > 1 else (
            rng.pick((f"on the {lesion.sites[0]}", f"in the {lesion.sites[0]} hemithorax")))
    sites = list(lesion.sites)
    if {"right lower lobe", "left lower lobe"} == set(sites):
        return rng.pick(("in both lower lobes", "in the lower lobes of both lungs"))
    if {"right upper lobe", "left upper lobe"} == set(sites):
        return "in both upper lobes"
    if len(sites) == 1:
        return f"in the {sites[0]}"
    return f"in the {', '.join(sites[:-1])} and {sites[-1]}"


def _guess(finding: str, rng: RandomStream) -> str:
    if finding == "Pleural Effusion":
        return rng.pick(("on the right", "on the left"))
    if finding in ("Nodule", "Lung Opacity", "Consolidation", "Atelectasis"):
        return rng.pick(("in the right lower lobe", "in the left lower lobe", "in the lingula"))
    return ""

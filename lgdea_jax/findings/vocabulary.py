"""The vocabulary of findings: canonical names, synonyms, and how they include one another.

It covers the 14 CheXpert classes (Irvin et al., AAAI 2019), the 14 of ChestX-ray14 (Wang et al., CVPR 2017), the 18
labels of CT-RATE (Hamamci et al., 2024) and the coarser MeSH headings of the Open-I collection (Demner-Fushman et al.,
JAMIA 2016).

Two relations, kept apart because data sets disagree about the second:

- `members` are true by definition wherever the words are used: a nodule is a lung lesion, a pacemaker is medical
  material.
- `parents` is the CheXpert hierarchy (edema is a lung opacity). Labelers and references often do NOT apply
  it: a report that says "edema" is not coded as "opacity". It is used only on request.

Synonyms are lower-case noun phrases, as a report or a prompt would write them; the patterns of whole statements ("the
heart is enlarged") belong to `data_prep.extract.rules.lexicon`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType

from lgdea_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
      name: canonical, Title Case.
      synonyms: lower-case noun phrases that mean it; the first one is the usual wording.
      parents: findings above it in the CheXpert hierarchy (see the module's docstring).
      members: findings that are always instances of it.
      aliases: other spellings of the name as a column or class name ("Pleural_Thickening", "Lung nodule").
      kind: "disease", "device" (medical material, not a disease), or "none" (the class "No Finding").
    """

    name: str
    synonyms: tuple[str, ...]
    parents: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    kind: str = "disease"


NO_FINDING = "No Finding"
_OPACITY = ("Lung Opacity",)

FINDINGS: tuple[Finding, ...] = (
    Finding(NO_FINDING, ("no acute cardiopulmonary abnormality", "normal chest", "no acute disease"),
            aliases=("Normal",), kind="none"),
    Finding("Enlarged Cardiomediastinum", (
        "enlarged cardiomediastinal silhouette", "widened mediastinum", "mediastinal widening", "enlarged mediastinum",
        "prominent mediastinum", "wide mediastinum", "mediastinal enlargement", "mediastinal prominence",
        "widening of the mediastinum", "enlarged cardiomediastinum", "widened cardiomediastinal silhouette")),
    Finding("Cardiomegaly", (
        "cardiomegaly", "enlarged heart", "cardiac enlargement", "enlarged cardiac silhouette",
        "enlargement of the heart", "enlargement of the cardiac silhouette", "enlarged heart size",
        "heart enlargement", "prominent heart", "prominent cardiac silhouette", "enlarged cardiac contour",
        "enlarged cardiac shadow"),
        parents=("Enlarged Cardiomediastinum",)),
    Finding("Lung Lesion", ("lung lesion", "pulmonary lesion", "lesion", "nodular density", "nodular opacity"),
            parents=_OPACITY, members=("Nodule", "Mass", "Cavitation")),
    Finding("Lung Opacity", (
        "lung opacity", "opacity", "opacities", "airspace disease", "airspace opacity", "airspace opacities",
        "air space disease", "air space opacity", "opacification", "density", "densities", "patchy opacity",
        "pulmonary opacity", "pulmonary opacities", "hazy opacity", "ground-glass opacity", "interstitial opacities",
        "parenchymal opacity", "airspace process"),
        members=("Consolidation", "Infiltrate")),
    Finding("Edema", (
        "pulmonary edema", "edema", "interstitial edema", "alveolar edema", "oedema", "pulmonary oedema",
        "interstitial pulmonary edema"), parents=_OPACITY),
    Finding("Consolidation", (
        "consolidation", "consolidations", "airspace consolidation", "focal consolidation", "lobar consolidation",
        "air space consolidation", "consolidative opacity", "consolidative process"), parents=_OPACITY),
    Finding("Pneumonia", (
        "pneumonia", "pneumonias", "bronchopneumonia", "infectious process", "pneumonitis", "pneumonic process",
        "aspiration pneumonia", "lobar pneumonia"), parents=(*_OPACITY, "Consolidation")),
    Finding("Atelectasis", (
        "atelectasis", "atelectases", "atelectatic change", "atelectatic changes", "subsegmental atelectasis",
        "bibasilar atelectasis", "platelike atelectasis", "discoid atelectasis", "linear atelectasis", "lobar collapse",
        "lung collapse", "collapse"), parents=_OPACITY),
    Finding("Pneumothorax", (
        "pneumothorax", "pneumothoraces", "apical pneumothorax", "tension pneumothorax", "hydropneumothorax",
        "hemopneumothorax")),
    Finding("Pleural Effusion", (
        "pleural effusion", "pleural effusions", "effusion", "effusions", "pleural fluid", "hydrothorax", "hemothorax",
        "hydropneumothorax", "hemopneumothorax", "empyema"), aliases=("Effusion",)),
    Finding("Pleural Other", (
        "pleural thickening", "pleural plaque", "pleural plaques", "pleural scarring", "pleural calcification",
        "pleural calcifications", "apical pleural thickening", "pleural-parenchymal scarring", "fibrothorax",
        "thickening of the pleura"), members=("Pleural Thickening",)),
    Finding("Pleural Thickening", ("pleural thickening", "thickened pleura", "thickening of the pleura"),
            parents=("Pleural Other",)),
    Finding("Costophrenic Blunting", (
        "costophrenic blunting", "blunting of the costophrenic angle", "blunted costophrenic angle",
        "blunting of the costophrenic sulcus", "costophrenic angle blunting", "blunted costophrenic sulcus")),
    Finding("Fracture", (
        "fracture", "fractures", "rib fracture", "rib fractures", "fracture deformity", "compression fracture",
        "clavicle fracture", "healed fracture", "displaced rib fracture")),
    Finding("Support Devices", (
        "support device", "support devices", "endotracheal tube", "central venous catheter", "central line",
        "pacemaker", "chest tube", "nasogastric tube", "picc", "picc line", "port-a-cath", "tracheostomy tube", "icd",
        "defibrillator", "swan-ganz catheter", "pigtail catheter", "enteric tube", "feeding tube",
        "dialysis catheter", "port catheter", "cardiac device", "aicd", "catheter", "tracheostomy",
        "pacer", "prosthetic valve", "valve replacement"), kind="device"),
    Finding("Surgical Hardware", (
        "surgical clips", "sternotomy wires", "median sternotomy", "surgical hardware", "surgical sutures", "stent",
        "spinal fusion hardware", "surgical staples", "orthopedic hardware",
        "cholecystectomy clips", "breast implant", "coronary artery bypass graft"), kind="device"),
    Finding("Medical Material", ("medical material", "medical device", "foreign material"),
            members=("Support Devices", "Surgical Hardware"), kind="device"),
    Finding("Infiltrate", ("infiltrate", "infiltrates", "infiltration", "pulmonary infiltrate", "focal infiltrate"),
            parents=_OPACITY, aliases=("Infiltration",)),
    Finding("Pulmonary Congestion", (
        "pulmonary vascular congestion", "vascular congestion", "pulmonary congestion", "pulmonary venous congestion",
        "venous congestion", "central vascular congestion", "vascular engorgement", "cephalization",
        "interstitial congestion", "pulmonary venous hypertension"), parents=("Edema",)),
    Finding("Nodule", (
        "pulmonary nodule", "nodule", "nodules", "lung nodule", "pulmonary nodules", "lung nodules", "nodular density",
        "nodular opacity", "nodular densities", "nodular opacities", "micronodules", "solitary pulmonary nodule"),
        parents=("Lung Lesion",), aliases=("Lung nodule", "Pulmonary nodule")),
    Finding("Mass", (
        "mass", "lung mass", "pulmonary mass", "masses", "mass lesion", "hilar mass", "mass-like opacity",
        "masslike opacity", "neoplasm", "tumor", "malignancy"), parents=("Lung Lesion",)),
    Finding("Cavitation", ("cavitary lesion", "cavitation", "cavity", "cavitary nodule", "cavitary mass"),
            parents=("Lung Lesion",)),
    Finding("Granuloma", (
        "calcified granuloma", "granuloma", "granulomas", "granulomata", "calcified granulomas", "calcified nodule",
        "granulomatous disease", "calcified granulomatous disease", "old granulomatous disease",
        "prior granulomatous disease", "calcified nodules")),
    Finding("Calcification Other", (
        "calcification", "calcifications", "calcified lymph node", "calcified hilar lymph nodes",
        "calcified lymph nodes", "calcified mediastinal lymph nodes")),
    Finding("Emphysema", (
        "emphysema", "emphysematous change", "emphysematous changes", "bullous emphysema", "bullous disease", "bulla",
        "bullae", "bullous changes", "centrilobular emphysema")),
    Finding("COPD", (
        "chronic obstructive pulmonary disease", "copd", "chronic obstructive lung disease", "obstructive lung disease",
        "chronic obstructive airways disease")),
    Finding("Hyperinflation", (
        "hyperinflation", "hyperexpansion", "hyperinflated lungs", "hyperexpanded lungs", "hyperaeration",
        "overinflation", "flattened diaphragms", "flattening of the diaphragms", "hyperlucent lungs", "air trapping")),
    Finding("Low Lung Volume", (
        "low lung volumes", "low lung volume", "decreased lung volumes", "hypoinflation", "reduced lung volumes",
        "shallow inspiration", "hypoventilation", "low volumes", "small lung volumes", "hypoinflated lungs",
        "diminished lung volumes")),
    Finding("Fibrosis", (
        "pulmonary fibrosis", "fibrosis", "interstitial fibrosis", "interstitial lung disease", "fibrotic change",
        "fibrotic changes", "chronic interstitial changes", "chronic interstitial lung disease", "honeycombing",
        "chronic interstitial disease")),
    Finding("Scar", (
        "scarring", "scar", "scars", "pulmonary scarring", "parenchymal scarring", "apical scarring",
        "parenchymal scar", "cicatrix", "linear scarring")),
    Finding("Hernia", (
        "hiatal hernia", "hernia", "hiatus hernia", "diaphragmatic hernia", "bochdalek hernia", "morgagni hernia"),
        aliases=("Hiatal hernia",)),
    Finding("Scoliosis Or Kyphosis", (
        "scoliosis", "kyphosis", "kyphoscoliosis", "dextroscoliosis", "levoscoliosis", "scoliotic curvature",
        "thoracic scoliosis", "thoracic kyphosis", "dextrocurvature", "levocurvature")),
    Finding("Degenerative Spine", (
        "degenerative changes of the spine", "degenerative changes", "degenerative change", "degenerative disc disease",
        "spondylosis", "osteophytes", "osteophyte", "osteophytosis", "degenerative disease of the spine",
        "degenerative endplate changes", "spurring")),
    Finding("Aortic Abnormality", (
        "tortuous aorta", "aortic tortuosity", "atherosclerotic aorta", "aortic calcification", "ectatic aorta",
        "aortic atherosclerosis", "calcified aorta", "aortic ectasia", "aortic aneurysm", "atherosclerosis",
        "atherosclerotic calcification", "unfolded aorta", "dilated aorta", "aortic unfolding")),
    Finding("Elevated Diaphragm", (
        "elevated hemidiaphragm", "elevation of the hemidiaphragm", "elevated diaphragm", "diaphragmatic eventration",
        "eventration of the diaphragm", "eventration", "elevation of the diaphragm", "hemidiaphragm elevation",
        "diaphragmatic elevation")),
    Finding("Subcutaneous Emphysema", ("subcutaneous emphysema", "subcutaneous air", "soft tissue emphysema",
                                       "subcutaneous gas")),
    Finding("Pneumoperitoneum", ("pneumoperitoneum", "free air", "free intraperitoneal air",
                                 "subdiaphragmatic free air", "free subdiaphragmatic air")),
    Finding("Pneumomediastinum", ("pneumomediastinum", "mediastinal air", "mediastinal emphysema")),
    Finding("Arterial Wall Calcification", (
        "arterial wall calcification", "atherosclerotic calcification", "vascular calcification",
        "calcified atherosclerotic plaque", "calcific plaque", "atheromatous plaque", "aortic calcification",
        "calcified atheromatous plaques", "wall calcification")),
    Finding("Coronary Artery Wall Calcification", (
        "coronary artery calcification", "coronary artery wall calcification", "coronary calcification",
        "calcified coronary arteries", "coronary atherosclerosis", "calcified plaque in the coronary arteries"),
        parents=("Arterial Wall Calcification",)),
    Finding("Pericardial Effusion", ("pericardial effusion", "pericardial fluid", "pericardial thickening")),
    Finding("Lymphadenopathy", (
        "lymphadenopathy", "adenopathy", "enlarged lymph nodes", "enlarged lymph node", "mediastinal lymphadenopathy",
        "hilar lymphadenopathy", "lymph node enlargement", "pathologically enlarged lymph nodes", "hilar adenopathy",
        "mediastinal adenopathy")),
    Finding("Pulmonary Fibrotic Sequela", (
        "pulmonary fibrotic sequela", "fibrotic sequelae", "sequela of fibrosis", "pleuroparenchymal sequela changes",
        "sequela fibrotic changes", "fibroatelectatic changes", "fibrotic bands", "sequelae changes"),
        members=("Fibrosis", "Scar")),
    Finding("Mosaic Attenuation Pattern", ("mosaic attenuation pattern", "mosaic attenuation", "mosaic perfusion",
                                           "mosaic density")),
    Finding("Peribronchial Thickening", (
        "peribronchial thickening", "peribronchial cuffing", "bronchial wall thickening", "bronchial thickening",
        "peribronchial wall thickening")),
    Finding("Bronchiectasis", ("bronchiectasis", "bronchiectases", "bronchiectatic changes", "bronchial dilatation",
                               "traction bronchiectasis", "bronchiectatic change")),
    Finding("Interlobular Septal Thickening", (
        "interlobular septal thickening", "septal thickening", "smooth septal thickening", "kerley b lines",
        "kerley lines", "thickened interlobular septa", "interlobular septal thickenings")),
)

BY_NAME: Mapping[str, Finding] = MappingProxyType({finding.name: finding for finding in FINDINGS})

# Labels of data sets that are not extracted from reports: for prompts and evaluation, never in the evidence.
LABEL_ONLY: tuple[Finding, ...] = (
    Finding("COVID-19", ("covid-19 pneumonia", "covid-19", "viral pneumonia due to covid-19",
                         "peripheral ground-glass opacities typical of covid-19"), aliases=("COVID19",)),
    Finding("Tuberculosis", ("tuberculosis", "pulmonary tuberculosis", "active tuberculosis")),
    Finding("Lung Tumor", ("lung tumor", "lung cancer", "pulmonary malignancy", "bronchogenic carcinoma"),
            aliases=("Lung tumour",)),
    Finding("Nodule Or Mass", ("nodule or mass", "pulmonary nodule", "lung mass"), aliases=("Nodule/Mass",)),
    Finding("Lung Cyst", ("lung cyst", "pulmonary cyst", "cystic lesion in the lung")),
    Finding("Interstitial Lung Disease", ("interstitial lung disease", "diffuse interstitial disease",
                                          "reticular interstitial opacities"), aliases=("ILD",)),
    Finding("Aortic Enlargement", ("aortic enlargement", "enlarged aorta", "dilated aorta", "aortic aneurysm")),
    Finding("Enlarged Pulmonary Artery", ("enlarged pulmonary artery", "dilated pulmonary arteries",
                                          "prominent pulmonary artery"), aliases=("Enlarged PA",)),
    Finding("Mediastinal Shift", ("mediastinal shift", "shift of the mediastinum", "tracheal deviation")),
    Finding("Rib Fracture", ("rib fracture", "rib fractures", "displaced rib fracture"), parents=("Fracture",)),
    Finding("Clavicle Fracture", ("clavicle fracture", "fracture of the clavicle", "clavicular fracture"),
            parents=("Fracture",)),
    Finding("Calcification", ("calcification", "calcifications", "calcified lesion")),
    Finding("Other Lesion", ("other lesion", "another abnormality")),
    Finding("Other Disease", ("other disease", "another disease"), aliases=("Other diseases",)),
)
LABELLED: Mapping[str, Finding] = MappingProxyType({finding.name: finding for finding in (*FINDINGS, *LABEL_ONLY)})
# Spellings of label columns that are too broad to be aliases in free text.
_LABEL_ALIASES = {"pulmonary fibrosis": "Fibrosis", "lung cavity": "Cavitation", "infiltrates": "Infiltrate",
                  "pulmonary mass": "Mass", "pulmonary edema": "Edema", "copd signs": "COPD"}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


_KEYS: Mapping[str, str] = MappingProxyType(
    {_key(alias): finding.name for finding in FINDINGS for alias in (*finding.aliases, finding.name)})


def find(name: str) -> str | None:
    """The canonical name for a column or class name (case, `_`, `-` and official aliases ignored), or None."""
    return _KEYS.get(_key(name))


_LABEL_KEYS: Mapping[str, str] = MappingProxyType(
    _LABEL_ALIASES | {_key(alias): f.name for f in LABEL_ONLY for alias in (*f.aliases, f.name)} | dict(_KEYS))


def find_label(name: str) -> str | None:
    """The name in LABELLED for a data set's label column or class name (`find`, and what only data sets label)."""
    return _LABEL_KEYS.get(_key(name))


def canonical(name: str) -> str:
    """`find`, or a `UserError` naming the nearest finding."""
    found = find(name)
    if found is None:
        raise UserError(f"unknown finding {name!r}{nearest(name, BY_NAME)}")
    return found

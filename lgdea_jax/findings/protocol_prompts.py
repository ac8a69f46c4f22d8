"""Prompts of published evaluation protocols, worded as their scripts have them, and where they were read.

Every `Source` names a public repository and the commit at which each file was read. Prompts are by finding, in our
names; those of one class among others (GLoRIA, MedCLIP) have no negative side.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.findings.protocol_labels import OPENI18, PADCHEST193

Prompts = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]


@dataclasses.dataclass(frozen=True)
class Source:
    """A public repository on GitHub, and files of it: {path: commit at which it was read}, the main one first."""

    repository: str
    files: Mapping[str, str]

    @property
    def commit(self) -> str:
        """Of the main file."""
        return next(iter(self.files.values()))


SOURCES: Mapping[str, Source] = MappingProxyType({
    "gloria": Source("marshuang80/gloria", {
        "gloria/gloria.py": "8ae01f8cd646dd97c62d0fc10150fb3d509af039",
        "gloria/constants.py": "1be5051ae2eb552f6afe0e7ba8b41f187af678b0",
        "gloria/utils/utils.py": "9f0cfcf0a43713a3d9f151ae434c5b4804828ba2"}),
    "medclip": Source("RyanWangZf/MedCLIP", {
        "medclip/modeling_medclip.py": "fa40957fc2484c92d47e1581a34fcc46abc2420d",
        "medclip/prompts.py": "2834eb0d54d425743418bd5c63bfe7375f1a0dd6",
        "medclip/constants.py": "23a549156728f71d7d6c4ad9afe305198f56d61c",
        "baselines/gloria/run_zeroshot.py": "24079f5d9f41c2d70d86c6a1e9b152d1d98df733"}),
    "chexzero": Source("rajpurkarlab/CheXzero", {
        "zero_shot.py": "493a4917a7d565e2ea3bd1c8cd4a8f29abc47c10",
        "test.py": "c0ba4e1553f254bb32d3926612ca20dc4202ae68",
        "notebooks/zero_shot.ipynb": "09954845873e78dbea4c6be465104f3e2862fae4"}),
    "kad": Source("xiaoman-zhang/KAD", {
        "A3_CLIP/test_chestxray14.py": "592de6208ca9a0c11324b8d0c27802bea1257193",
        "A3_CLIP/test_chexpert.py": "20749f54dce580cef71b6ae765e0063acb162dae",
        "A3_CLIP/test_padchest.py": "9ec3b237ec84accebbec0d25b3309b084fc90fcd"}),
    "carzero": Source("laihaoran/CARZero", {
        "inference.py": "3056bb014391a461c51738c7ec3734260f2071ae",
        "utils.py": "3056bb014391a461c51738c7ec3734260f2071ae"}),
    "hi_ml": Source("microsoft/hi-ml", {
        "hi-ml-multimodal/test_multimodal/vlp/test_zero_shot_classification.py":
            "05576f6f342aa97e701e6f9be2811332c904e4f5",
        "hi-ml-multimodal/src/health_multimodal/vlp/inference_engine.py": "00e258c221254db9cfd32360dc4b3843ded6c3a7"}),
    # Runs hi-ml's heatmaps over MS-CXR; hi-ml itself publishes no evaluation of it.
    "hi_ml_grounding": Source("vios-s/ldm-phrase-grounding", {
        "eval_biovil_t.py": "b70a21b54fa5fbcdfac855d2a4755c5b3c6c5e75",
        "metrics/eval_metrics.py": "b70a21b54fa5fbcdfac855d2a4755c5b3c6c5e75",
        "data/ms_cxr.py": "b70a21b54fa5fbcdfac855d2a4755c5b3c6c5e75"}),
    "ct_clip": Source("ibrahimethemhamamci/CT-CLIP", {
        "scripts/zero_shot.py": "b97fab65663f15f15daff6e00bedc9086c65d574",
        "scripts/data_inference_nii.py": "13d84fbd78ac886d1a881f5e054a0aea742c89f7",
        "scripts/eval.py": "7edd2e009a7820adecb6bc9c49a1d192b2f890ee",
        "scripts/volume_to_volume_new.py": "b0a0e80258badc4c7f2161527248920ed514fe68",
        "scripts/report_to_volume_new.py": "b0a0e80258badc4c7f2161527248920ed514fe68"}),
    "radfinder": Source("lmb-freiburg/radfinder", {
        "src/radfinder/tasks/binary_zs_ctrate_task.py": "3922839f7d3ae3675191601d10863d0be44ded89",
        "src/radfinder/data/prompt_rate_labels.py": "3922839f7d3ae3675191601d10863d0be44ded89",
        "src/radfinder/data/rad_chestct.py": "3922839f7d3ae3675191601d10863d0be44ded89",
        "configs/tasks/binary_zs/bz_ctrate_val.yaml": "3922839f7d3ae3675191601d10863d0be44ded89",
        "configs/tasks/binary_zs/bz_radchestct_standard.yaml": "3922839f7d3ae3675191601d10863d0be44ded89",
        "configs/tasks/binary_zs/radchestct_to_ctrate18_standard.json": "3922839f7d3ae3675191601d10863d0be44ded89",
        "src/radfinder/tasks/volume_retrieval_task.py": "3922839f7d3ae3675191601d10863d0be44ded89",
        "src/radfinder/tasks/retrieval_task.py": "3922839f7d3ae3675191601d10863d0be44ded89"}),
    "green_rfm": Source("SadVoxel/GreenRFM", {
        "inference/zero_shot.py": "25ad89bc604b7289a33be908b723967a50ce2a11",
        "inference/run_zero_shot.py": "25ad89bc604b7289a33be908b723967a50ce2a11",
        "inference/report_to_volume.py": "25ad89bc604b7289a33be908b723967a50ce2a11"}),
})


def from_template(names: Mapping[str, str], *templates: tuple[str, str]) -> Prompts:
    """{finding: (positive, negative)}: its published name for "{}" in each pair of templates."""
    return MappingProxyType({finding: tuple(tuple(pair[side].format(name) for pair in templates) for side in (0, 1))
                             for finding, name in names.items()})


def bare(names: Mapping[str, str]) -> Prompts:
    """{finding: ((its published name,), ())}."""
    return MappingProxyType({finding: ((name,), ()) for finding, name in names.items()})


# CT-RATE's labels as its files spell them, in the order of LABEL_SETS["ct_rate18"].
CT_RATE_NAMES = MappingProxyType(dict(zip(LABEL_SETS["ct_rate18"], (
    "Medical material", "Arterial wall calcification", "Cardiomegaly", "Pericardial effusion",
    "Coronary artery wall calcification", "Hiatal hernia", "Lymphadenopathy", "Emphysema", "Atelectasis", "Lung nodule",
    "Lung opacity", "Pulmonary fibrotic sequela", "Pleural effusion", "Mosaic attenuation pattern",
    "Peribronchial thickening", "Consolidation", "Bronchiectasis", "Interlobular septal thickening"), strict=True)))
CT_CLIP = from_template(CT_RATE_NAMES, ("{} is present.", "{} is not present."))
# "mean7", the default of RadFinder's command and configs.
RADFINDER = from_template(
    CT_RATE_NAMES, ("{}.", "No {}."), ("Findings are compatible with {}.", "Findings are not compatible with {}."),
    ("There is {}.", "There is no {}."), ("{} is seen.", "{} is not seen."), ("{}.", "Not {}."),
    ("{} is observed.", "{} is not observed."), ("{} is present.", "{} is not present."))
# "p3", the default of GreenRFM's command.
GREEN_RFM = from_template(CT_RATE_NAMES, ("There is {}.", "There is no {}."))

CHEXZERO = from_template({name: name for name in LABEL_SETS["chexpert14"]}, ("{}", "no {}"))
CHEXZERO_PADCHEST = from_template({name.lower(): name.lower() for name in PADCHEST193}, ("{}", "no {}"))

HI_ML = MappingProxyType({"Pneumonia": (
    ("Findings consistent with pneumonia", "Findings suggesting pneumonia", "This opacity can represent pneumonia",
     "Findings are most compatible with pneumonia"),
    ("There is no pneumonia", "No evidence of pneumonia", "No evidence of acute pneumonia", "No signs of pneumonia"))})

KAD_CHEXPERT = bare({name: name.lower() for name in LABEL_SETS["chexpert5"]})
KAD_CHESTXRAY14 = bare(dict(zip(LABEL_SETS["chestxray14"], (
    "atelectasis", "cardiomegaly", "pleural effusion", "infiltration", "lung mass", "lung nodule", "pneumonia",
    "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural thicken", "hernia"), strict=True)))
KAD_PADCHEST = bare({name.lower(): name for name in PADCHEST193})

# CARZero's sentences stand in files that its repository does not hold: here the names of its script.
CARZERO_OPENI = bare({name: name.replace("_", " ") for name in OPENI18})
CARZERO_CHEXPERT = bare({name: name for name in LABEL_SETS["chexpert5"]})
CARZERO_CHESTXRAY14 = bare(dict(zip(LABEL_SETS["chestxray14"], (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Lung Mass", "Lung Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia"), strict=True)))
CARZERO_CHESTXDET10 = bare(dict(zip(LABEL_SETS["chestxdet10"], (
    "Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema", "Fibrosis", "Fracture", "Mass", "Nodule",
    "Pneumothorax"), strict=True)))

# GLoRIA's CHEXPERT_CLASS_PROMPTS, which MedCLIP took over: every combination of one of each, in this order, joined by
# spaces (an empty word leaves its space). The spelling is theirs.
_ZONES = ("at the mid lung zone", "at the upper lung zone", "at the right lung zone", "at the left lung zone",
          "at the lung bases", "at the right lung base", "at the left lung base", "at the bilateral lung bases",
          "at the left lower lobe", "at the right lower lobe")
CHEXPERT_PARTS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType({
    "Atelectasis": (
        ("", "mild", "minimal"),
        ("subsegmental atelectasis", "linear atelectasis", "trace atelectasis", "bibasilar atelectasis",
         "retrocardiac atelectasis", "bandlike atelectasis", "residual atelectasis"), _ZONES),
    "Cardiomegaly": (
        ("",),
        ("cardiac silhouette size is upper limits of normal", "cardiomegaly which is unchanged",
         "mildly prominent cardiac silhouette", "portable view of the chest demonstrates stable cardiomegaly",
         "portable view of the chest demonstrates mild cardiomegaly", "persistent severe cardiomegaly",
         "heart size is borderline enlarged", "cardiomegaly unchanged", "heart size is at the upper limits of normal",
         "redemonstration of cardiomegaly",
         "ap erect chest radiograph demonstrates the heart size is the upper limits of normal",
         "cardiac silhouette size is mildly enlarged",
         "mildly enlarged cardiac silhouette, likely left ventricular enlargement. other chambers are less prominent",
         "heart size remains at mildly enlarged", "persistent cardiomegaly with prominent upper lobe vessels"), ("",)),
    "Consolidation": (
        ("", "increased", "improved", "apperance of"),
        ("bilateral consolidation", "reticular consolidation", "retrocardiac consolidation", "patchy consolidation",
         "airspace consolidation", "partial consolidation"),
        ("at the lower lung zone", "at the upper lung zone", "at the left lower lobe", "at the right lower lobe",
         "at the left upper lobe", "at the right uppper lobe", "at the right lung base", "at the left lung base")),
    "Edema": (
        ("", "mild", "improvement in", "presistent", "moderate", "decreased"),
        ("pulmonary edema", "trace interstitial edema", "pulmonary interstitial edema"), ("",)),
    "Pleural Effusion": (
        ("", "small", "stable", "large", "decreased", "increased"), ("left", "right", "tiny"),
        ("bilateral pleural effusion", "subpulmonic pleural effusion", "bilateral pleural effusion")),
})
_COVID_PARTS = (("patchy", "confluent"), ("ground glass",), ("opacity", "consolidation"),
                ("in peripheral", "in mid", "in lower"))
_RSNA_PARTS = (("round", "early", "focal", "multifocal", "small", ""), ("bacterial", "viral", "mycoplasma", ""),
               (*_ZONES, "at the left middle lobe", "at the right middle lobe", ""))


def combinations(parts: Iterable[Sequence[str]]) -> list[str]:
    """Every choice of one word of each part, the last part fastest, joined by spaces."""
    return [" ".join(words) for words in itertools.product(*parts)]


def drawn(parts: Mapping[str, tuple[tuple[str, ...], ...]], count: int, seed: int) -> Prompts:
    """{finding: (`count` of its combinations, ())}, drawn class by class from Python's generator seeded once.

    That is what the public scripts draw if nothing else has drawn from the generator before.
    """
    rng = random.Random(seed)
    return MappingProxyType({finding: (tuple(rng.sample(combinations(words), count)), ())
                             for finding, words in parts.items()})


GLORIA = drawn(CHEXPERT_PARTS, 5, 6)  # `generate_chexpert_class_prompts()`; the module seeds with 6 when imported.
MEDCLIP = drawn(CHEXPERT_PARTS, 10, 42)  # n=10; run_zeroshot.py seeds with 42, and averages five draws.
MEDCLIP_COVID = MappingProxyType({"COVID-19": (tuple(combinations(_COVID_PARTS)), ())})
MEDCLIP_RSNA = MappingProxyType({"Pneumonia": (tuple(combinations(_RSNA_PARTS)), ())})

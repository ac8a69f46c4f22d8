"""Prompts of published evaluation protocols: facts of a protocol, worded as their public scripts word them."""

from __future__ import annotations

from lgdea_jax.findings.label_sets import LABEL_SETS

# CT-RATE's labels as its files spell them, in the order of LABEL_SETS["ct_rate18"].
_CT_RATE_NAMES = (
    "Medical material", "Arterial wall calcification", "Cardiomegaly", "Pericardial effusion",
    "Coronary artery wall calcification", "Hiatal hernia", "Lymphadenopathy", "Emphysema", "Atelectasis", "Lung nodule",
    "Lung opacity", "Pulmonary fibrotic sequela", "Pleural effusion", "Mosaic attenuation pattern",
    "Peribronchial thickening", "Consolidation", "Bronchiectasis", "Interlobular septal thickening")
CT_CLIP = {finding: ((f"{name} is present.",), (f"{name} is not present.",))
           for finding, name in zip(LABEL_SETS["ct_rate18"], _CT_RATE_NAMES, strict=True)}

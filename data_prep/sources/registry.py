"""Every source by its name in `config.source`, and how its splits are opened."""

from __future__ import annotations

import importlib
from typing import Any

from data_prep.study import SPLITS
from lgdea_jax.errors import UserError, choose

SOURCES = {
    "phantom": "data_prep.synthetic.xray.source",
    "table": "data_prep.sources.table",
    "openi": "data_prep.sources.openi",
    "mimic_cxr": "data_prep.sources.mimic_cxr",
    "ms_cxr": "data_prep.sources.mimic.ms_cxr",
    "ms_cxr_t": "data_prep.sources.mimic.ms_cxr_t",
    "cxr_lt": "data_prep.sources.mimic.cxr_lt",
    "chest_imagenome": "data_prep.sources.mimic.chest_imagenome",
    "rexgradient": "data_prep.sources.rexgradient",
    "chexpert": "data_prep.sources.chexpert",
    "padchest": "data_prep.sources.padchest",
    "padchest_gr": "data_prep.sources.padchest_gr",
    "chestxray14": "data_prep.sources.chestxray14",
    "chestx_det10": "data_prep.sources.chestx_det10",
    "rsna_pneumonia": "data_prep.sources.rsna_pneumonia",
    "siim_acr": "data_prep.sources.siim_acr",
    "covidx": "data_prep.sources.covidx",
    "vindr_cxr": "data_prep.sources.vindr_cxr",
    "phantom_ct": "data_prep.synthetic.ct.source",
    "ct_rate": "data_prep.sources.ct.ct_rate",
    "rad_chestct": "data_prep.sources.ct.rad_chestct",
    "inspect": "data_prep.sources.ct.inspect",
}


def open_sources(config: Any) -> dict[str, Any]:
    """The splits' sources by `config.source`; its keys stand in the group of the same name. Empty splits are left out.

    Raises:
      UserError: unknown kind, or what the source finds wrong with its files.
    """
    kind = choose("config.source", config.source, SOURCES)
    module = importlib.import_module(SOURCES[kind])
    if hasattr(module, "open_splits"):  # Sources that would read one table once per split.
        sources = module.open_splits(config)
    else:
        sources = {split: module.open_source(config, split) for split in SPLITS}
    sources = {split: source for split, source in sources.items() if len(source)}
    if not sources:
        raise UserError(f"the {kind} source has no studies")
    return sources

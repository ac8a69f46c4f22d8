"""Data sets in their official layout at small size, built, a checkpoint, and a model without one."""

import csv
import functools
import gzip
import hashlib
import importlib

import numpy as np

from data_prep import build
from lgdea_jax import cli
from lgdea_jax.inference import predictor
from tests.fixtures import world
from tests.training import runs

# Benchmark -> (fixture and config, studies, flags of the script).
BENCHMARKS = {
    "ms_cxr": ("ms_cxr", 24, ()),
    "chexpert_5x200": ("chexpert", 48, ("--per_class=3",)),
    "mimic_5x200": ("mimic_cxr", 80, ("--per_class=3",)),
    "mimic_cxr": ("mimic_cxr", 80, ("--tasks=retrieval,zero_shot",)),
    "rsna_pneumonia": ("rsna_pneumonia", 120, ()),
    "siim_acr": ("siim_acr", 40, ()),
    "covidx": ("covidx", 36, ()),
    "chexpert": ("chexpert", 48, ("--probe=0.5,1",)),
    "chestxray14": ("chestxray14", 40, ()),
    "padchest": ("padchest", 40, ()),
    "chestx_det10": ("chestx_det10", 30, ()),
    "openi": ("openi", 60, ()),
    "vindr_cxr": ("vindr_cxr", 30, ()),
}


def checkpoint(workdir, data, cache):
    """A run of two steps at 32 px; the towers have width 8."""
    small = [f"model.{tower}.sizes.{key}={value}" for tower in ("image.vit", "text.bert")
             for key, value in (("width", 8), ("mlp_dim", 16))]
    assert runs.here(workdir, data, "method=clip", "total_steps=2", "checkpoint.every=2", "log.every=2",
                     "model.width=8", *small, cache=cache) == 0
    return workdir


def write(name, folder, studies, seed=0):
    """The official layout of a data set, its labels made fit for the 5x200 rule where it has CheXpert's."""
    importlib.import_module(f"tests.fixtures.{name}").write(folder, studies=studies, seed=seed)
    for table in (folder / "train.csv", folder / "mimic-cxr-2.0.0-chexpert.csv.gz"):
        if table.is_file():
            single_pathologies(table)
    if (folder / "SHA256SUMS.txt").is_file():
        world.sums(folder)
    return folder


def data_set(name, official, out, **keys):
    """Builds what `write` wrote, with further keys of the source's config; returns the folder."""
    config = cli.read_config(f"configs/data/{name}.py")
    config[name].path = str(official)
    config[name].update(keys)
    config.image_size, config.workers = 64, 1
    if name == "covidx":
        config.covidx.version = "9A"
    build.build(config, out, progress=False)
    return out


def single_pathologies(table):
    """Rewrites the labels of a CheXpert table: four studies each have one of the five as their only one, four none."""
    classes = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    opener = gzip.open if table.suffix == ".gz" else open
    with opener(table, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    studies: dict[str, int] = {}
    for row in rows:
        study = row["study_id"] if "study_id" in row else row["Path"].rsplit("/", 1)[0]
        i = studies.setdefault(study, len(studies))
        for name in classes:
            row[name] = "1.0" if i // 4 % 6 < 5 and name == classes[i // 4 % 6] else ""
        for name in ("Lung Opacity", "Pneumonia", "Lung Lesion", "Fracture", "Support Devices", "Pneumothorax",
                     "Enlarged Cardiomediastinum", "Pleural Other"):
            row[name] = "0.0" if i % 2 else ""
    with opener(table, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)



class Model:
    """Deterministic nonsense with the interface of a predictor."""

    reads_text = True

    def __init__(self, size=64, transform=None):
        self.frame, self.grid, self.batch_size = size, (4, 4), 32
        self.transform = transform or f"grey8@1+letterbox@1:{size}"
        self.spec = {"step": 7, "config": {"method": "stand-in"}}

    def images(self, images):
        patches = images.reshape(len(images), 4, 16, 4, 16).mean((2, 4)).reshape(len(images), 16, 1) / 255
        return {"embedding": patches[:, :, 0] - 0.5, "patches": np.repeat(patches, 3, 2)}

    def texts(self, texts, phrases):
        seeds = [int(hashlib.md5(repr(key).encode()).hexdigest()[:8], 16) for key in zip(texts, phrases, strict=True)]
        rows = np.stack([np.random.default_rng(seed).normal(size=16) for seed in seeds])
        return {"embedding": rows, "query": rows[:, :3]}


load_predictor = functools.cache(predictor.load_predictor)

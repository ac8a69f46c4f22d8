"""Builds data sets from the stand-ins of official releases."""

import csv
import dataclasses
import importlib

from data_prep.build import BuildResult, build
from lgdea_jax import cli
from lgdea_jax.data.dataset import DatasetMetadata, load_metadata
from lgdea_jax.data.source import open_records

STUDIES, SEED = 12, 1


@dataclasses.dataclass
class Built:
    """A data set made from a stand-in: `folder` is the release, `out` the data set."""

    folder: object
    out: object
    report: BuildResult
    metadata: DatasetMetadata
    records: dict

    def by_image(self):
        """Image id -> record."""
        return {record.image_id: record for records in self.records.values() for record in records}

    def labels(self, record):
        """Label name -> value."""
        return dict(zip(self.metadata.label_names, record.labels.tolist(), strict=True))

    def reasons(self):
        """{(study, image): reason} of everything that was refused."""
        return {(r.study_id, r.image_id): r.reason for r in self.report.rejections}

    def total(self, name):
        """A count over all splits."""
        return sum(counts[name] for counts in self.report.counts.values())


def config(name, folder, **changes):
    """The shipped config, quick; `changes` are keys of the data set's group."""
    out = cli.read_config(f"configs/data/{name}.py")
    out.workers, out.image_size, out.shard_studies, out.tokenizer.vocab_size = 1, 64, 5, 300
    out[name].path = str(folder)
    if "volume" in out:
        out.volume.geometry = "phantom_ct"  # Real ones have fifty million voxels.
    for key, value in changes.items():
        out[name][key] = value
    return out


def written(name, folder, *, studies=STUDIES, seed=SEED, **how):
    """Writes the stand-in and returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"tests.fixtures.{name}").write(folder, studies=studies, seed=seed, **how)
    return folder


def built(name, tmp_path, *, how=None, **changes):
    """Writes the stand-in, builds it and reads everything back."""
    folder, out = written(name, tmp_path / name, **(how or {})), tmp_path / "data"
    report = build(config(name, folder, **changes), out, progress=False)
    metadata = load_metadata(out)
    return Built(folder, out, report, metadata, {split: list(open_records(out, split)) for split in metadata.splits})


def rows(path):
    """The rows of a CSV as the csv module reads them."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

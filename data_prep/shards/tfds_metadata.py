"""TFDS side of our data sets: the builder class, and TFDS metadata over shards that `data_prep.build` wrote.

`RecordsBuilder` is an ordinary TFDS builder: `RecordsBuilder(config=..., data_dir=...).download_and_prepare(
file_format="array_record")` writes the same records in one process. `data_prep.build` is the resumable way on all
cores. Neither needs TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_prep.shards.features import features, to_example
from data_prep.study import Reject
from lgdea_jax.data.dataset import DatasetMetadata

VERSION = "1.0.0"
DESCRIPTION = "Radiology images and reports with their diagnostic evidence; see dataset.json for sources and terms."


@dataclasses.dataclass(kw_only=True)
class RecordsConfig(tfds.core.BuilderConfig):
    """What `RecordsBuilder` builds: `data`, a configuration of configs/data/*.py."""

    name: str = "default"
    data: Any = None


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of our records, read from any of `data_prep.sources`."""

    name = "records"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        self._plan = self._make_plan()
        return tfds.core.DatasetInfo(builder=self, description=DESCRIPTION,
                                     features=features(self._plan.spec.label_names))

    def _make_plan(self) -> Any:
        from data_prep.build import make_plan

        return make_plan(self.builder_config.data, None)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # Nothing is downloaded: sources read what lies on the disk.
        return {split: self._generate_examples(split) for split in self._plan.sources}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        from data_prep.shards.worker import RecordMaker

        maker, source = RecordMaker(self._plan.spec), self._plan.sources[split]
        for index in range(len(source)):
            try:
                records = maker.records(source[index], index)[0]
            except Reject:
                continue  # `data_prep.build` lists them; TFDS has no place for them.
            for record, _ in records:
                yield f"{index:09d}/{record.image_id}", to_example(record)


def write_metadata(folder: Path, metadata: DatasetMetadata) -> None:
    """Writes `dataset_info.json` and `features.json` over finished shards.

    Args:
      folder: holds the shards of `metadata`, named as TFDS names them.
      metadata: its `shards` gives the splits in order.
    """
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=metadata.name, version=tfds.core.Version(VERSION), data_dir=str(folder), module_name="")
    info = tfds.core.DatasetInfo(
        builder=identity, description=DESCRIPTION, features=features(metadata.label_names),
        license="; ".join(f"{s.source}: {s.licence} ({s.terms})" for s in metadata.sources))
    info.set_file_format("array_record")
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=metadata.name, filetype_suffix="array_record")
    info.set_splits(tfds.core.splits.SplitDict([
        tfds.core.SplitInfo(name=split, shard_lengths=[shard.records for shard in metadata.shards[split]],
                            num_bytes=sum(shard.bytes for shard in metadata.shards[split]),
                            filename_template=template.replace(split=split))
        for split in metadata.splits]))
    info.write_to_directory(folder)

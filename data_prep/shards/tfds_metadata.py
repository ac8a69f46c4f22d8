"""TFDS metadata over the shards of a finished build, so that `tfds.builder_from_directory` opens the data set.

TensorFlow is not needed.
"""

from __future__ import annotations

from pathlib import Path

from data_prep.shards.features import features
from lgdea_jax.data.dataset import DatasetMetadata

VERSION = "1.0.0"
DESCRIPTION = "Radiology images and reports with their diagnostic evidence; see dataset.json for sources and terms."


def write_metadata(folder: Path, metadata: DatasetMetadata) -> None:
    """Writes `dataset_info.json` and `features.json` over finished shards.

    Args:
      folder: holds the shards of `metadata`, named as TFDS names them.
      metadata: its `shards` gives the splits in order.
    """
    import tensorflow_datasets as tfds  # Takes seconds.

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

"""The one TFDS feature spec over `lgdea_jax.records.Record`, for every data set that `data_prep.build` writes.

`tfds.builder_from_directory(DATA).as_data_source(split)` reads it back as nested dicts without TensorFlow; our own
reader (`lgdea_jax/data/source.py`) parses the same bytes quicker. """

from __future__ import annotations

from typing import Any

import numpy as np

from lgdea_jax.data.codec import (
    BOX_FLOAT_KEYS,
    BOX_TEXT_KEYS,
    EVIDENCE_INT_KEYS,
    EVIDENCE_TEXT_KEYS,
    FLAG_KEYS,
    TEXT_KEYS,
)


def features(label_names: tuple[str, ...]) -> Any:
    """`tfds.features.FeaturesDict` of a data set whose `labels` vector has the order of `label_names`.

    The image is a plain byte string (PNG, JPEG, raw or blosc2, as `image_format` says), so that TFDS neither decodes
    it nor needs TensorFlow for it; `io.decode_image` does.
    """
    import tensorflow_datasets as tfds  # Takes seconds.

    fields: dict[str, Any] = {key: tfds.features.Text() for key in TEXT_KEYS}
    fields |= {key: tfds.features.Scalar(dtype=np.bool_) for key in FLAG_KEYS}
    fields["image"] = tfds.features.Scalar(dtype=np.object_)
    fields["image_shape"] = tfds.features.Tensor(shape=(3,), dtype=np.int32)
    fields["original_shape"] = tfds.features.Tensor(shape=(3,), dtype=np.int32)
    fields["spacing"] = tfds.features.Tensor(shape=(3,), dtype=np.float32)
    fields["labels"] = tfds.features.Tensor(shape=(len(label_names),), dtype=np.int8)
    fields["age"] = tfds.features.Scalar(dtype=np.float32)
    fields["evidence"] = tfds.features.Sequence(
        {key: tfds.features.Text() for key in EVIDENCE_TEXT_KEYS}
        | {key: tfds.features.Scalar(dtype=np.int32) for key in EVIDENCE_INT_KEYS})
    fields["boxes"] = tfds.features.Sequence(
        {key: tfds.features.Text() for key in BOX_TEXT_KEYS}
        | {key: tfds.features.Scalar(dtype=np.float32) for key in BOX_FLOAT_KEYS})
    return tfds.features.FeaturesDict(fields)

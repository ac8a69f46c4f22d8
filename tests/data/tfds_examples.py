"""Records as the nested dicts of TFDS, an independent reader and writer of our record bytes."""

from __future__ import annotations

from typing import Any

from lgdea_jax.data.codec import (
    BOX_FLOAT_KEYS,
    BOX_TEXT_KEYS,
    EVIDENCE_INT_KEYS,
    EVIDENCE_TEXT_KEYS,
    FLAG_KEYS,
    TEXT_KEYS,
)
from lgdea_jax.records import Box, Evidence, Record


def to_example(record: Record) -> dict[str, Any]:
    """The nested dict that `features(...)` encodes, for TFDS to write."""
    example = {key: getattr(record, key) for key in (*TEXT_KEYS, *FLAG_KEYS, "image", "image_shape", "original_shape",
                                                     "spacing", "labels", "age")}
    example["evidence"] = [{key: getattr(item, key) for key in (*EVIDENCE_TEXT_KEYS, *EVIDENCE_INT_KEYS)}
                           for item in record.evidence]
    example["boxes"] = [{key: getattr(box, key) for key in (*BOX_TEXT_KEYS, *BOX_FLOAT_KEYS)} for box in record.boxes]
    return example


def from_example(example: dict[str, Any]) -> Record:
    """The record of a dict that TFDS decoded (text arrives as bytes)."""
    values: dict[str, Any] = {key: example[key].decode("utf-8") for key in TEXT_KEYS}
    values |= {key: bool(example[key]) for key in FLAG_KEYS}
    values |= {key: example[key] for key in ("image", "image_shape", "original_shape", "spacing", "labels")}
    values["age"] = float(example["age"])
    evidence, boxes = example["evidence"], example["boxes"]
    values["evidence"] = tuple(
        Evidence(**{k: evidence[k][i].decode("utf-8") for k in EVIDENCE_TEXT_KEYS},
                 **{k: int(evidence[k][i]) for k in EVIDENCE_INT_KEYS}) for i in range(len(evidence["start"])))
    values["boxes"] = tuple(
        Box(**{k: boxes[k][i].decode("utf-8") for k in BOX_TEXT_KEYS},
            **{k: float(boxes[k][i]) for k in BOX_FLOAT_KEYS}) for i in range(len(boxes["x"])))
    return Record(**values)

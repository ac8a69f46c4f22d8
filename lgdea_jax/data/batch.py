"""The schema of a batch: the arrays of each stream with their shapes and dtypes, written down here only.

A batch is a dict of streams, each a dict of arrays with the stream's rows first. `pairs` come first, then unpaired
`images` and unpaired `reports`; the step joins arrays of one name along the rows (`models.forward.gather_streams`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgdea_jax.preprocess.image_spec import ImageSpec, input_dtype, input_shape
from lgdea_jax.preprocess.text_view import TextView

STREAMS = ("pairs", "images", "reports")


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a stream: the shape of a row, and the dtype."""

    shape: tuple[int, ...]
    dtype: Any


Fields = Mapping[str, Field]


@dataclasses.dataclass(frozen=True)
class BatchSchema:
    """What a batch holds.

    Attributes:
      image_spec: of images: side in pixels, or the view of volumes.
      text: of reports; None for methods without text.
      num_labels: n, of the data sets.
      hidden_reports: whether unpaired images carry the phrases of the reports that they really have.
      images: whether the images of pairs are read; False for a method without an image tower.
    """

    image_spec: ImageSpec
    text: TextView | None
    num_labels: int
    hidden_reports: bool = False
    images: bool = True

    def batch_fields(self, stream: str) -> dict[str, Field]:
        """The arrays of a stream.

        Images (streams `pairs` and `images`):
          labels        int8 [n], in the order of the run's label names
          image         uint8 [S, S] pixels, or int16 [D, H, W, 1] of a volume in HU; where `images` is set
          image_index   int32, row of the evidence memory; likewise
        Reports (`pairs` and `reports`), of methods with text:
          tokens        int32 [T] or [P, T], see `TextView`
          weight        float32 [P] of the phrases, 0 where there is none
          finding       int32 [P], -1 where there is none
          normal        bool, normality is stated and nothing else
          report_index  int32, row of the evidence memory
        Pairs:
          study         int32, equal for views of one study
        Unpaired images, where `hidden_reports` is set, never read by the student:
          hidden_tokens int32 [P, T], in the report's own words; hidden_weight float32 [P]
        """
        fields: dict[str, Field] = {}
        if stream != "reports":
            if self.images:
                fields |= {"image": Field(input_shape(self.image_spec), input_dtype(self.image_spec)),
                           "image_index": Field((), np.int32)}
            fields["labels"] = Field((self.num_labels,), np.int8)
        if stream != "images" and self.text:
            phrases = self.text.phrases
            fields |= {"tokens": Field(self.text.shape, np.int32), "weight": Field((phrases,), np.float32),
                       "finding": Field((phrases,), np.int32), "normal": Field((), np.bool_),
                       "report_index": Field((), np.int32)}
        if stream == "pairs":
            fields["study"] = Field((), np.int32)
        if stream == "images" and self.hidden_reports:
            fields |= {"hidden_tokens": Field(self.text.shape, np.int32),
                       "hidden_weight": Field((self.text.phrases,), np.float32)}
        return fields

    def item_fields(self, stream: str) -> dict[str, Field]:
        """The same of items before augmentation: tokens have all wordings (a first axis V); volumes are as stored.

        A stored volume is `volume`, an object: bytes or `StoredVolume`, of which a crop decodes only its own chunks.
        """
        fields = self.batch_fields(stream)
        if "tokens" in fields:
            fields["tokens"] = Field((self.text.num_variants, *self.text.shape), np.int32)
        if "image" in fields and not isinstance(self.image_spec, int):
            del fields["image"]
            fields["volume"] = Field((), object)
        return fields


def empty(fields: Fields, rows: int) -> dict[str, np.ndarray]:
    """Arrays of so many rows, not filled."""
    return {name: np.empty((rows, *field.shape), field.dtype) for name, field in fields.items()}

"""What all training objectives share: their options, and the functions of a model's outputs that they define.

An objective is a frozen dataclass; its fields are the keys of `config.methods.NAME`. `table` lists the objectives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from lgdea_jax.losses.chunks import Chunks

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A training objective.

    `outputs` are those of `models.forward.forward`, `rows` those of `models.forward.gather_streams`.

    Attributes:
      name: its preset, `config.method`; not an option.
      text: which text it reads ("report", "evidence", "phrases", or "" for none); see `preprocess.text_view`.
      scoring: how findings are scored, see `evaluators.zero_shot`.
      weights: weight of each loss term; a term of weight 0 is not computed.
      chunks: how contrastive losses are cut; None computes all scores at once. Not an option.
      needs: parts of the model: "image", "text", "prototypes", "lesion_queries".
      classifies: what its linear classifier of the labels reads: the features of a tower, "image" or "text", or
        "latents", those of both towers in the shared space; "" without a classifier.
      projection_bias: whether the model's projections to the shared space have a bias.
      loss_names: the terms that it has.
      unpaired_streams: the streams of unpaired items that its losses read, of "images" and "reports".
      has_memory: whether its losses read targets of unpaired items (`training.evidence_memory`); it then has `targets`,
        `memory_image` and `memory_report`.
    """

    name: str
    text: str
    scoring: str
    weights: Mapping[str, float]
    chunks: Chunks | None = None

    needs: ClassVar[tuple[str, ...]] = ("image", "text")
    classifies: ClassVar[str] = ""
    projection_bias: ClassVar[bool] = True
    loss_names: ClassVar[tuple[str, ...]]
    unpaired_streams: ClassVar[tuple[str, ...]] = ()
    has_memory: ClassVar[bool] = False

    @property
    def terms(self) -> frozenset[str]:
        """The loss terms that are computed: those with a weight."""
        return frozenset(term for term, weight in self.weights.items() if weight)

    @property
    def scaled(self) -> bool:
        """Whether the model's `logit_scale` multiplies its scores in training."""
        return True

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of a batch that its losses read."""
        return ("pairs", *self.unpaired_streams)

    def losses(self, outputs: Mapping[str, Any], rows: Mapping[str, Any], targets: Mapping[str, jax.Array],
               ) -> Arrays:
        """{name: scalar} of the terms in `terms`; `targets` are those of unpaired items, {} without any."""
        raise NotImplementedError

    def diagnostics(self, outputs: Mapping[str, Any], rows: Mapping[str, Any]) -> Arrays:
        """{name: scalar}, logged and not trained on."""
        raise NotImplementedError

    def image_embedding(self, outputs: Mapping[str, Any]) -> Arrays:
        """`embedding` [N, E] for scores, `patches` [N, L, Q] where the method grounds, `logits` where it classifies."""
        raise NotImplementedError

    def text_embedding(self, outputs: Mapping[str, Any], weight: jax.Array) -> Arrays:
        """`embedding` [N, E] for scores, `query` [N, Q] for heatmaps, `logits` where it classifies texts.

        Args:
          outputs: of the texts; weight: float32 [N, P], of the phrases.
        """
        raise NotImplementedError

"""The training objectives by name, and an objective made of its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lgdea_jax.errors import UserError, choose, nearest
from lgdea_jax.losses.chunks import Chunks
from lgdea_jax.methods.base import Method
from lgdea_jax.methods.clip import Clip
from lgdea_jax.methods.clip_evidence_soft import ClipEvidenceSoft
from lgdea_jax.methods.clip_sigmoid import ClipSigmoid
from lgdea_jax.methods.clip_supervised import ClipSupervised
from lgdea_jax.methods.lgdea import Lgdea
from lgdea_jax.methods.lgdea_pairs import LgdeaPairs
from lgdea_jax.methods.local import Local
from lgdea_jax.methods.supervised import Supervised, SupervisedText

OBJECTIVES: Mapping[str, type[Method]] = {
    "clip": Clip, "clip_evidence_soft": ClipEvidenceSoft, "clip_sigmoid": ClipSigmoid,
    "clip_supervised": ClipSupervised, "local": Local, "supervised": Supervised, "supervised_text": SupervisedText,
    "lgdea_pairs": LgdeaPairs, "lgdea": Lgdea}


def make_method(name: str, options: Mapping[str, Any], *, chunks: Chunks | None = None) -> Method:
    """The objective that a preset describes.

    Args:
      name: of the preset; options: `config.methods.NAME`: `objective`, a key of OBJECTIVES, and its fields.
      chunks: how contrastive losses are cut, None computes all scores at once.

    Raises:
      UserError: unknown objective, loss or option, a missing option, or weights that are all 0.
    """
    given = dict(options)
    kind = OBJECTIVES[choose(f"objective of method {name}", given.pop("objective", ""), OBJECTIVES)]
    takes = {field.name for field in dataclasses.fields(kind)} - {"name", "chunks"}
    if unused := sorted(set(given) - takes):
        raise UserError(f"the method {name} does not take the option {unused[0]!r}{nearest(unused[0], takes)}")
    if missing := sorted(takes - set(given)):
        raise UserError(f"the method {name} needs the option config.methods.{name}.{missing[0]}")
    for term in given["weights"]:
        choose(f"loss of method {name}", term, kind.loss_names)
    method = kind(name=name, chunks=chunks, **given)
    if not method.terms:
        raise UserError(f"config.methods.{name}.weights are all 0: nothing to train on")
    return method

"""The phantom CT world: synthetic chest CT volumes with reports, 3D boxes and labels, made from a seed.

    python -m data_prep.build --config=configs/data/phantom_ct.py --out=DATA

Item i of a split depends on (seed, split, i) only; splits are separate worlds, and the test world has wordings
that the others do not have. Labels are what was drawn (the reference); what an extractor reads from the reports are the
label sets "silver" and "weak" of the build (`config.derived_labels`), and differ from it as `ct.reports` describes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_prep.study import SPLITS, ImageRef, Study
from data_prep.synthetic.ct.drawing import render
from data_prep.synthetic.ct.reports import Rates, Report, write_report
from data_prep.synthetic.ct.world import FIELD, FINDINGS, Scene, sample_scene
from data_prep.synthetic.random_stream import RandomStream
from lgdea_jax.errors import UserError, nearest
from lgdea_jax.io.raw_volume import VolumeHeader
from lgdea_jax.records import NEGATIVE, POSITIVE, Box

NAME = "phantom_ct"


@dataclasses.dataclass(frozen=True)
class PhantomCtOptions:
    """The keys of `config.phantom_ct`.

    Attributes:
      shape: voxels (z, y, x) over 320 x 360 x 360 mm.
      train, validation, test: number of studies in each split; seed: of the worlds.
      max_findings, normal_share, repeat_share: as the phantom's of radiographs.
      omitted, hedged, compared, overcalled, resolved, denied: see `ct.reports.Rates`.
    """

    shape: tuple[int, int, int] = (32, 48, 48)
    train: int = 1500
    validation: int = 200
    test: int = 400
    seed: int = 0
    max_findings: int = 4
    normal_share: float = 0.25
    repeat_share: float = 0.1
    omitted: float = 0.05
    hedged: float = 0.12
    compared: float = 0.15
    overcalled: float = 0.012
    resolved: float = 0.02
    denied: float = 0.75

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> PhantomCtOptions:
        """Reads `config.phantom_ct`; keys left out keep their defaults.

        Raises:
          UserError: an unknown key, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key in section:
            if key not in known:
                raise UserError(f"unknown config key 'phantom_ct.{key}'{nearest(key, known)}")
        options = cls(**{key: tuple(section[key]) if key == "shape" else section[key] for key in section})
        if len(options.shape) != 3 or not all(16 <= n <= 512 for n in options.shape):
            raise UserError(f"phantom_ct.shape is {options.shape}: depth, height and width of 16 to 512 voxels")
        for key in ("seed", *SPLITS):
            if getattr(options, key) < 0:
                raise UserError(f"phantom_ct.{key} is {getattr(options, key)}: it must not be negative")
        if not 1 <= options.max_findings <= len(FINDINGS):
            raise UserError(f"phantom_ct.max_findings is {options.max_findings}: it must be 1 to {len(FINDINGS)}")
        for key in ("normal_share", "repeat_share", *(field.name for field in dataclasses.fields(Rates))):
            if not 0 <= getattr(options, key) <= 1:
                raise UserError(f"phantom_ct.{key} is {getattr(options, key)}: it must be 0 to 1")
        return options


@dataclasses.dataclass(frozen=True)
class PhantomCtSource:
    """Studies of one split by index."""

    options: PhantomCtOptions
    split: str

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels that every study has."""
        return FINDINGS

    def __len__(self) -> int:
        return getattr(self.options, self.split)

    def scene(self, index: int) -> tuple[Scene, int]:
        """(what is in the study, its subject's number), before drawing and writing."""
        o = self.options
        if not 0 <= index < len(self):
            raise IndexError(f"phantom CT study {index} of {len(self)}")
        return sample_scene(o.seed, SPLITS.index(self.split), index, normal_share=o.normal_share,
                            max_findings=o.max_findings, repeat_share=o.repeat_share)

    def report(self, index: int) -> Report:
        """The study's report, with the words that state each lesion."""
        rates = Rates(**{field.name: getattr(self.options, field.name) for field in dataclasses.fields(Rates)})
        rng = RandomStream(self.options.seed, SPLITS.index(self.split), 24, index)
        return write_report(self.scene(index)[0], rng, rates, test=self.split == "test")

    def __getitem__(self, index: int) -> Study:
        """Study number `index`: one volume, report, labels, and boxes in its voxels."""
        index = int(index)
        scene, subject = self.scene(index)
        o, world = self.options, SPLITS.index(self.split)
        volume, extents = render(scene, o.shape, RandomStream(o.seed, world, 23, index))
        report = self.report(index)
        boxes = tuple(Box(lesion.finding, phrase, x=x, y=y, z=z, w=w, h=h, d=d)
                      for lesion, phrase, sites in zip(scene.lesions, report.phrases, extents)
                      for z, y, x, d, h, w in sites)
        spacing = tuple(extent / n for extent, n in zip(FIELD, o.shape))
        return Study(
            study_id=f"phantomct{o.seed}-{self.split}-{index:07d}",
            subject_id=f"phantomct{o.seed}-{self.split}-s{subject}", split=self.split,
            images=(ImageRef("0", pixels=volume, boxes=boxes, header=VolumeHeader(spacing=spacing)),),
            report=report.text,
            labels={name: POSITIVE if name in scene.present else NEGATIVE for name in FINDINGS},
            source=NAME, licence="Apache-2.0", terms="open", sex=scene.anatomy.sex, age=scene.anatomy.age,
            modality="CT")


def open_source(config: Mapping[str, Any], split: str) -> PhantomCtSource:
    """One split of the phantom CT source of `config.phantom_ct` (see `PhantomCtOptions`).

    Raises:
      UserError: an unknown key, or a value out of range.
    """
    return PhantomCtSource(PhantomCtOptions.of(config.get("phantom_ct", {})), split)

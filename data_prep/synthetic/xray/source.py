"""The phantom world: synthetic chest radiographs with reports, boxes and labels, made on the spot from a seed.

    python -m data_prep.build --config=configs/data/phantom.py --out=DATA

Item i of a split depends on (seed, split, i) only, so any item is made without the others, in any process. The splits
are separate worlds, and the test world has wordings that the others do not have (`xray.phrases`). The pictures
are schematic and carry no medical truth: they exist to test learning from findings, reports and boxes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_prep.extract import sections
from data_prep.study import SPLITS, ImageRef, Reference, Study
from data_prep.synthetic.random_stream import RandomStream
from data_prep.synthetic.xray.drawing import render
from data_prep.synthetic.xray.findings import sample_scene
from data_prep.synthetic.xray.reports import Report, write_report
from data_prep.synthetic.xray.world import FINDINGS, Scene
from lgdea_jax.errors import UserError, choose, nearest
from lgdea_jax.records import NEGATIVE, POSITIVE, UNCERTAIN, Box

NAME = "phantom"
REPORT_SECTIONS = ("examination", "indication", "comparison", "technique", "findings", "impression")


@dataclasses.dataclass(frozen=True)
class PhantomOptions:
    """The keys of `config.phantom`.

    Attributes:
      size: side of the square images in pixels, 64 to 512.
      train, validation, test: number of studies in each split.
      seed: of the worlds; each split has its own.
      max_findings: most findings in an image.
      normal_share: share of studies without any finding.
      repeat_share: share of studies whose subject has two studies (same anatomy).
      distractors: whether devices, markers and burned-in text are drawn.
      report_sections: which sections of the report are kept, as readers of real data sets do.
    """

    size: int = 64
    train: int = 4000
    validation: int = 500
    test: int = 1000
    seed: int = 0
    max_findings: int = 3
    normal_share: float = 0.3
    repeat_share: float = 0.15
    distractors: bool = True
    report_sections: tuple[str, ...] = ("findings", "impression")

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> PhantomOptions:
        """Reads `config.phantom`; keys left out keep their defaults.

        Raises:
          UserError: an unknown key, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key in section:
            if key not in known:
                raise UserError(f"unknown config key 'phantom.{key}'{nearest(key, known)}")
        options = cls(**{key: section[key] for key in section})
        for name in options.report_sections:
            choose("report section", name, REPORT_SECTIONS)
        if not 64 <= options.size <= 512:
            raise UserError(f"phantom.size is {options.size}: it must be 64 to 512 pixels")
        for key in ("seed", *SPLITS):
            if getattr(options, key) < 0:
                raise UserError(f"phantom.{key} is {getattr(options, key)}: it must not be negative")
        if not 0 <= options.max_findings <= 3:
            raise UserError(f"phantom.max_findings is {options.max_findings}: it must be 0 to 3")
        for key in ("normal_share", "repeat_share"):
            if not 0 <= getattr(options, key) <= 1:
                raise UserError(f"phantom.{key} is {getattr(options, key)}: it must be 0 to 1")
        return options


@dataclasses.dataclass(frozen=True)
class PhantomSource:
    """Studies of the phantom world by index: train first, then validation, then test, or one split alone."""

    options: PhantomOptions
    split: str | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels that every study has."""
        return FINDINGS

    def __len__(self) -> int:
        return sum(getattr(self.options, split) for split in self._splits())

    def _splits(self) -> tuple[str, ...]:
        return SPLITS if self.split is None else (self.split,)

    def locate(self, index: int) -> tuple[str, int]:
        """(split, index within it) of an item.

        Raises:
          IndexError: outside 0, ..., len - 1.
        """
        left = index
        for split in self._splits():
            count = getattr(self.options, split)
            if 0 <= left < count:
                return split, left
            left -= count
        raise IndexError(f"phantom study {index} of {len(self)}")

    def scene(self, index: int) -> Scene:
        """What is in the study, before drawing and writing."""
        return self._scene(*self.locate(index))[0]

    def _scene(self, split: str, index: int) -> tuple[Scene, str]:
        o = self.options
        return sample_scene(seed=o.seed, world=SPLITS.index(split), index=index, normal_share=o.normal_share,
                            max_findings=o.max_findings, repeat_share=o.repeat_share, distractors=o.distractors)

    def report(self, index: int) -> Report:
        """The study's report with what is known about it (templates used, what it states)."""
        split, within = self.locate(index)
        return self._report(self._scene(split, within)[0], split, within)

    def reference(self, index: int) -> Reference:
        """The report without the picture, labelled by what its words state: silence counts as absence."""
        split, within = self.locate(int(index))
        report = self._report(self._scene(split, within)[0], split, within)
        values = {"present": POSITIVE, "uncertain": UNCERTAIN}
        labels = {name: values.get(report.stated.get(name, ""), NEGATIVE) for name in FINDINGS}
        return Reference(f"phantom{self.options.seed}-{split}-{within:07d}",
                         sections.keep(report.text, self.options.report_sections), labels, terms="open")

    def _report(self, scene: Scene, split: str, index: int) -> Report:
        rng = RandomStream(self.options.seed, SPLITS.index(split), 5, index)
        return write_report(scene, rng, test=split == "test")

    def __getitem__(self, index: int) -> Study:
        """Study number `index`: one uint8 image [size, size], report, 12 labels, boxes in pixels."""
        split, within = self.locate(int(index))
        size, seed = self.options.size, self.options.seed
        scene, subject = self._scene(split, within)
        report = self._report(scene, split, within)
        pixels, extents = render(scene, size, RandomStream(seed, SPLITS.index(split), 4, within))
        boxes = tuple(Box(lesion.finding, phrase, x * size, y * size, w * size, h * size)
                      for lesion, phrase, parts in zip(scene.lesions, report.phrases, extents) for x, y, w, h in parts)
        present = scene.present
        return Study(
            study_id=f"phantom{seed}-{split}-{within:07d}",
            subject_id=f"phantom{seed}-{split}-s{subject}",
            split=split,
            images=(ImageRef("0", view=scene.pose.view, pixels=pixels, boxes=boxes),),
            report=sections.keep(report.text, self.options.report_sections),
            labels={name: POSITIVE if name in present else NEGATIVE for name in FINDINGS},
            source=NAME,
            licence="Apache-2.0",
            terms="open",
            sex=scene.anatomy.sex,
            age=scene.anatomy.age,
            modality="CR",
        )


def open_source(config: Mapping[str, Any], split: str | None = None) -> PhantomSource:
    """The phantom source of `config.phantom` (see `PhantomOptions`), all splits or one.

    Raises:
      UserError: an unknown key or split, or a value out of range.
    """
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}{nearest(split, SPLITS)}; known: {', '.join(SPLITS)}")
    return PhantomSource(PhantomOptions.of(config.get("phantom", {})), split)

"""A source without files for the build's tests: seeded noise pictures and short reports, in every combination."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_prep.study import ImageRef, Reject, Study
from lgdea_jax.records import Box

LABELS = ("Pleural Effusion", "Nodule")


@dataclasses.dataclass
class FakeSource:
    split: str
    count: int
    seed: int
    reject_every: int
    label_names: tuple[str, ...] = LABELS

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.reject_every and index % self.reject_every == self.reject_every - 1:
            raise Reject("made to fail", study_id=f"{self.split}-{index}")
        rng = np.random.default_rng([self.seed, index, len(self.split)])
        views = ("PA", "LATERAL")[:int(rng.integers(0, 3))]
        images = tuple(
            ImageRef(view.lower(), view, pixels=rng.integers(0, 256, (40, 32 + 8 * i), dtype=np.uint8),
                     boxes=(Box("Nodule", "a nodule", 3.0, 4.0, 5.0, 6.0),) if i == 0 else ())
            for i, view in enumerate(views))
        has_report = not images or rng.random() < 0.7
        report = f"FINDINGS: Small nodule number {index % 100}. No pleural effusion." if has_report else ""
        return Study(f"{self.split}-{index}", f"{self.split}-p{index // 2}", self.split, images, report,
                     {"Nodule": 1, "Pleural Effusion": 0} if index % 3 else {}, "fake", "none", "own", "en", "F", 50.0)


def open_source(config, split):
    config = config.fake
    return FakeSource(split, config.counts.get(split, 0), config.seed, config.reject_every)

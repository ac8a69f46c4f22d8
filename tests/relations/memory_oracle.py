"""The evidence memory in NumPy, float64: what its rows, means, graph and targets must be."""

import numpy as np
from scipy.special import softmax

from lgdea_jax.training.evidence_memory import EvidenceMemory, MemoryOptions

OPTIONS = {"source": "relations", "start": 2, "full": 6, "graph_every": 3, "landmarks": 6, "top": 0, "temperature": 0.3,
           "alpha": 0.6, "order": 2, "own": 0.4, "sharpen": 0.7, "align": 1.0, "momentum": 0.9, "seed": 0}
RARE = 1e-4


def make_memory(*, pairs=3, images=9, reports=8, prototypes=5, width=4, shards=1, **options):
    """A memory with the options above."""
    return EvidenceMemory(options=MemoryOptions(**{**OPTIONS, **options}), num_pairs=pairs, images=images,
                          reports=reports, prototypes=prototypes, width=width, shards=shards)


def unit(x):
    """Rows of unit norm."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def walk(z):
    """W = Z D^-1 Z^T; an anchor that nobody uses is left out."""
    z = z[:, z.sum(0) > 0]
    return z @ np.diag(1 / z.sum(0)) @ z.T


class Oracle:
    """The memory of `make_memory`; its landmarks are given."""

    def __init__(self, memory, centres):
        self.options, self.pairs, self.centres = memory.options, memory.num_pairs, centres
        self.rows = {side: {"evidence": np.zeros((memory.rows(side), memory.prototypes)),
                            "features": np.zeros((memory.rows(side), memory.width)),
                            "visited": np.zeros(memory.rows(side), int)} for side in ("images", "reports")}
        self.means = {side: (np.zeros(memory.prototypes), 0.0) for side in ("images", "reports")}
        self.relations = None

    def visit(self, side, index, evidence, features, step):
        """One row after the other: of equal ones the last counts."""
        for row, some, other in zip(index, evidence, features, strict=True):
            self.rows[side]["evidence"][row], self.rows[side]["features"][row] = some, other
            self.rows[side]["visited"][row] = step

    def count(self, side, evidence, weight):
        """The running mean as (sum, mass)."""
        if weight.sum():
            keep = self.options.momentum
            total, mass = self.means[side]
            mean = np.average(evidence, axis=0, weights=weight)
            self.means[side] = (keep * total + (1 - keep) * mean, keep * mass + 1 - keep)

    def mean(self, side):
        """A side's running mean."""
        total, mass = self.means[side]
        return total / mass if mass else total

    def assign(self, side, features):
        """Assignments to the landmarks."""
        return softmax(unit(features) @ unit(self.centres[side]).T / self.options.temperature, axis=1)

    def rebuild(self):
        """S without the seeds' own part as a dense matrix, by the definition of the walk; rows that count."""
        seen = {side: self.rows[side]["visited"] > 0 for side in self.rows}
        seen["reports"] = seen["reports"] & (self.rows["reports"]["evidence"].sum(1) > 0)
        z = {side: np.where(seen[side][:, None], self.assign(side, np.where(
            seen[side][:, None], self.rows[side]["features"], 1.0)), 0.0) for side in self.rows}
        s0 = np.zeros((len(seen["images"]), len(seen["reports"])))
        for pair in range(self.pairs):
            s0[pair, pair] = seen["images"][pair] and seen["reports"][pair]
        self.relations = {"z": z, "s0": s0, "seen": seen, "evidence": {
            side: np.where(seen[side][:, None], self.rows[side]["evidence"], 0.0) for side in self.rows}}

    def related(self, side, features):
        """(inherited evidence, confidence) of items with these features: as a row of the walk that nobody walks from.

        The item's own row of Z takes part as the last step of the walk, not in the anchors' masses.
        """
        if self.relations is None:
            return np.zeros((len(features), self.rows[side]["evidence"].shape[1])), np.zeros(len(features))
        other = {"images": "reports", "reports": "images"}[side]
        own, theirs = self.relations["z"][side], self.relations["z"][other]
        s0 = self.relations["s0"] if side == "images" else self.relations["s0"].T
        mass = own.sum(0)
        step_in = self.assign(side, features) @ np.diag(np.divide(1, mass, out=np.zeros_like(mass), where=mass > 0))
        step_in = step_in @ own.T  # [B, N]: from an item of the batch to those of the memory.
        w_own, w_other, alpha = walk(own), walk(theirs), self.options.alpha
        s = (1 - alpha) * sum(
            alpha**t * step_in @ np.linalg.matrix_power(w_own, t - 1) @ s0 @ np.linalg.matrix_power(w_other, t)
            for t in range(1, self.options.order + 1))
        given = self.relations["evidence"][other]
        confidence = s @ given.sum(1)
        return np.divide(s @ given, confidence[:, None], out=np.zeros((len(s), given.shape[1])),
                         where=confidence[:, None] > 0), confidence

    def sharpen(self, p):
        """p^(1/T), scaled."""
        p = p ** (1 / self.options.sharpen)
        return p / np.maximum(p.sum(1, keepdims=True), 1e-300)

    def ramp(self, step):
        """Weight of the step after `step` steps."""
        first, last = self.options.start, self.options.full
        return np.clip((step - first + 1) / (last - first), 0, 1)

    def certainty(self, target):
        """(largest / median, at most 1)^2."""
        top = target.max(1)
        return np.minimum(top / (np.median(top) or 1), 1) ** 2

    def image_targets(self, evidence, features, step):
        """(target, weight) of unpaired images."""
        related, confidence = self.related("images", features)
        own = self.options.own
        mixed = np.where(confidence[:, None] > 0, own * evidence + (1 - own) * related, evidence)
        mixed = self.sharpen(mixed)
        self.count("images", mixed, np.ones(len(mixed)))
        target = mixed
        if self.mean("reports").sum() > 0:
            target = mixed * ((self.mean("reports") + RARE) / (self.mean("images") + RARE)) ** self.options.align
            target = target / target.sum(1, keepdims=True)
        return target, self.certainty(target) * self.ramp(step)

    def report_targets(self, index, step):
        """(target, weight) of unpaired reports."""
        held = {name: value[index] for name, value in self.rows["reports"].items()}
        seen = held["visited"] > 0
        target, confidence = self.related("reports", np.where(seen[:, None], held["features"], 1.0))
        target = self.sharpen(target)
        return target, np.where(seen & (confidence > 0), self.certainty(target), 0) * self.ramp(step)

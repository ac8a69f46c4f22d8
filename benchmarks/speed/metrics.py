"""Speed of our metrics beside their usual forms, with a check that both give the same numbers.

    python -m benchmarks.speed.metrics                      # 14 labels x 200k, 1,000 resamples; recall@K on 10k x 10k
    python -m benchmarks.speed.metrics --only=recall --width=128

- AUROC with a bootstrap: scikit-learn's `roc_auc_score` on each resample of each label, in a loop, against weights on
  scores that are sorted once. The loop would take half an hour: it is timed on a few resamples and scaled up.
- Recall@K in both directions: `numpy.argsort` of the whole score matrix along both axes, against counting in blocks.

Peak memory is what NumPy allocates on top of the inputs. Take the cores for yourself while it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from lgdea_jax import cli
from lgdea_jax.metrics import bootstrap, classification, recall

KS = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison: seconds of both, and whether and how they were found equal."""

    name: str
    peer: str
    peer_seconds: float
    seconds: float
    equal: str

    def __str__(self) -> str:
        return (f"{self.name}: ours {self.seconds:.2f} s, {self.peer} {self.peer_seconds:.2f} s: "
                f"{self.peer_seconds / self.seconds:.1f} x; {self.equal}")


def auroc(*, labels: int = 14, samples: int = 200_000, resamples: int = 1000, timed: int = 3) -> Row:
    """The bootstrap of AUROC; scikit-learn's loop is timed on `timed` resamples of every label and scaled up.

    Raises:
      SystemExit: the values of a resample differ by more than 1e-9.
    """
    sk_metrics = cli.require("sklearn.metrics", "test", "the comparison")
    rng = np.random.default_rng(0)
    truth = (rng.random((labels, samples)) < rng.uniform(0.01, 0.3, (labels, 1))).astype(np.int8)
    scores = (np.round(rng.normal(size=truth.shape) + truth, 3)).astype(np.float32)  # Rounded: ties.
    subjects = np.arange(samples)
    start = time.perf_counter()
    drawn = [np.stack([classification.auroc(s, y, weights) for s, y in zip(scores, truth)])
             for weights in bootstrap.weight_blocks(subjects, resamples, seed=0)]
    ours = np.concatenate(drawn, axis=1)
    seconds = time.perf_counter() - start
    counts = next(iter(bootstrap.weight_blocks(subjects, timed, seed=0)))
    theirs, loop = np.empty((labels, timed)), 0.0
    for b, count in enumerate(counts):
        rows = np.repeat(subjects, count)  # The same resample as an index: what a loop indexes with.
        start = time.perf_counter()
        for c in range(labels):
            theirs[c, b] = sk_metrics.roc_auc_score(truth[c, rows], scores[c, rows])
        loop += time.perf_counter() - start
    gap = float(np.abs(ours[:, :timed] - theirs).max())
    if gap > 1e-9:
        raise SystemExit(f"AUROC differs from scikit-learn by {gap}")
    return Row(f"AUROC, {labels} labels x {samples:,} x {resamples:,} resamples",
               f"scikit-learn in a loop ({timed} resamples timed, scaled to {resamples:,})", loop * resamples / timed,
               seconds, f"greatest difference {gap:.1e} over {timed} x {labels}")


def recall_at_k(*, size: int = 10_000, width: int = 512) -> Row:
    """Recall@K both ways on `size` images and texts with embeddings of `width`.

    Raises:
      SystemExit: a query's hit differs, or counting held an array of size x size.
    """
    rng = np.random.default_rng(0)
    images = rng.normal(size=(size, width)).astype(np.float32)
    texts = images + rng.normal(size=images.shape).astype(np.float32) * np.float32(0.35 * width**0.5)
    own = np.arange(size)
    seconds, ours = _timed(lambda: recall.recall_both_ways(images, texts, own, own, KS))

    def by_sorting() -> tuple[np.ndarray, np.ndarray]:
        scores = images @ texts.T
        return tuple((np.argsort(-table, axis=1)[:, :max(KS)] == own[:, None]).cumsum(1)[:, np.array(KS) - 1]
                     for table in (scores, scores.T))

    peer_seconds, theirs = _timed(by_sorting)
    different = int(sum((a != b).sum() for a, b in zip(ours, theirs)))
    # float32 scores that agree to the last bit in one of the two orders of summation need not in the other.
    if different > 2:
        raise SystemExit(f"recall@K differs from argsort in {different} of {6 * size} hits")
    tracemalloc.start()
    recall.recall_both_ways(images, texts, own, own, KS)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    if peak > (size * size + 8 * images.nbytes) / 2**20:  # One byte for every pair, and copies of the inputs.
        raise SystemExit(f"counting held {peak:.0f} MB")
    values = ", ".join(f"@{k} {hits:.3f}" for k, hits in zip(KS, ours[0].mean(0)))
    return Row(f"recall@K both ways, {size:,} x {size:,}, width {width}", "numpy argsort", peer_seconds, seconds,
               f"{different} of {6 * size:,} hits differ (image to text {values}); peak {peak:.0f} MB")


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def main(argv: list[str]) -> int:
    """Prints the comparisons."""
    parser = cli.Parser(prog="python -m benchmarks.speed.metrics", description=__doc__)
    parser.add_argument("--only", choices=("auroc", "recall"), help="one of the two (default: both)")
    parser.add_argument("--labels", type=int, default=14, help="of AUROC (default: 14)")
    parser.add_argument("--samples", type=int, default=200_000, help="of AUROC (default: 200,000)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstraps of AUROC (default: 1000)")
    parser.add_argument("--timed", type=int, default=3, help="resamples that scikit-learn's loop is timed on")
    parser.add_argument("--size", type=int, default=10_000, help="images and reports of recall@K (default: 10,000)")
    parser.add_argument("--width", type=int, default=512, help="of their embeddings (default: 512)")
    args: argparse.Namespace = parser.parse_args(argv)
    print(f"{len(os.sched_getaffinity(0))} cores, NumPy {np.__version__}")
    if args.only != "recall":
        print(auroc(labels=args.labels, samples=args.samples, resamples=args.resamples, timed=args.timed), flush=True)
    if args.only != "auroc":
        print(recall_at_k(size=args.size, width=args.width), flush=True)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)

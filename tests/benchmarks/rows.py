"""Made-up rows of finished runs: methods and seeds with known effects, subjects that all runs share."""

import numpy as np

SPREAD = {"zero_shot/auroc": (0.01, 0.006), "retrieval/precision@5": (0.02, 0.02), "grounding/cnr": (0.05, 0.03),
          "grounding/pointing": (0.02, 0.015)}  # Standard deviation between seeds, and over resamples of the subjects.


def make_row(run, key, level, *, resamples=40, subjects="s1"):
    """A row of `run` whose metrics lie around `level` in [0, 1]."""
    # The same for all runs: easy and hard subjects are so for every model.
    shared = np.random.default_rng(0).normal(size=(len(SPREAD), resamples))
    rng = np.random.default_rng([run.seed, int(key[:8], 16)])
    metrics, replicates = {}, {}
    for draw, (name, (seed_spread, subject_spread)) in zip(shared, SPREAD.items()):
        own = rng.normal(size=resamples)
        metrics[name] = level + rng.normal(0, seed_spread)
        replicates[name] = np.round(metrics[name] + subject_spread * (draw + 0.3 * own), 5).tolist()
    return {"key": key, "method": run.method, "pairs": run.pairs, "seed": run.seed, "split": run.split,
            "steps": run.steps, "extra": list(run.extra), "config": "c0ffee", "resumed": False,
            "seconds": {"train": 80.0, "evaluate": 10.0}, "metrics": metrics, "subjects": subjects,
            "replicates": replicates, "images": run.images, "findings": findings(run, level)}


def findings(run, level):
    """{finding: [AUROC, positive pairs]}: the rarer, the worse; the last one is not defined."""
    return {name: [None if name == "Hernia" else level - 0.01 / (count + 1), count]
            for name, count in (("Mass", run.seed % 2), ("Edema", 5), ("Hernia", 0))}

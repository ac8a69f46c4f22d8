# %% [markdown]
# # Limited pairs: the plots of the study
#
# How zero-shot classification, retrieval and grounding on the phantom world depend on how many studies stay paired. The
# finished runs lie in `benchmarks/experiments/limited_pairs.jsonl`; this notebook reads them and trains nothing, so
# the package must be installed from a clone of the repository. What is not finished is said, not guessed.

# %% install

# %%
import os
import sys

# Small settings, which the tests use: LGDEA_SMALL=1. Everything is written below WORK.
SMALL = os.environ.get("LGDEA_SMALL") == "1"
WORK = os.environ.get("LGDEA_WORK", "lgdea_work")

# %%
from pathlib import Path

import lgdea_jax

checkout = Path(lgdea_jax.__file__).resolve().parents[1]
ROWS = Path("benchmarks", "experiments", "limited_pairs.jsonl")
assert (checkout / ROWS).is_file(), "the package is installed without the rest of the repository: install a clone"
sys.path.insert(0, str(checkout))

# %% [markdown]
# ## The rows

# %%
import json
from collections import defaultdict

import numpy as np

from benchmarks.experiments.arms import Setting

lines = (checkout / ROWS).read_text(encoding="utf-8").splitlines()
rows = [json.loads(line) for line in lines]
rows = [row for row in rows if row["split"] == "test" and not row["extra"]]
cells = defaultdict(dict)
for row in rows:
    cells[Setting(row["pairs"], row["images"]), row["method"]][row["seed"]] = row
for (setting, method), seeds in sorted(cells.items()):
    values = [row["metrics"]["zero_shot/auroc"] for row in seeds.values()]
    print(f"{setting.name:<24} {method:<20} {len(seeds)} seeds, AUROC {np.mean(values):.3f}")
assert rows and all(0 <= row["metrics"]["zero_shot/auroc"] <= 1 for row in rows)

# %% [markdown]
# ## The study's table and plots
#
# The same as `python -m benchmarks.experiments.limited_pairs --only-table --out=OUT`: means over seeds with intervals
# over seeds and subjects, paired comparisons with Holm's correction, and a plot for each metric.

# %%
from benchmarks.experiments import limited_pairs

OUT = Path(WORK) / "limited_pairs"
os.makedirs(WORK, exist_ok=True)
here = os.getcwd()
out = OUT.resolve()
os.chdir(checkout)
try:
    status = limited_pairs.main(["--only-table", f"--out={out}"])
finally:
    os.chdir(here)
assert status == 0

# %%
from IPython.display import Image, display

plots = sorted(out.glob("**/*.png"))
assert len(plots) >= 3
for plot in plots:
    display(Image(str(plot), width=520))

# %% [markdown]
# ## What the seeds say
#
# With a seed both methods have the same pairs and the same unpaired reports; `lgdea` reads unpaired images as well.

# %%
method, base, share = "lgdea", "lgdea_pairs", Setting(0.01)
both = sorted(set(cells[share, method]) & set(cells[share, base]))
for metric in ("zero_shot/auroc", "retrieval/precision@5", "grounding/cnr"):
    difference = [cells[share, method][seed]["metrics"][metric] - cells[share, base][seed]["metrics"][metric]
                  for seed in both]
    print(f"{metric:<24} {method} - {base}: {np.round(difference, 3).tolist()} (seeds {both})")

# %% [markdown]
# # Quick start: the phantom world
#
# A world of synthetic chest radiographs with reports is made on the spot, two towers are trained on it, and the
# checkpoint is evaluated: zero-shot classification, retrieval, grounding. Minutes on a CPU. The pictures are schematic;
# numbers from here say nothing about real radiographs. **Research use only, not a medical device.**

# %% install

# %%
import os

# Small settings, which the tests use: LGDEA_SMALL=1. Everything is written below WORK.
SMALL = os.environ.get("LGDEA_SMALL") == "1"
WORK = os.environ.get("LGDEA_WORK", "lgdea_work")

# %% [markdown]
# ## Data and training
#
# The same as `python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN`. A missing data set is made first.
# Running the cell again goes on from the last checkpoint.

# %%
from pathlib import Path

from data_prep import build
from lgdea_jax import cli, train

DATA, RUN = f"{WORK}/phantom", f"{WORK}/run"
studies = {"train": 800, "validation": 100, "test": 50} if SMALL else {"train": 4000, "validation": 500, "test": 1000}
config = cli.read_config("configs/data/phantom.py")
for split, number in studies.items():
    config.phantom[split] = number
if not os.path.exists(f"{DATA}/dataset_info.json"):
    build.build(config, Path(DATA), progress=False)

steps = 80 if SMALL else 500
flags = [f"--config.total_steps={steps}", f"--config.eval.every={steps // 2}"]
if SMALL:
    flags += ["--config.model.image.resnet.sizes.width=16", "--config.optim.warmup_steps=20",
              "--config.batch.pairs=24"]
status = train.main(["--config=configs/phantom.py", f"--workdir={RUN}", f"--config.data.dir={DATA}", *flags])
assert status == 0

# %% [markdown]
# ## Evaluation on a test world
#
# Other studies, and in part other wordings than in training. Every value has a 95% interval over subjects.

# %%
from lgdea_jax.eval import phantom

OUT = f"{WORK}/eval"
phantom.main([f"--checkpoint={RUN}", f"--out={OUT}", f"--studies={200 if SMALL else 1000}", "--overlays=6",
              f"--bootstrap={100 if SMALL else 1000}"])

# %%
import json

clean = next(r for r in json.loads(Path(f"{OUT}/results.json").read_text())["results"] if r["mode"] == "clean")
auroc = clean["metrics"]["zero_shot/auroc"]
print("zero-shot AUROC", auroc)
# Better than chance, with certainty: the lower bound of the interval is above 0.5.
assert auroc["low"] > 0.5

# %% [markdown]
# ## Where the model looks
#
# Cyan: the reference box; white cross: the highest value; the patient's right is image left.

# %%
from IPython.display import Image, display

listed = json.loads(Path(f"{OUT}/overlays/overlays.json").read_text())
assert listed
for item in listed[:2 if SMALL else 6]:
    display(Image(f"{OUT}/overlays/{item['file']}", width=600))

# %% [markdown]
# ## Everything on one page
#
# Tables, ROC curves, retrieval examples, heatmaps and the training curves in one file that loads nothing from outside.

# %%
from lgdea_jax import report

report.main([OUT, RUN, f"--html={WORK}/page.html"])
page = Path(f"{WORK}/page.html").read_text(encoding="utf-8")
assert "Retrieval examples" in page and "training loss" in page

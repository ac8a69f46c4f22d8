# %% [markdown]
# # Unpaired images: what their targets become during training
#
# With few pairs, `lgdea` learns from unpaired images too: in each step the averaged model, the teacher, reads them, and
# its evidence (mixed with what an image inherits over relations) is what a disturbed view of the image is trained on.
# So a finding that the pairs taught well gets better, and one that they taught wrongly can get worse. This notebook
# trains with few pairs for some minutes, and follows the finding that gains most and the one that gains least.
# **Research use only, not a medical device.**

# %% install

# %%
import os

# Small settings, which the tests use: LGDEA_SMALL=1. Everything is written below WORK.
SMALL = os.environ.get("LGDEA_SMALL") == "1"
WORK = os.environ.get("LGDEA_WORK", "lgdea_work")

# %%
from pathlib import Path

import numpy as np

from data_prep import build
from lgdea_jax import cli, train

studies = {"train": 800, "validation": 100, "test": 50} if SMALL else {"train": 2000, "validation": 200, "test": 50}
steps, pairs = (120, 60) if SMALL else (1000, 40)
DATA, RUN = f"{WORK}/phantom", f"{WORK}/unpaired_run"
config = cli.read_config("configs/data/phantom.py")
for split, number in studies.items():
    config.phantom[split] = number
if not os.path.exists(f"{DATA}/dataset_info.json"):
    build.build(config, Path(DATA), progress=False)
# Checkpoints of the whole training are kept: each holds the teacher of its step.
flags = [f"--config.data.pairs={pairs}", f"--config.total_steps={steps}", f"--config.checkpoint.every={steps // 3}",
         "--config.checkpoint.keep=10", f"--config.eval.every={steps}", "--config.memory.truth=true"]
if SMALL:
    flags += ["--config.model.image.resnet.sizes.width=16", "--config.optim.warmup_steps=20",
              "--config.batch.pairs=12", "--config.alarm.information=0"]  # So short a training tells little apart.
assert train.main(["--config=configs/phantom.py", f"--workdir={RUN}", f"--config.data.dir={DATA}", *flags]) == 0

# %% [markdown]
# ## How near the targets are to the truth
#
# The phantom world knows the report that every unpaired image really has. The plot shows how far the targets, and the
# teacher's own evidence, are from its evidence: the share of the evidence that lies on other prototypes (total
# variation, 0 is equal). The true evidence is what the teacher of that step reads in the report, so it changes too: as
# long as prototypes differ little, all evidence is nearly the same, and a small distance means little. Compare the two
# curves with each other. The shaded steps are those in which the targets have no weight yet.

# %%
import json

import matplotlib.pyplot as plt

rows = [json.loads(line) for line in Path(RUN, "metrics.jsonl").read_text().splitlines()]
at = [row["step"] for row in rows]
figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
for name, label in (("memory/target_to_truth", "target"), ("memory/teacher_to_truth", "teacher")):
    axes.plot(at, [row[name] for row in rows], label=label)
axes.axvspan(0, 0.1 * steps, color="0.9")
axes.set(xlabel="step", ylabel="distance to the true evidence")
axes.legend()
plt.show()
assert all(0 <= row["memory/target_to_truth"] <= 1 for row in rows) and rows[-1]["loss/evid_image"] > 0

# %% [markdown]
# ## By finding: what gains and what loses
#
# At every checkpoint the teacher scores training images that are not among the pairs. The AUROC of each finding is
# against the labels that training does not read.

# %%
import lgdea_jax
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.plan import make_plan
from lgdea_jax.data.source import open_records
from lgdea_jax.io import decode_image
from lgdea_jax.metrics.classification import auroc

first = lgdea_jax.load(RUN)
plan = make_plan(cli.load_config(["--config=configs/phantom.py", f"--config.data.dir={DATA}", *flags])[0].data, seed=0)
[part] = plan.parts["images"]
source = open_records(DATA, "train")
unpaired = [source[int(row)] for row in part.rows[:200 if SMALL else 500]]
encoding = load_metadata(DATA).image_encoding
images = [decode_image(record.image, encoding) for record in unpaired]
names = first.spec["label_names"]
labels = np.stack([record.labels for record in unpaired])
kept = [number for number, name in enumerate(names) if name != "No Finding" and (labels[:, number] == 1).sum() >= 8]
saved = sorted(int(path.name) for path in Path(RUN, "checkpoints").iterdir() if path.name.isdigit())
models = {step: lgdea_jax.load(RUN, step=step) for step in saved}
history = {}
for step in saved:
    scores = models[step].scores(images, [names[number] for number in kept])
    history[step] = [auroc(scores[:, column], labels[:, number] == 1) for column, number in enumerate(kept)]
change = np.array(history[saved[-1]]) - np.array(history[saved[0]])
most, least = kept[int(np.argmax(change))], kept[int(np.argmin(change))]
for number, difference in sorted(zip(kept, change), key=lambda pair: pair[1]):
    positive = (labels[:, number] == 1).sum()
    print(f"{names[number]:<28} {positive:>4} positive  {difference:+.3f} from step {saved[0]} on")
assert np.isfinite(change).all()

# %% [markdown]
# ## One image of each: its heatmap over training
#
# An unpaired image that has the finding, and where the teacher finds it at each checkpoint. All maps of a row share one
# scale, so that a faint map is a faint map.

# %%
figure, axes = plt.subplots(2, 1 + len(saved), figsize=(1.7 * (1 + len(saved)), 3.8), layout="constrained")
for line, (title, number) in zip(axes, (("gains most", most), ("gains least", least))):
    image = images[int(np.flatnonzero(labels[:, number] == 1)[0])]
    maps = [model.heatmaps([image], [names[number]])[0][0] for model in models.values()]
    low, high = min(map(np.min, maps)), max(map(np.max, maps))
    line[0].imshow(image, cmap="gray")
    line[0].set_title(f"{title}: {names[number]}", fontsize=8)
    for panel, step, found in zip(line[1:], saved, maps):
        panel.imshow(image, cmap="gray")
        panel.imshow(found, cmap="inferno", alpha=0.5, vmin=low, vmax=high)
        panel.set_title(f"step {step}", fontsize=8)
for axis in axes.flat:
    axis.axis("off")
plt.show()
assert np.isfinite(low) and high > low

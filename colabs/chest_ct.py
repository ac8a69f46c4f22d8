# %% [markdown]
# # Chest CT: silver labels, pretraining, zero-shot scores, slices with heat
#
# Volumes instead of radiographs, on a phantom world of synthetic chest CT with reports: labels are read from the
# reports, an image tower is pretrained on them, CLIP goes on from it, and prompts score the result for findings, as in
# [arXiv 2509.13175](https://arxiv.org/abs/2509.13175). The volumes are schematic; numbers from here say nothing
# about real CT. **Research use only, not a medical device.**

# %% install

# %%
import os

# Small settings, which the tests use: LGDEA_SMALL=1. Everything is written below WORK.
SMALL = os.environ.get("LGDEA_SMALL") == "1"
WORK = os.environ.get("LGDEA_WORK", "lgdea_work")

# %% [markdown]
# ## Volumes with reports
#
# The same as `python -m data_prep.build --config=configs/data/phantom_ct.py --out=DATA`. Your own NIfTI files, DICOM
# series or .npz files and their reports go through `configs/data/table_ct.py`.

# %%
from pathlib import Path

from data_prep import build
from lgdea_jax import cli

DATA = f"{WORK}/phantom_ct"
studies = {"train": 400, "validation": 80, "test": 80} if SMALL else {"train": 1500, "validation": 200, "test": 400}
config = cli.read_config("configs/data/phantom_ct.py")
for split, number in studies.items():
    config.phantom_ct[split] = number
if not os.path.exists(f"{DATA}/dataset_info.json"):
    build.build(config, Path(DATA), progress=False)

# %% [markdown]
# One study: its report, and axial slices through its boxes. Cyan: what the reference says is there; the patient's right
# is image left. Lung is looked at in another window of Hounsfield units than the mediastinum.

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.inference.volumes import WINDOWS, window_of
from lgdea_jax.io import decode_volume

records = list(open_records(DATA, "test"))
shown = max(records, key=lambda record: len({box.finding for box in record.boxes}))
volume = decode_volume(shown.image)  # int16 [z, y, x] in HU.
print(shown.report)
boxes = list({box.finding: box for box in shown.boxes}.values())[:4]
figure, axes = plt.subplots(1, len(boxes), figsize=(3.2 * len(boxes), 3.6), squeeze=False)
for axis, box in zip(axes[0], boxes):
    window, z = window_of("", box.finding), int(box.z + box.d / 2)
    axis.imshow(volume[z], cmap="gray", vmin=WINDOWS[window][0], vmax=WINDOWS[window][1])
    axis.add_patch(plt.Rectangle((box.x - 0.5, box.y - 0.5), box.w, box.h, fill=False, edgecolor="cyan"))
    axis.set_title(f"{box.finding}\nslice {z}, {window} window", fontsize=9)
    axis.axis("off")
figure.tight_layout()
display(figure)
plt.close(figure)
assert boxes and volume.min() < -900 and volume.max() > 200  # Air and bone: Hounsfield units.

# %% [markdown]
# ## Silver labels against the reference
#
# The reference is what was drawn. *Silver* labels are what the extractor reads from the report: good, but reports leave
# things out and hedge. *Weak* labels are bare keywords, which take every denial ("no pleural effusion") for a finding.

# %%
from lgdea_jax.findings.label_sets import label_columns
from lgdea_jax.records import NEGATIVE, POSITIVE

names = load_metadata(DATA).label_names
labels = np.array([record.labels for record in open_records(DATA, "train")])
reference, silver, weak = (labels[:, list(label_columns(names, kind).values())]
                           for kind in ("reference", "silver", "weak"))


def agreement(made):
    """Per finding, the share of reports where labels that were decided are those of the reference."""
    decided = (made == POSITIVE) | (made == NEGATIVE)
    return ((made == reference) & decided).sum(0) / decided.sum(0)


print(f"{'agreement with the reference':36}silver   weak")
for name, first, second in zip(label_columns(names, "reference"), agreement(silver), agreement(weak)):
    print(f"{name:36}{first:6.1%} {second:6.1%}")
print(f"{'mean':36}{agreement(silver).mean():6.1%} {agreement(weak).mean():6.1%}")
assert agreement(silver).mean() > 0.9 > agreement(weak).mean()

# %% [markdown]
# ## A tower that is pretrained on silver labels
#
# `python -m lgdea_jax.train --config=configs/supervised_ct.py:phantom --config.data.labels=silver`. It is judged
# against the reference labels of the validation split.

# %%
import json

from lgdea_jax import train

SUPERVISED, CLIP = f"{WORK}/run_supervised_ct", f"{WORK}/run_clip_ct"
steps = 150 if SMALL else 600
status = train.main([
    "--config=configs/supervised_ct.py:phantom", f"--workdir={SUPERVISED}", f"--config.data.dir={DATA}",
    "--config.data.labels=silver", f"--config.total_steps={steps}", f"--config.eval.every={steps}"])
assert status == 0
supervised = json.loads(Path(f"{SUPERVISED}/evals.jsonl").read_text().splitlines()[-1])["classifier/auroc"]
print(f"AUROC of the classifier: {supervised:.3f}")
assert supervised > 0.55

# %% [markdown]
# ## CLIP from this tower
#
# Whole volumes against whole reports; of the run that `init_from` names the image tower is taken, and nothing else.

# %%
steps = 80 if SMALL else 300
status = train.main([
    "--config=configs/clip_ct.py:phantom", f"--workdir={CLIP}", f"--config.data.dir={DATA}",
    f"--config.init_from={SUPERVISED}", f"--config.total_steps={steps}", f"--config.eval.every={steps}"])
assert status == 0

# %% [markdown]
# ## Zero-shot diagnosis
#
# The benchmark of CT-RATE on the phantom's test world, whose reports have wordings that training never saw. No label
# was used to choose anything here: findings are scored by prompts. Intervals are over patients.

# %%
from lgdea_jax.eval import ct_rate

OUT = f"{WORK}/eval_ct_rate"
ct_rate.main([f"--checkpoint={CLIP}", f"--data_dir={DATA}", f"--out={OUT}", "--tasks=zero_shot", "--overlays=0",
              f"--bootstrap={100 if SMALL else 1000}"])
clean = next(r for r in json.loads(Path(f"{OUT}/results.json").read_text())["results"] if r["mode"] == "clean")
auroc = clean["metrics"]["zero_shot/auroc"]
# Better than chance: the lower bound of the interval is above 0.5.
assert auroc["low"] > 0.5

# %% [markdown]
# ## Your own volumes, and where the model looks
#
# `python -m lgdea_jax.predict` takes NIfTI files, folders with a DICOM series, and .npz files, whose voxel spacing has
# to be given. Each prompt is drawn on the axial slice with the highest value of its heatmap. A model of whole
# reports says what a volume is like better than where: `configs/lgdea_ct.py` learns from evidence and patches.

# %%
from IPython.display import Image

import lgdea_jax
from lgdea_jax import predict
from lgdea_jax.inference.volumes import Volume

scans = Path(f"{WORK}/scans")
scans.mkdir(exist_ok=True)
np.savez_compressed(scans / "study.npz", ct=volume)
prompts = [box.finding for box in boxes[:2]]
status = predict.main([
    f"--checkpoint={CLIP}", str(scans), *(f"--prompt={prompt}" for prompt in prompts), f"--out={WORK}/predicted",
    "--heatmaps", f"--spacing={','.join(str(mm) for mm in shown.spacing)}"])
assert status == 0
entry = json.loads(Path(f"{WORK}/predicted/predictions.jsonl").read_text())
for prompt in prompts:
    display(Image(f"{WORK}/predicted/{entry['heatmaps'][prompt]}", width=600))
# The slice that is shown is the hottest one.
model = lgdea_jax.load(CLIP)
[heat] = model.heatmaps(Volume(volume, shown.spacing), prompts)
for prompt, values in zip(prompts, heat):
    assert np.isclose(np.nanmax(values[entry["slices"][prompt]]), np.nanmax(values), atol=1e-4)

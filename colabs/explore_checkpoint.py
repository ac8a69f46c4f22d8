# %% [markdown]
# # Exploring a checkpoint: grounding, retrieval, prototypes, relations
#
# What a trained model has learnt, looked at from four sides. `RUN` and `DATA` may be your own; without them a small
# model is trained on the phantom world first. **Research use only, not a medical device.**

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

DATA, RUN = os.environ.get("LGDEA_DATA", ""), os.environ.get("LGDEA_RUN", "")
if not RUN:
    DATA, RUN = f"{WORK}/phantom", f"{WORK}/run"
    studies = {"train": 800, "validation": 100, "test": 50}
    if not SMALL:
        studies = {"train": 4000, "validation": 500, "test": 1000}
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
    assert train.main(["--config=configs/phantom.py", f"--workdir={RUN}", f"--config.data.dir={DATA}", *flags]) == 0

# %% [markdown]
# ## Three lines: scores of images for prompts
#
# `load` takes any run; images are files, arrays or PIL images. A prompt that names a finding is scored with its
# ensemble of prompts, any other text as it is. Scores order images for one prompt; they are not probabilities.

# %%
import lgdea_jax
from lgdea_jax.data.source import open_records
from lgdea_jax.io import decode_image

model = lgdea_jax.load(RUN)
records = [record for record in open_records(DATA, "validation") if record.has_image]
images = [decode_image(record.image, record.image_format) for record in records]
prompts = ["Cardiomegaly", "Pleural Effusion", "there is a large mass in the left upper lobe"]
scores = model.scores(images[:4], prompts)
print(np.round(scores, 2))
assert scores.shape == (4, 3) and np.isfinite(scores).all()

# %% [markdown]
# ## Grounding: where a phrase points to

# %%
from IPython.display import display

from lgdea_jax.inference import overlay

boxed = [number for number, record in enumerate(records) if record.boxes]
chosen = boxed[:3]
inside = []
for number in boxed[:40]:
    box = records[number].boxes[0]
    [[heat]] = model.heatmaps([images[number]], [box.phrase or box.finding])
    boxes = [b for b in records[number].boxes if (b.finding, b.phrase) == (box.finding, box.phrase)]
    within = np.zeros(heat.shape, bool)
    for b in boxes:
        within[int(b.y):int(np.ceil(b.y + b.h)), int(b.x):int(np.ceil(b.x + b.w))] = True
    inside.append(float(heat[within].mean() > heat[~within].mean()))
    if number in chosen:
        display(overlay.draw(overlay.Overlay(images[number], heat, heat.shape, boxes, box.finding, (box.phrase,))))
print(f"hotter inside its box than outside: {np.mean(inside):.0%} of {len(inside)}")
assert np.mean(inside) > 0.5

# %% [markdown]
# ## Retrieval: the reports that an image finds

# %%
reports = list(dict.fromkeys(record.report for record in records))
phrases = {record.report: tuple(dict.fromkeys(e.phrase for e in record.evidence if e.certainty != "absent"))
           for record in records}
embedded = model.predictor.texts(reports, [phrases[report] for report in reports])["embedding"]
similar = model.embeddings(images) @ embedded.T
rank = np.array([1 + (row > row[reports.index(record.report)]).sum() for row, record in zip(similar, records)])
print(f"median place of the own report: {np.median(rank):.0f} of {len(reports)}")
for number in chosen:
    print("\nreport:", records[number].report[:150].replace("\n", " "))
    print("found: ", reports[int(similar[number].argmax())][:150].replace("\n", " "))
assert np.median(rank) < len(reports) / 2  # Better than by chance.

# %% [markdown]
# ## Prototypes: what the shared space is made of
#
# `python -m lgdea_jax.prototypes` finds for each prototype the findings, the most typical phrases and the nearest image
# patches. `python -m lgdea_jax.report OUT --html=page.html` shows them all.

# %%
from IPython.display import Image

from lgdea_jax import prototypes
from lgdea_jax.inference.prototypes import load

OUT = f"{WORK}/prototypes"
prototypes.main([f"--checkpoint={RUN}", f"--data_dir={DATA}", f"--out={OUT}"])
table = load(Path(OUT))["prototypes"]
for row in table[:3]:
    print(row["prototype"], [f"{item['finding']} {item['share']:.0%}" for item in row["findings"]])
    print("   ", [item["phrase"] for item in row["phrases"][:3]])
    display(Image(f"{OUT}/patches/{row['file']}"))
assert abs(sum(row["share"] for row in table) - 1) < 1e-4

# %% [markdown]
# ## Relations: from some pairs to unpaired images and reports
#
# A third of the studies stays paired. The pairs are seeds of a graph between images and reports, which spreads along
# the likeness of the images' and of the reports' evidence through anchors, never through all pairs. Images and reports
# that end up related should share findings more often than any two do; whether they do here is printed, not promised:
# few pairs and a young model relate no better than chance.

# %%
import jax

from lgdea_jax.relations.anchors import assign_to_landmarks, landmarks, relation_factor
from lgdea_jax.relations.seeds import seed_edges

own = np.array([reports.index(record.report) for record in records])
stated = [frozenset(e.finding for e in record.evidence if e.certainty == "present") for record in records]
of_report = {record.report: findings for record, findings in zip(records, stated)}
share = np.array([[bool(findings & of_report[report]) for report in reports] for findings in stated])
kinds = model.spec["config"]["model"]["prototypes"]  # An embedding begins with the evidence, an entry a prototype.


def soft(features, key):
    """Assignments to landmarks of the features."""
    centres = landmarks(jax.random.key(key), features, min(32, len(features)))
    return assign_to_landmarks(features, centres, temperature=0.1)


of_images, of_reports = soft(model.embeddings(images)[:, :kinds], 0), soft(embedded[:, :kinds], 1)
found, chance = [], []
for draw in range(4):
    pairs = np.random.default_rng(draw).permutation(len(records))[:len(records) // 3]
    seeds = seed_edges(pairs, own[pairs], num_images=len(records), num_reports=len(reports))
    factor = relation_factor(seeds, of_images, of_reports, alpha=0.8, order=3)
    related = np.array(of_images @ factor @ of_reports.T)  # Of a few items: training never makes this array.
    free = np.setdiff1d([i for i, findings in enumerate(stated) if findings], pairs)  # Unpaired, with a finding.
    first = np.argsort(-related[free], axis=1)[:, :5]
    found.append(np.take_along_axis(share[free], first, axis=1).mean())
    chance.append(share[free].mean())
print("an unpaired image shares a finding with the five reports most related to it: "
      f"{np.mean(found):.0%}, with any report: {np.mean(chance):.0%} (mean of {len(found)} draws)")
# Relations are shares of a walk from an image, and the images of the pairs are nearest to their own reports.
assert related.min() >= 0 and related.sum(axis=1).max() < 1 + 1e-4
assert related[pairs, own[pairs]].mean() > related.mean()

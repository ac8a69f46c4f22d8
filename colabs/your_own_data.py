# %% [markdown]
# # Your own data: a table, its evidence, its records
#
# From a table of images and reports to a data set that trains: what the extractor found stands beside each report, so
# that you can judge it before any training. No language model is needed; nothing leaves this machine.
# **Research use only, not a medical device.**

# %% install

# %%
import os

# Small settings, which the tests use: LGDEA_SMALL=1. Everything is written below WORK.
SMALL = os.environ.get("LGDEA_SMALL") == "1"
WORK = os.environ.get("LGDEA_WORK", "lgdea_work")

# %% [markdown]
# ## The table
#
# `studies.csv` has a row for each image: `study_id, subject_id, split` and, as far as there are such, `image` (a file
# beside the table), `report` and `label:NAME` columns (1, 0, -1 for uncertain, empty for missing). Set `TABLE` to your
# own. Without one, a small table of phantom studies is written, with one image missing on purpose.

# %%
import csv
from pathlib import Path

TABLE = os.environ.get("LGDEA_TABLE", "")

if not TABLE:
    import PIL.Image

    from data_prep.synthetic.xray.source import PhantomOptions, PhantomSource

    folder = Path(WORK) / "own"
    folder.mkdir(parents=True, exist_ok=True)
    TABLE = str(folder / "studies.csv")
    world = PhantomSource(PhantomOptions(train=30 if SMALL else 100, validation=10, test=10, repeat_share=0.0))
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["study_id", "subject_id", "split", "image", "report", "label:Pneumothorax"])
        for number in range(len(world)):
            study = world[number]
            image = f"{number:04d}.png"
            if number != 3:  # One image is missing: see below what becomes of it.
                PIL.Image.fromarray(study.images[0].pixels).save(folder / image)
            table.writerow([study.study_id, study.subject_id, study.split, image, study.report,
                            study.labels["Pneumothorax"]])
print(Path(TABLE).read_text(encoding="utf-8")[:700])

# %% [markdown]
# ## Evidence and records
#
# The same as `python -m data_prep.build --config=configs/data/table.py --config.table.path=TABLE --out=DATA`. The exit
# status is 3 where rows were refused; each stands in `DATA/rejected.csv` with its reason, and the rest is done.

# %%
from data_prep import build

DATA = f"{WORK}/own_data"
status = build.main(["--config=configs/data/table.py", f"--config.table.path={TABLE}", f"--out={DATA}",
                     "--config.workers=1"])
print("exit status", status)
print(Path(f"{DATA}/rejected.csv").read_text(encoding="utf-8"))

# %%
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records

metadata = load_metadata(DATA)
counts = metadata.counts
for split, row in counts.items():
    print(split, row)
# Nothing vanishes: what was read is in the records or was refused.
with open(TABLE, encoding="utf-8", newline="") as file:
    rows = sum(1 for _ in csv.DictReader(file))
assert sum(row["rows"] for row in counts.values()) == rows

# %% [markdown]
# ## Evidence beside its report
#
# Every item of evidence quotes the report. Green: stated as present; amber: uncertain; grey: denied.

# %%
import html

from IPython.display import HTML, display

COLOURS = {"present": "#bfe6c4", "uncertain": "#ffe1a3", "absent": "#e2e4e8"}


def beside(record):
    """A report with its evidence marked, and the items as a table."""
    marked, place = "", 0
    for item in sorted(record.evidence, key=lambda e: e.start):
        if item.start >= place:
            marked += html.escape(record.report[place:item.start])
            marked += f'<mark style="background:{COLOURS[item.certainty]};color:#000">' + html.escape(
                record.report[item.start:item.end]) + "</mark>"
            place = item.end
    marked += html.escape(record.report[place:])
    items = "".join(f"<li><b>{item.finding}</b> ({item.certainty}) "
                    f"{' '.join(filter(None, (item.severity, item.laterality, item.anatomy)))}</li>"
                    for item in record.evidence)
    return (f'<div style="display:flex;gap:2em;margin-bottom:1.5em"><div style="flex:3;white-space:pre-wrap">{marked}'
            f'</div><ul style="flex:2">{items}</ul></div>')


shown = [record for record in open_records(DATA, "train") if record.evidence][:4]
display(HTML("".join(beside(record) for record in shown)))

# %% [markdown]
# The images of these reports, as they are stored, with what is stated as present. Image-left is patient-right: nothing
# is flipped.

# %%
import matplotlib.pyplot as plt

from lgdea_jax.io import decode_image

figure, axes = plt.subplots(2, 2, figsize=(4.2, 4.8), layout="constrained")
for axis, record in zip(axes.flat, shown):
    if record.image:  # A report may have none.
        axis.imshow(decode_image(record.image, metadata.image_encoding), cmap="gray")
    present = dict.fromkeys(item.finding for item in record.evidence if item.certainty == "present")
    axis.set_title("\n".join(present) or "nothing", fontsize=8)
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %%
# Every phrase is verbatim at its place, in every split.
checked = 0
for split in metadata.splits:
    for record in open_records(DATA, split):
        for item in record.evidence:
            assert record.report[item.start:item.end] == item.phrase
            checked += 1
print(checked, "phrases checked")
assert checked > 10

# %% [markdown]
# ## A page to judge by
#
# `python -m data_prep.audit` makes a page with a sample of reports and their evidence, to be read by somebody who knows
# reports. Then train: `python -m lgdea_jax.train --config=configs/small.py --workdir=RUN --config.data.dir=DATA`.

# %%
from data_prep import audit

audit.main([f"--data_dir={DATA}", f"--html={WORK}/audit.html", "--sample=10", "--second=none"])
assert Path(f"{WORK}/audit.html").stat().st_size > 1000

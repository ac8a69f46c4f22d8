"""Writes small tables for the `table` source."""

import csv

import numpy as np
from PIL import Image

HEADER = ("study_id", "subject_id", "split", "image_id", "view", "image", "report", "label:Nodule",
          "label:Pleural Effusion")
REPORT = "FINDINGS: There is a small nodule in the left upper lobe. No pleural effusion."


def image(folder, name, shape=(40, 30), seed=0, mode="L"):
    """Writes a noise picture and returns its name."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        Image.fromarray(rng.integers(0, 4096, shape, dtype=np.uint16)).save(folder / name)
    else:
        channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
        Image.fromarray(rng.integers(0, 256, (*shape, *channels), dtype=np.uint8)).save(folder / name)
    return name


def row(study, *, subject=None, split="train", image_id="", view="", image="", report="", nodule="", effusion="",
        **more):
    """One row as a dict; `more` are further columns."""
    return dict(zip(HEADER, (study, subject or f"p-{study}", split, image_id, view, image, report, nodule, effusion),
                    strict=True)) | more


def write(folder, rows, header=None, name="studies.csv"):
    """Writes a table with the rows' columns."""
    folder.mkdir(exist_ok=True)
    header = header or list(dict.fromkeys(key for one in rows for key in one)) or HEADER
    with open(folder / name, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def good(folder):
    """Four usable studies of both kinds and splits."""
    folder.mkdir(exist_ok=True)
    return [
        row("s1", image=image(folder, "a.png"), view="PA", image_id="front", report=REPORT, nodule="1", effusion="0"),
        row("s1", image=image(folder, "b.png", seed=1), view="LATERAL", image_id="side"),
        row("s2", report="IMPRESSION: Normal chest. No acute disease."),
        row("s3", image=image(folder, "c.png", seed=2), split="validation", effusion="-1"),
        row("s4", image=image(folder, "d.png", seed=3), report=REPORT, split="test"),
    ]

"""What is handed on holds no names, ids or sentences of the data: they are planted everywhere, and every file of a
checkpoint, an export, an evaluation, a page and a card is looked through."""

import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from data_prep import build
from lgdea_jax import card, cli, export, report, train
from lgdea_jax.data.source import open_records
from lgdea_jax.eval import records
from lgdea_jax.eval.harness import output
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.data import subject_key
from lgdea_jax.preprocess.text import train_tokenizer
from tests.data_prep.shards import tables

SURNAMES = ("Quimbleworth", "Zschokke", "Oyelaran", "Vlahovic", "Brzezinska", "Mbeki-Tutu", "Xiangfei", "Hjaltalin",
            "Ruizpenas", "Dlamini", "Kowalczyk", "Thistlewood")
pytestmark = pytest.mark.slow  # It trains, evaluates and exports.

ACCESSION = "ACC-7741-{}"
SPLITS = ("train",) * 8 + ("validation",) * 2 + ("test",) * 2


def subject_of(number):
    return f"MRN83{number:04d}29"


def sentence_of(number):
    """A sentence like no other."""
    return f"Her daughter {SURNAMES[number]} drove {number + 3} hours from the lighthouse."


@pytest.fixture(scope="module")
def made(tmp_path_factory, compile_cache):
    """(folder of the data set, folders and files that are handed on)."""
    folder = tmp_path_factory.mktemp("privacy")
    rows, boxes = [], []
    for number, (surname, split) in enumerate(zip(SURNAMES, SPLITS, strict=True)):
        for visit in range(3):
            study = f"{ACCESSION.format(number)}-{visit}"
            name = tables.image(_made(folder / "in"), f"{surname}_{visit}.png", (48, 48), seed=10 * number + visit)
            text = (f"FINDINGS: {surname} ({subject_of(number)}, {study}) has a small nodule in the left upper lobe. "
                    f"No pleural effusion in {surname}. {sentence_of(number)}")
            rows.append(tables.row(study, subject=subject_of(number), split=split, image=name, report=text,
                                   nodule=str((number + visit) % 2), effusion=str(visit % 2)))
            boxes.append({"study_id": study, "image_id": "", "finding": "Nodule", "phrase": sentence_of(number),
                          "x": 5, "y": 5, "w": 20, "h": 20})
    tables.write(folder / "in", rows)
    tables.write(folder / "in", boxes, name="boxes.csv")
    config = cli.read_config("configs/data/table.py")
    config.table.path, config.workers, config.table.terms = str(folder / "in/studies.csv"), 1, "own"
    build.build(config, folder / "data", progress=False)
    run = folder / "run"
    assert train.main([
        "--config=tests/training/tiny.py", f"--workdir={run}", f"--config.data.dir={folder / 'data'}",
        "--config.total_steps=1", "--config.batch.pairs=4", "--config.batch.images=0", "--config.batch.reports=0",
        f"--config.compile_cache={compile_cache}"]) == cli.OK
    assert records.main([f"--checkpoint={run}", f"--data_dir={folder / 'data'}", "--split=test", "--bootstrap=5",
                         f"--out={folder / 'out'}"]) == cli.OK
    assert export.main([f"--checkpoint={run}", f"--out={folder / 'export'}"]) == cli.OK
    assert card.main([f"--checkpoint={run}", f"--results={folder / 'out'}", f"--out={folder / 'CARD.md'}"]) == cli.OK
    assert report.main([str(folder / "out"), f"--html={folder / 'page.html'}"]) == cli.OK
    return folder / "data", [run / "checkpoints", folder / "out", folder / "export", folder / "CARD.md",
                             folder / "page.html"]


def _made(folder):
    folder.mkdir(exist_ok=True)
    return folder


def planted():
    """What must be nowhere, in lower case; what a plain hash of an id gives, too."""
    numbers = range(len(SURNAMES))
    names = [part.lower() for name in SURNAMES for part in name.split("-") if len(part) > 4]
    ids = [subject_of(number).lower() for number in numbers] + ["acc 7741"]
    digests = [digest for number in numbers for digest in (
        subject_key(subject_of(number)), hashlib.sha256(subject_of(number).encode()).hexdigest()[:16])]
    # A word that many subjects' reports have may be a token; no sentence may be anywhere.
    return [*names, *ids, "hours from the lighthouse", *digests]


def content_of(path):
    """All words that a file holds, in lower case: those of arrays and of pictures' notes as well."""
    found = [path.name, path.read_bytes().decode("latin-1")]
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            found += [" ".join(map(str, archive[name].ravel())) for name in archive.files] + archive.files
    if path.suffix == ".png":
        found += [str(Image.open(io.BytesIO(path.read_bytes())).info)]
    return re.sub(r"[^a-z0-9]+", " ", "\n".join(found).lower())


def leaks(places):
    """(file, what) of all that is found."""
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*")))
             if file.is_file()]
    assert files
    words = planted()
    return [(file.name, word) for file in files for text in [content_of(file)] for word in words if word in text]


def test_nothing_planted_is_handed_on(made):
    data, places = made
    stored = [record.report for split in ("train", "test") for record in open_records(data, split)]
    assert all(any(name in text for text in stored) for name in SURNAMES[:8])  # They are in the data.
    assert leaks(places) == []
    vocabulary = json.loads((places[2] / "text/tokenizer.json").read_text())["model"]["vocab"]
    assert {"nodule", "lobe"} <= set(vocabulary)  # It was trained on these reports.


def test_what_leaked_once_is_found(made, tmp_path):
    """A vocabulary of all words, and subjects under a plain hash."""
    data, [_, out, *_] = made
    texts = [(record.subject_id, record.report) for record in open_records(data, "train")]
    train_tokenizer(texts, 2000, subjects=1).save(tmp_path / "tokenizer.json")
    assert {"quimbleworth", subject_of(0).lower()} <= {word for _, word in leaks([tmp_path])}
    (tmp_path / "tokenizer.json").unlink()
    samples = tasks.load_samples(out / "samples.npz")["zero_shot"]
    plain = samples.only(np.arange(len(samples.subjects)))
    plain.subjects[:] = [subject_key(subject_of(10 + row % 2)) for row in range(len(plain.subjects))]
    output.save_samples(tmp_path / "samples.npz", {"clean": [plain]})
    assert {word for _, word in leaks([tmp_path])} == {subject_key(subject_of(10)), subject_key(subject_of(11))}

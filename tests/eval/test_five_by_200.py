"""The 5x200 rule and its list files, written out."""

import argparse
import json

import numpy as np
import pytest

from lgdea_jax.data.dataset import DatasetMetadata
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness import five_by_200 as f
from lgdea_jax.records import MISSING, UNCERTAIN
from tests.evaluators.world import record

LABELS = ("No Finding", *f.PATHOLOGIES)


def _row(**values):
    row = np.full(len(f.PATHOLOGIES), MISSING, np.int8)
    for name, value in values.items():
        row[f.PATHOLOGIES.index(name.replace("_", " "))] = value
    return row


def test_the_rule_by_hand():
    """One of the five positive and the 12 others exactly 0, where blank is 0; devices count, No Finding does not."""
    assert len(f.PATHOLOGIES) == 13 and "Support Devices" in f.PATHOLOGIES and "No Finding" not in f.PATHOLOGIES
    cases = [(_row(Edema=1), 3), (_row(Atelectasis=1, Cardiomegaly=0, Support_Devices=0), 0),
             (_row(Pleural_Effusion=1), 4), (_row(Edema=1, Support_Devices=1), -1),
             (_row(Edema=1, Cardiomegaly=UNCERTAIN), -1), (_row(Edema=1, Cardiomegaly=1), -1),
             (_row(Edema=UNCERTAIN), -1), (_row(Pneumothorax=1), -1), (_row(), -1)]
    assert f.single_pathology(np.stack([row for row, _ in cases])).tolist() == [wanted for _, wanted in cases]


def test_the_draw_is_balanced_seeded_and_frontal():
    labels = np.stack([_row(**{f.CLASSES[i % 5].replace(" ", "_"): 1}) for i in range(40)])
    usable = np.arange(40) < 38
    chosen = f.draw(labels, usable, 3, seed=0)
    assert len(chosen.rows) == 15 and (np.diff(chosen.rows) > 0).all() and chosen.rows.max() < 38
    assert (chosen.labels.argmax(1) == chosen.rows % 5).all() and (chosen.labels.sum(0) == 3).all()
    assert (chosen.rows == f.draw(labels, usable, 3, seed=0).rows).all()
    assert (chosen.rows != f.draw(labels, usable, 3, seed=1).rows).any()
    many = f.draw(labels, usable, 200, seed=0)
    assert len(many.rows) == 35 and "the rarest class has no more" in many.note  # Classes 3 and 4 have 7.
    with pytest.raises(UserError, match="no image with Edema"):
        f.draw(labels, usable & (np.arange(40) % 5 != 3), 3, seed=0)


def _write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


JSON_LISTS = (
    {"a": {"image_path": "CheXpert-v1.0/train/p1/s1/view1.jpg", "label": [0, 0, 1, 0, 0]}},
    {"a": {"image_path": "CheXpert-v1.0/train/p1/s1/view1.jpg", "label": {
        "Consolidation": 1, "Edema": 0, "Pleural Effusion": 0, "Cardiomegaly": 0, "Atelectasis": 0}}},
    {"a": {"image_path": "CheXpert-v1.0/train/p1/s1/view1.jpg", "Atelectasis": 0, "Cardiomegaly": 0,
           "Consolidation": 1.0, "Edema": 0, "Pleural Effusion": 0}})


@pytest.mark.parametrize("content", JSON_LISTS)
def test_json_lists(content, tmp_path):
    entries = f.read_list(_write(tmp_path / "list.json", json.dumps(content)))
    assert entries == {"a": ("CheXpert-v1.0/train/p1/s1/view1.jpg", 2)}


def test_csv_lists(tmp_path):
    text = ("imgpath,Pleural Effusion,Atelectasis,Cardiomegaly,Consolidation,Edema\n"
            "x/train/p1/s1/view1.jpg,0,0,0,0,1.0\nx/train/p2/s1/view1.jpg,1,0,0,0,\n")
    entries = f.read_list(_write(tmp_path / "list.csv", text))
    assert [cls for _, cls in entries.values()] == [3, 4]


@pytest.mark.parametrize("name,text,message", [
    ("l.json", '{"a": {"image_path": "x", "label": [1, 1, 0, 0, 0]}}', "not one of 5"),
    ("l.json", '{"a": {"image_path": "x", "label": [1, 0]}}', "not one of 5"),
    ("l.json", '{"a": {"image_path": "x", "label": [2, 0, 0, 0, 0]}}', "not one of 5"),
    ("l.json", '{"a": {"image_path": "x", "Edema": 1}}', "a value for each of"),
    ("l.json", "[1, 2]", "not a JSON list"), ("l.json", "{", "not a JSON list"), ("l.json", "{}", "lists no image"),
    ("l.csv", "Edema,Atelectasis,Cardiomegaly,Consolidation,Pleural Effusion\n1,0,0,0,0\n", "needs a column"),
    ("l.csv", "path,Edema\nx,1\n", "a value for each of"),
    ("l.csv", "path,Edema,Atelectasis,Cardiomegaly,Consolidation,Pleural Effusion\nx,yes,0,0,0,0\n", "is no label")])
def test_faulty_lists_are_refused(name, text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        f.read_list(_write(tmp_path / name, text))


def test_images_of_a_list_are_found_by_id_path_or_its_end():
    ids = {"train/p1/s1/view1.jpg": 7, "train/p1/s1/view1": 7, "0a1b": 3, "train/p2/s1/view1.jpg": 5}
    chosen = f.from_list({"1": ("CheXpert-v1.0-small/train/p1/s1/view1.jpg", 4), "2": ("files/p10/s1/0a1b.jpg", 0),
                          "train/p2/s1/view1.jpg": ("", 2)}, ids, "list.json")
    assert chosen.rows.tolist() == [3, 5, 7] and chosen.labels.argmax(1).tolist() == [0, 2, 4]
    with pytest.raises(UserError, match=r"1 of 2 images of list.json are not in this split .* the first is b"):
        f.from_list({"a": ("0a1b.png", 0), "b": ("unheard/of.jpg", 1)}, ids, "list.json")
    with pytest.raises(UserError, match="twice"):
        f.from_list({"a": ("0a1b.png", 0), "b": ("x/0a1b.jpg", 1)}, ids, "list.json")


def _records():
    out = []
    for i in range(12):
        labels = np.concatenate([[MISSING], _row(**{f.CLASSES[i % 5].replace(" ", "_"): 1})]).astype(np.int8)
        one = record(i, (), labels=labels)
        out.append(one.__class__(**{**vars(one), "image_id": f"train/p{i}/view1.jpg",
                                    "view": "LATERAL" if i == 10 else "AP"}))
    return out


def test_selection_of_both_modes(tmp_path):
    path = _write(tmp_path / "l.json", json.dumps({"q": {"image_path": "r/train/p11/view1.jpg",
                                                         "label": [1, 0, 0, 0, 0]}}))
    metadata = argparse.Namespace(spec=DatasetMetadata, label_names=LABELS)
    args = argparse.Namespace(mode="both", list=str(path), per_class=200, seed=0, views="frontal")
    chosen = f.select(args, _records(), metadata, lambda *_: None)
    assert chosen["official"].rows.tolist() == [11] and chosen["official"].labels.tolist() == [[1, 0, 0, 0, 0]]
    assert len(chosen["clean"].rows) == 10 and 10 not in chosen["clean"].rows
    args.list = None
    assert set(f.select(args, _records(), metadata, lambda *_: None)) == {"clean"}
    metadata.label_names = ("Edema",)
    with pytest.raises(UserError, match="label of the data set"):
        f.select(args, _records(), metadata, lambda *_: None)

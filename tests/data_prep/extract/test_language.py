"""Reports in other languages are recognised, English ones never refused, and the rules say what to do."""

import csv

import pytest

from data_prep import score
from data_prep.build import main as build
from data_prep.extract.extractors import reads, unread
from data_prep.extract.language import foreign
from lgdea_jax.errors import UserError
from tests.data_prep.shards import tables

OTHERS = [
    ("Kein Pleuraerguss, keine Infiltrate. Herz normal groß.", "de"),
    ("Kein Erguss.", "de"),
    ("Pneumothorax links.", "de"),
    ("CLINICAL: cough. Das Herz ist normal, die Lungen sind frei.", "de"),
    ("Sin derrame pleural. Silueta cardíaca normal.", "es"),
    ("No hay neumotórax.", "es"),
    ("Cardiomegalia. Aumento de la trama pulmonar en ambos campos.", "es"),
    ("Pas d'épanchement pleural. Silhouette cardiaque normale.", "fr"),
    ("Opacités bilatérales prédominant à droite.", "fr"),
    ("心影增大，双侧胸腔积液。", "zh"),
    ("右上肺结节 5 mm。", "zh"),
    ("両側に胸水を認める。", "ja"),
    ("Нет выпота в плевральной полости.", "ru"),
    ("Nessun versamento pleurico.", "it"),
    ("Geen pleuravocht, hart niet vergroot.", "nl"),
]
ENGLISH = [
    "", "No PTX.", "R/O TB", "RLL pna vs atx", "ETT 4 cm above the carina.", "Cardiomegaly.", "pt c/o SOB", "Stable.",
    "No effusion, no pneumothorax.", "Clear lungs", "Les than 5 mm nodule", "De novo nodule en bloc", "1. 2. 3.",
    "LINES AND TUBES: NONE", "COPD, CHF", "Röntgen sign of Köhler", "Angle of 30\u00b0, \u03b1 = 5", "XXXX XXXX",
]


@pytest.mark.parametrize(("text", "code"), OTHERS)
def test_other_languages(text, code):
    assert foreign(text) == code
    assert not reads("rules", "", text) and not reads("rules", "en", text) and reads("openai", "", text)
    assert "--config.extractor=openai" in unread("rules", "", text)


@pytest.mark.parametrize("text", ENGLISH)
def test_english_is_not_refused(text):
    assert foreign(text) == "" and reads("rules", "", text)


def test_a_build_lists_what_it_does_not_read(tmp_path):
    reports = ("No effusion.", OTHERS[0][0], OTHERS[4][0], "Small left effusion.")
    rows = [tables.row(f"s{i}", report=report, language="") for i, report in enumerate(reports)]
    path = tables.write(tmp_path, rows)
    assert build(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1",
                  f"--out={tmp_path / 'data'}"]) == 3
    with open(tmp_path / "data" / "rejected.csv", newline="") as file:
        rejected = {row["study_id"]: row["reason"] for row in csv.DictReader(file)}
    assert rejected.keys() == {"s1", "s2"}
    assert rejected["s1"].startswith("a report that looks German: the extractor rules@4 reads en only")
    assert "Pleuraerguss" not in rejected["s1"]


def test_a_score_leaves_them_out_and_says_so(tmp_path):
    (tmp_path / "r.csv").write_text("uid,findings\na,No effusion.\nb,Kein Erguss links.\n", encoding="utf-8")
    (tmp_path / "ref.csv").write_text("uid,Pleural Effusion\na,0\nb,0\n", encoding="utf-8")
    arguments = [f"--reports={tmp_path / 'r.csv'}", f"--reference={tmp_path / 'ref.csv'}", "--columns=findings",
                 f"--out={tmp_path / 'score.json'}", "--resamples=2"]
    assert score.main(arguments) == 3
    assert "looks German" in (tmp_path / "score.json").read_text()
    (tmp_path / "r.csv").write_text("uid,findings\nb,Kein Erguss links.\n", encoding="utf-8")
    with pytest.raises(UserError, match="looks German"):
        score.main(arguments)

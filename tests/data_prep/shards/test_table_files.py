"""Tables as spreadsheets and Windows write them, drawn splits, and other spellings of findings."""

import logging

import numpy as np
import pytest

from data_prep.build import build
from data_prep.datasheet import rejected_reasons, sheet
from data_prep.sources.table import open_splits
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from tests.data_prep.shards import tables
from tests.data_prep.shards.test_table import config, rejected


def lines(*rows, end="\n", delimiter=","):
    return "".join(delimiter.join(row) + end for row in rows)


HEADER = ("study_id", "subject_id", "split", "image", "report", "age", "label:Nodule")
ROWS = (("s1", "p1", "train", "a.png", '"Clear lungs. No effusion, no nodule; no edema."', "61", "1"),
        ("s2", "p2", "test", "", '"Small nodule."', "", "0"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_delimiters_line_ends_and_marks(tmp_path, delimiter, end, mark):
    tables.image(tmp_path, "a.png")
    (tmp_path / "studies.csv").write_bytes(mark + lines(HEADER, *ROWS, end=end, delimiter=delimiter).encode())
    sources = open_splits(config(tmp_path))
    one, two = sources["train"][0], sources["test"][0]
    assert (one.study_id, one.report, one.age, one.labels) == (
        "s1", "Clear lungs. No effusion, no nodule; no edema.", 61, {"Nodule": 1})
    assert (two.study_id, two.report, two.row, two.labels) == ("s2", "Small nodule.", 3, {"Nodule": 0})
    assert one.images[0].path == str(tmp_path / "a.png") and two.images == ()


def test_a_mark_before_a_quoted_header(tmp_path):
    quoted = tuple(f'"{name}"' for name in HEADER)
    (tmp_path / "studies.csv").write_bytes(b"\xef\xbb\xbf" + lines(quoted, *ROWS, delimiter=";").encode())
    assert open_splits(config(tmp_path))["train"][0].study_id == "s1"


def test_decimal_commas_where_commas_do_not_separate_cells(tmp_path):
    rows = (("s1", "p1", "train", tables.image(tmp_path, "a.png"), "", "61,5", "1,0"),)
    (tmp_path / "studies.csv").write_text(lines(HEADER, *rows, delimiter=";"))
    (tmp_path / "boxes.csv").write_text("study_id;image_id;finding;phrase;x;y;w;h\ns1;;Nodule;n;1,5;2;3,25;4\n")
    study = open_splits(config(tmp_path))["train"][0]
    assert (study.age, study.labels) == (61.5, {"Nodule": 1})
    assert [(box.x, box.y, box.w, box.h) for box in study.images[0].boxes] == [(1.5, 2, 3.25, 4)]
    (tmp_path / "studies.csv").write_text(lines(HEADER, ("s1", "p1", "train", "a.png", "", '"61,5"', "1")))
    with pytest.raises(UserError, match="row 2: age is '61,5'; it must be years"):
        open_splits(config(tmp_path))


@pytest.mark.parametrize(("data", "words"), [
    (lines(HEADER, *ROWS).encode("utf-16"), "studies.csv is UTF-16 text: save it as CSV in UTF-8"),
    (lines(HEADER, *ROWS).encode("utf-32"), "studies.csv is UTF-32 text"),
    (lines(HEADER, *ROWS).encode("utf-16-be"), "studies.csv is no text in UTF-8"),
    (b'{"study_id": "s1"}\n', "studies.csv is JSON"), (bytes(900), "studies.csv is a file filled with zeros"),
    (b"<!DOCTYPE html>\n<html>", "studies.csv is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "studies.csv is a Git LFS pointer: .*git lfs pull"),
    (b"PK\x03\x04\x14\0", "studies.csv is a spreadsheet or another zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", "studies.csv is a spreadsheet"),
    (b"\x1f\x8b\x08\0", "studies.csv is compressed with gzip"),
    (lines(HEADER, *ROWS, end="\r").encode(), "studies.csv has lines that end in CR alone"),
])
def test_files_that_are_no_csv_are_called_what_they_are(tmp_path, data, words):
    (tmp_path / "studies.csv").write_bytes(data)
    with pytest.raises(UserError, match=words):
        open_splits(config(tmp_path))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_and_rows_that_spreadsheets_add(tmp_path, mark):
    tables.image(tmp_path, "a.png")
    text = "sep=;\r\n" + lines(HEADER, *ROWS, end="\r\n", delimiter=";") + ";" * (len(HEADER) - 1) + "\r\n  \r\n"
    (tmp_path / "studies.csv").write_bytes(mark + text.encode() + b"\x1a" + bytes(100))
    sources = open_splits(config(tmp_path))
    assert {split: [study.study_id for study in source] for split, source in sources.items()} == {
        "train": ["s1"], "validation": [], "test": ["s2"]}
    assert not any(study.rejections for source in sources.values() for study in source)


def test_windows_paths(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub" / "deep").mkdir(parents=True)
    tables.image(folder / "sub" / "deep", "a.png")
    tables.image(folder, "odd\\name.png", seed=1)  # A name with a backslash, as zip archives leave them here.
    rows = [tables.row("s1", image="sub\\deep\\a.png"), tables.row("s2", image="odd\\name.png"),
            tables.row("s3", image="C:\\scans\\a.png"), tables.row("s4", image="c:/scans/a.png"),
            tables.row("s5", image="\\\\server\\scans\\a.png"),
            tables.row("s6", image="D:\\a.png", report=tables.REPORT), tables.row("s6", image="sub\\deep\\a.png")]
    tables.write(folder, rows)
    build(config(folder), tmp_path / "out")
    kept = {record.study_id: record for record in open_records(tmp_path / "out", "train")}
    assert set(kept) == {"s1", "s2", "s6"} and kept["s1"].image_id == "sub\\deep\\a.png"
    assert kept["s6"].report == tables.REPORT
    assert {(study, row) for study, _, row, reason in rejected(tmp_path / "out")
            if reason == "a path on a Windows drive: make it relative to the table"} == {
                ("s3", 4), ("s4", 5), ("s5", 6), ("s6", 7)}


def drawn(path, shares="0.5,0.25,0.25", seed=0):
    out = config(path)
    out.table.split, out.table.seed = tuple(shares.split(",")), seed
    return out


def without_split(n, first=0):
    return [{key: value for key, value in tables.row(f"s{i}", subject=f"p{i // 2}", report="Clear.").items()
             if key != "split"} for i in range(first, first + n)]


def homes(sources):
    return {source[i].subject_id: split for split, source in sources.items() for i in range(len(source))}


def test_a_drawn_split_is_by_subject_and_depends_on_the_seed_alone(tmp_path):
    tables.write(tmp_path / "t", without_split(800))
    sources = open_splits(drawn(tmp_path / "t"))
    assert {source[i].split for source in sources.values() for i in range(len(source))} == set(sources)
    subjects = [source[i].subject_id for source in sources.values() for i in range(len(source))]
    found = homes(sources)
    assert len(subjects) == 800 and len(found) == 400  # Both studies of a subject are in one split.
    assert all(len({s for s, source in sources.items() for i in range(len(source)) if source[i].subject_id == who}) == 1
               for who in ("p0", "p7", "p100"))
    counts = np.array([sum(split == name for split in found.values()) for name in ("train", "validation", "test")])
    # Binomial: four standard deviations of 400 draws.
    assert (np.abs(counts - (200, 100, 100)) < 4 * np.sqrt(400 * np.array([0.25, 0.1875, 0.1875]))).all()
    tables.write(tmp_path / "more", without_split(1000))
    more = homes(open_splits(drawn(tmp_path / "more")))
    assert {who: more[who] for who in found} == found  # Whatever else is in the table.
    assert homes(open_splits(drawn(tmp_path / "t", seed=1))) != found


def test_the_data_sheet_says_how_splits_were_made(tmp_path):
    tables.write(tmp_path / "t", without_split(40))
    build(drawn(tmp_path / "t", seed=3), tmp_path / "out")
    text = sheet(load_metadata(tmp_path / "out"), rejected_reasons(tmp_path / "out"))
    assert "- Splits: drawn by subject, 50% train, 25% validation, 25% test, seed 3." in text
    tables.write(tmp_path / "own", tables.good(tmp_path / "own"))
    build(config(tmp_path / "own"), tmp_path / "other")
    assert "- Splits: as the table states." in sheet(load_metadata(tmp_path / "other"), rejected_reasons(tmp_path))


def test_shares_that_are_none_and_splits_stated_twice(tmp_path, caplog):
    tables.write(tmp_path / "t", without_split(4))
    for shares in ("0.8,0.2", "0.8,0.1,0.2", "1.2,-0.1,-0.1", "0,0.5,0.5", "a,b,c"):
        with pytest.raises(UserError, match=r"config\.table\.split=.*three shares"):
            open_splits(drawn(tmp_path / "t", shares))
    with pytest.raises(UserError, match=r"no column 'split' .*; --config\.table\.split=0\.8,0\.1,0\.1 draws one"):
        open_splits(config(tmp_path / "t"))
    open_splits(drawn(tmp_path / "t", "0.998,0.001,0.001"))
    assert "no subject was drawn for validation and test" in caplog.text
    tables.write(tmp_path / "t", tables.good(tmp_path / "t"))
    with pytest.raises(UserError, match=r"has a column 'split', and config\.table\.split would draw others"):
        open_splits(drawn(tmp_path / "t"))


def test_other_spellings_of_findings(tmp_path, caplog):
    (tmp_path / "studies.csv").write_text(
        "study_id,subject_id,split,report,label:Effusion,label:lung_nodule,label:Lung tumour,label:Sarcoidosis\n"
        "s1,p1,train,x,1,0,,-1\n")
    with caplog.at_level(logging.INFO):
        study = open_splits(config(tmp_path))["train"][0]
    assert study.labels == {"Pleural Effusion": 1, "Nodule": 0, "Lung Tumor": -2, "Sarcoidosis": -1}
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 1 and "label:Sarcoidosis is no finding of the vocabulary" in warned[0]
    assert "label:Effusion is read as Pleural Effusion" in caplog.text
    (tmp_path / "boxes.csv").write_text("study_id,image_id,finding,phrase,x,y,w,h\ns1,,effusion,n,1,2,3,4\n")
    (tmp_path / "studies.csv").write_text(
        f"study_id,subject_id,split,image\ns1,p1,train,{tables.image(tmp_path, 'a.png')}\n")
    assert open_splits(config(tmp_path))["train"][0].images[0].boxes[0].finding == "Pleural Effusion"
    (tmp_path / "studies.csv").write_text(
        "study_id,subject_id,split,report,label:Effusion,label:Pleural Effusion\ns1,p1,train,x,1,0\n")
    with pytest.raises(UserError, match="'label:Effusion' and 'label:Pleural Effusion', which are both 'Pleural Eff"):
        open_splits(config(tmp_path))

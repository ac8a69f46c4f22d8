"""The table source: what is read, what is refused row by row, and what stops the run."""

import csv
import math

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.data.table import get_config
from data_prep.build import build
from data_prep.sources.table import open_splits
from lgdea_jax.data.dataset import load_index, load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from tests.data_prep.shards import tables
from tests.data_prep.shards.run import assert_refused
from tests.data_prep.shards.run import build as run_build


def config(path, **changes):
    out = get_config()
    out.workers = 1
    out.table.path = str(path)
    out.update(changes)
    return out


def rejected(out):
    with open(out / "rejected.csv", encoding="utf-8", newline="") as file:
        return [(r["study_id"], r["image_id"], int(r["row"]), r["reason"]) for r in csv.DictReader(file)]


def test_good_table(tmp_path):
    tables.write(tmp_path / "in", tables.good(tmp_path / "in"))
    report = build(config(tmp_path / "in"), tmp_path / "out")
    assert report.rejected == 0 and rejected(tmp_path / "out") == []
    assert {split: (c["rows"], c["read"], c["records"]) for split, c in report.counts.items()} == {
        "train": (3, 3, 3), "validation": (1, 1, 1), "test": (1, 1, 1)}
    metadata = load_metadata(tmp_path / "out")
    assert metadata.label_names == ("Nodule", "Pleural Effusion")
    front, side, alone = open_records(tmp_path / "out", "train")
    # Two views of a study are two records that share report and labels.
    assert [(r.study_id, r.image_id, r.view) for r in (front, side)] == [
        ("s1", "front", "PA"), ("s1", "side", "LATERAL")]
    assert front.report == side.report == tables.REPORT and front.evidence == side.evidence
    assert {(e.finding, e.certainty) for e in front.evidence} >= {("Nodule", "present"), ("Pleural Effusion", "absent")}
    for item in front.evidence:
        assert front.report[item.start:item.end] == item.phrase
    np.testing.assert_array_equal(front.labels, [1, 0])
    np.testing.assert_array_equal(front.original_shape, [1, 40, 30])
    # A normal report is data.
    assert alone.normal and alone.has_report and not alone.has_image and alone.image == b""
    image_alone = open_records(tmp_path / "out", "validation")[0]
    assert image_alone.has_image and not image_alone.has_report and image_alone.evidence == ()
    assert image_alone.image_id == "c.png"
    np.testing.assert_array_equal(image_alone.labels, [-2, -1])
    index = load_index(tmp_path / "out", "train")
    np.testing.assert_array_equal(index["normal"], [False, False, True])
    assert index["study"][0] == index["study"][1] != index["study"][2]
    assert index["report_hash"][0] == index["report_hash"][1] != 0
    assert (index["image_hash"][0] != index["image_hash"][1]).any() and not index["image_hash"][2].any()
    assert index["report_words"].tolist() == [14, 14, 6]


def test_rows_that_cannot_be_used_are_listed_and_the_rest_is_done(tmp_path):
    folder = tmp_path / "in"
    rows = tables.good(folder)
    (folder / "empty.png").write_bytes(b"")
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:300])
    rows += [
        tables.row("bad1", image="missing.png", report=tables.REPORT),
        tables.row("bad2", image="empty.png"),
        tables.row("bad3", image="half.png"),
        tables.row("bad4"),
        tables.row("bad5", report="UNREADABLE"),
        tables.row("", report=tables.REPORT),
        # Half of a study: the report goes on with the image that is left.
        tables.row("half", image_id="1", image="half.png", report=tables.REPORT),
        tables.row("half", image_id="2", image="d.png"),
        # A row of its own with the report: an unpaired report is left.
        tables.row("rest", image_id="1", image="half.png"),
        tables.row("rest", report=tables.REPORT),
    ]
    path = tables.write(folder, rows)
    path.write_bytes(path.read_bytes().replace(b"UNREADABLE", b"caf\xe9 na\xefve") + b"short,row\r\n")
    process = run_build("--config=configs/data/table.py", f"--config.table.path={path}", f"--out={tmp_path / 'out'}",
                        "--config.workers=1")
    assert process.returncode == 3, process.stderr
    assert process.stderr == ""
    assert rejected(tmp_path / "out") == [
        ("bad1", "missing.png", 7, "the image file is missing"),
        ("bad2", "empty.png", 8, "the image file is empty"),
        ("bad3", "half.png", 9, "the PNG file is truncated or damaged"),
        ("bad4", "", 10, "neither an image nor a report"),
        ("bad5", "", 11, "unreadable text: not UTF-8"),
        ("", "", 12, "no study_id"),
        ("half", "1", 13, "the PNG file is truncated or damaged"),
        ("rest", "1", 15, "the PNG file is truncated or damaged"),
        ("", "", 17, "2 cells where the header has 9"),
    ]
    counts = load_metadata(tmp_path / "out").counts
    assert sum(c["rows"] for c in counts.values()) == 16  # All but the header.
    assert sum(c["read"] for c in counts.values()) == 7 and sum(c["rejected"] for c in counts.values()) == 9
    kept = {(r.study_id, r.image_id): r for r in open_records(tmp_path / "out", "train")}
    assert set(kept) == {("s1", "front"), ("s1", "side"), ("s2", ""), ("half", "2"), ("rest", "")}
    assert kept["half", "2"].report == tables.REPORT
    assert kept["rest", ""].has_report and not kept["rest", ""].has_image


def test_cells_that_cannot_be_read_are_those_of_a_row_or_of_the_table(tmp_path):
    rows = tables.good(tmp_path / "in")
    bad = [tables.row("b1", report="x", nodule="yes"), tables.row("b2", report="x", effusion="0.5"),
           tables.row("b3", report="x", age="old"), tables.row("b4", report="x", sex="woman")]
    tables.write(tmp_path / "in", rows + bad[:2] + [tables.row("s9", report="Clear lungs.")] + bad[2:])
    report = build(config(tmp_path / "in"), tmp_path / "out")
    assert (report.rejected, sum(counts["read"] for counts in report.counts.values())) == (4, 6)
    assert [(study, row, reason.partition(";")[0]) for study, _, row, reason in rejected(tmp_path / "out")] == [
        ("b1", 7, "label:Nodule is 'yes'"), ("b2", 8, "label:Pleural Effusion is '0.5'"),
        ("b3", 10, "age is 'old'"), ("b4", 11, "sex is 'woman'")]
    with pytest.raises(UserError, match=r"studies\.csv row 6: label:Nodule is 'yes'; it must be"):
        open_splits(config(tables.write(tmp_path / "in", [*rows[:4], *bad])))


@pytest.mark.parametrize(("column", "cells", "values"), [
    ("nodule", ("NA", "nan", "", "+1", "\u22121"), (-2, -2, -2, 1, -1)),
    ("age", ("058Y", "006M", "61.5", "n/a", ""), (58, 0.5, 61.5, math.nan, math.nan)),
    ("sex", ("male", "f", "O", "unknown", ""), ("M", "F", "", "", "")),
    ("split", ("Train", "TRAIN", "train", "train ", "train"), ("train",) * 5)])
def test_other_ways_to_write_a_cell(tmp_path, column, cells, values):
    rows = [tables.row(f"s{i}", report="x", **{column: cell}) for i, cell in enumerate(cells)]
    studies = list(open_splits(config(tables.write(tmp_path / "in", rows)))["train"])
    found = [study.labels["Nodule"] if column == "nodule" else getattr(study, column) for study in studies]
    np.testing.assert_array_equal(found, values)


def test_sixteen_bit_colour_and_alpha_are_converted_and_counted(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    modes = ("I;16", "I;16", "RGB", "RGBA", "L")
    rows = [tables.row(f"s{i}", image=tables.image(folder, f"{i}.png", mode=mode)) for i, mode in enumerate(modes)]
    tables.write(folder, rows)
    report = build(config(folder), tmp_path / "out")
    assert report.rejected == 0
    assert report.converted == {"16 bit": 2, "colour": 2, "alpha": 1}
    assert load_metadata(tmp_path / "out").converted == report.converted


def refuse(tmp_path, rows, *words, boxes=None, header=None):
    """The run is refused with a line that holds the words, and leaves nothing that opens."""
    path = tables.write(tmp_path / "in", rows, header)
    if boxes is not None:
        tables.write(tmp_path / "in", boxes, name="boxes.csv")
    with pytest.raises(UserError) as error:
        build(config(path), tmp_path / "out")
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_columns(tmp_path):
    rows = tables.good(tmp_path / "in")
    refuse(tmp_path, [{k: v for k, v in r.items() if k != "subject_id"} for r in rows], "subject_id")
    for wrong, right in (("reprot", "report"), ("Image", "image"), ("lable:Nodule", "label:Nodule"),
                         ("subject-id", "subject_id"), ("label :Nodule", "label:Nodule")):
        renamed = [{wrong if k == right else k: v for k, v in r.items()} for r in rows]
        refuse(tmp_path, renamed, wrong, f"did you mean {right!r}")
    bare = [{k: r[k] for k in ("study_id", "subject_id", "split")} for r in rows]
    refuse(tmp_path, bare, "neither", "'image'", "'report'")
    (tmp_path / "in" / "studies.csv").write_text("study_id,subject_id,split,report,report\na,b,train,c,d\n")
    with pytest.raises(UserError, match="'report' more than once"):
        build(config(tmp_path / "in"), None)


def test_unknown_columns_are_named_once_and_ignored(tmp_path, caplog):
    rows = [r | {"scanner": "x", "indication": "y"} for r in tables.good(tmp_path / "in")]
    tables.write(tmp_path / "in", rows)
    assert build(config(tmp_path / "in"), None).rejected == 0
    assert [record.message for record in caplog.records] == [
        "studies.csv: columns that are not used: scanner, indication"]


def test_faults_of_the_whole_table(tmp_path):
    rows = tables.good(tmp_path / "in")

    def refuse_row(*words, **cells):
        refuse(tmp_path, [*rows, tables.row(**cells)], "row 7", *words)

    refuse(tmp_path, [*rows, rows[0]], "row 7", "row 2", "image_id")
    refuse_row("row 4", "image_id", study="s2")
    refuse_row("row 2", "another split", study="s9", subject="p-s1", split="test", report="x")
    refuse_row("row 2", "split", study="s1", image_id="x", split="test", report=tables.REPORT)
    refuse_row("row 2", "subject_id", study="s1", subject="p", image_id="x", image="a.png")
    refuse_row("'val'", "train, validation, test", study="s9", split="val", report="x")
    refuse_row("row 2", "label:Nodule", study="s1", image_id="x", image="a.png", nodule="0")
    refuse_row("row 2", "report", study="s1", image_id="x", image="a.png", report="Other")
    refuse_row("terms", study="s9", report="x", terms="free")
    refuse(tmp_path, [], "no rows")
    (tmp_path / "in" / "studies.csv").write_text("")
    with pytest.raises(UserError, match="empty"):
        build(config(tmp_path / "in"), None)
    (tmp_path / "in" / "studies.csv").write_text('study_id,subject_id,split,report\na,b,train,"never closed\n')
    with pytest.raises(UserError, match="row 1"):
        build(config(tmp_path / "in"), None)
    with pytest.raises(UserError, match="no table"):
        build(config(tmp_path / "nowhere.csv"), None)
    with pytest.raises(UserError, match=r"config\.table\.path"):
        build(config(""), None)


def box(study="s1", image_id="front", finding="Nodule", x="1", y="2", w="10", h="12", phrase="small nodule"):
    return {"study_id": study, "image_id": image_id, "finding": finding, "phrase": phrase,
            "x": x, "y": y, "w": w, "h": h}


def test_boxes(tmp_path):
    tables.write(tmp_path / "in", tables.good(tmp_path / "in"))
    boxes = [box(), box("s4", ""), box(finding="Mass", x="-4.5", w="8"), box("s3", "c.png")]
    tables.write(tmp_path / "in", boxes, name="boxes.csv")
    assert build(config(tmp_path / "in"), tmp_path / "out").rejected == 0
    front, side, _ = open_records(tmp_path / "out", "train")
    assert [(b.finding, b.phrase, b.x, b.y, b.w, b.h) for b in front.boxes] == [
        ("Nodule", "small nodule", 1, 2, 10, 12), ("Mass", "small nodule", 0, 2, 3.5, 12)]  # Cut at the edge.
    assert side.boxes == ()
    assert len(open_records(tmp_path / "out", "test")[0].boxes) == 1


def test_boxes_that_cannot_be(tmp_path):
    rows = tables.good(tmp_path / "in")
    refuse(tmp_path, rows, "boxes.csv row 3", "no image", boxes=[box(), box("s9")])
    refuse(tmp_path, rows, "boxes.csv row 2", "no image", boxes=[box("s1", "")])  # Two images: which?
    refuse(tmp_path, rows, "boxes.csv row 2", "numbers", boxes=[box(x="left")])
    refuse(tmp_path, rows, "boxes.csv row 2", "above 0", boxes=[box(w="0")])
    refuse(tmp_path, rows, "boxes.csv row 2", "finding", boxes=[box(finding="")])
    refuse(tmp_path, rows, "boxes.csv", "'phrase'", boxes=[{k: v for k, v in box().items() if k != "phrase"}])
    tables.write(tmp_path / "in", [box(x="500")], name="boxes.csv")
    assert build(config(tmp_path / "in"), tmp_path / "out").rejected == 1
    assert rejected(tmp_path / "out") == [("s1", "front", 2, "a box lies outside the image")]


def test_quotes_newlines_and_a_byte_order_mark(tmp_path):
    folder = tmp_path / "in"
    report = 'FINDINGS: "Clear" lungs,\nno effusion.\n\nIMPRESSION: Näturally normal; no "acute" disease.'
    path = tables.write(folder, [tables.row("s1", report=report), tables.row("s2", report=report + " again")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n") + b"\n\n")
    build(config(path), tmp_path / "out")
    assert [r.report for r in open_records(tmp_path / "out", "train")] == [report, report + " again"]


def test_columns_take_precedence_over_the_config(tmp_path):
    rows = [tables.row("s1", report="x", sex="F", age="61.5", licence="CC0", terms="open", language="de"),
            tables.row("s2", report="y")]
    tables.write(tmp_path / "in", rows)
    changed = config(tmp_path / "in")
    changed.table.licence = "ours"
    changed.extractor = "none"  # The rules refuse a report in German.
    build(changed, tmp_path / "out")
    first, second = open_records(tmp_path / "out", "train")
    assert (first.sex, first.age, first.licence, first.terms, first.language) == ("F", 61.5, "CC0", "open", "de")
    assert (second.sex, second.licence, second.terms, second.language) == ("", "ours", "unstated", "en")
    assert np.isnan(second.age)
    metadata = load_metadata(tmp_path / "out")
    assert {(s.licence, s.terms) for s in metadata.sources} == {("CC0", "open"), ("ours", "unstated")}
    assert metadata.languages == ("de", "en")


def test_a_table_that_changes_under_a_build_is_noticed(tmp_path):
    path = tables.write(tmp_path / "in", tables.good(tmp_path / "in"))
    build(config(path), tmp_path / "out")
    path.write_text(path.read_text().replace("small", "large"))
    with pytest.raises(UserError, match="the input has changed"):
        build(config(path), tmp_path / "out")


def test_rows_of_a_study_may_stand_apart_and_in_any_order(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = [tables.image(folder, f"{i}.png", seed=i) for i in range(6)]
    rows = [tables.row(f"s{i % 2}", image=name, report="One report." if i == 5 else "") for i, name in enumerate(names)]
    tables.write(folder, rows)
    source = open_splits(config(folder))["train"]
    assert [[image.image_id for image in study.images] for study in source] == [
        ["0.png", "2.png", "4.png"], ["1.png", "3.png", "5.png"]]
    assert [study.report for study in source] == ["", "One report."]
    assert len(open_splits(ConfigDict(config(folder)))["test"]) == 0


@pytest.mark.parametrize(("change", "words"), [
    (lambda rows: [{k: v for k, v in r.items() if k != "study_id"} for r in rows], ("studies.csv", "study_id")),
    (lambda rows: [*rows, rows[0]], ("row 7", "row 2")),
    (lambda rows: [*rows, tables.row("s9", subject="p-s1", split="test", report="x")], ("row 7", "another split")),
])
def test_exit_status_of_faults(tmp_path, change, words):
    path = tables.write(tmp_path / "in", change(tables.good(tmp_path / "in")))
    process = run_build("--config=configs/data/table.py", f"--config.table.path={path}", f"--out={tmp_path / 'out'}")
    assert_refused(process, *words)
    assert not (tmp_path / "out").exists()

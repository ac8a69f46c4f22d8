"""Scoring from a source: Open-I as it is given away, against tables written by hand, and the phantom world."""

import csv
import json

import pytest

from data_prep import score
from data_prep.synthetic.xray.source import PhantomOptions, PhantomSource
from lgdea_jax.errors import UserError
from lgdea_jax.records import NEGATIVE, POSITIVE, UNCERTAIN
from tests.data_prep.shards import openi_layout

OPENI = "--config=configs/data/openi.py"
PHANTOM = "--config=configs/data/phantom.py"


def _score(tmp_path, *flags, status=0):
    out = tmp_path / "score.json"
    assert score.main([f"--out={out}", "--resamples=20", "--min_positives=1", *flags]) == status
    return json.loads(out.read_text())


@pytest.fixture(params=["xml", "csv"])
def openi(request, tmp_path):
    folder = tmp_path / "openi"
    if request.param == "xml":
        openi_layout.write_xml(folder, images=False)
    else:
        openi_layout.write_csv(folder, images=False)
    return folder


def _tables(folder):
    """The same studies as tables; the reference is written down by hand."""
    coded = {"1": (1, 0, 0, 0), "2": (0, 1, 1, 0), "12": (0, 0, 0, 1)}
    with open(folder / "r.csv", "w", newline="") as reports, open(folder / "ref.csv", "w", newline="") as reference:
        texts, labels = csv.writer(reports), csv.writer(reference)
        texts.writerow(("uid", "findings", "impression"))
        labels.writerow(("uid", "No Finding", "Pleural Effusion", "Nodule", "Cardiomegaly"))
        for uid, values in coded.items():
            texts.writerow((uid, *openi_layout.STUDIES[uid][:2]))
            labels.writerow((uid, *values))
    return f"--reports={folder / 'r.csv'}", f"--reference={folder / 'ref.csv'}"


def test_openi_from_its_official_download(openi, tmp_path, capsys):
    found = _score(tmp_path, OPENI, f"--config.openi.path={openi}", "--label_set=openi33")
    # 1, 2 and 12 have a text and codes; 10 and 11 have no text; nobody coded 3.
    assert (found["macro"]["n"], found["without_report"], found["without_reference"]) == (3, 2, 1)
    assert "2 rows of the reference have no report" in capsys.readouterr().err
    table = _score(tmp_path, *_tables(tmp_path))
    for name in ("No Finding", "Pleural Effusion", "Nodule", "Cardiomegaly"):
        assert found["findings"][name] == table["findings"][name]
        assert found["findings"][name]["positives"] == 1 and found["findings"][name]["f1"]["value"] == 1
    assert found["attributes"]["laterality"]["n"] == 1 and found["attributes"]["laterality"]["recall"]["value"] == 1


def test_both_ways_part_the_reports_alike(openi, tmp_path):
    counts = []
    for flags in ((OPENI, f"--config.openi.path={openi}"), _tables(tmp_path)):
        counts.append([])
        for fold in range(3):
            try:
                counts[-1].append(_score(tmp_path, *flags, f"--fold={fold}/3")["macro"]["n"])
            except UserError:
                counts[-1].append(0)
    assert counts[0] == counts[1] and sum(counts[0]) == 3


def test_listed_reports_of_a_source(openi, tmp_path):
    (tmp_path / "uids.txt").write_text("2\n12\n")
    found = _score(tmp_path, OPENI, f"--config.openi.path={openi}", f"--uids={tmp_path / 'uids.txt'}")
    assert (found["macro"]["n"], found["without_report"]) == (2, 0)


def test_a_damaged_report_is_listed(tmp_path):
    folder = tmp_path / "openi"
    openi_layout.write_xml(folder, images=False)
    (folder / "ecgen-radiology" / "20.xml").write_bytes(b"")
    found = _score(tmp_path, OPENI, f"--config.openi.path={folder}", status=3)
    assert found["macro"]["n"] == 3
    assert [row["reason"] for row in found["rejected"]] == ["the XML file is truncated, damaged or empty"]


def test_phantom_reports_are_scored_by_what_they_state(tmp_path):
    source = PhantomSource(PhantomOptions(test=150), "test")
    values = {"present": POSITIVE, "uncertain": UNCERTAIN, "absent": NEGATIVE}
    for index in range(20):
        report, reference = source.report(index), source.reference(index)
        assert reference.labels == {name: values[report.stated.get(name, "absent")] for name in source.label_names}
        assert reference.report == source[index].report
    found = _score(tmp_path, PHANTOM, "--split=test", "--config.phantom.test=150")
    assert set(found["findings"]) == set(source.label_names)
    for name, row in found["findings"].items():
        stated = [source.report(i).stated.get(name) for i in range(150)]
        assert (row["n"], row["positives"]) == (150 - stated.count("uncertain"), stated.count("present"))
    assert found["macro"]["f1"]["value"] > 0.9


@pytest.mark.parametrize(("flags", "message"), [
    ((), "--reports=FILE is needed"),
    (("--reports=r.csv",), "--reference=FILE is needed"),
    ((PHANTOM, "--reports=r.csv"), "--reports is about tables"),
    ((PHANTOM, "--where=a=b"), "--where is about tables"),
    ((PHANTOM, "--config.phantom.tests=3"), "did you mean 'phantom.test'"),
    ((PHANTOM, "--config.phantom.test=0", "--split=test"), "no report is left"),
    (("--reports=r.csv", "--reference=ref.csv", "--split=test"), "--split is about"),
    ((OPENI,), "config.openi.path is needed"),
])
def test_wrong_use(tmp_path, flags, message):
    with pytest.raises(UserError, match=message) as error:
        _score(tmp_path, *flags)
    assert "\n" not in str(error.value)

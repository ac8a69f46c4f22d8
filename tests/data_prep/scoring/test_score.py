"""The score command on small tables written here: its numbers by hand, its files, and its exit statuses."""

import json
import subprocess
import sys

import pytest

from data_prep import score
from lgdea_jax.errors import UserError

REPORTS = """uid,findings,impression,site
a,Small left pleural effusion.,,x
b,No pleural effusion.,Probable mass.,x
c,The heart is normal in size.,No effusion.,x
d,Small effusion.,,x
e,Heart is enlarged.,Mass in the right upper lobe.,y
"""
REFERENCE = """uid,Effusion,Mass,status,note
a,1,0,ok,n
b,0,1,ok,n
c,0,0,ok,n
d,0,0,ok,n
e,1,1,ok,n
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "r.csv").write_text(REPORTS)
    (tmp_path / "ref.csv").write_text(REFERENCE)
    return tmp_path


def _args(files, *more):
    return [f"--reports={files / 'r.csv'}", f"--reference={files / 'ref.csv'}", f"--out={files / 'out' / 'score.json'}",
            "--resamples=200", "--min_positives=1", *more]


def _score(files, *more, status=0):
    assert score.main(_args(files, *more)) == status
    return json.loads((files / "out" / "score.json").read_text())


def test_numbers_by_hand(files, capsys):
    result = _score(files)
    effusion = result["findings"]["Pleural Effusion"]
    # Called present in a and d, denied in b and c, not mentioned in e. Positives: a, e; negatives: b, c, d.
    assert (effusion["n"], effusion["positives"]) == (5, 2)
    values = {key: effusion[key]["value"] for key in ("precision", "sensitivity", "f1", "specificity", "auc")}
    # AUC: a beats b and c and ties with d (2.5); e (0.1) beats b and c (2): 4.5 of 6.
    assert values == pytest.approx({"precision": 1 / 2, "sensitivity": 1 / 2, "f1": 1 / 2, "specificity": 2 / 3,
                                    "auc": 4.5 / 6}, abs=1e-4)
    assert result["findings"]["Mass"]["f1"]["value"] == 1
    assert result["macro"]["f1"]["value"] == pytest.approx(0.75) and result["macro"]["findings"] == 2
    assert all(row["f1"]["low"] <= row["f1"]["value"] <= row["f1"]["high"] for row in result["findings"].values())
    assert result["ignored_columns"] == ["status", "note"] and "status, note" in capsys.readouterr().out
    # b, c, d contain the word and are reference-negative; d is called present.
    assert result["negated_word_specificity"]["Pleural Effusion"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert result["reports_per_second"] > 0 and result["cost"] is None and result["extractor"] == "rules@4"


@pytest.mark.parametrize(("hedge", "wanted"), [
    ("Probable", {"likely": 1, "positive": 1, "negative": 0.5, "drop": 1}),
    ("Possible", {"likely": 0.5, "positive": 1, "negative": 0.5, "drop": 1}),
])
def test_uncertain_findings_count_as_told(files, hedge, wanted):
    (files / "r.csv").write_text(REPORTS.replace("Probable", hedge))
    found = {how: _score(files, f"--uncertain={how}")["findings"]["Mass"] for how in wanted}
    assert {how: row["sensitivity"]["value"] for how, row in found.items()} == wanted
    levels = {"Probable": "likely", "Possible": "possible"}[hedge]
    assert found["likely"]["confusion"]["positive"] == {
        "absent": 0, "unmentioned": 0, "possible": 0, "likely": 0, "present": 1} | {levels: 1}


def test_few_positives_stay_out_of_the_macro_mean(files):
    (files / "ref.csv").write_text(REFERENCE.replace("e,1,1", "e,0,1"))
    assert _score(files, "--min_positives=2")["macro"]["findings"] == 1


def test_where_filters_either_table(files):
    assert _score(files, "--where=site=x")["macro"]["n"] == 4
    assert _score(files, "--where=site=x", "--where=uid=b")["macro"]["n"] == 1


def test_listed_reports_only(files):
    (files / "uids.txt").write_text("a\nc\n\nzz\n")
    assert _score(files, f"--uids={files / 'uids.txt'}")["macro"]["n"] == 2


def test_folds_part_the_reports(files):
    counts = []
    for i in range(2):
        try:
            counts.append(_score(files, f"--fold={i}/2")["macro"]["n"])
        except UserError:
            counts.append(0)
    assert sum(counts) == 5


def test_columns_mapping_and_label_sets(files):
    assert list(_score(files, "--label_set=chexpert14")["findings"]) == ["Pleural Effusion"]
    (files / "map.json").write_text(json.dumps({"Pleural Effusion": "Mass"}))
    mapped = _score(files, f"--mapping={files / 'map.json'}", "--columns=impression")
    assert list(mapped["findings"]) == ["Pleural Effusion"]
    assert mapped["ignored_columns"] == ["Effusion", "status", "note"]
    assert mapped["findings"]["Pleural Effusion"]["sensitivity"]["value"] == 0
    (files / "map.csv").write_text("finding,column\nMass,Effusion\n")
    assert list(_score(files, f"--mapping={files / 'map.csv'}")["findings"]) == ["Mass"]


def test_missing_and_uncertain_references_and_masked_words_are_left_out(files):
    text = REFERENCE.replace("a,1,0", "a,,0").replace("c,0,0", "c,-1,0").replace("e,1,1,ok,n", "e,1,1,ok,Effusion")
    (files / "ref.csv").write_text(text.replace(",n\n", ",\n"))
    assert _score(files)["findings"]["Pleural Effusion"]["n"] == 3
    assert _score(files, "--leave_out=note")["findings"]["Pleural Effusion"]["n"] == 2


def test_attributes(files):
    (files / "a.csv").write_text("uid,findings,laterality,location\na,Pleural Effusion,bilateral,\n"
                                 "e,Mass,right,lung;upper lobe\nzz,Mass,left,\n")
    found = _score(files, f"--attributes={files / 'a.csv'}")["attributes"]
    # Left and right wanted for a (left found), right for e (found): 2 of 3, and nothing too much.
    assert found["laterality"]["recall"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["laterality"]["precision"]["value"] == 1 and found["laterality"]["n"] == 3
    assert found["place"]["recall"]["value"] == 1 and found["place"]["n"] == 1


def test_assertions(files):
    (files / "n.csv").write_text("sentence,concept,negation\nNo fever.,fever,Negated\nHas fever.,fever,Affirmed\n"
                                 "Has fever and cough.,fever,Negated\n")
    found = _score(files, f"--assertions={files / 'n.csv'}")["assertions"]
    assert (found["n"], found["negated"]) == (3, 2)
    assert found["recall"]["value"] == 0.5 and found["precision"]["value"] == 1
    assert found["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["negex"] == {key: found[key] for key in found if key != "negex"}


def test_plain_negex_is_scored_on_the_same_sentences(files, capsys):
    (files / "n.csv").write_text("sentence,concept,negation\nNo fever.,fever,Negated\n"
                                 "The rash has resolved.,rash,Negated\n")
    found = _score(files, f"--assertions={files / 'n.csv'}")["assertions"]
    assert (found["recall"]["value"], found["negex"]["recall"]["value"]) == (1, 0.5)
    assert "by plain NegEx: recall 0.500" in capsys.readouterr().out


def test_bad_rows_are_listed_and_the_rest_is_done(files, capsys):
    (files / "ref.csv").write_text(REFERENCE + "f,yes,0,ok,n\n,1,0,ok,n\ng,1\nh,1,0,ok,n\n")
    (files / "r.csv").write_text(REPORTS + "f,Clear.,,x\n")
    result = _score(files, status=3)
    assert result["macro"]["n"] == 5 and result["without_report"] == 1
    assert [(row["row"], row["reason"]) for row in result["rejected"]] == [
        (9, "2 cells, 5 columns"), (8, "no uid"), (7, "column 'Effusion' is not 1, 0, -1 or empty")]
    assert "rejected: ref.csv row 9" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    (["--extractor=gemini"], "llm.model is needed"),
    (["--extractor=rulez"], "did you mean 'rules'"),
    (["--columns=finding"], "did you mean 'findings'"),
    (["--where=status"], "COLUMN=VALUE"),
    (["--where=stat=ok"], "did you mean 'status'"),
    (["--where=status=bad"], "no report is left"),
    (["--fold=2/2"], "I/K"),
    (["--label_set=chexpert"], "unknown label set"),
    (["--label_set=ct_rate18", "--mapping={0}/none.json"], "no readable file"),
    (["--uncertain=maybe"], "invalid choice"),
    (["--attributes={0}/none.csv"], "no file"),
    (["--leave_out=nothing"], "no column 'nothing'"),
    (["--uids={0}/none.txt"], "no readable file"),
    (["--resamples=0"], "at least 1"),
    (["--nonsense"], "unknown argument"),
])
def test_wrong_use_is_one_clear_line(files, change, message):
    with pytest.raises(UserError, match=message) as error:
        score.main(_args(files, *(text.format(files) for text in change)))
    assert "\n" not in str(error.value)
    assert not (files / "out").exists()


def test_duplicates_ambiguous_columns_and_unreadable_files_are_refused(files):
    (files / "r.csv").write_text(REPORTS + "a,Again.,,x\n")
    with pytest.raises(UserError, match="duplicate uid in rows 2 and 7"):
        score.main(_args(files))
    (files / "r.csv").write_bytes(b"uid,findings,impression\na,\xff\xfe,\n")
    with pytest.raises(UserError, match="not readable"):
        score.main(_args(files))
    (files / "ref.csv").write_text("uid,Effusion,Pleural Effusion\na,1,1\n")
    (files / "r.csv").write_text(REPORTS)
    with pytest.raises(UserError, match="both mean 'Pleural Effusion'"):
        score.main(_args(files))
    (files / "ref.csv").write_text("uid,thing\na,1\n")
    with pytest.raises(UserError, match="no column of the reference"):
        score.main(_args(files))


@pytest.mark.parametrize(("more", "status"), [((), 0), (("--extractor=openai",), 2)])
def test_exit_statuses_of_the_command(files, more, status):
    command = [sys.executable, "-m", "data_prep.score", *_args(files, *more)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if status == 2:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    else:
        assert "reports/s" in done.stdout and "left pleural" not in done.stdout + done.stderr


@pytest.mark.parametrize("cells, auc", [
    # Positives of the effusion: a, e; negatives: b, c, d (e and its label are not in the file).
    ("a,1\nb,0\nc,1\nd,\n", 2 / 3 + 1 / 6), ("a,0.7\nb,0.2\nc,0.9\nd,0.4\n", 2 / 3)])
def test_another_labeler_stands_beside(files, capsys, cells, auc):
    (files / "other.csv").write_text("uid,Effusion\n" + cells + "zz,1\n")
    result = _score(files, f"--other={files / 'other.csv'}")
    (other,) = result["beside"]
    assert other["extractor"] == "other.csv" and other["cost"] is other["seconds"] is None
    effusion = other["findings"]["Pleural Effusion"]
    assert (effusion["n"], effusion["positives"]) == (4, 1)
    assert effusion["auc"]["value"] == pytest.approx(auc, abs=1e-4)
    # a and c are called positive, a is.
    assert (effusion["precision"]["value"], effusion["sensitivity"]["value"]) == (0.5, 1.0)
    assert other["findings"]["Mass"]["n"] == 0 and other["macro"]["findings"] == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines if line[:1] in (["rules@4"], ["other.csv"])] == ["rules@4", "other.csv"]


@pytest.mark.parametrize("text, message", [
    ("uid,Effusion\na,2.5\n", "neither 1, 0, -1"), ("uid,Effusion\na,yes\n", "neither 1, 0, -1"),
    ("uid,Effusion\nzz,1\n", "none of the uids"), ("uid,note\na,1\n", "none of the findings"),
    ("id,Effusion\na,1\n", "no column 'uid'")])
def test_a_file_that_is_no_table_of_labels(files, text, message):
    (files / "other.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        score.main(_args(files, f"--other={files / 'other.csv'}"))

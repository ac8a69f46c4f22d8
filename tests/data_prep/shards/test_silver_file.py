"""Silver labels from a file: written by the score command, read by a build."""

import numpy as np
import pytest

from configs.data.table import get_config
from data_prep import score
from data_prep.build import build
from data_prep.shards.silver_file import read_labels, write_labels
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN
from tests.data_prep.shards import tables

REPORTS = """uid,findings,impression
"a, the first",Small left pleural effusion. No pneumothorax.,
b,No pleural effusion.,Possible pneumothorax.
c,The heart is enlarged.,
"""
REFERENCE = """uid,Pleural Effusion,Pneumothorax
"a, the first",1,0
b,0,1
c,0,0
"""


def test_the_score_command_writes_what_it_found(tmp_path):
    (tmp_path / "r.csv").write_text(REPORTS)
    (tmp_path / "ref.csv").write_text(REFERENCE)
    out = tmp_path / "silver.csv"
    assert score.main([f"--reports={tmp_path / 'r.csv'}", f"--reference={tmp_path / 'ref.csv'}", "--resamples=5",
                       f"--out={tmp_path / 'score.json'}", f"--labels_out={out}", "--min_positives=1"]) == 0
    # A hedge is -1; what a report passes over is 0, as in a build.
    assert out.read_text() == 'uid,Pleural Effusion,Pneumothorax\n"a, the first",1,0\nb,0,-1\nc,0,0\n'
    assert read_labels(out, ["Pneumothorax", "Mass"]) == {
        "a, the first": {"Pneumothorax": NEGATIVE}, "b": {"Pneumothorax": UNCERTAIN}, "c": {"Pneumothorax": NEGATIVE}}


def test_a_build_takes_them_instead_of_the_evidence(tmp_path):
    tables.write(tmp_path, [
        tables.row(f"s{i}", split="test", image=tables.image(tmp_path, f"{i}.png", (64, 64), seed=i),
                   report="FINDINGS: Small left pleural effusion.", effusion="1") for i in range(4)])
    write_labels(tmp_path / "silver.csv", ["s0", "s1", "s2"], ["Pleural Effusion", "Edema"], np.array(
        [[NEGATIVE, POSITIVE], [UNCERTAIN, POSITIVE], [MISSING, POSITIVE]], np.int8))
    config = get_config()
    config.workers, config.derived_labels, config.table.path = 1, ("silver",), str(tmp_path)
    config.tokenizer.vocab_size, config.silver_from = 300, str(tmp_path / "silver.csv")
    build(config, tmp_path / "data")
    column = load_metadata(tmp_path / "data").label_names.index("silver:Pleural Effusion")
    found = {record.study_id: int(record.labels[column]) for record in open_records(tmp_path / "data", "test")}
    assert found == {"s0": NEGATIVE, "s1": UNCERTAIN, "s2": MISSING, "s3": MISSING}
    write_labels(tmp_path / "silver.csv", ["s0"], ["Pleural Effusion"], np.array([[POSITIVE]], np.int8))
    with pytest.raises(UserError, match="silver_from"):  # Another file makes another build.
        build(config, tmp_path / "data")
    config.derived_labels = ()
    with pytest.raises(UserError, match="silver_from is for --config"):
        build(config, tmp_path / "other")


def test_ids_that_begin_like_a_formula(tmp_path):
    write_labels(tmp_path / "silver.csv", ["=1+1"], ["Edema"], np.array([[POSITIVE]], np.int8))
    assert (tmp_path / "silver.csv").read_text() == "uid,Edema\n'=1+1,1\n"
    assert read_labels(tmp_path / "silver.csv", ["Edema"]) == {"=1+1": {"Edema": POSITIVE}}


@pytest.mark.parametrize(("text", "message"), [
    (None, "not readable as CSV"), ("id,Edema\na,1\n", "a column uid"), ("uid,Oedma\na,1\n", "columns of findings"),
    ("uid,Edema\na,2\n", "row 2 has not 1, 0, -1"), ("uid,Edema\na\n", "row 2 has not"),
    ("uid,Edema\na,1\na,0\n", "the study of row 3 occurs twice")])
def test_files_that_are_refused(text, message, tmp_path):
    if text is not None:
        (tmp_path / "silver.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "silver.csv", ["Edema"])

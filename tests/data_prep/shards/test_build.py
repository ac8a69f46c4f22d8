"""The finished data set: counts, records, index, metadata, checksums; the same bytes however it is built."""

import subprocess
import sys

import numpy as np
import pytest

from data_prep.build import build, main
from data_prep.shards import finish, shard_writer
from lgdea_jax.data.dataset import load_index, load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.image import difference_hash
from tests.data.make import assert_equal
from tests.data.tfds_examples import from_example
from tests.data_prep.shards.conftest import config
from tests.data_prep.shards.run import PHANTOM, files


def test_counts_add_up(built):
    folder, report = built
    for split, n in (("train", 45), ("validation", 7), ("test", 5)):
        counts = report.counts[split]
        assert counts["read"] + counts["rejected"] == counts["rows"]
        assert counts["rejected"] == n // 6
        records = list(open_records(folder, split))
        assert len(records) == counts["records"] == sum(s.records for s in load_metadata(folder).shards[split])
        assert sum(r.has_image for r in records) == counts["images"]
        assert len({r.study_id for r in records if r.has_report}) == counts["reports"]
        assert len({r.study_id for r in records}) == counts["studies"]
        assert len({r.study_id for r in records if r.normal}) == counts["normal"]
    lines = (folder / "rejected.csv").read_text().splitlines()
    assert lines[:2] == ["study_id,image_id,row,reason", "train-5,,5,made to fail"]
    assert len(lines) - 1 == report.rejected == len(report.rejections)


def test_tfds_opens_it(built):
    import tensorflow_datasets as tfds

    folder, _ = built
    assert hasattr(tfds, "data_source")
    builder = tfds.builder_from_directory(folder)
    assert list(builder.info.splits) == ["train", "validation", "test"]
    for split in builder.info.splits:
        ours = open_records(folder, split)
        theirs = builder.as_data_source(split)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_equal(a, from_example(b))
    assert "tensorflow" not in sys.modules


def test_index_says_what_the_records_say(built):
    from lgdea_jax.io import decode_image

    folder, _ = built
    index = load_index(folder, "train")
    records = open_records(folder, "train")
    for i, record in enumerate(records):
        image = difference_hash(decode_image(record.image, "png")) if record.has_image else np.zeros(4)
        np.testing.assert_array_equal(index["image_hash"][i], image)
        assert index["report_words"][i] == len(record.report.split())
        assert (index["has_image"][i], index["has_report"][i]) == (record.has_image, record.has_report)
        assert index["n_present"][i] == sum(e.certainty == "present" for e in record.evidence)
        assert (index["report_hash"][i] != 0) == record.has_report
    for name, key in (("study", "study_id"), ("subject", "subject_id"), ("report_hash", "report")):
        values = [getattr(r, key) for r in records if getattr(r, key)]
        hashes = [int(h) for h in index[name] if h]
        assert len(set(zip(values, hashes, strict=True))) == len(set(values)) == len(set(hashes))
    # Punctuation, case and spacing do not tell reports apart.
    assert shard_writer.report_hash("No  effusion.\nNormal") == shard_writer.report_hash("no effusion, normal") != 0
    assert shard_writer.report_hash(" ... ") == 0


def test_checksums_and_tokeniser(built):
    from lgdea_jax.preprocess.text import TextTokenizer

    folder, _ = built
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    assert checked.returncode == 0
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == set(files(folder)) - {"SHA256SUMS"}
    tokenizer = TextTokenizer.load(folder / load_metadata(folder).tokenizer)
    assert tokenizer.encode(["small nodule"], 8).shape == (1, 8)


def test_tokeniser_has_seen_training_reports_only(tmp_path, monkeypatch):
    seen = []
    real = finish.train_tokenizer
    monkeypatch.setattr(finish, "train_tokenizer", lambda texts, size, **options: real(
        seen.extend(texts) or seen, size, **options))
    build(config(), tmp_path / "data")
    reports = {r.study_id: (r.subject_id, r.report) for r in open_records(tmp_path / "data", "train") if r.has_report}
    assert seen == list(reports.values())  # Those of two views once.


def test_metadata(built):
    folder, _ = built
    metadata = load_metadata(folder)
    assert (metadata.name, metadata.label_names, metadata.extractor, metadata.transform) == (
        "fake", ("Pleural Effusion", "Nodule"), "rules@4", "grey8@1")
    assert metadata.config["fake"]["seed"] == metadata.seed == 3
    assert [(s.source, s.licence, s.terms) for s in metadata.sources] == [("fake", "none", "own")]
    assert metadata.modalities == ("CR",) and metadata.languages == ("en",)
    assert metadata.from_json(metadata.to_json(), "here") == metadata


def test_the_bytes_do_not_depend_on_the_workers(built, tmp_path):
    build(config(workers=2), tmp_path / "two")
    assert files(tmp_path / "two") == files(built[0])
    build(config(fake={"seed": 4}), tmp_path / "other")
    one, other = (files(folder) for folder in (tmp_path / "two", tmp_path / "other"))
    assert all(one[name] != other[name] for name in one if "array_record" in name)


def test_a_finished_data_set_is_left_alone(built):
    before = files(built[0])
    times = {p: p.stat().st_mtime_ns for p in built[0].iterdir()}
    report = build(config(), built[0])
    assert report.seconds == 0 and report.counts == built[1].counts and report.rejections == built[1].rejections
    assert files(built[0]) == before and {p: p.stat().st_mtime_ns for p in built[0].iterdir()} == times
    with pytest.raises(UserError, match=r"another configuration \(image_size was 24, now 32\)"):
        build(config(image_size=32), built[0])
    with pytest.raises(UserError, match=r"fake\.counts\.test was 5, now 6"):
        changed = config()
        changed.fake.counts.test = 6
        build(changed, built[0])


def test_dry_run_writes_nothing(built, tmp_path, capsys):
    report = build(config(), None)
    assert report.out is None and report.counts == built[1].counts and report.rejections == built[1].rejections
    assert main([*PHANTOM, f"--out={tmp_path / 'data'}", "--dry_run", "--config.workers=1"]) == 0
    assert "dry run" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []

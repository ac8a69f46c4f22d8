"""The build as a whole: the same bytes however it runs, resumption, faults, and what it leaves behind."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from data_prep import build as build_module
from data_prep.build import build
from data_prep.shards import worker
from lgdea_jax.data.dataset import load_index, load_metadata
from lgdea_jax.data.source import RecordSource, open_records
from lgdea_jax.errors import UserError
from lgdea_jax.preprocess.image import difference_hash
from lgdea_jax.records import SCHEMA_VERSION
from tests.data.make import assert_equal
from tests.data_prep.build.run import assert_refused, command, environment
from tests.data_prep.build.run import build as run_build

PHANTOM = ("--config=configs/data/phantom.py", "--config.phantom.train=60", "--config.phantom.validation=10",
           "--config.phantom.test=10", "--config.shard_studies=10", "--config.tokenizer.vocab_size=300")


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setitem(build_module.SOURCES, "fake", "tests.data_prep.build.fake_source")


def config(**changes):
    out = ConfigDict({
        "name": "fake", "source": "fake", "fake": {"counts": {"train": 45, "validation": 7, "test": 5}, "seed": 3,
                                                   "reject_every": 6},
        "image_size": 24, "image_encoding": "png", "extractor": "rules", "shard_studies": 10, "workers": 1,
        "tokenizer": {"vocab_size": 200}})
    out.update(changes)
    return out


def files(folder):
    """Name -> SHA-256 of everything in the folder."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*")
            if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """One finished data set, for tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(build_module.SOURCES, "fake", "tests.data_prep.build.fake_source")
        folder = tmp_path_factory.mktemp("built") / "data"
        return folder, build(config(), folder)


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

    from data_prep.shards.features import from_example

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
    assert worker.report_hash("No  effusion.\nNormal") == worker.report_hash("no effusion, normal") != 0
    assert worker.report_hash(" ... ") == 0


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
    from data_prep.shards import finish

    seen = []
    real = finish.train_tokenizer
    monkeypatch.setattr(finish, "train_tokenizer", lambda texts, size: real(seen.extend(texts) or seen, size))
    build(config(), tmp_path / "data")
    reports = {r.study_id: r.report for r in open_records(tmp_path / "data", "train") if r.has_report}
    assert seen == list(reports.values())  # Those of two views once.


def test_metadata(built):
    folder, _ = built
    metadata = load_metadata(folder)
    assert (metadata.name, metadata.label_names, metadata.extractor, metadata.transform) == (
        "fake", ("Pleural Effusion", "Nodule"), "rules@2", "grey8@1")
    assert metadata.config["fake"]["seed"] == metadata.seed == 3
    assert [(s.source, s.licence, s.terms) for s in metadata.sources] == [("fake", "none", "own")]
    assert metadata.modalities == ("CR",) and metadata.languages == ("en",)
    assert metadata.from_json(metadata.to_json(), "here") == metadata


def test_the_bytes_do_not_depend_on_the_workers(built, tmp_path):
    build(config(workers=2), tmp_path / "two")
    assert files(tmp_path / "two") == files(built[0])
    build(config(workers=3, fake={"seed": 4}), tmp_path / "other")
    assert files(tmp_path / "other") != files(built[0])


def test_our_own_tfds_builder_makes_the_same_records(built, tmp_path):
    import tensorflow_datasets as tfds

    from data_prep.shards.features import from_example
    from data_prep.shards.tfds_metadata import RecordsBuilder, RecordsConfig

    builder = RecordsBuilder(data_dir=tmp_path, config=RecordsConfig(data=config()), file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=1))
    for split in ("train", "test"):
        theirs = {(r.study_id, r.image_id): r for r in map(from_example, builder.as_data_source(split))}
        ours = {(r.study_id, r.image_id): r for r in open_records(built[0], split)}
        assert theirs.keys() == ours.keys()
        for key in ours:
            assert_equal(ours[key], theirs[key])


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


def test_dry_run_writes_nothing(built, tmp_path):
    report = build(config(), None)
    assert report.out is None and report.counts == built[1].counts and report.rejections == built[1].rejections
    process = run_build(*PHANTOM, f"--out={tmp_path / 'data'}", "--dry_run", "--config.workers=1")
    assert process.returncode == 0 and "dry run" in process.stdout
    assert list(tmp_path.iterdir()) == []


# --- Stopping and going on --------------------------------------------------------------------------------------------


def test_a_killed_build_goes_on_where_it_was(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_build(*PHANTOM, f"--out={whole}", "--config.workers=1").returncode == 0
    process = subprocess.Popen(command(*PHANTOM, f"--out={cut}", "--config.workers=2"), env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(cut.glob(".build/*.npz"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p: p.stat().st_mtime_ns for p in cut.glob(".build/*.npz")}
    assert 2 <= len(done) < 8 and not (cut / "dataset.json").exists()
    with pytest.raises(UserError, match="not finished"):
        open_records(cut, "train")
    # What a worker that was killed in the middle leaves behind.
    (cut / ".build" / "phantom-train.array_record-00005-of-00006.99.tmp").write_bytes(b"half")
    shards_before = {p: p.stat().st_mtime_ns for p in cut.glob("*.array_record-*")
                     if (cut / ".build" / f"{p.name.split('.')[0].split('-')[1]}-{p.name[-14:-9]}.npz") in done}
    assert len(shards_before) == len(done)
    # Another configuration is refused, and the work stays.
    refused = run_build(*PHANTOM, f"--out={cut}", "--config.phantom.seed=1")
    assert_refused(refused, "another configuration", "phantom.seed")
    assert run_build(*PHANTOM, f"--out={cut}", "--config.workers=1").returncode == 0
    assert {p: p.stat().st_mtime_ns for p in shards_before} == shards_before  # Never redone.
    differing = {name for name, digest in files(whole).items() if files(cut).get(name) != digest}
    assert differing <= {"dataset.json", "SHA256SUMS"} and files(whole).keys() == files(cut).keys()
    # Only the command line differs between the two.
    assert json.loads((whole / "dataset.json").read_text()) | {"command": ""} == (
        json.loads((cut / "dataset.json").read_text()) | {"command": ""})


def test_workers_leave_with_a_killed_parent(tmp_path):
    process = subprocess.Popen(command(*PHANTOM, f"--out={tmp_path / 'data'}", "--config.workers=2",
                                       "--config.phantom.train=4000"), env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "data").glob(".build/*.npz")):
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_shard_that_is_gone_or_short_is_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "data"

    class Stop(Exception):
        pass

    def stop(*_, **__):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(build_module.finish, "finish", stop)
        build(config(), folder)
    names = sorted(p.name for p in folder.glob("*.array_record-*"))
    before = {name: (folder / name).read_bytes() for name in names}
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes(before[names[1]][:1000])
    (folder / ".build" / "validation-00000.npz").write_bytes(b"PK")
    calls = []
    real = build_module.process_slice
    monkeypatch.setattr(build_module, "process_slice", lambda *arguments: calls.append(1) or real(*arguments))
    build(config(), folder)
    assert len(calls) == 3
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_two_builds_do_not_write_to_one_folder(tmp_path):
    with build_module._own(tmp_path / "data", {"a": 1}), pytest.raises(UserError, match="another build"):
        build(config(), tmp_path / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True,
                             check=False)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    arguments = (*PHANTOM, "--config.phantom.size=96", "--config.image_encoding=raw")
    try:
        for workers in (1, 2):
            process = run_build(*arguments, f"--out={disk / 'data'}", f"--config.workers={workers}")
            assert_refused(process, "no space left", str(disk / "data"))
            assert not (disk / "data" / "dataset.json").exists()
            assert list((disk / "data").glob("**/*.tmp")) == []
            with pytest.raises(UserError, match="not finished"):
                load_metadata(disk / "data")
        finished = list((disk / "data" / ".build").glob("*.npz"))
        assert 1 <= len(finished) < 8
        # More room, and the same command goes on.
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        assert run_build(*arguments, f"--out={disk / 'data'}", "--config.workers=1").returncode == 0
        assert len(open_records(disk / "data", "train")) == 60
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("where", ["write", "finish"])
def test_full_disk_without_root(tmp_path, monkeypatch, where):
    """The same with a writer that is told so, wherever it happens."""
    real = getattr(worker._ShardWriter, where)
    calls = []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) == 20 if where == "write" else len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        return real(self, *arguments)

    monkeypatch.setattr(worker._ShardWriter, where, full)
    with pytest.raises(OSError) as error:
        build(config(), tmp_path / "data")
    assert error.value.errno == errno.ENOSPC
    assert not (tmp_path / "data" / "dataset.json").exists()
    assert len(list((tmp_path / "data" / ".build").glob("*.npz"))) == 1


# --- Wrong use --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "words"), [
    (("--config=configs/data/phantom.py", "--config.image_sise=64"), ("image_sise", "did you mean 'image_size'")),
    (("--config=configs/data/phantom.py", "--config.phantom.trian=4"), ("phantom.trian", "'phantom.train'")),
    (("--config=configs/data/phantom.py", "--config.image_size=big"), ("image_size", "int")),
    (("--config=configs/data/phantom.py", "--config.extractor=rule"), ("extractor", "'rules'")),
    (("--config=configs/data/phantom.py", "--config.source=phanton"), ("source", "'phantom'")),
    (("--config=configs/data/phantom.py", "--config.image_encoding=gif"), ("encoding", "jpeg")),
    (("--config=configs/data/phantom.py", "--config.image_size=0"), ("image_size", "at least 8")),
    (("--config=configs/data/phantom.py", "--config.name=My data"), ("config.name", "lower case")),
    (("--config=configs/data/phantom.py", "--dry-run"), ("--dry-run", "did you mean '--dry_run'")),
    (("--config=configs/data/nothing.py",), ("configs/data/nothing.py",)),
    (("--config=configs/data/table.py",), ("config.table.path",)),
])
def test_wrong_use(tmp_path, arguments, words):
    assert_refused(run_build(*arguments, f"--out={tmp_path / 'data'}"), *words)
    assert not (tmp_path / "data").exists()


def test_wrong_folders(tmp_path):
    assert_refused(run_build(*PHANTOM), "--out=DATA")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        build(config(), tmp_path / "mine")
    with pytest.raises(UserError, match="is a file"):
        build(config(), tmp_path / "mine" / "thesis.txt")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_no_usable_row(tmp_path):
    changed = config(fake={"reject_every": 1})
    with pytest.raises(UserError, match=r"no row .*rejected\.csv"):
        build(changed, tmp_path / "data")
    assert len((tmp_path / "data" / "rejected.csv").read_text().splitlines()) == 1 + 45 + 7 + 5
    with pytest.raises(UserError, match="no studies"):
        build(config(fake={"counts": {"train": 0, "validation": 0, "test": 0}}), tmp_path / "other")


def test_a_split_without_usable_rows_is_left_out(tmp_path):
    from lgdea_jax.data.dataset import SPLIT_ORDER

    changed = config(fake={"counts": {"train": 12, "validation": 1, "test": 0}, "reject_every": 1})
    with pytest.raises(UserError, match="no row"):
        build(changed, tmp_path / "none")
    changed = config(fake={"counts": {"train": 12, "validation": 1, "test": 0}, "reject_every": 0})
    build(changed, tmp_path / "data")
    assert load_metadata(tmp_path / "data").splits == ("train", "validation")
    with pytest.raises(UserError, match="test"):
        open_records(tmp_path / "data", "test")
    assert list(SPLIT_ORDER) == ["train", "validation", "test"]


@pytest.mark.parametrize(("split", "key", "words"), [
    ("validation", "subject_id", "1 subjects lie both in the train and in the validation split"),
    ("train", "study_id", "occur more than once"),
])
def test_leaks_and_duplicates_of_any_source_are_refused(tmp_path, monkeypatch, split, key, words):
    import dataclasses

    from tests.data_prep.build.fake_source import FakeSource

    real = FakeSource.__getitem__

    def leaky(self, index):
        study = real(self, index)
        # The first study of the split takes an id of the second one of the training split.
        return dataclasses.replace(study, **{key: getattr(real(dataclasses.replace(self, split="train"), 1), key)}
                                   ) if self.split == split and index == 0 else study

    monkeypatch.setattr(FakeSource, "__getitem__", leaky)
    changed = config()
    changed.fake.seed = next(seed for seed in range(50) if _same_views(seed))
    with pytest.raises(UserError, match=words):
        build(changed, tmp_path / "data")
    assert not (tmp_path / "data" / "dataset.json").exists()


def _same_views(seed):
    from tests.data_prep.build.fake_source import FakeSource

    source = FakeSource("train", 5, seed, 0)
    return len(source[0].images) == len(source[1].images) == 1


# --- Reading ----------------------------------------------------------------------------------------------------------


def copy(folder, to):
    import shutil

    return shutil.copytree(folder, to)


def test_what_readers_refuse(built, tmp_path):
    with pytest.raises(UserError, match=r"python -m data_prep\.build --config=configs/data/NAME\.py --out="):
        open_records(tmp_path / "nothing", "train")
    folder = copy(built[0], tmp_path / "data")
    with pytest.raises(UserError, match="did you mean 'train'"):
        open_records(folder, "trian")
    shard = next(folder.glob("fake-train*"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(UserError, match="bytes instead of"):
        open_records(folder, "train")
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        open_records(folder, "train")
    (folder / "index_train.npz").write_bytes(b"")
    with pytest.raises(UserError, match="missing or damaged"):
        load_index(folder, "train")
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    for read in (load_metadata, lambda f: open_records(f, "test"), lambda f: load_index(f, "test"),
                 lambda f: build(config(), f)):
        with pytest.raises(UserError, match="schema version 99"):
            read(folder)
    (folder / "dataset.json").write_text(text[:100])
    with pytest.raises(UserError, match="damaged"):
        load_metadata(folder)


def test_random_access(built):
    import pickle

    source = open_records(built[0], "train")
    everything = list(source)
    copied = pickle.loads(pickle.dumps(source))
    order = np.random.default_rng(0).permutation(len(source))
    for i in order:
        assert_equal(copied[np.int64(i)], everything[i])
    assert_equal(source[-1], everything[-1])
    for outside in (len(source), -len(source) - 1):
        with pytest.raises(IndexError):
            source[outside]
    assert len(RecordSource(built[0], ())) == 0


def test_reading_needs_neither_tfds_nor_jax(built):
    code = ("import sys; from lgdea_jax.data.dataset import load_index; "
            "from lgdea_jax.data.source import open_records; "
            f"open_records({str(built[0])!r}, 'train')[0]; load_index({str(built[0])!r}, 'train'); "
            "print([m for m in ('jax', 'tensorflow', 'tensorflow_datasets', 'grain') if m in sys.modules])")
    shown = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_reading_is_quick(built):
    source = open_records(built[0], "train")
    list(source)
    started = time.process_time()
    for _ in range(5):
        list(source)
    assert (time.process_time() - started) / (5 * len(source)) < 0.0015  # About 0.1 ms; room for a busy machine.

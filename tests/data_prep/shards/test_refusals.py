"""What a build refuses: wrong flags and folders, sources without usable rows, leaks and duplicates."""


import pytest

from data_prep.build import build, main
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from tests.data_prep.shards.conftest import config
from tests.data_prep.shards.run import PHANTOM, assert_refused
from tests.data_prep.shards.run import build as run_build


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
    with pytest.raises(UserError) as refused:
        main([*arguments, f"--out={tmp_path / 'data'}"])
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)
    assert not (tmp_path / "data").exists()


def test_a_refusal_is_one_line_and_status_2():
    assert_refused(run_build(*PHANTOM), "--out=DATA")


def test_wrong_folders(tmp_path):
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

    from tests.data_prep.shards.fake_source import FakeSource

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
    from tests.data_prep.shards.fake_source import FakeSource

    source = FakeSource("train", 5, seed, 0)
    return len(source[0].images) == len(source[1].images) == 1

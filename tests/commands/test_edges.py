"""The smallest and the oddest data and settings that a training can meet: each has a defined answer."""

import json

import numpy as np
import pytest

from data_prep import build
from lgdea_jax import cli, train
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.eval import records
from lgdea_jax.preprocess.text import TextTokenizer
from tests.data_prep.shards import tables
from tests.training import runs

LONG = "FINDINGS: " + "There is a small nodule in the left upper lobe. " * 2100  # 100,000 characters.


def built(folder, rows):
    """A data set of a table's rows."""
    tables.write(folder, rows)
    config = cli.read_config("configs/data/table.py")
    config.table.path, config.workers = str(folder / "studies.csv"), 1
    build.build(config, folder / "data", progress=False)
    return folder / "data"


@pytest.fixture(scope="module")
def one_study(tmp_path_factory):
    """One study, one label, a report of 100,000 characters."""
    folder = tmp_path_factory.mktemp("one")
    one = tables.row("s1", image=tables.image(folder, "a.png"), report=LONG, nodule="1")
    return built(folder, [{name: text for name, text in one.items() if name != "label:Pleural Effusion"}])


def test_a_long_report_is_kept_and_read(one_study):
    [record] = open_records(one_study, "train")
    assert record.report == LONG.strip() and len(LONG) > 100_000
    assert {item.finding for item in record.evidence} == {"Nodule"}
    assert TextTokenizer.load(one_study / "tokenizer.json").encode([LONG], 24).shape == (1, 24)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63])
def test_seeds_out_of_range_are_refused(seed, tmp_path):
    with pytest.raises(UserError, match=rf"'seed' is {seed}: a seed is a number from 0 to 4294967295"):
        runs.here(tmp_path, tmp_path, f"seed={seed}")
    config = cli.read_config("tests/training/tiny.py")
    config.seed = seed
    with pytest.raises(UserError, match="'seed' is"):
        train.train(config, tmp_path)
    with pytest.raises(UserError, match=r"'phantom\.seed' is"):
        build.main(["--config=configs/data/phantom.py", f"--config.phantom.seed={seed}", f"--out={tmp_path / 'data'}"])
    parser = cli.Parser()
    parser.add_argument("--seed", type=cli.seed)
    for text in (str(seed), "x"):
        with pytest.raises(UserError, match="is not a number from 0"):
            parser.parse_args([f"--seed={text}"])
    assert parser.parse_args(["--seed=4294967295"]).seed == 2**32 - 1
    assert not list(tmp_path.iterdir())


def test_an_image_of_one_pixel_and_an_empty_split_are_refused(one_study, tmp_path):
    for size in (-1, 0, 1, 7):
        with pytest.raises(UserError, match=rf"'image\.size' is {size}: at least 8"):
            runs.here(tmp_path, one_study, f"image.size={size}")
    with pytest.raises(UserError, match="image size 9 x 9 is not a multiple of the patch size 8"):
        runs.here(tmp_path, one_study, "image.size=9")
    with pytest.raises(UserError, match=r"unknown split of .* 'test'; known: train"):
        runs.here(tmp_path, one_study, "data.split=test")


@pytest.mark.slow
@pytest.mark.parametrize("method, dtype", [("clip", "float32"), ("lgdea", "bfloat16"), ("supervised", "float32")])
def test_one_study_trains(method, dtype, one_study, compile_cache, tmp_path):
    flags = ("total_steps=2", "batch.pairs=2", "batch.images=0", "batch.reports=0", f"dtype={dtype}")
    assert runs.here(tmp_path, one_study, *flags, config=f"tests/training/tiny.py:{method}",
                     cache=compile_cache) == cli.OK
    assert [np.isfinite(row["loss"]) for row in runs.rows(tmp_path)] == [True, True]
    out = tmp_path / "out"
    assert records.main([f"--checkpoint={tmp_path}", f"--data_dir={one_study}", f"--out={out}", "--split=train",
                         "--bootstrap=5"]) == cli.OK
    values = {name: metric["value"] for name, metric in json.loads(
        (out / "results.json").read_text())["results"][0]["metrics"].items()}
    task = "classifier" if method == "supervised" else "zero_shot"
    assert values[f"{task}/auroc"] is None  # One study has no negative: undefined is said, and no number.
    assert method == "supervised" or values["retrieval/recall@1/image_to_text"] == 1


@pytest.mark.slow
def test_a_batch_without_any_label_has_no_loss(compile_cache, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    data = built(folder, [tables.row(f"s{n}", image=tables.image(folder, f"{n}.png", seed=n), report=tables.REPORT)
                          for n in range(4)])
    flags = ("total_steps=2", "batch.pairs=4", "batch.images=0", "batch.reports=0")
    assert runs.here(tmp_path / "run", data, *flags, config="tests/training/tiny.py:supervised",
                     cache=compile_cache) == cli.OK
    assert [row["loss"] for row in runs.rows(tmp_path / "run")] == [0.0, 0.0]

"""Wrong use of the training: one clear line, exit status 2, nothing half-written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lgdea_jax import cli, train
from lgdea_jax.data import dataset
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.preprocess.text import train_tokenizer
from lgdea_jax.records import SCHEMA_VERSION
from lgdea_jax.training import data as train_data
from lgdea_jax.training.state import cannot_extend
from tests.data.make import write_sums
from tests.training import runs


@pytest.fixture(scope="module")
def finished(phantom_data, compile_cache, tmp_path_factory):
    """A short run that ended well, without any evaluation (it is the text of no split)."""
    workdir = tmp_path_factory.mktemp("finished")
    assert runs.here(workdir, phantom_data, *CLIP, cache=compile_cache) == 0
    return workdir


CLIP = ("method=clip", "total_steps=2", "checkpoint.every=1", "eval.split=none")


@pytest.mark.parametrize("flags, message", [
    (("optim.rte=1",), "unknown config key 'optim.rte' (did you mean 'optim.rate'?)"),
    (("methods.clip.temperature=1",), "unknown config key 'methods.clip.temperature'"),
    (("method=clpi",), "unknown method 'clpi' (did you mean 'clip'?)"),
    (("dtype=float16",), "unknown dtype 'float16'"),
    (("total_steps=0",), "'total_steps' is 0: at least 1"),
    (("log.every=0",), "'log.every' is 0: at least 1"),
    (("batch.pairs=-8",), "batch.pairs=-8 must be a multiple of the 1 devices"),
    (("batch.pairs=0",), "needs pairs"),
    (("method=supervised", "batch.reports=4"),
     "supervised does not learn from unpaired reports: batch.reports must be 0"),
    (("method=clip", "batch.images=4", "data.pairs=0.5"),
     "clip does not learn from unpaired images: batch.images must be 0"),
    (("method=lgdea_pairs", "batch.images=4", "data.pairs=0.5"),
     "lgdea_pairs does not learn from unpaired images: batch.images must be 0"),
    (("method=local", "batch.reports=4", "data.pairs=0.5"),
     "local does not learn from unpaired reports: batch.reports must be 0"),
    (("method=supervised", "batch.pairs=0"), "nothing to train on"),
    (("batch.reports=4",), "batch.reports is 4 but there are no reports"),
    (("data.pairs=41",), "data.pairs=41 asks for 41 paired studies; there are"),
    (("data.pairs=0",), "data.pairs=0"),
    (("data.split=trian",), "did you mean 'train'"),
    (("mesh.data=3",), "mesh.data=3 x mesh.fsdp=1 does not cover 1 devices"),
    (("model.image.vit.variant=XS/9",), "config.model"),
    (("model.image.vit.sizes.heads=3",), "config.model"),
    (("model.prototypes=0",), "needs prototypes: model.prototypes is 0"),
    (("optim.rates=txt=0.1",), "'txt' matches no parameter"),
    (("optim.schedule=cosin",), "did you mean 'cosine'"),
    (("text.variants=canonic",), "did you mean 'canonical'"),
    (("augment.crop=0.3,1.0",), "augment.crop"),
    (("init_from=nowhere",), "no checkpoints in nowhere"),
    (("text.tokenizer=nowhere",), "no tokeniser at nowhere"),
    (("image.modality=ct", "volume.geometry=phantom_ct"), "volumes need resnet3d"),
    (("batch.images=many",), "config key 'batch.images': 'many' is not a number or auto"),
    (("batch.images=4",), "batch.images is 4 but there are no images"),
    (("method=oracle", "data.pairs=0.5"), "needs the hidden reports of the unpaired images: --config.memory.truth"),
    (("strong.crop=0.3", "data.pairs=0.5"), "strong.crop=0.3: a share of the area"),
    (("strong.hole=1", "data.pairs=0.5"), "strong.hole=1.0: a number"),
])
def test_mistakes_in_the_config(phantom_data, tmp_path, flags, message):
    with pytest.raises(UserError) as error:
        runs.here(tmp_path / "run", phantom_data, *flags)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not list((tmp_path / "run").glob("checkpoints/*")) and not list((tmp_path / "run").glob("*.jsonl"))


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no data set at .*python -m data_prep.build --config="):
        runs.here(tmp_path / "run", tmp_path / "none")
    (tmp_path / "begun/.build").mkdir(parents=True)
    with pytest.raises(UserError, match="is not finished"):
        runs.here(tmp_path / "run", tmp_path / "begun")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir"):
        runs.here(tmp_path / "file", tmp_path / "none")


def test_a_batch_that_does_not_divide_over_the_devices():
    config = cli.read_config("tests/training/tiny.py:clip")

    class Mesh:
        size = 3

    with pytest.raises(UserError, match=r"batch\.pairs=8 must be a multiple of the 3 devices"):
        train_data.batch_sizes(Experiment.of(config), Mesh)


def copy_of(data, folder, change):
    """The data set with the text of dataset.json changed."""
    shutil.copytree(data, folder)
    file = folder / "dataset.json"
    file.write_text(change(file.read_text()))
    write_sums(folder)
    return folder


def test_another_transform_or_schema_version(phantom_data, tmp_path):
    other = copy_of(phantom_data, tmp_path / "a", lambda text: text.replace('"grey8@1"', '"grey8@2"'))
    with pytest.raises(UserError, match="made with the transform grey8@2; this code trains on grey8@1"):
        runs.here(tmp_path / "run", other)
    older = copy_of(phantom_data, tmp_path / "b", lambda text: text.replace(
        f'schema_version": {SCHEMA_VERSION}', 'schema_version": 3'))
    with pytest.raises(UserError, match=f"schema version 3, this code reads version {SCHEMA_VERSION}: build it again"):
        runs.here(tmp_path / "run", older)


@pytest.mark.parametrize("column, message", [
    ("subject", "1 subjects in both"), ("image_hash", "1 near-duplicate images"), ("report_hash", "1 equal reports")])
def test_leaks_between_splits(phantom_data, tmp_path, column, message):
    folder = tmp_path / "leaky"
    shutil.copytree(phantom_data, folder)
    train_index = dataset.load_index(folder, "train")
    test_index = dataset.load_index(folder, "test")
    # No leak of the others' kind that the fixture may have by chance.
    test_index["report_hash"][:] = np.arange(1, 1 + len(test_index["report_hash"]))
    test_index[column][0] = train_index[column][3]
    np.savez(folder / "index_test.npz", **test_index)
    validation = dataset.load_index(folder, "validation")
    validation["report_hash"][:] = np.arange(101, 101 + len(validation["report_hash"]))
    np.savez(folder / "index_validation.npz", **validation)
    if column == "image_hash":  # The pixels decide: the same record again.
        write_sums(folder)
        metadata = dataset.load_metadata(folder)
        (folder / metadata.shards["test"][0].file).unlink()
        shard, other = metadata.shards["test"][0], metadata.shards["train"][0]
        shutil.copy(folder / other.file, folder / shard.file)
        text = (folder / "dataset.json").read_text().replace(f'"bytes": {shard.bytes}', f'"bytes": {other.bytes}')
        (folder / "dataset.json").write_text(text)
        test_index["image_hash"][3] = train_index["image_hash"][3]
        test_index["image_hash"][0] = 0
        np.savez(folder / "index_test.npz", **test_index)
    write_sums(folder)
    with pytest.raises(UserError) as error:
        runs.here(tmp_path / "run", folder, "data.equal_reports=refuse")
    assert str(error.value).startswith(f"split leak: {message}") and "(test)" in str(error.value)
    listed = tmp_path / "run/near_duplicates.csv"
    assert listed.is_file() == (column == "image_hash")
    if column == "image_hash":
        assert str(listed) in str(error.value) and len(listed.read_text().splitlines()) == 2


def test_an_evaluation_set_of_ones_own_is_checked_too(phantom_data, tmp_path):
    shutil.copytree(phantom_data, tmp_path / "copy")
    with pytest.raises(UserError, match=r"split leak: .* subjects in both"):
        runs.here(tmp_path / "run", phantom_data, f"eval.dir={tmp_path / 'copy'}")


@pytest.mark.parametrize("flags, message", [
    (("optim.rate=0.5",), "another config (optim.rate was 0.01, is 0.5)"),
    (("seed=1",), "another config (seed was 0, is 1)"),
    (("method=clip_sigmoid",), "another config (method was 'clip', is 'clip_sigmoid')"),
    (("image.size=64",), "another transform"),
])
def test_a_run_goes_on_with_its_own_config_only(finished, phantom_data, flags, message):
    before = (finished / "config.json").read_text()
    with pytest.raises(UserError) as error:
        runs.here(finished, phantom_data, *CLIP, *flags)
    assert message in str(error.value) and "use a new --workdir" in str(error.value)
    assert (finished / "config.json").read_text() == before


def test_more_steps_need_a_constant_rate_or_a_new_run(finished, phantom_data):
    with pytest.raises(UserError, match=r"has total_steps=2, not 4: the cosine schedule ends there; a new --workdir "
                                        r"with --config.init_from=RUN starts from its parameters"):
        runs.here(finished, phantom_data, *CLIP, "total_steps=4")
    old = {"optim.schedule": "constant", "optim.warmup_steps": 2, "total_steps": 6}
    for change, constant, why in (({"total_steps": 9}, True, ""), ({"total_steps": 4}, True, ""),
                                  ({"total_steps": 9}, False, "the targets of unpaired items set in at shares of it"),
                                  ({"total_steps": 2}, True, "it is within the warm-up"),
                                  ({"optim.schedule": "linear"}, True, "the linear schedule ends there")):
        assert cannot_extend(old, {**old, **change}, constant=constant) == why


def test_a_run_goes_on_with_its_own_tokeniser_and_data_only(finished, phantom_data, tmp_path):
    other = tmp_path / "tokenizer.json"
    train_tokenizer([("a", "quite another corpus"), ("b", "of other words")], 60).save(other)
    with pytest.raises(UserError, match="made with another tokeniser"):
        runs.here(finished, phantom_data, *CLIP, f"text.tokenizer={other}")
    data = tmp_path / "data"
    shutil.copytree(phantom_data, data)
    text = (data / "dataset.json").read_text()
    sha = dataset.load_metadata(data).shards["train"][0].sha256
    (data / "dataset.json").write_text(text.replace(sha, "0" * 64))
    write_sums(data)
    with pytest.raises(UserError, match="made with another training data"):
        runs.here(finished, data, *CLIP)
    with pytest.raises(UserError, match=r"text tower of .* another tokeniser"):
        runs.here(tmp_path / "new", phantom_data, *CLIP, f"text.tokenizer={other}", f"init_from={finished}")


def test_the_same_data_may_lie_elsewhere(finished, phantom_data, compile_cache, tmp_path):
    shutil.copytree(phantom_data, tmp_path / "moved")
    assert runs.here(finished, tmp_path / "moved", *CLIP, "data.threads=1", cache=compile_cache) == 0


def test_losses_that_are_not_finite_name_the_loss_and_the_step(phantom_data, compile_cache, tmp_path):
    with pytest.raises(UserError) as error:
        runs.here(tmp_path, phantom_data, "method=clip", "optim.rate=1e10", "optim.warmup_steps=0",
                  "optim.schedule=constant", "optim.clip_norm=0", "checkpoint.every=1", "log.every=1",
                  "eval.split=none", cache=compile_cache)
    text = str(error.value)
    assert text.startswith("loss/contrastive became nan at step ")
    step = int(text.split("at step ")[1].split(";")[0])
    assert f"the last good checkpoint is step {step - 1}" in text and "--config.optim.rate" in text
    assert [row["step"] for row in runs.rows(tmp_path)] == list(range(1, step))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir())[-1] == str(step - 1)


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "lgdea_jax.train", *arguments], capture_output=True, text=True,
                          cwd=runs.ROOT, env=runs.environment())


def test_the_command_line(tmp_path):
    wrong = command("--config=configs/phantom.py", f"--workdir={tmp_path}", "--config.bacth.pairs=3")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: unknown config key 'bacth.pairs'")
    assert wrong.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_one_line(phantom_data, compile_cache, small_disk):
    flags = ("method=clip", "checkpoint.every=1", "checkpoint.keep=100", "total_steps=50", "eval.split=none")
    errors = runs.run(small_disk / "run", phantom_data, *flags, status=2, cache=compile_cache)
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("error: no space left on the disk for a checkpoint in")
    whole = [path.name for path in (small_disk / "run/checkpoints").iterdir() if path.name.isdigit()]
    assert 1 <= len(whole) < 50
    assert runs.state(small_disk / "run", max(map(int, whole)))["step"] == max(map(int, whole))


def test_help_and_flags(capsys):
    assert train.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "--workdir" in out and "--config.KEY=VALUE" in out and "not a medical device" in out
    with pytest.raises(UserError, match=r"unknown argument '--wrkdir' \(did you mean '--workdir'\?\)"):
        train.main(["--config=configs/phantom.py", "--wrkdir=x", "--workdir=x"])
    with pytest.raises(UserError, match="--workdir"):
        train.main(["--config=configs/phantom.py"])
    with pytest.raises(UserError, match="--config=FILE is needed"):
        train.main(["--workdir=x"])


def test_a_config_file_with_a_key_that_nobody_reads(phantom_data, tmp_path):
    (tmp_path / "mine.py").write_text(
        (Path(runs.ROOT) / "tests/training/tiny.py").read_text().replace(
            "    return config", "    config.optim.warm = 1\n"
                                                                     "    return config"))
    with pytest.raises(UserError, match=r"unknown config key 'optim\.warm'"):
        runs.here(tmp_path / "run", phantom_data, config=tmp_path / "mine.py")


@pytest.mark.parametrize("method, counts, expected", [
    ("lgdea", (40, 51, 32), (8, 16, 8)), ("lgdea", (40, 0, 32), (8, 0, 8)), ("lgdea", (40, 0, 0), (8, 0, 0)),
    ("lgdea_pairs", (40, 51, 32), (8, 0, 8)), ("clip", (40, 51, 32), (8, 0, 0)),
    ("supervised", (40, 51, 32), (8, 16, 0))])
def test_unpaired_rows_by_default(method, counts, expected):
    """As many as the method can use where there are such items, and the rest is named with its reason."""
    experiment = Experiment.of(cli.read_config(f"tests/training/tiny.py:{method}"))

    class Mesh:
        size = 4

    items = dict(zip(("pairs", "images", "reports"), counts, strict=True))
    sizes = train_data.batch_sizes(experiment, Mesh, items)
    assert tuple(sizes.values()) == expected and list(sizes) == list(items)
    left = [f"{items[stream]} {stream} (the method {method} does not learn from unpaired {stream})"
            for stream in ("images", "reports") if items[stream] and not sizes[stream]]
    assert train_data.not_trained_on(experiment, items, sizes) == ", ".join(left)
    # Before the data are read, what the config asks for is expected.
    assert train_data.batch_sizes(experiment, Mesh)["images"] == 0
    experiment.config.data.pairs = 0.5
    assert (train_data.batch_sizes(experiment, Mesh)["images"] > 0) == ("images" in experiment.method.streams)


def test_a_ratio_is_rounded_to_the_devices_and_a_number_wins():
    config = cli.read_config("tests/training/tiny.py:lgdea")
    config.batch.images_per_pair, config.batch.reports_per_pair = 0.1, 0.0

    class Mesh:
        size = 4

    items = {"pairs": 40, "images": 51, "reports": 32}
    assert train_data.batch_sizes(Experiment.of(config), Mesh, items) == {"pairs": 8, "images": 4, "reports": 0}
    cli.set_override(config, "batch.images", "12")
    assert train_data.batch_sizes(Experiment.of(config), Mesh, items)["images"] == 12
    cli.set_override(config, "batch.images", "auto")
    assert train_data.batch_sizes(Experiment.of(config), Mesh, items)["images"] == 4

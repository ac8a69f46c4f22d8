"""The step with augmentation on the device: that of augmented images, and losses distributed as with the host's."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.preprocess.augment import Augment
from lgdea_jax.runtime import sharding
from lgdea_jax.training.data import prepare_data
from lgdea_jax.training.state import prepare_parts
from lgdea_jax.training.step import StepOptions, train_step

DRAWS = 150


def config_of(data, *flags, name="clip"):
    config = cli.read_config(f"tests/training/tiny.py:{name}")
    config.data.dir, config.augment.noise, config.augment.erase = str(data), 20.0, 0.3
    for flag in flags:
        cli.set_override(config, *flag.split("=", 1))
    return config


def test_losses_have_the_distribution_of_the_hosts(phantom_data):
    experiment = Experiment.of(config_of(phantom_data, "augment.device=True"))
    mesh = sharding.make_mesh(data=1, fsdp=1, devices=jax.devices()[:1])
    data = prepare_data(experiment, mesh, show=False)
    parts = prepare_parts(experiment, data, mesh)
    batch, state = data.batches[0], parts.initial()
    # On the host nothing was done to the images: they are those of the items.
    items = {item["image_index"].item(): item["image"] for item in data.items["pairs"][0][0]}
    for number, image in zip(batch["pairs"]["image_index"].tolist(), batch["pairs"]["image"], strict=True):
        np.testing.assert_array_equal(image, items[number])

    def step_of(augment):
        options = StepOptions(forward=experiment.forward_options(data.tokenizer.pad_id), seed=0, dropout=False,
                              view=experiment.strong_view, augment=augment)
        step = functools.partial(train_step, graphdef=parts.graphdef, method=experiment.method,
                                 optimizer=parts.optimizer, options=options)
        return jax.jit(lambda number, pairs: step({**state, "step": number}, {"pairs": pairs})[1])

    device, plain = step_of(experiment.device_augment), step_of(None)
    host, rng = experiment.augment, np.random.default_rng(0)
    found = [device(number, batch["pairs"]) for number in range(DRAWS)]
    expected = [plain(0, {**batch["pairs"], "image": np.stack([host.image(x, rng) for x in batch["pairs"]["image"]])})
                for _ in range(DRAWS)]
    for name in ("loss", "grad_norm"):
        one, other = ([float(metrics[name]) for metrics in some] for some in (found, expected))
        assert np.std(other) > 1e-4
        assert stats.ks_2samp(one, other).pvalue > 1e-3 and stats.ttest_ind(one, other).pvalue > 1e-3, name
    # A step is that of the images which the transform gives for its number.
    seen = experiment.device_augment({"pairs": batch["pairs"]}, 0, 7)["pairs"]
    assert float(plain(7, seen)["loss"]) == pytest.approx(float(found[7]["loss"]), rel=1e-3)


def test_who_transforms_the_images(phantom_data):
    for flags, host, device in (((), True, False), (("augment.device=True",), False, True),
                                (("augment.enabled=False", "augment.device=True"), False, False)):
        experiment = Experiment.of(config_of(phantom_data, *flags))
        assert isinstance(experiment.augment, Augment) and experiment.augment.changes("image") == host
        assert (experiment.device_augment is not None) == device
    with pytest.raises(UserError, match=r"augment\.device"):
        config = cli.read_config("tests/training/tiny_ct.py")
        config.augment.device = True
        _ = Experiment.of(config).augment


def test_shipped_configs_of_mimic_transform_on_the_device_and_keep_tokens():
    for name, both in (("clip_mimic", True), ("lgdea_mimic", True), ("phantom", False), ("small", False)):
        config = cli.read_config(f"configs/{name}.py")
        assert (config.augment.device, config.data.keep_tokens) == (both, both)
        if both:
            assert cli.read_config("configs/data/mimic_cxr.py").image_size == config.image.size


def test_tokens_are_made_once_with_a_line_and_small_records_are_said(phantom_data, tmp_path, caplog):
    for file in phantom_data.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    mesh = sharding.make_mesh(data=1, fsdp=1, devices=jax.devices()[:1])
    for turn in range(2):
        caplog.clear()
        with caplog.at_level("INFO", "lgdea_jax"):
            config = config_of(tmp_path, "data.keep_tokens=True", "data.pairs=0.5", "image.size=72", name="lgdea")
            data = prepare_data(Experiment.of(config), mesh, show=True)
        lines = [record.message for record in caplog.records]
        assert sum(line.startswith("tokens: tokenising") for line in lines) == 1 - turn
        assert sum("records of 64 px are enlarged to image.size=72" in line for line in lines) == 1
        assert len(list((tmp_path / "tokens").iterdir())) == 1
    config.data.keep_tokens = False
    plain = prepare_data(Experiment.of(config), mesh, show=False)
    for stream, arrays in plain.batches[3].items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(data.batches[3][stream][name], values, err_msg=f"{stream}/{name}")

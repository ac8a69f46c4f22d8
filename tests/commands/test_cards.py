"""Model card and data sheet: the numbers of the files, TODO where only people know, refusal of other runs' results."""

import json
import logging
import re
import shutil

import pytest

from data_prep import datasheet
from lgdea_jax import card, cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness.output import config_hash
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.training import data as train_data
from lgdea_jax.training import state
from tests.commands.test_report import results
from tests.data.make import write_sums
from tests.inference.test_predict import model_of


def test_the_model_card(phantom_data, tmp_path, capsys):
    import numpy as np

    model, run = model_of(phantom_data, "lgdea"), tmp_path / "run"
    config = model.spec["config"]
    store = Checkpoints(run)
    store.save({"params": model.predictor._params, "ema": {}, "step": np.int32(3)}, {
        **model.spec, "tokenizer_digest": "ab" * 32, "versions": {"jax": "1.2.3"},
        "data": {"names": ["phantom"], "items": {"pairs": 4000, "images": 0}, "digest": "cd" * 32}})
    store.close()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text(json.dumps(results(config_hash=config_hash(config), step=3)))
    assert card.main([f"--checkpoint={run}", f"--results={tmp_path / 'out'}"]) == cli.OK
    text = (run / "MODEL_CARD.md").read_text()
    for part in ("Method `lgdea`", "4,000 pairs", "Research use only", "zero_shot/auroc | 0.751 [0.700, 0.800] | 9",
                 "metric (official)", "0.600 [0.500, 0.700]", "| M | 20 | 0.900 [0.800, 1.000] |", "python -m x --a=",
                 "`optim.rate` | `0.01`", "1.2.3"):
        assert part in text, part
    assert "zero_shot/kappa | - |" in text  # Undefined is said, not left out.
    assert f"{text.count('TODO:')} lines begin with TODO" in capsys.readouterr().out and text.count("TODO:") >= 3
    (tmp_path / "out/results.json").write_text(json.dumps(results(config_hash="other", step=3)))
    with pytest.raises(UserError, match="another run or step"):
        card.main([f"--checkpoint={run}", f"--results={tmp_path / 'out'}"])


def test_text_from_data_is_no_markup():
    """Names of data sets, labels and groups, and a command, that would be markup, a link, or end a block."""
    evil = "<img src=x onerror=alert(1)> [a](javascript:b) | c\n# d"
    config = {"method": evil, "total_steps": 5, "model": {"image": {"weights": "/home/miller/vit.safetensors"}}}
    spec = {"config": config, "step": 5, "transform": evil, "tokenizer_digest": "ab" * 32, "tokenizer_subjects": 7,
            "versions": {"jax": evil}, "label_names": [evil], "data": {"names": [evil], "items": {"pairs": 1},
                                                                        "digest": "cd" * 32}}
    content = results(config_hash="x", step=5)
    content |= {"benchmark": evil, "data": evil, "split": evil, "command": "x 'a\n```\n<script>'"}
    content["results"][0]["mode"] = evil
    text = card.card(spec, [content])
    outside = re.sub(r"(?m)^(`{3,})bash\n.*?\n\1$", "", text, flags=re.S)
    outside = re.sub(r"`[^`\n]*`", "", outside)
    assert "<" not in outside and "](" not in outside and "\n# d" not in text and "```" not in outside
    assert "vit.safetensors" in text and "/home/miller" not in text
    assert "at least 7 subjects" in text and "<img" in text  # In a code span HTML means nothing.


def test_only_what_was_trained_on_is_listed(phantom_data, tmp_path, caplog):
    """Half of the 40 studies are unpaired, and another data set has images: without rows in the batch nobody reads
    them, which one line of the log says and the card keeps to."""
    other = tmp_path / "other"
    shutil.copytree(phantom_data, other)
    content = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**content, "name": "more_images"}))
    write_sums(other)
    config = cli.read_config("tests/training/tiny.py:lgdea")
    config.data.dir, config.data.images_from, config.data.pairs = str(phantom_data), (str(other),), 0.5
    config.batch.images, config.batch.reports = 0, 4

    def listed():
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="lgdea_jax"):
            experiment = Experiment.of(config)
            data = train_data.prepare_data(experiment, sharding.make_mesh(**config.mesh), show=True)
        text = card.card({**state.make_spec(experiment, data), "step": 1}, [])
        [line] = [line for line in text.splitlines() if "data sets' own sheets" in line]
        return line.split(" (digest")[0], [line for line in caplog.messages if "not trained on" in line]

    line, [told] = listed()
    images = int(re.fullmatch(r"not trained on: (\d+) images \(batch\.images=0\)", told)[1])
    assert images > 40 and re.fullmatch(r"- phantom: \d+ pairs, \d+ reports", line)
    config.batch.images = 4
    line, told = listed()
    assert not told and re.fullmatch(rf"- phantom, more_images: \d+ pairs, {images} images, \d+ reports", line)


def test_the_data_sheet(phantom_data, tmp_path):
    out = tmp_path / "sheet.md"
    assert datasheet.main([f"--data_dir={phantom_data}", f"--out={out}"]) == cli.OK
    text, metadata = out.read_text(), load_metadata(phantom_data)
    assert "| phantom | Apache-2.0 | open |" in text and "| images | 40 | 12 | 8 |" in text
    assert metadata.command in text and metadata.extractor in text and "Rejected rows: none." in text
    assert text.count("TODO:") == 3 and "credentialed" not in text
    import dataclasses

    locked = dataclasses.replace(metadata, sources=(dataclasses.replace(metadata.sources[0], terms="credentialed"),))
    shown = datasheet.sheet(locked, datasheet.Counter({"the image file is missing": 1200}))
    assert "Under credentialed terms" in shown and "1,200 x the image file is missing" in shown

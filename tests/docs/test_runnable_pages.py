"""The pages with code for users: their commands and their Python run as they are written. And the fifteen questions."""

import ast
import csv
import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lgdea_jax
from data_prep.synthetic.xray.source import PhantomOptions, PhantomSource
from lgdea_jax.data.dataset import load_metadata
from tests.docs.pages import ROOT, read, rows, section
from tests.inference import hub_stub

GUIDES = ROOT / "docs/guides"
# What makes a training of the page a short one.
SHORT = ["--config.total_steps=2", "--config.eval.every=2", "--config.checkpoint.every=2", "--config.batch.pairs=8",
         "--config.log.tensorboard=False", "--config.compile_cache=", "--config.optim.warmup_steps=1"]
# Of a block of Python in a page: {variable: its shape} after it has run, where L is the number of labels.
SHAPES = {"python": {"scores": (2, 2), "vectors": (2, 24), "found['image']": (8, 24), "maps[0]": (2, 40, 50)},
          "finetune": {"scores": (2, "L"), "maps[0]": (1, 40, 50)}, "sharing": {"scores": (1, 1)}}


@pytest.fixture(scope="module")
def run(phantom_data, tmp_path_factory):
    """A run with an untrained model and everything that its checkpoint states."""
    from lgdea_jax.runtime.checkpoint import Checkpoints
    from tests.inference.test_predict import model_of

    folder = tmp_path_factory.mktemp("run") / "run"
    model, metadata = model_of(phantom_data, "lgdea"), load_metadata(phantom_data)
    spec = {**model.spec, "tokenizer": model.predictor.tokenizer.serialised,
            "tokenizer_digest": model.predictor.tokenizer.digest, "label_names": list(metadata.label_names),
            "data": {"names": [metadata.name], "items": {"pairs": 40}, "digest": "0"}, "versions": {"jax": "0"},
            "sources": [{"source": "phantom", "licence": "Apache-2.0", "terms": "open"}]}
    store = Checkpoints(folder)
    store.save({"params": model.predictor.params, "ema": {}, "step": np.int32(1)}, spec)
    store.close()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", SHAPES)
def test_the_page_runs_as_it_is_written(page, run, phantom_data, tmp_path, monkeypatch):
    """In a folder with RUN, DATA, a.png and b.png: commands and code in the order of the page."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").symlink_to(run)
    (tmp_path / "DATA").symlink_to(phantom_data)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50), np.uint8)).save(tmp_path / name)
    known, ran = {}, 0
    with hub_stub.in_this_process(monkeypatch, tmp_path / "cache") as (_, server):
        for language, block in re.findall(r"(?s)```(\w+)\n(.*?)```", read(GUIDES / f"{page}.md")):
            if language == "python":
                exec(compile(block, f"{page}.md", "exec"), known)
            for line in block.replace("\\\n", " ").strip().splitlines() if language == "bash" else ():
                python, _, module, *words = shlex.split(line)
                assert python == "python"
                assert importlib.import_module(module).main(words + SHORT * module.endswith("train")) == 0, line
            ran += language in ("python", "bash")
        assert page != "sharing" or server.models["OWNER/NAME"]["private"]
    assert ran >= 2
    sizes = {"L": len(known["model"].labels)} if "model" in known else {}
    for name, shape in SHAPES[page].items():
        value = eval(name, known)
        assert value.shape == tuple(sizes.get(side, side) for side in shape) and value.dtype == np.float32, name
    assert page != "python" or len(known["labels"]) == 8


@pytest.mark.slow
def test_the_whole_way_from_a_folder_to_a_model_elsewhere(tmp_path, monkeypatch):
    """The commands of the page in their order; in place of a person, a statement is changed in the table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    world = PhantomSource(PhantomOptions(train=24, validation=0, test=0))
    with open("FOLDER/studies.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["study_id", "subject_id", "report", "image"])
        for number in range(24):
            study = world[number]
            Image.fromarray(study.images[0].pixels).save(f"FOLDER/{number}.png")
            table.writerow([number, f"p{number}", study.report, f"{number}.png"])
    text = section(GUIDES / "own_data.md", "The whole way")
    ran = [shlex.split(line) for block in re.findall(r"(?s)```bash\n(.*?)```", text)
           for line in block.replace("\\\n", " ").strip().splitlines()]
    assert len(ran) <= 9
    for _, _, module, *words in ran:
        if "--config.evidence=evidence.csv" in words:
            table = Path("DATA/evidence.csv").read_text()
            Path("evidence.csv").write_text(table.replace(",present,", ",uncertain,", 1))
        assert importlib.import_module(module).main(words + SHORT * module.endswith("train")) == 0, words
    assert load_metadata("CORRECTED").corrections["corrected"] == 1
    assert len(list(Path("OUT/heatmaps").iterdir())) == 24
    Path("MODEL").rename("elsewhere")
    asked = (["FOLDER/0.png"], ["Pleural Effusion"])
    elsewhere = lgdea_jax.load("elsewhere").scores(*asked)
    np.testing.assert_allclose(elsewhere, lgdea_jax.load("RUN").scores(*asked), rtol=0, atol=1e-6)


def test_every_question_has_a_yes_and_its_command():
    """The commands' flags and keys, and the links, are those of `test_pages`."""
    table = rows(read(GUIDES / "faq.md"))[1:]
    assert [cells[0] for cells in table] == [str(number + 1) for number in range(15)]
    for _, question, answer, how in table:
        assert question.endswith("?") and answer.startswith("yes"), question
        assert re.search(r"`[^`]*python -m (lgdea_jax|data_prep)[\w.]* [^`]+`", how), question
        assert re.search(r"\(\[[^\]]+\]\([\w./#-]+\)\)$", how), question
        for code in re.findall(r"`(lgdea_jax\.[^`]*)`", answer):
            ast.parse(code)

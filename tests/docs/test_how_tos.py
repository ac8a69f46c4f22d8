"""The how-tos that extend the code work as they are written."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import HOW_TOS, MADE, ROOT


def apply_difference(file, block):
    """Replaces the lines of " " and "-" by those of " " and "+"."""
    lines = [line for line in block.splitlines() if line]
    old = "\n".join(line[1:] for line in lines if line[0] in " -")
    new = "\n".join(line[1:] for line in lines if line[0] in " +")
    text = file.read_text(encoding="utf-8")
    assert text.count(f"{old}\n") == 1, f"{file.name} does not have exactly once: {old}"
    file.write_text(text.replace(f"{old}\n", f"{new}\n"), encoding="utf-8")


@pytest.fixture(scope="module")
def material(phantom_data, tmp_path_factory):
    """DATA, and RUN with an untrained checkpoint, for the how-tos' commands."""
    import numpy as np

    from lgdea_jax.runtime.checkpoint import Checkpoints
    from tests.inference.test_predict import model_of

    run = tmp_path_factory.mktemp("run")
    model = model_of(phantom_data, "lgdea")
    store = Checkpoints(run)
    store.save({"params": model.predictor._params, "ema": {}, "step": np.int32(1)}, {
        **model.spec, "tokenizer": model.predictor.tokenizer.serialised, "label_names": ["Nodule", "Mass", "Odd"],
        "data": {"names": ["x"], "items": {}, "digest": ""}})
    store.close()
    return {"DATA": str(phantom_data), "RUN": str(run)}


@pytest.mark.slow
@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: page.stem)
def test_the_how_to_works_as_it_is_written(page, material, tmp_path):
    """In a scratch copy: files are written, lines changed and commands run as the page says."""
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for name in names:
        if name.startswith(("lgdea_jax/", "data_prep/", "configs/", "benchmarks/")) and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu",
                   "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    blocks = re.findall(r"(?s)```(\w+)\n(.*?)```", page.read_text(encoding="utf-8"))
    ran = 0
    for language, block in blocks:
        if language == "bash":
            for line in block.strip().splitlines():
                words = [re.sub(r"\b(DATA|RUN|OUT)\b", lambda found: material.get(found[1], "out"), word)
                         for word in shlex.split(line)]
                done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
                assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
                ran += 1
            continue
        head, _, body = block.partition("\n")
        target = tmp_path / head.removeprefix("# ")
        if language == "diff":
            apply_difference(target, body)
        else:
            ast.parse(body)
            target.write_text(body, encoding="utf-8")
    assert ran >= 1
    lint = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,W",
                           *(name for name in MADE if (tmp_path / name).is_file())], cwd=tmp_path, capture_output=True,
                          text=True)
    assert lint.returncode == 0, lint.stdout

"""README and docs keep their promises: links, files, commands and flags resolve; the how-tos work as written."""

import argparse
import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lgdea_jax import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HOW_TOS = sorted((ROOT / "docs").glob("add_*.md"))
# Files that the how-tos have a reader write, and what commands leave behind.
MADE = set(re.findall(r"(?m)^# ([\w/]+\.py)$", "\n".join(page.read_text(encoding="utf-8") for page in HOW_TOS)))
OUTPUTS = re.compile(r"(DATA|OUT|RUN|DIR|runs|data|pretrained|my_\w+|.*\.(csv|jsonl?|sqlite|txt|npy|md|html))(/|$)")
COMMAND = re.compile(r"python -m ((?:lgdea_jax|data_prep|benchmarks)[\w.]*)([^`|\n]*)")


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue  # No network in tests; that it is a whole address is all that can be said.
        path, _, part = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if part:
            assert part in {anchor(line) for line in re.findall(r"(?m)^#+ (.*)$", file.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    names = set(re.findall(r"`([\w./-]+/[\w.-]+\.\w+|[\w-]+/[\w./-]*/?)`", text))
    missing = []
    for name in names:
        places = [ROOT / name, ROOT / "lgdea_jax" / name, ROOT / "docs" / name]
        unknown = name not in MADE and not OUTPUTS.match(name) and "NAME" not in name
        if "." in name and unknown and not any(place.exists() for place in places):
            missing.append(name)
    assert missing == []


def commands():
    found = set()
    for page in PAGES:
        for module, rest in COMMAND.findall(page.read_text(encoding="utf-8")):
            found.add((page.name, module, rest.strip()))
    return sorted(found)


def flags_of(module):
    """The flags of a binary, from its own parser."""
    parsers = []
    shown = argparse.ArgumentParser.print_help
    argparse.ArgumentParser.print_help = lambda self, *args: parsers.append(self)
    try:
        importlib.import_module(module).main(["--help"])
    except SystemExit:
        pass
    finally:
        argparse.ArgumentParser.print_help = shown
    return {flag for parser in parsers for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("page,module,rest", commands())
def test_commands_and_their_flags_exist(page, module, rest):
    if module.endswith(("my_benchmark", "BENCHMARK")) or f"{module.replace('.', '/')}.py" in MADE:
        return  # What the reader of a how-to writes, or a stand-in for any.
    assert importlib.util.find_spec(module) is not None, f"{page}: no {module}"
    words = shlex.split(re.sub(r"[\[\]]|\.\.\.", " ", rest))
    if "--" in words:
        words = words[:words.index("--")]  # What follows is for somebody else.
    given = {word.partition("=")[0] for word in words if word.startswith("--") and not word.startswith("--config.")}
    if given:
        assert given - flags_of(module) == set(), f"{page}: {module} has no such flag"
    for word in words:
        if word.startswith("--config=") and word.removeprefix("--config=") not in MADE and "NAME" not in word:
            cli.find_config(word.removeprefix("--config="))


def test_what_makes_a_project_citable_is_there():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for key in ("cff-version", "title", "authors", "license: Apache-2.0"):
        assert key in citation
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    version = re.search(r'version="([\d.]+)"', setup).group(1)
    assert f"version: {version}" in citation and f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


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

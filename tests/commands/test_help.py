"""Every binary's --help works and says what each flag is; unknown flags and missing extras are pointed out."""

import argparse
import builtins
import contextlib
import importlib
import re
from pathlib import Path

import pytest

from lgdea_jax.errors import UserError, choose, require

# Runs another module on behalf of a study: no command for people.
INTERNAL = {"benchmarks.experiments.runs"}
COMMANDS = sorted(
    {".".join(path.with_suffix("").parts) for folder in ("lgdea_jax", "data_prep", "benchmarks")
     for path in Path(folder).rglob("*.py") if '__name__ == "__main__"' in path.read_text(encoding="utf-8")} - INTERNAL)


def test_all_binaries_are_found():
    assert len(COMMANDS) > 25
    assert {"lgdea_jax.train", "lgdea_jax.predict", "data_prep.build", "lgdea_jax.eval.ms_cxr"} <= set(COMMANDS)


def lacking(text):
    """What the help of a command lacks."""
    examples = [line for line in text.splitlines() if line.strip().startswith("python -m ")]
    found = [] if len(examples) >= 2 else ["two examples"]
    lists = r"configs/(data/)?common\.py|docs/reference/configuration\.md"
    if "--config" in text.split("\n\n")[0] and not re.search(lists, text):
        found.append("where the keys are listed")
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_two_examples_and_says_where_the_keys_are(name, capsys):
    with contextlib.suppress(SystemExit):
        importlib.import_module(name).main(["--help"])
    assert lacking(capsys.readouterr().out) == []


def test_what_help_lacks_is_found():
    two = "usage: a [--config FILE]\n\n  python -m a\n  python -m b\n"
    assert lacking("usage: python -m a\n\n  python -m b --config=c") == ["two examples"]
    assert lacking(two) == ["where the keys are listed"] and lacking(two + "keys: configs/common.py") == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, capsys, monkeypatch):
    parsers = []
    shown = argparse.ArgumentParser.print_help
    monkeypatch.setattr(argparse.ArgumentParser, "print_help",
                        lambda self, *args: (parsers.append(self), shown(self, *args))[1])
    try:
        status = importlib.import_module(name).main(["--help"])
    except SystemExit as leaving:
        status = leaving.code
    printed = capsys.readouterr().out
    assert status in (0, None) and f"usage: python -m {name} " in printed
    [parser] = parsers
    assert parser.description and len(parser.description) > 20
    unsaid = [action.dest for action in parser._actions if not action.help]
    assert unsaid == [], f"flags without help: {unsaid}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_flag_is_a_line_and_names_the_nearest(name):
    if name in ("lgdea_jax.train", "data_prep.build"):  # The config comes first.
        argv = ["--config=configs/phantoom.py"] if name == "lgdea_jax.train" else ["--config=configs/data/phantoms.py"]
    else:
        argv = ["--outt=x", "--checkpoint=x", "--out=x", "--data_dir=x", "--html=x", "--results=x"]
    with pytest.raises(UserError) as raised:
        importlib.import_module(name).main(argv)
    assert "\n" not in str(raised.value)
    if name in ("lgdea_jax.train", "data_prep.build"):
        assert "did you mean" in str(raised.value)


@pytest.mark.parametrize("module,extra", [("pydicom", "dicom"), ("nibabel", "ct"), ("openai", "openai"),
                                          ("google.genai", "genai"), ("apache_beam", "beam"), ("pydantic", "data")])
def test_a_missing_extra_names_its_pip_line(module, extra, monkeypatch):
    real = importlib.import_module

    def missing(name, *args):
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=re.escape(f'pip install -e ".[{extra}]"')):
        require(module, extra, "this")


def test_a_dicom_without_its_extra_is_a_line(tmp_path, monkeypatch):
    from lgdea_jax.io import read_image_file

    path = tmp_path / "a.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 40)
    real = builtins.__import__

    def missing(name, *args, **options):
        if name.split(".")[0] == "pydicom":
            raise ModuleNotFoundError("No module named 'pydicom'", name="pydicom")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr(importlib, "import_module", lambda name, *args: missing(name))
    with pytest.raises(UserError, match=r'pip install -e "\.\[dicom\]"'):
        read_image_file(path)


def test_unknown_names_suggest_the_nearest():
    from lgdea_jax.findings.vocabulary import canonical

    with pytest.raises(UserError, match="did you mean 'lgdea_pairs'"):
        choose("method", "lgdea_pair", ["clip", "lgdea", "lgdea_pairs"])
    with pytest.raises(UserError, match="did you mean 'Pleural Effusion'"):
        canonical("Pleural Efusion")

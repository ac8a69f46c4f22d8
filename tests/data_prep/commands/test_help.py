"""The help of every command of data_prep: two examples, and where keys are listed."""

import contextlib
import importlib
import re

import pytest

COMMANDS = ("agreement", "audit", "beam", "build", "datasheet", "scan", "score")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_two_examples_and_names_the_keys(name, capsys):
    with contextlib.suppress(SystemExit):
        importlib.import_module(f"data_prep.{name}").main(["--help"])
    shown = capsys.readouterr().out
    assert len(re.findall(rf"^    python -m data_prep\.{name} (?:FOLDER )?--", shown, re.M)) >= 2
    assert "docs/reference/configuration.md" in shown

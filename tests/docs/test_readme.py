"""The README keeps its promises: every command resolves, every file on the map is there."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from lgdea_jax import cli, experiment

README = Path("README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"python -m [^`|\n]+", README)))


def test_says_that_it_is_for_research_only():
    assert "Research use only, not a medical device" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_resolve(command):
    words = shlex.split(command.strip())
    assert importlib.util.find_spec(words[2]) is not None
    for word in words:
        if word.startswith("--config=configs/"):
            config = cli.read_config(word.removeprefix("--config="))
            for other in words:
                if other.startswith("--config."):
                    key, _, value = other.removeprefix("--config.").partition("=")
                    cli.set_override(config, key, value)


def test_the_map_names_what_is_there():
    block = README.split("## The map")[1].split("```")[1]
    names = re.findall(r"\b[a-z_]+\.py\b", block)
    assert len(names) > 15
    here = {path.name for path in Path(".").rglob("*.py") if ".venv" not in path.parts}
    assert [name for name in names if name not in here] == []
    for folder in re.findall(r"(?m)^([a-z_]+)/", block):
        assert Path(folder).is_dir(), folder


def test_every_method_is_listed_and_exists():
    rows = re.findall(r"(?m)^\| `(\w+)` \|", README.split("## Methods")[1])
    assert sorted(rows) == experiment.method_names()


def test_two_commands_are_marked_for_ci():
    for letter in "AB":
        block = README.split(f"<!-- command {letter} -->")[1].split("```")[1]
        assert block.startswith("bash\n") and "pip install" in block

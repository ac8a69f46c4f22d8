"""`lgdea`: a map of every command, which runs as its module does and waits for nothing that it does not need."""

import subprocess
import sys
from pathlib import Path

import pytest

from lgdea_jax import commands
from tests.docs.pages import REFERENCE

ROOT = Path(__file__).parents[2]
SCRIPT = "import sys; sys.argv[0] = 'lgdea'; from lgdea_jax.commands import main; main()"


def run(*words):
    """(exit status, stdout, stderr) of a process."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_every_command_is_there():
    modules = [name for name in REFERENCE["commands"]() if not name.startswith("benchmarks.")]
    scripts = {name.rpartition(".")[2] for name in modules if ".eval." in name}
    assert set(commands.COMMANDS.values()) - {"lgdea_jax.eval"} == {name for name in modules if ".eval." not in name}
    assert set(commands.scripts()) == scripts and len(scripts) > 15
    assert all(name == module.rpartition(".")[2] for name, module in commands.COMMANDS.items())


@pytest.mark.parametrize("words,listed", [(["--help"], commands.COMMANDS), (["eval", "--help"], commands.scripts()),
                                          (["eval"], commands.scripts())])
def test_the_map_comes_without_jax_or_numpy(words, listed):
    code = (f"import sys; sys.argv = ['lgdea', *{words!r}]\nfrom lgdea_jax import commands\n"
            "try:\n  commands.main()\nexcept SystemExit as leaving:\n"
            "  print('left', leaving.code, {'jax', 'numpy', 'data_prep'} & set(sys.modules))")
    status, out, _ = run("-c", code)
    assert status == 0 and "left 0 set()" in out
    assert all(f"  {name} " in out for name in listed)
    assert max(map(len, out.splitlines())) <= 140


@pytest.mark.parametrize("words,module", [
    (["report", "--help"], "lgdea_jax.report"), (["report", "--htm=x"], "lgdea_jax.report"),
    (["scan", "--help"], "data_prep.scan"), (["eval", "records", "--help"], "lgdea_jax.eval.records")])
def test_a_command_is_its_module(words, module):
    rest = words[2:] if words[0] == "eval" else words[1:]
    assert run("-c", SCRIPT, *words) == run("-m", module, *rest)


@pytest.mark.parametrize("words,message", [
    ([], "error: a command is needed: scan, build, "),
    (["trian"], "error: unknown command 'trian' (did you mean 'train'?); known: "),
    (["eval", "fantom"], "error: unknown benchmark 'fantom' (did you mean 'phantom'?); known: ")])
def test_a_wrong_command_is_a_line_that_names_the_nearest(words, message):
    status, out, errors = run("-c", SCRIPT, *words)
    assert (status, out) == (2, "") and errors.startswith(message) and errors.count("\n") == 1

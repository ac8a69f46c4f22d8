"""The package itself: one version, and a `load` that costs nothing until it is used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lgdea_jax
from lgdea_jax.inference import model

ROOT = Path(__file__).parents[2]


def test_the_version_has_one_source():
    setup = (ROOT / "setup.py").read_text()
    assert "version=VERSION" in setup and not re.search(r'version="', setup)
    done = subprocess.run([sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split()[-1] == lgdea_jax.__version__
    assert f"version: {lgdea_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_load_is_that_of_inference():
    assert lgdea_jax.load is model.load and "load" in dir(lgdea_jax)
    with pytest.raises(AttributeError, match="no attribute 'loads'"):
        lgdea_jax.loads  # noqa: B018


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import lgdea_jax; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    ours = {name for name in done.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names}
    assert ours == {"lgdea_jax"}


@pytest.mark.parametrize("command", ["predict", "embed", "report", "export", "push", "calibrate",
                                     "prototypes", "card"])
def test_no_jax_before_a_run_is_opened(command):
    code = f"import sys, lgdea_jax.{command}; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False"]


def test_the_package_is_typed():
    assert (ROOT / "lgdea_jax/py.typed").is_file()

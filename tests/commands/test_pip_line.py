"""The pip line of a missing extra names what works where the user is: a checkout, a wheel, a repository, an index."""

import json
import re
from pathlib import Path

import pytest

from lgdea_jax import errors
from tests.docs.pages import read

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that pretends that the package was installed, with what pip noted of its origin."""
    def pretend(origin):
        notes = tmp_path / f"{errors.DISTRIBUTION.replace('-', '_')}-0.1.0.dist-info"
        notes.mkdir()
        (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {errors.DISTRIBUTION}\nVersion: 0.1.0\n")
        if origin is not None:
            (notes / "direct_url.json").write_text(json.dumps(origin))
        monkeypatch.setattr(errors, "__file__", str(tmp_path / "lgdea_jax/errors.py"))
        monkeypatch.syspath_prepend(str(tmp_path))
    return pretend


def test_the_distribution_is_that_of_setup():
    assert re.search(r'(?m)^    name="(.*)",$', read(ROOT / "setup.py"))[1] == errors.DISTRIBUTION


def test_in_a_checkout_it_is_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert errors.pip_line("dicom") == 'pip install -e ".[dicom]"'
    monkeypatch.chdir(tmp_path)
    assert errors.pip_line("dicom") == f'pip install -e "{ROOT}[dicom]"'


@pytest.mark.parametrize("origin,line", [
    ({"url": "file:///tmp/lgdea_jax-0.1.0-py3-none-any.whl", "archive_info": {}},
     'pip install "lgdea-jax[ct] @ file:///tmp/lgdea_jax-0.1.0-py3-none-any.whl"'),
    ({"url": "https://host/a.git", "vcs_info": {"vcs": "git", "commit_id": "0123"}},
     'pip install "lgdea-jax[ct] @ git+https://host/a.git@0123"'),
    (None, 'pip install "lgdea-jax[ct]"')])  # From a package index: it has the name.
def test_an_installed_package_names_where_it_came_from(installed, origin, line):
    installed(origin)
    assert errors.pip_line("ct") == line

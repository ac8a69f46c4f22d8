"""The documentation site builds without a warning, and loads nothing from elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.docs.pages import DOCS, ROOT, name, read

NEEDS = pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="mkdocs-material is not installed")


def test_every_page_is_in_the_navigation():
    listed = re.findall(r": ([\w/]+\.md)$", read(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(f"docs/{page}" for page in listed) == sorted(map(name, DOCS))


@pytest.mark.slow
@NEEDS
def test_the_site_builds(tmp_path):
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"], cwd=ROOT,
                          capture_output=True, text=True, timeout=200,
                          env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(DOCS)
    for page in pages:
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert loaded == [], page.name
    assert not list(tmp_path.rglob("*.py"))

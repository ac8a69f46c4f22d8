"""The notebooks: made from their sources, installed by their first cell, and each runs to its end."""

import os
import re
import runpy
import shutil
import subprocess
import venv
from pathlib import Path

import nbformat
import pytest

from tests.docs.pages import ROOT, read

COLABS = Path(__file__).parents[2] / "colabs"
MAKER = runpy.run_path(str(COLABS / "make_notebooks.py"))
SOURCES = MAKER["sources"]()
NAMES = [path.stem for path in SOURCES]


def test_they_are_there():
    assert {"quick_start", "your_own_data", "explore_checkpoint", "limited_pairs", "unpaired_targets",
            "chest_ct"} <= set(NAMES)
    assert {path.stem for path in COLABS.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_the_notebook_is_made_from_its_source(path):
    made = MAKER["notebook"](path.read_text(encoding="utf-8"), path.stem)
    assert path.with_suffix(".ipynb").read_text(encoding="utf-8") == made, "run python colabs/make_notebooks.py"
    content = nbformat.reads(made, as_version=4)
    nbformat.validate(content)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code) and len(made) < 40_000
    text = "\n".join(cell.source for cell in code)
    assert code[0].source == MAKER["INSTALL"] and "assert " in text  # At least one assertion.
    assert f"[![Open in Colab]({MAKER['BADGE']})]({MAKER['colab_link'](path.stem)})" in content.cells[0].source
    assert not any(word in text for word in ("/work", "/home", "/root", "/content"))  # No paths of some machine.


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_links_open_notebooks_that_are_there(page):
    colab = r"https://colab\.research\.google\.com/[^)\s]*"
    links = re.findall(colab, read(ROOT / page))
    assert links and set(links) <= {MAKER["colab_link"](name) for name in NAMES}


def test_one_constant_names_the_repository():
    address = MAKER["REPOSITORY"].removeprefix("https://")
    listed = subprocess.run(["git", "grep", "-l", address], cwd=ROOT, capture_output=True, text=True, check=False)
    found = set(listed.stdout.split())
    assert found <= {"colabs/make_notebooks.py", *(f"colabs/{name}.ipynb" for name in NAMES)}


@pytest.mark.slow
def test_the_first_cell_installs_a_clone_in_an_empty_environment(tmp_path):
    """Needs a package index, like the installation itself. What is committed is installed."""
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty/bin/python"
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    check = ("\nimport lgdea_jax, data_prep, matplotlib, nibabel\nfrom lgdea_jax.errors import pip_line\n"
             "print(lgdea_jax.__file__)\nprint(pip_line('dicom'))\n")
    done = subprocess.run([python, "-c", MAKER["INSTALL"] + check], cwd=tmp_path, capture_output=True, text=True,
                          env={**kept, "LGDEA_REPOSITORY": str(ROOT), "JAX_PLATFORMS": "cpu"}, timeout=1500)
    assert done.returncode == 0, done.stderr
    clone = tmp_path / "lgdea-jax"
    assert "no accelerator" in done.stdout and f"{clone}/lgdea_jax/__init__.py" in done.stdout
    assert f'pip install -e "{clone}[dicom]"' in done.stdout
    # Another process finds it without the cell's help.
    subprocess.run([python, "-c", "import lgdea_jax"], cwd=tmp_path, env=kept, check=True)
    shutil.rmtree(tmp_path / "empty")


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_the_notebook_runs_to_its_end(path, tmp_path_factory, monkeypatch):
    import nbclient

    # Those that train share a run and its compiled programs.
    work = tmp_path_factory.getbasetemp() / "colabs"
    work.mkdir(exist_ok=True)
    for name, value in {"LGDEA_SMALL": "1", "LGDEA_WORK": str(work),
                        "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(COLABS.parent)}.items():
        monkeypatch.setenv(name, value)
    content = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbclient.NotebookClient(content, timeout=400, kernel_name="python3", resources={
        "metadata": {"path": str(work)}}).execute()
    outputs = [output for cell in content.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs and not any(output.output_type == "error" for output in outputs)
    if save := os.environ.get("LGDEA_SAVE_COLABS"):  # To look at.
        nbformat.write(content, Path(save) / path.with_suffix(".ipynb").name)

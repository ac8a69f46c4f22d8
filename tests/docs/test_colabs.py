"""The notebooks: made from their sources, without outputs, and each runs to its end with small settings."""

import os
import runpy
from pathlib import Path

import nbformat
import pytest

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
    made = MAKER["notebook"](path.read_text(encoding="utf-8"))
    assert path.with_suffix(".ipynb").read_text(encoding="utf-8") == made, "run python colabs/make_notebooks.py"
    content = nbformat.reads(made, as_version=4)
    nbformat.validate(content)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code) and len(made) < 40_000
    text = "\n".join(cell.source for cell in code)
    assert "pip" in code[0].source and "assert " in text  # An install cell for Colab; at least one assertion.
    assert not any(word in text for word in ("/work", "/home", "/root", "/content"))  # No paths of some machine.


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_the_notebook_runs_to_its_end(path, tmp_path_factory, monkeypatch):
    import nbclient

    # Those that train share a run and its compiled programs.
    work = tmp_path_factory.getbasetemp() / "colabs"
    work.mkdir(exist_ok=True)
    for name, value in {"LGDEA_SMALL": "1", "LGDEA_WORK": str(work), "LGDEA_CHECKOUT": str(COLABS.parent),
                        "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(COLABS.parent)}.items():
        monkeypatch.setenv(name, value)
    content = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbclient.NotebookClient(content, timeout=400, kernel_name="python3", resources={
        "metadata": {"path": str(work)}}).execute()
    outputs = [output for cell in content.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs and not any(output.output_type == "error" for output in outputs)
    if save := os.environ.get("LGDEA_SAVE_COLABS"):  # To look at.
        nbformat.write(content, Path(save) / path.with_suffix(".ipynb").name)

"""The notebooks: made from their sources, installed by their first cell, and each runs to its end."""

import base64
import fcntl
import io
import json
import os
import re
import runpy
import subprocess
import venv
from pathlib import Path

import nbformat
import pytest
from PIL import Image

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
    source, (outputs_of, outputs) = path.read_text(encoding="utf-8"), MAKER["stored"](path.with_suffix(".ipynb"))
    assert outputs_of == MAKER["digest"](source), "run python colabs/make_notebooks.py"
    made = MAKER["notebook"](source, path.stem, outputs)
    assert path.with_suffix(".ipynb").read_text(encoding="utf-8") == made, "run python colabs/make_notebooks.py"
    content = nbformat.reads(made, as_version=4)
    nbformat.validate(content)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in code)
    assert code[0].source == MAKER["INSTALL"] and "assert " in text  # At least one assertion.
    assert f"[![Open in Colab]({MAKER['BADGE']})]({MAKER['colab_link'](path.stem)})" in content.cells[0].source
    assert not any(word in text for word in ("/work", "/home", "/root", "/content"))  # No paths of some machine.


def pictures(outputs):
    """The pictures among outputs, as they are in a notebook."""
    return [data for item in outputs for kind, data in item.get("data", {}).items() if kind.startswith("image/")]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_small_and_tell_nothing_of_a_machine(name):
    path = COLABS / f"{name}.ipynb"
    _, outputs = MAKER["stored"](path)
    kept = [item for cell in outputs for item in cell]
    assert {item["output_type"] for item in kept} <= {"stream", "display_data"}  # Nothing raised.
    assert "JAX" in str(outputs[0]) and sum(map(bool, outputs)) > len(outputs) / 2
    text = str([item.get("text", item.get("data", {}).get("text/html")) for item in kept])
    assert not re.findall(r"(?<![\w.])/(?:work|home|root|tmp|usr|opt|content|var|private)/[^ ]*", text)
    assert "Traceback" not in text and "\\x1b" not in text
    for data in pictures(kept):
        assert len(data) < 80_000 and max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= MAKER["LONGEST"]
    assert path.stat().st_size < 400_000


def test_outputs_are_tidied(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (1000, 500), "red").save(picture, "PNG")
    shown = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": "<Figure at 0x7f>"}
    given = [{"output_type": "stream", "name": "stdout", "text": f"to {tmp_path}/a.json\n10%\r100%\n"},
             {"output_type": "display_data", "data": shown, "metadata": {}},
             {"output_type": "display_data", "data": {
                 "application/vnd.jupyter.widget-view+json": {}, "text/plain": "x"}, "metadata": {}},
             {"output_type": "stream", "name": "stdout", "text": "/usr/lib/python3.11/site-packages/x.py:3: note\n"
              + "\n".join(map(str, range(100)))}]
    given.insert(1, {"output_type": "display_data", "metadata": {}, "data": {
        "text/html": "<b>a</b>\n<i>b</i>", "text/plain": "<HTML object>"}})
    stream, page, image = MAKER["tidy"]([nbformat.from_dict(item) for item in given], tmp_path)
    assert stream["text"][:3] == ["to ./a.json\n", "100%\n", ".../x.py:3: note\n"]
    assert len(stream["text"]) == MAKER["MOST_LINES"] + 1 and stream["text"][12] == "... 79 more lines\n"
    assert page["data"]["text/html"] == ["<b>a</b>\n", "<i>b</i>"]
    assert stream["text"][-1] == "99\n" and image["data"]["text/plain"] == ["<picture>"]
    longest = MAKER["LONGEST"]
    assert Image.open(io.BytesIO(base64.b64decode(pictures([image])[0]))).size == (longest, longest // 2)
    with pytest.raises(RuntimeError, match="ValueError"):
        MAKER["tidy"]([nbformat.from_dict({"output_type": "error", "ename": "ValueError"})], tmp_path)


@pytest.mark.parametrize("page", MAKER["PAGES"])
def test_links_open_notebooks_that_are_there(page):
    colab = r"https://colab\.research\.google\.com/[^)\s]*"
    links = re.findall(colab, read(ROOT / page))
    assert links and set(links) <= {MAKER["colab_link"](name) for name in NAMES}


def test_another_repository_is_one_changed_line(monkeypatch):
    for page in MAKER["PAGES"]:
        text = read(ROOT / page)
        assert MAKER["with_links"](text) == text
        monkeypatch.setitem(MAKER["colab_link"].__globals__, "REPOSITORY", "https://github.com/owner/other")
        moved = MAKER["with_links"](text)
        assert moved.count("/github/owner/other/blob/main/colabs/") == text.count("colab.research.google.com")
        monkeypatch.undo()


def test_one_constant_names_the_repository():
    address = MAKER["REPOSITORY"].removeprefix("https://")
    listed = subprocess.run(["git", "grep", "-l", address], cwd=ROOT, capture_output=True, text=True, check=False)
    found = set(listed.stdout.split())
    assert found <= {"colabs/make_notebooks.py", *(f"colabs/{name}.ipynb" for name in NAMES)}


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A folder with `empty`, an environment in which a notebook's first cell has installed what is committed, with its
    clone, `lgdea-jax`; `said` is what the cell printed. It is made once for all processes of the tests.

    Needs a package index, like the installation itself. Colab and Jupyter bring the kernel.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "first_cell"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "said").exists():
            venv.create(folder / "empty", with_pip=True, clear=True)
            python = folder / "empty/bin/python"
            subprocess.run([python, "-m", "pip", "install", "--quiet", "ipykernel"], check=True, env=outside())
            done = subprocess.run([python, "-c", MAKER["INSTALL"]], cwd=folder, capture_output=True, text=True,
                                  env={**outside(), "LGDEA_REPOSITORY": str(ROOT), "JAX_PLATFORMS": "cpu"},
                                  timeout=1500, check=False)
            assert done.returncode == 0, done.stderr
            kernel = folder / "kernels/empty"
            kernel.mkdir(parents=True)
            (kernel / "kernel.json").write_text(json.dumps({
                "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "empty", "language": "python"}))
            (folder / "said").write_text(done.stdout)
    return folder


def outside():
    """This environment's variables without what leads to its packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.mark.slow
def test_the_first_cell_installs_a_clone_in_an_empty_environment(empty):
    clone = empty / "lgdea-jax"
    assert "no accelerator" in (empty / "said").read_text()
    # Another process finds it without the cell's help, and names what is to be typed there.
    done = subprocess.run(
        [empty / "empty/bin/python", "-c", "import lgdea_jax, data_prep, matplotlib, nibabel\n"
         "from lgdea_jax.errors import pip_line\nprint(lgdea_jax.__file__)\nprint(pip_line('dicom'))"],
        cwd=empty, env=outside(), capture_output=True, text=True, check=True)
    assert f"{clone}/lgdea_jax/__init__.py" in done.stdout and f'pip install -e "{clone}[dicom]"' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_the_notebook_runs_to_its_end_where_its_first_cell_installed(path, empty, tmp_path_factory, monkeypatch):
    import nbclient

    # Those that train share a run and its compiled programs.
    work = tmp_path_factory.getbasetemp() / "colabs"
    work.mkdir(exist_ok=True)
    for name, value in {"LGDEA_SMALL": "1", "LGDEA_WORK": str(work),
                        "JAX_PLATFORMS": "cpu", "JUPYTER_PATH": str(empty), "LGDEA_REPOSITORY": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    content = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbclient.NotebookClient(content, timeout=400, kernel_name="empty", resources={
        "metadata": {"path": str(work)}}).execute()
    outputs = [output for cell in content.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs and not any(output.output_type == "error" for output in outputs)
    # Pictures from the cells that have some in what is committed; how many depends on the studies that are drawn.
    _, committed = MAKER["stored"](path.with_suffix(".ipynb"))
    assert [bool(pictures(cell.outputs)) for cell in content.cells if cell.cell_type == "code"] == [
        bool(pictures(cell)) for cell in committed]
    if save := os.environ.get("LGDEA_SAVE_COLABS"):  # To look at.
        nbformat.write(content, Path(save) / path.with_suffix(".ipynb").name)

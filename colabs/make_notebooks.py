"""Makes the notebooks from their sources: colabs/NAME.py in the percent format to colabs/NAME.ipynb, with outputs.

    python colabs/make_notebooks.py                 # Those whose source has changed; minutes.
    python colabs/make_notebooks.py quick_start     # This one, changed or not.

A cell starts with `# %%` (code) or `# %% [markdown]` (text, every line behind "# "); `# %% install` stands for INSTALL,
which is the first code cell of every notebook. A badge that opens the notebook in Colab goes below its title. The
notebook is run with small settings on a CPU, in an empty folder, and its outputs are kept: printed lines, and pictures
made small. The sources are what is edited and reviewed; tests/docs/test_colabs.py checks that notebooks and outputs are
those of the sources, and executes them. Needs the extra `test`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

# Where the repository is published: what the notebooks clone, and what badges and links open in Colab, which reads
# GitHub. A stand-in until it is: whoever publishes it changes this line and runs this file, which writes
# the address into the notebooks and into PAGES. Nothing else names it.
REPOSITORY = "https://github.com/lgdea-jax/lgdea-jax"

PAGES = ("README.md", "docs/index.md")

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"

INSTALL = f'''\
# Where the package is missing (Colab), this clones the repository and installs the clone. LGDEA_REPOSITORY names
# another one: your copy, or a folder.
import importlib.util
import os
import shutil
import subprocess
import sys

if importlib.util.find_spec("lgdea_jax") is None:
    if not os.path.isdir("lgdea-jax"):
        repository = os.environ.get("LGDEA_REPOSITORY", "{REPOSITORY}")
        subprocess.run(["git", "clone", "--quiet", repository, "lgdea-jax"], check=True)
    extras = "data,ct,colab,cuda12" if shutil.which("nvidia-smi") else "data,ct,colab"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--editable"]
    subprocess.run([*pip, f"lgdea-jax[{{extras}}]"], check=True)
    sys.path.insert(0, os.path.abspath("lgdea-jax"))  # This kernel started before the installation.

import jax

print(f"JAX {{jax.__version__}} on {{jax.device_count()}} x {{jax.devices()[0].device_kind}}")
if jax.default_backend() == "cpu":
    print("There is no accelerator: the notebook runs, and slowly. Colab has one: Runtime, Change runtime type.")'''


def colab_link(name: str) -> str:
    """The address that opens a notebook of the repository in Colab."""
    return REPOSITORY.replace("github.com", "colab.research.google.com/github") + f"/blob/main/colabs/{name}.ipynb"


def with_links(text: str) -> str:
    """A page whose links to notebooks in Colab are those of REPOSITORY."""
    return re.sub(r"https://colab\.research\.google\.com/github/[^)\s]*/colabs/(\w+)\.ipynb",
                  lambda found: colab_link(found[1]), text)


NOTE = "The outputs below are of small settings on a CPU (`LGDEA_SMALL=1`)."
MOST_LINES = 24  # Printed lines that are kept of a cell: the first and the last ones.
LONGEST = 420  # Pixels of the pictures.


def notebook(source: str, name: str, outputs: Sequence[list[dict[str, Any]]]) -> str:
    """The text of the .ipynb of a source, `name` without its ending, with the outputs of each code cell."""
    cells: list[dict[str, Any]] = []
    left = iter(outputs)
    for number, part in enumerate(("\n" + source).split("\n# %%")[1:]):
        head, _, body = part.partition("\n")
        body = INSTALL if head.strip() == "install" else body.strip("\n")
        markdown = "[markdown]" in head
        if markdown:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
        if number == 0:
            title, _, rest = body.partition("\n")
            note = f"\n\n{NOTE}" if outputs else ""
            body = f"{title}\n\n[![Open in Colab]({BADGE})]({colab_link(name)})\n{rest}{note}"
        lines = body.splitlines(keepends=True)
        # An id that stays as long as the cell does, so that diffs are small.
        cell = {"cell_type": "markdown" if markdown else "code", "metadata": {}, "source": lines,
                "id": hashlib.sha256(f"{number}{body}".encode()).hexdigest()[:8]}
        if not markdown:
            number_of = sum(item["cell_type"] == "code" for item in cells) + 1
            cell |= {"execution_count": number_of if outputs else None, "outputs": next(left, [])}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"},
                "outputs_of": digest(source) if outputs else ""}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1,
                      sort_keys=True, ensure_ascii=False) + "\n"


def digest(source: str) -> str:
    """Of the source that outputs are of; the first cell, which installs, does not count."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def stored(path: Path) -> tuple[str, list[list[dict[str, Any]]]]:
    """(digest of the source that its outputs are of, outputs of each code cell) of a notebook; ("", []) without one."""
    if not path.is_file():
        return "", []
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["metadata"].get("outputs_of", ""), [cell["outputs"] for cell in content["cells"]
                                                       if cell["cell_type"] == "code"]


def execute(path: Path, work: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell of a source, run in `work`; notebooks that train share what lies there."""
    import nbclient
    import nbformat

    os.environ |= {"LGDEA_SMALL": "1", "LGDEA_WORK": "lgdea_work", "JAX_PLATFORMS": "cpu",
                   "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA warns of slow machines.
                   "PYTHONPATH": str(FOLDER.parent)}
    content = nbformat.reads(notebook(path.read_text(encoding="utf-8"), path.stem, []), as_version=4)
    nbclient.NotebookClient(content, timeout=1800, kernel_name="python3",
                            resources={"metadata": {"path": str(work)}}).execute()
    return [tidy(cell.outputs, work) for cell in content.cells if cell.cell_type == "code"]


def tidy(outputs: Sequence[Any], work: Path) -> list[dict[str, Any]]:
    """Outputs fit to be committed: no path of this machine, no progress that was overwritten, small pictures."""
    streams: dict[str, str] = {}
    out: list[dict[str, Any]] = []
    for item in outputs:
        if item.output_type == "stream":
            if item.name not in streams:
                out.append({"output_type": "stream", "name": item.name, "text": []})
            streams[item.name] = streams.get(item.name, "") + item.text
        elif item.output_type in ("display_data", "execute_result"):
            if data := _small(dict(item.data)):
                out.append({"output_type": "display_data", "metadata": {}, "data": data})
        else:
            raise RuntimeError(f"a cell ends with {item.get('ename', item.output_type)}")
    for item in out:
        if item["output_type"] == "stream":
            item["text"] = _lines(streams[item["name"]], work)
    return [item for item in out if item["output_type"] != "stream" or item["text"]]


def _lines(text: str, work: Path) -> list[str]:
    for folder, shown in ((work, "."), (work.resolve(), "."), (FOLDER.parent, "lgdea-jax")):
        text = text.replace(str(folder), shown)
    text = re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+(?=[\w.+-]+)", ".../", text)  # Of Python and its packages.
    lines = [line.split("\r")[-1] for line in text.replace("\r\n", "\n").rstrip().split("\n")]
    if len(lines) > MOST_LINES:
        half = MOST_LINES // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} more lines", *lines[-half:]]
    return [f"{line}\n" for line in lines] if any(lines) else []


def _small(data: dict[str, Any]) -> dict[str, Any]:
    """What is shown of one output: a picture, HTML, or text; nothing of widgets, which need a kernel."""
    from PIL import Image

    kind = next((kind for kind in ("image/png", "image/jpeg") if kind in data), None)
    if kind is None:
        return {} if "application/vnd.jupyter.widget-view+json" in data else {
            name: data[name].splitlines(keepends=True) for name in ("text/html", "text/plain") if name in data}
    picture = Image.open(io.BytesIO(base64.b64decode(data[kind]))).convert("RGB")
    picture.thumbnail((LONGEST, LONGEST))
    made = {}
    for name, options in (("PNG", {"optimize": True}), ("JPEG", {"quality": 80})):
        buffer = io.BytesIO()
        (picture.quantize(64) if name == "PNG" else picture).save(buffer, name, **options)
        made[f"image/{name.lower()}"] = base64.b64encode(buffer.getvalue()).decode()
    kind = min(made, key=lambda name: len(made[name]))
    return {kind: made[kind], "text/plain": ["<picture>"]}


def sources() -> list[Path]:
    """The files that notebooks are made from."""
    return sorted(path for path in FOLDER.glob("*.py") if path.name != Path(__file__).name)


def main(names: Sequence[str]) -> None:
    """Writes the notebooks; runs those named, or without names those with outputs of another source."""
    with tempfile.TemporaryDirectory() as folder:
        # The quick start first: it shows the training that others go on from.
        for path in sorted(sources(), key=lambda path: path.stem != "quick_start"):
            source, target = path.read_text(encoding="utf-8"), path.with_suffix(".ipynb")
            made_of, outputs = stored(target)
            if path.stem in names or (not names and made_of != digest(source)):
                print(f"running {path.name}", flush=True)
                outputs = execute(path, Path(folder))
            elif made_of != digest(source):
                outputs = []  # Another source's.
            target.write_text(notebook(source, path.stem, outputs), encoding="utf-8")
            print(f"wrote {target.name} ({target.stat().st_size / 1e3:.0f} kB)", flush=True)
    for page in (FOLDER.parent / name for name in PAGES):
        page.write_text(with_links(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

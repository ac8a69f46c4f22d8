"""Makes the notebooks from their sources: colabs/NAME.py in the percent format to colabs/NAME.ipynb, without outputs.

    python colabs/make_notebooks.py

A cell starts with `# %%` (code) or `# %% [markdown]` (text, every line behind "# "); `# %% install` stands for INSTALL,
which is the first code cell of every notebook. A badge that opens the notebook in Colab goes below its title. The
sources are what is edited and reviewed; tests/docs/test_colabs.py checks that the notebooks are made from them, and
executes them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).parent

# Where the repository is published: what the notebooks clone, and what the badges open. Nothing else names it.
REPOSITORY = "https://github.com/lgdea-jax/lgdea-jax"

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


def notebook(source: str, name: str) -> str:
    """The text of the .ipynb of a source, `name` without its ending."""
    cells = []
    for number, part in enumerate(("\n" + source).split("\n# %%")[1:]):
        head, _, body = part.partition("\n")
        body = INSTALL if head.strip() == "install" else body.strip("\n")
        markdown = "[markdown]" in head
        if markdown:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
        if number == 0:
            title, _, rest = body.partition("\n")
            body = f"{title}\n\n[![Open in Colab]({BADGE})]({colab_link(name)})\n{rest}"
        lines = body.splitlines(keepends=True)
        # An id that stays as long as the cell does, so that diffs are small.
        cell = {"cell_type": "markdown" if markdown else "code", "metadata": {}, "source": lines,
                "id": hashlib.sha256(f"{number}{body}".encode()).hexdigest()[:8]}
        if not markdown:
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps({"cells": cells, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
                       "nbformat": 4, "nbformat_minor": 5}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def sources() -> list[Path]:
    """The files that notebooks are made from."""
    return sorted(path for path in FOLDER.glob("*.py") if path.name != Path(__file__).name)


if __name__ == "__main__":
    for path in sources():
        path.with_suffix(".ipynb").write_text(notebook(path.read_text(encoding="utf-8"), path.stem), encoding="utf-8")
        print(f"wrote {path.with_suffix('.ipynb').name}")

"""Makes the notebooks from their sources: colabs/NAME.py in the percent format to colabs/NAME.ipynb, without outputs.

    python colabs/make_notebooks.py

A cell starts with `# %%` (code) or `# %% [markdown]` (text, every line behind "# "). The sources are what is edited
and reviewed; tests/docs/test_colabs.py checks that the notebooks are made from them, and executes them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).parent


def notebook(source: str) -> str:
    """The text of the .ipynb of a source."""
    cells = []
    for number, part in enumerate(("\n" + source).split("\n# %%")[1:]):
        head, _, body = part.partition("\n")
        body = body.strip("\n")
        markdown = "[markdown]" in head
        if markdown:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
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
        path.with_suffix(".ipynb").write_text(notebook(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {path.with_suffix('.ipynb').name}")

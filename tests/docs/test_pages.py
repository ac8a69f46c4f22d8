"""README and docs keep their promises: links, files, commands, flags and keys resolve; error messages are ours."""

import ast
import importlib.util
import re

import pytest

from lgdea_jax import cli
from tests.docs.pages import MADE, PAGES, REFERENCE, ROOT, anchors, commands, name, read, rows, section, uneven

# What commands write, and stand-ins for names.
OUTPUTS = re.compile(
    r"(DATA|OUT|RUN|DIR|NAME|runs|data|pretrained|my_\w+|.*\.(csv|jsonl?|sqlite|txt|npy|npz|html))(/|$)")
# Sets of keys that a page abbreviates with a stand-in.
STAND_INS = re.compile(r"NAME|KEY|\.x\b|\.\.\.")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if re.match(r"https?://", target):
            continue  # No network in tests.
        path, _, part = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)} links to {target}"
        if part:
            assert part in anchors(file), f"{name(page)} links to {target}"
        # A page of the site links to pages of the site only.
        assert page.parents[0] == ROOT or (ROOT / "docs") in file.parents, f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_rows_of_tables_have_the_cells_of_their_header(page):
    assert uneven("| a | b |\n|---|---|\n| 1 |\n") == ["| 1 |"]
    assert uneven(read(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page):
    text = re.sub(r"(?s)```.*?```", "", read(page))
    missing = []
    for file in set(re.findall(r"`([\w./-]+/[\w.-]*\w/?)(?::\w+)?`", text)):
        known = file in MADE or OUTPUTS.match(file) or "NAME" in file
        at = [ROOT / file, ROOT / "lgdea_jax" / file, ROOT / "docs" / file, *ROOT.glob(f"colabs/{file}")]
        ours = file.startswith(("configs/", "data_prep/", "lgdea_jax/", "benchmarks/", "tests/", "docs/", "colabs/"))
        if not known and (ours or re.search(r"\.(py|md|ipynb|png|svg)$", file)) and not any(p.exists() for p in at):
            missing.append(file)
    assert missing == []


@pytest.mark.parametrize("notebook", sorted(set(re.findall(r"`([\w/]+\.ipynb)`", "\n".join(map(read, PAGES))))))
def test_notebooks_that_are_named_exist(notebook):
    assert (ROOT / notebook).is_file() or (ROOT / "colabs" / notebook).is_file()


@pytest.mark.parametrize("page,module,words", commands())
def test_commands_and_their_flags_exist(page, module, words):
    assert importlib.util.find_spec(module) is not None, f"{page}: no {module}"
    given = {word.partition("=")[0] for word in words if word.startswith("--") and not word.startswith("--config.")}
    if given and not {"NAME.py", "KEY=VALUE"} & {word.rsplit("/")[-1] for word in words}:
        flags = {flag for action in REFERENCE["parser_of"](module)._actions for flag in action.option_strings}
        assert given - flags == set(), f"{page}: {module} has no such flag"
    config = None
    for word in words:
        if word.startswith("--config=") and word.removeprefix("--config=") not in MADE and "NAME" not in word:
            config = cli.read_config(word.removeprefix("--config="))
    for word in words:
        if word.startswith("--config.") and config is not None and page not in {
                "docs/guides/add_a_tower.md", "docs/guides/add_an_llm_client.md"}:  # These add keys and values.
            key, _, value = word.removeprefix("--config.").partition("=")
            cli.set_override(config, key, value)


def _keys():
    """Every key that a config of ours has, and every group."""
    found = set()

    def add(node, prefix):
        for key, value in node.items():
            found.add(f"{prefix}{key}")
            if hasattr(value, "items"):
                add(value, f"{prefix}{key}.")

    for file in [ROOT / "configs/common.py", *(ROOT / "configs/data").glob("*.py")]:
        if file.stem not in ("__init__", "llm") and file != ROOT / "configs/data/common.py":
            add(cli.read_config(str(file)), "")
    return found


KEYS = _keys()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_config_keys_that_are_named_exist(page):
    """`--config.KEY`, `config.KEY`, and `KEY=VALUE` with a dot in the key."""
    text = re.sub(r"(?s)```(python|diff|json|bibtex|text).*?```", "", read(page))
    named = {key.rstrip(".") for key in re.findall(r"(?<![\w/.])(?:--)?config\.([a-z_0-9][\w.]*)", text)}
    named |= set(re.findall(r"`(?!config\.)([a-z_]+\.[a-z_.0-9]+)=[^`]*`", text))
    named -= {key for key in named if STAND_INS.search(key) or key in {"json", "py"}}
    # The guides name keys of towers below config.model, or of a tower that the reader adds.
    unknown = {key for key in named if key not in KEYS and f"model.{key}" not in KEYS and "conv_stack" not in key
               and not key.startswith("my_set")}
    assert unknown == set()


def _messages():
    """Every string of the packages; in formatted ones \\0 stands for what is filled in."""
    found = []
    for file in [*(ROOT / "lgdea_jax").rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")]:
        for node in ast.walk(ast.parse(read(file))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_error_messages_of_the_troubleshooting_page_are_ours():
    """The first column quotes messages; `...` stands for what is filled in or left out."""
    messages = _messages()
    quoted = [text for cells in rows(read(ROOT / "docs/troubleshooting.md"))[1:]
              for text in re.findall(r"`([^`]+)`", cells[0])]
    sentences = [text for text in quoted if " " in text and "pip install" not in text]
    assert len(sentences) > 10
    for text in sentences:
        parts = [part.strip() for part in text.split("...") if part.strip()]
        pattern = re.compile(r"[\s\S]*".join(re.escape(part).replace("nan", r"(nan|\0)") for part in parts))
        assert any(pattern.search(message) for message in messages), f"no message like: {text}"


def test_every_conversion_of_an_image_is_explained():
    """Counts that `scan` and the build print, as the code of 2D images adds them to its lists of conversions."""
    named, lists = set(), {"done", "conversions", "how"}
    for file in ("io/files.py", "io/dicom.py", "io/dicom_pixels.py", "preprocess/image.py"):
        for node in ast.walk(ast.parse(read(ROOT / "lgdea_jax" / file))):
            target = getattr(getattr(node, "func", None), "value", getattr(node, "target", None))
            if isinstance(node, ast.Call | ast.AugAssign) and getattr(target, "id", "") in lists:
                # Not of conditions, which compare with other words.
                named |= {part.value for part in _chosen(node.args[0] if isinstance(node, ast.Call) else node.value)}
    assert {"16 bit", "float", "colour", "alpha", "monochrome1", "padding", "missing tag"} <= named
    table = rows(section(ROOT / "docs/guides/own_data.md", "How image files are read"))[1:]
    listed = {word for cells in table for word in re.findall(r"`([^`]+)`", cells[0])}
    assert named <= listed


def _chosen(node):
    """The strings that an expression can give, alone or in a list."""
    if isinstance(node, ast.Constant):
        return [node] if isinstance(node.value, str) else []
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else getattr(node, "elts", [])
    return [found for part in parts for found in _chosen(part)]

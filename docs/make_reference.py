"""Writes two pages of docs/reference: configuration.md from the configs' comments, commands.md from the parsers.

    JAX_PLATFORMS=cpu python docs/make_reference.py

Run it after a change of a config key, a flag or a help text. A test compares the committed pages with what it writes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lgdea_jax import cli  # noqa: E402 (the checkout comes first in the path)

PAGES = ROOT / "docs/reference"
NOTE = "<!-- Written by docs/make_reference.py: do not edit. -->\n"

# Groups of the training config in the order of the page, by heading.
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "General": ("",), "Data": ("data",), "Batch": ("batch",), "Images": ("image",), "Volumes": ("volume",),
    "Text": ("text",), "Augmentation": ("augment",), "Model": ("model",),
    "Unpaired data": ("memory", "strong"),
    "Optimiser": ("optim",), "Devices and hosts": ("mesh", "distributed"), "Evaluation": ("eval",),
    "Checkpoints": ("checkpoint",), "Logging and alarms": ("log", "alarm"), "Methods": ("methods",)}
# Methods that share another's keys are not listed again.
SAME_KEYS = ("methods.lgdea_pairs.", "methods.mean_teacher.", "methods.oracle.")


def comments(source: str) -> dict[str, str]:
    """{key: its comment, or ""} of a config file, in the order of the file.

    A key is the path below `config` of an assignment, or of an entry of a dict that is assigned. The entry of a dict in
    a variable has the variable's name first; that of a dict passed to a function has its own path alone. A comment is
    the block of lines right above the key, and what follows the key in its line.
    """
    behind, above = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[:token.start[1]].strip()
            (above if alone else behind)[token.start[0]] = token.string.removeprefix("#").strip()

    def comment(line: int) -> str:
        first = line
        while first - 1 in above:
            first -= 1
        return " ".join([*(above[number] for number in range(first, line)), *filter(None, [behind.get(line)])])

    found: dict[str, str] = {}

    def entries(node: ast.AST, prefix: str) -> None:
        if isinstance(node, ast.Call):
            for part in node.args:
                entries(part, prefix)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if isinstance(key, ast.Constant):
                    found.setdefault(f"{prefix}{key.value}", comment(key.lineno))
                    entries(value, f"{prefix}{key.value}.")

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign):
            for path in filter(None, map(_path, node.targets)):
                found[path] = comment(node.lineno)
                entries(node.value, f"{path}.")
            if isinstance(node.targets[0], ast.Name):
                entries(node.value, "" if isinstance(node.value, ast.Call) else f"{node.targets[0].id}.")
        elif isinstance(node, ast.Return) and node.value is not None:
            entries(node.value, "")
    return found


def _path(target: ast.AST) -> str:
    """"a.b" of the target `config.a.b`; "" of any other."""
    names: list[str] = []
    while isinstance(target, ast.Attribute):
        names.append(target.attr)
        target = target.value
    return ".".join(reversed(names)) if isinstance(target, ast.Name) and target.id == "config" else ""


def matches(key: str, texts: Mapping[str, str]) -> list[str]:
    """The keys of the file that describe `key`, best first: itself; its tail, in a dict; for methods, another's."""
    parts = key.split(".")
    tails = [".".join(parts[start:]) for start in range(len(parts))]
    groups = {other.rpartition(".")[0] for other in texts}
    found = [tail for tail in tails if tail in texts and (tail == key or tail not in groups)]
    if parts[0] == "methods":
        found += [other for tail in tails[2:] for other in texts if other.endswith(f".{tail}")
                  and other.split(".")[0] not in groups - {"methods", "lgdea", "unpaired"}]
    return found


def described(key: str, texts: Mapping[str, str]) -> str:
    """The comment of a key; "" without one."""
    return next(filter(None, (texts[other] for other in matches(key, texts))), "")


def in_order(rows: Sequence[tuple[str, Any]], texts: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Rows in the order of the file: a ConfigDict gives its keys in alphabetical order."""
    keys = list(texts)
    return sorted(rows, key=lambda row: min((keys.index(other) for other in matches(row[0], texts)[:1]),
                                            default=len(keys)))


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every key that is no group; `sizes` of towers count as one key."""
    for key, value in config.items():
        if hasattr(value, "items") and key != "sizes":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_flag(value: Any) -> str:
    """A value as it is written on the command line."""
    if hasattr(value, "items"):
        return ", ".join(f"{name}={as_flag(part)}" for name, part in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(map(as_flag, value)) or "()"
    return str(value) if value != "" else '""'


def cell(text: str) -> str:
    """Text inside a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def key_table(rows: Sequence[tuple[str, Any]], texts: Mapping[str, str]) -> str:
    """A table of keys, defaults and descriptions."""
    lines = [f"| `{key}` | `{as_flag(value)}` | {cell(described(key, texts))} |"
             for key, value in in_order(rows, texts)]
    return "\n".join(["| Key | Default | Meaning |", "|---|---|---|", *lines]) + "\n"


def configuration() -> str:
    """The page of all configuration keys."""
    file = ROOT / "configs/common.py"
    texts, rows = comments(file.read_text(encoding="utf-8")), list(leaves(cli.read_config(str(file))))
    page = [NOTE, CONFIGURATION_HEAD]
    for heading, groups in HEADINGS.items():
        page.append(f"## {heading}\n")
        for group in groups:
            if text := texts.get(group):
                page.append(f"{text}\n")
            page.append(key_table([(key, value) for key, value in rows if not key.startswith(SAME_KEYS)
                                   and (key.startswith(f"{group}.") if group else "." not in key)], texts))
    return "\n".join([*page, *_data_keys()])


CONFIGURATION_HEAD = """# Configuration

An experiment is a Python file in `configs/` with a function `get_config(arg)`. `--config=configs/NAME.py:ARG` chooses
it and its argument, and `--config.KEY=VALUE` changes a key. Tuples are written with commas:
`--config.augment.crop=0.8,1`. An unknown key is an error that suggests the nearest one.

Defaults are those of `configs/common.py`, from which every experiment starts.
"""
DATA_HEAD = """## Keys of data_prep.build

The files in `configs/data/` have these keys; `volume` is for CT. Defaults are those of `configs/data/table_ct.py`.
"""
LLM_HEAD = """## Language models

Keys for the extractors `local`, `openai`, `genai` and `gemini`. API keys come from the environment: `OPENAI_API_KEY`
(openai), `GEMINI_API_KEY` (genai, gemini).
"""


def _data_keys() -> list[str]:
    """The part about the configs of data_prep.build."""
    folder = ROOT / "configs/data"
    source = {name: comments((folder / f"{name}.py").read_text(encoding="utf-8"))
              for name in ("common", "llm", "table", "table_ct")}
    shared = {key: text for name in ("common", "table_ct", "table") for key, text in source[name].items() if text}
    table = cli.read_config("configs/data/table_ct.py")
    own = [(key, value) for key, value in leaves(table) if not key.startswith(("llm.", "table."))]
    page = [DATA_HEAD, key_table(own, shared), LLM_HEAD,
            key_table([(f"llm.{key}", value) for key, value in leaves(table.llm)],
                      {f"llm.{key}": text for key, text in source["llm"].items()}),
            "## Keys of each data set\n"]
    for file in sorted(folder.glob("*.py")):
        if file.stem in ("__init__", "common", "llm", "table_ct"):
            continue
        config = cli.read_config(str(file))
        texts = comments(file.read_text(encoding="utf-8"))
        page += [f"### {file.stem}\n", key_table([(f"{config.source}.{key}", value)
                                                 for key, value in leaves(config[config.source])], texts)]
    return page


def commands() -> list[str]:
    """Modules that are commands for people, in the order of the page: those that end with `cli.run`."""
    return [".".join(path.relative_to(ROOT).with_suffix("").parts)
            for folder in ("data_prep", "lgdea_jax", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))
            if "    cli.run(main" in path.read_text(encoding="utf-8")]


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser of a command, as its --help has it."""
    parsers: list[argparse.ArgumentParser] = []
    shown = argparse.ArgumentParser.print_help
    argparse.ArgumentParser.print_help = lambda self, *args: parsers.append(self)  # type: ignore[method-assign]
    try:
        importlib.import_module(module).main(["--help"])
    except SystemExit:
        pass
    finally:
        argparse.ArgumentParser.print_help = shown  # type: ignore[method-assign]
    if len(parsers) != 1:
        raise RuntimeError(f"{module} has no --help of its own")
    return parsers[0]


def flag_rows(parser: argparse.ArgumentParser) -> dict[str, str]:
    """{flag: its row of a table}, without --help."""
    rows = {}
    for action in parser._actions:
        if "--help" in action.option_strings:
            continue
        name = ", ".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.metavar or action.dest}`"
        values = "" if action.nargs == 0 or not action.option_strings else (
            f" `{action.metavar or '|'.join(map(str, action.choices or ())) or action.dest.upper()}`")
        text = " ".join(parser._get_formatter()._expand_help(action).split())
        needed = "required; " if action.required and action.option_strings else ""
        rows[name] = f"| {cell(name + values)} | {cell(needed + text)} |"
    return rows


def flag_table(rows: Sequence[str]) -> str:
    """A table of flags."""
    return "\n".join(["| Flag | Meaning |", "|---|---|", *rows]) + "\n" if rows else "No flags of its own.\n"


def summary(parser: argparse.ArgumentParser) -> str:
    """The first paragraph of a command's description."""
    first = re.split(r"\n\s*\n", (parser.description or "").strip())[0]
    return " ".join(first.split()).replace("<", "&lt;")


def command_page() -> str:
    """The page of all commands."""
    parsers = {name: parser_of(name) for name in commands()}
    parts = {
        "Data": [name for name in parsers if name.startswith("data_prep.")],
        "Training and use": [name for name in parsers if name.startswith("lgdea_jax.") and ".eval." not in name],
        "Evaluation scripts": [name for name in parsers if name.startswith("lgdea_jax.eval.")],
        "Studies and speed": [name for name in parsers if name.startswith("benchmarks.")]}
    page = [NOTE, COMMANDS_HEAD]
    for heading, names in parts.items():
        page.append(f"## {heading}\n")
        if heading == "Evaluation scripts":
            page += _evaluation(parsers, names)
            continue
        for name in names:
            flags = list(flag_rows(parsers[name]).values())
            page += [f"### {name}\n", f"{summary(parsers[name])}\n", flag_table(flags)]
    return "\n".join(page)


def _evaluation(parsers: Mapping[str, argparse.ArgumentParser], names: Sequence[str]) -> list[str]:
    """The part about the evaluation scripts: what they have in common is told once."""
    rows = {name: flag_rows(parsers[name]) for name in names}
    flags = list(dict.fromkeys(flag for name in names for flag in rows[name]))
    have = {flag: [name for name in names if flag in rows[name]] for flag in flags}
    common = [flag for flag in flags if len(have[flag]) > len(names) / 2]
    without = {flag: [name for name in names if name not in have[flag]] for flag in common}
    table = [re.sub(r" \(default: [^)]*\) \|$", " |", min((rows[name][flag] for name in have[flag]), key=len))
             for flag in common]
    table = [row if not without[flag] else f"{row[:-2]} (not {', '.join(map(_short, without[flag]))}) |"
             for flag, row in zip(common, table)]
    own = [f"{rows[have[flag][0]][flag][:-2]} ({', '.join(map(_short, have[flag]))}) |"
           for flag in flags if flag not in common]
    scripts = [f"| `{name}` | {cell(summary(parsers[name]))} |" for name in names]
    return ["There is one script per benchmark: `python -m lgdea_jax.eval.NAME`.\n",
            "\n".join(["| Script | What it does |", "|---|---|", *scripts]) + "\n",
            "All take these flags. Defaults differ between scripts; `--help` has them.\n", flag_table(table),
            "Some take further flags.\n", flag_table(own)]


def _short(name: str) -> str:
    """`eval.NAME` of a script."""
    return f"`{name.removeprefix('lgdea_jax.')}`"


COMMANDS_HEAD = """# Commands

Every command is a module: `python -m MODULE`. An installation has `lgdea` as well, which is shorter and otherwise
the same: `lgdea train` is `python -m lgdea_jax.train`, `lgdea build` is `python -m data_prep.build`, `lgdea eval NAME`
is `python -m lgdea_jax.eval.NAME`. `lgdea --help` lists the commands, `--help` of a command its flags with examples.
`DATA` is a folder written by `data_prep.build`, `RUN` a folder of `lgdea_jax.train`, `OUT` a folder for results.

Commands that take `--config=FILE` also take `--config.KEY=VALUE` for every key of the
[configuration](configuration.md).

## Exit statuses

| Status | Meaning |
|---|---|
| 0 | success |
| 1 | internal error, with a traceback: please report it |
| 2 | wrong use, or a fault of the whole run; one line on stderr gives the remedy |
| 3 | the run finished, but some rows were rejected; they are listed with their reasons |
| 130 | stopped by Ctrl-C |
| 143 | stopped by SIGTERM, after saving |

## Environment variables

| Variable | Meaning |
|---|---|
| `OPENAI_API_KEY`, `GEMINI_API_KEY` | keys of language models; never written to a file |
| `JAX_PLATFORMS` | `cpu` makes JAX use the CPU although there is an accelerator |
"""


def main() -> None:
    """Writes both pages."""
    PAGES.mkdir(exist_ok=True)
    (PAGES / "configuration.md").write_text(configuration(), encoding="utf-8")
    (PAGES / "commands.md").write_text(command_page(), encoding="utf-8")


if __name__ == "__main__":
    main()

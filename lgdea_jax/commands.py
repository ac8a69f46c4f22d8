"""`lgdea`: every command under one name, beside `python -m MODULE`. The console script of setup.py.

    lgdea --help
    lgdea train --config=configs/phantom.py --workdir=runs/phantom
    lgdea eval phantom --checkpoint=runs/phantom --out=OUT

A command runs as its module does: the same parser, the same messages, the same exit statuses. Nothing is imported but
what it needs, so that this map does not wait for JAX.
"""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

import lgdea_jax
from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose

EVAL = "eval"
# {group: {command: (module, what it does)}}, in the order of the work.
GROUPS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Data": {
        "scan": ("data_prep.scan", "list what is in a folder of images or volumes"),
        "build": ("data_prep.build", "make a data set from a table or an official release"),
        "beam": ("data_prep.beam", "make it with Apache Beam, on many machines"),
        "audit": ("data_prep.audit", "write a page to judge extracted evidence on"),
        "score": ("data_prep.score", "compare extracted findings with reference labels"),
        "agreement": ("data_prep.agreement", "measure how far two extractors agree"),
        "verify": ("data_prep.verify", "check that a data set is what was written"),
        "datasheet": ("data_prep.datasheet", "write the datasheet of a data set"),
    },
    "Training and evaluation": {
        "train": ("lgdea_jax.train", "pretrain the towers on a data set, or fine-tune one"),
        EVAL: ("lgdea_jax.eval", "evaluate a checkpoint: `lgdea eval NAME`, `lgdea eval --help` lists the names"),
        "report": ("lgdea_jax.report", "write one HTML page of results"),
        "prototypes": ("lgdea_jax.prototypes", "describe what the evidence prototypes stand for"),
        "card": ("lgdea_jax.card", "write a model card"),
    },
    "Use": {
        "predict": ("lgdea_jax.predict", "score your own images or volumes, with heatmaps"),
        "label": ("lgdea_jax.label", "label reports with a text classifier"),
        "embed": ("lgdea_jax.embed", "embed a data set or files, in parts that a stopped run keeps"),
        "calibrate": ("lgdea_jax.calibrate", "turn scores into probabilities"),
        "export": ("lgdea_jax.export", "write the model as a folder to hand on, or its towers for PyTorch"),
        "push": ("lgdea_jax.push", "upload an exported model to the Hugging Face Hub"),
    },
}
COMMANDS = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}


def main() -> None:
    """The console script: runs the command that `sys.argv` names, and exits with its status. Never returns."""
    cli.run(_run)


def _run(argv: list[str]) -> int:
    """Prints the map, or runs a command; returns the exit status of what returns."""
    if argv[:1] in (["--help"], ["-h"]):
        print(overview())
        return cli.OK
    if argv[:1] == ["--version"]:
        print(lgdea_jax.__version__)
        return cli.OK
    if not argv:
        raise UserError(f"a command is needed: {', '.join(COMMANDS)} (see lgdea --help)")
    name, *rest = argv
    module = COMMANDS[choose("command", name, COMMANDS)]
    if name == EVAL:
        if not rest or rest[0] in ("--help", "-h"):
            print(evaluations())
            return cli.OK
        module = f"{module}.{choose('benchmark', rest.pop(0), scripts())}"
    sys.argv = [module, *rest]
    # As `python -m` does it: worker processes find the module again, and it leaves with its own status.
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return cli.OK


def overview() -> str:
    """The text of `lgdea --help`."""
    wide = max(map(len, COMMANDS))
    lines = ["usage: lgdea COMMAND [flags]", "",
             "Vision-language pretraining on medical images and reports. Research use only, not a medical device."]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<{wide}}  {what}" for name, (_, what) in group.items())]
    return "\n".join([
        *lines, "", "`lgdea COMMAND --help` lists the flags of a command. Without an installation, `python -m MODULE`",
        "is the same: lgdea train is python -m lgdea_jax.train, lgdea build is python -m data_prep.build.", "",
        "examples:", "  lgdea train --config=configs/phantom.py --workdir=runs/phantom",
        "  lgdea eval phantom --checkpoint=runs/phantom --out=OUT"])


def evaluations() -> str:
    """The text of `lgdea eval --help`: the first line of every script."""
    found = scripts()
    wide = max(map(len, found))
    return "\n".join(["usage: lgdea eval NAME [flags]", "", "`lgdea eval NAME --help` lists the flags.", "",
                      *(f"  {name:<{wide}}  {_first_line(path)}" for name, path in found.items())])


def scripts() -> dict[str, Path]:
    """{name: file} of the evaluation scripts."""
    spec = importlib.util.find_spec(COMMANDS[EVAL])
    folder = Path(spec.submodule_search_locations[0])  # type: ignore[union-attr, index]
    return {item.name: folder / f"{item.name}.py" for item in pkgutil.iter_modules([str(folder)]) if not item.ispkg}


def _first_line(path: Path) -> str:
    """Of a file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")

"""A model as a folder that others can load: weights, configuration, tokeniser, transform, labels, terms of the data.

    python -m lgdea_jax.export --format=lgdea --checkpoint=RUN --out=DIR
    python -m lgdea_jax.push DIR OWNER/NAME
    lgdea_jax.load("DIR") or lgdea_jax.load("hf://OWNER/NAME")

DIR/model.safetensors has the parameters that predict, by our names, and no state of the optimiser. DIR/config.json has
the checkpoint's spec (configuration, transform, labels, statistics of the training images) without places on the disk
of the one who trained, and digests of itself, the weights and the tokeniser (DIR/tokenizer.json), which are compared
when the model is loaded; DIR/TERMS.md has what the model was trained on, and on what terms.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lgdea_jax.errors import UserError
from lgdea_jax.runtime import hub
from lgdea_jax.runtime.files import json_digest

WEIGHTS, SPEC, TOKENIZER, TERMS = "model.safetensors", "config.json", "tokenizer.json", "TERMS.md"
FILES = (WEIGHTS, SPEC, TOKENIZER, TERMS)
CARD = "MODEL_CARD.md"  # Of `lgdea_jax.card`; a folder may lack it.
FORMAT, VERSION = "lgdea", 1
# Keys of a training's configuration that name places: a prediction reads none of them.
PLACES = ("compile_cache", "init_from", "data.dir", "data.pairs_from", "data.images_from", "data.reports_from",
          "data.held_out_from", "data.make_from", "eval.dir", "text.tokenizer", "model.image.weights",
          "model.text.weights")


def locate(path: str | Path) -> Path:
    """The folder of a model or run: of an address on the hub the downloaded one, of any other path itself.

    Raises:
      UserError: the hub has no such model, or one that is not of this format.
    """
    folder = hub.fetch(path, (*FILES, CARD))
    if hub.is_address(path) and not is_model(folder):
        raise UserError(f"{path} is no model of LGDEA-JAX: python -m lgdea_jax.push uploads one (a published tower is "
                        "for --config.model.image.weights or --config.model.text.weights)")
    return folder


def is_model(path: str | Path) -> bool:
    """Whether a folder holds a model of this format, rather than a run."""
    return (Path(path) / WEIGHTS).is_file() and (Path(path) / SPEC).is_file()


def write(folder: Path, params: Mapping[str, np.ndarray], spec: Mapping[str, Any]) -> list[str]:
    """Writes a model.

    Args:
      folder: where to; made if need be.
      params: the parameters by path.
      spec: of the checkpoint.

    Returns:
      The names of the files.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(json.dumps(spec["config"]))
    for key in PLACES:
        *groups, last = key.split(".")
        group = config
        for name in groups:
            group = group.get(name, {})
        if last in group and not hub.is_address(group[last]):
            group[last] = type(group[last])()
    content = {"format": FORMAT, "format_version": VERSION, "spec": {**spec, "config": config}}
    tokenizer = content["spec"].pop("tokenizer")
    save_file({path: np.asarray(value, order="C") for path, value in params.items()}, folder / WEIGHTS)
    (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    shutil.copymode(folder / TOKENIZER, folder / WEIGHTS)  # safetensors writes for the owner's eyes only.
    content["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
                         for name in (WEIGHTS, TOKENIZER)}
    content["digest"] = json_digest(content)
    (folder / SPEC).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / TERMS).write_text(terms(spec), encoding="utf-8")
    return list(FILES)


def terms(spec: Mapping[str, Any]) -> str:
    """What a model was trained on and on what terms, as text."""
    lines = ["# Terms", "", "Research use only, not a medical device.", "", "Trained on:", ""]
    lines += [f"- {item['source']}: licence {item['licence']}, terms {item['terms']}" for item in sources(spec)]
    lines += ["", "A model of credentialed data may be shared only as the terms of those data allow.", ""]
    return "\n".join(lines)


def sources(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    """The origins of what a model was trained on: {"source", "licence", "terms"} each."""
    return spec.get("sources") or [{"source": name, "licence": "unstated", "terms": "unstated"}
                                   for name in spec["data"]["names"]]


def read_spec(folder: str | Path, step: str | int = "latest") -> dict[str, Any]:
    """The spec of a model.

    Args:
      folder: written by `write`.
      step: "latest", or the step that it was exported at.

    Raises:
      UserError: another format, another step, or a file that is not the one that was written.
    """
    content = _read_content(Path(folder))
    spec = content["spec"] | {"tokenizer": _read_checked(Path(folder) / TOKENIZER, content).decode("utf-8")}
    if str(step) not in ("latest", str(spec["step"])):
        raise UserError(f"{folder} holds one step, {spec['step']}: --step={step} needs the run")
    return spec


def read_params(folder: str | Path) -> dict[str, np.ndarray]:
    """The parameters of a model by path.

    Raises:
      UserError: the file is not the one that was written.
    """
    from safetensors.numpy import load

    return load(_read_checked(Path(folder) / WEIGHTS, _read_content(Path(folder))))


def _read_content(folder: Path) -> dict[str, Any]:
    """What config.json holds."""
    try:
        content = json.loads((folder / SPEC).read_text(encoding="utf-8"))
        parts = content.get("format"), content.get("format_version"), content.pop("digest", "")
    except (OSError, ValueError, AttributeError, RecursionError):
        content, parts = {}, ()
    if parts[:2] != (FORMAT, VERSION):
        raise UserError(f"{folder} is no model of the format {FORMAT} {VERSION}: export it again from its run with "
                        "python -m lgdea_jax.export --format=lgdea")
    if parts[2] != json_digest(content):
        raise UserError(f"{folder / SPEC} is damaged, or was changed: copy the model again")
    return content


def _read_checked(file: Path, content: Mapping[str, Any]) -> bytes:
    """A file of the model."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({type(error).__name__}): copy the model again") from None
    if hashlib.sha256(data).hexdigest() != content["sha256"][file.name]:
        raise UserError(f"{file} is damaged: copy the model again")
    return data

"""`load_tower` and `save_tower`: a naming scheme applied to a file and a tower, strict both ways."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from lgdea_jax.models import bert
from lgdea_jax.models.pretrained import files, layout
from lgdea_jax.models.pretrained.bert_names import BertNames
from lgdea_jax.models.pretrained.clip_names import HuggingFaceClip, OpenClipVit
from lgdea_jax.models.pretrained.files import WeightsError
from lgdea_jax.models.pretrained.resnet_names import HuggingFaceResNet, TorchvisionResNet, TorchvisionResNet3D
from lgdea_jax.models.pretrained.vit_names import HuggingFaceVit, TimmVit

LAYOUTS: tuple[layout.Layout, ...] = (BertNames(), HuggingFaceVit(), HuggingFaceClip(), OpenClipVit(), TimmVit(),
                                      HuggingFaceResNet(), TorchvisionResNet(), TorchvisionResNet3D())
NAMES = ("hf", "openclip", "timm", "torchvision")
_SHOWN = 3
# Kinds of entries that read pixels, with their number of axes.
GREY = {"patch": 4, "stem": 4, "stem3": 5}
# Not listed: counters that torch keeps, no weights.
_COUNTERS = ("num_batches_tracked", "position_ids")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What was read.

    Attributes:
      params: {path: float32 array}, every parameter of the tower but those that `notes` name as fresh.
      file: that they come from.
      names: the naming scheme.
      notes: what was changed on the way (a grey stem, interpolated positions).
      unused: tensors of the file that the tower has no use for (heads, mask tokens, another tower).
    """

    params: dict[str, np.ndarray]
    file: Path
    names: str
    notes: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """One line for the log."""
        count = sum(value.size for value in self.params.values())
        parts = [f"{count:,} parameters from {self.file} ({self.names} names)", *self.notes]
        if self.unused:
            shown = ", ".join(self.unused[:_SHOWN]) + (", ..." if len(self.unused) > _SHOWN else "")
            parts.append(f"{len(self.unused)} tensors not used ({shown})")
        return "; ".join(parts)


def load_tower(tower: nnx.Module, path: str | Path) -> Loaded:
    """The parameters of `tower` from published weights.

    A stem for grey images gets the sum of the file's three channels: exactly what the model computes from a grey image
    repeated three times. Position embeddings are interpolated to the tower's grid, as the model's own code does.

    Args:
      tower: a ViT, Bert, ResNet or ResNet3D, with parameters or only their shapes (`nnx.eval_shape`).
      path: a local directory (config.json is then checked as well) or file.

    Raises:
      WeightsError: it cannot be read, or does not fit: something is missing, left over, or of another shape.
    """
    file = files.find_weights(path)
    content, config = files.read_tensors(file), files.read_config(file)
    scheme, prefix = _find_layout(tower, content, path)
    # A tensor outside the prefix can have the name of one inside (both halves of a CLIP): it is kept apart by a slash.
    original = {scheme.rename(name.removeprefix(prefix)): name for name in content if name.startswith(prefix)}
    outside = {scheme.rename(name): name for name in content if not name.startswith(prefix)}
    original |= {name if name not in original else f"/{name}": source for name, source in outside.items()}
    tensors = {name: content[source] for name, source in original.items()}
    if problem := scheme.refuses(tower) or scheme.check(tower, tensors, config):
        raise WeightsError(f"{path} does not fit the tower: {problem}")
    try:
        notes = scheme.unpack(tensors, tower)
    except WeightsError as error:
        raise WeightsError(f"{path} does not fit the tower: {error}") from None
    table, shapes, fresh = scheme.table(tower), layout.parameter_shapes(tower), scheme.fresh(tower, tensors)
    if set(table) | set(fresh) != set(shapes):
        raise WeightsError(f"{path} does not fit the tower: {scheme.names} names have none for its "
                           f"{', '.join(sorted((set(table) | set(fresh)) ^ set(shapes))[:_SHOWN])}")
    if own := [name for name in fresh if name not in table]:
        notes = [*notes, f"fresh, for the file has none: {', '.join(own)}"]

    def source(name: str) -> str:
        whole = name.split("/")[0]
        return original.get(name) or original.get(whole, prefix + whole) + name[len(whole):]

    params, problems, grey = {}, [], False
    for path_of_ours, entry in table.items():
        if entry.name not in tensors:
            problems.append(f"missing {source(entry.name)}")
            continue
        value = np.asarray(tensors.pop(entry.name), np.float32)
        if path_of_ours in fresh:
            notes = [*notes, f"{path_of_ours} is fresh: {source(entry.name)} is {list(value.shape)}, of another stem"]
            continue
        if entry.kind in GREY and value.ndim == GREY[entry.kind] and value.shape[1] == 3 and tower.channels == 1:
            value, grey = value.sum(axis=1, keepdims=True), True
        shape = value.shape
        try:
            value = layout.to_ours(value, entry.kind)
        except ValueError:  # Of another rank.
            value = np.zeros(0)
        if value.shape != shapes[path_of_ours]:
            wanted = layout.to_theirs(np.broadcast_to(np.float32(0), shapes[path_of_ours]), entry.kind,
                                      patch_size=getattr(tower, "patch_size", 0)).shape
            problems.append(f"{source(entry.name)} is {list(shape)}, the tower needs {list(wanted)}")
            continue
        params[path_of_ours] = np.ascontiguousarray(value)
    known = {name: bool(re.match(scheme.unused, name.lstrip("/"))) for name in tensors}
    unused = sorted(source(name) for name in tensors if known[name] and not name.endswith(_COUNTERS))
    problems += sorted(f"left over {source(name)}" for name in tensors if not known[name])
    if problems:
        more = f" (+{len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise WeightsError(f"{path} does not fit the tower: {'; '.join(problems[:_SHOWN])}{more}")
    statistics = "" if isinstance(tower, bert.Bert) else files.image_statistics(file)
    notes = [*(["grey stem: the sum over the three channels"] if grey else []), *notes, *filter(None, [statistics])]
    return Loaded(params, file, scheme.names, tuple(notes), tuple(unused))


def describe(path: str | Path) -> tuple[str, dict[str, Any]]:
    """(name, options) of the tower that the config.json of published weights describes, in the words of a training's
    configuration: ("bert", {"family": "roberta", "sizes": {...}, ...}); ("", {}) where it describes none of ours.

    Args:
      path: as in `load_tower`.

    Raises:
      WeightsError: the weights or the description cannot be read.
    """
    config = files.read_config(files.find_weights(path))
    for scheme in LAYOUTS:
        try:
            options = scheme.options(config)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"the config.json at {path} does not describe its {scheme.tower} ({error})") from None
        if options:
            return scheme.tower, options
    return "", {}


def save_tower(tower: nnx.Module, params: Mapping[str, Any], folder: str | Path, *, names: str = "hf") -> str:
    """Writes folder/model.safetensors and config.json with the names of a published model.

    Args:
      tower: as in `load_tower`.
      params: {path: array}, every parameter of the tower.
      names: one of NAMES.

    Returns:
      The class of the config ("ViTModel"), or the naming scheme where it has none.

    Raises:
      WeightsError: no published model has this tower's structure.
    """
    schemes = [scheme for scheme in LAYOUTS if scheme.names == names]
    reasons = [scheme.refuses(tower) or _unnamed(scheme, tower) for scheme in schemes]
    scheme = next((scheme for scheme, reason in zip(schemes, reasons, strict=True) if not reason), None)
    if scheme is None:
        known = [reason for reason in dict.fromkeys(reasons) if not reason.startswith("it is no")]
        raise WeightsError(f"no model with {names} names has this tower: {'; '.join(known) or 'another kind of tower'}")
    tensors = {}
    for path, entry in scheme.table(tower).items():
        tensors[entry.name] = layout.to_theirs(np.asarray(params[path], np.float32), entry.kind,
                                               patch_size=getattr(tower, "patch_size", 0))
    config = scheme.config(tower)
    files.write(Path(folder), scheme.pack(tensors, tower), config)
    return config.get("architectures", [names])[0]


def _unnamed(scheme: layout.Layout, tower: nnx.Module) -> str:
    """What of the tower a file of the scheme has no name for; "" if nothing."""
    unnamed = [path for path in layout.parameter_shapes(tower) if path not in scheme.table(tower)]
    return f"no name for {', '.join(unnamed[:_SHOWN])}" if unnamed else ""


def save_own(tower: nnx.Module, params: Mapping[str, Any], folder: str | Path, options: Mapping[str, Any]) -> None:
    """Writes the tower with our own names and arrangement (dots for slashes), for towers that nobody published.

    Args:
      tower, params, folder: as in `save_tower`.
      options: what describes the tower, for config.json.
    """
    tensors = {path.replace("/", "."): np.asarray(params[path], np.float32) for path in layout.parameter_shapes(tower)}
    files.write(Path(folder), tensors, {"model_type": "lgdea_jax", **json.loads(json.dumps(options))})


def _find_layout(tower: nnx.Module, tensors: Mapping[str, Any], path: str | Path) -> tuple[layout.Layout, str]:
    """The scheme of a file and its prefix.

    Raises:
      WeightsError: none, or several towers in one file.
    """
    found = [(scheme, prefix) for scheme in LAYOUTS if not scheme.refuses(tower).startswith("it is no")
             for prefix in layout.find_prefix(tensors, scheme.anchor)]
    if not found:
        shown = ", ".join(sorted(tensors)[:_SHOWN])
        raise WeightsError(f"{path} holds no weights for a {type(tower).__name__}: its {len(tensors)} tensors are "
                           f"{shown or 'none'}, ...")
    fitting = [(scheme, prefix) for scheme, prefix in found if not scheme.refuses(tower)] or found
    if len(fitting) > 1:
        prefixes = ", ".join(repr(prefix) for _, prefix in fitting)
        raise WeightsError(f"{path} holds several towers ({prefixes}): save the one that is meant on its own")
    return fitting[0]

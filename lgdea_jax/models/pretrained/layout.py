"""What a naming scheme of published weights is: a table from our parameters to their tensors, and back."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

Tensors = dict[str, np.ndarray]
Table = dict[str, "Entry"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Which tensor of their file a parameter of ours is.

    Attributes:
      name: of their tensor, without the prefix of the file. "NAME/PART" is a part of the tensor NAME that `unpack`
        takes apart and `pack` puts together again.
      kind: how it is laid out there: "same"; "dense" [out, in] for our [in, out]; "conv" [out, in, k, k] for our
        [k, k, in, out]; "stem" the same on pixels; "patch" [out, channels, p, p] for our [p * p * channels, out]. With
        one axis more "conv3", "stem3", and "patch3" for our [1, 1, 1, p * p * p * channels, out].
    """

    name: str
    kind: str = "same"


def dense(path: str, name: str, *, bias: bool = True) -> Table:
    """Entries of a dense layer."""
    return {f"{path}/kernel": Entry(f"{name}.weight", "dense"),
            **({f"{path}/bias": Entry(f"{name}.bias")} if bias else {})}


def norm(path: str, name: str) -> Table:
    """Entries of a layer norm."""
    return {f"{path}/scale": Entry(f"{name}.weight"), f"{path}/bias": Entry(f"{name}.bias")}


def batch_norm(path: str, name: str) -> Table:
    """Entries of a batch norm with its moving moments."""
    return {**norm(path, name), f"{path}/mean": Entry(f"{name}.running_mean"),
            f"{path}/var": Entry(f"{name}.running_var")}


def to_ours(value: np.ndarray, kind: str) -> np.ndarray:
    """Their tensor in our arrangement."""
    if kind == "dense":
        return value.T
    if kind in ("conv", "stem", "patch"):
        value = value.transpose(2, 3, 1, 0)
        return value.reshape(-1, value.shape[-1]) if kind == "patch" else value
    if kind in ("conv3", "stem3", "patch3"):
        value = value.transpose(2, 3, 4, 1, 0)
        return value.reshape(1, 1, 1, -1, value.shape[-1]) if kind == "patch3" else value
    return value


def to_theirs(value: np.ndarray, kind: str, *, patch_size: int = 0) -> np.ndarray:
    """The inverse of `to_ours`."""
    if kind == "dense":
        return value.T
    if kind in ("conv", "stem", "patch"):
        if kind == "patch":
            value = value.reshape(patch_size, patch_size, -1, value.shape[-1])
        return value.transpose(3, 2, 0, 1)
    if kind in ("conv3", "stem3", "patch3"):
        if kind == "patch3":
            value = value.reshape(patch_size, patch_size, patch_size, -1, value.shape[-1])
        return value.transpose(4, 3, 0, 1, 2)
    return value


def parameters(tower: nnx.Module) -> dict[str, Any]:
    """{path: array, or its shape and dtype} of a tower's parameters, moving moments included."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(tower)))
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def parameter_shapes(tower: nnx.Module) -> dict[str, tuple[int, ...]]:
    """{path: shape} of a tower's parameters."""
    return {path: tuple(leaf.shape) for path, leaf in parameters(tower).items()}


class Layout(abc.ABC):
    """A naming scheme.

    Attributes:
      names: what the command line calls it: "hf", "torchvision", "openclip" or "timm".
      anchor: a tensor that every file of the scheme has once; what precedes it is the file's prefix.
      unused: regular expression of tensors that no tower has a use for: heads, mask tokens, the other tower.
      checked: keys of `config` in which a config.json must agree with the tower, where it has them.
      tower: what the training's configuration calls its towers.
    """

    names: ClassVar[str]
    anchor: ClassVar[str]
    unused: ClassVar[str]
    checked: ClassVar[tuple[str, ...]] = ()
    tower: ClassVar[str] = ""

    @abc.abstractmethod
    def refuses(self, tower: nnx.Module) -> str:
        """Why no file of the scheme can hold this tower; "" where it can."""

    @abc.abstractmethod
    def table(self, tower: nnx.Module) -> Table:
        """{path of our parameter: Entry}, all parameters of the tower but those of `fresh` that no file has."""

    @abc.abstractmethod
    def config(self, tower: nnx.Module) -> dict[str, Any]:
        """The config.json of the tower."""

    def options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the tower that a config.json of the scheme describes, as a training's configuration has them:
        {"variant", "sizes", "family", ...}; {} where it describes none. The inverse of `config`."""
        del config
        return {}

    def check(self, tower: nnx.Module, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> str:
        """What is wrong with the tower's options for this file, before any shape is compared; "" if nothing is."""
        del tensors
        ours = self.config(tower)
        for key in self.checked:
            if key in config and key in ours and not _equal(config[key], ours[key]):
                return f"its config has {key} = {config[key]}, the tower {ours[key]}"
        return ""

    def fresh(self, tower: nnx.Module, tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """Paths of our parameters that stay as they were initialised: the file has none, or some of another kind."""
        del tower, tensors
        return ()

    def rename(self, name: str) -> str:
        """Their older spelling of a name to the one in the table."""
        return name

    def unpack(self, tensors: Tensors, tower: nnx.Module) -> list[str]:
        """Takes tensors apart, in place, until every entry of the table has its own; returns notes for the log."""
        del tensors, tower
        return []

    def pack(self, tensors: Tensors, tower: nnx.Module) -> Tensors:
        """The inverse of `unpack`, with the names that a file has."""
        del tower
        return tensors


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-6, atol=0.0))
    return one == other


def find_prefix(tensors: Mapping[str, Any], anchor: str) -> list[str]:
    """What precedes the anchor in the names of a file; one entry for each occurrence."""
    return [name.removesuffix(anchor) for name in tensors if re.search(rf"(^|\.){re.escape(anchor)}$", name)]


def split_rows(tensors: Tensors, name: str, parts: tuple[str, ...]) -> None:
    """Replaces a tensor by equal parts of its first axis, "NAME/PART" each; does nothing where it is missing."""
    if name in tensors and len(tensors[name]) % len(parts) == 0:
        for part, value in zip(parts, np.split(tensors.pop(name), len(parts)), strict=True):
            tensors[f"{name}/{part}"] = value


def join_rows(tensors: Tensors, name: str, parts: tuple[str, ...]) -> None:
    """The inverse of `split_rows`."""
    tensors[name] = np.concatenate([tensors.pop(f"{name}/{part}") for part in parts])

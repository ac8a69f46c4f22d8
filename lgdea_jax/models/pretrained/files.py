"""Weight files: safetensors (read without torch, mapped into memory) and torch files; and writing safetensors.

A safetensors file is eight bytes with the length of a JSON header, the header ({name: dtype, shape, data_offsets}) and
the data (https://github.com/huggingface/safetensors). The library's NumPy reader has no bfloat16, hence this one.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64,
          "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}
# In order of preference.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors",
                "pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin")
DIGEST = "sha256"  # Key of the metadata in the header of a file that we write.
CONFIG_FILES = ("config.json", "open_clip_config.json")
TORCH_SUFFIXES = (".bin", ".pt", ".pth")
# Where training scripts put the weights inside what they save.
_WRAPPERS = ("state_dict", "model_state_dict", "model")


class WeightsError(ValueError):
    """A file that cannot be read, or that does not fit the tower; the message names the key."""


def find_weights(path: str | Path) -> Path:
    """The weight file at `path`: the file itself, or the one that a directory holds.

    Raises:
      WeightsError: there is none, or several and none has a usual name.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsError(f"no weights at {path}: a local directory or file is needed, or hf://OWNER/NAME")
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    for suffixes in ((".safetensors",), TORCH_SUFFIXES):
        found = sorted(file for file in path.iterdir() if file.suffix in suffixes)
        if len(found) == 1:
            return found[0]
        if found:
            raise WeightsError(f"several weight files in {path}: name one of {', '.join(f.name for f in found)}")
    raise WeightsError(f"no weight file in {path}: expected one of {', '.join(WEIGHT_FILES)}")


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """{name: array} of a weight file or of the shards that an index lists; safetensors data are read when used.

    Raises:
      WeightsError: it cannot be read; names the package to install where torch is needed.
    """
    if file.name.endswith(".index.json"):
        listed = _json(file).get("weight_map", {})
        if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
            raise WeightsError(f"{file} is damaged: weight_map does not map names to files")
        tensors: dict[str, np.ndarray] = {}
        for shard in sorted(set(listed.values())):
            if Path(shard).name != shard or shard.endswith(".index.json") or not (file.parent / shard).is_file():
                raise WeightsError(f"{file.name} lists {shard}, which is missing")
            tensors |= read_tensors(file.parent / shard)
        return tensors
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    if file.suffix in TORCH_SUFFIXES:
        return read_torch(file)
    raise WeightsError(f"{file.name} is no weight file: .safetensors, {', '.join(TORCH_SUFFIXES)}")


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """{name: read-only array mapped into memory} of a safetensors file.

    Raises:
      WeightsError: not such a file, cut short, or of an unknown dtype.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > size - 8:
            raise WeightsError(f"{file} is cut short, or no safetensors file")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            header = None
    if not isinstance(header, dict):
        raise WeightsError(f"{file} is no safetensors file: its header cannot be read")
    data = np.memmap(file, np.uint8, mode="r", offset=8 + length) if size > 8 + length else np.zeros(0, np.uint8)
    tensors, parts = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind, shape, (start, end) = _entry(file, name, entry)
        if end > data.size or end - start != kind.itemsize * math.prod(shape):
            raise WeightsError(f"{file} is cut short or damaged: {name} is not whole")
        tensors[name] = data[start:end].view(kind).reshape(shape)
        parts.append((start, end, name))
    # The format has no digest, but its tensors fill the data one after the other.
    place = 0
    for start, end, name in sorted(parts):
        if start != place:
            raise WeightsError(f"{file} is damaged: {name} does not begin where the tensor before it ends")
        place = end
    if place != data.size:
        raise WeightsError(f"{file} is damaged: it has {data.size - place} bytes that belong to no tensor")
    notes = header.get("__metadata__")
    if isinstance(notes, dict) and DIGEST in notes and notes[DIGEST] != tensors_digest(tensors):
        raise WeightsError(f"{file} is damaged: its tensors are not those that were saved")
    return tensors


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) of names, dtypes, shapes and values; files that we write carry it, published ones do not."""
    total = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return total.hexdigest()


def _entry(file: Path, name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], tuple[int, int]]:
    """(dtype, shape, place) of a tensor in the header of a safetensors file."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise WeightsError(f"{file} is damaged: the header says no dtype, shape or place of {name}")
    kind, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise WeightsError(f"{file}: {name} is of the dtype {kind}; known: {', '.join(DTYPES)}")
    if not all(isinstance(part, list) and all(type(number) is int and number >= 0 for number in part)
               for part in (shape, place)) or len(place) != 2:
        raise WeightsError(f"{file} is damaged: the header has no possible shape or place of {name}")
    return np.dtype(DTYPES[kind]), tuple(shape), (place[0], place[1])


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """{name: array} of a file of `torch.save`, read with `weights_only`, so that it cannot run code.

    Raises:
      WeightsError: torch is not installed, or the file holds more than tensors and plain containers.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise WeightsError(f"{file} is a torch file: pip install torch, or give a safetensors file") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # The errors of a damaged file are of every kind.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{file} cannot be read as weights only ({reason}): save its state_dict, best as "
                           "safetensors") from None
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file} holds no state_dict but a {type(content).__name__}")
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):  # Saved from DataParallel.
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return {name: (value.float() if value.dtype == torch.bfloat16 else value).numpy()
            for name, value in tensors.items()}


def read_config(file: Path) -> dict[str, Any]:
    """Content of the config file beside a weight file; {} without one."""
    for name in CONFIG_FILES:
        if (file.parent / name).is_file():
            return _json(file.parent / name)
    return {}


def image_statistics(file: Path) -> str:
    """Normalisation of images, from the preprocessor's config beside a weight file; "" without one."""
    path = file.parent / "preprocessor_config.json"
    content = _json(path) if path.is_file() else {}
    if "image_mean" not in content:
        return ""
    return f"made for images of mean {content['image_mean']} and deviation {content.get('image_std')}"


def write(folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
    """Writes model.safetensors and config.json; torch and transformers read both."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(value, order="C") for name, value in sorted(tensors.items())}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt", DIGEST: tensors_digest(arrays)})
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # Not for its owner alone.


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{file} holds no JSON object but a {type(content).__name__}")
    return content

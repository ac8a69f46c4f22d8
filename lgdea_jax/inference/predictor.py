"""A trained model as three functions: images, texts, heatmaps. What evaluators and `predict` take.

The score of image i and text j is the dot product of their embeddings; the heatmap of text j on image i is the dot
product of the image's patches with the text's query. How a method makes both is its own business (`methods/`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from lgdea_jax.arrays import flatten, unflatten
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.findings import prompts
from lgdea_jax.inference import model_folder
from lgdea_jax.models.forward import forward
from lgdea_jax.preprocess.image_spec import ImageSpec, input_dtype, input_shape
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.runtime.digests import check_names


class Predictor:
    """Scores images against texts with one method's embeddings.

    Args:
      experiment: the run's.
      params: plain tree of parameters, on host or device.
      graphdef: static part of the model.
      tokenizer: the run's.
      spec: the checkpoint's spec (or what will be one), for its transforms and names.
      batch_size: rows of a call; the last one is padded, so that there is one compilation. None: 64 images, or as many
        volumes as hold 4 million voxels.
    """

    def __init__(self, experiment: Experiment, *, params: Any, graphdef: Any, tokenizer: TextTokenizer,
                 spec: dict[str, Any], batch_size: int | None = None) -> None:
        self.config, self.spec, self.tokenizer = experiment.config, spec, tokenizer
        self.frame = experiment.image_spec
        self.image_shape = input_shape(self.frame)
        # Activations of a volume are as many as those of hundreds of images.
        self.batch_size = batch_size or max(1, min(64, 2**22 // math.prod(self.image_shape)))
        self.transform: str = spec["transform"]
        self._graphdef = graphdef
        self.set_params(params)
        method = experiment.method
        self._text, self.reads_text, self.scoring = experiment.text, experiment.text is not None, method.scoring
        self.reads_images, self._scaled = "image" in method.needs, method.scaled
        self.classifies = method.classifies
        self.style = "cxr" if isinstance(self.frame, int) else "ct"
        self.prompt_context = prompts.REPORT if method.text == "report" else prompts.BARE
        options = experiment.forward_options(tokenizer.pad_id)

        def images(params: Any, images: jax.Array) -> dict[str, jax.Array]:
            model = nnx.merge(graphdef, params)
            outputs = forward(model, {"image": images}, options=options)
            return {**method.image_embedding(outputs), "features": outputs["image"]["features"]}

        def texts(params: Any, tokens: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
            model = nnx.merge(graphdef, params)
            outputs = forward(model, {"tokens": tokens}, options=options)
            return method.text_embedding(outputs, weight)

        self._images, self._texts = jax.jit(images), jax.jit(texts)
        self.grid, self.patch_offset = patch_grid(graphdef, params, self.frame)

    def set_params(self, params: Any) -> None:
        """Goes on with other parameters of the same shapes; nothing is compiled again."""
        self._params = jax.device_put(params, jax.local_devices()[0])

    @property
    def params(self) -> Any:
        """The tree of parameters that predicts, on the device."""
        return self._params

    @property
    def classifier(self) -> tuple[np.ndarray, np.ndarray]:
        """(kernel float32 [W, labels], bias float32 [labels]) of the linear classifier; for a method with one."""
        layer = nnx.merge(self._graphdef, self._params).classifier
        return np.asarray(layer.kernel[...], np.float32), np.asarray(layer.bias[...], np.float32)

    @property
    def logit_scale(self) -> float:
        """What scores are multiplied with before the softmax of training; CT-CLIP's operating point uses it."""
        if not self._scaled:
            return 1.0
        return float(nnx.merge(self._graphdef, self._params).shared()["logit_scale"])

    @property
    def image_size(self) -> int:
        """Side in px of the square that an image is fitted into.

        Raises:
          UserError: the model takes volumes.
        """
        if not isinstance(self.frame, int):
            raise UserError("this checkpoint reads CT volumes and only 2D images can be used here; for data sets of "
                            "volumes there are python -m lgdea_jax.eval.records and the CT benchmarks")
        return self.frame

    def images(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Embeddings and patches of images, or of volumes.

        Args:
          images: uint8 [N, S, S], or int16 [N, D, H, W, 1] in HU (`VolumeView.prepare`).

        Returns:
          float32 embedding [N, E], tower features [N, W], patches [N, L, Q] where it grounds, logits [N, labels] where
          it classifies, and label_patches [N, L, W] where the classifier reads images alone.

        Raises:
          UserError: there is no image tower, or the model gives numbers that are not finite.
        """
        if not self.reads_images:
            raise UserError(f"the method {self.config.method} has no image tower: it cannot read images")
        if tuple(images.shape[1:]) != self.image_shape or images.dtype != input_dtype(self.frame):
            raise ValueError(f"images are {images.dtype} {list(images.shape)}, not {input_dtype(self.frame)} [N, "
                             f"{', '.join(map(str, self.image_shape))}]")
        return self._batched(self._images, images)

    def texts(self, texts: Sequence[str], phrases: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """N texts with their evidence phrases -> embedding float32 [N, E], query float32 [N, Q], and logits float32
        [N, labels] where it classifies.

        Args:
          texts: whole reports (or prompts).
          phrases: the evidence phrases of each; a prompt is its own only phrase.

        Raises:
          UserError: there is no text tower, or the model gives numbers that are not finite.
        """
        if self._text is None:
            raise UserError(f"the method {self.config.method} has no text tower: it cannot read prompts")
        weight = np.zeros([len(texts), self._text.phrases], np.float32)
        for row, items in zip(weight, phrases, strict=True):
            row[: len(items)] = 1.0
        tokens = self._text.tokens(texts, phrases, self.tokenizer)
        return self._batched(self._texts, tokens, weight)

    def text_losses(self, text: str) -> tuple[str, tuple[str, ...]]:
        """(the end of a prompt that the tower cannot take, its words that the tokeniser does not know)."""
        return self.tokenizer.losses(text, self._text.length)

    def _batched(self, function: Callable[..., Any], *arrays: np.ndarray) -> dict[str, np.ndarray]:
        count, size = len(arrays[0]), self.batch_size
        if not count:
            raise ValueError("nothing to predict: an empty batch")
        results = []
        for start in range(0, count, size):
            parts = [array[start:start + size] for array in arrays]
            rows = len(parts[0])
            if rows < size:
                parts = [np.concatenate([part, np.repeat(part[-1:], size - rows, axis=0)]) for part in parts]
            # Not copied to the host yet, so that the next call starts at once.
            results.append((rows, function(self._params, *parts)))
        found = {name: np.concatenate([np.asarray(result[name], np.float32)[:rows] for rows, result in results])
                 for name in results[0][1]}
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise UserError(f"the model gives {name} that is not finite: its training diverged; try an earlier "
                                "--step, or train with a lower --config.optim.rate")
        return found


def patch_grid(graphdef: Any, params: Any, frame: ImageSpec) -> tuple[tuple[int, ...], float | tuple[float, ...]]:
    """(grid of the image tower's patches, the tower's `offset` in cells); ((), 0) without an image tower.

    The grid is (rows, columns), or (depth, rows, columns) of volumes, for which there is an offset for each axis.
    Nothing is computed.
    """
    found: list[tuple[tuple[int, ...], Any]] = [((), 0.0)]
    shape = input_shape(frame)

    def probe(params: Any, image: jax.Array) -> jax.Array:
        tower = nnx.merge(graphdef, params).image_tower
        if tower is not None:
            pooled, out = tower(image)
            if isinstance(frame, int):
                found[0] = tuple(out["grid"]), tower.offset * out["grid"][0] / frame
            else:
                found[0] = tuple(out["grid"]), tuple(
                    offset * cells / side for offset, cells, side in zip(tower.offset, out["grid"], shape))
            return pooled
        return image

    image = (1, *shape, 1) if isinstance(frame, int) else (1, *shape)
    jax.eval_shape(probe, params, jax.ShapeDtypeStruct(image, np.float32))
    return found[0]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A run's model: its parts, parameters (averaged ones where there are any), static part, tokeniser and spec."""

    experiment: Experiment
    params: Any
    graphdef: Any
    tokenizer: TextTokenizer
    spec: dict[str, Any]


def restore(checkpoint: str | Path, step: str | int = "latest") -> Restored:
    """The model of a run, from its checkpoint alone, or of a folder that was exported.

    Args:
      checkpoint: the run's directory (RUN), a folder of `model_folder`, or its address on the hub.
      step: "latest", "best" or a number.

    Raises:
      UserError: no such checkpoint, or one that does not fit this code.
    """
    checkpoint = model_folder.locate(checkpoint)
    exported = model_folder.is_model(checkpoint)
    if exported:
        spec = model_folder.read_spec(checkpoint, step)
        number = int(spec["step"])
    else:
        store = Checkpoints(checkpoint, writable=False)
        number = store.resolve(step)
        spec = store.spec(number)
    experiment = Experiment.of(ConfigDict(spec["config"]))
    tokenizer = TextTokenizer(spec["tokenizer"])
    graphdef, shapes = experiment.model.abstract(
        vocab_size=tokenizer.vocab_size, num_labels=len(spec["label_names"]))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    if exported:
        found, wanted = model_folder.read_params(checkpoint), flatten(target)
        check_names({path: value.shape for path, value in found.items()},
                    {path: tuple(leaf.shape) for path, leaf in wanted.items()}, str(checkpoint))
        params = unflatten(target, {path: jax.device_put(found[path].astype(leaf.dtype), sharding)
                                    for path, leaf in wanted.items()})
    else:
        params = store.restore_params(number, target)
        store.close()
    return Restored(experiment, params, graphdef, tokenizer, {**spec, "step": number})


def load_predictor(checkpoint: str | Path, step: str | int = "latest", *, batch_size: int | None = None) -> Predictor:
    """The predictor of a run; arguments and errors as in `restore`."""
    run = restore(checkpoint, step)
    return Predictor(run.experiment, params=run.params, graphdef=run.graphdef, tokenizer=run.tokenizer,
                     spec=run.spec, batch_size=batch_size)

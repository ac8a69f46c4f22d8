"""The model as evaluators call it, and an encoder that batches the calls and keeps the embeddings.

A `Model` is any object with

- `images(uint8 [B, S, S], or float32 [B, D, H, W, 1] of volumes)`: {"embedding": float32 [B, E],
  "patches": float32 [B, L, Q], "features": float32 [B, W], "logits": float32 [B, labels]};
- `texts(texts, phrases)`: {"embedding": float32 [B, E], "query": float32 [B, Q]};
- `grid`: (rows, columns), or (depth, rows, columns); their product is L;
- optionally `patch_offset`, see `Encoder.patch_offset`; `batch_size`; `reads_text` and `reads_images`, False without
  such a tower; `scoring` and `prompt_context`, see `tasks.prompt_settings`; `logit_scale`, what cosines are multiplied
  with before a softmax.

A model without grounding has no "patches" and no "query"; "features" (for a linear probe) and
"logits" (of a classifier) may be missing. The score of
an image and a text is the dot product of their embeddings; the model decides their norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from lgdea_jax.evaluators.data import EvalData, ProgressCallback, no_progress


class Model(Protocol):
    """What evaluators call; see the module's docstring."""

    grid: tuple[int, ...]

    def images(self, images: np.ndarray) -> Mapping[str, np.ndarray]: ...

    def texts(self, texts: Sequence[str], phrases: Sequence[tuple[str, ...]]) -> Mapping[str, np.ndarray]: ...


class Encoder:
    """Embeddings of an `EvalData`, computed once: in batches of one size (one compilation), equal texts once.

    Patches are kept for images with boxes only; they are the large part.
    """

    def __init__(self, model: Model, data: EvalData, *, batch_size: int | None = None,
                 progress: ProgressCallback = no_progress) -> None:
        batch_size = getattr(model, "batch_size", 64) if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        self.model, self.data, self.batch_size, self.progress = model, data, batch_size, progress
        self._images: np.ndarray | None = None
        self._features: np.ndarray | None = None
        self._logits: np.ndarray | None = None
        self._patches: dict[int, np.ndarray] = {}
        self._grounds = False
        self._texts: dict[tuple[str, tuple[str, ...]], tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def of(cls, model: Model | Encoder, data: EvalData) -> Encoder:
        """`model` itself when it already is an encoder of `data`."""
        if not isinstance(model, Encoder):
            return cls(model, data)
        if model.data is not data:
            raise ValueError("the encoder belongs to other data")
        return model

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the heatmaps before they are mapped to pixels."""
        return tuple(self.model.grid)

    @property
    def patch_offset(self) -> float | tuple[float, ...]:
        """How many cells the centre of a patch's receptive field lies behind its cell's middle, on all or each axis.

        An attribute of `model`; 0 where it has none.
        """
        return getattr(self.model, "patch_offset", 0.0)

    def images(self) -> np.ndarray:
        """Image embeddings, float32 [N, E]; the first call also keeps the patches of images with boxes."""
        if self._images is None:
            parts, features, logits, total = [], [], [], len(self.data.images)
            for start in range(0, total, self.batch_size):
                batch = self.data.images[start:start + self.batch_size]
                n = len(batch)
                out = self.model.images(self._padded(batch))
                self._grounds = "patches" in out
                parts.append(_finite(out["embedding"][:n], "image embeddings"))
                features.append(_finite(out.get("features", out["embedding"])[:n], "image features"))
                if "logits" in out:
                    logits.append(_finite(out["logits"][:n], "logits"))
                for row in range(n):
                    if self.data.boxes[start + row] and "patches" in out:
                        self._patches[start + row] = np.array(out["patches"][row], np.float32)
                self.progress("images", start + n, total)
            self._images = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
            self._features = np.concatenate(features) if parts else np.zeros((0, 1), np.float32)
            self._logits = np.concatenate(logits) if logits else None
        return self._images

    def features(self) -> np.ndarray:
        """The input of a linear probe, float32 [N, W]: the image tower's pooled output, or else the embeddings."""
        self.images()
        return self._features

    def logits(self) -> np.ndarray:
        """float32 [N, labels] of a model with a classifier of images."""
        self.images()
        if self._logits is None:
            raise ValueError("the model has no classifier")
        return self._logits

    @property
    def grounds(self) -> bool:
        """Whether the model outputs patches for grounding; False also where there are no images."""
        self.images()
        return self._grounds

    def patches(self, image: int) -> np.ndarray:
        """Patches of one image, float32 [L, Q]; kept for images with boxes, computed for others."""
        self.images()
        if image not in self._patches:
            return np.array(self.model.images(self._padded(self.data.images[[image]]))["patches"][0], np.float32)
        return self._patches[image]

    def _padded(self, batch: np.ndarray) -> np.ndarray:
        """The batch at full size; the caller cuts the padding off again, so zeros are as good as any image."""
        missing = self.batch_size - len(batch)
        return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing else batch

    def texts(self, texts: Sequence[str], phrases: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """(embeddings float32 [M, E], queries float32 [M, Q]) of texts with their phrases; equal inputs, equal rows."""
        keys = [(text, tuple(parts)) for text, parts in zip(texts, phrases, strict=True)]
        missing = [key for key in dict.fromkeys(keys) if key not in self._texts]
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start:start + self.batch_size]
            padded = batch + [batch[-1]] * (self.batch_size - len(batch))
            out = self.model.texts([key[0] for key in padded], [key[1] for key in padded])
            embedding = _finite(out["embedding"], "text embeddings")
            query = _finite(out.get("query", np.zeros((len(padded), 1))), "text queries")
            self._texts.update({key: (embedding[i], query[i]) for i, key in enumerate(batch)})
            self.progress("texts", start + len(batch), len(missing))
        if not keys:
            return np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32)
        rows = [self._texts[key] for key in keys]
        return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])

    def prompts(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`texts` of prompts: each is a text whose only phrase is itself."""
        return self.texts(prompts, [(prompt,) for prompt in prompts])


def _finite(values: Any, what: str) -> np.ndarray:
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"the model gives {what} that are not finite")
    return values

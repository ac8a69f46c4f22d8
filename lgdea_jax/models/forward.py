"""The towers on the rows of a batch: a pure function of parameters and arrays, for training and prediction alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lgdea_jax.models import distinct

Batch = Mapping[str, Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Window:
    """[low, high] in HU becomes [first, last]; what lies beyond is clipped."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, volumes: jax.Array) -> jax.Array:
        """HU of any dtype to float32 of the same shape."""
        x = jnp.clip(volumes.astype(jnp.float32), self.low, self.high) - self.low
        return x * ((self.last - self.first) / (self.high - self.low)) + self.first


@dataclasses.dataclass(frozen=True)
class ForwardOptions:
    """How arrays become inputs of the towers.

    Attributes:
      pad_id: of the tokeniser; padding is masked.
      mean, std: of grey levels in [0, 1].
      per_image: images are normalised by their own mean and standard deviation instead.
      distinct: share of the texts that are encoded in the first pass, see `models.distinct`; 1 encodes every row.
      devices: that share the rows.
      window: of volumes; None for images.
    """

    pad_id: int
    mean: float
    std: float
    per_image: bool
    distinct: float = 1.0
    devices: int = 1
    window: Window | None = None


def join_rows(pairs: jax.Array, unpaired: jax.Array) -> jax.Array:
    """[P, ...] of the pairs and [U, ...] of unpaired items as [P + U, ...]; `pairs_of` and `unpaired_of` part them.

    The rows are interleaved: P / g pairs, U / g unpaired items, and so on, g the greatest common divisor. The devices
    divide both streams and so g: each of them joins the rows that it has, and none is moved. The order depends on the
    sizes alone, so that it is the same on every mesh.
    """
    blocks = math.gcd(len(pairs), len(unpaired))
    joined = jnp.concatenate([_cut(rows, blocks) for rows in (pairs, unpaired)], axis=1)
    return joined.reshape(-1, *joined.shape[2:])


def pairs_of(rows: jax.Array, num_pairs: int) -> jax.Array:
    """The pairs' [num_pairs, ...] of the rows that `join_rows` made (or of pairs alone), in order."""
    return _part(rows, num_pairs, unpaired=False)


def unpaired_of(rows: jax.Array, num_pairs: int) -> jax.Array:
    """The unpaired items' rows; see `pairs_of`."""
    return _part(rows, num_pairs, unpaired=True)


def _part(rows: jax.Array, num_pairs: int, *, unpaired: bool) -> jax.Array:
    others = len(rows) - num_pairs
    if not num_pairs or not others:
        return rows[num_pairs:] if unpaired else rows[:num_pairs]
    blocks = math.gcd(num_pairs, others)
    share = num_pairs // blocks
    cut = _cut(rows, blocks)
    part = cut[:, share:] if unpaired else cut[:, :share]
    return part.reshape(-1, *rows.shape[1:])


def _cut(rows: jax.Array, blocks: int) -> jax.Array:
    """[N, ...] -> [blocks, N / blocks, ...]."""
    return rows.reshape(blocks, -1, *rows.shape[1:])


def gather_streams(batch: Batch) -> dict[str, Any]:
    """The streams of a batch (`data.batch`) as one set of rows, in the order of `join_rows`.

    Returns:
      The arrays of all streams by name, joined along the rows: image and image_index [B_pair + B_image, ...]; tokens,
      weight and report_index [B_pair + B_report, ...]; study [B_pair]. `num_pairs` is a Python int.
    """
    # A jitted function gets its dicts in alphabetical order.
    streams = sorted(batch, key=lambda stream: stream != "pairs")
    parts: dict[str, list[jax.Array]] = {}
    for stream in streams:
        for name, array in batch[stream].items():
            parts.setdefault(name, []).append(array)
    rows: dict[str, Any] = {name: some[0] if len(some) == 1 else join_rows(*some) for name, some in parts.items()}
    return {**rows, "num_pairs": len(batch["pairs"]["study"]) if "pairs" in batch else 0}


def normalise_images(images: jax.Array, options: ForwardOptions) -> jax.Array:
    """uint8 [B, H, W] to float32 [B, H, W, 1]; volumes [B, D, H, W, 1] in HU are windowed.

    Images by default are (x / 255 - mean) / std. With `per_image` each goes by its own mean and standard deviation:
    exposure carries no diagnosis. A flat image is left near zero.
    """
    if options.window is not None:
        return options.window(images)
    x = images.astype(jnp.float32) / 255.0
    if not options.per_image:
        return ((x - options.mean) / options.std)[..., None]
    x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
    return (x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=(1, 2), keepdims=True) + 1e-4))[..., None]


def forward(model: nnx.Module, rows: Mapping[str, Any], *, options: ForwardOptions, train: bool = False,
            rngs: nnx.Rngs | None = None, micro: int = 1) -> dict[str, Any]:
    """Runs the towers on the rows of a batch.

    Args:
      model: `models.lgdea.TwoTowers`.
      rows: from `gather_streams`; `image`, and `tokens` int32 [R, T] or [R, P, T]; either may be absent.
      options: see `ForwardOptions`.
      train: whether dropout is active and batch norm uses the batch's moments.
      rngs: for dropout; None drops nothing.
      micro: parts that the rows go through the towers in, see `_in_parts`.

    Returns:
      `image`, `text`: dicts of the towers' outputs. Those of texts keep the leading shape of the tokens; `mask` is bool
      like the tokens. Beside them the model's scalars and prototypes (`TwoTowers.shared`), and `distinct_texts`, the
      share of the texts that differ, where equal ones are encoded once.
    """
    outputs: dict[str, Any] = dict(model.shared())
    if micro > 1:
        return outputs | _in_parts(model, rows, micro, rngs, options=options, train=train)
    if "image" in rows and model.image_tower is not None:
        outputs["image"] = model.encode_image(normalise_images(rows["image"], options), train=train, rngs=rngs)
    if "tokens" in rows and model.text_tower is not None:
        tokens = rows["tokens"]
        text = _encode_texts(model, tokens.reshape(-1, tokens.shape[-1]), options=options, train=train, rngs=rngs)
        if options.distinct < 1:
            outputs["distinct_texts"] = text.pop("distinct")
        outputs["text"] = {name: value.reshape(*tokens.shape[:-1], *value.shape[1:]) for name, value in text.items()}
    return outputs


def _encode_texts(model: nnx.Module, tokens: jax.Array, *, options: ForwardOptions, train: bool,
                  rngs: nnx.Rngs | None) -> dict[str, jax.Array]:
    """The text tower's outputs of tokens [N, T], `mask` with them; `distinct` where equal rows are encoded once."""
    def encode(tokens: jax.Array, rngs: nnx.Rngs | None) -> dict[str, jax.Array]:
        return model.encode_text(tokens, tokens != options.pad_id, train=train, rngs=rngs)

    mask = tokens != options.pad_id
    if options.distinct >= 1:
        return {**encode(tokens, rngs), "mask": mask}
    key = rngs.dropout() if rngs is not None else None

    def one_pass(tokens: jax.Array, number: Any) -> dict[str, jax.Array]:
        return encode(tokens, None if key is None else nnx.Rngs(dropout=jax.random.fold_in(key, number)))

    outputs, share = distinct.encode(one_pass, tokens, share=options.distinct, devices=options.devices)
    return {**outputs, "mask": mask, "distinct": share}


def _in_parts(model: nnx.Module, rows: Mapping[str, Any], micro: int, rngs: nnx.Rngs | None,
              **options: Any) -> dict[str, Any]:
    """The towers' outputs, computed for `micro` parts of the rows one after the other.

    In the backward pass each part's activations are computed again (gradient caching, Gao et al., 2021, arXiv
    2101.06983): what is held is the outputs of all rows and the activations of one part. The gradients are those of the
    whole batch; only dropout draws other masks. Part k has the rows k, k + micro, ...: of every device's rows as many.
    """
    graphdef, state = nnx.split(model)
    keys = jax.random.split(rngs.dropout(), micro) if rngs is not None else jnp.zeros([micro])

    @jax.checkpoint
    def part(state: Any, inputs: tuple[dict[str, jax.Array], jax.Array]) -> dict[str, Any]:
        some, key = inputs
        outputs = forward(nnx.merge(graphdef, state), some, **options,
                          rngs=nnx.Rngs(dropout=key) if rngs is not None else None)
        return {name: outputs[name] for name in ("image", "text", "distinct_texts") if name in outputs}

    cut = {name: jnp.swapaxes(rows[name].reshape(-1, micro, *rows[name].shape[1:]), 0, 1)
           for name in ("image", "tokens") if name in rows}
    _, outputs = jax.lax.scan(lambda _, inputs: (None, part(state, inputs)), None, (cut, keys))
    shares = {name: jnp.mean(outputs.pop(name)) for name in ("distinct_texts",) if name in outputs}
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), outputs) | shares

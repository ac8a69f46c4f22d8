"""The training step: a pure function of (state, batch), jitted once over the mesh.

The state is a plain dict of arrays: `params`, `opt` (optimiser), `step`, `ema` (an empty dict without EMA) and `aux`
(what a method keeps beside the parameters, such as the evidence memory; an empty dict for most).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lgdea_jax.arrays import path_string
from lgdea_jax.training import optim

State = dict[str, Any]
Batch = Mapping[str, Mapping[str, jax.Array]]


def new_state(params: Any, tx: optax.GradientTransformation, *, ema: bool, aux: Any = None) -> State:
    """A state at step 0."""
    return {
        "params": params,
        "opt": tx.init(params),
        "step": jnp.zeros([], jnp.int32),
        "ema": jax.tree.map(jnp.copy, params) if ema else {},
        "aux": {} if aux is None else aux,
    }


def normalise_images(images: jax.Array, *, mean: float, std: float, per_image: bool) -> jax.Array:
    """uint8 [B, H, W] to float32 [B, H, W, 1]; windowed volumes, float32 [B, D, H, W, 1], stay as they are.

    Args:
      mean, std: of grey levels in [0, 1]: (x / 255 - mean) / std.
      per_image: each image by its own mean and standard deviation instead: exposure carries no diagnosis. A flat image
        is left near zero.
    """
    if images.ndim == 5:
        return images
    x = images.astype(jnp.float32) / 255.0
    if not per_image:
        return ((x - mean) / std)[..., None]
    x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
    return (x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=(1, 2), keepdims=True) + 1e-4))[..., None]


def gather_streams(batch: Batch) -> dict[str, Any]:
    """The streams of a batch as one set of rows: pairs first, then the unpaired.

    Returns:
      image [B_pair + B_image, S, S] (or D, H, W, 1); tokens, weight, finding, normal [B_pair + B_report, ...]; region,
      frame [B_pair, ...]; labels of the images; study [B_pair] (equal numbers: views of one study); image_index,
      report_index: rows of the evidence memory; num_pairs, a Python int. Without a stream its keys are absent.
    """
    rows: dict[str, Any] = {"num_pairs": batch["pairs"]["index"].shape[0] if "pairs" in batch else 0}
    for name, streams in (("image", ("pairs", "images")), ("labels", ("pairs", "images")),
                          ("tokens", ("pairs", "reports")), ("weight", ("pairs", "reports")),
                          ("finding", ("pairs", "reports")), ("normal", ("pairs", "reports")),
                          ("region", ("pairs",)), ("frame", ("pairs",))):
        parts = [batch[stream][name] for stream in streams if stream in batch and name in batch[stream]]
        if parts:
            rows[name] = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=0)
    for name, streams in (("image_index", ("pairs", "images")), ("report_index", ("pairs", "reports"))):
        rows[name] = jnp.concatenate([jnp.zeros([0], jnp.int32),
                                      *(batch[stream]["index"] for stream in streams if stream in batch)])
    if "pairs" in batch:
        rows["study"] = batch["pairs"]["study"]
    return rows


def forward(
    model: nnx.Module, rows: Mapping[str, Any], *, pad_id: int, mean: float, std: float,
    per_image: bool, train: bool = False, rngs: nnx.Rngs | None = None, micro: int = 1,
) -> dict[str, Any]:
    """Runs the towers on the rows of a batch.

    Args:
      model: `models.lgdea.TwoTowers`.
      rows: from `gather_streams`; `tokens` is [R, T] or [R, P, T].
      pad_id: of the tokeniser; `mean`, `std`, `per_image`: see `normalise_images`.
      train: dropout drops and batch norm uses the batch's moments.
      rngs: for dropout; None drops nothing.
      micro: parts that the rows go through the towers in, see `_in_parts`.

    Returns:
      `image`, `text` (dicts of the towers' outputs; text outputs keep the leading shape of the tokens, `mask` is bool
      like the tokens) and the model's
      scalars and prototypes.
    """
    outputs: dict[str, Any] = dict(model.shared())
    if micro > 1:
        return outputs | _in_parts(model, rows, micro, rngs, pad_id=pad_id, mean=mean, std=std, per_image=per_image,
                                   train=train)
    if "image" in rows and model.image_tower is not None:
        outputs["image"] = model.encode_image(
            normalise_images(rows["image"], mean=mean, std=std, per_image=per_image), train=train, rngs=rngs)
    if "tokens" in rows and model.text_tower is not None:
        tokens = rows["tokens"]
        flat = tokens.reshape(-1, tokens.shape[-1])
        text = {**model.encode_text(flat, flat != pad_id, train=train, rngs=rngs), "mask": flat != pad_id}
        outputs["text"] = {name: value.reshape(*tokens.shape[:-1], *value.shape[1:]) for name, value in text.items()}
    return outputs


def _in_parts(model: nnx.Module, rows: Mapping[str, Any], micro: int, rngs: nnx.Rngs | None,
              **options: Any) -> dict[str, Any]:
    """The towers' outputs, made for `micro` parts of the rows one after the other.

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
        return {name: outputs[name] for name in ("image", "text") if name in outputs}

    cut = {name: jnp.swapaxes(rows[name].reshape(-1, micro, *rows[name].shape[1:]), 0, 1)
           for name in ("image", "tokens") if name in rows}
    _, outputs = jax.lax.scan(lambda _, inputs: (None, part(state, inputs)), None, (cut, keys))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), outputs)


def moving_moments(model: nnx.Module) -> dict[str, jax.Array]:
    """The moving moments that a training pass left in the model, by parameter path; {} without batch norm."""
    tree = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    return {path_string(path): jax.lax.stop_gradient(value)
            for path, value in jax.tree_util.tree_leaves_with_path(tree)}


def train_step(
    state: State, batch: Batch, *, graphdef: Any, tx: optax.GradientTransformation, rates: Any,
    losses: Callable[..., dict[str, jax.Array]], diagnostics: Callable[..., dict[str, jax.Array]],
    weights: Mapping[str, float], schedule: Callable[[jax.Array], jax.Array], ema_decay: float,
    pad_id: int, mean: float, std: float, per_image: bool, seed: int, dropout: bool, micro: int = 1,
) -> tuple[State, dict[str, jax.Array]]:
    """One step of gradient descent.

    Args:
      state: see this module's docstring; donate it when jitting.
      batch: streams of arrays, see `data.pipeline`.
      graphdef: the model's static part (`nnx.split`).
      tx: the optimiser; `rates`: its multipliers by parameter, 0 is frozen (`optim.rates_by_path`).
      losses: a method's `losses(outputs, rows, aux) -> {name: scalar}`; a term of weight 0 is not among them.
      diagnostics: a method's `diagnostics(outputs, rows) -> {name: scalar}`, logged and not trained on.
      weights: weight of each loss by name; `loss` is their weighted sum.
      schedule: step -> learning rate, to be logged.
      ema_decay: see `optim.update_ema`; used when the state has an EMA.
      pad_id: of the tokeniser; `mean`, `std`: of grey levels in [0, 1].
      seed, dropout: dropout masks are a function of seed and step; False runs without any.
      micro: parts that the towers go through the batch in; the gradients are those of the whole batch.

    Returns:
      (state, metrics): metrics has `loss`, `loss/NAME`, `grad_norm`, `update_norm`, `learning_rate` and diagnostics.
    """
    rows = gather_streams(batch)

    def objective(params: Any) -> tuple[jax.Array, tuple[dict[str, jax.Array], ...]]:
        model = nnx.merge(graphdef, optim.stop_frozen(params, rates))
        rngs = nnx.Rngs(dropout=jax.random.fold_in(jax.random.key(seed), state["step"])) if dropout else None
        outputs = forward(model, rows, pad_id=pad_id, mean=mean, std=std, per_image=per_image, train=True, rngs=rngs,
                          micro=micro)
        terms = losses(outputs, rows, state["aux"])
        if unknown := sorted(set(terms) ^ {name for name, weight in weights.items() if weight}):
            raise ValueError(f"losses and their weights do not match: {unknown}")
        total = sum((weights[name] * term for name, term in sorted(terms.items())), jnp.zeros([], jnp.float32))
        return total, (terms, jax.lax.stop_gradient(diagnostics(outputs, rows)), moving_moments(model))

    (total, (terms, extra, moments)), gradients = jax.value_and_grad(objective, has_aux=True)(state["params"])
    updates, opt = tx.update(gradients, state["opt"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    params = jax.tree_util.tree_map_with_path(lambda path, value: moments.get(path_string(path), value), params)
    ema = optim.update_ema(state["ema"], params, decay=ema_decay, step=state["step"]) if state["ema"] else {}
    metrics = {
        "loss": total,
        **{f"loss/{name}": term for name, term in terms.items()},
        **extra,
        "grad_norm": optax.tree.norm(gradients),
        "update_norm": optax.tree.norm(updates),
        "learning_rate": jnp.asarray(schedule(state["step"]), jnp.float32),
    }
    new = {"params": params, "opt": opt, "step": state["step"] + 1, "ema": ema, "aux": state["aux"]}
    return new, metrics

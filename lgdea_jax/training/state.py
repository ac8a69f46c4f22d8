"""What training starts from: the state (fresh, resumed, or taken from another run) and the step compiled for it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from lgdea_jax import cli, experiment
from lgdea_jax.arrays import flatten, unflatten
from lgdea_jax.errors import UserError
from lgdea_jax.findings.vocabulary import FINDINGS
from lgdea_jax.preprocess import image_statistics
from lgdea_jax.preprocess.image_spec import transform_name
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.checkpoint import Checkpoints, check_names
from lgdea_jax.training import optim
from lgdea_jax.training import step as train_step
from lgdea_jax.training.data import Data
from lgdea_jax.training.evidence_memory import EvidenceMemory

# Parts of the config that must stay when a run goes on: another value would make it another run.
FIXED_ON_RESUME = ("method", "methods", "seed", "total_steps", "dtype", "data", "batch", "image", "text", "augment",
                   "memory", "model", "optim")
# These do not change what batch n holds (whether the data are the same is known from their digest).
FREE_ON_RESUME = ("data.cache", "data.workers", "data.threads", "data.dir", "data.pairs_from", "data.images_from",
                  "data.reports_from", "data.held_out_from", "data.make_from", "text.tokenizer",
                  "model.image.weights", "model.text.weights", "batch.micro", "model.remat_keep")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the step is made of.

    Attributes:
      graphdef: the model's static part.
      tx, schedule: optimiser, and learning rate by step.
      rates: tree of rate multipliers like the parameters; 0 is frozen.
      initial: makes the state at step 0, placed as `target` says.
      memory: refreshes `state["aux"]`; None for methods without an evidence memory.
      target: the state as `jax.ShapeDtypeStruct`s with their shardings.
    """

    graphdef: Any
    tx: Any
    schedule: Callable[[Any], Any]
    rates: Any
    initial: Callable[[], Any]
    target: Any
    memory: EvidenceMemory | None


def make_memory(config: Any, data: Data, graphdef: Any, mesh: Mesh) -> EvidenceMemory | None:
    """The evidence memory of methods that have one.

    Raises:
      UserError: sizes or options that do not go together.
    """
    method = experiment.load_method(config)
    return EvidenceMemory(config, data, method, graphdef, mesh) if method.targets else None


def prepare_parts(config: Any, data: Data, mesh: Mesh) -> Parts:
    """Model, optimiser and placement that the config asks for; no parameter is computed yet.

    Raises:
      UserError: sizes that do not go together, a rate rule that matches nothing.
    """
    sizes = {"vocab_size": data.tokenizer.vocab_size, "num_labels": len(data.label_names)}
    graphdef, shapes = experiment.abstract_model(config, **sizes)
    tx, schedule = experiment.build_optimizer(config, shapes)
    memory = make_memory(config, data, graphdef, mesh)

    def initial() -> Any:
        params = experiment.initial_params(config, seed=config.seed, **sizes)
        aux = memory.blank(config.model.prototypes) if memory else None
        return train_step.new_state(params, tx, ema=config.optim.ema > 0, aux=aux)

    state = jax.eval_shape(initial)
    placement = sharding.tree_shardings(state, mesh)
    target = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, placement)
    rates = optim.rates_by_path(shapes, experiment.rate_rules(config.optim.rates))
    return Parts(graphdef, tx, schedule, rates, jax.jit(initial, out_shardings=placement), target, memory)


def initialise_from(config: Any, data: Data, state: train_step.State) -> tuple[train_step.State, int]:
    """A fresh state with the parameters of `config.init_from` in the modules `config.init_parts` (all by default).

    Returns:
      (state, number of parameters taken).

    Raises:
      UserError: no such run, a module that does not fit, or text modules made for another tokeniser.
    """
    source = Checkpoints(config.init_from, writable=False)
    step = source.resolve("latest")
    spec = source.spec(step)
    flat = flatten(state["params"])
    modules = list(dict.fromkeys(path.split("/")[0] for path in flat))
    parts = tuple(config.init_parts) or tuple(modules)
    if missing := [part for part in parts if part not in modules]:
        raise UserError(f"init_parts: the model has no {missing[0]!r}; it has {', '.join(modules)}")
    if any(part.startswith("text") for part in parts) and spec["tokenizer_digest"] != data.tokenizer.digest:
        raise UserError(f"the text tower of {config.init_from} was trained with another tokeniser: "
                        "--config.text.tokenizer must be that run's, or --config.init_parts=image_tower")
    vocab_size = TextTokenizer(spec["tokenizer"]).vocab_size
    _, shapes = experiment.abstract_model(
        ConfigDict(spec["config"]), vocab_size=vocab_size, num_labels=len(spec["label_names"]))
    host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=host), shapes)
    other = flatten(source.restore_params(step, target))
    source.close()

    def shapes_within(names: Mapping[str, Any]) -> dict[str, tuple]:
        return {path: tuple(leaf.shape) for path, leaf in names.items() if path.split("/")[0] in parts}

    wanted = shapes_within(flat)
    check_names(shapes_within(other), wanted, config.init_from)
    taken = {path: jax.device_put(np.asarray(other[path]), flat[path].sharding) for path in wanted}
    params = unflatten(state["params"], flat | taken)
    ema = jax.tree.map(jnp.copy, params) if state["ema"] else {}
    return {**state, "params": params, "ema": ema}, sum(int(np.prod(shape)) for shape in wanted.values())


def pretrained_towers(config: Any, parts: Parts, state: train_step.State) -> tuple[train_step.State, list[str]]:
    """A fresh state with published weights in the towers whose `weights` the config names; the heads stay fresh.

    Returns:
      (state, a line for the log on every tower that was filled).

    Raises:
      UserError: weights that cannot be read or do not fit, a tower that the method has not, or that `init_from` fills.
    """
    from lgdea_jax.models import pretrained

    model = nnx.merge(parts.graphdef, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                                                   state["params"]))
    flat, lines = flatten(state["params"]), []
    for name in ("image", "text"):
        path, tower = config.model[name].weights, getattr(model, f"{name}_tower")
        if not path:
            continue
        if tower is None:
            raise UserError(f"model.{name}.weights: the method {config.method} has no {name} tower")
        if config.init_from and f"{name}_tower" in (config.init_parts or (f"{name}_tower",)):
            raise UserError(f"init_from and model.{name}.weights both fill the {name} tower: leave one of them out")
        try:
            loaded = pretrained.load_tower(tower, path)
        except pretrained.WeightsError as error:
            raise UserError(f"model.{name}.weights: {error}") from None
        for key, value in loaded.params.items():
            key = f"{name}_tower/{key}"
            flat[key] = jax.device_put(value, flat[key].sharding)
        lines.append(f"{name} tower: {loaded.summary()}")
    if not lines:
        return state, lines
    params = unflatten(state["params"], flat)
    return {**state, "params": params, "ema": jax.tree.map(jnp.copy, params) if state["ema"] else {}}, lines


def compile_step(config: Any, data: Data, parts: Parts, batch: Any, mesh: Mesh) -> Any:
    """The step compiled once for these shapes: (state, batch) -> (state, metrics), the state donated.

    A batch of another shape is then an error, never a second compilation.
    """
    method = experiment.load_method(config, mesh)
    check_micro(config, batch, mesh)
    step = functools.partial(
        train_step.train_step, graphdef=parts.graphdef, tx=parts.tx, rates=parts.rates, losses=method.losses,
        diagnostics=method.diagnostics, weights=method.weights, schedule=parts.schedule, ema_decay=config.optim.ema,
        pad_id=data.tokenizer.pad_id, mean=config.image.mean, std=config.image.std,
        per_image=config.image.per_image, seed=config.seed, dropout=uses_dropout(config),
        micro=config.batch.micro)
    placement = jax.tree.map(lambda leaf: leaf.sharding, parts.target)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(placement, NamedSharding(mesh, PartitionSpec())))
    return jitted.lower(parts.target, batch).compile()


def check_micro(config: Any, batch: Any, mesh: Mesh) -> None:
    """Refuses a batch that cannot be cut into `config.batch.micro` parts.

    Args:
      batch: streams of arrays (or their shapes).

    Raises:
      UserError: rows that do not divide, or a batch norm, whose moments are those of the whole batch.
    """
    micro = config.batch.micro
    if micro < 1:
        raise UserError(f"config key 'batch.micro' is {micro}: at least 1")
    if micro == 1:
        return
    if config.model.image.name == "resnet" and config.model.image.resnet.norm == "batch":
        raise UserError(f"batch.micro={micro}: batch norm looks at the whole batch; --config.model.image.resnet.norm="
                        "group does not")
    sizes = {stream: arrays["index"].shape[0] for stream, arrays in batch.items()}
    for what, streams in (("images", ("pairs", "images")), ("reports", ("pairs", "reports"))):
        count = sum(sizes.get(stream, 0) for stream in streams)
        if count % (micro * mesh.size):
            raise UserError(f"batch.micro={micro}: {count} {what} a batch do not divide into {micro} parts over "
                            f"{mesh.size} devices")


def uses_dropout(config: Any) -> bool:
    """Whether a tower of the config drops anything."""
    return any(tower[tower.name].get("dropout_rate", 0.0) > 0 for tower in (config.model.image, config.model.text))


def make_spec(config: Any, data: Data) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return {
        "config": json.loads(config.to_json_best_effort()),
        "transform": f"{data.record_transform}+{transform_name(experiment.image_spec(config))}",
        "record_transform": data.record_transform,
        "record_size": data.record_size,
        # For `predict`, which has no data set to compare an image with.
        "image_statistics": image_statistics.of_items(
            [part for stream in ("pairs", "images") for part, _ in data.items[stream]]),
        "tokenizer": data.tokenizer.serialised,
        "tokenizer_digest": data.tokenizer.digest,
        "label_names": list(data.label_names),
        "finding_names": [finding.name for finding in FINDINGS],
        "data": {"names": list(data.names), "items": dict(data.counts), "digest": data.digest},
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
    }


def check_resume(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Refuses to go on with a run under another config, tokeniser, transform or data.

    Raises:
      UserError: names the first differences.
    """
    for key, what in (("transform", "transform"), ("tokenizer_digest", "tokeniser"), ("label_names", "labels"),
                      ("finding_names", "finding vocabulary"), ("data", "training data")):
        if now[key] != then[key]:
            raise UserError(f"the run in this workdir was made with another {what}: use a new --workdir")

    def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    # A key that the earlier run did not know yet: what is now its default is what that run did.
    defaults = dict(leaves(json.loads(cli.read_config("configs/common.py").to_json_best_effort())))
    old, new = {**defaults, **dict(leaves(then["config"]))}, dict(leaves(now["config"]))
    changed = [key for key in sorted(set(old) | set(new))
               if key.split(".")[0] in FIXED_ON_RESUME and key not in FREE_ON_RESUME and old.get(key) != new.get(key)]
    if changed:
        named = ", ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed[:3])
        raise UserError(f"the run in this workdir has another config ({named}): use a new --workdir")

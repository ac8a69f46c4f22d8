"""The parts of a training: state and optimiser, the step compiled for them, and what a checkpoint says of the run."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.findings.vocabulary import FINDINGS
from lgdea_jax.preprocess import image_statistics
from lgdea_jax.preprocess.image_spec import transform_name
from lgdea_jax.runtime import sharding
from lgdea_jax.training import optim
from lgdea_jax.training import step as train_step
from lgdea_jax.training.data import Data
from lgdea_jax.training.evidence_memory import EvidenceMemory, MemoryOptions
from lgdea_jax.training.optim import Optimizer

# Parts of the config that must stay when a run goes on: another value would make it another run.
FIXED_ON_RESUME = ("method", "methods", "seed", "total_steps", "dtype", "data", "batch", "image", "text", "augment",
                   "memory", "strong", "model", "optim")
# These do not change what batch n holds (whether the data are the same is known from their digest).
FREE_ON_RESUME = ("data.cache", "data.keep_tokens", "data.workers", "data.threads", "data.dir", "data.pairs_from",
                  "data.images_from", "data.reports_from", "data.held_out_from", "data.make_from", "text.tokenizer",
                  "model.image.weights", "model.text.weights", "batch.micro", "model.remat_keep",
                  "model.scan", "text.distinct")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the step is made of.

    Attributes:
      graphdef: the model's static part.
      optimizer: of its parameters.
      initial: makes the state at step 0, distributed as `target` says.
      target: the state as `jax.ShapeDtypeStruct`s with their shardings.
      memory: makes the targets of unpaired items and is `state["aux"]`; None where nothing reads such targets.
    """

    graphdef: Any
    optimizer: Optimizer
    initial: Callable[[], Any]
    target: Any
    memory: EvidenceMemory | None = None


def prepare_parts(experiment: Experiment, data: Data, mesh: Mesh) -> Parts:
    """Model, optimiser, memory and distribution of the state; no parameter is computed yet.

    Raises:
      UserError: sizes that do not go together, a rate rule that matches nothing.
    """
    sizes = {"vocab_size": data.tokenizer.vocab_size, "num_labels": len(data.label_names)}
    graphdef, shapes = experiment.model.abstract(**sizes)
    memory = make_memory(experiment, data.sizes, data.counts, mesh)
    return make_parts(experiment, mesh, graphdef, shapes, sizes, memory=memory)


def make_memory(experiment: Experiment, sizes: Mapping[str, int], counts: Mapping[str, int],
                mesh: Mesh) -> EvidenceMemory | None:
    """The evidence memory, where a loss reads targets of unpaired items that the batch has.

    Args:
      sizes: stream -> rows of a batch; counts: stream -> items.

    Raises:
      UserError: the method's targets are hidden reports, which are not read.
    """
    method = experiment.method
    if not method.has_memory or not any(sizes[stream] and term in method.terms for stream, term in (
            ("images", "evid_image"), ("images", "evid_align"), ("reports", "evid_report"))):
        return None
    options = MemoryOptions.of(experiment)
    if options.source == "truth" and not experiment.hidden_reports:
        raise UserError("the method needs the hidden reports of the unpaired images: --config.memory.truth=True")
    pairs = counts.get("pairs", 0)
    return EvidenceMemory(
        options=options, num_pairs=pairs, images=pairs + counts.get("images", 0),
        reports=pairs + counts.get("reports", 0), prototypes=experiment.model.prototypes,
        width=experiment.model.width, shards=mesh.size)


def make_parts(experiment: Experiment, mesh: Mesh, graphdef: Any, shapes: Any, sizes: Mapping[str, int], *,
               memory: EvidenceMemory | None) -> Parts:
    """The parts of a model.

    Args:
      graphdef, shapes: from `Model.abstract`; sizes: what that was called with.
      memory: of `make_memory`.
    """
    optimizer = optim.build(shapes, experiment.optim)

    def initial() -> Any:
        params = experiment.model.initial_params(seed=experiment.config.seed, **sizes)
        return train_step.new_state(params, optimizer, aux=memory.blank() if memory else None)

    state = jax.eval_shape(initial)
    shardings = sharding.tree_shardings(state, mesh)
    target = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, shardings)
    return Parts(graphdef, optimizer, jax.jit(initial, out_shardings=shardings), target, memory)


def compile_step(experiment: Experiment, parts: Parts, batch: Any, mesh: Mesh, *, pad_id: int) -> Any:
    """The step compiled once for these shapes: (state, batch) -> (state, metrics), the state donated.

    A batch of another shape is then an error, never a second compilation. Arguments as of `trace_step`.
    """
    return trace_step(experiment, parts, batch, mesh, pad_id=pad_id).lower().compile(compiler_options(experiment, mesh))


def trace_step(experiment: Experiment, parts: Parts, batch: Any, mesh: Mesh, *, pad_id: int) -> Any:
    """The step traced for these shapes, a `jax.stages.Traced`.

    Args:
      batch: arrays, or their shapes with shardings; pad_id: of the tokeniser.
    """
    check_micro(experiment, batch, mesh)
    options = train_step.StepOptions(
        forward=experiment.forward_options(pad_id, devices=mesh.size), seed=experiment.config.seed,
        dropout=experiment.model.drops,
        view=experiment.strong_view, augment=experiment.device_augment, micro=experiment.config.batch.micro)
    step = functools.partial(train_step.train_step, graphdef=parts.graphdef, method=experiment.method,
                             optimizer=parts.optimizer, options=options, memory=parts.memory)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, parts.target)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())))
    return jitted.trace(parts.target, batch)


def compiler_options(experiment: Experiment, mesh: Mesh) -> dict[str, bool]:
    """XLA's options for the step: 3D convolutions on GPUs with the channels last.

    XLA's own choice is to have them before the voxels, as in cuDNN's first versions, for every convolution of more than
    two dimensions; the tower's norms then reduce over a layout that is not theirs.
    """
    gpu = mesh.devices.flat[0].platform in ("gpu", "cuda")
    return {"xla_gpu_force_conv_nhwc": True} if experiment.volume and gpu else {}


def compile_rebuild(parts: Parts) -> Any:
    """`EvidenceMemory.rebuild` compiled for the state: aux -> aux, donated; None without relations."""
    if not parts.memory or not parts.memory.has_rows:
        return None
    target = parts.target["aux"]
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    return jax.jit(parts.memory.rebuild, donate_argnums=0, out_shardings=shardings).lower(target).compile()


def check_micro(experiment: Experiment, batch: Any, mesh: Mesh) -> None:
    """Refuses a batch that cannot be cut into `config.batch.micro` parts.

    Args:
      batch: streams of arrays (or their shapes).

    Raises:
      UserError: rows that do not divide, or a batch norm, whose moments are those of the whole batch.
    """
    micro, image = experiment.config.batch.micro, experiment.model.image
    if micro < 1:
        raise UserError(f"config key 'batch.micro' is {micro}: at least 1")
    if micro == 1:
        return
    if image and image.options.get("norm") == "batch":
        raise UserError(f"batch.micro={micro}: batch norm needs the whole batch; "
                        f"--config.model.image.{image.name}.norm=group does not")
    for what, name in (("images", "image_index"), ("reports", "report_index")):
        count = sum(arrays[name].shape[0] for arrays in batch.values() if name in arrays)
        if count % (micro * mesh.size):
            raise UserError(f"batch.micro={micro}: {count} {what} a batch do not divide into {micro} parts over "
                            f"{mesh.size} devices")


def make_spec(experiment: Experiment, data: Data) -> dict[str, Any]:
    """What a checkpoint holds beside arrays, for prediction and for the checks of a resumed run."""
    return {
        "config": json.loads(experiment.config.to_json_best_effort()),
        "transform": f"{data.record_transform}+{transform_name(experiment.image_spec)}",
        "record_transform": data.record_transform,
        "record_size": data.record_size,
        # For `predict`, which has no data set to compare an image with.
        "image_statistics": image_statistics.of_items(
            [part for stream in ("pairs", "images") for part, _ in data.items[stream]]),
        "tokenizer": data.tokenizer.serialised,
        "tokenizer_digest": data.tokenizer.digest,
        "tokenizer_subjects": data.tokenizer_subjects,
        "label_names": list(data.label_names),
        "metric": experiment.config.eval.metric,  # Of the best checkpoint.
        "finding_names": [finding.name for finding in FINDINGS],
        "data": {"names": list(data.names), "items": dict(data.counts), "digest": data.digest},
        "sources": [dataclasses.asdict(item) for item in data.sources],
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
    }


def check_resume(now: Mapping[str, Any], then: Mapping[str, Any], *, constant: bool) -> None:
    """Refuses to go on with a run under another config, tokeniser, transform or data.

    Args:
      now, then: specs of the run as it would go on, and of its checkpoint.
      constant: whether no loss depends on the share of `total_steps` that is done.

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

    old, new = dict(leaves(then["config"])), dict(leaves(now["config"]))
    changed = [key for key in sorted(set(old) | set(new))
               if key.split(".")[0] in FIXED_ON_RESUME and key not in FREE_ON_RESUME and old.get(key) != new.get(key)]
    if changed == ["total_steps"]:
        why = cannot_extend(old, new, constant=constant)
        if why:
            raise UserError(f"the run in this workdir has total_steps={old['total_steps']}, not {new['total_steps']}: "
                            f"{why}; a new --workdir with --config.init_from=RUN starts from its parameters")
        return
    if changed:
        named = ", ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed[:3])
        raise UserError(f"the run in this workdir has another config ({named}): use a new --workdir")


def cannot_extend(old: Mapping[str, Any], new: Mapping[str, Any], *, constant: bool) -> str:
    """Why a run cannot go on to other `total_steps`; "" where it goes on as if it had had them from the beginning.

    Args:
      old, new: {key: value} of the configs; constant: as in `check_resume`.
    """
    if new["optim.schedule"] != "constant":
        return f"the {new['optim.schedule']} schedule ends there"
    if not constant:
        return "the targets of unpaired items set in at shares of it"
    if min(old["total_steps"], new["total_steps"]) <= new["optim.warmup_steps"]:
        return "it is within the warm-up"
    return ""

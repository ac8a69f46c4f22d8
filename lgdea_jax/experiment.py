"""From a config to its parts: towers, method, optimiser, text view, augmentation. The one place that reads both."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lgdea_jax import methods
from lgdea_jax.arrays import flatten
from lgdea_jax.errors import UserError, choose, nearest
from lgdea_jax.losses.chunked import Chunks
from lgdea_jax.models import bert, layers, lgdea, resnet, resnet3d, vit
from lgdea_jax.preprocess.image_spec import ImageSpec
from lgdea_jax.preprocess.volume import VolumeView
from lgdea_jax.records import MODALITIES
from lgdea_jax.training import optim

IMAGE_TOWERS = {"vit": (vit.sizes, vit.ViT), "resnet": (resnet.sizes, resnet.ResNet),
                "resnet3d": (resnet3d.sizes, resnet3d.ResNet3D)}
TEXT_TOWERS = {"bert": (bert.sizes, bert.Bert)}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Method:
    """One of `methods/`, with its options from the config.

    Attributes:
      text: which text it reads ("report", "evidence", "phrases", or "" for none); see `data.pipeline.TextView`.
      streams: the streams of a batch that its losses read: "pairs", and "images" and "reports" where it learns from
        unpaired ones.
      scoring: how findings are asked for, see `evaluators.zero_shot`.
      weights: weight of each loss term.
      losses: (outputs, rows, aux, step) -> {name: scalar}, the terms of weight > 0.
      diagnostics: (outputs, rows) -> {name: scalar}.
      image_embedding, text_embedding: outputs -> {"embedding", "patches" or "query"}; see `predictor`.
      targets: where the targets of unpaired items come from (`evidence_memory.SOURCES`); "" for methods without memory.
      memory_image, memory_report: what the memory keeps of an item, see `evidence_memory.make_targets`; or None.
    """

    name: str
    text: str
    streams: tuple[str, ...]
    scoring: str
    weights: Mapping[str, float]
    losses: Callable[..., dict[str, jax.Array]]
    diagnostics: Callable[..., dict[str, jax.Array]]
    image_embedding: Callable[..., dict[str, jax.Array]]
    text_embedding: Callable[..., dict[str, jax.Array]]
    targets: str = ""
    memory_image: Callable[..., dict[str, jax.Array]] | None = None
    memory_report: Callable[..., dict[str, jax.Array]] | None = None

    @property
    def reads_places(self) -> bool:
        """Whether its losses read where in the image the phrases are."""
        return bool(self.weights.get("place"))


def image_spec(config: Any) -> ImageSpec:
    """What the config's image tower takes.

    Raises:
      UserError: unknown modality or geometry, or keys that do not fit together.
    """
    if choose("image.modality", config.image.modality, MODALITIES) == "xray":
        if config.volume.geometry:
            raise UserError("volume.geometry is for image.modality=ct")
        return config.image.size
    if not config.volume.geometry:
        raise UserError("image.modality=ct needs volume.geometry: that of the data set")
    return VolumeView.of(config.volume.geometry, config.volume.shape, config.volume.window)


def method_names() -> list[str]:
    """Names that `config.method` takes: the modules of `methods/` that have `losses`."""
    return sorted(module.name for module in pkgutil.iter_modules(methods.__path__) if not module.name.startswith("_"))


def load_method(config: Any, mesh: jax.sharding.Mesh | None = None) -> Method:
    """The config's method.

    Args:
      config: the experiment's.
      mesh: that shares a loss which is made in chunks (`config.loss_chunk`).

    Raises:
      UserError: unknown method, loss or option; or one that is not for the config's images.
    """
    name = choose("method", config.method, method_names())
    module = importlib.import_module(f"lgdea_jax.methods.{name}")
    options = config.methods[name].to_dict()
    weights, text, scoring = options.pop("weights"), options.pop("text"), options.pop("scoring")
    for term in weights:
        choose(f"loss of method {name}", term, module.LOSSES)
    functions = [module.losses, module.diagnostics, module.image_embedding, module.text_embedding]
    targets = getattr(module, "TARGETS", "")
    if targets:
        functions += [module.memory_image, module.memory_report]
    takes = {parameter.name for function in functions for parameter in inspect.signature(function).parameters.values()
             if parameter.kind == parameter.KEYWORD_ONLY} - {"terms", "chunks"}
    if unused := sorted(set(options) - takes):
        raise UserError(f"the method {name} does not take the option {unused[0]!r}{nearest(unused[0], takes)}")
    if missing := sorted(takes - set(options)):
        raise UserError(f"the method {name} needs the option config.methods.{name}.{missing[0]}")
    terms = tuple(term for term, weight in weights.items() if weight)
    if not terms:
        raise UserError(f"config.methods.{name}.weights are all 0: nothing to train on")
    if "place" in terms and config.image.modality == "ct":
        raise UserError(f"config.methods.{name}.weights.place is for radiographs; image.modality is ct")

    if config.loss_chunk < 0:
        raise UserError(f"config key 'loss_chunk' is {config.loss_chunk}: at least 0")
    if config.loss_chunk:
        options["chunks"] = Chunks(config.loss_chunk, mesh)

    def bind(function: Callable[..., Any]) -> Callable[..., Any]:
        wanted = inspect.signature(function).parameters
        return functools.partial(function, **{key: value for key, value in options.items() if key in wanted})

    return Method(
        name=name, text=text, streams=("pairs", *getattr(module, "UNPAIRED_STREAMS", ())), scoring=scoring,
        weights=weights,
        losses=functools.partial(bind(module.losses), terms=terms), diagnostics=bind(module.diagnostics),
        image_embedding=bind(module.image_embedding), text_embedding=bind(module.text_embedding), targets=targets,
        memory_image=bind(module.memory_image) if targets else None,
        memory_report=bind(module.memory_report) if targets else None)


def build_model(config: Any, *, vocab_size: int, num_labels: int, seed: int) -> lgdea.TwoTowers:
    """The towers and heads that the config and its method ask for, with fresh parameters.

    Args:
      config: the experiment's config.
      vocab_size: of the tokeniser; 0 without text.
      num_labels: of the classifier head, used by methods that train one.
      seed: of the initial parameters.

    Raises:
      UserError: unknown names, sizes that do not go together, a part that the method needs and the config has not.
    """
    rngs = nnx.Rngs(seed)
    dtype = DTYPES[choose("dtype", config.dtype, DTYPES)]
    model = config.model
    method = importlib.import_module(f"lgdea_jax.methods.{choose('method', config.method, method_names())}")
    needs = method.NEEDS
    sizes_of = {"prototypes": model.prototypes, "lesion_queries": model.lesion_queries, "labels": num_labels}
    for part in set(needs) & set(sizes_of):
        if sizes_of[part] < 1:
            where = "the data sets have none" if part == "labels" else f"model.{part} is {sizes_of[part]}"
            raise UserError(f"the method {config.method} needs {part.replace('_', ' ')}: {where}")

    keep = choose("model.remat_keep", model.remat_keep, layers.REMAT)
    remat = keep if model.remat else False

    def tower(part: Any, towers: Mapping[str, tuple], **extra: Any) -> nnx.Module:
        choose("tower", part.name, towers)
        sizes, cls = towers[part.name]
        options = part[part.name].to_dict()
        try:
            chosen = sizes(options.pop("variant"), **{k: v for k, v in options.pop("sizes").items() if v})
            return cls(**chosen, **options, **extra, dtype=dtype, remat=remat, rngs=rngs)
        except (ValueError, TypeError) as error:
            raise UserError(f"config.model: {error}") from None

    image = None
    if "image" in needs:
        volumes = config.image.modality == "ct"
        if volumes != (model.image.name == "resnet3d"):
            modality = "ct" if volumes else "xray"
            raise UserError(f"image.modality={modality} does not go with the tower {model.image.name}: volumes need "
                            "resnet3d, and it takes nothing else")
        extra = {"image_size": config.image.size} if model.image.name == "vit" else {}
        image = tower(model.image, IMAGE_TOWERS, channels=1, **extra)
    text = None
    if config.methods[config.method].text:
        view = config.text.length[config.methods[config.method].text]
        text = tower(model.text, TEXT_TOWERS, vocab_size=vocab_size, max_length=view)
    return lgdea.TwoTowers(
        image_tower=image, text_tower=text, width=model.width,
        prototypes=model.prototypes if "prototypes" in needs else 0,
        lesion_queries=model.lesion_queries if "lesion_queries" in needs else 0,
        labels=num_labels if "labels" in needs else 0,
        logit_scale=model.logit_scale, logit_bias=model.logit_bias, rngs=rngs, dtype=dtype)


def abstract_model(config: Any, *, vocab_size: int, num_labels: int) -> tuple[Any, Any]:
    """(static part, tree of parameter shapes) of the config's model; nothing is computed."""
    model = nnx.eval_shape(lambda: build_model(config, vocab_size=vocab_size, num_labels=num_labels, seed=0))
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


def initial_params(config: Any, *, vocab_size: int, num_labels: int, seed: int) -> Any:
    """Fresh parameters as a plain tree; jit it with `out_shardings` to place them."""
    model = build_model(config, vocab_size=vocab_size, num_labels=num_labels, seed=seed)
    return nnx.to_pure_dict(nnx.split(model)[1])


def build_optimizer(config: Any, params: Any) -> tuple[optax.GradientTransformation, Callable[[Any], Any]]:
    """(optimiser, learning-rate schedule) of the config."""
    part = config.optim
    schedule = optim.learning_rate(schedule=part.schedule, peak=part.rate, warmup_steps=part.warmup_steps,
                                   total_steps=config.total_steps)
    tx = optim.make_optimizer(params, schedule=schedule, weight_decay=part.weight_decay, beta1=part.beta1,
                              beta2=part.beta2, clip_norm=part.clip_norm, rates=rate_rules(part.rates))
    return tx, schedule


def rate_rules(entries: Sequence[str]) -> list[tuple[str, float]]:
    """("text_tower=0.1", "image_tower/stem=0") to [(pattern, multiplier)]."""
    rules = []
    for entry in entries:
        pattern, _, value = entry.rpartition("=")
        try:
            rules.append((pattern, float(value)))
        except ValueError:
            raise UserError(f"optim.rates: {entry!r} is not PATTERN=MULTIPLIER") from None
    return rules


def parameter_table(params: Any, *, rates: Any = None, depth: int = 2) -> str:
    """Number of parameters by module, as text.

    Args:
      params: tree of parameters.
      rates: tree of rate multipliers like it; frozen modules are marked.
      depth: of the path of a module.
    """
    factors = flatten(rates) if rates is not None else {}
    counts: dict[str, int] = {}
    frozen: dict[str, int] = {}
    for path, leaf in flatten(params).items():
        name = "/".join(path.split("/")[:depth])
        counts[name] = counts.get(name, 0) + leaf.size
        frozen[name] = frozen.get(name, 0) + (leaf.size if factors.get(path) == 0.0 else 0)
    counts["total"], frozen["total"] = sum(counts.values()), sum(frozen.values())
    wide = max(len(name) for name in counts)
    return "\n".join(f"  {name:<{wide}}  {count:>13,}" + (f"  ({frozen[name]:,} frozen)" if frozen[name] else "")
                     for name, count in counts.items())

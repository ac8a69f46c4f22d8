"""From a config to its parts, once: method, model, optimiser, images, text, volumes. Every other module takes these."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lgdea_jax.data.batch import BatchSchema
from lgdea_jax.errors import UserError, choose
from lgdea_jax.losses.chunks import Chunks
from lgdea_jax.methods.base import Method
from lgdea_jax.methods.table import make_method
from lgdea_jax.models import bert, layers, lgdea, resnet, resnet3d, vit
from lgdea_jax.models.forward import ForwardOptions, Window
from lgdea_jax.preprocess.augment import Augment, VolumeAugment
from lgdea_jax.preprocess.device_augment import DeviceAugment
from lgdea_jax.preprocess.image_spec import ImageSpec
from lgdea_jax.preprocess.strong_view import StrongView
from lgdea_jax.preprocess.text_view import TextView
from lgdea_jax.preprocess.volume import VolumeView
from lgdea_jax.records import MODALITIES

IMAGE_TOWERS = {"vit": (vit.sizes, vit.ViT), "resnet": (resnet.sizes, resnet.ResNet),
                "resnet3d": (resnet3d.sizes, resnet3d.ResNet3D)}
TEXT_TOWERS = {"bert": (bert.sizes, bert.Bert)}
# What a tower's empty options are where no published weights and no run fill them (`training.tower_options`).
OPEN: Mapping[str, Mapping[str, str]] = {
    "vit": {"variant": "B/16", "family": "plain", "pool": "gap"}, "resnet": {"variant": "resnet50"},
    "resnet3d": {"variant": "resnet18"}, "bert": {"variant": "base", "family": "bert", "pool": "cls"}}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Tower:
    """A tower before it has parameters.

    Attributes:
      name: a key of IMAGE_TOWERS or TEXT_TOWERS; cls: its class; options: what the class takes.
    """

    name: str
    cls: type[nnx.Module]
    options: Mapping[str, Any]

    def build(self, **extra: Any) -> nnx.Module:
        """The tower with fresh parameters.

        Raises:
          UserError: sizes that do not go together.
        """
        try:
            return self.cls(**self.options, **extra)
        except (ValueError, TypeError) as error:
            raise UserError(f"config.model: {error}") from None


@dataclasses.dataclass(frozen=True)
class Model:
    """The model before it has parameters; what depends on the data are arguments of its functions.

    Attributes:
      image, text: towers, None for a method without.
      width: D, of the shared space.
      prototypes, lesion_queries: their numbers, 0 for a method without.
      classifies: what the linear classifier reads, see `TwoTowers`; "" for a method without.
      projection_bias: whether the projections to the shared space have a bias.
      logit_scale, logit_bias: initial values.
      dtype: of matrix products.
      method: name, for messages.
    """

    image: Tower | None
    text: Tower | None
    width: int
    prototypes: int
    lesion_queries: int
    classifies: str
    projection_bias: bool
    logit_scale: float
    logit_bias: float
    dtype: Any
    method: str

    @property
    def drops(self) -> bool:
        """Whether a tower has dropout."""
        return any(tower.options.get("dropout_rate", 0.0) > 0 for tower in (self.image, self.text) if tower)

    def build(self, *, vocab_size: int, num_labels: int, seed: int) -> lgdea.TwoTowers:
        """Towers and heads with fresh parameters.

        Args:
          vocab_size: of the tokeniser; 0 without text.
          num_labels: of the classifier head, used by methods that train one.
          seed: of the initial parameters.

        Raises:
          UserError: sizes that do not go together, or a classifier without labels.
        """
        if self.classifies and num_labels < 1:
            raise UserError(f"the method {self.method} needs labels: the data sets have none")
        rngs = nnx.Rngs(seed)
        image = self.image.build(rngs=rngs) if self.image else None
        text = self.text.build(rngs=rngs, vocab_size=vocab_size) if self.text else None
        return lgdea.TwoTowers(
            image_tower=image, text_tower=text, width=self.width, prototypes=self.prototypes,
            lesion_queries=self.lesion_queries, labels=num_labels, classifies=self.classifies,
            projection_bias=self.projection_bias, logit_scale=self.logit_scale, logit_bias=self.logit_bias, rngs=rngs,
            dtype=self.dtype)

    def abstract(self, *, vocab_size: int, num_labels: int) -> tuple[Any, Any]:
        """(static part, tree of parameter shapes); nothing is computed. Arguments and errors as of `build`."""
        model = nnx.eval_shape(lambda: self.build(vocab_size=vocab_size, num_labels=num_labels, seed=0))
        graphdef, state = nnx.split(model)
        return graphdef, nnx.to_pure_dict(state)

    def initial_params(self, *, vocab_size: int, num_labels: int, seed: int) -> Any:
        """Fresh parameters as a plain tree; jit it with `out_shardings` to distribute them."""
        return nnx.to_pure_dict(nnx.split(self.build(vocab_size=vocab_size, num_labels=num_labels, seed=seed))[1])


@dataclasses.dataclass(frozen=True)
class OptimOptions:
    """AdamW's settings, see `training.optim`.

    Attributes:
      schedule: "cosine", "linear" or "constant"; peak: learning rate; warmup_steps, total_steps: of the schedule.
      weight_decay, beta1, beta2: of AdamW.
      clip_norm: largest global norm of the gradient; 0 does not clip.
      rates: (pattern over parameter paths, multiplier of the learning rate); the first match wins, 0 freezes.
      frozen: share of the image tower's blocks that do not learn, with all that is before them.
      ema: decay of the averaged parameters; 0 has none.
    """

    schedule: str
    peak: float
    warmup_steps: int
    total_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    clip_norm: float
    rates: tuple[tuple[str, float], ...]
    frozen: float
    ema: float


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that a config describes. Make it with `Experiment.of`, and pass it on.

    Attributes:
      config: the config; for the groups that a single module reads (data, batch, augment, memory, eval, log, ...).
      method: the training objective.
      model: towers and heads.
      optim: the optimiser's settings.
      image_spec: of the model's images: side in pixels, or the view of volumes.
      text: which text the method reads; None without any.
      mean, std, per_image: of grey levels, see `models.forward.ForwardOptions`.
    """

    config: Any
    method: Method
    model: Model
    optim: OptimOptions
    image_spec: ImageSpec
    text: TextView | None
    mean: float
    std: float
    per_image: bool

    @classmethod
    def of(cls, config: Any, mesh: jax.sharding.Mesh | None = None) -> Experiment:
        """The parts of `config`.

        Args:
          config: see configs/common.py.
          mesh: that shares losses which are computed in chunks (`config.loss_chunk`); None for prediction.

        Raises:
          UserError: unknown names, options that do not go together, a part that the method needs and the config lacks.
        """
        method, spec = load_method(config, mesh), load_image_spec(config)
        part, text = config.text, None
        if not 0 < part.distinct <= 1:
            raise UserError(f"config key 'text.distinct' is {part.distinct}: above 0, at most 1")
        if method.text:
            text = TextView(kind=method.text, length=part.length[method.text], phrases=part.phrases,
                            uncertain_weight=part.uncertain_weight, variants=tuple(part.variants))
        return cls(config=config, method=method, model=load_model(config, method, spec, text),
                   optim=load_optim(config), image_spec=spec, text=text, mean=config.image.mean, std=config.image.std,
                   per_image=config.image.per_image)

    @property
    def volume(self) -> VolumeView | None:
        """The view of volumes; None for 2D images."""
        return None if isinstance(self.image_spec, int) else self.image_spec

    @property
    def hidden_reports(self) -> bool:
        """Whether unpaired images carry the reports that they really have: for the oracle and for diagnostics."""
        return self.method.has_memory and self.config.memory.truth

    @property
    def augment(self) -> Augment | VolumeAugment:
        """The random transform of training items.

        Raises:
          UserError: strengths that it cannot have, or volumes on the device.
        """
        config = self.config
        options = {k: tuple(v) if isinstance(v, (tuple, list)) else v for k, v in config.augment.items()}
        if not self.volume:
            return Augment(**options)
        if config.augment.device:
            raise UserError("augment.device=True is for 2D images: volumes are cropped where they are read")
        return VolumeAugment(self.volume, random_crop=config.volume.random_crop, shift=config.volume.shift,
                             noise=config.volume.noise, enabled=config.augment.enabled)

    @property
    def device_augment(self) -> DeviceAugment | None:
        """The part of `augment` that is left to the training step, if any."""
        augment = self.augment
        return DeviceAugment(augment) if isinstance(augment, Augment) and augment.enabled and augment.device else None

    @property
    def strong_view(self) -> StrongView:
        """The student's view of unpaired images."""
        levels = self.volume.window if self.volume else (0.0, 255.0)
        return StrongView(levels=tuple(levels), **self.config.strong)

    def forward_options(self, pad_id: int, *, devices: int = 0) -> ForwardOptions:
        """What the towers' forward pass needs, with the tokeniser's padding.

        Args:
          devices: that share a training batch, in which equal texts are encoded once (`config.text.distinct`); 0 for
            prediction, which encodes every row.
        """
        once = {"distinct": self.config.text.distinct, "devices": devices} if devices else {}
        window = Window(*self.volume.window, *self.volume.geometry.output) if self.volume else None
        return ForwardOptions(pad_id=pad_id, mean=self.mean, std=self.std, per_image=self.per_image,
                              window=window, **once)

    def batch_schema(self, num_labels: int) -> BatchSchema:
        """What a batch holds, with the number of labels of the data sets."""
        return BatchSchema(self.image_spec, self.text, num_labels, hidden_reports=self.hidden_reports,
                           images="image" in self.method.needs)


def load_method(config: Any, mesh: jax.sharding.Mesh | None = None) -> Method:
    """The config's method; arguments and errors as of `Experiment.of`."""
    if config.loss_chunk < 0:
        raise UserError(f"config key 'loss_chunk' is {config.loss_chunk}: at least 0")
    name = choose("method", config.method, config.methods)
    return make_method(name, config.methods[name].to_dict(),
                       chunks=Chunks(config.loss_chunk, mesh) if config.loss_chunk else None)


def load_image_spec(config: Any) -> ImageSpec:
    """The model's input: side of the square in pixels, or the view of volumes.

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


def load_model(config: Any, method: Method, spec: ImageSpec, text: TextView | None) -> Model:
    """The config's model, as far as the method needs it.

    Raises:
      UserError: unknown names, or a part that the method needs and the config lacks.
    """
    model, volumes = config.model, not isinstance(spec, int)
    dtype = DTYPES[choose("dtype", config.dtype, DTYPES)]
    keep = choose("model.remat_keep", model.remat_keep, layers.REMAT)
    shared = {"dtype": dtype, "remat": keep if model.remat else False}
    counts = {"prototypes": model.prototypes, "lesion_queries": model.lesion_queries}
    for part, count in counts.items():
        if part in method.needs and count < 1:
            raise UserError(f"the method {method.name} needs {part.replace('_', ' ')}: model.{part} is {count}")

    def tower(part: Any, towers: Mapping[str, tuple], **extra: Any) -> Tower:
        sizes, cls = towers[choose("tower", part.name, towers)]
        options = part[part.name].to_dict()
        options |= {key: value for key, value in OPEN.get(part.name, {}).items() if not options[key]}
        try:
            chosen = sizes(options.pop("variant"), **{k: v for k, v in options.pop("sizes").items() if v})
        except (ValueError, TypeError) as error:
            raise UserError(f"config.model: {error}") from None
        scan = {"scan": True} if model.scan and "scan" in inspect.signature(cls.__init__).parameters else {}
        return Tower(part.name, cls, {**chosen, **options, **extra, **shared, **scan})

    image = None
    if "image" in method.needs:
        if volumes != (model.image.name == "resnet3d"):
            raise UserError(f"image.modality={config.image.modality} does not go with the tower {model.image.name}: "
                            "volumes need resnet3d, and it takes nothing else")
        side = {"image_size": spec} if model.image.name == "vit" else {}
        image = tower(model.image, IMAGE_TOWERS, channels=1, **side)
    words = tower(model.text, TEXT_TOWERS, max_length=text.length) if text else None
    if model.scan and not any(part and part.options.get("scan") for part in (image, words)):
        raise UserError("model.scan has no effect: it is for the blocks of transformers, and this model has none")
    return Model(
        image=image, text=words, width=model.width,
        prototypes=model.prototypes if "prototypes" in method.needs else 0,
        lesion_queries=model.lesion_queries if "lesion_queries" in method.needs else 0,
        classifies=method.classifies, projection_bias=method.projection_bias, logit_scale=model.logit_scale,
        logit_bias=model.logit_bias, dtype=dtype, method=method.name)


def load_optim(config: Any) -> OptimOptions:
    """The config's optimiser.

    Raises:
      UserError: a rate rule that is not PATTERN=MULTIPLIER.
    """
    part = config.optim
    return OptimOptions(
        schedule=part.schedule, peak=part.rate, warmup_steps=part.warmup_steps, total_steps=config.total_steps,
        weight_decay=part.weight_decay, beta1=part.beta1, beta2=part.beta2, clip_norm=part.clip_norm,
        rates=rate_rules(part.rates), frozen=part.frozen, ema=part.ema)


def rate_rules(entries: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """("text_tower=0.1", "image_tower/stem=0") to ((pattern, multiplier), ...).

    Raises:
      UserError: an entry that is not PATTERN=MULTIPLIER.
    """
    rules = []
    for entry in entries:
        pattern, _, value = entry.rpartition("=")
        try:
            rules.append((pattern, float(value)))
        except ValueError:
            raise UserError(f"optim.rates: {entry!r} is not PATTERN=MULTIPLIER") from None
    return tuple(rules)

"""AdamW as this field uses it: schedules in steps, decay on kernels only, per-module rates, frozen modules, EMA.

Rules are ordered regular expressions over parameter paths (`image_tower/blocks/0/attention/query/kernel`): the first
match wins. A rule that matches nothing is an error, so that a misspelled freeze cannot pass unseen.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lgdea_jax.arrays import path_string
from lgdea_jax.errors import UserError, choose
from lgdea_jax.experiment import OptimOptions

# Biases, norms, embeddings of position, temperatures and prototypes are not decayed: decay on them only fights the loss
# that sets their scale (the prototypes have their own term in L_rec).
DECAYED = r"kernel$"

# The moving moments of batch norm: the training step sets them, the optimiser never does.
MOVING = r"(^|/)(mean|var)$"

# Modules of an image tower before its blocks.
BEFORE_BLOCKS = "^image_tower/(stem|position|cls|registers|input_norm)"


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimiser of a model.

    Attributes:
      tx: the update rule.
      schedule: step -> learning rate, which `tx` follows; to be logged.
      rates: tree of rate multipliers like the parameters; 0 is frozen.
      ema: decay of the averaged parameters, see `update_ema`; 0 has none.
    """

    tx: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    rates: Any
    ema: float


def build(params: Any, options: OptimOptions) -> Optimizer:
    """The optimiser of `params` (or their shapes).

    Raises:
      UserError: unknown schedule, a rate rule that matches no parameter, or a share of a tower that there is not.
    """
    rates = (*frozen_rules(params, options.frozen), *options.rates)
    schedule = learning_rate(schedule=options.schedule, peak=options.peak, warmup_steps=options.warmup_steps,
                             total_steps=options.total_steps)
    tx = make_optimizer(params, schedule=schedule, weight_decay=options.weight_decay, beta1=options.beta1,
                        beta2=options.beta2, clip_norm=options.clip_norm, rates=rates)
    return Optimizer(tx, schedule, rates_by_path(params, rates), options.ema)


def frozen_rules(params: Any, share: float) -> tuple[tuple[str, float], ...]:
    """Rules that freeze the first blocks of the image tower and what is before them.

    Args:
      params: tree of parameters; share: of the blocks, rounded to whole ones: 0 freezes nothing, 1 the whole tower.

    Raises:
      UserError: not a share, or there is no image tower.
    """
    if not 0 <= share <= 1:
        raise UserError(f"config key 'optim.frozen' is {share}: a share from 0 to 1")
    if not share:
        return ()
    paths = [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    if not any(path.startswith("image_tower/") for path in paths):
        raise UserError(f"optim.frozen={share}: the method has no image tower")
    if share == 1:
        return (("^image_tower/", 0.0),)
    blocks = sorted({int(found[1]) for path in paths if (found := re.match(r"image_tower/blocks/(\d+)/", path))})
    first = blocks[:round(share * len(blocks))]
    return ((BEFORE_BLOCKS, 0.0), *((f"^image_tower/blocks/{block}/", 0.0) for block in first))


def learning_rate(*, schedule: str, peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up to `peak`, then "cosine" or "linear" to zero, or "constant"."""
    choose("schedule", schedule, ("cosine", "linear", "constant"))
    warmup_steps = min(warmup_steps, max(total_steps - 1, 0))
    rest = max(total_steps - warmup_steps, 1)
    after = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "constant": optax.constant_schedule(peak),
    }[schedule]
    if not warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), after], [warmup_steps])


def rates_by_path(params: Any, rules: Sequence[tuple[str, float]]) -> Any:
    """A tree of rate multipliers like `params`: that of the first rule that matches a path, 1.0 without one.

    Args:
      params: tree of parameters.
      rules: (pattern, multiplier); 0.0 freezes.

    Raises:
      UserError: a rule matches no parameter.
    """
    paths = [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern, _ in rules:
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(f"optim.rates: the pattern {pattern!r} matches no parameter")

    def rate(path: Sequence[Any], _: Any) -> float:
        name = path_string(path)
        if re.search(MOVING, name):
            return 0.0
        return next((float(value) for pattern, value in rules if re.search(pattern, name)), 1.0)

    return jax.tree_util.tree_map_with_path(rate, params)


def stop_frozen(params: Any, rates: Any) -> Any:
    """`params` with the gradient stopped at the frozen ones, so that nothing is computed backwards for them alone.

    Args:
      params: tree of parameters.
      rates: tree of multipliers like it (`rates_by_path`); 0.0 is frozen.
    """
    return jax.tree.map(lambda value, rate: jax.lax.stop_gradient(value) if rate == 0.0 else value, params, rates)


def make_optimizer(
    params: Any, *, schedule: Callable[[Any], Any], weight_decay: float, beta1: float, beta2: float,
    clip_norm: float, rates: Sequence[tuple[str, float]],
) -> optax.GradientTransformation:
    """AdamW with the rules of this file.

    Args:
      params: tree of parameters (or their shapes).
      schedule: step -> learning rate.
      weight_decay: decoupled decay, on parameters whose path matches `DECAYED`.
      beta1, beta2: Adam's moments.
      clip_norm: gradients are scaled to at most this global norm, frozen ones left out; 0 does not clip.
      rates: (pattern, multiplier) rules; frozen parameters (0.0) have no optimiser slots.
    """
    multipliers = rates_by_path(params, rates)
    decayed = jax.tree_util.tree_map_with_path(lambda path, _: bool(re.search(DECAYED, path_string(path))), params)
    chain = [
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.scale_by_adam(b1=beta1, b2=beta2, mu_dtype=jnp.float32),
        optax.add_decayed_weights(weight_decay, mask=lambda tree: _restrict(decayed, tree)),
        _scale_by_tree(multipliers),
        optax.scale_by_learning_rate(schedule),
    ]
    groups = jax.tree.map(lambda rate: "frozen" if rate == 0.0 else "trained", multipliers)
    if "frozen" not in jax.tree.leaves(groups):
        return optax.chain(*chain)
    return optax.partition({"trained": optax.chain(*chain), "frozen": optax.set_to_zero()}, groups)


def _restrict(full: Any, tree: Any) -> Any:
    """`full` with the holes that `optax.partition` leaves in `tree`."""
    return jax.tree.map(
        lambda part, value: part if isinstance(part, optax.MaskedNode) else value, tree, full,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode))


def _scale_by_tree(multipliers: Any) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factors = _restrict(multipliers, updates)
        scaled = jax.tree.map(
            lambda factor, value: value if isinstance(value, optax.MaskedNode) else value * factor, factors, updates,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode))
        return scaled, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def update_ema(ema: Any, params: Any, *, decay: float, step: jax.Array) -> Any:
    """Exponential moving average of the parameters; early steps use a shorter one, so that the start is forgotten."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step)).astype(jnp.float32)
    return jax.tree.map(lambda old, new: rate * old + (1.0 - rate) * new, ema, params)

"""The training step: a pure function of (state, batch), jitted once over the mesh.

The state is a plain dict of arrays: `params`, `opt` (optimiser), `step`, `ema` (an empty dict without EMA) and `aux`
(the evidence memory of a method that learns from unpaired items; an empty dict without).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lgdea_jax.arrays import flatten, path_string
from lgdea_jax.methods.base import Method
from lgdea_jax.models.forward import Batch, ForwardOptions, forward, gather_streams
from lgdea_jax.models.layers import BatchNorm
from lgdea_jax.preprocess.device_augment import DeviceAugment
from lgdea_jax.preprocess.strong_view import StrongView
from lgdea_jax.training import optim, teacher
from lgdea_jax.training.evidence_memory import EvidenceMemory
from lgdea_jax.training.optim import Optimizer

State = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a step runs the model.

    Attributes:
      forward: how arrays become inputs of the towers.
      seed, dropout: dropout masks are a function of seed and step; False runs without any.
      micro: parts that the towers process the batch in; the gradients are those of the whole batch.
      view: the student's view of unpaired images.
      augment: of all images, before that; None where the input pipeline has done it.
    """

    forward: ForwardOptions
    seed: int
    dropout: bool
    view: StrongView
    augment: DeviceAugment | None = None
    micro: int = 1


def new_state(params: Any, optimizer: Optimizer, *, aux: Any = None) -> State:
    """A state at step 0; it has averaged parameters where the optimiser has a decay for them."""
    return {
        "params": params,
        "opt": optimizer.tx.init(params),
        "step": jnp.zeros([], jnp.int32),
        "ema": jax.tree.map(jnp.copy, params) if optimizer.ema > 0 else {},
        "aux": {} if aux is None else aux,
    }


def moving_moments(model: nnx.Module) -> dict[str, jax.Array]:
    """The moving moments that a training pass left in the model, by parameter path; {} without batch norm."""
    tree = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    return {path_string(path): jax.lax.stop_gradient(value)
            for path, value in jax.tree_util.tree_leaves_with_path(tree)}


def freeze_moments(model: nnx.Module, rates: Any) -> None:
    """Lets the batch norms of frozen modules use the moving moments that they have, in place.

    Args:
      rates: tree of rate multipliers like the parameters.
    """
    flat = flatten(rates)
    for path, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            module.frozen = flat["/".join(map(str, (*path, "scale")))] == 0.0


def train_step(state: State, batch: Batch, *, graphdef: Any, method: Method, optimizer: Optimizer,
               options: StepOptions, memory: EvidenceMemory | None = None) -> tuple[State, dict[str, jax.Array]]:
    """One step of gradient descent.

    Args:
      state: see this module's docstring; donate it when jitting.
      batch: streams of arrays, see `data.batch`.
      graphdef: the model's static part (`nnx.split`).
      method: `loss` is the sum of its terms by their weights.
      optimizer: update rule, rates of the parameters, decay of the averaged ones.
      options: see `StepOptions`.
      memory: makes the targets of unpaired items; None where the batch has none, or the method does not read them.

    Returns:
      (state, metrics): metrics has `loss`, `loss/NAME`, `grad_norm`, `update_norm`, `learning_rate` and diagnostics.
    """
    aux, targets, log = state["aux"], {}, {}
    if options.augment:
        batch = options.augment(batch, options.seed, state["step"])
    if memory:
        lesson = teacher.teach(state, batch, graphdef=graphdef, method=method, memory=memory, view=options.view,
                               options=options.forward, seed=options.seed, micro=options.micro)
        batch, aux, targets, log = lesson.batch, lesson.aux, lesson.targets, lesson.log
    rows = gather_streams(batch)

    def objective(params: Any) -> tuple[jax.Array, tuple[dict[str, jax.Array], ...]]:
        model = nnx.merge(graphdef, optim.stop_frozen(params, optimizer.rates))
        freeze_moments(model, optimizer.rates)
        rngs = None
        if options.dropout:
            rngs = nnx.Rngs(dropout=jax.random.fold_in(jax.random.key(options.seed), state["step"]))
        outputs = forward(model, rows, options=options.forward, train=True, rngs=rngs, micro=options.micro)
        terms = method.losses(outputs, rows, targets)
        if unknown := sorted(set(terms) ^ method.terms):
            raise ValueError(f"losses and their weights do not match: {unknown}")
        total = sum((method.weights[name] * term for name, term in sorted(terms.items())), jnp.zeros([], jnp.float32))
        found = (method.diagnostics(outputs, rows), teacher.found(method, outputs, rows) if memory else {})
        return total, (terms, *jax.lax.stop_gradient(found), moving_moments(model))

    (total, (terms, extra, found, moments)), gradients = jax.value_and_grad(objective, has_aux=True)(state["params"])
    updates, opt = optimizer.tx.update(gradients, state["opt"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    params = jax.tree_util.tree_map_with_path(lambda path, value: moments.get(path_string(path), value), params)
    ema = optim.update_ema(state["ema"], params, decay=optimizer.ema, step=state["step"]) if state["ema"] else {}
    if memory:
        aux = teacher.remember(aux, memory, found, rows, state["step"] + 1)
    metrics = {
        "loss": total,
        **{f"loss/{name}": term for name, term in terms.items()},
        **extra,
        **log,
        "grad_norm": optax.tree.norm(gradients),
        "update_norm": optax.tree.norm(updates),
        "learning_rate": jnp.asarray(optimizer.schedule(state["step"]), jnp.float32),
    }
    new = {"params": params, "opt": opt, "step": state["step"] + 1, "ema": ema, "aux": aux}
    return new, metrics

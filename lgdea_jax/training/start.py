"""The state that a training starts from: of an earlier run here, or fresh, with published weights or another run's."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lgdea_jax.arrays import flatten, unflatten
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.inference import loading, model_folder
from lgdea_jax.models import pretrained
from lgdea_jax.runtime import hub
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.runtime.digests import check_names
from lgdea_jax.training.data import Data
from lgdea_jax.training.state import Parts, check_resume
from lgdea_jax.training.step import State

log = logging.getLogger("lgdea_jax")


def start_state(experiment: Experiment, data: Data, parts: Parts, spec: dict[str, Any],
                checkpoints: Checkpoints) -> tuple[State, bool]:
    """(state, whether it is that of an earlier run in this workdir).

    The sources of the runs that it starts from join those of `spec`: their terms hold for what is made of them.

    Raises:
      UserError: the earlier run is another one, or `init_from` does not fit.
    """
    config = experiment.config

    def check(then: dict[str, Any]) -> None:
        check_resume(spec, then, constant=not parts.memory)
        spec["sources"] = then.get("sources", spec["sources"])

    state = checkpoints.resume(parts.target, check)
    resumed = state is not None
    if resumed:
        origin = f"from step {int(state['step'])} of this run"
    else:
        state = parts.initial()
        origin = f"fresh, seed {config.seed}"
        state, filled = pretrained_towers(experiment, parts, state)
        for line in filled:
            log.info(line)
        if filled:
            towers = " and ".join(line.split(":")[0] for line in filled)
            origin = f"{towers} as above, the rest fresh, seed {config.seed}"
        if config.init_from:
            state, loaded = initialise_from(experiment, data, state)
            earlier = [item for run in config.init_from.split(",") if run
                       for item in model_folder.sources(loading.load_spec(run))]
            spec["sources"] = [*spec["sources"], *(item for item in earlier if item not in spec["sources"])]
            origin = f"{loaded:,} from {' and '.join(config.init_from.split(','))}, the rest fresh"
    log.info("parameters (%s)\n%s", origin, parameter_table(state["params"], rates=parts.optimizer.rates))
    return state, resumed


def initialise_from(experiment: Experiment, data: Data, state: State) -> tuple[State, int]:
    """A fresh state with parameters of the runs `config.init_from` in the modules `config.init_parts` (all by default).

    Of several runs each module comes from the only one that has it: an image tower and a text tower, for example, from
    two supervised runs.

    Returns:
      (state, number of parameters taken).

    Raises:
      UserError: no such run, a module that does not fit, that no run has or several have, or text modules made for
        another tokeniser.
    """
    config = experiment.config
    flat = flatten(state["params"])
    modules = list(dict.fromkeys(path.split("/")[0] for path in flat))
    parts = tuple(config.init_parts) or tuple(modules)
    if missing := [part for part in parts if part not in modules]:
        raise UserError(f"init_parts: the model has no {missing[0]!r}; it has {', '.join(modules)}")
    runs = {run: run_shapes(run) for run in config.init_from.split(",") if run}
    modules_of = {run: {path.split("/")[0] for path in shapes} for run, (shapes, _) in runs.items()}
    taken: dict[str, Any] = {}
    for run, some in share_out(parts, modules_of).items():
        shapes, tokenizer = runs[run]
        if any(part.startswith("text") for part in some) and tokenizer != data.tokenizer.digest:
            raise UserError(f"the text tower of {run} was trained with another tokeniser: "
                            "--config.text.tokenizer must be that run's, or --config.init_parts=image_tower")
        wanted = _shapes_within(flat, some)
        check_names(_shapes_within(shapes, some), wanted, run)
        other = run_params(run)
        taken |= {path: jax.device_put(np.asarray(other[path]), flat[path].sharding) for path in wanted}
    params = unflatten(state["params"], flat | taken)
    ema = jax.tree.map(jnp.copy, params) if state["ema"] else {}
    return {**state, "params": params, "ema": ema}, sum(int(np.prod(value.shape)) for value in taken.values())


def share_out(parts: Sequence[str], runs: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """{run: the modules to take from it}.

    Args:
      parts: modules to take; runs: {run: the modules that it has}. A single run is asked for all of them.

    Raises:
      UserError: none of several runs has a module, or more than one.
    """
    if len(runs) == 1:
        return {run: list(parts) for run in runs}
    shared: dict[str, list[str]] = {}
    for part in parts:
        having = [run for run, modules in runs.items() if part in modules]
        if not having:
            raise UserError(f"init_from: none of {', '.join(runs)} has the module {part}")
        if len(having) > 1:
            raise UserError(f"init_from: {' and '.join(having)} have the module {part}: name the modules to take, as "
                            "in --config.init_parts=image_tower,text_tower")
        shared.setdefault(having[0], []).append(part)
    return shared


def _shapes_within(names: Mapping[str, Any], parts: Sequence[str]) -> dict[str, tuple]:
    return {path: tuple(leaf.shape) for path, leaf in names.items() if path.split("/")[0] in parts}


def run_shapes(run: str) -> tuple[dict[str, Any], str]:
    """({path: array or shape} of the parameters of a run or an exported model, digest of its tokeniser).

    Raises:
      UserError: no such run, or one of another version.
    """
    folder = model_folder.locate(run)
    if model_folder.is_model(folder):
        return model_folder.read_params(folder), model_folder.read_spec(folder)["tokenizer_digest"]
    with contextlib.closing(Checkpoints(folder, writable=False)) as source:
        step = source.resolve("latest")
        spec = source.spec(step)  # Refuses another version before anything else is read.
        return source.arrays(step)["params"], spec["tokenizer_digest"]


def run_params(run: str) -> dict[str, Any]:
    """{path: array on the host} of a run's parameters at its last step; errors as of `run_shapes`."""
    folder = model_folder.locate(run)
    if model_folder.is_model(folder):
        return model_folder.read_params(folder)
    host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with contextlib.closing(Checkpoints(folder, writable=False)) as source:
        step = source.resolve("latest")
        return source.restore_params(step, {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=host)
            for path, leaf in source.arrays(step)["params"].items()})


def pretrained_towers(experiment: Experiment, parts: Parts, state: State) -> tuple[State, list[str]]:
    """A fresh state with published weights in the towers whose `weights` the config names; the heads stay fresh.

    Returns:
      (state, a line for the log on every tower that was filled).

    Raises:
      UserError: weights that cannot be read or do not fit, a tower that the method has not, or that `init_from` fills.
    """
    config = experiment.config
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
            loaded = pretrained.load_tower(tower, hub.fetch_tower(path))
        except pretrained.WeightsError as error:
            raise UserError(f"model.{name}.weights: {error}") from None
        for key, value in loaded.params.items():  # Those of a replaced stem are not there, and stay.
            key = f"{name}_tower/{key}"
            flat[key] = jax.device_put(value, flat[key].sharding)
        lines.append(f"{name} tower: {loaded.summary()}")
    if not lines:
        return state, lines
    params = unflatten(state["params"], flat)
    return {**state, "params": params, "ema": jax.tree.map(jnp.copy, params) if state["ema"] else {}}, lines


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

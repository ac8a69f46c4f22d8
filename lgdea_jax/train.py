"""Training: config -> data -> state -> step -> checkpoint -> evaluators. The only loop of the project.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN [--config.data.dir=DATA] [--config.key=value ...]

Running the same command again goes on from the last checkpoint, bit for bit: batch n is a function of (config, n) alone.
SIGTERM and Ctrl-C save first (exit status 143 and 130). RUN holds config.json, metrics.jsonl, evals.jsonl,
tensorboard/ and checkpoints/.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import functools
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from lgdea_jax import assemble, cli, data_plan, input_pipeline, record_source, sharding, train_step
from lgdea_jax.checkpoint import Checkpoints, check_names, flatten
from lgdea_jax.cli import UserError
from lgdea_jax.findings.vocabulary import FINDINGS
from lgdea_jax.preprocess.augment import Augment
from lgdea_jax.preprocess.image import MODEL_TRANSFORM, RECORD_TRANSFORM
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.train_log import EVALS, Clock, Progress, TrainLog

log = logging.getLogger("lgdea_jax")

# Parts of the config that must stay when a run goes on: another value would make it another run.
FIXED_ON_RESUME = ("method", "seed", "total_steps", "dtype", "data", "batch", "image", "text", "augment", "model", "optim",
                   "methods")
# These do not change what batch n holds.
FREE_ON_RESUME = ("data.cache", "data.workers", "data.threads", "data.dir", "data.pairs_from", "data.images_from",
                  "data.reports_from", "data.held_out_from", "data.make_from")

# Dense bf16 peak of one device in TFLOP/s, from the makers' data sheets.
PEAK_TFLOPS = {"NVIDIA A100": 312, "NVIDIA H100": 989, "NVIDIA H200": 989, "TPU v4": 275, "TPU v5 lite": 197,
               "TPU v5p": 459, "TPU v6 lite": 918}


@dataclasses.dataclass(frozen=True)
class Data:
    """What training reads: batches by step number, and what a checkpoint must know of them."""

    batches: Any
    tokenizer: TextTokenizer
    label_names: tuple[str, ...]
    record_transform: str
    sizes: Mapping[str, int]
    counts: Mapping[str, int]
    names: tuple[str, ...]


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    log.setLevel(logging.INFO)
    parser = cli.Parser(
        prog="python -m lgdea_jax.train",
        description="Pretrains image and text towers. Research use only, not a medical device.",
        epilog="--config=FILE names the experiment (see configs/); --config.KEY=VALUE changes a key of it.")
    parser.add_argument("--workdir", required=True, help="folder of the run; an earlier run there goes on")
    parser.add_argument("--config", metavar="FILE", help="the experiment, for example configs/phantom.py")
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        return cli.OK
    config, rest = cli.load_config(argv)
    return train(config, parser.parse_args(rest).workdir)


def train(config: Any, workdir: str | Path) -> int:
    """Runs (or goes on with) the training that `config` describes.

    Args:
      config: see configs/common.py for every key.
      workdir: the run's folder.

    Returns:
      An exit status of `cli`: OK, INTERRUPTED or TERMINATED.

    Raises:
      UserError: a fault that the user can mend, NaN losses included.
    """
    sharding.start_hosts(**config.distributed)
    main_process = jax.process_index() == 0
    if config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compile_cache).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    mesh = sharding.make_mesh(**config.mesh)
    data = prepare_data(config, mesh, show=main_process)
    checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep)
    try:
        return _run(config, workdir, mesh, data, checkpoints, main_process)
    finally:
        checkpoints.close()


def _run(config: Any, workdir: Path, mesh: jax.sharding.Mesh, data: Data, checkpoints: Checkpoints,
         main_process: bool) -> int:
    clock = Clock()
    spec = make_spec(config, data)
    steps = checkpoints.steps()
    if steps:
        check_resume(spec, checkpoints.spec(steps[-1]))
    if main_process:
        (workdir / "config.json").write_text(json.dumps(spec["config"], indent=1, sort_keys=True) + "\n")
    with clock.pause("start"):
        graphdef, tx, schedule, make_state, placement = prepare_state(config, data, mesh)
        state = make_state()
        if main_process:
            log.info("parameters\n%s", assemble.parameter_table(state["params"]))
        if steps:
            state = checkpoints.restore_state(steps[-1], state)
            log.info("going on from step %d", steps[-1])
        elif config.init_from:
            state["params"], loaded = initialise_from(config, data, state["params"])
            state["ema"] = jax.tree.map(jax.numpy.copy, state["params"]) if state["ema"] else {}
            log.info("%d parameters from %s", loaded, config.init_from)
        start = int(state["step"])
    journal = TrainLog(workdir, first_step=start, active=main_process, tensorboard=config.log.tensorboard)
    progress = Progress(config.total_steps, active=main_process)
    evaluate = Evaluation(config, graphdef, data, spec)
    batches = device_batches(config, mesh, data, start)
    stop = StopSignals()
    rows = sum(data.sizes.values())

    def evaluate_at(step: int, state: Any) -> None:
        with clock.pause("evaluate"):
            scores = evaluate(state)
            if scores:
                journal.write(step, scores, file=EVALS)
                checkpoints.wait()
                checkpoints.score(step, config.eval.metric, scores.get(config.eval.metric, float("nan")))
                if main_process:
                    log.info("step %d  %s", step, "  ".join(f"{k} {v:.3f}" for k, v in headline(scores).items()))

    try:
        # An evaluation that a preemption cut short is made up for before training goes on.
        if steps and evaluation_due(config, start) and main_process and not journal.has_eval(start):
            evaluate_at(start, state)
        if start >= config.total_steps:
            log.info("already trained for %d steps: nothing to do", start)
            return cli.OK
        with clock.pause("compile"):
            first = next(batches)
            compiled = compile_step(config, data, graphdef, tx, schedule, state, first, placement, mesh)
            flops = forward_flops(compiled) if main_process else 0.0
        clock.reset_mark(start)
        pending: list[tuple[int, Any]] = []
        batch: Any = first
        for step in range(start + 1, config.total_steps + 1):
            if config.log.watchdog_seconds:
                faulthandler.dump_traceback_later(config.log.watchdog_seconds, exit=True)
            if batch is None:
                with clock.data_wait():
                    batch = next(batches)
            state, metrics = compiled(state, batch)
            batch = None
            pending.append((step, metrics))
            last = step == config.total_steps
            stopped = stop.agreed(step)
            saving = last or stopped or step % config.checkpoint.every == 0
            if step % config.log.every == 0 or saving or evaluation_due(config, step):
                scalars = check_finite(jax.device_get(pending), checkpoints)
                rates = clock.rates(step, rows)
                if flops and rates:
                    rates |= utilisation(flops, rates["time/step_seconds"], config.log.peak_tflops)
                journal.write(step, scalars | rates)
                progress.show(step, loss=scalars["loss"], seconds_per_step=rates.get("time/step_seconds", 0.0), force=last)
                pending.clear()
            if saving:
                with clock.pause("checkpoint"):
                    checkpoints.save(state, spec)
            if stopped:
                checkpoints.wait()
                log.info("stopped by %s after saving step %d", signal.Signals(stop.number).name, step)
                return cli.INTERRUPTED if stop.number == signal.SIGINT else cli.TERMINATED
            if evaluation_due(config, step):
                evaluate_at(step, state)
        checkpoints.wait()
        progress.end()
        if main_process:
            paused = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in clock.pauses.items())
            log.info("trained %d steps in %.1f s (%s apart)", config.total_steps - start, clock.training_seconds(), paused)
        return cli.OK
    finally:
        faulthandler.cancel_dump_traceback_later()
        stop.restore()
        journal.close()


def prepare_data(config: Any, mesh: jax.sharding.Mesh, *, show: bool) -> Data:
    """Plans the streams and opens them; makes the phantom data set when it is missing.

    Raises:
      UserError: no data, a leak, streams that do not fit the batch, a tokeniser that cannot be read.
    """
    part = config.data
    if part.dir and not Path(part.dir).exists() and part.make_from:
        make_dataset(part.make_from, part.dir, build=jax.process_index() == 0)
    plan = data_plan.make_plan(part, seed=config.seed)
    directories = list(dict.fromkeys(directory for rows in plan.rows.values() for directory, *_ in rows))
    metadata = [record_source.load_metadata(directory) for directory in directories]
    transforms = sorted({meta.transform for meta in metadata})
    if transforms != [RECORD_TRANSFORM]:
        raise UserError(f"the records were made with the transform {', '.join(transforms)}; this code trains on "
                        f"{RECORD_TRANSFORM}: build the data set again")
    tokenizer = load_tokenizer(config, directories, metadata)
    label_names = tuple(dict.fromkeys(name for meta in metadata for name in meta.label_names))
    method = assemble.load_method(config)
    view = input_pipeline.TextView(
        kind=method.text or "report", length=config.text.length[method.text or "report"], phrases=config.text.phrases,
        uncertain_weight=config.text.uncertain_weight, variants=tuple(config.text.variants))
    sizes = {stream: config.batch[stream] for stream in data_plan.STREAMS}
    counts = {stream: plan.count(stream) for stream in data_plan.STREAMS}
    if show:
        log.info("data: %s", ", ".join(f"{count} {stream}" for stream, count in counts.items()))
    used = {stream for stream, size in sizes.items() if size}
    items: dict[str, list] = {stream: [] for stream in data_plan.STREAMS}
    total = sum(counts[stream] for stream in used)
    with tqdm(total=total, desc="reading", unit=" items", disable=not (show and part.cache)) as bar:
        for stream in used:
            for (directory, split, rows, studies), weight in weighted_parts(plan.rows[stream], part, stream):
                items[stream].append((input_pipeline.Items(
                    [(directory, split)], [rows], [studies], with_image=stream != "reports",
                    with_text=stream != "images" and bool(method.text), image_size=config.image.size, view=view,
                    tokenizer=tokenizer, label_names=label_names, cache=part.cache, progress=bar.update), weight))
    augment = Augment(**{k: tuple(v) if isinstance(v, (tuple, list)) else v for k, v in config.augment.items()})
    batches = input_pipeline.make_batches(
        items, sizes=sizes, rows_of=lambda rows: sharding.rows_of_process(rows, mesh), augment=augment, seed=config.seed)
    return Data(batches=batches, tokenizer=tokenizer, label_names=label_names, record_transform=transforms[0], sizes=sizes,
                counts=counts, names=tuple(meta.name for meta in metadata))


def weighted_parts(parts: list, data: Any, stream: str) -> Iterator[tuple[Any, float]]:
    """Each part of a stream with its mixture weight: that of the config, or its size."""
    given = dict(data_plan.parse_weights(data[f"{stream}_from"]))
    explicit = any(":" in entry for entry in data[f"{stream}_from"])
    for entry in parts:
        yield entry, given.get(entry[0], 1.0) if explicit else float(len(entry[2]))


def make_dataset(build_config: str, out: str, *, build: bool) -> None:
    """Builds the phantom data set at `out` (process 0; the others wait)."""
    if build:
        from data_prep import build as data_build

        log.info("no data set at %s: making it with %s", out, build_config)
        data_build.build(cli.read_config(build_config), Path(out))
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("data set made")


def load_tokenizer(config: Any, directories: list[str], metadata: list[Any]) -> TextTokenizer:
    """The tokeniser that the config names, or the one that the data sets carry.

    Raises:
      UserError: none, or several data sets that carry different ones.
    """
    if config.text.tokenizer:
        return TextTokenizer.load(config.text.tokenizer)
    own = {directory: TextTokenizer.load(Path(directory) / meta.tokenizer)
           for directory, meta in zip(directories, metadata, strict=True) if meta.tokenizer}
    if not own:
        raise UserError("no data set carries a tokeniser: name one with --config.text.tokenizer=FILE")
    paired = [directory for directory, _ in data_plan.parse_weights(
        [config.data.dir] if config.data.dir else config.data.pairs_from)]
    if len({tokenizer.digest for tokenizer in own.values()}) > 1 and not (len(paired) == 1 and paired[0] in own):
        raise UserError("the data sets carry different tokenisers: name the one to use with --config.text.tokenizer=FILE "
                        f"(for example {next(iter(own))}/tokenizer.json)")
    return own[paired[0]] if len(paired) == 1 and paired[0] in own else next(iter(own.values()))


def make_spec(config: Any, data: Data) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return {
        "config": json.loads(config.to_json_best_effort()),
        "transform": f"{data.record_transform}+{MODEL_TRANSFORM}:{config.image.size}",
        "record_transform": data.record_transform,
        "tokenizer": data.tokenizer.serialised,
        "tokenizer_digest": data.tokenizer.digest,
        "label_names": list(data.label_names),
        "finding_names": [finding.name for finding in FINDINGS],
        "data": {"names": list(data.names), "items": dict(data.counts)},
        "versions": {"jax": jax.__version__, "numpy": np.__version__},
    }


def check_resume(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Refuses to go on with a run under another config, tokeniser, transform or data.

    Raises:
      UserError: names the first differences.
    """
    for key, what in (("tokenizer_digest", "tokeniser"), ("transform", "transform"), ("label_names", "labels"),
                      ("data", "training data")):
        if now[key] != then[key]:
            raise UserError(f"the run in this workdir was made with another {what}: use a new --workdir")

    def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    old, new = dict(leaves(then["config"])), dict(leaves(now["config"]))
    changed = [key for key in sorted(set(old) | set(new))
               if key.split(".")[0] in FIXED_ON_RESUME and key not in FREE_ON_RESUME and old.get(key) != new.get(key)]
    if changed:
        named = ", ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed[:3])
        raise UserError(f"the run in this workdir has another config ({named}): use a new --workdir")


def prepare_state(config: Any, data: Data, mesh: jax.sharding.Mesh) -> tuple[Any, Any, Any, Callable[[], Any], Any]:
    """(static model, optimiser, schedule, function that makes the state at step 0, its shardings)."""
    sizes = {"vocab_size": data.tokenizer.vocab_size, "num_labels": len(data.label_names)}
    graphdef, shapes = assemble.abstract_model(config, **sizes)
    tx, schedule = assemble.build_optimizer(config, shapes)

    def initial() -> Any:
        params = assemble.initial_params(config, seed=config.seed, **sizes)
        return train_step.new_state(params, tx, ema=config.optim.ema > 0)

    placement = sharding.tree_shardings(jax.eval_shape(initial), mesh)
    return graphdef, tx, schedule, jax.jit(initial, out_shardings=placement), placement


def initialise_from(config: Any, data: Data, params: Any) -> tuple[Any, int]:
    """`params` with those of `config.init_from` in the modules `config.init_parts` (all of them by default).

    Returns:
      (params, number of parameters taken).

    Raises:
      UserError: no such run, a module that does not fit, or text modules made for another tokeniser.
    """
    source = Checkpoints(config.init_from, writable=False)
    step = source.resolve("latest")
    spec = source.spec(step)
    flat = flatten(params)
    parts = tuple(config.init_parts) or tuple(dict.fromkeys(path.split("/")[0] for path in flat))
    if any(part.startswith("text") for part in parts) and spec["tokenizer_digest"] != data.tokenizer.digest:
        raise UserError(f"the text tower of {config.init_from} was trained with another tokeniser: "
                        f"--config.text.tokenizer must be that run's, or --config.init_parts=image_tower")
    other_config = type(config)(spec["config"])
    tokenizer = TextTokenizer(spec["tokenizer"])
    _, shapes = assemble.abstract_model(other_config, vocab_size=tokenizer.vocab_size, num_labels=len(spec["label_names"]))
    single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=single), shapes)
    other = flatten(source.restore_params(step, target))
    source.close()

    def within(names: Mapping[str, Any]) -> dict[str, tuple]:
        return {path: tuple(leaf.shape) for path, leaf in names.items() if path.split("/")[0] in parts}

    wanted = within(flat)
    if missing := [part for part in parts if not any(path.split("/")[0] == part for path in wanted)]:
        raise UserError(f"init_parts: the model has no {missing[0]!r}; it has "
                        f"{', '.join(dict.fromkeys(path.split('/')[0] for path in flat))}")
    check_names(within(other), wanted, config.init_from)
    taken = {path: jax.device_put(np.asarray(other[path]), flat[path].sharding) for path in wanted}
    from lgdea_jax.checkpoint import unflatten

    return unflatten(params, {**flat, **taken}), sum(int(np.prod(shape)) for shape in wanted.values())


def device_batches(config: Any, mesh: jax.sharding.Mesh, data: Data, start: int) -> Iterator[Any]:
    """Batches on the devices from step `start` on."""
    host = input_pipeline.iterate(data.batches, start=start, workers=config.data.workers, threads=config.data.threads)
    return input_pipeline.prefetch_to_device(host, lambda batch: sharding.put_batch(batch, mesh))


def compile_step(config: Any, data: Data, graphdef: Any, tx: Any, schedule: Any, state: Any, batch: Any,
                 placement: Any, mesh: jax.sharding.Mesh) -> Any:
    """The step compiled once for these shapes; a batch of another shape is an error, never a second compilation."""
    method = assemble.load_method(config)
    step = functools.partial(
        train_step.train_step, graphdef=graphdef, tx=tx, losses=method.losses, diagnostics=method.diagnostics,
        weights=method.weights, schedule=schedule, ema_decay=config.optim.ema, pad_id=data.tokenizer.pad_id,
        mean=config.image.mean, std=config.image.std, seed=config.seed, dropout=uses_dropout(config))
    whole = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(placement, whole))
    return jitted.lower(state, batch).compile()


def uses_dropout(config: Any) -> bool:
    """Whether a tower of the config drops anything."""
    return any(tower[tower.name].get("dropout_rate", 0.0) > 0 for tower in (config.model.image, config.model.text))


def forward_flops(compiled: Any) -> float:
    """Floating-point operations of one step as the compiler counts them; 0 where it does not say."""
    analysis = compiled.cost_analysis() or {}
    return float(analysis.get("flops", 0.0))


def utilisation(flops: float, seconds: float, peak_tflops: float) -> dict[str, float]:
    """TFLOP/s of one device and, where its peak is known, the share of it."""
    rate = flops / seconds / 1e12
    kind = jax.local_devices()[0].device_kind
    peak = peak_tflops or next((value for name, value in PEAK_TFLOPS.items() if kind.startswith(name)), 0.0)
    return {"time/tflops": rate, **({"time/mfu": rate / peak} if peak else {})}


def check_finite(rows: list[tuple[int, Mapping[str, np.ndarray]]], checkpoints: Checkpoints) -> dict[str, float]:
    """The mean of each metric over the steps since the last look.

    Raises:
      UserError: one of them is NaN or infinite; the first step and the loss are named.
    """
    for step, metrics in rows:
        bad = [name for name in sorted(metrics, key=lambda name: (not name.startswith("loss/"), name))
               if not np.isfinite(metrics[name])]
        if bad:
            steps = checkpoints.steps()
            where = f"the last good checkpoint is step {steps[-1]}" if steps else "there is no checkpoint yet"
            raise UserError(f"{bad[0]} became {metrics[bad[0]]} at step {step}; {where}. Try a lower --config.optim.rate, "
                            "a smaller --config.optim.clip_norm, or that loss's weight at 0 to see if it is the cause")
    return {name: float(np.mean([metrics[name] for _, metrics in rows])) for name in rows[0][1]}


def evaluation_due(config: Any, step: int) -> bool:
    """Whether the run evaluates after `step`."""
    return step == config.total_steps or bool(config.eval.every and step and step % config.eval.every == 0)


class Evaluation:
    """The evaluators on the validation split, as the binaries run them, without intervals."""

    def __init__(self, config: Any, graphdef: Any, data: Data, spec: Mapping[str, Any]) -> None:
        self._config, self._graphdef, self._data, self._spec = config, graphdef, data, dict(spec)
        self._examples: Any = None

    def __call__(self, state: Any) -> dict[str, float]:
        """Scores by metric name; {} when there is nothing to evaluate on."""
        from lgdea_jax.evaluators.base import EvalData
        from lgdea_jax.evaluators.tasks import evaluate
        from lgdea_jax.predictor import Predictor

        part = self._config.eval
        directory = part.dir or self._config.data.dir
        if not directory or part.split not in record_source.load_metadata(directory).splits:
            return {}
        if self._examples is None:
            records = record_source.open_records(directory, part.split)
            count = min(part.records or len(records), len(records))
            chosen = np.sort(np.random.default_rng(0).permutation(len(records))[:count])
            self._examples = EvalData.from_records(
                [records[int(index)] for index in chosen], record_source.load_metadata(directory), self._config.image.size)
        params = whole_on_host(state["ema"] or state["params"])
        predict = Predictor(config=self._config, params=params, graphdef=self._graphdef, tokenizer=self._data.tokenizer,
                            spec=self._spec)
        return evaluate(predict, self._examples, seed=0)


def whole_on_host(params: Any) -> Any:
    """Parameters as NumPy arrays, gathered from all processes."""
    if jax.process_count() == 1:
        return jax.device_get(params)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(params, tiled=True)


def headline(scores: Mapping[str, float]) -> dict[str, float]:
    """The few scores that a line has room for."""
    wanted = ("zero_shot/auroc", "retrieval/precision@5", "grounding/pointing", "grounding/cnr")
    return {name: scores[name] for name in wanted if name in scores}


class StopSignals:
    """Remembers SIGTERM and SIGINT, so that the loop can save before it stops. A second one stops at once."""

    def __init__(self) -> None:
        self.number = 0
        self._old = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._old[number] = signal.signal(number, self._remember)
            except ValueError:  # Not the main thread (a notebook's): signals stay as they are.
                return

    def _remember(self, number: int, frame: Any) -> None:
        if self.number:
            self.restore()
            signal.raise_signal(number)
        self.number = number

    def agreed(self, step: int) -> bool:
        """Whether to stop after `step`; all processes of a run agree on it."""
        if jax.process_count() == 1:
            return bool(self.number)
        if step % 10:  # Asking every process costs a round trip: now and then is soon enough.
            return False
        from jax.experimental import multihost_utils

        numbers = multihost_utils.process_allgather(np.asarray(self.number))
        self.number = int(np.max(numbers))
        return bool(self.number)

    def restore(self) -> None:
        """Gives the signals back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}


if __name__ == "__main__":
    cli.run(main)

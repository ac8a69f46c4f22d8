"""Three steps of `lgdea` against plain optax and NumPy; what the teacher reads; the memory's rows item by item."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lgdea_jax import cli
from lgdea_jax.arrays import flatten, path_string
from lgdea_jax.experiment import Experiment
from lgdea_jax.models.forward import forward, gather_streams
from lgdea_jax.runtime import sharding
from lgdea_jax.training import optim, teacher
from lgdea_jax.training.data import prepare_data
from lgdea_jax.training.state import prepare_parts
from lgdea_jax.training.step import StepOptions, train_step

STEPS, RATE, DECAY, BETA1, BETA2, CLIP, EMA = 3, 1e-2, 0.05, 0.9, 0.98, 0.5, 0.9


@pytest.fixture(scope="module")
def run(phantom_data):
    """(experiment, data, parts, mesh) of a tiny `lgdea` with unpaired streams and averaged parameters."""
    config = cli.read_config("tests/training/tiny.py:lgdea")
    config.data.dir, config.data.pairs = str(phantom_data), 0.5
    config.batch.pairs, config.batch.images, config.batch.reports = 4, 3, 2
    config.methods.lgdea.weights.evid_report, config.methods.lgdea.weights.evid_align = 0.2, 0.1
    config.optim.rate, config.optim.warmup_steps, config.optim.schedule = RATE, 0, "constant"
    config.optim.weight_decay, config.optim.beta1, config.optim.beta2 = DECAY, BETA1, BETA2
    config.optim.clip_norm, config.optim.ema = CLIP, EMA
    config.memory.start, config.memory.full, config.memory.truth = 0.01, 0.2, True
    mesh = sharding.make_mesh(**config.mesh)
    experiment = Experiment.of(config, mesh)
    data = prepare_data(experiment, mesh, show=False)
    return experiment, data, prepare_parts(experiment, data, mesh), mesh


def some_memory(memory):
    """A memory whose items were all visited, with relations."""
    aux, rng = memory.blank(), np.random.default_rng(0)
    for side in ("images", "reports"):
        rows = memory.rows(side)
        aux = memory.visit(aux, side, jnp.arange(rows), jnp.asarray(rng.dirichlet(np.ones(memory.prototypes), rows),
                           jnp.float32), jnp.asarray(rng.normal(size=(rows, memory.width)), jnp.float32), 1)
        aux = memory.count(aux, side, aux[side]["evidence"], jnp.ones(rows))
    return jax.jit(memory.rebuild)(aux)


def in_order(flat, tree):
    """The values of {path: value} in the order of the tree's leaves."""
    return [jnp.asarray(flat[path_string(path)], jnp.float32) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


# Where the four pairs and two unpaired reports of a batch stand: two blocks of two pairs and a report. Four pairs and
# three unpaired images have no common divisor: one block.
REPORTS = [0, 1, 4, 2, 3, 5]


def own_rows(batch):
    """The rows of a batch, written out."""
    pairs, images, reports = (batch[name] for name in ("pairs", "images", "reports"))
    both = {name: np.concatenate([pairs[name], images[name]]) for name in ("image", "image_index")}
    both |= {name: np.concatenate([pairs[name], reports[name]])[REPORTS]
             for name in ("tokens", "weight", "finding", "normal", "report_index")}
    return {**both, **{name: pairs[name] for name in ("study",)}}


def test_three_steps_are_those_of_plain_optax(run):
    experiment, data, parts, _ = run
    config, method = experiment.config, experiment.method
    state, memory = parts.initial(), parts.memory
    state["aux"] = some_memory(memory)
    view = experiment.strong_view
    options = StepOptions(forward=experiment.forward_options(data.tokenizer.pad_id), seed=0, dropout=False, view=view)
    step = jax.jit(functools.partial(train_step, graphdef=parts.graphdef, method=method, optimizer=parts.optimizer,
                                     options=options, memory=memory))
    pad = data.tokenizer.pad_id

    def towers(params, images, tokens):
        model = nnx.merge(parts.graphdef, params)
        image = (images.astype(np.float32) / 255 - config.image.mean) / config.image.std
        count, phrases, length = tokens.shape
        flat = tokens.reshape(-1, length)
        return {**model.shared(), "image": model.encode_image(jnp.asarray(image)[..., None], train=True),
                "text": {name: value.reshape(count, phrases, *value.shape[1:])
                         for name, value in model.encode_text(flat, flat != pad, train=True).items()}}

    def loss(params, rows, targets):
        rows = {**rows, "num_pairs": 4}
        outputs = towers(params, rows["image"], rows["tokens"])
        terms = method.losses(outputs, rows, targets)
        return sum(config.methods.lgdea.weights[name] * term for name, term in terms.items()), terms

    kernels = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", state["params"])
    plain = optax.chain(optax.clip_by_global_norm(CLIP),
                        optax.adamw(RATE, b1=BETA1, b2=BETA2, weight_decay=DECAY, mask=kernels))
    params, ema = state["params"], {k: np.asarray(v, np.float64) for k, v in flatten(state["params"]).items()}
    opt = plain.init(params)
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for number in range(STEPS):
        batch = data.batches[number]
        # The teacher has the averaged parameters and the images of the pipeline; the student a view of its own.
        average = jax.tree.unflatten(jax.tree.structure(params), in_order(ema, params))
        seen = method.memory_image(towers(average, batch["images"]["image"], batch["images"]["hidden_tokens"]))
        _, target, weight, _ = memory.image_targets(state["aux"], seen["evidence"], seen["features"], jnp.int32(number))
        mirror, report_weight = memory.report_targets(
            state["aux"], batch["reports"]["report_index"], jnp.int32(number))
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), number)
        rows = own_rows(batch)
        rows["image"] = np.concatenate([batch["pairs"]["image"], view(key, batch["images"]["image"])])
        (total, terms), gradients = gradient(params, rows, {
            "image_target": target, "image_weight": weight, "report_target": mirror, "report_weight": report_weight})
        updates, opt = plain.update(gradients, opt, params)
        params = optax.apply_updates(params, updates)
        rate = min(EMA, (1 + number) / (10 + number))
        ema = {path: rate * ema[path] + (1 - rate) * np.asarray(new, np.float64)
               for path, new in flatten(params).items()}

        state, metrics = step(state, batch)
        assert set(terms) == {name for name, weight in config.methods.lgdea.weights.items() if weight}
        assert {"rec", "evid_image", "evid_report", "evid_align"} <= set(terms)
        for name, term in terms.items():
            assert float(metrics[f"loss/{name}"]) == pytest.approx(float(term), rel=1e-4), name
        assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-4)
        norm = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(gradients)))
        assert norm > CLIP and float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-3)
        assert metrics["learning_rate"] == np.float32(RATE) and int(state["step"]) == number + 1
    first = flatten(parts.initial()["params"])
    for name, found, expected in (("params", state["params"], flatten(params)), ("ema", state["ema"], ema)):
        for path, value in flatten(found).items():
            if path.endswith("key/bias"):  # Its gradient is zero in exact arithmetic: Adam makes noise large.
                continue
            moved = np.abs(np.asarray(first[path]) - expected[path]).max()
            np.testing.assert_allclose(value, expected[path], rtol=0, atol=max(1e-5, 0.03 * moved),
                                       err_msg=f"{name}/{path}")


def test_images_and_reports_of_one_row_are_joined_in_order(run):
    """`gather_streams` under jit, where the streams arrive in alphabetical order."""
    _, data, _, _ = run
    batch = data.batches[0]
    batch["images"] = {k: v for k, v in batch["images"].items() if not k.startswith("hidden")}
    found = jax.jit(lambda batch: {k: v for k, v in gather_streams(batch).items() if k != "num_pairs"})(batch)
    expected = own_rows(batch)
    assert gather_streams(batch)["num_pairs"] == 4
    assert set(found) == set(expected) | {"labels"}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_every_item_writes_its_own_row_of_the_memory(run):
    """The first step's rows: unpaired images by the teacher, pairs' images and all reports by the student."""
    experiment, data, parts, _ = run
    memory, method = parts.memory, experiment.method
    assert memory.num_pairs == len(data.items["pairs"][0][0]) > 4
    options = StepOptions(forward=experiment.forward_options(data.tokenizer.pad_id), seed=0, dropout=False,
                          view=experiment.strong_view)
    state = parts.initial()
    # Teacher and student differ, so that a row says which of them wrote it.
    state["ema"] = jax.tree.map(lambda value: 1.5 * value, state["params"])
    batch = data.batches[0]
    new, _ = jax.jit(functools.partial(train_step, graphdef=parts.graphdef, method=method, optimizer=parts.optimizer,
                                       options=options, memory=memory))(state, batch)
    outputs = {who: forward(nnx.merge(parts.graphdef, state[who]), gather_streams({
        name: {k: v for k, v in arrays.items() if not k.startswith("hidden")} for name, arrays in batch.items()}),
        options=options.forward) for who in ("params", "ema")}
    image = {who: method.memory_image(some) for who, some in outputs.items()}
    report = method.memory_report(outputs["params"], gather_streams(batch)["weight"])
    by_student = {int(row): (image["params"], slot) for slot, row in enumerate(batch["pairs"]["image_index"])}
    by_teacher = {int(row): (image["ema"], 4 + slot) for slot, row in enumerate(batch["images"]["image_index"])}
    expected = {"images": {**by_student, **by_teacher},
                "reports": {int(row): (report, slot) for slot, row in enumerate(own_rows(batch)["report_index"])}}
    assert min(batch["images"]["image_index"]) >= memory.num_pairs <= min(batch["reports"]["report_index"])
    for side, rows in expected.items():
        held = jax.device_get(new["aux"][side])
        assert np.flatnonzero(held["visited"]).tolist() == sorted(rows) and set(held["visited"]) == {0, 1}
        for row, (found, slot) in rows.items():
            for name in ("evidence", "features"):
                np.testing.assert_allclose(held[name][row], found[name][slot], atol=2e-5, err_msg=f"{side} {row}")
    # The reports' running mean is that of the unpaired ones.
    unpaired = np.array(REPORTS) >= 4
    valid = np.asarray(report["valid"])[unpaired]
    np.testing.assert_allclose(new["aux"]["means"]["reports"]["sum"],
                               0.05 * np.asarray(report["evidence"])[unpaired][valid].mean(0), atol=1e-5)


def test_an_oracle_is_taught_the_hidden_reports(run):
    experiment, data, parts, _ = run
    memory = dataclasses.replace(parts.memory, options=dataclasses.replace(parts.memory.options, source="truth"))
    state, batch = parts.initial(), data.batches[0]
    state["step"] += 6
    lesson = teacher.teach({**state, "aux": memory.blank()}, batch, graphdef=parts.graphdef, method=experiment.method,
                           memory=memory, view=experiment.strong_view,
                           options=experiment.forward_options(data.tokenizer.pad_id), seed=0, micro=1)
    outputs = forward(nnx.merge(parts.graphdef, state["ema"]), {"tokens": batch["images"]["hidden_tokens"]},
                      options=experiment.forward_options(data.tokenizer.pad_id))
    truth = experiment.method.memory_report(outputs, batch["images"]["hidden_weight"])
    np.testing.assert_allclose(lesson.targets["image_target"], truth["evidence"], atol=1e-6)
    np.testing.assert_array_equal(lesson.targets["image_weight"], np.asarray(truth["valid"], np.float32))
    assert float(lesson.log["memory/target_to_truth"]) == 0 and float(lesson.log["memory/teacher_to_truth"]) > 0.05
    assert not any(name.startswith("hidden") for name in lesson.batch["images"])
    seen = np.asarray(lesson.batch["images"]["image"])
    assert seen.shape == batch["images"]["image"].shape and np.abs(seen - batch["images"]["image"]).max() > 5


def test_the_average_starts_at_the_parameters_and_only_with_a_decay(run):
    experiment, _, parts, _ = run
    state = parts.initial()
    jax.tree.map(np.testing.assert_array_equal, state["ema"], state["params"])
    assert set(flatten(state["params"])) == set(flatten(parts.optimizer.rates))
    without = optim.build(state["params"], dataclasses.replace(experiment.optim, ema=0.0))
    assert without.ema == 0.0

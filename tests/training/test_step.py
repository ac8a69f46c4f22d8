"""Three steps of `lgdea` against plain optax and NumPy; the memory's rows item by item; when targets are refreshed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lgdea_jax import cli
from lgdea_jax.arrays import flatten
from lgdea_jax.experiment import Experiment
from lgdea_jax.models.forward import gather_streams
from lgdea_jax.runtime import sharding
from lgdea_jax.training import optim
from lgdea_jax.training.data import prepare_data
from lgdea_jax.training.evidence_memory import EvidenceMemory, MemoryOptions
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
    config.memory.block = 16
    mesh = sharding.make_mesh(**config.mesh)
    experiment = Experiment.of(config, mesh)
    data = prepare_data(experiment, mesh, show=False)
    return experiment, data, prepare_parts(experiment, data, mesh), mesh


def own_rows(batch):
    """The rows of a batch, written out: pairs first."""
    pairs, images, reports = (batch[name] for name in ("pairs", "images", "reports"))
    both = {name: np.concatenate([pairs[name], images[name]]) for name in ("image", "image_index")}
    both |= {name: np.concatenate([pairs[name], reports[name]])
             for name in ("tokens", "weight", "finding", "normal", "report_index")}
    return {**both, **{name: pairs[name] for name in ("study", "region", "frame")}}


def test_three_steps_are_those_of_plain_optax(run):
    experiment, data, parts, _ = run
    config, method = experiment.config, experiment.method
    state = parts.initial()
    rng = np.random.default_rng(0)
    state["aux"] = {name: jnp.asarray(rng.dirichlet(np.ones(array.shape[1]), array.shape[0]) if array.ndim == 2
                                      else rng.uniform(0.2, 1, array.shape), jnp.float32)
                    for name, array in state["aux"].items()}
    options = StepOptions(forward=experiment.forward_options(data.tokenizer.pad_id), seed=0, dropout=False)
    step = jax.jit(functools.partial(train_step, graphdef=parts.graphdef, method=method, optimizer=parts.optimizer,
                                     options=options))

    aux, pad = state["aux"], data.tokenizer.pad_id

    def loss(params, rows):
        rows, model = {**rows, "num_pairs": 4}, nnx.merge(parts.graphdef, params)
        image = (rows["image"].astype(np.float32) / 255 - config.image.mean) / config.image.std
        count, phrases, length = rows["tokens"].shape
        flat = rows["tokens"].reshape(-1, length)
        outputs = {**model.shared(), "image": model.encode_image(jnp.asarray(image)[..., None], train=True),
                   "text": {name: value.reshape(count, phrases, *value.shape[1:])
                            for name, value in model.encode_text(flat, flat != pad, train=True).items()}}
        terms = method.losses(outputs, rows, aux)
        return sum(config.methods.lgdea.weights[name] * term for name, term in terms.items()), terms

    kernels = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", state["params"])
    plain = optax.chain(optax.clip_by_global_norm(CLIP),
                        optax.adamw(RATE, b1=BETA1, b2=BETA2, weight_decay=DECAY, mask=kernels))
    params, ema = state["params"], {k: np.asarray(v, np.float64) for k, v in flatten(state["params"]).items()}
    opt = plain.init(params)
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for number in range(STEPS):
        batch = data.batches[number]
        (total, terms), gradients = gradient(params, own_rows(batch))
        updates, opt = plain.update(gradients, opt, params)
        params = optax.apply_updates(params, updates)
        rate = min(EMA, (1 + number) / (10 + number))
        ema = {path: rate * ema[path] + (1 - rate) * np.asarray(new, np.float64)
               for path, new in flatten(params).items()}

        state, metrics = step(state, batch)
        assert set(terms) == {name for name, weight in config.methods.lgdea.weights.items() if weight}
        assert {"rec", "evid_image", "evid_report", "evid_align", "place"} <= set(terms)
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
    found = jax.jit(lambda batch: {k: v for k, v in gather_streams(batch).items() if k != "num_pairs"})(batch)
    expected = own_rows(batch)
    assert gather_streams(batch)["num_pairs"] == 4
    assert set(found) == set(expected) | {"labels"}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_every_item_reads_its_own_row_of_the_memory(run):
    """Rows of the memory are those of the tables that the teacher's pass reads; unpaired items come after the pairs."""
    _, data, parts, _ = run
    memory, [(pairs, _)] = parts.memory, data.items["pairs"]
    assert memory.num_pairs == len(pairs) > 4
    for table, name, index, stream in ((memory._images, "image", "image_index", "images"),
                                       (memory._reports, "tokens", "report_index", "reports")):
        [(items, _)] = data.items[stream]
        assert table.count == len(pairs) + len(items)
        for part, first in ((pairs, 0), (items, len(pairs))):
            for number in range(len(part)):
                item = part[number]
                assert item[index] == first + number
                np.testing.assert_array_equal(table.read(first + number, first + number + 1)[name][0], item[name])
        for step in range(4):
            batch = data.batches[step]
            assert (batch["pairs"][index] < len(pairs)).all()
            assert (batch[stream][index] >= len(pairs)).all() and (batch[stream][index] < table.count).all()
        np.testing.assert_array_equal(data.batches[0]["pairs"]["image_index"], data.batches[0]["pairs"]["report_index"])


class Model:
    """As much of a method as the memory needs; the teacher's evidence is a function of the parameters."""

    def memory_image(self, outputs):
        return {name: outputs["logit_scale"] * jnp.ones((4, 3)) / 3 for name in ("evidence", "pooled", "features")}

    def memory_report(self, outputs, weight):
        return self.memory_image(outputs) | {"valid": weight.sum(axis=1) > 0}


class Shared(nnx.Module):
    """A model without towers."""

    def __init__(self):
        self.scale, self.image_tower, self.text_tower = nnx.Param(jnp.ones(())), None, None

    def shared(self):
        return {"logit_scale": self.scale[...]}


class Rows:
    """Three items with one phrase each."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"image": np.zeros((2, 2), np.uint8), "tokens": np.zeros((1, 1, 2), np.int32),
                "weight": np.ones(1, np.float32)}


def made_memory(run, **options):
    """A memory of three pairs, three unpaired images and no unpaired reports, whose targets are the teacher's."""
    experiment, _, _, mesh = run
    chosen = MemoryOptions.of(experiment)
    targets = dataclasses.replace(chosen.targets, source="teacher", sharpen=1.0, align=0)
    sizes = {"first": 4, "refresh": 3, "ramp": 4, "block": 4}
    chosen = dataclasses.replace(chosen, targets=targets, **{**sizes, **options})
    graphdef, _ = nnx.split(Shared())
    return EvidenceMemory(
        chosen, items={"pairs": [Rows()], "images": [Rows()], "reports": []}, truth=(), method=Model(),
        graphdef=graphdef, forward_options=experiment.forward_options(0), mesh=mesh)


def test_when_the_memory_is_refreshed_and_how_much_it_weighs(run):
    memory = made_memory(run)
    assert [step for step in range(14) if memory.due(step)] == [4, 7, 10, 13]
    assert [memory.ramp(step) for step in (4, 7, 10, 13, 16)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert made_memory(run, ramp=0).ramp(4) == 1.0


def test_the_teacher_has_the_averaged_parameters(run):
    memory = made_memory(run)
    student, teacher = {"scale": jnp.float32(0.5)}, {"scale": jnp.float32(2.0)}
    found, log = memory.refresh({"params": student, "ema": teacher}, 7)
    np.testing.assert_allclose(found["image_target"][3:6], 1 / 3, rtol=1e-5)  # Sharpened: rows sum to one.
    assert float(log["memory/ramp"]) == 0.5 and float(log["memory/target_to_teacher"]) == pytest.approx(0.5)
    _, alone = memory.refresh({"params": student, "ema": {}}, 7)
    assert float(alone["memory/target_to_teacher"]) == pytest.approx(0.25)
    np.testing.assert_allclose(found["image_weight"], [0, 0, 0, 0.5, 0.5, 0.5, 0, 0])


def test_the_average_starts_at_the_parameters_and_only_with_a_decay(run):
    experiment, _, parts, _ = run
    state = parts.initial()
    jax.tree.map(np.testing.assert_array_equal, state["ema"], state["params"])
    assert set(flatten(state["params"])) == set(flatten(parts.optimizer.rates))
    without = optim.build(state["params"], dataclasses.replace(experiment.optim, ema=0.0))
    assert without.ema == 0.0

"""The official modes against the public scripts' behaviour written out, step by step and without our evaluators."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import precision_recall_curve

from lgdea_jax.eval import chexpert, chexpert_5x200, ms_cxr, padchest, rsna_pneumonia
from lgdea_jax.eval.harness import benchmark
from lgdea_jax.eval.harness.protocol import OURS
from lgdea_jax.evaluators import classified
from lgdea_jax.evaluators.class_retrieval import ClassRetrieval
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.io import decode_image
from lgdea_jax.preprocess.centre_crop import centre_crop
from lgdea_jax.records import Box
from tests.evaluators.test_evaluators import METADATA
from tests.evaluators.world import LABELS, SIZE, Oracle, record, world

PHRASES = [("Findings consistent with pneumonia", "Findings suggesting pneumonia",
            "This opacity can represent pneumonia", "Findings are most compatible with pneumonia"),
           ("There is no pneumonia", "No evidence of pneumonia", "No evidence of acute pneumonia",
            "No signs of pneumonia")]


class Random:
    """Random embeddings of any norm, the same for the same input; patches that are unit vectors."""

    grid, image_size, batch_size = (4, 4), SIZE, 16

    def images(self, images):
        seeds = [int(image.astype(np.int64).sum()) for image in images]
        patches = np.stack([np.random.default_rng(seed).normal(size=(16, 5)) for seed in seeds])
        return {"embedding": np.stack([5 * np.random.default_rng(seed + 1).normal(size=6) for seed in seeds]),
                "patches": patches / np.linalg.norm(patches, axis=-1, keepdims=True)}

    def texts(self, texts, phrases):
        out = [np.random.default_rng(sum(text.encode())).normal(size=11) for text in texts]
        return {"embedding": np.stack([3 * row[:6] for row in out]),
                "query": np.stack([row[6:] / np.linalg.norm(row[6:]) for row in out])}


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_rsna_prompts_are_the_published_ones():
    assert rsna_pneumonia.BENCHMARK.prompts == {"Pneumonia": tuple(map(tuple, PHRASES))}
    assert rsna_pneumonia.BENCHMARK.findings == ("Pneumonia",)


def test_pair_prompts_as_published():
    """p = exp(cos+) / (exp(cos+) + exp(cos-)), prompts averaged as they come and normalised (hi-ml); threshold of the
    best F1 on the test images themselves."""
    model = Random()
    data = EvalData.from_records(world(30), METADATA, SIZE)
    data = dataclasses.replace(data.with_labels(LABELS[:1]), label_names=("Pneumonia",))
    samples = benchmark.zero_shot(rsna_pneumonia.BENCHMARK, data, "official",
                                  prompting={"scoring": "positive"}).run(model)
    images = _unit(model.images(data.images)["embedding"])
    positive, negative = (_unit(model.texts(group, None)["embedding"].mean(0)) for group in PHRASES)
    expected = np.exp(images @ positive) / (np.exp(images @ positive) + np.exp(images @ negative))
    found = classified.probabilities(samples.arrays["scores"][:, 0])
    assert found == pytest.approx(expected, abs=1e-6)
    labels = data.labels[:, 0]
    precision, recall, _ = precision_recall_curve(labels, expected)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert samples.metrics()["zero_shot/f1/Pneumonia"] == pytest.approx(f1.max(), abs=1e-9)
    assert samples.info["thresholds_from"] == "the evaluated images"
    clean = benchmark.zero_shot(rsna_pneumonia.BENCHMARK, data, "clean", prompting={"scoring": "positive"},
                                thresholds={"f1": {"Pneumonia": 0.2}, "mcc": {}}, thresholds_from="x").run(model)
    raw = model.images(data.images)["embedding"] @ model.texts(PHRASES[0], None)["embedding"].mean(0)
    assert clean.arrays["scores"][:, 0] == pytest.approx(raw, rel=1e-5)
    called = raw >= 0.2
    hits = (called & (labels == 1)).sum()
    assert clean.metrics()["zero_shot/f1"] == pytest.approx(2 * hits / (called.sum() + (labels == 1).sum()))
    assert np.isnan(clean.metrics()["zero_shot/mcc"]) and "zero_shot/ece" not in clean.metrics()


def test_five_classes_are_an_argmax_of_cosines():
    model, rows = Random(), [record(i, (LABELS[i % 3],)) for i in range(24)]
    rows = [dataclasses.replace(r, report="") if i % 2 else r for i, r in enumerate(rows)]
    prompts = {name: ((f"{name} one", f"{name} two"), ("unused",)) for name in LABELS}
    bench = dataclasses.replace(chexpert_5x200.BENCHMARK, prompts=prompts)
    data = EvalData.from_records([dataclasses.replace(r, image=world(24, seed=9)[i].image) for i, r in enumerate(rows)],
                                 METADATA, SIZE)
    images = _unit(model.images(data.images)["embedding"])
    texts = {name: _unit(model.texts(prompts[name][0], None)["embedding"]) for name in LABELS}
    truth = data.labels.argmax(1)
    for ensemble, scores in (("normalised", [images @ _unit(t.mean(0)) for t in texts.values()]),
                             ("max", [(images @ t.T).max(1) for t in texts.values()])):
        for mode in ("official", "clean"):
            samples = benchmark.zero_shot(dataclasses.replace(bench, ensemble=ensemble, protocol=OURS), data, mode,
                                          prompting={"scoring": "pair"}).run(model)
            predicted = np.stack(scores, 1).argmax(1)
            assert samples.metrics()["zero_shot/accuracy"] == pytest.approx((predicted == truth).mean())
            assert samples.sizes()["zero_shot/accuracy"] == 24
    # GLoRIA: the nearest prompt, each class standardised over the images; MedCLIP: the mean of the cosines.
    nearest = np.stack([(images @ t.T).max(1) for t in texts.values()], 1)
    mean = np.stack([(images @ t.T).mean(1) for t in texts.values()], 1)
    for protocol, scores in zip(bench.protocols, ((nearest - nearest.mean(0)) / nearest.std(0), mean), strict=True):
        protocol = dataclasses.replace(protocol, prompts=prompts)
        samples = benchmark.zero_shot(dataclasses.replace(bench, protocol=protocol), data, "official",
                                      prompting={"scoring": "pair"}).run(model)
        np.testing.assert_allclose(samples.arrays["scores"], scores, atol=1e-5)
        assert samples.metrics()["zero_shot/accuracy"] == pytest.approx((scores.argmax(1) == truth).mean())


def test_precision_at_k_official_keeps_the_own_report():
    """The own report is among the candidates of the public script: written out for every query."""
    model, rows = Random(), [record(i, (LABELS[i % 3],)) for i in range(15)]
    rows = [dataclasses.replace(r, image=world(15, seed=9)[i].image, report=f"report {i}") for i, r in enumerate(rows)]
    data = EvalData.from_records(rows, METADATA, SIZE)
    images = model.images(data.images)["embedding"]
    texts = model.texts(data.reports, None)["embedding"]
    truth = data.labels.argmax(1)
    for mode in ("official", "clean"):
        values = ClassRetrieval(data, mode=mode).run(model).metrics()
        for k in (1, 2, 5, 10):
            shares = []
            for i in range(15):
                ranked = [j for j in np.argsort(-(texts @ images[i])) if mode == "official" or j != i]
                shares.append((truth[ranked[:k]] == truth[i]).mean())
            assert values[f"retrieval/precision@{k}"] == pytest.approx(np.mean(shares)), (mode, k)
        assert np.isnan(values["retrieval/precision@100"])  # There are no 100 candidates.


def test_class_prompts_are_candidates_where_reports_lack():
    rows = [dataclasses.replace(record(i, (LABELS[i % 3],)), report="", has_report=False) for i in range(9)]
    data = EvalData.from_records(rows, METADATA, SIZE)
    prompts = {name: (tuple(f"{word} {i}" for i in range(3 + c)), ("no",)) for c, (name, word) in enumerate(
        zip(LABELS, ("nodule", "heart", "effusion")))}
    samples = ClassRetrieval(data, mode="official", prompts=prompts).run(Oracle())
    part = samples.info["class_candidates"]
    assert part["kind"] == "3 prompts of each class" and part["candidates"] == 9
    values = samples.metrics()
    assert values["retrieval/precision@2"] == 1.0 and values["retrieval/precision@5"] == pytest.approx(3 / 5)
    with pytest.raises(Exception, match="no report"):
        ClassRetrieval(data, candidates="reports").run(Oracle())


def test_ms_cxr_official_is_biovils_script():
    """Crop, similarity, Gaussian of 1.5 patches, nearest, NaN margins, clamped at 0, box after box, an undefined box 0,
    a box outside the crop dropped; means by category, then over."""
    model = Random()
    shape = (60, 80)
    rows = []
    for i in range(6):
        one = record(i, (), shape=shape, original=shape)
        picture = np.random.default_rng(i).integers(30, 200, shape, dtype=np.uint8)
        from lgdea_jax.io import encode_image

        boxes = [Box("Edema" if i % 3 else "Pneumonia", f"phrase {i}", 20 + i, 10, 18, 20)]
        if i % 2:
            boxes.append(dataclasses.replace(boxes[0], x=30.0, y=25.0))
        if i == 1:  # Outside the crop, which covers columns 12 to 67.
            boxes.append(dataclasses.replace(boxes[0], x=70.0, y=5.0, w=6.0))
        rows.append(dataclasses.replace(one, image=encode_image(picture, "png"), boxes=tuple(boxes)))
    bench = ms_cxr.BENCHMARK
    data = EvalData.from_records(rows, METADATA, SIZE, transform=bench.transform("official"))
    values = benchmark.evaluator(bench, "grounding", data, "official", seed=0, prompting={"scoring": "pair"}).run(
        Encoder(model, data)).metrics()

    cnr, iou, dropped, undefined = {}, {}, 0, 0
    for one in rows:
        image = decode_image(one.image, "png")
        patches = model.images(centre_crop(image, SIZE, crop=480)[None])["patches"][0]
        query = model.texts([one.boxes[0].phrase], None)["query"][0]
        grid = gaussian_filter((patches @ query).reshape(4, 4), sigma=(1.5, 1.5), order=0)
        side = int(480 * 60 / 512)
        square = grid[np.arange(side) * 4 // side][:, np.arange(side) * 4 // side]
        margins = [((m // 2), m - m // 2) for m in (60 - side, 80 - side)]
        heat = np.pad(np.maximum(square.astype(np.float64), 0), margins, constant_values=np.nan)
        union, left, each = np.zeros(shape, bool), heat.copy(), []
        for b in one.boxes:
            mask = np.zeros(shape, bool)
            mask[int(b.y):int(b.y + b.h), int(b.x):int(b.x + b.w)] = True
            if np.isnan(heat[mask]).all():
                dropped += 1
                continue
            inside, outside = left[mask], left[~mask]
            with np.errstate(invalid="ignore", divide="ignore"):
                value = abs(np.nanmean(inside) - np.nanmean(outside)) / np.sqrt(np.nanvar(inside) + np.nanvar(outside))
            undefined += int(np.isnan(value))
            each.append(np.nan_to_num(value))
            left[mask] = np.nan
            union |= mask
        name = one.boxes[0].finding
        cnr.setdefault(name, []).append(np.mean(each))
        clamped = np.maximum(np.nan_to_num(heat), 0)
        iou.setdefault(name, []).append(np.mean([((clamped > t) & union).sum() / ((clamped > t) | union).sum()
                                                 for t in (0.1, 0.2, 0.3, 0.4, 0.5)]))
    assert values["grounding/cnr"] == pytest.approx(np.mean([np.mean(v) for v in cnr.values()]), rel=1e-5)
    assert values["grounding/cnr/Edema"] == pytest.approx(np.mean(cnr["Edema"]), rel=1e-5)
    assert values["grounding/miou"] == pytest.approx(np.mean([np.mean(v) for v in iou.values()]), rel=1e-5)
    assert dropped == 1


def test_groups_and_blanks():
    data = EvalData.from_records(world(40), METADATA, SIZE)
    names = (*(f"f{i}" for i in range(10)), "normal")
    count = np.array([40, 39, 38, 37, 20, 15, 11, 10, 3, 0, 40])
    labels = (np.arange(40)[:, None] < count).astype(np.int8)
    data = dataclasses.replace(data, label_names=names, labels=labels)
    found = dataclasses.replace(padchest.BENCHMARK, groups={"x": names[:1]}).groups_of(data)
    # Without normal and what never occurs: [3, 10, 11, 15, 20, 37, 38, 39, 40], whose 65th percentile is 37.2.
    assert np.percentile(sorted(count[:9]), 65) == pytest.approx(37.2)
    assert found == {"x": ("f0",), "head": ("f0", "f1", "f2"), "medium": ("f3", "f4", "f5", "f6"),
                     "tail": ("f7", "f8")}
    assert chexpert.BENCHMARK.filled(np.array([[1, 0, -1, -2]], np.int8)).tolist() == [[1, 0, -1, 0]]
    assert rsna_pneumonia.BENCHMARK.filled(np.array([-2])).tolist() == [-2]

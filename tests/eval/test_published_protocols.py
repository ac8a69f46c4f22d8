"""Prompts, scores and metrics of public scripts, each against its own steps written out, or worked out by hand."""

import dataclasses
import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    precision_recall_curve,
    precision_score,
    roc_curve,
)

from lgdea_jax.errors import UserError
from lgdea_jax.eval import chexpert, chexpert_5x200, ct_rate, ms_cxr, padchest, rad_chestct, records, rsna_pneumonia
from lgdea_jax.eval.harness import benchmark, flags
from lgdea_jax.eval.harness.inputs import Inputs
from lgdea_jax.eval.harness.notes import notes
from lgdea_jax.eval.harness.output import ModeResult, table
from lgdea_jax.eval.harness.protocol import OURS, choose_protocol
from lgdea_jax.evaluators.classified import thresholds
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.operating_point import OperatingPoint, youden_threshold
from lgdea_jax.evaluators.zero_shot import ZeroShot, ZeroShotSamples, ensemble_similarity, standardised
from lgdea_jax.findings import protocol_prompts
from lgdea_jax.metrics import grounding
from lgdea_jax.metrics import volume_retrieval as retrieval
from lgdea_jax.metrics.bootstrap import Interval
from tests.evaluators.test_evaluators import METADATA
from tests.evaluators.world import SIZE, world


def with_protocol(module, name):
    """The module's benchmark under one of its protocols."""
    (protocol,) = [item for item in module.BENCHMARK.protocols if item.name == name]
    return dataclasses.replace(module.BENCHMARK, protocol=protocol)


class Listens:
    """Remembers the texts that it is asked for."""

    grid, batch_size, logit_scale = (4, 4), 16, 20.0

    def __init__(self):
        self.heard = []

    def images(self, images):
        seeds = [int(image.astype(np.int64).sum()) for image in images]
        return {"embedding": np.stack([np.random.default_rng(seed).normal(size=6) for seed in seeds])}

    def texts(self, texts, phrases):
        self.heard += texts
        return {"embedding": np.stack([np.random.default_rng(sum(text.encode())).normal(size=6) for text in texts])}


def data_of(findings, count=30):
    """Images of the tiny world with random labels of `findings`."""
    data = EvalData.from_records(world(count), METADATA, SIZE)
    labels = np.random.default_rng(0).integers(0, 2, (count, len(findings))).astype(np.int8)
    return dataclasses.replace(data, label_names=tuple(findings), labels=labels, report_labels=labels)


# --- prompts

@pytest.mark.parametrize("module, name, findings, texts", [
    (chexpert, "chexzero", ("Pleural Effusion", "Lung Lesion"),
     {"Pleural Effusion", "no Pleural Effusion", "Lung Lesion", "no Lung Lesion"}),
    (chexpert, "kad", ("Pleural Effusion", "Edema"), {"pleural effusion", "edema"}),
    (padchest, "kad", ("copd signs", "normal"), {"COPD signs", "normal"}),
    (ct_rate, "ct_clip", ("Nodule",), {"Lung nodule is present.", "Lung nodule is not present."}),
    (ct_rate, "green_rfm", ("Nodule",), {"There is Lung nodule.", "There is no Lung nodule."}),
    (ct_rate, "radfinder", ("Hernia",), {
        "Hiatal hernia.", "No Hiatal hernia.", "Findings are compatible with Hiatal hernia.",
        "Findings are not compatible with Hiatal hernia.", "There is Hiatal hernia.", "There is no Hiatal hernia.",
        "Hiatal hernia is seen.", "Hiatal hernia is not seen.", "Not Hiatal hernia.", "Hiatal hernia is observed.",
        "Hiatal hernia is not observed.", "Hiatal hernia is present.", "Hiatal hernia is not present."})])
def test_prompts_are_the_scripts(module, name, findings, texts):
    model = Listens()
    benchmark.zero_shot(with_protocol(module, name), data_of(findings), "official", prompting={}).run(model)
    assert set(model.heard) == texts


def test_gloria_draws_five_combinations_after_seeding_with_six():
    parts = protocol_prompts.CHEXPERT_PARTS
    random.seed(6)
    for name in ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"):
        every = [f"{a} {b} {c}" for a, b, c in itertools.product(*parts[name])]
        assert protocol_prompts.GLORIA[name][0] == tuple(random.sample(every, 5))
    assert [len(list(itertools.product(*parts[name]))) for name in parts] == [210, 15, 192, 18, 54]
    assert len(protocol_prompts.MEDCLIP["Edema"][0]) == 10
    assert "patchy ground glass opacity in peripheral" in protocol_prompts.MEDCLIP_COVID["COVID-19"][0]


# --- scores

def test_five_by_200_ignores_an_offset_of_a_class():
    """By hand: class b's cosines lie .4 higher throughout. GLoRIA standardises each class over the images."""
    scores = np.array([[0.3, 0.5], [0.1, 0.7], [0.2, 0.6], [0.0, 0.8]])
    assert scores.argmax(1).tolist() == [1, 1, 1, 1]
    found = standardised(scores)
    np.testing.assert_allclose(found[:, 0] * np.sqrt(0.0125), [0.15, -0.05, 0.05, -0.15], atol=1e-12)
    assert found.argmax(1).tolist() == [0, 1, 0, 1]
    assert standardised(scores[:1]).tolist() == [[0, 0]]


def test_ensembles_by_hand():
    """Prompts (3, 0) and (0, 1), image (1, 0): the mean of the raw ones is (1.5, .5), of the others (.5, .5)."""
    image, prompts = np.array([[1.0, 0.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    expected = {"raw": 3 / np.sqrt(10), "normalised": np.sqrt(0.5), "mean_cosine": 0.5, "max": 1.0, "mean": 1.5}
    for name, value in expected.items():
        assert ensemble_similarity(image, prompts, name)[0] == pytest.approx(value), name
    assert rsna_pneumonia.BENCHMARK.protocol.ensemble == "raw"
    assert rsna_pneumonia.BENCHMARK.transform("official") == "biovil512@1"
    assert rsna_pneumonia.BENCHMARK.transform("clean") is None


def test_green_rfm_scores_by_plain_dot_products():
    model, data = Listens(), data_of(("Nodule",))
    found = benchmark.zero_shot(with_protocol(ct_rate, "green_rfm"), data, "official", prompting={}).run(model)
    texts = model.texts(["There is Lung nodule.", "There is no Lung nodule."], None)["embedding"]
    expected = model.images(data.images)["embedding"] @ (texts[0] - texts[1])
    np.testing.assert_allclose(found.arrays["scores"][:, 0], expected, rtol=1e-5)


def test_ct_clip_operating_point_has_the_temperature():
    """softmax(cosines x exp(temperature)), the last of 100 thresholds nearest to the corner, called above it."""
    model, bench, data = Listens(), with_protocol(ct_rate, "ct_clip"), data_of(("Nodule",))
    samples = benchmark.evaluator(bench, "operating_point", data, "official", seed=0, prompting={}).run(model)
    images = model.images(data.images)["embedding"]
    texts = model.texts(["Lung nodule is present.", "Lung nodule is not present."], None)["embedding"]
    cosines = (images / np.linalg.norm(images, axis=1, keepdims=True)) @ (
        texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    logits, truth, found = 20.0 * cosines, data.labels[:, 0], {}
    chance = np.exp(logits[:, 0]) / np.exp(logits).sum(1)
    for value in np.linspace(0, 1, 100):
        called = chance > value
        found[value] = np.hypot(1 - called[truth == 1].mean(), called[truth == 0].mean())
    best = [value for value, distance in found.items() if distance == min(found.values())][-1]
    values = samples.metrics()
    assert samples.info["scale"] == 20.0 and samples.info["thresholds"]["Nodule"] == pytest.approx(best)
    assert values["operating_point/f1_weighted"] == pytest.approx(f1_score(truth, chance > best, average="weighted"))
    assert values["operating_point/accuracy"] == pytest.approx(accuracy_score(truth, chance > best))


def test_radfinder_operating_point_is_youdens():
    model, bench, data = Listens(), with_protocol(ct_rate, "radfinder"), data_of(("Nodule",), 60)
    item = benchmark.evaluator(bench, "operating_point", data, "official", seed=0, prompting={})
    assert isinstance(item, OperatingPoint)
    values = item.run(model).metrics()
    score = item.zero_shot.run(model).arrays["scores"][:, 0].astype(np.float64)
    chance, truth = 1 / (1 + np.exp(-score)), data.labels[:, 0]
    false, hit, cuts = roc_curve(truth, chance)
    best = np.argmax(hit - false)
    called = chance >= cuts[best]
    expected = {"f1_weighted": f1_score(truth, called, average="weighted"), "sensitivity": hit[best],
                "specificity": 1 - false[best], "balanced_accuracy": balanced_accuracy_score(truth, called),
                "precision": precision_score(truth, called)}
    for name, value in expected.items():
        assert values[f"operating_point/{name}"] == pytest.approx(value), name
    assert youden_threshold(np.array([0.9, 0.1]), np.array([0, 1])) == 0.5  # Nothing beats chance.


# --- metrics

def test_f1_and_accuracy_at_thresholds_as_kad_and_medklip_print_them():
    rng = np.random.default_rng(3)
    labels = (rng.random(200) < 0.6).astype(np.int8)
    scores = np.round(rng.normal(size=200) + labels, 1).astype(np.float32)  # With ties.
    samples = samples_of(scores, labels)
    samples = dataclasses.replace(samples, info={"thresholds": thresholds(samples)})
    values = samples.metrics()
    best, cut = 0.0, 0.0
    for threshold in scores:  # KAD: every score as a threshold, at least.
        value = matthews_corrcoef(labels, scores >= threshold)
        best, cut = (value, threshold) if value > best else (best, cut)
    assert values["zero_shot/mcc"] == pytest.approx(best)
    assert values["zero_shot/f1_at_mcc"] == pytest.approx(f1_score(labels, scores >= cut))
    assert values["zero_shot/accuracy_at_mcc"] == pytest.approx(accuracy_score(labels, scores >= cut))
    precision, recall, cuts = precision_recall_curve(labels, scores)  # MedKLIP: above the threshold of the best F1.
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-12)
    assert values["zero_shot/f1"] == pytest.approx(f1.max())
    assert values["zero_shot/accuracy_above_f1"] == pytest.approx(accuracy_score(labels, scores > cuts[np.argmax(f1)]))
    assert values["zero_shot/f1_at_mcc"] != values["zero_shot/f1"]


def samples_of(scores, labels):
    """Of one finding."""
    none = np.full(len(scores), -1)
    return ZeroShotSamples(np.arange(len(scores)).astype(str), {
        "scores": scores[:, None], "labels": labels[:, None], "truth": none, "predicted": none},
        {"findings": ("A",), "classes": ()}, {})


def test_pointing_calls_any_maximal_pixel_a_hit():
    heat, mask = np.array([[3.0, 3.0], [3.0, 0.0]]), np.array([[True, False], [False, False]])
    assert grounding.pointing(heat, mask) == pytest.approx(1 / 3)
    assert grounding.pointing(heat, mask, mode="official") == 1.0
    assert grounding.pointing(heat, ~mask & (heat == 0), mode="official") == 0.0


def test_cnr_counts_an_undefined_box_as_nothing():
    """By hand: the first box is flat like what lies around it after clamping; the second has 1, 3 against zeros."""
    heat = np.maximum(np.array([-2.0, -1.0, 1.0, 3.0, -5.0, -4.0]), 0)
    boxes = [(slice(0, 2),), (slice(2, 4),)]
    # First: inside 0, 0; outside 1, 3, 0, 0 (mean 1, variance 1.5). Second: inside 1, 3; outside 0, 0 (first is blank).
    assert grounding.cnr(heat, boxes, mode="official")[0] == pytest.approx((1 / np.sqrt(1.5) + 2 / np.sqrt(1)) / 2)
    flat = np.array([0.0, 0.0, 0.0, np.nan])
    assert grounding.cnr(flat, [(slice(3, 4),), (slice(0, 1),)], mode="official", undefined=0.0) == (0.0, 0.0)
    assert grounding.visible(flat, [(slice(3, 4),), (slice(0, 2),), (slice(1, 3),)]) == [1, 2]
    assert grounding.visible(np.zeros(4), [(slice(1, 2),), (slice(0, 3),)]) == [1]  # Covered by the later box.


def test_map_over_k_is_radfinders():
    """By hand, with labels {a}, {a}, {b}, none, on a line: the nearest first; and its loop on random volumes."""
    angles = np.deg2rad([0, 10, 30, 5])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1)
    positive = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], bool)
    found = retrieval.average_precision_over_k(embeddings, positive, (1, 2, 5))
    # 0 finds 1, 2: one of one, one of two. 1 finds 0, 2. 2 finds 1, 0: none. The unlabelled one is in neither.
    np.testing.assert_allclose(found[:3, :2], [[1, 0.5], [1, 0.5], [0, 0]])
    assert np.isnan(found[3]).all() and np.isnan(found[:, 2]).all()
    rng = np.random.default_rng(0)
    embeddings, positive = rng.normal(size=(40, 5)), rng.random((40, 4)) < 0.3
    kept = np.flatnonzero(positive.any(1))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = []
    for i in kept:
        ranked = sorted((j for j in kept if j != i), key=lambda j: -(unit[i] @ unit[j]))[:10]
        hits = np.cumsum([positive[i] @ positive[j] > 0 for j in ranked])
        expected.append(sum(hits[r] / (r + 1) for r, j in enumerate(ranked) if positive[i] @ positive[j] > 0) / 10)
    found = retrieval.average_precision_over_k(embeddings, positive, (10,))[:, 0]
    assert found[kept] == pytest.approx(expected) and retrieval.RECALL_KS == (1, 5, 10, 50, 100)


# --- what it is called

def test_official_only_where_everything_is_the_scripts():
    official = {(module.BENCHMARK.name, p.name) for module in (chexpert, chexpert_5x200, ct_rate, ms_cxr, padchest,
                rad_chestct, rsna_pneumonia) for p in module.BENCHMARK.protocols if p.mode == "official"}
    assert official == {("chexpert", "chexzero"), ("chexpert_5x200", "gloria"), ("chexpert_5x200", "medclip"),
                        ("ct_rate", "ct_clip"), ("ct_rate", "radfinder"), ("ct_rate", "green_rfm"),
                        ("ms_cxr", "hi_ml"), ("rad_chestct", "ct_clip"), ("rad_chestct", "radfinder")}
    for module in (chexpert, ct_rate, rad_chestct, padchest):
        for protocol in module.BENCHMARK.protocols:
            content = protocol.describe()
            assert all(len(commit) == 40 for commit in content["files"].values()) and content["commit"]
            line = notes({protocol.mode: {"protocol": content}})[0]
            assert content["commit"][:8] in line and protocol.source.repository in line
    assert OURS.mode == "ours" and "commit" not in OURS.describe()


def test_which_protocol_a_mode_takes():
    def chosen(module, mode, name=None):
        bench = module.BENCHMARK
        return choose_protocol(bench.name, bench.protocols, bench.protocol, mode=mode, name=name).name

    assert chosen(ct_rate, "both") == chosen(ct_rate, "official") == "ct_clip"
    assert chosen(ct_rate, "official", "radfinder") == "radfinder" and chosen(ct_rate, "ours") == "ours"
    assert chosen(rsna_pneumonia, "both") == chosen(rsna_pneumonia, "ours") == "hi_ml"
    assert chosen(records, "both") == "ours"
    for module, mode, name, reason in (
            (records, "official", None, "no public script"), (rsna_pneumonia, "official", None, "no official mode"),
            (rsna_pneumonia, "official", "hi_ml", "list: it is tried on twelve images"),
            (ct_rate, "ours", "ct_clip", "is official for ct_rate")):
        with pytest.raises(UserError, match=reason):
            chosen(module, mode, name)
    with pytest.raises(UserError, match="invalid choice"):
        flags.make_parser(chexpert.BENCHMARK).parse_args(
            ["--checkpoint=R", "--data_dir=D", "--out=O", "--protocol=ct_clip"])


def test_small_records_are_named():
    """MS-CXR's geometry starts from the original pixels: records of 512 px on the longer side are smaller."""
    inputs = Inputs(SimpleNamespace(records=0), ms_cxr.BENCHMARK, None, SimpleNamespace(
        name="x", config={"source": "ms_cxr"}, label_names=()), None, None, None)
    original = np.array([[1, 3000, 2500], [1, 400, 600]])
    for stored, count in (([[1, 512, 427], [1, 400, 600]], 1), (original.tolist(), 0)):
        data = SimpleNamespace(stored_shapes=np.array(stored), original_shapes=original, label_set="reference")
        assert sum("stored with a shorter side" in line for line in inputs.differences(data)) == count


def test_what_cannot_be_measured_is_left_out_of_the_table():
    head = {"benchmark": "records", "data": "d", "split": "test", "records": 3, "subjects": 3, "checkpoint": "RUN",
            "step": 1, "bootstrap": 0, "lacks": ["no image has a box, by which grounding is measured"]}
    nan = Interval(float("nan"), float("nan"), float("nan"))
    result = ModeResult("clean", {"zero_shot/auroc": Interval(0.5, 0.4, 0.6), "grounding/cnr": nan},
                        {"zero_shot/auroc": 3, "grounding/cnr": 0}, {}, ())
    text = table(head, [result])
    assert "grounding/cnr" not in text and "0.500 [0.400, 0.600]" in text and text.count("no image has a box") == 1


def test_intervals_over_few_subjects_come_with_a_caution():
    head = {"benchmark": "records", "data": "d", "split": "test", "records": 30, "checkpoint": "RUN", "step": 1,
            "seed": 0}
    result = ModeResult("clean", {"zero_shot/auroc": Interval(1.0, 1.0, 1.0)}, {"zero_shot/auroc": 2}, {}, ())
    caution = "3 subjects are too few for intervals by resampling"
    assert caution in table({**head, "subjects": 3, "bootstrap": 1000}, [result])
    for fewer in ({"subjects": 3, "bootstrap": 0}, {"subjects": 20, "bootstrap": 1000}):
        assert "too few" not in table({**head, **fewer}, [result])


def test_kad_asks_for_the_names_of_padchests_table():
    assert len(padchest.ALL) == 193 == len(set(padchest.ALL)) and len(padchest.ABNORMAL) == 192
    scorer = benchmark.zero_shot(with_protocol(padchest, "kad"), data_of(("pulmonary mass", "mass")), "official",
                                 prompting={})
    assert isinstance(scorer, ZeroShot) and scorer.scoring == "positive"
    assert scorer.run(Listens()).names["findings"] == ("pulmonary mass", "mass")  # Not one label, as in ours.

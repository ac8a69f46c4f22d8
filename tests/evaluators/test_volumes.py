"""Evaluators on volumes whose right answers are known: what is read when, where heatmaps lie, whose labels count."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score

from lgdea_jax.errors import UserError
from lgdea_jax.eval import ct_rate, rad_chestct
from lgdea_jax.eval.harness import benchmark, pictures
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.grounding import Grounding, grounding_samples, sample_heatmap, sample_queries
from lgdea_jax.evaluators.volume_retrieval import VolumeRetrieval
from lgdea_jax.evaluators.volumes import Volumes
from lgdea_jax.evaluators.zero_shot import ZeroShot
from lgdea_jax.findings import protocol_prompts
from lgdea_jax.inference.overlay import draw
from lgdea_jax.io.encoded_volume import encode_volume
from lgdea_jax.metrics import volume_retrieval as metric
from lgdea_jax.preprocess.volume import VolumeView, to_record
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN, Box
from tests.evaluators.world import record

LABELS = ("Nodule", "Cardiomegaly", "Pleural Effusion")
METADATA = SimpleNamespace(label_names=(*LABELS, "silver:Nodule"))
VIEW = VolumeView.of("phantom_ct", (16, 32, 32))
SPACING = np.array([5.0, 7.5, 15.0], np.float32)  # Of the originals: 64 x 48 x 24 voxels of the phantom's field.
ORIGINAL = (64, 48, 24)
# Where each finding is drawn, in patches of the 4 x 4 x 4 grid over what the model sees (the middle of the volume).
PLACES = {"Nodule": (0, 1, 2), "Cardiomegaly": (2, 2, 1), "Pleural Effusion": (3, 0, 3)}
HU = {"Nodule": -500, "Cardiomegaly": 0, "Pleural Effusion": 500}


def box_of(name, phrase=""):
    """The original voxels of a finding's patch: the model sees voxels 8..24, 8..40, 8..40 of 32 x 48 x 48."""
    low = np.array([8, 8, 8]) + np.array(PLACES[name]) * np.array([4, 8, 8])
    scale = np.array([2.0, 1.0, 0.5])
    z, y, x = low * scale
    d, h, w = np.array([4, 8, 8]) * scale
    return Box(name, phrase, x=x, y=y, z=z, w=w, h=h, d=d)


def study(index, findings, scan=None, report=None):
    volume = np.full(ORIGINAL, -1000, np.int16)
    for name in findings:
        b = box_of(name)
        volume[int(b.z):int(b.z + b.d), int(b.y):int(b.y + b.h), int(b.x):int(b.x + b.w)] = HU[name]
    stored = to_record(volume, SPACING, VIEW.geometry)
    labels = [POSITIVE if name in findings else NEGATIVE for name in LABELS]
    one = record(index, (), labels=[*labels, UNCERTAIN], report=report or f"Findings: {', '.join(findings)} {index}")
    return dataclasses.replace(
        one, study_id=scan or f"scan{index}", modality="CT", view="", image=encode_volume(stored),
        image_format="blosc2", image_shape=np.array(stored.shape, np.int32),
        original_shape=np.array(ORIGINAL, np.int32), spacing=SPACING,
        boxes=tuple(box_of(name, name.lower()) for name in findings))


def world(n=12):
    sets = [(), ("Nodule",), ("Cardiomegaly",), ("Pleural Effusion",), ("Nodule", "Pleural Effusion")]
    return [study(i, sets[i % 5]) for i in range(n)]


class Oracle:
    """Reads the findings off the middle of each patch."""

    grid = (4, 4, 4)
    batch_size = 5

    def __init__(self, patch_offset=(0.0, 0.0, 0.0)):
        self.patch_offset, self.seen = patch_offset, 0

    def images(self, volumes):
        assert volumes.dtype == np.int16 and volumes.shape[1:] == (16, 32, 32, 1)
        self.seen = max(self.seen, len(volumes))
        middle = volumes[:, 2::4, 4::8, 4::8, 0].reshape(len(volumes), 64)
        patches = np.stack([np.abs(middle - HU[name]) < 50 for name in LABELS], -1).astype(np.float32)
        return {"embedding": patches.max(1) - 0.5, "patches": patches}

    def texts(self, texts, phrases):
        out = np.zeros((len(texts), 3), np.float32)
        for row, text in zip(out, texts, strict=True):
            lower = text.lower()
            sign = -1 if lower.startswith("no ") or " no " in lower or " not " in lower else 1
            for c, word in enumerate(("nodul", "cardi", "effusion")):
                row[c] = sign * (word in lower)
        return {"embedding": out, "query": out}


def test_volumes_are_read_when_they_are_seen():
    rows = world()
    data = EvalData.from_records(rows, METADATA, VIEW)
    assert isinstance(data.images, Volumes) and data.images.shape == (12, 16, 32, 32, 1) and data.style == "ct"
    np.testing.assert_array_equal(data.images[3:5], np.stack([VIEW.prepare(r.image) for r in rows[3:5]]))
    np.testing.assert_array_equal(data.images[[7]][0], data.images[7])
    model = Oracle()
    Encoder(model, data).images()
    assert model.seen == 5  # Never more than a batch.
    damaged = EvalData.from_records([rows[0], dataclasses.replace(rows[1], image=b"nothing")], METADATA, VIEW)
    assert len(damaged.images) == 1 and damaged.rejected[0][0] == 1
    cut = dataclasses.replace(rows[1], image=rows[1].image)
    late = EvalData.from_records([rows[0], cut], METADATA, VIEW)
    object.__setattr__(cut, "image", rows[1].image[: len(rows[1].image) // 2])
    with pytest.raises(UserError, match="record 1"):
        late.images[1]


def test_labels_that_were_read_from_reports_are_no_truth():
    data = EvalData.from_records(world(5), METADATA, VIEW)
    assert data.label_names == LABELS and data.labels.shape == (5, 3)
    assert not (data.labels == UNCERTAIN).any() and not (data.report_labels == UNCERTAIN).any()


def test_a_perfect_model_is_perfect_in_three_dimensions():
    data = EvalData.from_records(world(), METADATA, VIEW)
    model = Oracle()
    values = ZeroShot(data).run(model).metrics()
    assert values["zero_shot/auroc"] == 1.0
    values = Grounding(data).run(model).metrics()
    assert values["grounding/pointing"] == 1.0 and values["grounding/cnr_signed"] > 1


def test_heatmaps_lie_over_their_boxes_and_follow_the_offset():
    data = EvalData.from_records([study(0, ("Cardiomegaly",))], METADATA, VIEW)
    (sample,) = grounding_samples(data)

    def centre(offset):
        encoder = Encoder(Oracle(offset), data)
        heat = sample_heatmap(encoder, sample, sample_queries(encoder, (sample,))[0])
        assert heat.shape == ORIGINAL
        # What the model does not see has no value: the outer quarters of the slices, a sixth of rows and columns.
        assert np.isnan(heat[:16]).all() and np.isnan(heat[:, 40:]).all() and np.isfinite(heat[16:48, 8:40, 4:20]).all()
        heat = np.nan_to_num(heat)
        return np.array([(heat.sum(tuple(a for a in range(3) if a != axis)) * (np.arange(ORIGINAL[axis]) + 0.5)).sum()
                         for axis in range(3)]) / heat.sum()

    box = sample.boxes[0]
    middle = np.array([box.z + box.d / 2, box.y + box.h / 2, box.x + box.w / 2])
    np.testing.assert_allclose(centre((0.0, 0.0, 0.0)), middle, atol=0.01)
    # What lies half a cell further on is drawn half a cell further on: 2 x 2, 4 x 1 and 4 x 0.5 original voxels.
    np.testing.assert_allclose(centre((0.5, -0.5, 0.5)), middle + np.array([4.0, -4.0, 2.0]), atol=0.01)


def test_overlay_is_the_slice_through_the_box():
    data = EvalData.from_records([study(0, ("Pleural Effusion",))], METADATA, VIEW)
    encoder = Encoder(Oracle(), data)
    (sample,) = grounding_samples(data)
    query = sample_queries(encoder, (sample,))[0]
    shown = pictures.slice_overlay(encoder, sample, query, sample_heatmap(encoder, sample, query))
    assert shown.image.shape == (32, 32) and shown.lines[1] == "slice 14 of the 16 of the model's input"
    box = shown.boxes[0]
    assert (box.y, box.x, box.h, box.w) == (0, 24, 8, 8)
    bright = np.argwhere(shown.image > 120)
    assert bright.min(0).tolist() == [0, 24] and bright.max(0).tolist() == [7, 31]
    assert np.unravel_index(shown.heatmap.argmax(), shown.heatmap.shape)[0] < 8 and "pointing: hit" in shown.lines[0]
    assert draw(shown).size[0] > 300
    # Without a box: the slice through the heatmap's maximum.
    plain = dataclasses.replace(sample, boxes=())
    lines = pictures.slice_overlay(encoder, plain, query, sample_heatmap(encoder, sample, query)).lines
    assert lines[1].split()[1] in ("13", "14", "15")


class Random:
    """Embeddings that depend on the input only."""

    grid = (4, 4, 4)
    batch_size = 4

    def images(self, volumes):
        keys = [int(np.abs(np.clip(v, -1000, 1000) / np.float32(1000)).sum() * 100) for v in volumes]
        return {"embedding": np.stack([np.random.default_rng(key).normal(size=6) for key in keys]).astype(np.float32)}

    def texts(self, texts, phrases):
        seeds = [sum(map(ord, text)) for text in texts]
        return {"embedding": np.stack([np.random.default_rng(s).normal(size=6) for s in seeds]).astype(np.float32)}


def test_volume_retrieval_uses_scans_and_reports():
    rows = world(12)
    # The last two are reconstructions of one scan, with one report.
    rows[10] = study(10, ("Nodule",), scan="twin", report="one report")
    rows[11] = study(11, ("Nodule",), scan="twin", report="one report")
    data = EvalData.from_records(rows, METADATA, VIEW)
    encoder = Encoder(Random(), data)
    positive = data.labels == POSITIVE
    official = VolumeRetrieval(data, "official").run(encoder)
    clean = VolumeRetrieval(data, "clean").run(encoder)
    expected = metric.jaccard_official(encoder.images(), positive).mean(0)
    values = official.metrics()
    assert [values[f"retrieval/jaccard@{k}"] for k in metric.KS] == pytest.approx(expected.tolist())
    assert "retrieval/map@1" not in values and len(official.subjects) == 12 + 11
    gain, precision = metric.jaccard_clean(encoder.images(), positive, np.array([*range(10), 10, 10]))
    values = clean.metrics()
    assert values["retrieval/jaccard@1"] == pytest.approx(np.nanmean(gain[:, 0]))
    assert values["retrieval/map@5"] == pytest.approx(np.nanmean(precision[:, 1]))
    assert np.isnan(values["retrieval/jaccard@50"]) and np.isnan(values["retrieval/recall@50/text_to_image"])
    # A report finds either of its reconstructions, or only the one at its index.
    texts = encoder.texts(data.reports, data.phrases)[0]
    ranks = np.argsort(-(texts @ encoder.images().T), axis=1)
    own = [set(np.flatnonzero(data.report_of == r)) for r in range(11)]
    hits = [bool(own[r] & set(ranks[r, :5])) for r in range(11)]
    assert values["retrieval/recall@5/text_to_image"] == pytest.approx(np.mean(hits))
    assert clean.sizes()["retrieval/recall@5/text_to_image"] == 11
    cosines = metric.cosines(texts, encoder.images())  # The scripts' embeddings are normalised.
    index = [i in np.argsort(-cosines[data.report_of[i]], kind="stable")[:5] for i in range(12)]
    values = official.metrics()
    assert values["retrieval/recall@5/text_to_image"] == pytest.approx(np.mean(index))
    index = [i == np.argmax(cosines[data.report_of[i]]) for i in range(12)]
    assert values["retrieval/recall@1/text_to_image"] == pytest.approx(np.mean(index))
    # RadFinder's pool is the first reconstruction of each scan: 11 of the 12 volumes.
    index = [i in np.argsort(-cosines[data.report_of[i], :11], kind="stable")[:5] for i in range(11)]
    assert values["retrieval/recall@5/text_to_image@first"] == pytest.approx(np.mean(index))
    assert official.sizes()["retrieval/recall@5/text_to_image@first"] == 11
    assert (official.info["volumes"]["pool"], official.info["volumes"]["pool_first"]) == (12, 11)
    for name, n in (("retrieval/map_over_k@5", 12), ("retrieval/map_over_k@5@first", 11)):
        assert values[name] == pytest.approx(np.mean(over_k(encoder.images()[:n], positive[:n], 5))), name


def over_k(embeddings, positive, k):
    """RadFinder's average precision of each labelled volume: the precisions at the ranks that are relevant, over K."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    labelled, out = [i for i in range(len(unit)) if positive[i].any()], []
    for query in labelled:
        ranked = sorted((i for i in labelled if i != query), key=lambda i: -float(unit[query] @ unit[i]))[:k]
        relevant = [bool((positive[query] & positive[i]).any()) for i in ranked]
        out.append(sum(sum(relevant[:r + 1]) / (r + 1) for r in range(k) if relevant[r]) / k)
    return out


def test_operating_point_is_scikit_learns():
    data = EvalData.from_records(world(30), METADATA, VIEW)
    rng = np.random.default_rng(0)
    labels = rng.choice([POSITIVE, NEGATIVE, NEGATIVE], data.labels.shape).astype(np.int8)
    labels[3, 0] = MISSING
    data = dataclasses.replace(data, labels=labels)
    encoder, bench = Encoder(Random(), data), dataclasses.replace(ct_rate.BENCHMARK, groups={"two": LABELS[:2]})
    samples = benchmark.evaluator(bench, "operating_point", data, "official", seed=0, prompting={}).run(encoder)
    scores = benchmark.zero_shot(bench, data, "official", prompting={}).run(encoder).arrays["scores"].astype(np.float64)
    values, found = samples.metrics(), {}
    for c, name in enumerate(LABELS):
        known = labels[:, c] != MISSING
        chance, truth = 1 / (1 + np.exp(-scores[known, c])), labels[known, c] == POSITIVE
        called = chance > metric.corner_threshold(chance, truth)
        found[name] = (f1_score(truth, called, average="weighted"), accuracy_score(truth, called),
                       precision_score(truth, called, zero_division=0))
        for column, value in zip(("f1_weighted", "accuracy", "precision"), found[name], strict=True):
            assert values[f"operating_point/{column}/{name}"] == pytest.approx(value)
    assert values["operating_point/f1_weighted@two"] == pytest.approx(np.mean([found[n][0] for n in LABELS[:2]]))
    weighted = samples.metrics(np.ones((2, 30), np.int64))
    assert weighted["operating_point/accuracy"] == pytest.approx([values["operating_point/accuracy"]] * 2)
    assert samples.sizes()["operating_point/accuracy/Nodule"] == 29


def test_official_prompts_are_the_published_sentences():
    texts_encoded = []

    class Listens(Random):
        def texts(self, texts, phrases):
            texts_encoded.extend(texts)
            return super().texts(texts, phrases)

    data = EvalData.from_records(world(5), METADATA, VIEW)
    benchmark.zero_shot(ct_rate.BENCHMARK, data, "official", prompting={}).run(Listens())
    assert set(texts_encoded) == {
        f"{name} is{n} present." for name in ("Lung nodule", "Cardiomegaly", "Pleural effusion") for n in ("", " not")}
    assert protocol_prompts.CT_CLIP["Hernia"][0] == ("Hiatal hernia is present.",) and len(ct_rate.SIXTEEN) == 16
    texts_encoded.clear()
    benchmark.zero_shot(ct_rate.BENCHMARK, data, "clean", prompting={"scoring": "pair"}).run(Listens())
    assert "Lung nodule is present." not in texts_encoded and len(texts_encoded) > 12


def test_calcification_is_either_of_two():
    """RAD-ChestCT does not say of what: the label of the merged class, and the higher of the two scores."""
    parts = rad_chestct.MERGED[rad_chestct.CALCIFICATION]
    data = EvalData.from_records(world(8), METADATA, VIEW)
    labels = np.array([[1, 0], [0, 1], [0, 0], [-1, 0], [-2, 0], [-2, -2], [1, -1], [-1, -2]], np.int8)
    data = dataclasses.replace(data, label_names=("Nodule", *parts), labels=np.concatenate(
        [data.labels[:, :1], labels], 1), report_labels=np.concatenate([data.report_labels[:, :1], labels], 1))
    merged = data.with_merged(rad_chestct.CALCIFICATION, parts)
    assert merged.labels[:, -1].tolist() == [1, 1, 0, -1, -2, -2, 1, -1]
    one = merged.with_labels((rad_chestct.CALCIFICATION,))
    scores = benchmark.zero_shot(rad_chestct.BENCHMARK, one, "official", prompting={}).run(Random()).arrays["scores"]
    both = benchmark.zero_shot(ct_rate.BENCHMARK, data.with_labels(parts), "official", prompting={})
    each = np.stack([dataclasses.replace(both, data=dataclasses.replace(
        data.with_labels((part,)), labels=one.labels)).run(Random()).arrays["scores"][:, 0] for part in parts], 1)
    np.testing.assert_allclose(scores[:, 0], each.max(1), rtol=1e-6)
    assert rad_chestct.FINDINGS[-1] == rad_chestct.CALCIFICATION and len(rad_chestct.FINDINGS) == 14

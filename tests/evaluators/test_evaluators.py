"""Evaluators on a world whose right answers are known, against direct computations."""

import dataclasses
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness import output
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.data import EvalData, subject_key
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.grounding import Grounding, grounding_samples
from lgdea_jax.evaluators.retrieval import Retrieval
from lgdea_jax.evaluators.zero_shot import ZeroShot
from lgdea_jax.findings import prompts
from lgdea_jax.metrics import bootstrap
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN
from tests.evaluators.world import LABELS, PHRASES, SIZE, Oracle, record, world

METADATA = SimpleNamespace(label_names=LABELS)


def _data(records=None):
    return EvalData.from_records(world() if records is None else records, METADATA, SIZE)


def test_what_cannot_be_measured_is_said():
    """A user's table without labels, reports of images and boxes: metrics are undefined, and the reason is known."""
    assert _data().lacks == {}
    bare = [dataclasses.replace(r, labels=np.full(len(LABELS), MISSING, np.int8), boxes=(), report="", has_report=False,
                                evidence=()) for r in world() if r.has_image]
    lacks = _data(bare).lacks
    assert set(lacks) == {"zero_shot", "retrieval", "grounding"}
    assert all(why.startswith("no image has a ") for why in lacks.values())
    assert set(_data([dataclasses.replace(r, boxes=()) for r in world()]).lacks) == {"grounding"}
    # Labels can be made where there are reports.
    assert "derived_labels" not in lacks["zero_shot"]
    unlabelled = [dataclasses.replace(r, labels=np.full_like(r.labels, MISSING)) for r in world()]
    assert "--config.derived_labels=silver" in _data(unlabelled).lacks["zero_shot"]


def test_a_perfect_model_is_perfect():
    values = tasks.evaluate(Oracle(), _data())
    for name in ("zero_shot/auroc", "zero_shot/accuracy", "zero_shot/kappa", "retrieval/precision@5",
                 "retrieval/recall@1/image_to_text", "retrieval/recall@1/text_to_image", "grounding/pointing",
                 "retrieval/map@5", "retrieval/jaccard@1"):
        assert values[name] == pytest.approx(1.0), name
    assert values["grounding/cnr"] == pytest.approx(values["grounding/cnr_signed"]) and values["grounding/cnr"] > 2
    assert values["grounding/miou"] > 0.4


def test_an_inverted_model_is_found_out():
    values = tasks.evaluate(Oracle(sign=-1), _data())
    assert values["zero_shot/auroc"] == 0.0
    assert values["retrieval/precision@5"] < 0.1
    assert values["grounding/pointing"] == 0.0
    assert values["grounding/cnr"] > 2 and values["grounding/cnr_signed"] < -2  # What the absolute value hides.


def test_zero_shot_equals_scikit_learn():
    data = _data()
    samples = ZeroShot(data).run(Oracle(noise=1.0))
    values, sizes = samples.metrics(), samples.sizes()
    expected = [roc_auc_score(data.labels[:, c], samples.arrays["scores"][:, c]) for c in range(3)]
    for name, value in zip(LABELS, expected):
        assert values[f"zero_shot/auroc/{name}"] == pytest.approx(value, abs=1e-9)
    assert values["zero_shot/auroc"] == pytest.approx(np.mean(expected)) and 0.5 < np.mean(expected) < 1
    single = (data.labels == POSITIVE).sum(1) == 1
    truth = data.labels[single].argmax(1)
    predicted = samples.arrays["scores"][single].argmax(1)
    assert values["zero_shot/accuracy"] == pytest.approx((truth == predicted).mean())
    assert sizes["zero_shot/accuracy"] == single.sum() == 36 and sizes["zero_shot/auroc/Nodule"] == 60


def test_zero_shot_leaves_out_what_it_cannot_know():
    rows = world(20)
    rows = [dataclasses.replace(r, labels=np.append(r.labels, [POSITIVE, r.labels[0]]).astype(np.int8)) for r in rows]
    rows[1].labels[0] = MISSING
    rows[2].labels[0] = UNCERTAIN
    samples = ZeroShot(EvalData.from_records(rows, SimpleNamespace(label_names=(*LABELS, "Edema", "Unheard Of")),
                                                 SIZE)).run(Oracle())
    assert samples.names["findings"] == LABELS
    assert samples.info["one_class_only"] == ["Edema"] and samples.info["no_prompts"] == ["Unheard Of"]
    assert samples.sizes()["zero_shot/auroc/Nodule"] == 18


def test_zero_shot_without_labels_is_undefined_not_half():
    rows = [dataclasses.replace(r, labels=np.full(3, MISSING, np.int8)) for r in world(6)]
    values = ZeroShot(EvalData.from_records(rows, METADATA, SIZE)).run(Oracle()).metrics()
    assert {"zero_shot/auroc", "zero_shot/accuracy", "zero_shot/kappa", "zero_shot/ece"} <= set(values)
    assert all(np.isnan(value) for value in values.values())


def test_scoring_and_ensemble_are_choices():
    data = _data()
    pair, positive = (ZeroShot(data, scoring=s).run(Oracle(noise=0.3)).arrays["scores"] for s in ("pair", "positive"))
    assert not np.allclose(pair, positive)
    for s in ("pair", "positive"):
        normalised = ZeroShot(data, scoring=s, ensemble="normalised").run(Oracle()).metrics()
        assert normalised["zero_shot/auroc"] == 1.0
    with pytest.raises(UserError, match="did you mean 'pair'"):
        ZeroShot(data, scoring="pairs")


def test_contrast_takes_out_what_all_findings_share_and_half_of_the_denial():
    data, model = _data(), Oracle(noise=0.3)
    scores = {s: ZeroShot(data, scoring=s).run(model).arrays["scores"].astype(np.float64)
              for s in ("pair", "positive", "contrast")}
    negative = scores["positive"] - scores["pair"]
    common = scores["positive"].mean(1, keepdims=True)
    np.testing.assert_allclose(scores["contrast"], scores["positive"] - (negative + common) / 2, atol=1e-5)


def test_prompts_stand_in_their_context():
    class Recording(Oracle):
        def texts(self, texts, phrases):
            self.texts_encoded = [*getattr(self, "texts_encoded", []), *texts]
            assert all(parts == (text,) for text, parts in zip(texts, phrases))
            return super().texts(texts, phrases)

    model = Recording()
    ZeroShot(_data(), context=prompts.REPORT).run(model)
    assert all(text.startswith("FINDINGS: ") and "IMPRESSION: " in text for text in model.texts_encoded)
    assert prompts.in_context("No nodule", prompts.REPORT) in model.texts_encoded
    assert prompts.in_context("Small nodule.", "A {} B {}") == "A Small nodule. B Small nodule."
    assert prompts.in_context("Nodule", prompts.BARE) == "Nodule"
    samples = tasks.evaluator("zero_shot", _data(), context=prompts.REPORT).run(Oracle())
    assert samples.info["context"] == prompts.REPORT


def test_every_call_of_the_model_has_the_same_size():
    model, data = Oracle(), _data(world(23))
    tasks.evaluate(model, data, batch_size=8)
    assert {size for _, size in model.batches} == {8}
    assert sum(kind == "images" for kind, _ in model.batches) == 3  # One pass for all three tasks.


def test_padding_and_batch_size_do_not_change_results():
    data = _data(world(23))
    a, b = (tasks.evaluate(Oracle(noise=0.7), data, batch_size=size) for size in (1, 64))
    assert a.keys() == b.keys()
    # The noise depends on the whole batch in this fake model, so only noiseless values must agree.
    a, b = (tasks.evaluate(Oracle(), data, batch_size=size) for size in (5, 64))
    assert a == pytest.approx(b, nan_ok=True)


def test_retrieval_precision_by_hand():
    data = _data()
    samples = Retrieval(data).run(Oracle(noise=0.8))
    encoder = Encoder(Oracle(noise=0.8), data)
    text = encoder.texts(data.reports, data.phrases)[0]
    single = np.flatnonzero((data.report_labels == POSITIVE).sum(1) == 1)
    label = data.report_labels.argmax(1)
    values = []
    for image in np.flatnonzero((data.labels == POSITIVE).sum(1) == 1):
        others = single[single != data.report_of[image]]
        score = text[others] @ encoder.images()[image]
        # Reports of one class are equal here, so whole classes tie: the expectation is over the class at rank 1.
        top = np.isclose(score, score.max())
        values.append((label[others[top]] == data.labels[image].argmax()).mean())
    assert samples.metrics()["retrieval/precision@1"] == pytest.approx(np.mean(values))
    assert samples.info["precision"]["candidates"] == 35 and samples.info["precision"]["per_class"] == 12
    assert samples.info["precision"]["chance"] == pytest.approx(11 / 35)
    assert samples.sizes()["retrieval/precision@1"] == 36


def test_retrieval_draws_equal_classes_and_lists_what_is_too_small():
    rows = [record(i, ("Nodule",)) for i in range(9)] + [record(10 + i, ("Cardiomegaly",)) for i in range(6)]
    rows += [record(30 + i, ("Pleural Effusion",)) for i in range(2)]
    first, again, other = (Retrieval(_data(rows), seed=seed).run(Oracle()) for seed in (0, 0, 1))
    info = first.info["precision"]
    assert info["classes"] == ["Cardiomegaly", "Nodule"] and info["classes_left_out"] == ["Pleural Effusion"]
    assert info["per_class"] == 6 and info["queries"] == 12 and info["ceiling"]["10"] == 0.5
    assert first.metrics()["retrieval/precision@10"] == pytest.approx(0.5)  # The ceiling: five others of the class.
    assert np.array_equal(first.arrays["values"], again.arrays["values"], equal_nan=True)
    assert not np.array_equal(first.arrays["values"], other.arrays["values"], equal_nan=True)


def test_equal_texts_are_hits_in_clean_mode_only():
    rows = [record(i, findings) for i, findings in enumerate([("Nodule",)] * 4 + [("Cardiomegaly",), ()])]
    clean, official = (Retrieval(_data(rows), mode=mode).run(Oracle()).metrics() for mode in ("clean", "official"))
    assert clean["retrieval/recall@1/image_to_text"] == 1.0
    # Four equal reports tie: the paired one is first with chance 1/4.
    assert official["retrieval/recall@1/image_to_text"] == pytest.approx((4 * 0.25 + 2) / 6)
    assert official["retrieval/recall@1/text_to_image"] == pytest.approx((4 * 0.25 + 2) / 6)
    assert official["retrieval/recall@5/image_to_text"] == pytest.approx(1.0)
    assert np.isnan(clean["retrieval/recall@10/image_to_text"])  # Six candidates have no first ten.


def test_own_report_is_a_candidate_in_official_mode_only():
    """A model that knows each image's own report by heart, and nothing else."""
    rows = world(50)

    class ByHeart(Oracle):
        def images(self, images):
            identity = images[:, -1, 0].astype(int)
            return super().images(images) | {"embedding": np.eye(256, dtype=np.float32)[identity]}

        def texts(self, texts, phrases):
            identity = [int(text.split()[-1]) if text.split()[-1].isdigit() else 255 for text in texts]
            return super().texts(texts, phrases) | {"embedding": np.eye(256, dtype=np.float32)[identity]}

    data = _data([dataclasses.replace(r, report=f"{r.report} {i}") for i, r in enumerate(rows)])
    data.images[:, -1, 0] = np.arange(50)
    clean, official = (Retrieval(data, mode=mode).run(ByHeart()) for mode in ("clean", "official"))
    assert official.metrics()["retrieval/precision@1"] == 1.0
    assert clean.metrics()["retrieval/precision@1"] == pytest.approx(clean.info["precision"]["chance"])
    assert clean.metrics()["retrieval/recall@1/image_to_text"] == 1.0


def test_two_views_share_a_report():
    rows = world(20)
    rows += [dataclasses.replace(r, image_id="1", view="LATERAL") for r in rows[:5]]
    data = _data(rows)
    assert len(data.images) == 25 and len(data.reports) == 20
    samples = Retrieval(data).run(Oracle())
    assert samples.info["recall"]["images"] == 25 and samples.info["recall"]["reports"] == 20
    assert samples.metrics()["retrieval/recall@1/text_to_image"] == 1.0


def test_images_or_reports_alone():
    only_images = _data([dataclasses.replace(r, report="", has_report=False, evidence=()) for r in world(10)])
    values = tasks.evaluate(Oracle(), only_images)
    assert np.isnan(values["retrieval/recall@1/image_to_text"]) and values["zero_shot/auroc"] == 1.0
    only_reports = _data([dataclasses.replace(r, image=b"", has_image=False, boxes=()) for r in world(10)])
    values = tasks.evaluate(Oracle(), only_reports)
    assert all(np.isnan(value) for value in values.values())
    assert all(np.isnan(value) for value in tasks.evaluate(Oracle(), _data([])).values())


def test_unreadable_images_are_listed():
    rows = world(10)
    rows[3] = dataclasses.replace(rows[3], image=b"broken")
    data = _data(rows)
    assert len(data.images) == 9 and [row for row, _ in data.rejected] == [3]
    assert 3 not in data.record_rows


def test_grounding_maps_back_to_the_original_frame():
    """A wide original, stored small: the letterbox bars must not shift the peak."""
    row = record(0, ("Nodule", "Pleural Effusion"), shape=(16, 32), original=(320, 640))
    nodule, effusion = row.boxes
    row = dataclasses.replace(row, boxes=(dataclasses.replace(nodule, h=160.0),
                                          dataclasses.replace(effusion, y=160.0, h=160.0)))

    class Peak(Oracle):
        def images(self, images):
            out = super().images(images)
            # Stored 16 x 32 in a 32 x 32 square: its upper half is patch row 1, its lower half patch row 2.
            patches = np.zeros((len(images), 4, 4, 3), np.float32)
            patches[:, 1, 0, 0] = patches[:, 2, 3, 2] = 1
            return out | {"patches": patches.reshape(len(images), 16, 3)}

    samples = Grounding(_data([row])).run(Peak())
    values = samples.metrics()
    assert values["grounding/pointing/Nodule"] == 1.0 and values["grounding/pointing/Pleural Effusion"] == 1.0
    assert values["grounding/cnr_signed"] > 1
    assert samples.info["pointing_by_chance"] == pytest.approx(1 / 8)


def test_boxes_of_a_phrase_are_one_sample_and_missing_phrases_use_prompts():
    one = record(0, ("Nodule",))
    box = one.boxes[0]
    both = dataclasses.replace(one, boxes=(box, dataclasses.replace(box, x=16.0), dataclasses.replace(box, phrase="")))
    data = _data([both])
    samples = grounding_samples(data)
    assert [len(s.boxes) for s in samples] == [2, 1] and [s.phrase for s in samples] == [PHRASES["Nodule"], ""]
    result = Grounding(data).run(Oracle())
    assert result.info["without_phrase"] == 1 and result.info["boxes"] == 3
    assert result.arrays["values"][1, 2] == 1.0  # Pointing, asked with prompts.


def test_a_box_outside_the_image_is_counted_and_left_out():
    one = record(0, ("Nodule",))
    outside = dataclasses.replace(one, boxes=(*one.boxes, dataclasses.replace(one.boxes[0], x=99.0, phrase="other")))
    result = Grounding(_data([outside])).run(Oracle())
    assert result.info["outside_the_image"] == 1 and result.sizes()["grounding/pointing"] == 1
    assert result.metrics()["grounding/pointing"] == 1.0


def test_smoothing_blurs_the_grid():
    data = _data()
    sharp, smooth = (Grounding(data, sigma=sigma).run(Oracle()).metrics() for sigma in (0.0, 1.5))
    assert smooth["grounding/cnr"] < sharp["grounding/cnr"]


def hmac_of(subject):
    return hashlib.blake2b(str(subject).encode(), digest_size=8, key=b"k" * 32).hexdigest()


def test_the_secret_stays_with_the_data_set(tmp_path, monkeypatch):
    def metadata(*terms):
        return SimpleNamespace(sources=[SimpleNamespace(terms=term) for term in terms])

    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    key = output.secret_key(one, metadata("open", "own"))
    assert len(key) == 32 and output.secret_key(one, metadata("own")) == key
    assert output.secret_key(other, metadata("credentialed")) not in (key, b"")
    assert [path.name for path in one.iterdir()] == [output.SECRET]
    assert output.secret_key(tmp_path / "none", metadata("open")) == b""
    with pytest.raises(UserError, match=r"\.subject_key.*cannot be made"):
        output.secret_key(tmp_path / "none", metadata("own"))


def test_samples_on_disk_give_the_same_metrics_and_intervals(tmp_path):
    data = _data()
    live = [tasks.evaluator(task, data).run(Oracle(noise=0.8)) for task in tasks.TASKS]
    output.save_samples(tmp_path / "samples.npz", {"clean": live})
    loaded = tasks.load_samples(tmp_path / "samples.npz", "clean")
    assert list(loaded) == list(tasks.TASKS)
    for sample in live:
        assert loaded[sample.task].metrics() == pytest.approx(sample.metrics(), nan_ok=True)
        assert loaded[sample.task].sizes() == sample.sizes() and dict(loaded[sample.task].info) == sample.info
        ends = [bootstrap.intervals(s.metrics, s.subjects, resamples=50) for s in (sample, loaded[sample.task])]
        assert ends[0] == ends[1]
    output.save_samples(tmp_path / "keyed.npz", {"clean": live}, key=b"k" * 32)
    keyed = tasks.load_samples(tmp_path / "keyed.npz", "clean")
    for sample in live:
        given = keyed[sample.task]
        assert given.metrics() == pytest.approx(sample.metrics(), nan_ok=True)
        assert [hmac_of(subject) for subject in sample.subjects] == given.subjects.tolist()
    with pytest.raises(UserError, match="mode"):
        tasks.load_samples(tmp_path / "samples.npz", "official")
    with pytest.raises(UserError, match="cannot read"):
        tasks.load_samples(tmp_path / "nothing.npz")


def test_weights_of_one_give_the_point_value():
    data = _data()
    for task in tasks.TASKS:
        samples = tasks.evaluator(task, data).run(Oracle(noise=0.8))
        ones = samples.metrics(np.ones((2, len(samples.subjects)), np.uint8))
        assert {name: value[1] for name, value in ones.items()} == pytest.approx(samples.metrics(), nan_ok=True)
        assert set(samples.sizes()) == set(samples.metrics())


def test_subject_ids_are_not_kept():
    data = _data([record(0, ("Nodule",), subject="MRN 1234567")])
    assert data.subjects[0] == subject_key("MRN 1234567") and "1234567" not in data.subjects[0]
    assert data.labels[0].tolist() == [POSITIVE, NEGATIVE, NEGATIVE]


def test_a_model_with_nan_is_refused():
    class Broken(Oracle):
        def images(self, images):
            return {name: value * np.nan for name, value in super().images(images).items()}

    with pytest.raises(ValueError, match="not finite"):
        tasks.evaluate(Broken(), _data(world(5)))


def test_a_model_without_text_has_no_scores():
    class Blind(Oracle):
        reads_text = False

    assert tasks.evaluate(Blind(), _data(world(5))) == {}


def test_a_model_that_cannot_ground_leaves_grounding_undefined():
    class Global(Oracle):
        grid = ()

        def images(self, images):
            return {"embedding": super().images(images)["embedding"]}

        def texts(self, texts, phrases):
            return {"embedding": super().texts(texts, phrases)["embedding"]}

    values = tasks.evaluate(Global(), _data())
    assert values["zero_shot/auroc"] == 1.0 and np.isnan(values["grounding/cnr"])


def test_images_with_an_uncertain_finding_have_no_single_class():
    rows = world(20)
    rows[1].labels[1] = UNCERTAIN  # One positive finding, and one that may be there.
    assert ZeroShot(_data(rows)).run(Oracle()).sizes()["zero_shot/accuracy"] == 11
    assert Retrieval(_data(rows), min_per_class=1).run(Oracle()).info["precision"]["per_class"] == 3

"""Batches as a function of the step number: order, processes, rows of a process, mixtures, what a row holds."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.build import build
from lgdea_jax import cli, records
from lgdea_jax.data import dataset, pipeline, plan
from lgdea_jax.data import source as record_source
from lgdea_jax.data.batch import BatchSchema
from lgdea_jax.data.pipeline import Items, iterate, make_batches, prefetch_to_device
from lgdea_jax.data.sums import DamagedData
from lgdea_jax.errors import UserError
from lgdea_jax.io import decode_image
from lgdea_jax.preprocess.augment import Augment
from lgdea_jax.preprocess.image import letterbox
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.preprocess.text_view import FINDING_IDS, TextView, encode_text
from lgdea_jax.training.data import weighted_parts

SIZE = 32
VIEW = TextView(kind="phrases", length=8, phrases=3, uncertain_weight=0.5, variants=("verbatim", "canonical"))


@pytest.fixture(scope="module")
def tokenizer(phantom_data):
    return TextTokenizer.load(phantom_data / "tokenizer.json")


@pytest.fixture(scope="module")
def make_items(phantom_data, tokenizer):
    def make(rows, *, image=True, text=True, cache=True, view=VIEW, labels=None, hidden=False):
        rows = np.asarray(rows)
        names = labels or dataset.load_metadata(phantom_data).label_names
        stream = "reports" if not image else "pairs" if text else "images"
        return Items(str(phantom_data), "train", rows, stream=stream, tokenizer=tokenizer, label_names=names,
                     schema=BatchSchema(SIZE, view, len(names), hidden), cache=cache)

    return make


@pytest.fixture(scope="module")
def augment():
    options = cli.read_config("configs/common.py").augment.to_dict()
    return Augment(**options)


def batches_of(make_items, augment, *, seed=0, sizes=None, cache=True, rows_of=None):
    items = {"pairs": [(make_items(range(20), cache=cache), 1.0)],
             "images": [(make_items(range(20, 30), text=False, cache=cache), 1.0)],
             "reports": [(make_items(range(30, 40), image=False, cache=cache), 1.0)]}
    return make_batches(items, sizes=sizes or {"pairs": 4, "images": 6, "reports": 2},
                        rows_of=rows_of or (lambda rows: slice(0, rows)), augment=augment, seed=seed)


def take(batches, start, count, **options):
    iterator = iterate(batches, start=start, **{"workers": 0, "threads": 2, **options})
    taken = [next(iterator) for _ in range(count)]
    if hasattr(iterator, "close"):
        iterator.close()
    return taken


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for stream in one:
        assert one[stream].keys() == other[stream].keys()
        for name in one[stream]:
            assert one[stream][name].dtype == other[stream][name].dtype
            np.testing.assert_array_equal(one[stream][name], other[stream][name], err_msg=f"{stream}/{name}")


def test_shapes_are_fixed(make_items, augment):
    batch = batches_of(make_items, augment)[0]
    n = batch["pairs"]["labels"].shape[1]
    found = {f"{stream}/{name}": (array.shape, array.dtype.name)
             for stream, arrays in batch.items() for name, array in arrays.items()}
    assert found == {
        "pairs/image": ((4, SIZE, SIZE), "uint8"), "pairs/labels": ((4, n), "int8"), "pairs/study": ((4,), "int32"),
        "pairs/image_index": ((4,), "int32"), "pairs/report_index": ((4,), "int32"),
        "pairs/tokens": ((4, 3, 8), "int32"), "pairs/weight": ((4, 3), "float32"),
        "pairs/finding": ((4, 3), "int32"), "pairs/normal": ((4,), "bool"),
        "images/image": ((6, SIZE, SIZE), "uint8"), "images/labels": ((6, n), "int8"),
        "images/image_index": ((6,), "int32"),
        "reports/tokens": ((2, 3, 8), "int32"), "reports/weight": ((2, 3), "float32"),
        "reports/finding": ((2, 3), "int32"), "reports/normal": ((2,), "bool"), "reports/report_index": ((2,), "int32")}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(("kind", "enabled"), [("phrases", True), ("report", False), ("evidence", True)])
def test_batches_are_what_the_schema_says(make_items, augment, kind, enabled, cache):
    """Of one part, and of a mixture of two; items before augmentation too."""
    augment = dataclasses.replace(augment, enabled=enabled)
    view = dataclasses.replace(VIEW, kind=kind)
    options = {"pairs": {}, "images": {"text": False, "hidden": True}, "reports": {"image": False}}
    parts = {stream: [(make_items(range(start, start + 8), cache=cache, view=view, **some), 1.0) for start in (0, 8)]
             for stream, some in options.items()}
    for items in (parts, {stream: some[:1] for stream, some in parts.items()}):
        batch = make_batches(items, sizes={"pairs": 6, "images": 4, "reports": 2}, rows_of=lambda n: slice(0, n),
                             augment=augment, seed=0)[3]
        for (stream, some), rows in zip(items.items(), (6, 4, 2), strict=True):
            held = {name: (array.shape, array.dtype) for name, array in batch[stream].items()}
            assert held == {name: ((rows, *field.shape), field.dtype)
                            for name, field in some[0][0].schema.batch_fields(stream).items()}
            item = {name: (array.shape, array.dtype) for name, array in some[0][0][2].items()}
            assert item == {name: (field.shape, field.dtype) for name, field in some[0][0].fields.items()}


def test_batch_n_is_the_same_however_it_is_read(make_items, augment):
    batches = batches_of(make_items, augment)
    reference = [batches[n] for n in range(6)]
    for n, batch in enumerate(take(batches, 0, 6)):
        assert_equal(batch, reference[n])
    for n, batch in enumerate(take(batches, 4, 2, threads=1)):
        assert_equal(batch, reference[4 + n])
    for n, batch in enumerate(take(batches_of(make_items, augment, cache=False), 2, 3)):
        assert_equal(batch, reference[2 + n])
    # Far on, as in a long run: nothing is counted from the start.
    assert_equal(take(batches, 10**6, 1)[0], batches[10**6])


@pytest.mark.slow
def test_worker_processes_read_the_same(make_items, augment):
    batches = batches_of(make_items, augment, cache=False)
    for n, batch in enumerate(take(batches, 1, 5, workers=2)):
        assert_equal(batch, batches[1 + n])


def test_each_epoch_shows_everything_once_in_another_order(make_items, augment):
    batches = batches_of(make_items, augment)
    epochs = [np.concatenate([batches[5 * epoch + n]["pairs"]["image_index"] for n in range(5)]) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(20))
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()


def test_augmentation_differs_between_epochs(make_items, augment):
    batches = batches_of(make_items, augment)

    def image(epoch):
        for n in range(5):
            part = batches[5 * epoch + n]["pairs"]
            if 7 in part["image_index"]:
                return part["image"][part["image_index"].tolist().index(7)]
        raise AssertionError

    assert not np.array_equal(image(0), image(1))


def test_seeds_differ_and_large_ones_work(make_items, augment):
    one, other = (batches_of(make_items, augment, seed=seed)[0]["pairs"]["image_index"] for seed in (0, 1))
    assert one.tolist() != other.tolist()
    assert batches_of(make_items, augment, seed=2**40)[0]["pairs"]["image_index"].shape == (4,)


def test_processes_read_their_own_rows(make_items, augment):
    whole = batches_of(make_items, augment)
    halves = [batches_of(make_items, augment, rows_of=lambda rows, i=i: slice(i * rows // 2, (i + 1) * rows // 2))
              for i in range(2)]
    for n in (0, 1, 7):
        joined = {stream: {name: np.concatenate([half[n][stream][name] for half in halves])
                           for name in whole[n][stream]} for stream in whole[n]}
        assert_equal(joined, whole[n])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 50), st.integers(1, 4), st.lists(st.integers(1, 11), max_size=3), st.booleans())
def test_any_threads_start_and_split_give_the_same_batches(make_items, augment, start, threads, cuts, cache):
    items = [(make_items(range(8), cache=cache), 2.0), (make_items(range(8, 30), cache=cache), 1.0)]

    def batches(rows_of):
        return make_batches({"pairs": items}, sizes={"pairs": 12, "images": 0, "reports": 0}, rows_of=rows_of,
                            augment=augment, seed=5)

    whole = [batches(lambda rows: slice(0, rows))[start + n] for n in range(2)]
    edges = [0, *sorted(set(cuts)), 12]
    parts = [take(batches(lambda rows, a=a, b=b: slice(a, b)), start, 2, threads=threads)
             for a, b in itertools.pairwise(edges)]
    for n, batch in enumerate(whole):
        joined = {name: np.concatenate([part[n]["pairs"][name] for part in parts]) for name in batch["pairs"]}
        assert_equal({"pairs": joined}, batch)


def test_a_damaged_image_is_named_by_its_row(make_items, monkeypatch):
    def damaged(data, image_format, out=None):
        raise ValueError("a png image cannot be decoded: broken")

    items = make_items([5, 3], cache=False)
    monkeypatch.setattr(pipeline, "decode_image", damaged)
    with pytest.raises(DamagedData, match=r"record 3 of RecordSource\(.*broken") as caught:
        items[1]
    assert "phantom-" not in str(caught.value).replace(str(items._records._folder), "")


def test_mixtures_follow_their_weights(make_items, augment):
    parts = [(make_items(range(10), text=False), 3.0), (make_items(range(10, 40), text=False), 1.0)]
    names = {"pairs": 0, "images": 8, "reports": 0}
    batches = make_batches({"pairs": [], "images": parts, "reports": []}, sizes=names,
                           rows_of=lambda rows: slice(0, rows), augment=dataclasses.replace(augment, enabled=False),
                           seed=0)
    rows = np.concatenate([batches[n]["images"]["image"].reshape(8, -1) for n in range(20)])
    first = np.stack([parts[0][0][i]["image"].reshape(-1) for i in range(10)])
    assert (rows[:, None] == first).all(axis=2).any(axis=1).mean() == pytest.approx(0.75, abs=0.02)


def test_weights_of_the_parts():
    parts = [plan.Part(name, "train", np.arange(n)) for name, n in (("a", 3), ("b", 5))]
    assert [w for _, w in weighted_parts(parts, ("a", "b"))] == [3.0, 5.0]
    assert [w for _, w in weighted_parts(parts, ("a:2", "b"))] == [2.0, 1.0]
    assert [w for _, w in weighted_parts(parts, ())] == [3.0, 5.0]


def test_a_stream_without_data_is_refused(make_items, augment):
    with pytest.raises(UserError, match=r"batch\.reports is 2 but there are no reports"):
        make_batches({"pairs": [(make_items(range(4)), 1.0)], "images": [], "reports": []},
                     sizes={"pairs": 4, "images": 0, "reports": 2}, rows_of=lambda r: slice(0, r), augment=augment,
                     seed=0)


def test_rows_hold_what_the_record_says(make_items, phantom_data, tokenizer):
    source = record_source.open_records(phantom_data, "train")
    names = dataset.load_metadata(phantom_data).label_names
    items = make_items([5, 3], labels=("Unknown", *reversed(names)), cache=False)
    for index, row in enumerate((5, 3)):
        record, item = source[row], items[index]
        assert item["labels"][0] == records.MISSING
        np.testing.assert_array_equal(item["labels"][1:], record.labels[::-1])
        np.testing.assert_array_equal(item["image"], letterbox(decode_image(record.image, record.image_format), SIZE))
        expected = encode_text(record, VIEW, tokenizer)
        np.testing.assert_array_equal(item["tokens"], expected["tokens"])
    alone = make_items([5, 3], labels=("Unknown", *reversed(names)), cache=False, text=False)
    for index in (0, 1):
        for name in ("image", "labels", "image_index"):
            np.testing.assert_array_equal(alone[index][name], items[index][name])
    copy = pickle.loads(pickle.dumps(items))
    np.testing.assert_array_equal(copy[1]["image"], items[1]["image"])


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_images_of_every_encoding(tmp_path, encoding):
    """Without text they are read around the records, raw ones into their rows of the batch where they have its size."""
    config = cli.read_config("configs/data/phantom.py")
    config.phantom.train, config.phantom.validation, config.phantom.test, config.phantom.size = 6, 0, 0, 200
    config.image_size, config.image_encoding, config.workers, config.tokenizer.vocab_size = 200, encoding, 1, 300
    build(config, tmp_path / "d", progress=False)
    source = record_source.open_records(tmp_path / "d", "train")
    names = dataset.load_metadata(tmp_path / "d").label_names
    rows = np.array([4, 0, 5, 4, 2])
    for size in (200, 96):
        items = Items(str(tmp_path / "d"), "train", np.arange(6), stream="pairs", tokenizer=None, label_names=names,
                      schema=BatchSchema(size, None, len(names)), cache=False)
        batch = items.read(rows)
        for place, row in enumerate(rows):
            record = source[row]
            np.testing.assert_array_equal(
                batch["image"][place], letterbox(decode_image(record.image, record.image_format), size))
            np.testing.assert_array_equal(batch["labels"][place], record.labels)
            assert batch["study"][place] == records.hash64(record.study_id) % 2**31


def test_progress_counts_every_row(phantom_data, tokenizer):
    seen = []
    Items(str(phantom_data), "train", np.arange(5), stream="images", schema=BatchSchema(SIZE, VIEW, 1),
          tokenizer=tokenizer, label_names=("a",), cache=True, progress=lambda: seen.append(1))
    assert len(seen) == 5


def test_prefetch_keeps_the_order_and_closes_its_source():
    closed, ahead = [], []

    def source():
        try:
            for n in range(7):
                ahead.append(n)
                yield n
        finally:
            closed.append(True)

    batches = prefetch_to_device(source(), lambda n: n * 10, depth=2)
    assert next(batches) == 0 and ahead == [0, 1, 2]
    assert list(batches) == [10, 20, 30, 40, 50, 60] and closed == [True]
    stopped = prefetch_to_device(source(), lambda n: n)
    next(stopped)
    stopped.close()
    assert closed == [True, True]


def evidence(finding, certainty="present", phrase="words", laterality="", temporality=""):
    return records.Evidence(finding, "", laterality, "", certainty, temporality, phrase, 0, len(phrase))


class Report:
    """As much of a record as `encode_text` reads."""

    def __init__(self, *items, normal=False, report="the lungs are clear"):
        self.evidence, self.normal, self.report = items, normal, report


def test_phrases_present_before_uncertain_and_padding(tokenizer):
    record = Report(evidence("Nodule", "uncertain", "possible nodule"), evidence("Pneumothorax", "absent"),
                    evidence("Cardiomegaly", phrase="large heart"))
    out = encode_text(record, VIEW, tokenizer)
    ids = FINDING_IDS
    assert out["finding"].tolist() == [ids["Cardiomegaly"], ids["Nodule"], -1]
    assert out["weight"].tolist() == [1.0, 0.5, 0.0] and not out["normal"]
    assert out["tokens"].shape == (2, 3, 8) and (out["tokens"][:, 2] == tokenizer.pad_id).all()
    verbatim, canonical = out["tokens"]
    np.testing.assert_array_equal(verbatim[:2], tokenizer.encode(["large heart", "possible nodule"], 8))
    np.testing.assert_array_equal(canonical[:2], tokenizer.encode(["cardiomegaly", "nodule"], 8))


def test_more_phrases_than_rows_and_repetitions(tokenizer):
    record = Report(*[evidence("Nodule", laterality=side) for side in ("left", "right", "left", "bilateral")],
                    evidence("Cardiomegaly"))
    out = encode_text(record, VIEW, tokenizer)
    ids = FINDING_IDS
    assert out["finding"].tolist() == [ids["Nodule"]] * 3  # left, right, bilateral; the second "left" counts once.


@pytest.mark.parametrize("normal, items, stated, weight", [
    (True, (), True, 1.0), (False, (), False, 0.0), (True, (evidence("Nodule"),), False, 1.0)])
def test_normality_is_evidence_only_when_stated(tokenizer, normal, items, stated, weight):
    out = encode_text(Report(*items, normal=normal), VIEW, tokenizer)
    assert bool(out["normal"]) == stated and out["weight"].tolist() == [weight, 0.0, 0.0]


def test_kinds_of_text(tokenizer):
    record = Report(evidence("Nodule", phrase="a nodule"), evidence("Mass", phrase="a mass"))
    report = encode_text(record, TextView("report", 8, 3, 0.5, ("verbatim", "canonical")), tokenizer)["tokens"]
    np.testing.assert_array_equal(report, tokenizer.encode(["the lungs are clear"], 8))
    joined = encode_text(record, TextView("evidence", 8, 3, 0.5, ("verbatim", "canonical")), tokenizer)["tokens"]
    np.testing.assert_array_equal(joined, tokenizer.encode(["a nodule. a mass", "nodule. mass"], 8))


@pytest.mark.parametrize("options, message", [
    ({"kind": "reports"}, "did you mean 'report'"), ({"variants": ()}, "at least one"),
    ({"variants": ("canonic",)}, "did you mean 'canonical'")])
def test_wrong_views(options, message):
    good = {"kind": "report", "length": 8, "phrases": 2, "uncertain_weight": 0.5, "variants": ("verbatim",)}
    with pytest.raises(UserError, match=message):
        TextView(**{**good, **options})

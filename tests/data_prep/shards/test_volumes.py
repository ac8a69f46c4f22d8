"""Data sets of volumes: from a table or the phantom to records, batches and label sets."""


import numpy as np
import pytest

from data_prep.build import build
from lgdea_jax import cli
from lgdea_jax.data import leakage, pipeline
from lgdea_jax.data.batch import BatchSchema
from lgdea_jax.data.dataset import load_index, load_metadata
from lgdea_jax.data.pipeline import Items
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import label_columns
from lgdea_jax.io import decode_volume
from lgdea_jax.preprocess.augment import VolumeAugment
from lgdea_jax.preprocess.text import TextTokenizer
from lgdea_jax.preprocess.text_view import TextView
from lgdea_jax.preprocess.volume import VolumeView
from lgdea_jax.records import SCHEMA_VERSION
from tests.data.tfds_examples import from_example
from tests.fixtures import ct, world

TEXT = TextView(kind="report", length=8, phrases=2, uncertain_weight=0.5, variants=("verbatim",))


def config(name, **group):
    out = cli.read_config(f"configs/data/{name}.py")
    out.workers, out.shard_studies, out.tokenizer.vocab_size = 1, 10, 300
    out.volume.geometry = "phantom_ct"
    out[out.source].update(group)
    return out


@pytest.fixture(scope="module")
def phantom_ct(tmp_path_factory):
    out = tmp_path_factory.mktemp("ct") / "data"
    build(config("phantom_ct", train=24, validation=4, test=4), out, progress=False)
    return out


def test_metadata_and_label_sets(phantom_ct):
    meta = load_metadata(phantom_ct)
    assert (meta.volume, meta.transform) == ("phantom_ct", "phantom_ct@1")
    assert meta.modalities == ("CT",)
    sets = {name: label_columns(meta.label_names, name) for name in ("", "reference", "silver", "weak")}
    assert sets[""] == sets["reference"] and list(sets["silver"]) == list(sets["weak"]) == list(sets["reference"])
    assert len(meta.label_names) == 3 * len(sets[""])
    labels = np.array([record.labels for record in open_records(phantom_ct, "train")])
    reference, silver, weak = (labels[:, list(sets[name].values())] for name in ("reference", "silver", "weak"))
    assert 0.85 < ((silver != 0) == (reference != 0)).mean() < 1 and (weak == 1).mean() > 2 * (reference == 1).mean()
    assert set(np.unique(reference)) == set(np.unique(weak)) == {0, 1}
    with pytest.raises(UserError, match=r"unknown data\.labels 'gold'"):
        label_columns(meta.label_names, "gold")
    with pytest.raises(UserError, match="the data set has no such labels"):
        label_columns(("Nodule",), "silver")


def test_label_sets_need_evidence(tmp_path):
    without = config("phantom_ct", train=2, validation=0, test=0)
    without.extractor = "none"
    with pytest.raises(UserError, match=r"silver labels come from the evidence"):
        build(without, tmp_path / "a", progress=False)
    without.derived_labels = ("gold",)
    with pytest.raises(UserError, match=r"unknown config\.derived_labels 'gold'"):
        build(without, tmp_path / "a", progress=False)


def test_tfds_opens_it(phantom_ct):
    import tensorflow_datasets as tfds

    theirs = tfds.builder_from_directory(phantom_ct).as_data_source("test")
    for a, b in zip(open_records(phantom_ct, "test"), theirs, strict=True):
        assert from_example(b).image == a.image and from_example(b).boxes == a.boxes


def items(folder, *, view=None, cache=False, labels=""):
    index = load_index(folder, "train")
    rows = np.arange(len(index["study"]))
    names = list(label_columns(load_metadata(folder).label_names))
    schema = BatchSchema(view or VolumeView.of("phantom_ct"), TEXT, len(names))
    return Items(str(folder), "train", rows, stream="pairs", schema=schema, label_names=names, labels=labels,
                 cache=cache, tokenizer=TextTokenizer.load(folder / "tokenizer.json"))


def test_items_hold_volumes_in_hu_and_the_chosen_labels(phantom_ct):
    meta = load_metadata(phantom_ct)
    for cache in (False, True):
        for labels in ("", "silver"):
            some = items(phantom_ct, labels=labels, cache=cache)
            for i, record in enumerate(open_records(phantom_ct, "train")):
                item = some[i]
                assert item["image"].shape == (32, 48, 48, 1) and item["image"].dtype == np.int16
                np.testing.assert_array_equal(item["image"][..., 0], decode_volume(record.image))
                columns = list(label_columns(meta.label_names, labels).values())
                np.testing.assert_array_equal(item["labels"], record.labels[columns])


def batches(folder, some, *, workers=0, steps=3, **keys):
    augment = VolumeAugment(some.schema.image_spec, **{"shift": 0.1, "noise": 20.0, **keys})
    made = pipeline.make_batches(
        {"pairs": [(some, 1.0)]}, sizes={"pairs": 6, "images": 0, "reports": 0}, rows_of=lambda n: slice(0, n),
        augment=augment, seed=3)
    stream = pipeline.iterate(made, start=0, workers=workers, threads=1)
    return [next(stream)["pairs"] for _ in range(steps)]


def test_batches(phantom_ct):
    view = VolumeView.of("phantom_ct", shape=(24, 32, 40))
    some = items(phantom_ct, view=view)
    found = batches(phantom_ct, some, random_crop=True)
    for batch in found:
        assert batch["image"].shape == (6, 24, 32, 40, 1) and batch["image"].dtype == np.int16
        assert -1500 < batch["image"].min() < -900 and 50 < batch["image"].max() < 4000
        assert "volume" not in batch and batch["tokens"].shape == (6, 8)
    again = batches(phantom_ct, items(phantom_ct, view=view, cache=True), random_crop=True)
    for a, b in zip(found, again, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.slow
def test_batches_do_not_depend_on_worker_processes(phantom_ct):
    some = items(phantom_ct)
    for a, b in zip(batches(phantom_ct, some), batches(phantom_ct, some, workers=2), strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_duplicate_volumes_are_found(phantom_ct):
    """A copy with noise is one picture; no two of the phantom's subjects are."""
    from lgdea_jax.preprocess.image import difference_hash
    from lgdea_jax.preprocess.volume import projection

    volumes = [decode_volume(record.image) for record in open_records(phantom_ct, "train")]
    rng = np.random.default_rng(0)
    copies = [np.clip(v + rng.normal(0, 15, v.shape), -1024, 3000).astype(np.int16) for v in volumes]
    one = np.array([difference_hash(projection(volume)) for volume in volumes])
    np.testing.assert_array_equal(one, load_index(phantom_ct, "train")["image_hash"])
    subjects = load_index(phantom_ct, "train")["subject"]
    same = [leakage.same_picture(projection(a), projection(b)) for a, b in zip(volumes, copies)]
    assert all(same)
    for i, j in leakage.near_duplicates(one, one):
        assert subjects[i] == subjects[j] or not leakage.same_picture(projection(volumes[i]), projection(volumes[j]))
    allowed = leakage.allowed_rows({str(phantom_ct): load_index(phantom_ct, "train")}, split="train", held_out=(),
                                   equal_reports="refuse")
    assert allowed[str(phantom_ct)].all()


def test_a_table_of_volumes(tmp_path):
    """NIfTI, a DICOM series and .npz in one table; what cannot be read is refused in its row."""
    from tests.io.volumes.writers import write_series

    volume = ct.phantom(1, 0)[0].images[0].pixels
    ct.write_nifti(tmp_path / "a.nii.gz", volume, ct.SPACING, "RAS")
    write_series(tmp_path / "series", volume, ct.SPACING)
    np.savez_compressed(tmp_path / "c.npz", ct=volume)
    (tmp_path / "d.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:-300])
    names = ("a.nii.gz", "series", "c.npz", "d.nii.gz", "none.nii", "")
    rows = [{"study_id": f"s{i}", "subject_id": f"p{i}", "split": "train", "image": name,
             "report": f"There is a {i + 5} mm nodule.", "label:Nodule": "1"} for i, name in enumerate(names)]
    world.table(tmp_path / "studies.csv", rows)
    box = {"finding": "Nodule", "phrase": "nodule", "x": 3, "y": 4, "w": 5, "h": 6}
    world.table(tmp_path / "boxes.csv", [
        {"study_id": "s0", "image_id": "a.nii.gz", **box, "z": 2, "d": 7},
        {"study_id": "s1", "image_id": "series", **box, "z": 15, "d": 9}])
    table = config("table_ct", path=str(tmp_path))
    table.derived_labels = ("silver",)
    report = build(table, tmp_path / "out", progress=False)
    records = {record.study_id: record for record in open_records(tmp_path / "out", "train")}
    assert {r.study_id: r.reason for r in report.rejections} == {
        "s2": "the volume has no voxel spacing", "s3": "the NIfTI file is truncated or damaged (EOFError)",
        "s4": "the volume's file is missing"}
    counts = report.counts["train"]
    assert (counts["rows"], counts["read"], counts["images"]) == (6, 3, 2)
    np.testing.assert_array_equal(decode_volume(records["s0"].image), decode_volume(records["s1"].image))
    assert [(b.x, b.y, b.z, b.w, b.h, b.d) for b in records["s0"].boxes] == [(3, 4, 2, 5, 6, 7)]
    assert [(b.z, b.d) for b in records["s1"].boxes] == [(15, 3)]  # Clipped to the volume of 18 slices.
    assert records["s1"].sex == "F" and records["s0"].modality == "CT" and not records["s5"].has_image
    assert load_metadata(tmp_path / "out").label_names == ("Nodule", "silver:Nodule")
    assert records["s5"].labels.tolist() == [1, 1]
    world.table(tmp_path / "boxes.csv", [{"study_id": "s0", "image_id": "a.nii.gz", **box, "z": 2}])
    with pytest.raises(UserError, match="no column 'd': boxes in volumes need z and d"):
        build(table, tmp_path / "other", progress=False)


def test_images_and_volumes_have_one_schema(phantom_data, phantom_ct):
    for folder, volume in ((phantom_data, ""), (phantom_ct, "phantom_ct")):
        meta = load_metadata(folder)
        assert (meta.schema_version, meta.volume) == (SCHEMA_VERSION, volume)
        assert len(list(folder.glob("offsets_*.npy"))) == (len(meta.splits) if volume else 0)

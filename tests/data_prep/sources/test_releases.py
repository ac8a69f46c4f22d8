"""What holds for every stand-in of an official release: counts add up, records can be read, sources travel."""

import importlib
import pickle
import sys

import numpy as np
import pytest

from data_prep.build import build
from data_prep.sources.registry import SOURCES, open_sources
from lgdea_jax.data.dataset import load_index, load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.io import decode_image, decode_volume
from tests.data_prep.shards.run import build as run_build
from tests.data_prep.sources import releases
from tests.fixtures import ct

# name -> (input rows of 12 studies and the odd rows, refused ones, terms, more keys of the config).
RELEASES = {
    "mimic_cxr": (26, 5, "credentialed", {}), "ms_cxr": (14, 2, "credentialed", {}),
    "chexpert": (20, 5, "credentialed", {}), "padchest": (20, 3, "credentialed", {}),
    "chestxray14": (15, 2, "open", {}), "chestx_det10": (14, 2, "open", {}), "rsna_pneumonia": (14, 2, "open", {}),
    "siim_acr": (15, 3, "open", {}), "covidx": (15, 4, "open", {"version": "8A"}),
    "vindr_cxr": (14, 2, "credentialed", {}), "openi": (21, 1, "open", {}),
    "padchest_gr": (16, 3, "credentialed", {}), "ms_cxr_t": (37, 6, "credentialed", {}),
    "cxr_lt": (21, 3, "credentialed", {}), "chest_imagenome": (14, 3, "credentialed", {}),
    "rexgradient": (21, 3, "credentialed", {}), "inspect": (14, 2, "credentialed", {}),
    "ct_rate": (20, 4, "credentialed", {}), "rad_chestct": (15, 3, "open", {"spacing": ct.SPACING})}
BY_CONFIG = {"phantom", "phantom_ct", "table"}


@pytest.fixture(scope="module", params=RELEASES)
def release(request, tmp_path_factory):
    name = request.param
    return name, releases.built(name, tmp_path_factory.mktemp(name), **RELEASES[name][3])


def test_every_source_has_a_stand_in():
    assert set(SOURCES) == set(RELEASES) | BY_CONFIG


def test_counts(release):
    name, data = release
    rows, refused, terms, _ = RELEASES[name]
    assert (data.total("rows"), data.total("rejected")) == (rows, refused)
    assert data.total("read") + data.total("rejected") == data.total("rows")
    assert sum(len(records) for records in data.records.values()) == data.total("records") > 0
    with open(data.out / "rejected.csv", encoding="utf-8") as file:
        assert len(file.readlines()) == 1 + refused
    assert all(rejection.row >= 0 and rejection.reason for rejection in data.report.rejections)
    assert {source.terms for source in data.metadata.sources} == {terms}
    assert all(source.licence and source.source for source in data.metadata.sources)


def test_records(release):
    _, data = release
    subjects = {}
    for split, records in data.records.items():
        for record in records:
            assert record.study_id and record.subject_id and record.licence
            assert subjects.setdefault(record.subject_id, split) == split
            assert len(record.labels) == len(data.metadata.label_names)
            assert set(record.labels.tolist()) <= {1, 0, -1, -2}
            if record.has_image:
                if data.metadata.volume:
                    image = decode_volume(record.image)
                    assert image.dtype == np.int16 and image.shape == (32, 48, 48)
                    assert image.max() > 100 > -900 > image.min()
                    assert image.shape == tuple(record.image_shape) and (record.spacing > 0).all()
                else:
                    image = decode_image(record.image, record.image_format)
                    assert image.dtype == np.uint8 and max(image.shape) <= 64 and image.max() > image.min()
                _, height, width = record.original_shape
                for box in record.boxes:
                    assert 0 <= box.x < box.x + box.w <= width and 0 <= box.y < box.y + box.h <= height
        assert len(load_index(data.out, split)["subject"]) == len(records)
    assert data.total("images") == sum(r.has_image for records in data.records.values() for r in records)


def test_sources_travel_to_other_processes(release):
    name, data = release
    sources = open_sources(releases.config(name, data.folder, **RELEASES[name][3]))
    for source in sources.values():
        copy = pickle.loads(pickle.dumps(source))
        assert copy.fingerprint == source.fingerprint and copy.label_names == source.label_names
        first, second = _study(source), _study(copy)
        assert (first.study_id, first.labels, first.report) == (second.study_id, second.labels, second.report)


def _study(source):
    return source[0]


@pytest.mark.parametrize("name", RELEASES)
def test_a_folder_without_the_release_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=rf"config\.{name}\.path"):
        open_sources(releases.config(name, "", **RELEASES[name][3]))
    with pytest.raises(UserError):
        open_sources(releases.config(name, tmp_path, **RELEASES[name][3]))


@pytest.mark.parametrize("name", [name for name in RELEASES if name != "openi"])
def test_the_docstring_says_how_views_and_rows_are_taken(name):
    text = " ".join(importlib.import_module(SOURCES[name]).__doc__.split())
    assert "frontal" in text.lower() and "An input row is" in text and f"configs/data/{name}.py" in text


def test_the_command_with_worker_processes(tmp_path):
    folder = releases.written("vindr_cxr", tmp_path / "vindr")
    process = run_build("--config=configs/data/vindr_cxr.py", f"--config.vindr_cxr.path={folder}", "--config.workers=2",
                        "--config.shard_studies=4", f"--out={tmp_path / 'out'}")
    assert process.returncode == 3, process.stderr
    assert "1 x a colour secondary capture, not a radiograph" in process.stdout
    splits = load_metadata(tmp_path / "out").splits
    assert sum(len(list(open_records(tmp_path / "out", split))) for split in splits) == 12


def test_dicom_without_the_extra_names_it(tmp_path, monkeypatch):
    folder = releases.written("rsna_pneumonia", tmp_path / "rsna")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[dicom\]"'):
        build(releases.config("rsna_pneumonia", folder), tmp_path / "out", progress=False)

"""COVIDx: words without a header, classes of both kinds of versions, patients of the test list."""

import pytest

from data_prep.sources.registry import open_sources
from lgdea_jax.errors import UserError
from tests.data_prep.sources import releases
from tests.fixtures import world


def test_covidx(tmp_path):
    data = releases.built("covidx", tmp_path, version="8A")
    lines = {}
    for part in ("train", "test"):
        for line in (data.folder / f"{part}.txt").read_text().splitlines():
            words = line.split(" ")
            lines[words[1]] = (words[0], words[2], words[3], part)
    names = {"normal": "No Finding", "pneumonia": "Pneumonia", "COVID-19": "COVID-19"}
    for image, record in data.by_image().items():
        patient, kind, collection, part = lines[image]
        assert data.labels(record) == {name: int(name == names[kind]) for name in names.values()}
        assert record.subject_id == f"covidx-{collection}-{patient}"
        assert record.source == f"COVIDx CXR 8A ({collection})"
        assert (record in data.records["test"]) == (part == "test")
    assert sorted(data.reasons().values()) == [
        "not four words: patient id, file name, class, collection", "the image file is missing",
        "the patient is in the test list too", "unknown class 'sadness'"]


def test_two_classes_and_a_validation_list(tmp_path):
    folder = tmp_path / "c"
    picture = world.pixels(world.phantom(1, 0)[0])
    for part, line in (("train", "1 a.png positive ricord"), ("val", "2 b.png negative rsna"),
                       ("test", "3 c.png negative rsna")):
        world.png(folder / part / line.split()[1], picture)
        (folder / f"{part}_COVIDx9B.txt").write_text(line + "\n\n")
    sources = open_sources(releases.config("covidx", folder, version="9B"))
    assert {split: source[0].labels for split, source in sources.items()} == {
        "train": {"No Finding": 0, "Pneumonia": 0, "COVID-19": 1},
        "validation": {"No Finding": -2, "Pneumonia": -2, "COVID-19": 0},
        "test": {"No Finding": -2, "Pneumonia": -2, "COVID-19": 0}}
    with pytest.raises(UserError, match=r"is of version 9B, config\.covidx\.version says 8A"):
        open_sources(releases.config("covidx", folder, version="8A"))
    # Without a version in the config that of the list's name counts; a list without one needs it.
    assert open_sources(releases.config("covidx", folder))["test"][0].source == "COVIDx CXR 9B (rsna)"
    (folder / "test_COVIDx9B.txt").rename(folder / "test.txt")
    with pytest.raises(UserError, match=r"config\.covidx\.version is needed"):
        open_sources(releases.config("covidx", folder))

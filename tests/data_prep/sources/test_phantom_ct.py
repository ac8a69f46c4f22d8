"""The phantom CT world: what is drawn is where the boxes say, what is written strays as often as stated."""

import dataclasses
import pickle

import numpy as np
import pytest

from data_prep.extract.rules import extractor, keywords
from data_prep.synthetic.ct.drawing import render
from data_prep.synthetic.ct.reports import Rates, write_report
from data_prep.synthetic.ct.source import PhantomCtOptions, PhantomCtSource, open_source
from data_prep.synthetic.ct.world import FIELD, FINDINGS, Lesion, Scene, sample_anatomy
from data_prep.synthetic.random_stream import RandomStream
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS, labels_from_evidence
from lgdea_jax.records import NEGATIVE, POSITIVE, UNCERTAIN

SHAPE = (24, 32, 32)


def source(split="train", **keys):
    return PhantomCtSource(PhantomCtOptions(**{"shape": SHAPE, split: 400, **keys}), split)


def test_studies():
    one = source()
    assert len(FINDINGS) >= 8 and set(FINDINGS) <= set(LABEL_SETS["ct_rate18"])
    for i in range(12):
        study = one[i]
        (image,) = study.images
        assert image.pixels.shape == SHAPE and image.pixels.dtype == np.int16 and image.pixels.min() < -900
        np.testing.assert_allclose(np.array(image.header.spacing) * SHAPE, FIELD)
        assert {b.finding for b in image.boxes} <= {name for name, value in study.labels.items() if value == POSITIVE}
        for box in image.boxes:
            for start, extent, size in ((box.z, box.d, SHAPE[0]), (box.y, box.h, SHAPE[1]), (box.x, box.w, SHAPE[2])):
                assert 0 <= start < start + extent <= size
            assert box.phrase in study.report
    copy = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(copy[5].images[0].pixels, one[5].images[0].pixels)
    assert copy[5].report == one[5].report
    assert not np.array_equal(source("test")[5].images[0].pixels, one[5].images[0].pixels)
    assert not np.array_equal(source(seed=1)[5].images[0].pixels, one[5].images[0].pixels)


def test_subjects_with_two_studies_share_their_anatomy():
    one = source(repeat_share=0.5)
    subjects = [one.scene(i)[1] for i in range(40)]
    twins = [(i - 1, i) for i in range(1, 40) if subjects[i] == subjects[i - 1]]
    assert twins and all(one.scene(a)[0].anatomy == one.scene(b)[0].anatomy for a, b in twins)
    assert len({source(repeat_share=0.0).scene(i)[1] for i in range(40)}) == 40


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_the_picture_where_its_box_is(finding):
    """The voxels that differ from the same chest without it lie in the boxes, give or take a voxel."""
    sites = {"Pleural Effusion": ("left",), "Atelectasis": ("right lower lobe",), "Nodule": ("left upper lobe",),
              "Lung Opacity": ("right upper lobe",), "Consolidation": ("right upper lobe", "left lower lobe")}
    for seed in range(3):
        anatomy = sample_anatomy(RandomStream(seed))
        lesion = Lesion(finding, sites.get(finding, ()), 1, seed)
        shape = (32, 48, 48)
        clean, _ = render(Scene(anatomy, (), 0.0), shape, RandomStream(1))
        drawn, (extents,) = render(Scene(anatomy, (lesion,), 0.0), shape, RandomStream(1))
        changed = np.abs(drawn.astype(int) - clean) > 60
        assert (changed.any() and len(extents) == max(1, len(lesion.sites))) or finding == "Emphysema"
        inside = np.zeros(shape, bool)
        for extent in extents:
            low, size = np.array(extent[:3]).astype(int), np.array(extent[3:]).astype(int)
            inside[tuple(slice(max(0, a - 1), a + s + 1) for a, s in zip(low, size))] = True
        # The box of a device is that of its generator; the lead leaves it.
        least = 0.6 if finding == "Medical Material" else 0.75
        assert (changed & inside).sum() >= least * changed.sum(), (finding, seed)
        if finding in sites:  # Left is the image's right: x grows to the patient's left.
            x = np.argwhere(changed & inside)[:, 2].mean()
            side = {site.split()[0] for site in lesion.sites}
            assert len(side) > 1 or (x > 24) == (side == {"left"})


def test_any_size_shows_the_same_chest():
    small, large = (PhantomCtSource(PhantomCtOptions(shape=shape, train=3), "train")[1].images[0]
                    for shape in ((16, 24, 24), (32, 48, 48)))
    mean = large.pixels.reshape(16, 2, 24, 2, 24, 2).mean((1, 3, 5))
    assert np.corrcoef(mean.ravel(), small.pixels.ravel())[0, 1] > 0.95
    assert len(small.boxes) == len(large.boxes)


def silver(reports):
    values = []
    for report in reports:
        found = extractor.extract(report.text)
        values.append(labels_from_evidence(found.evidence, found.normal, FINDINGS, unmentioned=NEGATIVE))
    return np.array(values)


@pytest.mark.parametrize("split, least", [("train", 0.93), ("test", 0.9)])
def test_silver_labels_are_good_and_not_perfect(split, least):
    """Over label x study, a doubt counting as positive as CT-RATE's labeler has it; bare keywords are far worse."""
    one = source(split)
    scenes = [one.scene(i)[0] for i in range(250)]
    truth = np.array([[name in scene.present for name in FINDINGS] for scene in scenes])
    reports = [one.report(i) for i in range(250)]
    labels = silver(reports)
    accuracy = ((labels != NEGATIVE) == truth).mean()
    assert least <= accuracy <= 0.985
    assert 0.005 < (labels == UNCERTAIN).mean() < 0.05
    named = [keywords.findings(report.text) for report in reports]
    weak = np.array([[name in found for name in FINDINGS] for found in named])
    assert 0.4 < (weak == truth).mean() < 0.75
    assert weak[truth].mean() > 0.7  # It finds what is named, and calls the denied present.
    assert len({report.text for report in reports}) > 240


def test_reports_hedge_compare_list_and_deny():
    text = " ".join(source().report(i).text for i in range(200))
    for words in ("cannot be excluded", "unchanged compared with", "no longer seen", "right upper lobe and",
                  "No pleural effusion", "middle lobe, ", "suspicious for"):
        assert words in text
    training, test = (" ".join(source(split).report(i).text for i in range(300)) for split in ("train", "test"))
    assert "Frosted glass" in test and "Frosted glass" not in training


def test_a_report_that_never_strays_is_read_better():
    """Most of the disagreement is the rates', not the wording's."""
    exact = Rates(omitted=0, hedged=0, overcalled=0, resolved=0)
    one = source()
    scenes = [one.scene(i)[0] for i in range(200)]
    truth = np.array([[name in scene.present for name in FINDINGS] for scene in scenes])
    labels = silver([write_report(scene, RandomStream(3, i), exact) for i, scene in enumerate(scenes)])
    strayed = silver([one.report(i) for i in range(200)])
    assert ((labels != NEGATIVE) == truth).mean() > ((strayed != NEGATIVE) == truth).mean() + 0.005
    assert all(phrase for i, scene in enumerate(scenes)
               for phrase in write_report(scene, RandomStream(3, i), exact).phrases)


def test_options():
    for keys, reason in (({"shap": (1, 2, 3)}, "did you mean 'shape'"), ({"shape": (8, 48, 48)}, "16 to 512"),
                         ({"train": -1}, "negative"), ({"omitted": 2}, "0 to 1"), ({"max_findings": 0}, "1 to 13")):
        with pytest.raises(UserError, match=reason):
            open_source({"phantom_ct": keys}, "train")
    assert len(open_source({"phantom_ct": {"test": 3}}, "test")) == 3
    with pytest.raises(IndexError):
        open_source({"phantom_ct": {"test": 3}}, "test")[3]
    assert {field.name for field in dataclasses.fields(Rates)} < {f.name for f in dataclasses.fields(PhantomCtOptions)}


def test_every_part_of_a_study_depends_on_the_seed():
    one, other = (PhantomCtSource(PhantomCtOptions(seed=seed, shape=(16, 16, 16), train=6), "train") for seed in (0, 1))
    scenes = [[source.scene(i)[0] for i in range(6)] for source in (one, other)]
    assert all(a.anatomy != b.anatomy for a, b in zip(*scenes))
    assert [scene.lesions for scene in scenes[0]] != [scene.lesions for scene in scenes[1]]
    assert [one.report(i).text for i in range(6)] != [other.report(i).text for i in range(6)]

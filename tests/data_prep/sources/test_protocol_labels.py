"""Labels, text and lists of published protocols: hand-made tables, and the scripts' own steps written out."""

import re

import numpy as np
import pytest

from data_prep.sources import ct_rate, padchest, rad_chestct
from data_prep.sources.registry import open_sources
from data_prep.sources.shared.openi_mesh import PROTOCOL_NAMES, labels_from_automatic
from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import label_columns
from lgdea_jax.findings.protocol_labels import OPENI18, PADCHEST193, RAD_CHESTCT16
from lgdea_jax.preprocess.volume import GEOMETRIES, resample, resampled_shape, to_record
from tests.data_prep.sources import releases
from tests.fixtures import world


def test_rad_chestcts_sixteen_labels(tmp_path):
    """Scarring is a fibrotic sequela, a large nodule a nodule, any device medical material; ours are as before."""
    kinds = (*rad_chestct.MAPPING, "scarring", "nodulegr1cm", "lymphadenopathy", "stent", "suture")
    positive = {"trn1": ("scarring", "nodulegr1cm"), "trn2": ("fibrosis", "suture"), "trn3": ("calcification",),
                "trn4": ()}
    rows = [{f"{kind}*{where}": str(int(kind in there and where == "b")) for kind in kinds for where in "ab"}
            | {"NoteAcc_DEID": name} for name, there in positive.items()]
    world.table(tmp_path / "imgtrain_Abnormality_and_Location_Labels.csv", rows, list(rows[0]))
    source = open_sources(releases.config("rad_chestct", tmp_path))["train"]
    found = {source[i].study_id: {name for name, value in source[i].labels.items() if value == 1} for i in range(4)}
    assert found == {
        "trn1": {"protocol:Pulmonary Fibrotic Sequela", "protocol:Nodule"},
        "trn2": {"Pulmonary Fibrotic Sequela", "protocol:Medical Material"},
        "trn3": {"Arterial Wall Calcification", "Coronary Artery Wall Calcification",
                 "protocol:Arterial Wall Calcification"},
        "trn4": set()}
    assert len(RAD_CHESTCT16) == 16 and set(source[3].labels.values()) == {0}
    assert list(label_columns(source.label_names)) == list(rad_chestct.LABELS)
    assert list(label_columns(source.label_names, "protocol")) == list(RAD_CHESTCT16)


def test_openis_eighteen_labels_are_substrings():
    """CARZero's steps: the terms in lower case, joined by "|", and each name, or its synonym, searched for."""
    rows = [("Pulmonary Atelectases", "lung"), ("subcutaneous emphysema", "Pleural Thickening"),
            ("calcified granuloma",), ("masses", "pneumonias", "opacity"), ("heart",),
            ("rib fracture", "lesion", "infiltrate"), ()]
    column = ["|".join(np.unique([term.lower() for term in terms])) for terms in rows]
    synonyms = {"Pleural_Thickening": ["pleural thickening"], "Infiltration": ["Infiltrate"],
                "Atelectasis": ["Atelectases"]}
    for name in OPENI18:
        words = (name, *synonyms.get(name, ()))
        expected = [int(any(re.search(word.lower(), cell) for word in words)) for cell in column]
        assert [labels_from_automatic(terms)[f"protocol:{name}"] for terms in rows] == expected, name
    assert len(OPENI18) == len(PROTOCOL_NAMES) == 18
    assert set(labels_from_automatic(None).values()) == {-2} and set(labels_from_automatic(()).values()) == {0}


def test_padchests_labels_as_the_table_spells_them(tmp_path):
    folder = releases.written("padchest", tmp_path / "p")
    plain = open_sources(releases.config("padchest", folder))["test"]
    assert list(label_columns(plain.label_names)) == list(plain.label_names)
    source = open_sources(releases.config("padchest", folder, protocol_labels=True))["test"]
    assert list(label_columns(source.label_names)) == list(plain.label_names)
    spelled = label_columns(source.label_names, "protocol")
    assert {"pleural effusion", "normal", "unchanged"} <= set(spelled) <= {name.lower() for name in PADCHEST193}
    for i in range(4):  # The stand-in adds "unchanged" to every row.
        labels = source[i].labels
        assert labels["protocol:unchanged"] == 1 and labels["protocol:normal"] == labels["No Finding"]
    assert "unchanged" in padchest.NOT_FINDINGS


@pytest.mark.parametrize("findings, impression", [
    ('Heart is "normal" (see text).', "No acute disease."), ("Patient's lungs are clear.", "Not given."),
    ("Not given.", "Nodule (4 mm)."), ("", "Normal.")])
def test_ct_rates_report_is_what_the_script_reads(findings, impression):
    """The script's steps; it joins without a space, which its tokenizer does not tell apart after a full stop."""
    text = ""
    for part in (findings, impression):
        text += "" if part == "Not given." else part
    for sign in "\"'()":
        text = text.replace(sign, "")
    ours = ct_rate.report_of(findings, impression)
    assert ours.replace(" ", "") == text.replace(" ", "") and "FINDINGS" not in ours
    assert ct_rate.report_of("A.", "B.") == "A. B."
    assert ct_rate.report_of("A (b).", "B.", "sections") == "FINDINGS: A (b).\nIMPRESSION: B."


def test_volumes_without_a_chest_can_be_left_out(tmp_path):
    folder = releases.written("ct_rate", tmp_path / "ct")
    kept = open_sources(releases.config("ct_rate", folder))["test"]
    with pytest.raises(UserError, match=r"leave_out needs .*no_chest_"):
        open_sources(releases.config("ct_rate", folder, no_chest="leave_out"))
    names = [ref.image_id for ref in kept[0].images]
    for part, lines in (("train", []), ("valid", [f"dataset/valid/x/{name}.nii.gz" for name in names])):
        (folder / "dataset" / "metadata" / f"no_chest_{part}.txt").write_text("\n".join(lines) + "\n")
    rest = open_sources(releases.config("ct_rate", folder, no_chest="leave_out"))["test"]
    assert len(rest) == len(kept) - 1 and not {ref.image_id for i in range(3) for ref in rest[i].images} & set(names)


def test_ct_clip_clips_before_it_interpolates():
    """By hand: a voxel of metal beside water. Clipped first, the middle is 500 HU; clipped afterwards 1,000."""
    volume = np.zeros((1, 1, 2), np.int16)
    volume[..., 1] = 3000
    geometry = GEOMETRIES["ct_clip"]
    assert geometry.name == "ct_clip@2" and geometry.clip == (-1000, 1000)
    stored = to_record(volume, (1.5, 0.75, 0.75 * 1.5), geometry)  # 3 voxels from 2: the second lies in the middle.
    assert stored.shape == (1, 1, 3) and stored[0, 0].tolist() == [0, 500, 1000]
    assert np.clip(resample(volume, (1, 1, 3)), -1000, 1000)[0, 0].tolist() == [0, 1000, 1000]
    assert to_record(volume, (1.5, 0.75, 1.125), GEOMETRIES["native"])[0, 0].tolist() == [0, 3000]


def test_ct_clip_rounds_as_the_script():
    """int(n * (old / new)) with the decimals of the metadata, which a header in single precision still means."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        shape = rng.integers(20, 700, 3).tolist()
        written = [round(float(mm), int(rng.integers(1, 7))) for mm in rng.uniform(0.4, 3, 3)]
        expected = tuple(int(n * (old / new)) for n, old, new in zip(shape, written, (1.5, 0.75, 0.75)))
        for spacing in (written, np.array(written, np.float32)):
            assert resampled_shape(shape, spacing, GEOMETRIES["ct_clip"]) == expected
    for mm in (0.7265625, 0.673828125, 0.732421875):  # Exact in single precision, with more decimals.
        assert resampled_shape((300, 512, 512), (0.9, mm, mm), GEOMETRIES["ct_clip"])[1] == int(512 * (mm / 0.75))
    assert resampled_shape((300, 512, 512), np.float32([0.9, 1, 1]), GEOMETRIES["ct_clip"])[0] == 180

"""Open-I: both official layouts, odd rows, labels from MeSH."""

import pytest

from configs.data.openi import get_config
from data_prep.build import build
from data_prep.sources.openi import open_splits
from data_prep.sources.shared.openi_mesh import LABEL_NAMES, attributes_from_mesh, labels_from_mesh
from data_prep.study import Attribute, Reject
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE
from tests.data_prep.shards import openi_layout


def config(path, **changes):
    out = get_config()
    out.workers = 1
    out.openi.path = str(path)
    out.openi.validation = out.openi.test = 0.0
    out.openi.update(changes)
    return out


def studies(path, **changes):
    """study id -> the study, or the reason why it is refused."""
    source, out = open_splits(config(path, **changes))["train"], {}
    for index in range(len(source)):
        try:
            study = source[index]
            out[study.study_id] = study
        except Reject as reject:
            out[reject.study_id] = reject.reason
    return out


@pytest.fixture(params=["xml", "csv"])
def layout(request, tmp_path):
    """The two layouts of the same studies."""
    folder = tmp_path / "openi"
    if request.param == "xml":
        openi_layout.write_xml(folder, projections=True)
    else:
        openi_layout.write_csv(folder)
    return folder


def test_both_layouts(layout):
    found = studies(layout)
    assert list(found) == ["CXR1", "CXR2", "CXR3", "CXR10", "CXR11", "CXR12"]
    first = found["CXR1"]
    assert first.report == ("FINDINGS: The heart is normal in size. The lungs are clear.\nIMPRESSION: Normal chest.")
    assert [image.view for image in first.images] == ["FRONTAL", "LATERAL"]
    assert (first.licence, first.terms, first.language) == ("CC BY-NC-ND 4.0", "open", "en")
    assert found["CXR2"].report == "FINDINGS: There is a small left pleural effusion & a 5 mm nodule."
    assert found["CXR3"].report == "IMPRESSION: No acute disease." and found["CXR3"].images == ()
    assert found["CXR10"].report == "" and len(found["CXR10"].images) == 1
    assert found["CXR11"] == "no text in findings or impression and no image"


def test_build(layout, tmp_path):
    report = build(config(layout), tmp_path / "out")
    counts = report.counts["train"]
    assert (counts["rows"], counts["read"], counts["rejected"]) == (7, 6, 1)
    assert (counts["records"], counts["images"], counts["reports"]) == (6, 4, 4)
    records = list(open_records(tmp_path / "out", "train"))
    assert [r.study_id for r in records] == ["CXR1", "CXR1", "CXR2", "CXR3", "CXR10", "CXR12"]
    assert records[0].report == records[1].report and records[0].image != records[1].image and records[0].normal
    labels = dict(zip(load_metadata(tmp_path / "out").label_names, records[2].labels, strict=True))
    assert labels["Pleural Effusion"] == labels["Nodule"] == labels["Lung Lesion"] == POSITIVE
    assert sum(value == POSITIVE for value in labels.values()) == 3 and labels["No Finding"] == NEGATIVE


def test_sections_are_a_choice(layout):
    assert studies(layout, report_sections=("impression",))["CXR1"].report == "IMPRESSION: Normal chest."
    assert studies(layout, report_sections=("impression", "comparison"))["CXR12"].report == "COMPARISON: None."
    with pytest.raises(UserError, match="'findings'"):
        studies(layout, report_sections=("finding",))


def test_reports_alone(tmp_path, caplog):
    openi_layout.write_xml(tmp_path / "a", images=False)
    found = studies(tmp_path / "a")
    assert all(study.images == () for study in found.values() if not isinstance(study, str))
    assert isinstance(found["CXR10"], str)
    assert len(caplog.records) == 1 and "reports only" in caplog.records[0].message
    openi_layout.write_xml(tmp_path / "b")
    assert studies(tmp_path / "b", images="none")["CXR1"].images == ()
    assert studies(tmp_path / "b", images="auto")["CXR1"].images[0].view == ""  # The XML does not say.
    with pytest.raises(UserError, match="no image folder"):
        studies(tmp_path / "b", images="pictures")


def test_odd_files(tmp_path):
    folder = tmp_path / "openi"
    openi_layout.write_xml(folder)
    xml = folder / "ecgen-radiology"
    (xml / "20.xml").write_bytes(b"")
    (xml / "21.xml").write_bytes((xml / "1.xml").read_bytes()[:400])
    (xml / "22.xml").write_bytes((xml / "1.xml").read_bytes().replace(b"Normal chest.", b"caf\xe9"))
    (folder / "NLMCXR_png" / "CXR1_1_IM-0001-3001.png").unlink()
    report = build(config(folder), tmp_path / "out")
    reasons = {(r.study_id, r.image_id): r.reason for r in report.rejections}
    damaged = "the XML file is truncated, damaged or empty"
    assert reasons == {
        ("CXR1", "CXR1_1_IM-0001-3001"): "the image file is missing",
        ("CXR11", ""): "no text in findings or impression and no image",
        ("CXR20", ""): damaged, ("CXR21", ""): damaged, ("CXR22", ""): damaged}
    assert report.counts["train"]["rows"] == 7 + 3


def test_odd_tables(tmp_path):
    folder = tmp_path / "openi"
    openi_layout.write_csv(folder)
    reports, projections = folder / "indiana_reports.csv", folder / "indiana_projections.csv"
    text, views = reports.read_text(), projections.read_text()
    reports.write_bytes(text.replace("Normal chest.", "\udce9").encode("utf-8", "surrogateescape"))
    assert studies(folder)["CXR1"] == "unreadable text: not UTF-8"
    for name, old, new, message in (
            (reports, "MeSH", "Mush", "no column 'mesh'"),
            (reports, "\n2,", "\n1,", "row 3: uid 1 occurs twice"),
            (reports, "\n3,", "\n3,x,", "row 4 has 9 cells"),
            (projections, "projection", "view", "no column 'projection'"),
            (projections, "IM-0001-3001", "IM-0001-4001", "row 3: the image occurs twice"),
            (projections, "\n2,2_", "\n2,1_", "row 4: the file name")):
        reports.write_text(text.replace(old, new, 1) if name == reports else text)
        projections.write_text(views.replace(old, new, 1) if name == projections else views)
        with pytest.raises(UserError, match=message):
            studies(folder)
    projections.unlink()
    with pytest.raises(UserError, match="no indiana_projections"):
        studies(folder)
    with pytest.raises(UserError, match="neither ecgen-radiology/ nor indiana_reports"):
        studies(tmp_path)
    with pytest.raises(UserError, match=r"config\.openi\.path"):
        studies("")


def test_splits_by_hash(tmp_path):
    folder = tmp_path / "openi" / "ecgen-radiology"
    folder.mkdir(parents=True)
    for number in range(2000):
        (folder / f"{number}.xml").touch()

    def parts(**changes):
        splits = open_splits(config(tmp_path / "openi", validation=0.1, test=0.2, **changes))
        return {name: set(source._numbers) for name, source in splits.items()}

    first = parts(seed=0)
    assert set.union(*first.values()) == {str(n) for n in range(2000)}
    assert sum(map(len, first.values())) == 2000
    assert abs(len(first["test"]) - 400) < 60 and abs(len(first["validation"]) - 200) < 45
    assert first == parts(seed=0) != parts(seed=1)
    (folder / "5.xml").unlink()  # The others stay where they are.
    assert {name: part - {"5"} for name, part in first.items()} == parts(seed=0)
    with pytest.raises(UserError, match="shares"):
        open_splits(config(tmp_path / "openi", validation=0.6, test=0.6))


@pytest.mark.parametrize(("codes", "positive"), [
    (["normal"], {"No Finding"}),
    (["Technical Quality of Image Unsatisfactory"], set()),
    (["normal", "Foreign Bodies"], set()),
    (["Cardiomegaly/borderline"], {"Cardiomegaly"}),
    (["Cardiac Shadow/enlarged/mild"], {"Cardiomegaly"}),
    (["Cardiac Shadow/obscured"], set()),
    (["Mediastinum/enlarged"], {"Enlarged Cardiomediastinum"}),
    (["Mediastinum/lymph nodes/enlarged"], set()),
    (["Opacity/lung/base/left/mild"], {"Lung Opacity"}),
    (["Opacity/pleura"], {"Pleural Other"}),
    (["Opacity"], set()),
    (["Consolidation/lung/lower lobe/right"], {"Consolidation", "Lung Opacity"}),
    (["Hydropneumothorax/left"], {"Pneumothorax", "Pleural Effusion"}),
    (["Mass/lung/hilum"], {"Mass", "Lung Lesion"}),
    (["Calcified Granuloma/lung/hilum"], {"Granuloma"}),
    (["Calcinosis/aorta"], {"Calcification Other", "Aortic Abnormality"}),
    (["Lung/hyperdistention"], {"Hyperinflation"}),
    (["Lung/hypoinflation"], {"Low Lung Volume"}),
    (["Pulmonary Disease, Chronic Obstructive"], {"COPD"}),
    (["Catheters, Indwelling/subclavian/right"], {"Support Devices"}),
    (["Costophrenic Angle/right/blunted"], {"Costophrenic Blunting"}),
    (["Thoracic Vertebrae/degenerative"], {"Degenerative Spine"}),
    (["Diaphragm/right/elevated"], {"Elevated Diaphragm"}),
])
def test_labels_from_mesh(codes, positive):
    labels = labels_from_mesh(codes)
    assert set(labels) == set(LABEL_NAMES) <= set(BY_NAME)
    assert {name for name, value in labels.items() if value == POSITIVE} == positive
    assert all(value == NEGATIVE for name, value in labels.items() if name not in positive)


def test_attributes_from_mesh():
    codes = ["Opacity/lung/base/left/mild", "Cardiomegaly/mild", "Consolidation/lower lobe/right/left", "normal"]
    assert attributes_from_mesh("7", codes) == (
        Attribute("7", "Lung Opacity", "left", ("lung", "base")),
        Attribute("7", "Lung Opacity", "bilateral", ("lower lobe",)),
        Attribute("7", "Consolidation", "bilateral", ("lower lobe",)))


@pytest.mark.parametrize("codes", [["No Indexing"], [], [""]])
def test_nobody_coded_it(codes):
    assert set(labels_from_mesh(codes).values()) == {MISSING}


def test_dicom_images(tmp_path):
    from tests.data_prep.sources import releases
    from tests.fixtures import openi as fixture

    folder = tmp_path / "openi"
    fixture.write(folder, studies=6, seed=2, images="dicom")
    found = build(releases.config("openi", folder, validation=0.0, test=0.0), tmp_path / "out", progress=False)
    records = list(open_records(tmp_path / "out", "train"))
    assert found.counts["train"]["images"] == 11 and found.rejected == 1
    # The XML does not tell the views apart; the DICOM files do.
    assert [r.view for r in records[:3]] == ["PA", "LL", "PA"] and {r.modality for r in records} == {"DX"}
    png = tmp_path / "png"
    fixture.write(png, studies=6, seed=2)
    build(releases.config("openi", png, validation=0.0, test=0.0), tmp_path / "other", progress=False)
    others = list(open_records(tmp_path / "other", "train"))
    assert [(r.study_id, r.image_id, r.report, r.labels.tolist()) for r in others] == [
        (r.study_id, r.image_id, r.report, r.labels.tolist()) for r in records]
    # All in one folder is read as well.
    for path in list((folder / "NLMCXR_dcm").glob("*/*.dcm")):
        path.rename(folder / "NLMCXR_dcm" / path.name)
    flat = studies(folder)
    assert all(image.path.endswith(".dcm") for study in flat.values() if not isinstance(study, str)
               for image in study.images)
    assert {r.label_source for r in records} == {"report_human"}

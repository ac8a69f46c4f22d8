"""Writes both layouts of the Open-I collection with made-up reports."""

import csv
from xml.sax.saxutils import escape

from tests.data_prep.shards import tables

XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
 <meta type="rr"/>
 <uId id="CXR{number}"/>
 <pmcId id="{number}"/>
 <docSource>CXR</docSource>
 <IUXRId id="{number}"/>
 <licenseType>open-access</licenseType>
 <licenseURL>http://creativecommons.org/licenses/by-nc-nd/4.0/</licenseURL>
 <ccLicense>byncnd</ccLicense>
 <MedlineCitation Owner="Indiana University" Status="supplied by publisher">
  <Article PubModel="Electronic">
   <Abstract>
    <AbstractText Label="COMPARISON">{comparison}</AbstractText>
    <AbstractText Label="INDICATION">{indication}</AbstractText>
    <AbstractText Label="FINDINGS">{findings}</AbstractText>
    <AbstractText Label="IMPRESSION">{impression}</AbstractText>
   </Abstract>
  </Article>
 </MedlineCitation>
 <MeSH>
{major}
  <automatic>lung</automatic>
 </MeSH>
{images}
</eCitation>
"""
MAJOR = "  <major>{}</major>"
IMAGE = """ <parentImage id="{0}">
  <figureId>F1</figureId>
  <caption>Xray Chest PA and Lateral</caption>
  <panel type="single"><url>/hadoop/storage/radiology/extract/{0}.jpg</url></panel>
 </parentImage>"""

# number -> (findings, impression, MeSH, images); image names without folder and suffix, with their projection.
STUDIES = {
    "1": ("The heart is normal in size.  The lungs\n are clear.", "Normal chest.", ["normal"],
          {"1_IM-0001-4001": "Frontal", "1_IM-0001-3001": "Lateral"}),
    "2": ("There is a small left pleural effusion & a 5 mm nodule.", "", ["Pleural Effusion/left/small", "Nodule/lung"],
          {"2_IM-0652-1001": "Frontal"}),
    "3": ("", "No acute disease.", ["No Indexing"], {}),
    "10": ("", "", ["Cardiomegaly/mild"], {"10_IM-0002-1001": "Frontal"}),
    "11": ("", "", ["normal"], {}),
    "12": ("Heart size is enlarged.", "", ["Cardiac Shadow/enlarged"], {}),
}


def write_xml(folder, *, images=True, projections=False):
    """NLM's archives, unpacked."""
    (folder / "ecgen-radiology").mkdir(parents=True)
    for number, (findings, impression, mesh, names) in STUDIES.items():
        text = XML.format(
            number=number, comparison="None.", indication="Cough &amp; fever", findings=escape(findings),
            impression=escape(impression), major="\n".join(MAJOR.format(term) for term in mesh),
            images="\n".join(IMAGE.format(f"CXR{number}_{name}") for name in names))
        (folder / "ecgen-radiology" / f"{number}.xml").write_text(text, encoding="utf-8")
    if images:
        (folder / "NLMCXR_png").mkdir()
        for seed, (number, name) in enumerate((n, i) for n, study in STUDIES.items() for i in study[3]):
            tables.image(folder / "NLMCXR_png", f"CXR{number}_{name}.png", (30, 40), seed)
    if projections:
        _write_projections(folder)


def write_csv(folder, *, images=True):
    """The CSV pair."""
    folder.mkdir(parents=True)
    with open(folder / "indiana_reports.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"))
        for number, (findings, impression, mesh, _) in STUDIES.items():
            rows.writerow((number, ";".join(mesh), "", "Xray Chest PA and Lateral", "Cough", "None.", findings,
                           impression))
    _write_projections(folder)
    if images:
        target = folder / "images" / "images_normalized"
        target.mkdir(parents=True)
        for seed, name in enumerate(name for study in STUDIES.values() for name in study[3]):
            tables.image(target, f"{name}.dcm.png", (30, 40), seed)


def _write_projections(folder):
    with open(folder / "indiana_projections.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("uid", "filename", "projection"))
        rows.writerows((number, f"{name}.dcm.png", view) for number, study in STUDIES.items()
                       for name, view in study[3].items())

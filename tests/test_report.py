"""The page: numbers of the JSON, published numbers of the same mode only, nothing from outside, nothing unescaped."""

import html as html_module
import json
import re

import numpy as np
import pytest
from PIL import Image

from lgdea_jax import cli, overlay, report, report_html
from lgdea_jax.cli import UserError
from lgdea_jax.evaluators import tasks
from lgdea_jax.evaluators.zero_shot import ZeroShotSamples
from lgdea_jax.records import Box

PUBLISHED = ("benchmark,mode,metric,method,value,source\n"
             "demo,official,zero_shot/auroc,Method O,0.811,paper O\n"
             "demo,clean,zero_shot/auroc,Method C,0.722,paper C\n"
             "other,clean,zero_shot/auroc,Method X,0.633,paper X\n"
             "demo,clean,grounding/cnr,Method Y,1.544,paper Y\n")


def entry(value, low=None, high=None, n=9):
    return {"value": value, "low": low, "high": high, "n": n}


def results(**changes):
    metrics = {"zero_shot/auroc": entry(0.7512, 0.7, 0.8), "zero_shot/kappa": entry(None),
               "zero_shot/auroc/Edema": entry(0.6543, 0.6, 0.7),
               "retrieval/recall@5/image_to_text": entry(0.25, 0.2, 0.3)}
    official = {**metrics, "zero_shot/auroc": entry(0.6001, 0.5, 0.7)}
    groups = {"sex": {"F": {"images": 5, "n_subjects": 4, "metrics": {}},
                      "M": {"images": 20, "n_subjects": 20, "metrics": {"zero_shot/auroc": entry(0.9, 0.8, 1.0)}}}}
    return {"benchmark": "demo", "data": "set <&>", "split": "test", "records": 9, "images": 9, "subjects": 8,
            "checkpoint": "runs/a", "step": 3, "command": "python -m x --a='<b>'", "terms": ["open"], "leakage": None,
            "results": [{"mode": "clean", "metrics": metrics, "info": {"selection": "nine"}, "subgroups": groups},
                        {"mode": "official", "metrics": official, "info": {}, "subgroups": {}}], **changes}


def write(folder, content=None, *, samples=True, pictures=True):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(content or results()))
    if samples:
        rng = np.random.default_rng(0)
        scores, labels = rng.normal(size=(40, 2)).astype(np.float32), rng.integers(0, 2, (40, 2)).astype(np.int8)
        item = ZeroShotSamples(np.arange(40).astype("U"), {
            "scores": scores, "labels": labels, "truth": np.full(40, -1), "predicted": np.full(40, -1)},
            {"findings": ("Edema", "Mass"), "classes": ()}, {"probabilities": True})
        tasks.save_samples(folder / "samples.npz", {"clean": [item], "official": [item]})
    if pictures:
        (folder / "overlays").mkdir()
        heat = np.zeros((60, 40))
        heat[10, 30] = 1
        shown = overlay.Overlay(np.full((60, 40), 120, np.uint8), heat, (60, 40), (Box("Edema", "", 5, 5, 10, 10),),
                                "Edema", ("pointing: hit    CNR +1.00",))
        overlay.draw(shown).save(folder / "overlays/000_edema.png")
        (folder / "overlays/overlays.json").write_text(json.dumps([{
            "file": "000_edema.png", "title": "Edema", "lines": list(shown.lines),
            "panels": overlay.panel_boxes(shown)}]))
    return folder


def page(tmp_path, *folders, published=PUBLISHED):
    (tmp_path / "published.csv").write_text(published)
    target = tmp_path / "page.html"
    assert report.main([*map(str, folders), f"--html={target}", f"--published={tmp_path / 'published.csv'}"]) == cli.OK
    return target.read_text(encoding="utf-8")


def plain(text):
    return html_module.unescape(re.sub(r"<[^>]+>", " ", text))


def test_numbers_and_modes_have_their_places(tmp_path):
    text = page(tmp_path, write(tmp_path / "a"))
    row = re.search(r'<tr><th scope="row">AUROC</th>(.*?)</tr>', text).group(1)
    cells = [" ".join(plain(cell).split()) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
    assert cells == ["0.751 [0.700, 0.800]", "0.600 [0.500, 0.700]", "9"]
    assert re.search(r"kappa</th><td[^>]*>undefined", text)
    assert "recall@5 image to text" in text and "0.654" in text
    assert "too few" in text and "nine" in text and "Subgroups" in text


def test_published_numbers_stand_beside_the_same_mode_only(tmp_path):
    text = page(tmp_path, write(tmp_path / "a"))
    clean, official = (re.search(rf"Published numbers, {mode} mode</h3>(.*?)</table>", text, re.DOTALL).group(1)
                       for mode in ("clean", "official"))
    assert "Method C" in clean and "0.722" in clean and "0.751" in clean and "paper C" in clean
    assert "Method O" in official and "0.811" in official and "0.600" in official
    assert "Method O" not in clean and "Method C" not in official and "0.600" not in clean
    assert "Method X" not in text and "Method Y" not in text  # Another benchmark; a metric that was not measured.


def test_the_page_is_complete_in_itself(tmp_path):
    text = page(tmp_path, write(tmp_path / "a"), write(tmp_path / "b", samples=False, pictures=False))
    # Two ROC curves that both modes share, and a calibration curve of each.
    assert text.count("data:image/jpeg;base64,") == 2 and text.count("<svg") == 4
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)|<script|@import|url\(|https?:""", text)
    assert "default-src 'none'" in text and 'name="viewport"' in text
    assert "set <&>" in plain(text) and "<b>'" not in text
    overview = text[text.index("Overview"):text.index('id="run0"')]
    for mode in ("clean", "official"):  # Modes have tables of their own.
        assert f"<h3>{mode} mode</h3>" in overview
    assert overview.index("0.751") < overview.index("<h3>official") < overview.index("0.600")


def test_roc_curves_are_drawn_through_their_points():
    drawn = report_html.curve(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]), "t<", "x", "y")
    points = re.search(r'polyline points="([^"]+)"', drawn).group(1).split()
    assert points == ["22.0,136.0", "87.0,6.0", "152.0,6.0"] and "t&lt;" in drawn
    many = report_html.curve(np.linspace(0, 1, 5000), np.linspace(0, 1, 5000), "t", "x", "y")
    points = re.search(r'polyline points="([^"]+)"', many).group(1).split()
    assert len(points) == 150 and points[0] == "22.0,136.0" and points[-1] == "152.0,6.0"


def test_panels_are_the_two_images(tmp_path):
    import base64
    import io

    folder = write(tmp_path / "a", samples=False)
    [item] = json.loads((folder / "overlays/overlays.json").read_text())
    urls = report_html.panels(folder / "overlays" / item["file"], item["panels"])
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]
    assert [image.shape for image in images] == [(420, 280, 3)] * 2
    outside = [image[300:, 200:].astype(int) for image in images]
    assert all(np.abs(part - 120).max() < 12 for part in outside)  # No margin, title or legend is cut in.
    assert np.abs(images[0][70:80, 205:215].astype(int) - 120).max() < 12  # The heat is in the second one.
    assert np.abs(images[1][70:80, 205:215].astype(int) - 120).max() > 60


def test_warnings(tmp_path):
    leaked = {"checked": True, "subjects_in_common": 4, "note": "", "trained_on": ["x"]}
    text = page(tmp_path, write(tmp_path / "a", results(terms=["credentialed"], leakage=leaked)))
    assert "credentialed terms" in text and "4 subjects were in the checkpoint" in text
    unknown = {"checked": False, "subjects_in_common": None, "note": "not checked: gone", "trained_on": []}
    assert "not checked: gone" in page(tmp_path, write(tmp_path / "b", results(leakage=unknown)))


@pytest.mark.parametrize("text,message", [
    ("benchmark,mode,metric,method,value\na,clean,b,c,1\n", "every row needs"),
    ("benchmark,mode,metric,method,value,source\na,oficial,b,c,1,s\n", "did you mean 'official'"),
    ("benchmark,mode,metric,method,value,source\na,clean,b,c,high,s\n", "is no number"),
    ("benchmark,mode,metric,method,value,source\na,clean,b,c,1,\n", "every row needs")])
def test_faulty_published_numbers_are_refused(text, message, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        report.load_published(tmp_path / "p.csv")


def test_wrong_use(tmp_path):
    with pytest.raises(UserError, match=r"no results\.json"):
        report.main([str(tmp_path), f"--html={tmp_path / 'p.html'}"])
    (tmp_path / "results.json").write_text('{"results": []}')
    with pytest.raises(UserError, match="not the results"):
        report.main([str(tmp_path), f"--html={tmp_path / 'p.html'}"])
    folder = write(tmp_path / "a", samples=False, pictures=False)
    with pytest.raises(UserError, match="cannot write"):
        report.main([str(folder), f"--html={tmp_path}"])


def test_the_published_numbers_of_the_project_have_sources():
    rows = report.load_published(report.PUBLISHED)
    assert rows and all(0 < row.value < 10 for row in rows)
    # What was only remembered is not on file: every source says where the number was read.
    assert all(re.search(r"\(paper|public code", row.source) for row in rows)
    assert len({(r.benchmark, r.mode, r.metric, r.method) for r in rows}) == len(rows)

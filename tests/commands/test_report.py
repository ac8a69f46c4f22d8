"""The page: numbers of the JSON, published numbers of the same mode only, nothing from outside, nothing unescaped."""

import html as html_module
import json
import re

import numpy as np
import pytest
from PIL import Image

from lgdea_jax import cli, report
from lgdea_jax.errors import UserError
from lgdea_jax.eval.harness import output
from lgdea_jax.evaluators.zero_shot import ZeroShotSamples
from lgdea_jax.inference import overlay
from lgdea_jax.pages import published
from lgdea_jax.pages.summary import RESAMPLES
from lgdea_jax.records import Box
from tests.pages.checks import check_html

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
        output.save_samples(folder / "samples.npz", {"clean": [item], "official": [item]})
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


def page(tmp_path, *folders):
    (tmp_path / "published.csv").write_text(PUBLISHED)
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
    assert "kappa" not in text and "Metrics without a value on these data, which are not shown: 1." in text
    assert "recall@5 image to text" in text and "0.654" in text
    assert "too few" in text and "nine" in text and "Subgroups" in text
    assert "8 subjects are too few for intervals by resampling" in plain(text)
    assert "intervals by resampling" not in plain(page(tmp_path, write(tmp_path / "b", results(subjects=20))))


def test_published_numbers_stand_beside_the_same_mode_only(tmp_path):
    text = page(tmp_path, write(tmp_path / "a"))
    clean, official = (re.search(rf"Published numbers, {mode} mode \(1\)</summary>(.*?)</table>", text, re.DOTALL)[1]
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
    summary = text[text.index('id="summary"'):text.index('id="run0"')]
    # Modes have pictures and tables of their own; the second one is folded.
    folded = "<details><summary>demo, official mode</summary>"
    assert summary.index("demo, clean mode</h3>") < summary.index("0.751") < summary.index(folded)
    assert "0.751" not in summary[summary.index(folded):] and "0.600" not in summary[:summary.index(folded)]


def test_pictures_come_first_and_tables_are_folded(tmp_path):
    folder, *_ = with_everything(tmp_path)
    text = page(tmp_path, folder)
    places = [text.index(part) for part in (
        "Summary</h2>", "Heatmaps on", "Retrieval examples", "ROC curves", "Tables</h3>")]
    assert places == sorted(places) and "<table" not in text[:places[-1]]
    # All metrics, findings, subgroups and the published numbers of two modes.
    assert len(re.findall(r"<details><summary>[^<]*</summary>\s*(?:<h3>[^<]*</h3>\s*)?<div[^>]*><table", text)) == 5
    assert text.count("<table") == 5  # No other stands open.
    assert text.index("Reports</summary>") < text.index("A &lt;b&gt;report")  # Texts of reports are folded as well.


def test_differences_are_paired_by_subject(tmp_path):
    """Against resampled subjects and a count of correctly ordered pairs, written out."""
    folders, scores = [], []
    rng = np.random.default_rng(3)
    subjects = np.array([f"s{row // 2:02d}" for row in range(60)])
    labels = rng.integers(0, 2, (60, 1)).astype(np.int8)
    for name, strength in (("a", 0.5), ("b", 1.5)):
        values = (rng.normal(size=(60, 1)) + strength * labels).astype(np.float32)
        item = ZeroShotSamples(subjects, {"scores": values, "labels": labels, "truth": np.full(60, -1),
                                          "predicted": np.full(60, -1)}, {"findings": ("Edema",), "classes": ()}, {})
        content = results(checkpoint=f"runs/{name}")
        content["results"] = [{"mode": "clean", "info": {}, "subgroups": {}, "metrics": {
            "zero_shot/auroc": entry(float(item.metrics()["zero_shot/auroc"]), n=60)}}]
        folders.append(write(tmp_path / name, content, samples=False, pictures=False))
        output.save_samples(folders[-1] / "samples.npz", {"clean": [item]})
        scores.append(values[:, 0])

    def area(values, rows):
        ill, well = values[rows][labels[rows, 0] == 1], values[rows][labels[rows, 0] == 0]
        return (ill[:, None] > well).mean() + 0.5 * (ill[:, None] == well).mean()

    everyone = np.arange(60)
    expected = area(scores[1], everyone) - area(scores[0], everyone)
    draws, names, drawn = np.random.default_rng(0), np.unique(subjects), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([np.flatnonzero(subjects == names[n]) for n in draws.integers(0, 30, 30)])
        drawn.append(area(scores[1], rows) - area(scores[0], rows))
    low, high = np.percentile(drawn, [2.5, 97.5])
    text = " ".join(plain(page(tmp_path, *folders)).split())
    assert "Differences to a Both" in text and f"b {expected:+.3f} [{low:+.3f}, {high:+.3f}]" in text


def test_other_subjects_are_not_compared(tmp_path):
    folders = [write(tmp_path / name, results(checkpoint=f"runs/{name}"), pictures=False, samples=name != "c")
               for name in "abc"]
    others = ZeroShotSamples(np.arange(40, 80).astype("U"), {
        "scores": np.zeros((40, 2), np.float32), "labels": np.ones((40, 2), np.int8), "truth": np.full(40, -1),
        "predicted": np.full(40, -1)}, {"findings": ("Edema", "Mass"), "classes": ()}, {})
    output.save_samples(folders[1] / "samples.npz", {"clean": [others], "official": [others]})
    text = " ".join(plain(page(tmp_path, *folders)).split())
    assert "Differences to" not in text
    assert "Not compared with a, for want of results per sample of the same subjects: b, c." in text


def test_training_runs_share_their_plots(tmp_path):
    *_, run = with_everything(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/metrics.jsonl").write_text("".join(f'{{"step": {s}, "loss": {s}}}\n' for s in (1, 2)))
    text = page(tmp_path, run, tmp_path / "other")
    assert "Training of 2 runs" in text and "</svg> other</li>" in text and text.count('class="legend"') == 1


def test_runs_of_one_benchmark_are_told_apart(tmp_path):
    folders = [write(tmp_path / name, results(checkpoint=f"runs/{name}"), samples=False, pictures=False)
               for name in ("a", "b")]
    both = page(tmp_path, *folders)
    for number, name in enumerate("ab"):
        assert f'<a href="#run{number}">demo: {name}</a>' in both and f"<h2>demo: {name}</h2>" in both
    same = [write(tmp_path / f"{n}", results(checkpoint=f"{n}/clip"), samples=False, pictures=False) for n in range(2)]
    assert "<h2>demo: 1/clip</h2>" in page(tmp_path, *same) and "<h2>demo</h2>" in page(tmp_path, folders[0])


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
        published.load_published(tmp_path / "p.csv")


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
    rows = published.load_published(published.PUBLISHED)
    assert rows and all(0 < row.value < 10 for row in rows)
    # What was only remembered is not on file: every source says where the number was read.
    assert all(re.search(r"\(paper|public code", row.source) for row in rows)
    assert len({(r.benchmark, r.mode, r.metric, r.method) for r in rows}) == len(rows)


def with_everything(tmp_path):
    """An evaluation with examples, a prototype table and a training run."""
    folder = write(tmp_path / "a")
    (folder / "retrieval").mkdir()
    Image.fromarray(np.full((20, 30), 90, np.uint8)).save(folder / "retrieval/000.png")
    (folder / "retrieval/examples.json").write_text(json.dumps([{
        "file": "000.png", "findings": [], "report": "A <b>report</b>.", "rank": 2, "candidates": 7, "score": 0.5,
        "first": [{"report": "Another one.", "score": 0.75, "own": False, "findings": ["Mass"]},
                  {"report": "A <b>report</b>.", "score": 0.5, "own": True, "findings": []}]}]))
    table = tmp_path / "proto"
    (table / "patches").mkdir(parents=True)
    Image.fromarray(np.full((112, 460), 90, np.uint8)).save(table / "patches/0003.png")
    rows = [{"prototype": 3, "share": 0.9, "findings": [{"finding": "Mass", "share": 0.8}], "file": "0003.png",
             "phrases": [{"phrase": "a <mass>", "finding": "Mass", "p": 0.66, "count": 2}],
             "patches": {"images": 20, "in_a_box": 7, "by_chance": 0.031}},
            {"prototype": 1, "share": 0.0001, "findings": [], "phrases": [], "file": "",
             "patches": {"images": 0, "in_a_box": None, "by_chance": None}}]
    (table / "prototypes.json").write_text(json.dumps({
        "checkpoint": "runs/b", "step": 9, "data": "d", "split": "test", "records": 5, "phrases": 6,
        "effective_number": 1.25, "hardly_used": 1, "terms": ["credentialed"], "prototypes": rows}))
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(
        {"step": step, "loss": 8 - step / 100, "loss/rec": None if step == 20 else step}) + "\n"
        for step in (20, 40, 60)))
    (run / "evals.jsonl").write_text('{"step": 50, "zero_shot/auroc": 0.61}\n{"step": 60, "zero_shot/auroc": 0.72}\n')
    return folder, table, run


def test_examples_prototypes_and_curves(tmp_path):
    text = page(tmp_path, *with_everything(tmp_path))
    check_html(text)
    words = " ".join(plain(text).split())
    assert "rank 2 of 7." in words and "Its own: A <b>report</b>. Another one." in words and "no positive" in words
    assert words.index("Mass score 0.75") < words.index("no positive finding score 0.50 (its own)")
    assert "Prototypes of runs/b" in words and "a <mass> p = 0.66, Mass" in words
    assert "7 of 20 (by chance 3.1%)" in words
    assert "Prototype 3 : Mass 80%" in words and "Prototype 1" not in words  # Hardly used.
    assert "credentialed terms" in words  # The evaluation is open, the prototype table is not.
    assert "training loss" in words and "zero_shot/auroc during training" in words and "7.8" in words
    assert text.count("data:image/jpeg;base64,") == 4


def test_the_page_is_valid_and_can_be_used_with_the_keyboard(tmp_path):
    text = page(tmp_path, write(tmp_path / "a"), write(tmp_path / "b", samples=False, pictures=False))
    check_html(text)
    assert text.count('class="scroll"') == text.count('class="scroll" tabindex="0" role="region" aria-label=')
    assert 'class="skip" href="#main"' in text and "focus-visible" in text and "<nav" in text

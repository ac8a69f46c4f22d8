"""A <script> in every text that comes from data, on every page: shown as text, never run."""

import csv
import html
import itertools
import json
import re

import pytest
from PIL import Image

from benchmarks.experiments import report as experiment
from lgdea_jax import report
from lgdea_jax.pages import audit, published
from lgdea_jax.records import Evidence
from tests.commands import test_report as made
from tests.pages.checks import check_html

EVIL = '<script>alert("{}")</script>\'"&'


class Poison:
    """Appends a numbered script to texts."""

    def __init__(self):
        self.numbers = itertools.count()
        self.texts = []

    def __call__(self, text=""):
        self.texts.append(text + EVIL.format(next(self.numbers)))
        return self.texts[-1]


def shown(page):
    """The page's text and the values of its attributes."""
    attributes = " ".join(re.findall(r'(?:alt|title|aria-label)="([^"]*)"', page))
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page) + " " + attributes).split())


def check(page, evil, script=""):
    check_html(page, script)  # Refuses any other <script.
    words = shown(page)
    assert [text for text in evil.texts if " ".join(text.replace("    ", " · ").split()) not in words] == []


def test_the_results_page(tmp_path):
    evil = Poison()
    evaluation, prototypes, _ = made.with_everything(tmp_path)
    content = made.results(**{key: evil(key) for key in (
        "benchmark", "data", "split", "checkpoint", "command", "method", "overlays")},
        lacks=[evil("lack")], report_sections=[evil("section")],
        leakage={"checked": False, "subjects_in_common": None, "note": evil("note"), "trained_on": []})
    selection, finding, metric, attribute, group = (evil(key) for key in ("rows", "f", "metric", "by", "group"))
    for result in content["results"]:
        result["info"] = {"selection": selection}
        result["metrics"] |= {f"zero_shot/auroc/{finding}": made.entry(0.5), metric: made.entry(0.5)}
        result["subgroups"] = {attribute: {group: {"images": 5, "n_subjects": 4, "metrics": {}}}}
    (evaluation / "results.json").write_text(json.dumps(content))
    # Of a metric's name, what follows a slash is a finding: the script's own slash ends it here.
    evil.texts.remove(metric)

    def poisoned(value, key=""):
        """The content of a JSON file with a script in each of its texts but the names of files."""
        if isinstance(value, dict):
            return {name: poisoned(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [poisoned(part, key) for part in value]
        return evil(value) if isinstance(value, str) and key not in ("file", "terms") else value

    for path in (evaluation / "retrieval/examples.json", evaluation / "overlays/overlays.json",
                 prototypes / "prototypes.json"):
        path.write_text(json.dumps(poisoned(json.loads(path.read_text()))))
    with (tmp_path / "published.csv").open("w", newline="") as file:
        csv.writer(file).writerows([published.COLUMNS, (
            content["benchmark"], "clean", "zero_shot/auroc", evil("method"), 0.5, evil("source"))])
    target = tmp_path / "page.html"
    assert report.main([str(evaluation), str(prototypes), f"--html={target}",
                        f"--published={tmp_path / 'published.csv'}"]) == 0
    check(target.read_text(), evil)


def test_the_audit_page():
    evil = Poison()
    report_text = evil("No edema")
    evidence = (Evidence(evil("Edema"), evil("left"), evil("lobe"), evil("mild"), "present", evil("new"),
                         evil("No edema"), 0, 8),)
    items = [audit.Item(evil("study"), report_text, evidence, False, ((evil("a"), evil("b"), evil("c"), evil("d")),),
                        (evil("flag"),))]
    kappa = {"value": 0.5, "low": None, "high": None}
    rows = {evil("finding"): {"both": 1, "first": 2, "second": 3, "neither": 4, "kappa": kappa,
                              "kappa_certainty": kappa}}
    page = audit.page(evil("title"), items, rows, (evil("one"), evil("two")), [evil("note")])
    check(page, evil, script="audit.js")
    data = re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1]
    assert json.loads(data)["studies"][0]["report"] == report_text


@pytest.mark.parametrize("wrap", ["{}", "`{}`"])
def test_the_experiment_page(tmp_path, wrap):
    evil = Poison()
    Image.new("L", (20, 30)).save(tmp_path / "a.png")
    blocks = [experiment.Block(wrap.format(evil("title")), (wrap.format(evil("sentence")),), (evil("column"),),
                               ((wrap.format(evil("cell")),),)) for _ in range(2)]
    page = experiment.page(blocks, {"zero_shot/auroc": tmp_path / "a.png"}, command=evil("command"),
                           notes=[wrap.format(evil("note"))])
    check(page, evil)
    assert page.count("<code>") == (7 if wrap == "`{}`" else 0)

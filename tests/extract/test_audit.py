"""The audit page: what is marked, what was dropped, how two extractors agree."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from data_prep import audit
from data_prep.build import main as build
from lgdea_jax.cli import UserError
from lgdea_jax.records import Evidence
from tests.build import tables
from tests.extract.server import Server, make_report


class Text(HTMLParser):
    """Text of the page's <pre>, and of its marks by class."""

    def __init__(self):
        super().__init__()
        self.pre, self.marks, self._inside, self._kind = [], [], False, None

    def handle_starttag(self, tag, attributes):
        if tag == "pre":
            self._inside = True
            self.pre.append("")
        if tag == "mark" and self._inside:
            self._kind = dict(attributes)["class"]

    def handle_endtag(self, tag):
        if tag == "pre":
            self._inside = False
        if tag == "mark":
            self._kind = None

    def handle_data(self, data):
        if self._inside:
            self.pre[-1] += data
            if self._kind:
                self.marks.append((self._kind, data))


def evidence(report, phrase, certainty, finding="Edema"):
    start = report.index(phrase)
    return Evidence(finding, "", "", "", certainty, "", phrase, start, start + len(phrase))


def test_marks_keep_the_text():
    report = "No <b>edema</b> & no mass. Possible \"edema\"."
    found = audit.marked(report, [evidence(report, "No <b>edema</b>", "absent"),
                                  evidence(report, "edema</b>", "present"),
                                  evidence(report, 'Possible "edema"', "uncertain")])
    parser = Text()
    parser.feed(f"<pre>{found}</pre>")
    assert parser.pre == [report]
    assert parser.marks == [("absent", "No <b>"), ("present", "edema</b>"), ("uncertain", 'Possible "edema"')]


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 2, (2, 30))
        table = [int(((a == x) & (b == y)).sum()) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0))]
        assert audit.kappa(*table) == pytest.approx(cohen_kappa_score(a, b))
    assert math.isnan(audit.kappa(5, 0, 0, 0))


def test_the_page_of_a_language_models_data(tmp_path):
    rows = [tables.row(f"s{i}", report=make_report(i), **({"language": "de"} if i == 3 else {})) for i in range(8)]
    path = tables.write(tmp_path / "t", rows)
    with Server(lambda report, nth: "hallucinated" if "number 5." in report else None) as server:
        build(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.extractor=openai",
               "--config.llm.model=org/m", f"--config.llm.base_url={server.base_url('openai')}", "--config.workers=1",
               f"--out={tmp_path / 'data'}"])
    arguments = [f"--data_dir={tmp_path / 'data'}", f"--html={tmp_path / 'a.html'}"]
    assert audit.main([*arguments, f"--replies={tmp_path / 'data.replies.sqlite'}"]) == 0
    text = (tmp_path / "a.html").read_text()
    parser = Text()
    parser.feed(text)
    assert sorted(parser.pre) == sorted(make_report(i) for i in range(8))
    assert ("present", "Pneumothorax is present") in parser.marks and ("absent", "Edema is not seen") in parser.marks
    assert text.count("<td>unsupported<td>Cavitation<td>present<td>a large cavity in the left apex") == 1
    assert "1 reports are not compared" in text and "http" not in text
    # Both read these sentences alike: 4 of 8 reports with a pneumothorax, one of them in German.
    row = re.search(r"<td>Pneumothorax<td class=n>(\d)<td class=n>(\d)<td class=n>(\d)<td class=n>(\d)", text)
    assert row.groups() == ("3", "0", "0", "4")
    first = text
    audit.main([*arguments, f"--replies={tmp_path / 'data.replies.sqlite'}"])
    assert (tmp_path / "a.html").read_text() == first
    for more, message in (("--replies=none.sqlite", "no reply cache"), ("--split=dev", "unknown split"),
                          ("--second=oracle", "unknown extractor"), ("--sample=0", "at least 1")):
        with pytest.raises(UserError, match=message):
            audit.main([*arguments, more])

"""The audit page: what is marked, what was dropped, how two extractors agree."""

import html
import re
from html.parser import HTMLParser

import pytest

from data_prep import agreement, audit
from data_prep.build import main as build
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.pages.audit import Item, page
from lgdea_jax.records import Evidence
from tests.data_prep.extract.llm.server import TEXT_FAULTS, Server, make_report
from tests.data_prep.shards import tables
from tests.pages.checks import check_html


class Text(HTMLParser):
    """Text of the page's reports, and of their marks by class."""

    def __init__(self):
        super().__init__()
        self.reports, self.marks, self._inside, self._kind = [], [], False, None

    def handle_starttag(self, tag, attributes):
        if dict(attributes).get("class") == "report":
            self._inside = True
            self.reports.append("")
        if tag == "mark" and self._inside:
            self._kind = dict(attributes)["class"]

    def handle_endtag(self, tag):
        if tag == "div":
            self._inside = False
        if tag == "mark":
            self._kind = None

    def handle_data(self, data):
        if self._inside:
            self.reports[-1] += data
            if self._kind:
                self.marks.append((self._kind, data))


def evidence(report, phrase, certainty, finding="Edema"):
    start = report.index(phrase)
    return Evidence(finding, "", "", "", certainty, "", phrase, start, start + len(phrase))


def cells(text):
    """The text of every cell of the page's tables, a list for each row."""
    return [[" ".join(html.unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in re.findall(
        r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in re.findall(r"<tr>(.*?)</tr>", text)]


def test_marks_keep_the_text():
    report = "No <b>edema</b> & no mass. Possible \"edema\"."
    marked = (evidence(report, "No <b>edema</b>", "absent"), evidence(report, "edema</b>", "present"),
              evidence(report, 'Possible "edema"', "uncertain"))
    parser = Text()
    parser.feed(page("t", [Item("s", report, marked, False)], {}, ("a", ""), []))
    assert parser.reports == [report]
    assert parser.marks == [("absent", "No <b>"), ("present", "edema</b>"), ("uncertain", 'Possible "edema"')]


def test_the_page_of_a_language_models_data(tmp_path, monkeypatch):
    monkeypatch.setitem(TEXT_FAULTS, "unknown", lambda text: re.sub("Edema\"|Nodule\"", 'Elf"', text))
    rows = [tables.row(f"s{i}", report=make_report(i), **({"language": "de"} if i == 3 else {})) for i in range(9)]
    path = tables.write(tmp_path / "t", rows)
    wrong = {"number 5.": "hallucinated", "number 6.": "unknown", "number 8.": "garbage"}
    with Server(lambda report, nth: next((wrong[key] for key in wrong if key in report), None)) as server:
        build(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.extractor=openai",
               "--config.llm.model=org/m", f"--config.llm.base_url={server.base_url('openai')}", "--config.workers=1",
               f"--out={tmp_path / 'data'}"])
    arguments = [f"--data_dir={tmp_path / 'data'}", f"--html={tmp_path / 'a.html'}"]
    assert audit.main([*arguments, f"--replies={tmp_path / 'data.replies.sqlite'}"]) == 0
    text = (tmp_path / "a.html").read_text()
    parser = Text()
    parser.feed(text)
    assert sorted(parser.reports) == sorted(make_report(i) for i in range(8))
    assert ("present", "Pneumothorax is present") in parser.marks and ("absent", "Edema is not seen") in parser.marks
    table = cells(text)
    assert table.count(["unsupported", "Cavitation", "present", "a large cavity in the left apex"]) == 1
    check_html(text, script="audit.js")
    assert "1 reports are not compared" in text
    # Both read these sentences alike: 4 of 8 reports with a pneumothorax, one of them in German.
    assert ["Pneumothorax", "3", "0", "0", "4", "1.000 [1.000, 1.000]", "1.000 [1.000, 1.000]"] in table
    assert ["Pneumothorax", "present", "", "", "", "", "Pneumothorax is present"] in table
    assert "1 replies in the cache could not be used, their reports are not in the data: 1 x no JSON" in text
    assert ["2 x unknown finding", "", "", ""] in table
    first = text
    audit.main([*arguments, f"--replies={tmp_path / 'data.replies.sqlite'}"])
    assert (tmp_path / "a.html").read_text() == first
    for more, message in (("--replies=none.sqlite", "no reply cache"), ("--split=dev", "unknown split"),
                          ("--second=oracle", "unknown extractor"), ("--second=openai:m/evidence@2", "no reply cache"),
                          ("--second=oracle:m/evidence@2", "not the recorded name"), ("--sample=0", "at least 1")):
        with pytest.raises(UserError, match=message):
            audit.main([*arguments, more])


def test_two_language_models_are_compared(tmp_path):
    path = tables.write(tmp_path / "t", [tables.row(f"s{i}", report=make_report(i)) for i in range(8)])
    for model, fault in (("one", None), ("two", lambda report, nth: "garbage" if "number 2." in report else None)):
        with Server(fault) as server:
            build(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.extractor=openai",
                   f"--config.llm.model={model}", f"--config.llm.base_url={server.base_url('openai')}",
                   "--config.workers=1", f"--out={tmp_path / model}"])
    assert audit.main([f"--data_dir={tmp_path / 'one'}", f"--html={tmp_path / 'a.html'}",
                       "--second=openai:two/evidence@2", f"--second_replies={tmp_path / 'two.replies.sqlite'}"]) == 0
    text = (tmp_path / "a.html").read_text()
    assert "1 reports are not compared: there is no usable reply of openai:two/evidence@2" in text
    assert ["Edema", "4", "0", "0", "3", "1.000"] in [[*row[:5], row[5][:5]] for row in cells(text) if len(row) == 7]


def test_all_splits_are_on_one_page_and_compared_at_once(tmp_path, capsys):
    splits = {"s1": "train", "s2": "validation", "s3": "test"}
    path = tables.write(tmp_path / "t", [
        tables.row(study, split=split, report=tables.REPORT) for study, split in splits.items()])
    data = tmp_path / "data"
    assert build(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1",
                  f"--out={data}"]) == 0
    for split, studies in (("all", list(splits)), ("test", ["s3"])):
        page = tmp_path / f"{split}.html"
        assert audit.main([f"--data_dir={data}", f"--html={page}", f"--split={split}"]) == 0
        assert [study for study in splits if f"<h3>{study}</h3>" in page.read_text()] == studies
        reader = tmp_path / f"{split}.csv"
        reader.write_text((data / "evidence.csv").read_text().replace("rules@4,,", "rules@4,yes,"))
        capsys.readouterr()
        assert agreement.main([f"--data_dir={data}", f"--second={reader}", f"--split={split}"]) == 0
        assert f"on {len(studies)} reports, 0 left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"unknown split 'al'.*did you mean 'all'"):
        audit.main([f"--data_dir={data}", f"--html={tmp_path / 'no.html'}", "--split=al"])


def test_the_rules_refuse_other_languages(tmp_path):
    languages = ("en", "de", "en-GB", "fr", "")
    rows = [tables.row(f"s{i}", report=make_report(i), language=language) for i, language in enumerate(languages)]
    rows.append(tables.row("s9", image=tables.image(tmp_path, "a.png"), language="de"))
    path = tables.write(tmp_path, rows)
    assert build(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1",
                  f"--out={tmp_path / 'data'}"]) == 3
    rejected = (tmp_path / "data" / "rejected.csv").read_text()
    assert [line.split(";")[0] for line in rejected.splitlines()[1:]] == [
        f"s{i},,{i + 2},\"a report in '{languages[i]}': the extractor rules@4 reads en only" for i in (1, 3)]
    assert "--config.extractor=openai, and for a table --config.table.language=de" in rejected
    kept = list(open_records(tmp_path / "data", "train"))
    assert [record.study_id for record in kept] == ["s0", "s2", "s4", "s9"]
    assert all(record.evidence for record in kept if record.has_report)

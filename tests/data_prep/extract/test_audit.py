"""The audit page: what is marked, what was dropped, how two extractors agree."""

import re
from html.parser import HTMLParser

import pytest

from data_prep import audit
from data_prep.build import main as build
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.records import Evidence
from tests.data_prep.extract.llm.server import TEXT_FAULTS, Server, make_report
from tests.data_prep.shards import tables


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
    assert sorted(parser.pre) == sorted(make_report(i) for i in range(8))
    assert ("present", "Pneumothorax is present") in parser.marks and ("absent", "Edema is not seen") in parser.marks
    assert text.count("<td>unsupported<td>Cavitation<td>present<td>a large cavity in the left apex") == 1
    assert "1 reports are not compared" in text and "http" not in text
    # Both read these sentences alike: 4 of 8 reports with a pneumothorax, one of them in German.
    row = re.search(r"<tr><td>Pneumothorax" + r"<td class=n>([^<\n]*)" * 6, text)
    assert row.groups() == ("3", "0", "0", "4", "1.000 [1.000, 1.000]", "1.000 [1.000, 1.000]")
    assert ('<tr><td class="present">Pneumothorax<td>present<td><td><td><td><td>Pneumothorax is present') in text
    assert "1 replies in the cache could not be used, their reports are not in the data: 1 x no JSON" in text
    assert "<td>2 x unknown finding<td><td><td>" in text
    first = text
    audit.main([*arguments, f"--replies={tmp_path / 'data.replies.sqlite'}"])
    assert (tmp_path / "a.html").read_text() == first
    for more, message in (("--replies=none.sqlite", "no reply cache"), ("--split=dev", "unknown split"),
                          ("--second=oracle", "unknown extractor"), ("--second=openai:m/evidence@1", "no reply cache"),
                          ("--second=oracle:m/evidence@1", "not the recorded name"), ("--sample=0", "at least 1")):
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
                       "--second=openai:two/evidence@1", f"--second_replies={tmp_path / 'two.replies.sqlite'}"]) == 0
    text = (tmp_path / "a.html").read_text()
    assert "1 reports are not compared: there is no usable reply of openai:two/evidence@1" in text
    assert re.search(r"<tr><td>Edema<td class=n>4<td class=n>0<td class=n>0<td class=n>3<td class=n>1.000", text)


def test_the_rules_refuse_other_languages(tmp_path):
    languages = ("en", "de", "en-GB", "fr", "")
    rows = [tables.row(f"s{i}", report=make_report(i), language=language) for i, language in enumerate(languages)]
    rows.append(tables.row("s9", image=tables.image(tmp_path, "a.png"), language="de"))
    path = tables.write(tmp_path, rows)
    assert build(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1",
                  f"--out={tmp_path / 'data'}"]) == 3
    assert (tmp_path / "data" / "rejected.csv").read_text().splitlines()[1:] == [
        f"s{i},,{i + 2},a report in '{languages[i]}': the extractor rules@2 reads en only" for i in (1, 3)]
    kept = list(open_records(tmp_path / "data", "train"))
    assert [record.study_id for record in kept] == ["s0", "s2", "s4", "s9"]
    assert all(record.evidence for record in kept if record.has_report)

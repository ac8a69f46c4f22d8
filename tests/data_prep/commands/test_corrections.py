"""Evidence corrected by hand: build -> table -> corrections on the page, in a browser -> build -> no other changes."""

import csv
import dataclasses
import json
from collections import Counter

import pytest

from data_prep import agreement, audit, build, datasheet
from data_prep.extract.evidence_table import COLUMNS, EvidenceTable
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.records import Evidence
from tests.data_prep.shards import tables
from tests.pages.browser import PROGRAM, Browser

# Characters of two UTF-16 units, line breaks that HTML would change, words that stand twice, and markup.
REPORTS = {
    "s1": 'FINDINGS: \U0001f600 Small "left" pleural effusion,\r\nunchanged. No pneumothorax. The heart is enlarged.',
    "s2": "FINDINGS: There is a nodule in the left upper lobe. No pleural effusion. No pneumothorax.",
    "s3": "FINDINGS: \U0001f600 Dense area in the right\nlung. Dense area in the left lung </script><b> & more. "
          "No pneumothorax.",
    "s4": "IMPRESSION: Normal chest. No acute disease.",
    "s5": "FINDINGS: Comparison with the last examination was made.",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with the data set "data", the flags of its build)."""
    folder = tmp_path_factory.mktemp("corrections")
    path = tables.write(folder / "t", [
        tables.row(study, report=text, **{"label:Pneumothorax": ""}) for study, text in REPORTS.items()])
    flags = ["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1",
             "--config.tokenizer.vocab_size=300", "--config.derived_labels=silver,"]
    assert build.main([*flags, f"--out={folder / 'data'}"]) == cli.OK
    return folder, flags


def records(folder):
    return {record.study_id: record for record in open_records(folder, "train")}


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, lines, columns=COLUMNS):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return path


def key(row):
    return tuple(row[name] for name in COLUMNS[1:-3])


def test_the_tables_hold_every_report_and_statement(made):
    folder, _ = made
    lines, stored = rows(folder / "data/evidence.csv"), records(folder / "data")
    assert list(lines[0]) == ["study", "finding", "certainty", "side", "place", "severity", "change", "quote", "start",
                              "end", "extractor", "verified", "votes"]
    expected = []
    for study, text in REPORTS.items():
        record = stored[study]
        assert record.report == text
        expected += [(study, e.finding, e.certainty, e.laterality, e.anatomy, e.severity, e.temporality, e.phrase,
                      str(e.start), str(e.end), record.extractor, "", "") for e in record.evidence]
        if record.normal:
            expected.append((study, "No Finding", "present", *[""] * 7, record.extractor, "", ""))
        elif not record.evidence:
            expected.append((study, *[""] * 9, record.extractor, "", ""))
    assert [tuple(row.values()) for row in lines] == expected
    assert {row["study"] for row in lines} == set(REPORTS)
    assert ("s4", "No Finding") in [(row["study"], row["finding"]) for row in lines]
    [first, *_] = labels = rows(folder / "data/labels_train.csv")
    assert [row["study"] for row in labels] == list(REPORTS)
    assert (first["silver:Pleural Effusion"], first["silver:Pneumothorax"], first["Nodule"]) == ("1", "0", "")
    sums = (folder / "data/SHA256SUMS").read_text()
    assert "  evidence.csv\n" in sums and "  labels_train.csv\n" in sums


def test_no_cell_is_a_formula_and_what_is_written_is_read_again(tmp_path):
    path = tables.write(tmp_path / "t", [tables.row("=2+3", report="FINDINGS: Small left pleural effusion.")])
    flags = ["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1"]
    assert build.main([*flags, f"--out={tmp_path / 'data'}"]) == cli.OK
    for name in ("evidence.csv", "labels_train.csv"):
        assert rows(tmp_path / "data" / name)[0]["study"] == "'=2+3"
    table = tmp_path / "data/evidence.csv"
    assert build.main([*flags, f"--config.evidence={table}", f"--out={tmp_path / 'new'}"]) == cli.OK
    assert records(tmp_path / "new")["=2+3"].evidence == records(tmp_path / "data")["=2+3"].evidence != ()
    # A person's quote that begins like a formula.
    quote = "-small effusion"
    write(tmp_path / "e.csv", [{"study": "s", "finding": "Pleural Effusion", "certainty": "present",
                                "quote": f"'{quote}"}])
    [item] = EvidenceTable(tmp_path / "e.csv").read("s", f"FINDINGS: {quote}.").extraction.evidence
    assert item.phrase == quote
    if PROGRAM is None:
        pytest.skip("there is no Chromium: the page's own reading and writing is not tried")
    audit.main([f"--data_dir={tmp_path / 'data'}", f"--html={tmp_path / 'audit.html'}"])
    with Browser(tmp_path, 1280) as browser:
        browser.open(tmp_path / "audit.html")
        choose(browser, table)
        browser.wait("document.querySelector('.count').textContent.includes('Opened: 1')")
        browser.press("s")
        browser.downloaded("evidence.csv")
    assert (tmp_path / "evidence.csv").read_bytes() == table.read_bytes()


def found(browser, study):
    """The findings of a report's statements on the page, in order."""
    return browser.run(f"[...document.querySelectorAll('#study-{study} .statement strong')].map(e => e.textContent)")


def by_keys(browser):
    """The three corrections with the keyboard alone."""
    browser.press(*["j"] * found(browser, 0).index("Pneumothorax"), "c")
    browser.press("n", *["ArrowDown"] * found(browser, 1).index("Pleural Effusion"), "r", "n", "i")
    browser.write("consolidation")
    browser.press(*["Tab"] * 6)
    browser.write("no such words")
    browser.press("Enter")
    assert "not in the report" in browser.run("document.querySelector('form [role=alert]').textContent")
    browser.run("document.activeElement.select()")
    browser.write("Dense area in the")
    browser.press("Tab", "ArrowDown")  # The second of the two places.
    browser.press("Tab", "Enter")


def by_mouse(browser):
    """The same with a finger, as far as there are buttons; words are selected in the report."""
    def click(study, statement, text):
        place = browser.run(f"""(() => {{
          const all = [...document.querySelectorAll('#study-{study} .statement')], wanted = {json.dumps(statement)};
          const row = wanted ? all.find(e => e.querySelector('strong')?.textContent === wanted)
                             : document.querySelector('#study-{study}');
          const button = [...row.querySelectorAll('button')].find(e => e.textContent === {json.dumps(text)});
          button.scrollIntoView({{block: 'center'}});
          const box = button.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        browser.click(*place)

    click(0, "Pneumothorax", "Certainty")
    click(1, "Pleural Effusion", "Remove")
    browser.run("""(() => {
      const text = document.querySelector('#study-2 .report').firstChild, at = text.data.lastIndexOf('Dense');
      getSelection().setBaseAndExtent(text, at, text, at + 'Dense area in the'.length);
    })()""")
    click(2, None, "Add a statement")
    browser.write("Consolidation")
    click(2, None, "Apply")


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
@pytest.mark.parametrize("width, correct", [(1280, by_keys), (390, by_mouse)])
def test_three_corrections_on_the_page_are_the_changes_of_the_next_build(made, tmp_path, width, correct):
    folder, flags = made
    page = tmp_path / "audit.html"
    assert audit.main([f"--data_dir={folder / 'data'}", f"--html={page}"]) == cli.OK
    with Browser(tmp_path, width) as browser:
        browser.open(page)
        correct(browser)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert "3 corrections" in browser.run("document.querySelector('.count').textContent")
        browser.press("s")
        browser.downloaded("evidence.csv")
        assert browser.requests == [page.as_uri()]  # Nothing was loaded or sent.
    assert build.main([*flags, f"--config.evidence={tmp_path / 'evidence.csv'}", f"--out={tmp_path / 'new'}"]) == cli.OK
    old, new = records(folder / "data"), records(tmp_path / "new")

    [dry] = [e for e in old["s1"].evidence if e.finding == "Pneumothorax"]
    report = REPORTS["s3"]
    at = report.rindex("Dense")
    added = Evidence("Consolidation", "", "", "", "present", "", "Dense area in the", at, at + 17)
    expected = {study: list(record.evidence) for study, record in old.items()}
    expected["s1"][expected["s1"].index(dry)] = dataclasses.replace(dry, certainty="present")
    expected["s2"] = [e for e in expected["s2"] if e.finding != "Pleural Effusion"]
    expected["s3"] = sorted([*expected["s3"], added], key=lambda e: e.start)
    assert {study: list(record.evidence) for study, record in new.items()} == expected
    assert {study: record.normal for study, record in new.items()} == {s: r.normal for s, r in old.items()}
    assert {study: record.extractor for study, record in new.items()} == {
        study: "corrected" if study in ("s1", "s2", "s3") else old[study].extractor for study in old}
    label = load_metadata(tmp_path / "new").label_names.index("silver:Pneumothorax")
    assert (old["s1"].labels[label], new["s1"].labels[label]) == (0, 1)
    # What was not touched is as it was, and unconfirmed; the next table carries who said what.
    lines = {(row["study"], *key(row)): (row["extractor"], row["verified"])
             for row in rows(tmp_path / "new/evidence.csv")}
    before = {(row["study"], *key(row)) for row in rows(folder / "data/evidence.csv")}
    assert {line: said for line, said in lines.items() if line not in before} == dict.fromkeys(
        set(lines) - before, ("corrected", "yes"))
    assert {said for line, said in lines.items() if line in before} == {(old["s1"].extractor, "")}
    counts = load_metadata(tmp_path / "new").corrections
    assert counts == {"lines": len(rows(tmp_path / "evidence.csv")), "used": counts["lines"], "refused": 0,
                      "strangers": 0, "studies": 5, "corrected": 3}


def choose(browser, file):
    """Opens a saved table on the page."""
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    chooser = browser.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=chooser, files=[str(file)])


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
def test_the_page_accepts_undoes_and_opens_what_it_saved(made, tmp_path):
    folder, _ = made
    page = tmp_path / "audit.html"
    audit.main([f"--data_dir={folder / 'data'}", f"--html={page}"])

    def count():
        return browser.run("document.querySelector('.count').textContent")

    with Browser(tmp_path, 1280) as browser:
        browser.open(page)
        lines = len(found(browser, 0))
        browser.press(*"a" * lines)
        assert count().startswith("1 of 5 reports read, 0 corrections")
        browser.press("n", "n", "A")  # Past the second, which accepting led to.
        assert count().startswith("2 of 5")
        browser.press("p", "r", "z", "p", "p", "r")  # Back to the fourth, which accepting has left.
        assert "2 of 5 reports read, 1 corrections" in count()
        browser.press("n", "n", "n", "n", "a")  # The last report states nothing.
        assert count().startswith("3 of 5")
        browser.press("s")
        saved = browser.downloaded("evidence.csv")
        (tmp_path / "evidence.csv").rename(tmp_path / "first.csv")
    with Browser(tmp_path / "again", 1280) as browser:
        browser.open(page)
        choose(browser, tmp_path / "first.csv")
        browser.wait("document.querySelector('.count').textContent.includes('Opened: 5')")
        assert count().startswith("3 of 5 reports read")
        browser.press("s")
        assert browser.downloaded("evidence.csv") == saved
    lines = rows(tmp_path / "first.csv")
    assert {row["study"] for row in lines if row["verified"]} == {"s1", "s4", "s5"}


def line(study, quote, finding="Nodule", certainty="present", **more):
    return {"study": study, "finding": finding, "certainty": certainty, "quote": quote, **more}


@pytest.mark.parametrize("given, reason", [
    (line("s2", "a nodule in the right lobe"), "its quote is not in the report"),
    (line("s2", ""), "no quote"), (line("s2", "a nodule", "Noodle"), "unknown finding"),
    (line("s2", "a nodule", certainty="maybe"), "certainty is not one of present, uncertain, absent"),
    (line("s2", "a nodule", side="port"), "side is not one of left, right, bilateral, midline"),
    (line("s2", "No"), "its quote stands 2 times in the report: state start and end"),
    (line("s2", "a nodule", verified="perhaps"), "verified is not yes or no"),
    (line("s2", "a nodule", ""), "no finding"),
    (line("s2", "a nodule", "No Finding", "absent"), "No Finding is stated as present or not at all"),
])
def test_a_line_that_does_not_fit_refuses_its_study(made, tmp_path, capsys, given, reason):
    _, flags = made
    path = write(tmp_path / "e.csv", [line("s1", "No pneumothorax", "Pneumothorax", "absent"), given, line("s9", "x")])
    assert build.main([*flags, f"--config.evidence={path}", f"--out={tmp_path / 'data'}"]) == cli.PARTIAL
    rejected = rows(tmp_path / "data/rejected.csv")
    assert [(row["study_id"], row["row"], row["reason"]) for row in rejected] == [
        ("s2", "3", f"line 3 of the evidence: {reason}"),
        ("s9", "4", "evidence of a study that is not in the data set")]
    assert sorted(records(tmp_path / "data")) == ["s1", "s3", "s4", "s5"]
    assert "3 lines of evidence given: 1 used, 1 refused, 1 of studies that are not in the data set; 1 of 2 studies " \
           "corrected" in capsys.readouterr().out


def test_a_table_alone_is_enough_and_spreadsheets_are_forgiven(made, tmp_path, capsys):
    _, flags = made
    path = tmp_path / "e.csv"
    columns = ("study", "finding", "certainty", "quote", "verified")  # In another order than the reports.
    write(path, [line("s5", "", "no finding", verified="TRUE"), line("s4", "", "", ""),
                 line("s1", 'Small "left" pleural  effusion,\nunchanged', "pleural_effusion", "Present"),
                 line("s3", "No pneumothorax", "Pneumothorax", "absent")], columns)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert build.main([*flags, f"--config.evidence={path}", "--config.extractor=none",
                       f"--out={tmp_path / 'data'}"]) == cli.PARTIAL
    new, report = records(tmp_path / "data"), REPORTS["s1"]
    assert sorted(new) == ["s1", "s3", "s4", "s5"] and {record.extractor for record in new.values()} == {"corrected"}
    start, end = report.index("Small"), report.index(". No")
    assert new["s1"].evidence == (
        Evidence("Pleural Effusion", "", "", "", "present", "", report[start:end], start, end),)
    assert (new["s4"].evidence, new["s4"].normal, new["s5"].normal) == ((), False, True)
    assert "1 x no line of evidence, and no extractor" in capsys.readouterr().out
    assert "4 of its 4 lines are used; they correct 4 studies" in datasheet.sheet(
        load_metadata(tmp_path / "data"), Counter())
    verified = {row["study"]: row["verified"] for row in rows(tmp_path / "data/evidence.csv")}
    assert verified == {"s1": "", "s3": "", "s4": "", "s5": "yes"}


@pytest.mark.parametrize("content, message", [
    ("study,finding,certainty,text\n", "no column 'quote'"),
    ("study,finding,certainty,quote,sevrity\n", "did you mean 'severity'"),
    ("study,finding,certainty,quote\n\xe9", "not readable as CSV in UTF-8"), (None, "no file"),
])
def test_a_file_that_is_no_table_is_refused(made, tmp_path, content, message):
    if content is not None:
        (tmp_path / "e.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        build.main([*made[1], f"--config.evidence={tmp_path / 'e.csv'}", f"--out={tmp_path / 'data'}"])
    assert not (tmp_path / "data").exists()


def test_another_table_is_another_build(made, tmp_path):
    path = write(tmp_path / "e.csv", [line("s2", "a nodule")])
    arguments = [*made[1], f"--config.evidence={path}", f"--out={tmp_path / 'data'}"]
    assert build.main(arguments) == cli.OK
    write(path, [line("s2", "nodule")])
    with pytest.raises(UserError, match="the input has changed"):
        build.main(arguments)


def test_readers_are_compared_on_what_they_read_throughout(made, tmp_path, capsys):
    folder, _ = made
    given = rows(folder / "data/evidence.csv")

    def reader(name, read, change=lambda row: row):
        return write(tmp_path / name, [change({**row, "verified": "yes" if row["study"] in read else ""})
                                       for row in given])

    one = reader("one.csv", {"s1", "s2", "s4"})
    two = reader("two.csv", {"s1", "s2", "s3"}, lambda row: {**row, "certainty": "present"} if (
        row["study"], row["finding"]) == ("s1", "Pneumothorax") else row)

    def compare(*more):
        agreement.main([f"--data_dir={folder / 'data'}", "--resamples=10", f"--out={tmp_path / 'a.json'}", *more])
        return json.loads((tmp_path / "a.json").read_text())

    result = compare(f"--second={one}")
    assert (result["second"], result["n"], result["left_out"]) == ("one.csv", 3, 2)
    result = compare(f"--first={one}", f"--second={two}")
    assert (result["n"], result["left_out"]) == (2, 3)  # s1 and s2.
    row = result["findings"]["Pneumothorax"]
    assert [row[name] for name in ("both", "first", "second", "neither")] == [0, 0, 1, 1]
    row = result["findings"]["Nodule"]
    assert [row[name] for name in ("both", "first", "second", "neither")] == [1, 0, 0, 1]
    bad = reader("bad.csv", set(REPORTS), lambda row: {**row, "quote": "elsewhere"} if row["study"] == "s2" else row)
    result = compare(f"--second={bad}")
    assert result["n"] == 4 and "its quote is not in the report" in result["rejected"][0]["reason"]
    assert "elsewhere" not in capsys.readouterr().err
    with pytest.raises(UserError, match="agrees with itself"):
        compare()
    with pytest.raises(UserError, match="agrees with itself"):
        audit.main([f"--data_dir={folder / 'data'}", f"--html={tmp_path / 'a.html'}", "--second=rules"])
    audit.main([f"--data_dir={folder / 'data'}", f"--html={tmp_path / 'a.html'}"])
    assert "Agreement of" not in (tmp_path / "a.html").read_text()
    audit.main([f"--data_dir={folder / 'data'}", f"--html={tmp_path / 'a.html'}", f"--second={one}"])
    assert "and one.csv" in (tmp_path / "a.html").read_text()


def test_the_table_is_found_by_offsets_whatever_its_order(made, tmp_path):
    """Lines are read where they stand: in any order, with line breaks and characters of several bytes before them."""
    folder, flags = made
    given = rows(folder / "data/evidence.csv")
    path = write(tmp_path / "e.csv", given[::-1])
    assert build.main([*flags, f"--config.evidence={path}", f"--out={tmp_path / 'new'}"]) == cli.OK
    assert (tmp_path / "new/evidence.csv").read_bytes() == (folder / "data/evidence.csv").read_bytes()
    assert load_metadata(tmp_path / "new").corrections["corrected"] == 0

"""Where reports may go, what they may hold, and what they cost."""

import io
import json
import random
import re
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.extract.llm import data_use, pricing, stage
from data_prep.extract.llm.data_use import check_terms, check_url, find_route, likely_identifiers
from data_prep.extract.llm.limits import backoff
from data_prep.extract.llm.settings import Settings
from lgdea_jax.errors import UserError


@pytest.mark.parametrize("url, local", [
    ("http://127.0.0.1:8000/v1", True), ("http://localhost:11434/v1", True), ("http://[::1]:8000", True),
    ("http://10.1.2.3/v1", True), ("https://172.16.0.9", True), ("http://172.32.0.9", False),
    ("http://192.168.1.20:8000", True), ("http://[fd00::5]/", True), ("http://[::ffff:10.0.0.1]/", True),
    ("http://[::ffff:8.8.8.8]/", False), ("http://169.254.169.254/", False), ("http://100.64.0.1/", False),
    ("http://8.8.8.8/", False), ("https://api.openai.com/v1", False), ("", False), ("http://nowhere.invalid/", False),
    ("http://2130706433/", True), ("http://127.0.0.1.example.invalid/", False)])
def test_local_addresses(url, local, monkeypatch):
    real = socket.getaddrinfo

    def resolve(host, *args, **options):
        if host == "api.openai.com":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("162.159.140.245", 0))]
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert find_route(url).local == local


def test_a_name_is_local_only_if_all_its_addresses_are(monkeypatch):
    def resolve(host, *args, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("10.0.0.1", "93.184.216.34")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert find_route("http://both.example/") == data_use.Route(("10.0.0.1", "93.184.216.34"))


@pytest.mark.parametrize("url", ["http://me:secret@localhost/", "ftp://localhost/", "localhost:8000", "http:///v1",
                                 "http://localhost/?key=secret", "http://localhost:port/", "http://[::1/"])
def test_urls_that_are_refused(url):
    with pytest.raises(UserError) as error:
        check_url(url)
    assert "secret" not in str(error.value)


SAID = "The data protection board permits it."


@pytest.mark.parametrize("terms, local, attestation, refused", [
    ({"credentialed"}, False, "", True), ({"credentialed"}, False, SAID, False), ({"credentialed"}, True, "", False),
    ({"open", "credentialed"}, False, "", True), ({"open", "own"}, False, "", False), ({"unstated"}, False, "", True),
    ({"unstated"}, False, SAID, True), ({"unstated"}, True, "", False), ({"credentialed"}, False, "yes", True)])
def test_terms(terms, local, attestation, refused):
    if refused:
        with pytest.raises(UserError):
            check_terms(terms, local=local, attestation=attestation, where="config.table.terms")
    else:
        check_terms(terms, local=local, attestation=attestation, where="config.table.terms")


@pytest.mark.parametrize("text, kinds", [
    ("Compared with 03/12/2019.", ("dates",)), ("On March 5, 2019 and", ("dates",)), ("since 2019-03-05", ("dates",)),
    ("Discussed with Dr. Miller.", ("names",)), ("Patient: John", ("names",)), ("Jane Roe, MD", ("names",)),
    ("MRN 48213", ("ids",)), ("Call 555-123-4567", ("ids",)), ("a@b.org", ("ids",)), ("no 12345678", ("ids",)),
    ("A 3.5 cm mass at T12, 2/3 of the lobe, unchanged since XXXX. C5-6. 10-20 mm.", ()),
    ("Dr. XXXX was called. Compared with ___.", ()), ("The patient is rotated. Left Lower Lobe.", ())])
def test_likely_identifiers(text, kinds):
    assert likely_identifiers(text) == kinds


MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
PLAIN = {  # What the screen means, said plainly; the quick one begins its patterns with literals.
    "dates": re.compile(rf"(?i)\b\d{{1,2}}[/.-]\d{{1,2}}[/.-](?:19|20)?\d{{2}}\b|\b(?:19|20)\d{{2}}-\d{{2}}-\d{{2}}\b"
                        rf"|\b{MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+(?:19|20)\d{{2}}\b"
                        rf"|\b\d{{1,2}}\s+{MONTH}\s+(?:19|20)\d{{2}}\b"),
    "names": re.compile(r"\b(?:Dr|Mr|Mrs|Ms|Prof)\.?\s+[A-Z][a-z]+\b|\b(?i:patient(?: name)?|name|signed by|dictated"
                        r" by)\s*:\s*[A-Z][a-z]+|\b[A-Z][a-z]+ [A-Z][a-z]+,? (?:MD|M\.D\.|DO|RN)\b"),
    "ids": re.compile(r"(?i)\b(?:MRN|accession|acc|SSN|DOB|patient id)\b\W{0,3}#?\s*\w*\d|\b\d{3}-\d{2}-\d{4}\b"
                      r"|\b\d{7,}\b|[\w+-]@[\w-]+\.\w+\b|\(\d{3}\)\s*\d{3}-\d{4}|\b\d{3}-\d{3}-\d{4}\b"),
}
PIECES = ("03", "12", "2019", "1999", "/", "-", ".", " ", "March ", "5", "5th", ", ", "may", "Dr", "Dr. ", "Mrs ",
          "Miller", "Jane Roe", "MD", "M.D.", "Patient", ":", " name: ", "John", "MRN", "#", "acc ", "accession",
          "accentuate", "123", "4567", "a@b.org", "(555)", "555-123-4567", "12345678", "XXXX", "___", "dob", "\n", "é",
          "Name", "PATIENT ID", "signed by", "2", "x")


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_the_quick_screen_finds_what_the_plain_patterns_find(text):
    assert likely_identifiers(text) == tuple(kind for kind, pattern in PLAIN.items() if pattern.search(text))


def test_the_warning_counts_and_shows_nothing():
    screening = data_use.Screening()
    for i, text in enumerate(("Dr. Miller", "clear", "Mr. Miller on 1/2/2019")):
        screening.add(text, i)
    assert "likely dates in 1 (the first: report 2); likely names in 2 (the first: report 0, 2)" in screening.warning()
    assert "Miller" not in screening.warning() and data_use.Screening().warning() == ""


# --- Prices -----------------------------------------------------------------------------------------------------------


def test_prices_go_by_the_longest_name(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"models": {"m-1": {"input": 1, "output": 2}, "m-1-mini": {"input": 3, "output": 4}}}))
    assert pricing.load_price("m-1-mini-2026-01-01", str(path)).input == 3
    assert pricing.load_price("vendor/m-1", str(path)).cost(2_000_000, 1_000_000) == 4
    assert pricing.load_price("m-1max", str(path)) is None and pricing.load_price("m", str(path)) is None
    assert pricing.load_price("m-1", "", local=True) == pricing.FREE
    assert pricing.load_price("m-1", str(path), local=True).input == 1
    assert pricing.load_price("gemini-2.5-flash-lite-preview").output == 0.4
    for text in ("no", "[]", '{"models": {"m": {"input": -1, "output": 1}}}', '{"models": {"m": {}}}'):
        path.write_text(text)
        with pytest.raises(UserError):
            pricing.load_price("m", str(path))


def test_token_counts_are_bounded():
    for text in ("", "Heart size normal. Lungs clear.", "ünï 漢字" * 20, "a" * 1000):
        assert pricing.estimate_tokens(text) <= pricing.most_tokens(text)
    # About 4 characters or 0.75 words a token, as vendors say of English.
    text = "The cardiomediastinal silhouette is within normal limits. There is no pleural effusion. " * 20
    assert 0.8 < pricing.estimate_tokens(text) / (len(text.split()) / 0.75) < 1.25


@given(st.lists(st.text(st.sampled_from("ab 12_.\n\t-\x1cé漢"), max_size=30) | st.text(max_size=10), max_size=5))
def test_many_texts_are_counted_as_each_of_them_is(texts):
    assert pricing.estimate_all(texts) == sum(map(pricing.estimate_tokens, texts))


CT_WORDS = ("the", "lungs", "pleural", "effusion", "is", "not", "observed", "bilateral", "thoracic", "aorta", "mm",
            "nodule", "of", "segment", "lower", "lobe", "heart", "pericardial", "mediastinal", "lymph", "nodes")


def test_fifty_thousand_ct_reports_cost_less_than_three_dollars(tmp_path):
    rng = random.Random(0)
    # CT-RATE's volumes share their reports in pairs, of some 230 words; a tenth of them here.
    reports = [f"Findings: {i} {' '.join(rng.choices(CT_WORDS, k=max(40, round(rng.gauss(230, 70)))))}."
               for i in range(2500)] * 2
    job = stage.make_job("openai", {"model": "gpt-5-nano"}, tmp_path / "d", kind="ct_rate18")
    stream = io.StringIO()
    found, sent = stage.estimate(lambda: reports, job, stream=stream, terms=lambda: (), where="x")
    assert (found.reports, found.unique, sent) == (5000, 2500, 0)
    by_hand = (found.tokens_in * 0.05 + found.tokens_out * 0.40) / 1e6  # The list price.
    assert f"x 0.05 + {found.tokens_out / 1e6:.3f}M x 0.4 = {by_hand:.2f} USD" in stream.getvalue()
    assert 1 < 10 * by_hand < 3


def test_waiting_doubles_and_keeps_to_what_is_asked():
    assert all(0.5 * 2 ** n <= backoff(n, None) <= 2 ** n for n in range(6) for _ in range(20))
    assert backoff(30, None) <= 60 and 7 <= backoff(3, 7.0) <= 7.7


@pytest.mark.parametrize("change, message", [
    ({"model": ""}, "llm.model"), ({"attempts": 0}, "llm.attempts"), ({"structured": "xml"}, "llm.structured"),
    ({"max_cost": -1.0}, "llm.max_cost"), ({"modle": "m"}, "did you mean 'model'")])
def test_settings(change, message):
    with pytest.raises(UserError, match=message):
        Settings.read({"model": "m", **change})

"""All pages in a browser, at three widths and in both themes: nothing overflows, is cut, or is asked for."""

import json

import numpy as np
import pytest
from PIL import Image

from lgdea_jax.pages import audit, experiment, scan
from lgdea_jax.pages.elements import Table
from lgdea_jax.records import Evidence
from tests.commands import test_report as made
from tests.pages.browser import PROGRAM, Browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
WIDTHS = (390, 1280, 1600)
NAMES = ("results", "runs", "experiment", "audit", "scan")
LONG = "a_name_without_a_place_to_break_it_" * 4

# Elements wider than the window, but what scrolls by itself; and text of pictures outside of its picture.
_OVERFLOW = """JSON.stringify([...document.querySelectorAll("body *")].filter(e =>
!e.closest(".scroll, .line, .skip") && e.getBoundingClientRect().width > 0 &&
(e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1))
.map(e => e.tagName + "." + e.className).concat(
[...document.querySelectorAll("svg text")].filter(e => { const a = e.getBoundingClientRect(),
b = e.ownerSVGElement.getBoundingClientRect(); return a.width > 0 && (a.left < b.left - 1 || a.right > b.right + 1 ||
a.top < b.top - 1 || a.bottom > b.bottom + 1) }).map(e => e.textContent)))"""
# The least contrast of text with what is behind it (WCAG 2.1), for text in plain colours.
_CONTRAST = """Math.min(...[...document.querySelectorAll("p, li, td, th, figcaption, summary, h1, h2, h3, .value")]
.map(e => {
const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => v / 255).map(
v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
let behind = e; while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(behind).backgroundColor)].sort(
(x, y) => y - x);
return (a + 0.05) / (b + 0.05) }))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{name: file} of one page of each kind, with names that are hard to break."""
    folder = tmp_path_factory.mktemp("pages")
    evaluation, prototypes, run = made.with_everything(folder)
    second = made.write(folder / LONG, made.results(checkpoint=f"runs/{LONG}"))
    for name, folders in (("results", (evaluation, prototypes, run)), ("runs", (evaluation, second, run))):
        made.page(folder, *folders)
        (folder / "page.html").rename(folder / f"{name}.html")
    Image.new("RGB", (900, 600), "white").save(folder / "plot.png")
    wide = Table(tuple(f"column {n}" for n in range(12)), [(LONG, *["0.123 [0.100, 0.200]"] * 11)])
    (folder / "experiment.html").write_text(experiment.page(
        "An experiment", [experiment.Part("Rows", ["A sentence."], wide)] * 2, {"plot": folder / "plot.png"},
        command=f"python -m x --out={LONG}", notes=["A note."], caption="A caption.", reading=["Read it."]))
    evidence = (Evidence("Edema", "left", "lobe", "mild", "present", "new", "Edema", 0, 5),)
    (folder / "audit.html").write_text(audit.page("An audit", [audit.Item(LONG, "Edema is seen.", evidence, False)], {},
                                                  ("rules", ""), ["A note."]))
    (folder / "scan.html").write_text(scan.page("A folder", ["A note."], [scan.Section("Rows", "", wide)], [
        scan.Picture(np.zeros((90, 90), np.uint8), wide, "caption", "a picture") for wide in (False, True)], "Some."))
    return {name: folder / f"{name}.html" for name in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_and_are_quiet(pages, width, tmp_path):
    with Browser(tmp_path, width) as browser:
        for name, theme in ((name, theme) for name in NAMES for theme in ("light", "dark")):
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            browser.open(pages[name])
            browser.run("document.querySelectorAll('details').forEach(part => part.open = true)")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth"), (name, theme)
            assert json.loads(browser.run(_OVERFLOW)) == [], (name, theme)
            assert browser.run(_CONTRAST) >= 4.5, (name, theme)
            dark = browser.run("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
            assert dark == (theme == "dark")
        assert browser.messages == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.slow
def test_on_paper_everything_is_shown(pages, tmp_path):
    """Also what is folded on the screen, and in the colours of paper."""
    hidden = "[...document.querySelectorAll('details table, details li')].filter(e => !e.checkVisibility()).length"
    with Browser(tmp_path, 800) as browser:
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        browser.open(pages["results"])
        assert browser.run(hidden) > 0
        browser.call("Emulation.setEmulatedMedia", media="print",
                     features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert browser.run(hidden) == 0
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"

"""The pages' parts: lines through their points, tables, images cut as they should be; and the checker itself."""

import base64
import io
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
from PIL import Image

from lgdea_jax.inference import overlay
from lgdea_jax.pages import elements
from lgdea_jax.pages.elements import Bars, Curve, LinePlot, Table
from lgdea_jax.records import Box
from tests.pages.checks import check_html

PAGES = Path(elements.__file__).parent


def html_of(source, **values):
    """The HTML of a piece of template that may use the macros."""
    macros = '{% from "elements.html.j2" import table, curve, line_plot, bars with context %}'
    return elements._TEMPLATES.from_string(macros + source).render(**values)


def test_roc_curves_are_drawn_through_their_points():
    plot = Curve.of(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]), "t<", "x", "y")
    assert plot.points == ("44.0,166.0", "124.0,6.0", "204.0,6.0")
    drawn = html_of("{{ curve(plot) }}", plot=plot)
    assert re.search(r'polyline points="([^"]+)"', drawn).group(1) == "44.0,166.0 124.0,6.0 204.0,6.0"
    assert drawn.count("t&lt;") == 2 and "t<" not in drawn and "<circle" not in drawn
    dotted = html_of("{{ curve(plot) }}", plot=Curve.of(np.array([0.5]), np.array([0.5]), "t", "x", "y", dots=True))
    assert '<circle cx="124.0" cy="86.0"' in dotted
    many = Curve.of(np.linspace(0, 1, 5000), np.linspace(0, 1, 5000), "t", "x", "y").points
    assert len(many) == 150 and many[0] == "44.0,166.0" and many[-1] == "204.0,6.0"


def test_lines_are_drawn_through_their_points():
    plot = LinePlot.of({"a": [(0, 1.0), (50, 3.0), (100, 2.0)]}, "t<")
    assert [line.points for line in plot.lines] == ["72.0,138.0 222.0,8.0 372.0,73.0"]
    drawn = html_of("{{ line_plot(plot) }}", plot=plot)
    assert "t&lt;" in drawn and ">3</text>" in drawn and ">1</text>" in drawn and ">100</text>" in drawn
    assert LinePlot.of({}, "t") is None and LinePlot.of({"a": [(5, 2.0)]}, "t").lines
    two = LinePlot.of({"a": [(0, 1.0)], "b": [(1, 2.0)]}, "t")
    assert [(line.name, line.series) for line in two.lines] == [("a", 0), ("b", 1)]
    assert two.lines[0].dash != two.lines[1].dash  # Told apart without colours too.
    legend = html_of("{{ line_plot(plot) }}", plot=two)
    assert "</svg> a</li>" in legend and 'class="legend"' not in drawn
    several = LinePlot.of({str(n): [(0, 1.0), (1, 2.0)] for n in range(7)}, "t")
    assert len({(line.series, line.dash) for line in several.lines}) == 7


@pytest.mark.parametrize("plot", [
    Curve.of(np.array([0.5]), np.array([0.5]), "t", "false positive rate", "sensitivity"),
    LinePlot.of({"a": [(0, -1.23e-06), (100000, -0.00123)]}, "t")])
def test_labels_are_inside_of_the_picture(plot):
    """Digits and letters of this font are at most 0.65 of its size wide."""
    drawn = html_of("{{ draw(plot) }}".replace("draw", "curve" if isinstance(plot, Curve) else "line_plot"), plot=plot)
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', drawn).groups())
    texts = re.findall(r'<text x="([^"]+)" y="([^"]+)"([^>]*)>([^<]*)</text>', drawn)
    assert len(texts) >= 5
    for x, y, more, text in texts:
        length, x, y = 0.65 * 11 * len(text), float(x), float(y)
        if "rotate" in more:
            x, y = map(float, re.search(r"translate\((\S+) (\S+)\)", more).groups())
            assert x >= 11 and y - length / 2 >= 0 and y + length / 2 <= height
        else:
            left = x - (length if "end" in more else length / 2 if "middle" in more else 0)
            assert left >= 0 and left + length <= width and 11 <= y + 3 <= height, text


def test_bars_are_in_percent_of_their_axis():
    rows = [("a<", 0.5, 0.4, 0.75, 0), ("b", 0.25, None, None, 7)]
    data = Bars.of("AUROC", rows, unit=True, marks=(0.5, 2.0))
    assert data.axis == ("0", "1") and data.marks == ((50.0, "0.5"),)  # What is not on the axis is not marked.
    first, second = data.bars
    assert (first.start, first.end, first.low, first.high) == (0, 50, 40, 75) and first.text == "0.500 [0.400, 0.750]"
    assert (second.low, second.high, second.text, second.series) == (None, None, "0.250", 1)
    drawn = html_of("{{ bars(data) }}", data=data)
    assert 'style="left:0.0%;width:50.0%;' in drawn and 'style="left:40.0%;width:35.0%"' in drawn
    assert "a&lt;" in drawn and "<b>0.500</b>" in drawn and drawn.count('class="reach"') == 1


def test_bars_of_differences_start_at_zero():
    data = Bars.of("t", [("a", -0.5, -1.0, 0.0, 0), ("b", 0.5, 0.0, 1.0, 1)], unit=False, marks=(0.0,), signed=True)
    assert data.marks == ((50.0, "0"),) and data.bars[0].text == "-0.500 [-1.000, +0.000]"
    assert data.bars[0].end == 50.0 and data.bars[1].start == 50.0
    assert round(data.bars[1].end - 50, 1) == round(50 - data.bars[0].start, 1) == round(25 / 1.06, 1)
    assert Bars.of("t", [("a", 0.0, 0.0, 0.0, 0)], unit=False).bars[0].end == 0.0  # An axis without length.


def test_tables_are_text():
    table = Table(("a", "b"), [("x `y`", "0.5 [0.4, 0.6]"), ("<i>", "[1]")])
    drawn = html_of("{{ table(data) }}", data=table)
    assert '<th scope="row">x `y`</th><td class="n"><span>0.5</span> <span class="dim">[0.4, 0.6]</span></td>' in drawn
    assert "&lt;i&gt;" in drawn and '<td class="n">[1]</td>' in drawn
    code = html_of("{{ table(data) }}", data=Table(("a `<b>`",), [("x `<y>` z",)], code=True))
    assert "x <code>&lt;y&gt;</code> z" in code and "a `&lt;b&gt;`" in code


def test_panels_are_the_two_images(tmp_path):
    heat = np.zeros((60, 40))
    heat[10, 30] = 1
    shown = overlay.Overlay(np.full((60, 40), 120, np.uint8), heat, (60, 40), (Box("Edema", "", 5, 5, 10, 10),),
                            "Edema", ("pointing: hit    CNR +1.00",))
    overlay.draw(shown).save(tmp_path / "a.png")
    urls = elements.panel_urls(tmp_path / "a.png", overlay.panel_boxes(shown))
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]
    assert [image.shape for image in images] == [(420, 280, 3)] * 2
    outside = [image[300:, 200:].astype(int) for image in images]
    assert all(np.abs(part - 120).max() < 12 for part in outside)  # No margin, title or legend is cut in.
    assert np.abs(images[0][70:80, 205:215].astype(int) - 120).max() < 12  # The heat is in the second one.
    assert np.abs(images[1][70:80, 205:215].astype(int) - 120).max() > 60


def test_an_undefined_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        elements.render("audit", title="t")


def test_nothing_escapes_the_escaping():
    """Markup comes from templates only, and no template switches autoescape off."""
    for path in PAGES.rglob("*"):
        if path.suffix in (".py", ".j2"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"Markup|\|\s*safe|autoescape (?:false|off)|autoescape=False", text), path.name
    assert elements._TEMPLATES.autoescape is True


@pytest.mark.parametrize("fault", [
    "<p><div></div></p>", "<p>", "</i>", '<a id="x"></a><a id="x"></a>', '<img src="data:x">',
    '<a href="#nowhere">x</a>', '<a href="https://x.org">x</a>', "<script></script>"])
def test_the_check_finds_faults(fault):
    good = '<meta name="viewport" content="x"><meta content="default-src \'none\'">'
    check_html(good)
    with pytest.raises(AssertionError):
        check_html(good + fault)

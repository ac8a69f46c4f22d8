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
from lgdea_jax.pages.elements import Curve, LinePlot, Table
from lgdea_jax.records import Box
from tests.pages.checks import check_html

PAGES = Path(elements.__file__).parent


def html_of(source, **values):
    """The HTML of a piece of template that may use the macros."""
    macros = '{% from "elements.html.j2" import table, curve, line_plot with context %}'
    return elements._TEMPLATES.from_string(macros + source).render(**values)


def test_roc_curves_are_drawn_through_their_points():
    plot = Curve.of(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]), "t<", "x", "y")
    assert plot.points == ("22.0,136.0", "87.0,6.0", "152.0,6.0")
    drawn = html_of("{{ curve(plot) }}", plot=plot)
    assert re.search(r'polyline points="([^"]+)"', drawn).group(1) == "22.0,136.0 87.0,6.0 152.0,6.0"
    assert drawn.count("t&lt;") == 2 and "t<" not in drawn and "<circle" not in drawn
    dotted = html_of("{{ curve(plot) }}", plot=Curve.of(np.array([0.5]), np.array([0.5]), "t", "x", "y", dots=True))
    assert '<circle cx="87.0" cy="71.0"' in dotted
    many = Curve.of(np.linspace(0, 1, 5000), np.linspace(0, 1, 5000), "t", "x", "y").points
    assert len(many) == 150 and many[0] == "22.0,136.0" and many[-1] == "152.0,6.0"


def test_lines_are_drawn_through_their_points():
    plot = LinePlot.of({"a": [(0, 1.0), (50, 3.0), (100, 2.0)]}, "t<")
    assert plot.lines == (("46.0,138.0 196.0,8.0 346.0,73.0", "none"),)
    drawn = html_of("{{ line_plot(plot) }}", plot=plot)
    assert "t&lt;" in drawn and ">3</text>" in drawn and ">1</text>" in drawn and ">100</text>" in drawn
    assert LinePlot.of({}, "t") is None and LinePlot.of({"a": [(5, 2.0)]}, "t").lines
    two = LinePlot.of({"a": [(0, 1.0)], "b": [(1, 2.0)]}, "t")
    assert two.title == "t: solid a; dashed b" and [dash for _, dash in two.lines] == ["none", "5 3"]


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

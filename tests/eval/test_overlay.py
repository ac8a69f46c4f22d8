"""Overlays: boxes, heat and peak land where they belong, at any size and aspect."""

import time

import numpy as np
import pytest

from lgdea_jax.inference import overlay as o
from lgdea_jax.records import Box


def _picture(frame, stored, box, hot, **options):
    """A grey image with a box and one hot spot, and its right panel as an array with its origin."""
    heat = np.zeros(frame, np.float32)
    heat[hot] = 1.0
    drawn = o.draw(o.Overlay(np.full(stored, 90, np.uint8), heat, frame, (box,) if box else (), "Nodule", ("line",),
                             **options))
    height, width = o.panel_shape(frame)
    pixels = np.asarray(drawn)
    top = 14 + 26 + 19 + 8
    return drawn, pixels[top:top + height, 14:14 + width], pixels[top:top + height, 28 + width:28 + 2 * width]


@pytest.mark.parametrize("frame,stored", [((64, 64), (64, 64)), ((300, 600), (32, 64)), ((3000, 2000), (96, 64))])
def test_boxes_and_heat_land_in_place(frame, stored):
    h, w = frame
    box = Box("Nodule", "", x=w * 0.5, y=h * 0.25, w=w * 0.25, h=h * 0.25)
    hot = (slice(int(h * 0.3), int(h * 0.45)), slice(int(w * 0.55), int(w * 0.7)))
    drawn, plain, heated = _picture(frame, stored, box, hot)
    height, width = o.panel_shape(frame)
    assert o.SMALLEST <= max(height, width) <= o.LARGEST and abs(height / width - h / w) < 0.02
    edge = (plain == np.array(o._BOX)).all(-1)
    rows, columns = np.nonzero(edge)
    assert rows.min() / height == pytest.approx(0.25, abs=0.02) and rows.max() / height == pytest.approx(0.5, abs=0.02)
    assert columns.min() / width == pytest.approx(0.5, abs=0.02)
    assert columns.max() / width == pytest.approx(0.75, abs=0.02)
    tinted = np.abs(heated.astype(int) - 90).max(-1) > 30
    inside = np.zeros((height, width), bool)
    inside[int(0.25 * height):int(0.5 * height), int(0.5 * width):int(0.75 * width)] = True
    margin = np.zeros_like(inside)
    margin[int(0.22 * height):int(0.53 * height), int(0.47 * width):int(0.78 * width)] = True
    assert tinted[inside].mean() > 0.2 and not tinted[~margin].any()
    white = (heated == 255).all(-1)  # The cross at the peak.
    assert np.argwhere(white).mean(0) / (height, width) == pytest.approx((0.375, 0.625), abs=0.03)
    assert drawn.mode == "RGB"


def test_peak_is_a_maximal_pixel_or_the_middle_of_a_plateau():
    heat = np.zeros((10, 10))
    heat[2:4, 6:8] = 1
    assert o.peak(heat) == (3.0, 7.0)
    apart = np.zeros((10, 10))
    apart[0, 0] = apart[9, 9] = 1
    assert o.peak(apart) in ((0.5, 0.5), (9.5, 9.5))


def test_nan_stays_clear_and_constant_maps_do_not_tint():
    heat = np.full((64, 64), np.nan, np.float32)
    heat[:32] = 1.0
    sampled = o.resample(heat, (384, 384))
    assert np.isnan(sampled[200:]).all() and (sampled[:190] == 1).all()
    height, width = o.panel_shape((64, 64))
    pixels = np.asarray(o.draw(o.Overlay(np.full((64, 64), 90, np.uint8), heat, (64, 64), (), "x")))
    right = pixels[48:48 + height, 28 + width:28 + 2 * width]
    assert (right[250:] == 90).all()
    blank = o.draw(o.Overlay(np.full((64, 64), 90, np.uint8), heat * np.nan, (64, 64), (), "x"))
    assert blank.size[0] == 2 * width + 42


def test_the_scale_is_on_the_picture(monkeypatch):
    """A weak map is as bright as a strong one: the picture says from what to what, and that this is its own scale."""
    said, text = [], o.ImageDraw.ImageDraw.text
    monkeypatch.setattr(o.ImageDraw.ImageDraw, "text", lambda pen, place, words, **options: (
        said.append(words), text(pen, place, words, **options))[1])
    for low, high in ((-0.02, 0.01), (0.25, 0.75)):
        said.clear()
        heat = np.full((64, 64), low, np.float32)
        heat[10:20, 10:20] = high
        o.draw(o.Overlay(np.zeros((64, 64), np.uint8), heat, (64, 64), (), "x"))
        assert f"{low:.2f}" in said and f"{high:.2f}, the scale of this picture alone" in said


def test_long_titles_are_shortened():
    blank = np.zeros((64, 64), np.uint8)
    drawn = o.draw(o.Overlay(blank, blank.astype(np.float32), (64, 64), (), "Long " * 60, ("w " * 400,)))
    pixels = np.asarray(drawn)
    assert (pixels[:60, -14:] == o._PAPER).all()  # Nothing is written into the margin.


def test_a_title_of_any_length_is_drawn_at_once():
    blank = np.zeros((64, 64), np.uint8)
    start = time.process_time()
    for title in ("word " * 20_000, "x" * 100_000, "two\nlines", "", "i" * 5000):
        drawn = np.asarray(o.draw(o.Overlay(blank, blank.astype(np.float32), (64, 64), (), title, (title,))))
        assert (drawn[:60, -14:] == o._PAPER).all()
    assert time.process_time() - start < 5.0
    font = o._font(20)
    text = "a mass in the left upper lobe and an effusion "
    fitted = o._fit(text * 9, font, 300)
    assert fitted.endswith("...") and font.getlength(fitted) <= 300 < font.getlength(fitted[:-3] + "and...")
    assert o._fit("two\nlines", font, 300) == "two lines"

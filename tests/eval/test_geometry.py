"""A finding at a known place is found there again: build -> transform -> patches -> heatmap -> original pixels."""

import numpy as np
import pytest
from PIL import Image

from data_prep import build
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder
from lgdea_jax.evaluators.grounding import Grounding, grounding_samples, sample_heatmap, sample_queries
from lgdea_jax.inference import overlay
from tests.data_prep.shards import tables

GRID, SIZE = 8, 64


class Bright:
    """Its patches are their mean brightness: the heatmap is highest where the image is."""

    grid, image_size, batch_size = (GRID, GRID), SIZE, 4

    def images(self, images):
        patches = images.reshape(len(images), GRID, SIZE // GRID, GRID, SIZE // GRID).mean((2, 4)) / 255
        return {"embedding": np.ones((len(images), 1)), "patches": patches.reshape(len(images), -1, 1)}

    def texts(self, texts, phrases):
        return {"embedding": np.ones((len(texts), 1)), "query": np.ones((len(texts), 1))}


# (height, width) of the original and where the finding is: (top, left, height, width).
CASES = {
    "square": ((512, 512), (300, 100, 70, 70)),
    "portrait": ((900, 500), (650, 330, 110, 100)),
    "landscape": ((500, 900), (120, 600, 100, 110)),
    "very wide": ((300, 1200), (100, 900, 150, 150)),
    "small": ((40, 60), (8, 40, 8, 8)),
    "corner": ((700, 640), (0, 540, 90, 100)),
}


def _picture(shape, place, *, pad=0, crop=0):
    """A dark image with a bright square; `pad` columns of black on both sides, `crop` pixels cut off all around."""
    rng = np.random.default_rng(0)
    image = rng.integers(20, 60, shape, dtype=np.uint8)
    top, left, height, width = place
    image[top:top + height, left:left + width] = 240
    image = np.pad(image, ((0, 0), (pad, pad)))
    image = image[crop:image.shape[0] - crop, crop:image.shape[1] - crop]
    return image, (top - crop, left + pad - crop, height, width)


@pytest.mark.parametrize("transform", ["letterbox@1", "biovil480@1"])
def test_found_to_one_patch(transform, tmp_path):
    made = [(name, *_picture(shape, place)) for name, (shape, place) in CASES.items()]
    made.append(("padded", *_picture(*CASES["portrait"], pad=200)))
    made.append(("cropped", *_picture(*CASES["landscape"], crop=60)))
    made.append(("padded and cropped", *_picture(*CASES["square"], pad=150, crop=40)))
    rows, boxes = [], []
    for i, (name, image, (top, left, height, width)) in enumerate(made):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        rows.append(tables.row(f"s{i}", split="test", image=f"{i}.png", image_id="front"))
        boxes.append({"study_id": f"s{i}", "image_id": "front", "finding": "Nodule", "phrase": name, "x": left,
                      "y": top, "w": width, "h": height})
    tables.write(tmp_path, rows)
    tables.write(tmp_path, boxes, name="boxes.csv")
    config = cli.read_config("configs/data/table.py")
    config.table.path, config.image_size, config.workers = str(tmp_path / "studies.csv"), 160, 1
    build.build(config, tmp_path / "data", progress=False)
    data = EvalData.from_records(open_records(tmp_path / "data", "test"), load_metadata(tmp_path / "data"), SIZE,
                                 transform=transform)
    encoder = Encoder(Bright(), data)
    samples = grounding_samples(data)
    seen = 0
    assert len(samples) == len(made)
    for sample, query in zip(samples, sample_queries(encoder, samples)):
        [box] = sample.boxes
        heat = sample_heatmap(encoder, sample, query)
        height, width = data.original_shapes[sample.image][1:]
        assert heat.shape == (height, width)
        # A patch in original pixels: of the letterbox's longer, of the crop's shorter side.
        patch = (max(height, width) if transform == "letterbox@1" else min(height, width) * 480 / 512) / GRID
        middle = np.array([box.y + box.h / 2, box.x + box.w / 2])
        cut = np.abs(middle - np.array([height, width]) / 2).max() > min(height, width) * 480 / 512 / 2
        assert np.isnan(heat[tuple(middle.astype(int))]) == (cut and transform != "letterbox@1"), sample.phrase
        if np.isnan(heat[tuple(middle.astype(int))]):  # The crop never saw it.
            continue
        seen += 1
        assert np.abs(np.array(overlay.peak(heat)) - middle).max() <= patch, sample.phrase
        mirrored = np.array([middle[0], width - middle[1]])
        assert np.abs(mirrored - middle).max() <= patch or heat[tuple(mirrored.astype(int))] < np.nanmax(heat)
    assert seen >= 5
    if transform == "letterbox@1":
        assert seen == len(made)
        values = Grounding(data).run(encoder).metrics()
        assert values["grounding/pointing"] > 0.85 and values["grounding/cnr_signed"] > 1.5

"""Retrieval examples: ranks as counted by hand; texts are written for open data only unless asked for."""

import json

import numpy as np

from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.eval.harness import examples
from lgdea_jax.evaluators.data import EvalData
from lgdea_jax.evaluators.encoder import Encoder
from tests.eval.stand_ins import Model


def test_ranks_and_reports(phantom_data, tmp_path):
    predict, source = Model(), open_records(phantom_data, "test")
    data = EvalData.from_records(source, load_metadata(phantom_data), 64)
    encoder = Encoder(predict, data)
    assert examples.write_examples(encoder, source, tmp_path, 3, 0) == 3
    listed = json.loads((tmp_path / "examples.json").read_text())
    texts = list(dict.fromkeys(data.reports))
    phrases = [data.phrases[data.reports.index(text)] for text in texts]
    embeddings = predict.texts(texts, phrases)["embedding"]
    chosen = np.sort(np.random.default_rng(0).permutation(np.arange(len(data.images)))[:3])
    for item, image in zip(listed, chosen.tolist(), strict=True):
        scores = embeddings @ encoder.images()[image]
        order = [" ".join(texts[i].split()) for i in np.argsort(-scores)]
        assert item["report"] == " ".join(data.reports[data.report_of[image]].split())
        assert item["rank"] == 1 + order.index(item["report"]) and item["candidates"] == len(texts)
        assert [row["report"] for row in item["first"]] == order[:3]
        assert [row["own"] for row in item["first"]] == [text == item["report"] for text in order[:3]]
        assert (tmp_path / item["file"]).is_file()
    assert examples.write_examples(encoder, source, tmp_path, 0, 0) == 0 and not list(tmp_path.iterdir())

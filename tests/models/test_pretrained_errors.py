"""What importers and exporters refuse, each with one line that names the key; weight files in parts and in bfloat16."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lgdea_jax.models import bert, pretrained, resnet, vit
from lgdea_jax.models.pretrained import files
from tests.models import published
from tests.models.checkpoints import BERT, RESNET, VIT, saved, tower_of


def edited(source, folder, edit):
    """A copy of a checkpoint whose tensors `edit` has changed."""
    tensors = load_file(source / "model.safetensors")
    edit(tensors)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text((source / "config.json").read_text())
    return folder


def test_every_difference_is_named(tmp_path):
    source = saved(published.bert(transformers.BertForMaskedLM), tmp_path / "in")
    tower = tower_of(bert.Bert, BERT)
    assert len(pretrained.load_tower(tower, source).unused) == 5
    key = "bert.encoder.layer.1.output.dense.weight"
    for number, (edit, message) in enumerate([
            (lambda tensors: tensors.pop(key), f"missing {key}"),
            (lambda tensors: tensors.update({"bert.adapter.weight": torch.zeros(2)}), "left over bert.adapter.weight"),
            (lambda tensors: tensors.update({key: torch.zeros(16, 25)}),
             rf"{key} is \[16, 25\], the tower needs \[16, 24\]"),
            (lambda tensors: tensors.update({key: torch.zeros(16)}), rf"{key} is \[16\], the tower needs")]):
        with pytest.raises(pretrained.WeightsError, match=message):
            pretrained.load_tower(tower, edited(source, tmp_path / str(number), edit))
    with pytest.raises(pretrained.WeightsError, match=r"missing bert\.pooler\.dense\.weight"):
        pretrained.load_tower(tower_of(bert.Bert, BERT, pool="pooler"), source)
    with pytest.raises(pretrained.WeightsError, match="word table has 40 rows, the tokeniser 41 ids"):
        pretrained.load_tower(tower_of(bert.Bert, BERT, vocab_size=41), source)
    # Heads do not show in any shape: only the config has their number.
    with pytest.raises(pretrained.WeightsError, match="num_attention_heads = 4, the tower 2"):
        pretrained.load_tower(tower_of(bert.Bert, BERT, heads=2), source)
    with pytest.raises(pretrained.WeightsError, match="must be of family=bert, not roberta"):
        pretrained.load_tower(tower_of(bert.Bert, BERT, family="roberta"), source)


def test_other_towers_are_refused(tmp_path):
    vit_folder, text_folder = saved(published.vit(), tmp_path / "vit"), saved(published.bert(), tmp_path / "bert")
    with pytest.raises(pretrained.WeightsError, match="no weights for a Bert"):
        pretrained.load_tower(tower_of(bert.Bert, BERT), vit_folder)
    with pytest.raises(pretrained.WeightsError, match="no weights for a ViT"):
        pretrained.load_tower(tower_of(vit.ViT, VIT, family="vit"), text_folder)
    with pytest.raises(pretrained.WeightsError, match="it is a vit: the tower must be of family=vit, not dinov2"):
        pretrained.load_tower(tower_of(vit.ViT, VIT, family="dinov2"), vit_folder)
    (vit_folder / "config.json").unlink()  # The tensors are enough.
    with pytest.raises(pretrained.WeightsError, match="it is a vit: the tower must be of family=vit, not deit"):
        pretrained.load_tower(tower_of(vit.ViT, VIT, family="deit"), vit_folder)
    with pytest.raises(pretrained.WeightsError, match="family=plain"):
        pretrained.load_tower(tower_of(vit.ViT, VIT), vit_folder)
    with pytest.raises(pretrained.WeightsError, match="pool=map"):
        pretrained.load_tower(tower_of(vit.ViT, VIT, family="vit", pool="map"), vit_folder)
    with pytest.raises(pretrained.WeightsError, match="stem=patch2"):
        pretrained.load_tower(tower_of(resnet.ResNet, RESNET, stem="patch2"), saved(published.resnet(), tmp_path / "r"))


def test_unreadable_files_are_one_clear_error(tmp_path, monkeypatch):
    tower = tower_of(bert.Bert, BERT)

    def fails(path, message):
        with pytest.raises(pretrained.WeightsError, match=message):
            pretrained.load_tower(tower, path)

    fails(tmp_path / "nowhere", "a local directory or file is needed")
    fails(tmp_path, "no weight file in")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    fails(tmp_path, "cut short, or no safetensors file")
    source = saved(published.bert(), tmp_path / "in")
    whole = (source / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-8])
    fails(tmp_path, "is not whole")
    (tmp_path / "x.txt").write_text("")
    fails(tmp_path / "x.txt", "is no weight file")
    torch.save({"model": published.bert()}, tmp_path / "pickled.pt")
    fails(tmp_path / "pickled.pt", "cannot be read as weights only")
    monkeypatch.setitem(sys.modules, "torch", None)
    fails(tmp_path / "pickled.pt", "pip install torch")


def test_half_precision_and_shards_are_read(tmp_path):
    reference = published.bert()
    tensors = {name: value.to(torch.bfloat16) for name, value in reference.state_dict().items()}
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    report = pretrained.load_tower(tower_of(bert.Bert, BERT), tmp_path)
    expected = tensors["encoder.layer.0.output.dense.weight"].float().numpy().T
    np.testing.assert_array_equal(report.params["blocks/0/mlp/down/kernel"], expected)
    assert {value.dtype for value in report.params.values()} == {np.dtype(np.float32)}
    assert files.find_weights(tmp_path).name == "model.safetensors.index.json"


def test_towers_that_nobody_published_have_no_foreign_names(tmp_path):
    tower = tower_of(resnet.ResNet, RESNET, norm="group")
    with pytest.raises(pretrained.WeightsError, match="norm=group"):
        pretrained.save_tower(tower, {}, tmp_path)
    with pytest.raises(pretrained.WeightsError, match="no model with timm names has this tower"):
        pretrained.save_tower(tower, {}, tmp_path, names="timm")


def damaged(content, rng):
    """Bytes with a flipped bit, cut, or with another number, name or bracket in the header."""
    out, kind = bytearray(content), rng.random()
    length = int.from_bytes(content[:8], "little")
    if kind < 0.5:
        out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    elif kind < 0.65:
        del out[int(rng.integers(len(out))):]
    else:
        place = 8 + int(rng.integers(length))
        out[place:place + 1] = rng.choice([b"-", b"9", b"]", b'"', b"}", b"n", b" ", b"["])
    return bytes(out)


@pytest.mark.parametrize("times", [300, pytest.param(4000, marks=pytest.mark.slow)])
def test_no_damaged_file_is_a_traceback_and_none_of_ours_is_used(tmp_path, times):
    """Our files carry a digest; of others only what the header says can be checked."""
    rng, refused = np.random.default_rng(times), 0
    tensors = {"a.weight": rng.normal(size=(3, 5)).astype(np.float32), "b": np.arange(4, dtype=np.int64),
               "c": rng.normal(size=6).astype(np.float16)}
    files.write(tmp_path, tensors, {})
    path = tmp_path / "model.safetensors"
    ours = path.read_bytes()
    save_file({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    for content, own in ((ours, True), (path.read_bytes(), False)):
        for _ in range(times // 2):
            path.write_bytes(damaged(content, rng))
            try:
                found = files.read_tensors(path)
            except pretrained.WeightsError as error:
                refused += 1
                assert "\n" not in str(error) and str(path) in str(error)
                continue
            if own:
                assert set(found) == set(tensors)
                assert all(found[name].tobytes() == value.tobytes() for name, value in tensors.items())
    assert refused > times // 2


@pytest.mark.parametrize("header", [
    [], 3, {"a": 3}, {"a": {}}, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, {"a": {"dtype": [], "shape": [1],
                                                                         "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1],
                                                                       "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}])
def test_impossible_headers(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(pretrained.WeightsError, match=r"x\.safetensors"):
        files.read_tensors(tmp_path / "x.safetensors")


def test_damaged_torch_files(tmp_path):
    torch.save({"a": torch.arange(40.0)}, tmp_path / "x.pt")
    content, rng = (tmp_path / "x.pt").read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        (tmp_path / "x.pt").write_bytes(damaged(content, rng))
        try:
            files.read_tensors(tmp_path / "x.pt")
        except pretrained.WeightsError as error:
            assert "\n" not in str(error)
    for name, text in (("config.json", "[1]"), ("y.safetensors.index.json", '{"weight_map": {"a": "../../z"}}'),
                       ("z.safetensors.index.json", '{"weight_map": [1]}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(pretrained.WeightsError):
            files.read_config(tmp_path / "x") if name == "config.json" else files.read_tensors(tmp_path / name)

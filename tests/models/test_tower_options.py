"""What a config leaves open about its towers comes from the weights' config.json, or from the run to start from."""

import json

import pytest
import tokenizers
import transformers
from flax import nnx

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.experiment import Experiment
from lgdea_jax.models import pretrained
from lgdea_jax.training.tower_options import complete
from tests.inference import hub_stub
from tests.models import published

SIZES = {"width": 16, "depth": 2, "heads": 4}


def resnet():
    return published.randomise(transformers.ResNetModel(transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[2, 2, 2, 2], layer_type="basic")))


def cxr_bert(folder):
    """CXR-BERT as it is published: its own class, whose config.json adds the size of the head."""
    reference = published.randomise(published.CxrBert())
    transformers.modeling_utils.PreTrainedModel.save_pretrained(reference.bert, folder)
    from safetensors.torch import save_file
    save_file({name: value.contiguous() for name, value in reference.state_dict().items()},
              folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "cxr-bert", "projection_size": 8}))


FAMILIES = {
    "bert": (published.bert, "text", {"family": "bert", "pool": "cls", "eps": 1e-12}),
    "roberta": (published.roberta, "text", {"family": "roberta", "pool": "cls", "eps": 1e-5}),
    "cxr_bert": (cxr_bert, "text", {"family": "bert", "pool": "projection", "projection": 8}),
    "vit": (published.vit, "image", {"family": "vit", "pool": "gap"}),
    "deit": (published.deit, "image", {"family": "deit", "pool": "gap"}),
    "dinov2": (published.dinov2, "image", {"family": "dinov2", "pool": "cls"}),
    "swiglu": (lambda: published.dinov2(use_swiglu_ffn=True), "image", {"family": "dinov2", "mlp": "swiglu"}),
    "registers": (published.dinov2_registers, "image", {"family": "dinov2_registers", "pool": "cls"}),
    "clip": (published.clip, "image", {"family": "openclip_quickgelu", "pool": "cls", "projection": 8}),
    "resnet": (resnet, "image", {"variant": "resnet18"}),
}


def saved(name, folder):
    make = FAMILIES[name][0]
    folder.mkdir(parents=True, exist_ok=True)
    if name == "cxr_bert":
        make(folder)
    else:
        make().save_pretrained(folder)
    return folder


def config_of(**keys):
    config = cli.read_config("configs/common.py")
    config.method, config.image.size, config.text.length.report = "clip", published.IMAGE, published.LENGTH
    for key, value in keys.items():
        cli.set_override(config, key.replace("__", "."), str(value))
    return config


@pytest.mark.parametrize("name", FAMILIES)
def test_one_flag_is_enough(name, tmp_path):
    """`model.SIDE.weights`, and `model.image.name=""`: the tower is then one that the weights fit, strictly."""
    _, side, expected = FAMILIES[name]
    config = config_of(**{f"model__{side}__weights": saved(name, tmp_path / "w")})
    if side == "image":
        config.model.image.name = ""
    complete(config, tmp_path)
    part = config.model[side][config.model[side].name]
    assert {key: part[key] for key in expected} == expected
    if name != "resnet":
        assert {key: part.sizes[key] for key in SIZES} == SIZES
    graphdef, shapes = Experiment.of(config).model.abstract(vocab_size=published.VOCAB, num_labels=0)
    tower = getattr(nnx.merge(graphdef, shapes), f"{side}_tower")
    assert pretrained.load_tower(tower, tmp_path / "w").params


def test_what_is_given_stays_and_is_compared(tmp_path):
    weights = saved("cxr_bert", tmp_path / "w")
    config = config_of(model__text__weights=weights, model__text__bert__pool="mean", model__text__bert__variant="XS")
    complete(config, tmp_path)
    bert = config.model.text.bert
    assert (bert.pool, bert.projection, bert.variant, bert.sizes.width, bert.family) == ("mean", 128, "XS", 0, "bert")
    other = config_of(model__image__weights=saved("vit", tmp_path / "v"), model__image__vit__family="dinov2")
    complete(other, tmp_path)
    assert other.model.image.vit.family == "dinov2"  # `load_tower` then names what disagrees.


def test_without_weights_the_usual_options_are_written_down(tmp_path):
    config = config_of()
    complete(config, tmp_path)
    assert (config.model.text.bert.variant, config.model.text.bert.family, config.model.text.bert.pool) == (
        "base", "bert", "cls")
    vit = config.model.image.vit
    assert (vit.variant, vit.family, vit.pool, config.text.tokenizer) == ("B/16", "plain", "gap", "")


def test_the_tokeniser_beside_the_weights_is_theirs(tmp_path):
    weights = saved("bert", tmp_path / "w")
    tokenizers.Tokenizer(tokenizers.models.WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")).save(
        str(weights / "tokenizer.json"))
    config = config_of(model__text__weights=weights)
    complete(config, tmp_path)
    assert config.text.tokenizer == str(weights)
    given = config_of(model__text__weights=weights, text__tokenizer="mine.json")
    complete(given, tmp_path)
    assert given.text.tokenizer == "mine.json"


def test_weights_on_the_hub_are_pinned_to_their_commit(tmp_path, monkeypatch):
    weights = saved("bert", tmp_path / "w")
    (weights / "vocab.txt").write_text("[PAD]\n")
    with hub_stub.in_this_process(monkeypatch, tmp_path / "cache") as (_, server):
        server.models["lab/bert"] = {"private": False, "main": "b" * 40, "commits": {"b" * 40: {
            file.name: file.read_bytes() for file in weights.iterdir()} | {"pytorch_model.bin": b"not needed"}}}
        config = config_of(model__text__weights="hf://lab/bert")
        complete(config, tmp_path)
        assert config.model.text.weights == config.text.tokenizer == f"hf://lab/bert@{'b' * 40}"
        assert config.model.text.bert.sizes.width == 16
        assert not [path for _, path in server.asked if path.endswith(".bin")]


def test_what_says_too_little_is_a_line(tmp_path):
    config = config_of()
    config.model.image.name = ""
    with pytest.raises(UserError, match=r"nothing says which image tower is meant: give --config.init_from=RUN"):
        complete(config, tmp_path)
    weights = saved("vit", tmp_path / "w")
    (weights / "config.json").unlink()
    config.model.image.weights = str(weights)
    with pytest.raises(UserError, match=r"no config.json that describes a tower: name it with"):
        complete(config, tmp_path)
    with pytest.raises(UserError, match=r"model.text.weights: no weights at nowhere"):
        complete(config_of(model__text__weights="nowhere"), tmp_path)

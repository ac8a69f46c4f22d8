"""Importers and exporters against torch: equal outputs on tiny random checkpoints of every family, equal names."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.torch import load_file, save_file

from lgdea_jax.models import bert, pretrained, resnet, vit
from lgdea_jax.models.pretrained import files, positions
from tests.models import published
from tests.models.build import apply

RNG = np.random.default_rng(0)
VIT = {"width": 16, "depth": 2, "heads": 4, "mlp_dim": 24, "patch_size": 4, "image_size": 16, "channels": 3}
BERT = {"vocab_size": published.VOCAB, "width": 16, "depth": 2, "heads": 4, "mlp_dim": 24,
        "max_length": published.LENGTH}
RESNET = {"stage_sizes": (1, 2, 1), "bottleneck": True, "width": 8, "channels": 3, "norm": "batch"}


def tower_of(cls, sizes, **options):
    """A tower without values."""
    return nnx.eval_shape(lambda: cls(**{**sizes, **options}, rngs=nnx.Rngs(0)))


def filled(tower, params):
    """The tower with the parameters of an importer."""
    graphdef, state = nnx.split(tower)
    flat, treedef = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    values = [jnp.asarray(params["/".join(str(key.key) for key in path)]) for path, _ in flat]
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, values))


def loaded(tower, path):
    """The tower with the weights at `path`, strictly."""
    return filled(tower, pretrained.load_tower(tower, path).params)


def pixels(height=16, width=16, channels=3):
    return RNG.normal(size=(2, height, width, channels)).astype(np.float32)


def torch_pixels(images):
    return torch.tensor(images).permute(0, 3, 1, 2)


def saved(model, folder):
    """Saves a torch model as Hugging Face does, or its state_dict where it is not theirs."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
    else:
        folder.mkdir(exist_ok=True)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()},
                  folder / "model.safetensors")
    return folder


def close(ours, theirs):
    """Equal to 1e-5 of the largest value, and of 1."""
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(theirs).max()))


# Text.

def texts(pad, left=False):
    """Token ids [3, 7] with padding on the right, or on the left, and their mask."""
    lengths = np.array([[7], [4], [1]])
    mask = np.arange(7)[None] < lengths
    mask = mask[:, ::-1] if left else mask
    return np.where(mask, RNG.integers(3, published.VOCAB, (3, 7)), pad), mask


@pytest.mark.parametrize("family, left", [("bert", False), ("roberta", False), ("roberta", True)])
def test_text_towers_are_those_of_transformers(family, left, tmp_path):
    reference = {"bert": published.bert, "roberta": published.roberta}[family]()
    ids, mask = texts(0 if family == "bert" else 1, left)
    tower = tower_of(bert.Bert, BERT, family=family, pool="pooler")
    with torch.no_grad():
        expected = reference(torch.tensor(ids), attention_mask=torch.tensor(mask.astype(np.int64)))
    source = saved(reference, tmp_path / "in")
    model = loaded(tower, source)
    pooled, out = apply(model, jnp.asarray(ids), jnp.asarray(mask))
    if not left:
        close(pooled, expected.pooler_output)
    np.testing.assert_allclose(np.asarray(out["tokens"])[mask], expected.last_hidden_state.numpy()[mask], atol=1e-5)


def test_short_texts_take_the_first_positions(tmp_path):
    reference = published.roberta()
    tower = tower_of(bert.Bert, BERT, family="roberta", max_length=7)
    report = pretrained.load_tower(tower, saved(reference, tmp_path / "in"))
    assert report.params["embeddings/position"].shape == (9, 16) and "the first 9 of 22 positions" in report.notes
    ids, mask = texts(1)
    with torch.no_grad():
        expected = reference(torch.tensor(ids), attention_mask=torch.tensor(mask.astype(np.int64)))
    pooled, _ = apply(filled(tower, report.params), jnp.asarray(ids), jnp.asarray(mask))
    close(pooled, expected.last_hidden_state[:, 0])
    with pytest.raises(pretrained.WeightsError, match="22 rows: too few for texts of 30 tokens"):
        pretrained.load_tower(tower_of(bert.Bert, BERT, family="roberta", max_length=30), tmp_path / "in")


def test_cxr_bert_with_its_projection_and_a_torch_file(tmp_path):
    reference = published.randomise(published.CxrBert())
    tower = tower_of(bert.Bert, BERT, pool="projection", projection=8)
    # As old checkpoints have it: gamma and beta, a language model's head, everything below "module.".
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for name, value in reference.state_dict().items()}
    state = {f"module.{name}": value for name, value in old.items()}
    state["module.cls.predictions.bias"] = torch.zeros(published.VOCAB)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "model.pt")
    report = pretrained.load_tower(tower, tmp_path / "model.pt")
    assert report.unused == ("cls.predictions.bias",)
    ids, mask = texts(0)
    with torch.no_grad():
        expected = reference(torch.tensor(ids), torch.tensor(mask.astype(np.int64)))
    pooled, out = apply(filled(tower, report.params), jnp.asarray(ids), jnp.asarray(mask))
    close(pooled, expected)
    close(out["tokens"][:, 0], expected)
    pretrained.save_tower(tower, report.params, tmp_path / "out")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(exported.pop(name), value)
    assert not exported


# Images.

VITS = {
    "vit": (published.vit, {"family": "vit", "pool": "pooler"}),
    "deit": (published.deit, {"family": "deit", "pool": "pooler"}),
    "dinov2": (published.dinov2, {"family": "dinov2", "pool": "cls", "mlp_dim": 32}),
    "dinov2_swiglu": (lambda: published.dinov2(use_swiglu_ffn=True),
                      {"family": "dinov2", "pool": "cls", "mlp": "swiglu", "mlp_dim": 24}),
    "dinov2_registers": (published.dinov2_registers, {"family": "dinov2_registers", "pool": "cls", "mlp_dim": 32}),
}


def hidden(reference, images):
    """(pooled, patches) of a Hugging Face ViT on images of any size."""
    options = {"interpolate_pos_encoding": True} if reference.config.model_type in ("vit", "deit") else {}
    with torch.no_grad():
        out = reference(torch_pixels(images), **options)
    return out.pooler_output, out.last_hidden_state[:, -(images.shape[1] // 4) * (images.shape[2] // 4):]


@pytest.mark.parametrize("name", VITS)
def test_vits_are_those_of_transformers(name, tmp_path):
    """At another, oblong image size than the checkpoint's: positions are interpolated."""
    make, options = VITS[name]
    reference = make()
    source = saved(reference, tmp_path / "in")
    images = pixels(12, 24)
    tower = tower_of(vit.ViT, VIT, **options, image_size=(12, 24))
    report = pretrained.load_tower(tower, source)
    assert "positions from 4 x 4 to 3 x 6" in report.notes
    pooled, out = apply(filled(tower, report.params), jnp.asarray(images))
    expected, patches = hidden(reference, images)
    close(pooled, expected)
    close(out["patches"], patches)
    assert out["grid"] == (3, 6)


@pytest.mark.parametrize("name", VITS)
def test_exported_vits_run_in_transformers(name, tmp_path):
    make, options = VITS[name]
    reference = make()
    source = saved(reference, tmp_path / "in")
    tower = tower_of(vit.ViT, VIT, **options)
    report = pretrained.load_tower(tower, source)
    assert not report.notes
    kind = pretrained.save_tower(tower, report.params, tmp_path / "out")
    assert kind == type(reference).__name__
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", source))
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    again, info = type(reference).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    images = pixels()
    for one, other in zip(hidden(again.eval(), images), hidden(reference, images), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    back = pretrained.load_tower(tower, tmp_path / "out")
    assert all(np.array_equal(back.params[path], report.params[path]) for path in report.params)


def test_openclip_and_the_same_tower_in_transformers(tmp_path):
    whole = published.randomise(published.OpenClip())
    torch.save(whole.state_dict(), tmp_path / "open_clip.pt")
    tower = tower_of(vit.ViT, VIT, family="openclip", pool="cls", projection=8)
    report = pretrained.load_tower(tower, tmp_path / "open_clip.pt")
    assert report.names == "openclip" and "token_embedding.weight" in report.unused
    images = pixels()
    with torch.no_grad():
        expected = whole.visual(torch_pixels(images))
    pooled, out = apply(filled(tower, report.params), jnp.asarray(images))
    close(pooled, expected)
    assert out["patches"].shape == (2, 16, 8)

    pretrained.save_tower(tower, report.params, tmp_path / "hf")
    model, info = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(torch_pixels(images)).image_embeds, expected, atol=1e-5, rtol=1e-5)
    pretrained.save_tower(tower, report.params, tmp_path / "openclip", names="openclip")
    exported = load_file(tmp_path / "openclip" / "model.safetensors")
    whole.visual.load_state_dict({name.removeprefix("visual."): value for name, value in exported.items()})
    with torch.no_grad():
        torch.testing.assert_close(whole.visual(torch_pixels(images)), expected, atol=1e-5, rtol=1e-5)
    for folder in ("hf", "openclip"):
        back = pretrained.load_tower(tower, tmp_path / folder)
        assert all(np.array_equal(back.params[path], report.params[path]) for path in report.params)


def test_clip_with_quick_gelu(tmp_path):
    reference = published.clip()
    source = saved(reference, tmp_path / "in")
    images = pixels()
    model = loaded(tower_of(vit.ViT, VIT, family="openclip_quickgelu", pool="cls", projection=8), source)
    with torch.no_grad():
        expected = reference(torch_pixels(images))
        patches = reference.vision_model.post_layernorm(expected.last_hidden_state[:, 1:]) @ \
            reference.visual_projection.weight.T
    pooled, out = apply(model, jnp.asarray(images))
    close(pooled, expected.image_embeds)
    close(out["patches"], patches)
    with pytest.raises(pretrained.WeightsError, match="hidden_act = quick_gelu, the tower gelu"):
        pretrained.load_tower(tower_of(vit.ViT, VIT, family="openclip", pool="cls"), source)


def test_timm_names_below_a_prefix(tmp_path):
    reference = published.randomise(published.TimmVit())
    source = saved(reference, tmp_path / "in")
    tower = tower_of(vit.ViT, VIT, family="vit", pool="cls", eps=1e-6)
    report = pretrained.load_tower(tower, source)
    images = pixels()
    with torch.no_grad():
        expected = reference(torch_pixels(images))
    pooled, out = apply(filled(tower, report.params), jnp.asarray(images))
    close(pooled, expected[:, 0])
    close(out["patches"], expected[:, 1:])
    pretrained.save_tower(tower, report.params, tmp_path / "out", names="timm")
    reference.visual.trunk.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(reference(torch_pixels(images)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("names", ["hf", "torchvision"])
def test_resnets_at_an_odd_size(names, tmp_path):
    reference = published.resnet() if names == "hf" else published.randomise(published.TorchvisionResNet())
    source = saved(reference, tmp_path / "in")
    tower = tower_of(resnet.ResNet, RESNET)
    report = pretrained.load_tower(tower, source)
    assert report.names == names
    images = pixels(37, 50)

    def features(model):
        with torch.no_grad():
            out = model(torch_pixels(images))
            return out.last_hidden_state if names == "hf" else out

    expected = features(reference)
    pooled, out = apply(filled(tower, report.params), jnp.asarray(images))
    assert out["grid"] == tuple(expected.shape[2:])
    close(out["patches"], expected.flatten(2).transpose(1, 2))
    close(pooled, expected.mean((2, 3)))
    pretrained.save_tower(tower, report.params, tmp_path / "out", names=names)
    if names == "hf":
        again = transformers.ResNetModel.from_pretrained(tmp_path / "out").eval()
    else:
        exported = load_file(tmp_path / "out" / "model.safetensors")
        again = published.TorchvisionResNet().eval()
        assert again.load_state_dict(exported, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    torch.testing.assert_close(features(again), expected, atol=1e-5, rtol=1e-5)


def test_basic_resnet_blocks(tmp_path):
    reference = published.resnet("basic")
    model = loaded(tower_of(resnet.ResNet, RESNET, bottleneck=False), saved(reference, tmp_path / "in"))
    images = pixels(32, 32)
    with torch.no_grad():
        expected = reference(torch_pixels(images))
    close(apply(model, jnp.asarray(images))[0], expected.pooler_output[:, :, 0, 0])


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_grey_stem_is_the_model_on_grey_images(kind, tmp_path):
    """A grey image repeated thrice, and the same image through a stem of one channel."""
    reference = published.vit() if kind == "vit" else published.resnet()
    source = saved(reference, tmp_path / "in")
    make = {"vit": lambda channels: tower_of(vit.ViT, VIT, family="vit", pool="pooler", channels=channels),
            "resnet": lambda channels: tower_of(resnet.ResNet, RESNET, channels=channels)}[kind]
    grey = pixels(16, 16, 1)
    with torch.no_grad():
        expected = reference(torch_pixels(np.repeat(grey, 3, axis=-1))).pooler_output
    tower = make(1)
    report = pretrained.load_tower(tower, source)
    assert "grey stem: the sum over the three channels" in report.notes
    close(apply(filled(tower, report.params), jnp.asarray(grey))[0], expected.reshape(2, -1))
    pretrained.save_tower(tower, report.params, tmp_path / "out")
    again = type(reference).from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(torch_pixels(grey)).pooler_output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid, new", [((4, 4), (7, 3)), ((9, 9), (4, 5)), ((3, 3), (3, 3))])
def test_interpolation_is_that_of_torch(grid, new, antialias):
    image = RNG.normal(size=(grid[0] * grid[1], 2)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.tensor(image.reshape(1, *grid, 2)).permute(0, 3, 1, 2), size=new,
                                               mode="bicubic", align_corners=False, antialias=antialias)
    ours = positions.interpolate(image, grid, new, antialias=antialias)
    close(ours.reshape(*new, 2), expected[0].permute(1, 2, 0))


# Strictness.

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
    # Heads do not show in any shape: only the config tells them.
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
    (vit_folder / "config.json").unlink()  # The tensors tell as well.
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

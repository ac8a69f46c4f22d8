"""Importers and exporters against torch: equal outputs on tiny random checkpoints of every family, equal names."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from lgdea_jax.models import bert, pretrained, resnet, vit
from lgdea_jax.models.pretrained import layout, positions
from tests.models import published
from tests.models.build import apply
from tests.models.checkpoints import BERT, RESNET, VIT, filled, loaded, saved, tower_of

RNG = np.random.default_rng(0)


def pixels(height=16, width=16, channels=3):
    return RNG.normal(size=(2, height, width, channels)).astype(np.float32)


def torch_pixels(images):
    return torch.tensor(images).permute(0, 3, 1, 2)


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
    types = RNG.integers(0, 2, ids.shape) if family == "bert" else np.zeros_like(ids)
    with torch.no_grad():
        expected = reference(torch.tensor(ids), attention_mask=torch.tensor(mask.astype(np.int64)),
                             token_type_ids=torch.tensor(types))
    source = saved(reference, tmp_path / "in")
    model = loaded(tower, source)
    pooled, out = apply(model, jnp.asarray(ids), jnp.asarray(mask), jnp.asarray(types))
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


@pytest.mark.parametrize("names", ["hf", "torchvision"])
def test_a_feature_pyramid_stays_fresh(names, tmp_path):
    """Everything else comes from the file, and no file of that scheme could hold what was added."""
    reference = published.resnet() if names == "hf" else published.randomise(published.TorchvisionResNet())
    source = saved(reference, tmp_path / "in")
    tower = tower_of(resnet.ResNet, RESNET, pyramid=2)
    report = pretrained.load_tower(tower, source)
    assert report.params.keys() == pretrained.load_tower(tower_of(resnet.ResNet, RESNET), source).params.keys()
    note, = (note for note in report.notes if note.startswith("fresh, for the file has none: "))
    named = set(note.removeprefix("fresh, for the file has none: ").split(", "))
    assert named | set(report.params) == set(layout.parameter_shapes(tower)) and not named & set(report.params)
    assert "laterals/1/kernel" in named and "lateral_norms/0/scale" in named
    with pytest.raises(pretrained.WeightsError, match="no name for lateral_norms"):
        pretrained.save_tower(tower, {}, tmp_path / "out", names=names)


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

"""ViT and ResNet towers: shapes, locality, positions, parity of the two convolutions, one compilation, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from lgdea_jax.models import layers, resnet, vit
from lgdea_jax.preprocess.image import Letterbox
from tests.models.build import apply, random_model

RNG = np.random.default_rng(0)


def vit_maker(**options):
    sizes = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 16, "patch_size": 4, "image_size": 16}
    return lambda: vit.ViT(**{**sizes, **options}, rngs=nnx.Rngs(0))


def resnet_maker(**options):
    sizes = {"stage_sizes": (1, 1), "bottleneck": False, "width": 8, "stem": "small"}
    return lambda: resnet.ResNet(**{**sizes, **options}, rngs=nnx.Rngs(0))


def tiny_vit(**options):
    return random_model(vit_maker(**options))


def tiny_resnet(**options):
    return random_model(resnet_maker(**options))


def images(batch=2, size=16, channels=1):
    return jnp.asarray(RNG.normal(size=(batch, size, size, channels)), jnp.float32)


def changed_patches(model, row=0, column=0):
    """bool [gh, gw], patches that change with the pixel (row, column)."""
    x = images(1)
    _, out = apply(model, jnp.concatenate([x, x.at[0, row, column].add(5.0)]))
    before, after = out["patches"]
    return (np.abs(before - after).max(-1) > 1e-6).reshape(out["grid"])


@pytest.mark.parametrize("options", [
    {}, {"pool": "cls", "attention_window": 1}, {"pool": "map", "channels": 3}, {"stem": "hybrid", "depth": 0},
    {"stem": "patch_mlp", "position": False, "dtype": jnp.bfloat16}])
def test_vit_shapes_and_dtypes(options):
    model = tiny_vit(**options)
    pooled, out = apply(model, images(channels=options.get("channels", 1)))
    assert pooled.shape == (2, 16) and pooled.dtype == jnp.float32
    assert out["patches"].shape == (2, 16, 16) and out["patches"].dtype == options.get("dtype", jnp.float32)
    assert out["grid"] == (4, 4) and all(type(side) is int for side in out["grid"])
    assert np.all(np.isfinite(out["patches"].astype(jnp.float32)))


@pytest.mark.parametrize("make", [vit_maker(pool="map", stem="hybrid", dtype=jnp.bfloat16), vit_maker(pool="cls"),
                                  resnet_maker(dtype=jnp.bfloat16)])
def test_parameters_are_float32_and_not_weakly_typed(make):
    leaves = jax.tree.leaves(nnx.state(nnx.eval_shape(make)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
    assert not any(leaf.weak_type for leaf in leaves)


def test_vit_gap_is_the_mean_of_the_patches():
    for family in ("plain", "dinov2_registers"):  # Tokens before the patches do not count.
        pooled, out = apply(tiny_vit(family=family), images())
        assert out["patches"].shape == (2, 16, 16)
        np.testing.assert_allclose(pooled, np.mean(out["patches"], axis=1), rtol=1e-4, atol=1e-6)


def test_linear_stem_is_a_strided_convolution():
    model = tiny_vit(depth=0, position=False, channels=3)
    x = images(channels=3)
    kernel = np.asarray(model.stem.out.kernel[...]).reshape(4, 4, 3, 16)
    expected = torch.nn.functional.conv2d(torch.tensor(np.array(x)).permute(0, 3, 1, 2),
                                          torch.tensor(kernel).permute(3, 2, 0, 1),
                                          torch.tensor(np.array(model.stem.out.bias[...])), stride=4)
    np.testing.assert_allclose(model.stem(x), expected.permute(0, 2, 3, 1).numpy(), rtol=1e-4, atol=1e-5)


def test_receptive_fields():
    """A pixel in the corner patch: who sees it, from strictly local to global."""
    corner, two, three = (np.pad(np.ones((n, n), bool), (0, 4 - n)) for n in (1, 2, 3))
    for stem in ("linear", "patch_mlp"):
        np.testing.assert_array_equal(changed_patches(tiny_vit(stem=stem, depth=0), row=1, column=2), corner)
    # From the far corner of its patch a pixel reaches one patch more through the 3 x 3 neighbourhoods.
    hybrid = tiny_vit(stem="hybrid", depth=0)
    np.testing.assert_array_equal(changed_patches(hybrid), two)
    np.testing.assert_array_equal(changed_patches(hybrid, row=3, column=3), three)
    np.testing.assert_array_equal(changed_patches(tiny_vit(attention_window=1)), two)
    np.testing.assert_array_equal(changed_patches(tiny_vit(attention_window=1, family="dinov2_registers")), two)
    # The class token sees everything but does not leak it to the patches.
    model = tiny_vit(attention_window=1, depth=2, pool="cls")
    np.testing.assert_array_equal(changed_patches(model), three)
    x = images(1)
    near, far = apply(model, jnp.concatenate([x, x.at[0, -1, -1].add(5.0)]))[0]
    assert np.abs(near - far).max() > 1e-6
    assert np.all(changed_patches(tiny_vit()))


def test_position_embedding_breaks_the_symmetry_of_patches():
    x = jnp.ones((1, 16, 16, 1))
    spread = {position: float(np.ptp(apply(tiny_vit(position=position), x)[1]["patches"], axis=1).max())
              for position in (True, False)}
    assert spread[True] > 1e-2 and spread[False] < 1e-5


def test_size_tables():
    assert vit.sizes("B/16") == {"width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072, "patch_size": 16}
    assert vit.sizes("XS/8", depth=0)["depth"] == 0
    assert resnet.sizes("resnet50")["stage_sizes"] == (3, 4, 6, 3)
    for wrong in ("B", "B/", "B/0", "Q/16", "B/16/2"):
        with pytest.raises(ValueError, match="unknown ViT variant"):
            vit.sizes(wrong)
    with pytest.raises(ValueError, match="unknown ViT sizes"):
        vit.sizes("B/16", layers=3)
    with pytest.raises(ValueError, match="unknown ResNet variant"):
        resnet.sizes("resnet9")
    for name in vit.VARIANTS:
        assert vit.VARIANTS[name]["width"] % vit.VARIANTS[name]["heads"] == 0


@pytest.mark.parametrize("options, message", [
    ({"image_size": 18}, "multiple of the patch size"), ({"pool": "max"}, "unknown pool"),
    ({"stem": "conv"}, "unknown stem"), ({"pool": "cls", "depth": 0}, "never sees"), ({"heads": 3}, "multiple of 3"),
    ({"stem": "hybrid", "patch_size": 16, "image_size": 48, "width": 16, "heads": 5}, "multiple of 5"),
    ({"stem": "hybrid", "patch_size": 3, "image_size": 18}, "power of two")])
def test_vit_refuses_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(vit_maker(**options))


def test_towers_refuse_other_images():
    with pytest.raises(ValueError, match="images must be"):
        tiny_vit()(images(size=20))
    with pytest.raises(ValueError, match="images must be"):
        tiny_resnet()(images(channels=3))


def test_resnet_variants_have_the_published_sizes():
    """Parameters of torchvision's ResNets without their classifier: a batch norm has as many as a group norm."""
    published = {"resnet18": 11_689_512 - 513_000, "resnet34": 21_797_672 - 513_000, "resnet50": 25_557_032 - 2_049_000}
    for name, count in published.items():
        model = nnx.eval_shape(lambda name=name: resnet.ResNet(**resnet.sizes(name), channels=3, rngs=nnx.Rngs(0)))
        assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) == count


@pytest.mark.parametrize("stem, bottleneck, stride", [("imagenet", False, 8), ("small", True, 2), ("patch2", False, 4)])
def test_resnet_native_and_im2col_are_the_same_function(stem, bottleneck, stride):
    native, im2col = (tiny_resnet(stem=stem, bottleneck=bottleneck, channels=3, conv=conv)
                      for conv in ("native", "im2col"))
    x = images(channels=3)
    (pooled, out), (other_pooled, other_out) = apply(native, x), apply(im2col, x)
    assert out["grid"] == other_out["grid"] == (16 // stride, 16 // stride) and native.stride == stride
    assert out["patches"].shape == (2, out["grid"][0] * out["grid"][1], native.width)
    np.testing.assert_allclose(pooled, other_pooled, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(out["patches"], other_out["patches"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(pooled, np.mean(out["patches"], axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_dense_is_torchs_linear_with_its_gradients(shape, bias):
    ours = random_model(lambda: layers.dense(5, 7, bias=bias, rngs=nnx.Rngs(0)))
    x = RNG.normal(size=shape).astype(np.float32)
    weights = RNG.normal(size=(*shape[:-1], 7)).astype(np.float32)
    graphdef, state = nnx.split(ours)
    value = nnx.to_pure_dict(state)
    (gradients, x_gradient) = jax.grad(
        lambda params, x: jnp.sum(jnp.tanh(nnx.merge(graphdef, params)(x)) * weights), argnums=(0, 1))(value, x)

    theirs = torch.nn.Linear(5, 7, bias=bias)
    theirs.weight.data = torch.from_numpy(np.asarray(value["kernel"]).T.copy())
    if bias:
        theirs.bias.data = torch.from_numpy(np.asarray(value["bias"]).copy())
    their_x = torch.from_numpy(x).requires_grad_()
    out = theirs(their_x)
    np.testing.assert_allclose(ours(x), out.detach().numpy(), rtol=1e-5, atol=1e-6)
    (torch.tanh(out) * torch.from_numpy(weights)).sum().backward()
    np.testing.assert_allclose(x_gradient, their_x.grad.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients["kernel"], theirs.weight.grad.numpy().T, rtol=1e-5, atol=1e-6)
    if bias:
        np.testing.assert_allclose(gradients["bias"], theirs.bias.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_bias_is_summed_beyond_bfloat16():
    # 4,096 ones: a sum that is kept in bfloat16 on the way stops at 256.
    layer = layers.dense(2, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(layer)
    gradients = jax.grad(lambda params: jnp.sum(nnx.merge(graphdef, params)(jnp.ones((4096, 2))).astype(jnp.float32)))(
        nnx.to_pure_dict(state))
    assert gradients["bias"].dtype == jnp.float32
    np.testing.assert_array_equal(gradients["bias"], 4096.0)


@settings(max_examples=12, deadline=None)
@given(size=st.sampled_from([1, 3, 7]), stride=st.sampled_from([1, 2]), height=st.sampled_from([5, 8]),
       how=st.sampled_from(["native", "im2col"]))
def test_convolutions_are_those_of_torch(size, stride, height, how):
    conv = random_model(lambda: layers.Conv(2, 3, size, stride=stride, how=how, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(size).normal(size=(1, height, 6, 2)).astype(np.float32)
    expected = torch.nn.functional.conv2d(
        torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(np.array(conv.kernel[...])).permute(3, 2, 0, 1),
        stride=stride, padding=size // 2)
    np.testing.assert_allclose(conv(jnp.asarray(x)), expected.permute(0, 2, 3, 1).numpy(), rtol=1e-4, atol=1e-5)


def test_group_norm_and_layer_norm_are_those_of_torch():
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 12)).astype(np.float32) * 4 + 2
    group, layer = (random_model(make) for make in (lambda: layers.GroupNorm(12, group_size=4),
                                                  lambda: layers.LayerNorm(12)))
    reference = torch.nn.GroupNorm(3, 12, eps=1e-5)
    with torch.no_grad():
        reference.weight.copy_(torch.tensor(np.array(group.scale[...])))
        reference.bias.copy_(torch.tensor(np.array(group.bias[...])))
        expected = reference(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        expected_layer = torch.nn.functional.layer_norm(
            torch.tensor(x), (12,), torch.tensor(np.array(layer.scale[...])), torch.tensor(np.array(layer.bias[...])),
            eps=1e-6).numpy()
    np.testing.assert_allclose(group(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected_layer, rtol=1e-4, atol=1e-5)


def step_of(graphdef):
    """A jitted SGD step on the square of the pooled output, and the list of its compilations."""
    traced = []

    @jax.jit
    def step(state, x):
        traced.append(1)

        def loss(state):
            pooled, _ = nnx.merge(graphdef, state)(x)
            return jnp.mean(jnp.square(pooled - 1.0))

        value, gradient = jax.value_and_grad(loss)(state)
        return value, jax.tree.map(lambda p, g: p - 0.01 * g, state, gradient)

    return step, traced


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_split_merge_under_jit_compiles_once_and_remat_changes_nothing(make):
    x = images()
    results = {}
    for remat in (False, True):
        graphdef, state = nnx.split(make(remat=remat))
        step, traced = step_of(graphdef)
        losses = []
        for _ in range(3):
            value, state = step(state, x)
            losses.append(float(value))
        assert len(traced) == 1 and step._cache_size() == 1
        assert losses[2] < losses[0]
        results[remat] = losses
    np.testing.assert_allclose(results[False], results[True], rtol=1e-4)


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_bfloat16_is_close_to_float32(make):
    x = images()
    full, half = (apply(make(dtype=dtype), x)[0] for dtype in (jnp.float32, jnp.bfloat16))
    error = float(jnp.linalg.norm(full - half) / jnp.linalg.norm(full))
    assert 0 < error < 0.05


def test_dropout_needs_a_key_and_follows_it():
    model = tiny_vit(dropout_rate=0.5)
    x = images()
    with pytest.raises(ValueError, match="needs rngs"):
        model(x, deterministic=False)
    graphdef, state = nnx.split(model)
    dropped = jax.jit(lambda key: nnx.merge(graphdef, state)(x, deterministic=False, rngs=nnx.Rngs(dropout=key))[0])
    same, again, other = (dropped(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert np.abs(same - other).max() > 1e-3
    assert np.abs(same - apply(model, x)[0]).max() > 1e-3
    kept = layers.dropout(jnp.ones((100, 100)), 0.25, jax.random.key(0))
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)} and abs(float(kept.mean()) - 1) < 0.05


@pytest.mark.parametrize("stem", ["patch2", "patch4", "small"])
def test_cell_centres_are_where_heatmaps_put_them(stem):
    """What a patch reacts to lies, on average, in the middle of its cell: otherwise every heatmap is displaced."""
    # Batch norm with its moving moments leaves positions apart; group norm would let every pixel react a little.
    tower = resnet.ResNet(**resnet.sizes("resnet8", width=8), stem=stem, norm="batch", rngs=nnx.Rngs(0))
    image = jnp.zeros((1, 64, 64, 1))
    _, out = tower(image)
    rows, columns = out["grid"]
    stride = 64 // rows
    row, column = rows // 2, columns // 2

    def reaction(image, noise):
        return (tower(image + noise)[1]["patches"][0, row * columns + column] ** 2).sum()

    weight = np.zeros((64, 64))
    for seed in range(6):  # The mean over inputs: one input's gradient is as crooked as its ReLUs.
        noise = jax.random.normal(jax.random.key(seed), image.shape)
        weight += np.abs(np.asarray(jax.grad(reaction)(image, noise)))[0, :, :, 0]
    centre = (np.arange(64) * weight.sum(1)).sum() / weight.sum(), (np.arange(64) * weight.sum(0)).sum() / weight.sum()
    expected = row * stride + (stride - 1) / 2, column * stride + (stride - 1) / 2
    np.testing.assert_allclose(centre, expected, atol=1.0)


def test_a_dot_is_found_where_it_is_through_the_imagenet_stem():
    """Published ResNets look left of and above the middle of a cell; their `offset` brings heatmaps back."""
    size, stride = 128, 16

    def make(key):
        return resnet.ResNet(**resnet.sizes("resnet8", width=8), stem="imagenet", norm="batch", zero_init=False,
                             rngs=nnx.Rngs(key))

    model = nnx.eval_shape(lambda: make(0))
    graphdef, _ = nnx.split(model)
    fresh = jax.jit(lambda key: nnx.split(make(key))[1])
    tower = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images)[1]["patches"])
    # Dots around what a patch in the middle of the image looks at, as many on either side.
    dots = [(4 * stride + row, 4 * stride + column) for row in range(-6, 7, 3) for column in range(-6, 7, 3)]
    images = np.zeros((len(dots) + 1, size, size, 1), np.float32)
    for image, (row, column) in zip(images[1:], dots, strict=True):
        image[row, column] = 50.0
    geometry = Letterbox.of((size, size), size)
    errors = {0.0: [], model.offset: []}
    for mirrored in (False, True):  # One random tower's kernels are crooked; their mirror images are so the other way.
        state = jax.tree.map(lambda leaf: leaf[::-1, ::-1] if leaf.ndim == 4 and mirrored else leaf,  # noqa: B023
                             fresh(jax.random.key(0)))
        patches = np.asarray(tower(state, images))
        for heat, dot in zip(np.square(patches[1:] - patches[0]).sum(-1).reshape(-1, 8, 8), dots, strict=True):
            for offset, found in errors.items():
                pixels = geometry.heatmap(heat, patch_offset=offset / stride)
                centre = [(pixels.sum(1 - axis) * np.arange(size)).sum() / pixels.sum() for axis in (0, 1)]
                found.append(np.subtract(centre, dot))
    assert list(errors) == [0.0, -7.5]
    np.testing.assert_allclose(np.mean(errors[-7.5], axis=0), 0, atol=0.5)
    np.testing.assert_allclose(np.mean(errors[0.0], axis=0), 7.5, atol=0.5)

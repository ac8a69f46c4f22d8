"""ViT and ResNet towers: shapes, locality, positions, one compilation, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lgdea_jax.models import layers, resnet, vit
from lgdea_jax.preprocess.image import Letterbox
from tests.models.build import apply, random_model, traced

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
    """A pixel in the corner patch: the patches that depend on it, from strictly local to global."""
    corner, two, three = (np.pad(np.ones((n, n), bool), (0, 4 - n)) for n in (1, 2, 3))
    for stem in ("linear", "patch_mlp"):
        np.testing.assert_array_equal(changed_patches(tiny_vit(stem=stem, depth=0), row=1, column=2), corner)
    # From the far corner of its patch a pixel reaches one patch more through the 3 x 3 neighbourhoods.
    hybrid = tiny_vit(stem="hybrid", depth=0)
    np.testing.assert_array_equal(changed_patches(hybrid), two)
    np.testing.assert_array_equal(changed_patches(hybrid, row=3, column=3), three)
    np.testing.assert_array_equal(changed_patches(tiny_vit(attention_window=1)), two)
    np.testing.assert_array_equal(changed_patches(tiny_vit(attention_window=1, family="dinov2_registers")), two)
    # The class token depends on every patch, and no patch on the class token.
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
    ({"stem": "conv"}, "unknown stem"), ({"pool": "cls", "depth": 0}, "needs depth"), ({"heads": 3}, "multiple of 3"),
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


@pytest.mark.parametrize("options, stride", [
    ({"stem": "imagenet"}, 8), ({"stem": "small", "bottleneck": True}, 2), ({"stem": "patch2"}, 4),
    ({"stem": "patch2", "pyramid": 1}, 2), ({"stage_sizes": (1, 2, 1), "bottleneck": True, "pyramid": 2}, 1)], ids=str)
def test_resnet_grids(options, stride):
    model, pooled, out = traced(resnet_maker(**options, channels=3), (2, 16, 32, 3))
    assert out["grid"] == (16 // stride, 32 // stride) and model.stride == stride
    assert pooled.shape == (2, model.width)
    assert out["patches"].shape == (2, out["grid"][0] * out["grid"][1], model.width)


def test_twice_as_many_cells_continue_a_ramp():
    rows, columns = np.arange(3.0), np.arange(4.0)
    ramp = (10 * rows[:, None] + columns)[None, :, :, None]
    finer = resnet.upsample2(jnp.asarray(ramp), 6, 7)
    # Behind the last cell the border repeats.
    expected = 10 * np.minimum(np.arange(6) / 2, 2)[:, None] + np.minimum(np.arange(7) / 2, 3)
    np.testing.assert_allclose(finer[0, :, :, 0], expected)


def test_a_pyramid_begins_as_the_tower_without_it():
    """With its norms at zero it adds nothing: every second cell is one of the last stage."""
    plain, finer = (resnet_maker(stem="patch2", norm="batch", pyramid=pyramid)() for pyramid in (0, 1))
    state = nnx.to_pure_dict(nnx.state(plain))
    nnx.update(finer, nnx.state(plain))
    assert set(nnx.to_pure_dict(nnx.state(finer))) - set(state) == {"laterals", "lateral_norms"}
    # The same cut of the image: a finer grid is displaced less.
    finer.shift, x = plain.shift, images()
    (_, coarse), (_, fine) = (apply(model, x) for model in (plain, finer))
    width = plain.width
    np.testing.assert_allclose(fine["patches"].reshape(2, 8, 8, width)[:, ::2, ::2],
                               coarse["patches"].reshape(2, 4, 4, width), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pyramid", [-1, 2])
def test_a_pyramid_needs_earlier_stages(pyramid):
    with pytest.raises(ValueError, match=f"pyramid must be from 0 to 1, not {pyramid}"):
        tiny_resnet(pyramid=pyramid)


def test_pools_of_patches():
    patches = RNG.normal(size=(2, 5, 3)) * 3
    expected = {"mean": patches.mean(1), "max": patches.max(1), "lse": np.log(np.exp(patches).mean(1))}
    for pool in resnet.POOLS:
        np.testing.assert_allclose(resnet.pool_patches(jnp.asarray(patches), pool), expected[pool], rtol=1e-5)


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


@pytest.mark.parametrize("stem, pyramid", [("patch2", 0), ("patch4", 0), ("small", 0), ("patch2", 1), ("small", 2)])
def test_cell_centres_are_where_heatmaps_put_them(stem, pyramid):
    """What a patch reacts to lies, on average, in the middle of its cell: otherwise every heatmap is displaced."""
    # Batch norm with its moving moments leaves positions apart; group norm would let every pixel react a little.
    def make():
        return resnet.ResNet(**resnet.sizes("resnet8", width=8), stem=stem, norm="batch", pyramid=pyramid,
                             zero_init=not pyramid, rngs=nnx.Rngs(0))  # At zero a pyramid shows nothing.

    model = nnx.eval_shape(make)
    graphdef, _ = nnx.split(model)
    state = jax.jit(lambda: nnx.split(make())[1])()
    side = 64 // model.stride
    row = column = side // 2

    @jax.jit
    @jax.grad
    def gradient(x):
        return (nnx.merge(graphdef, state)(x)[1]["patches"][0, row * side + column] ** 2).sum()

    weight = np.zeros((64, 64))
    for seed in range(6):  # The mean over inputs: one input's gradient is as crooked as its ReLUs.
        noise = np.random.default_rng(seed).normal(size=(1, 64, 64, 1)).astype(np.float32)
        weight += np.abs(np.asarray(gradient(noise)))[0, :, :, 0]
    centre = (np.arange(64) * weight.sum(1)).sum() / weight.sum(), (np.arange(64) * weight.sum(0)).sum() / weight.sum()
    middle = row * model.stride + (model.stride - 1) / 2
    np.testing.assert_allclose(centre, (middle, middle), atol=1.0)


def test_a_dot_is_found_where_it_is_through_the_imagenet_stem():
    """Receptive fields of published ResNets lie left of and above the middle of a cell; `offset` corrects heatmaps."""
    size, stride = 128, 16

    def make(key):
        return resnet.ResNet(**resnet.sizes("resnet8", width=8), stem="imagenet", norm="batch", zero_init=False,
                             rngs=nnx.Rngs(key))

    model = nnx.eval_shape(lambda: make(0))
    graphdef, _ = nnx.split(model)
    fresh = jax.jit(lambda key: nnx.split(make(key))[1])
    tower = jax.jit(lambda state, images: nnx.merge(graphdef, state)(images)[1]["patches"])
    # Dots around the receptive field of a patch in the middle of the image, as many on either side.
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

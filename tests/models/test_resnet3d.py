"""3D ResNets against torch, where patches lie, and what the tower refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lgdea_jax.models import resnet3d
from tests.models.build import apply, random_model, traced

RNG = np.random.default_rng(0)


def maker(**options):
    sizes = {"stage_sizes": (1, 1), "bottleneck": False, "width": 4, "stem": "small"}
    return lambda: resnet3d.ResNet3D(**{**sizes, "rngs": nnx.Rngs(0), **options})


def volumes(batch=2, shape=(6, 8, 10)):
    return jnp.asarray(RNG.normal(size=(batch, *shape, 1)), jnp.float32)


def tensor(parameter):
    return torch.tensor(np.array(parameter[...]))


class TorchResNet3D(torch.nn.Module):
    """The published network (torchvision's `VideoResNet`, MedicalNet's `ResNet`), as plain torch modules."""

    def __init__(self, stages, width, bottleneck, norm, stem):
        super().__init__()
        make = {"batch": torch.nn.BatchNorm3d, "instance": lambda c: torch.nn.InstanceNorm3d(c, affine=True),
                "group": lambda c: torch.nn.GroupNorm(max(1, c // 16), c)}[norm]
        kernel, stride = {"imagenet": (7, 2), "kinetics": ((3, 7, 7), (1, 2, 2))}[stem]
        padding = (1, 3, 3) if stem == "kinetics" else kernel // 2
        layers = [torch.nn.Conv3d(1, width, kernel, stride, padding, bias=False), make(width), torch.nn.ReLU()]
        if stem == "imagenet":
            layers.append(torch.nn.MaxPool3d(3, 2, 1))
        self.stem = torch.nn.Sequential(*layers)
        self.blocks, cin = torch.nn.ModuleList(), width
        for stage, count in enumerate(stages):
            for index in range(count):
                planes, stride = width * 2**stage, 2 if stage and not index else 1
                cout = planes * (4 if bottleneck else 1)
                sizes = [(cin, planes, 1, 1), (planes, planes, 3, stride), (planes, cout, 1, 1)] if bottleneck else \
                    [(cin, planes, 3, stride), (planes, cout, 3, 1)]
                block = torch.nn.Module()
                block.convs = torch.nn.ModuleList(
                    torch.nn.Conv3d(a, b, k, s, k // 2, bias=False) for a, b, k, s in sizes)
                block.norms = torch.nn.ModuleList(make(b) for _, b, _, _ in sizes)
                down = stride > 1 or cin != cout
                short = (torch.nn.Conv3d(cin, cout, 1, stride, bias=False), make(cout)) if down else ()
                block.short = torch.nn.Sequential(*short)
                self.blocks.append(block)
                cin = cout

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            y = x
            for i, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
                y = norm(conv(y))
                y = torch.relu(y) if i < len(block.convs) - 1 else y
            x = torch.relu(block.short(x) + y)
        return x

    @torch.no_grad()
    def fill(self, ours):
        """Our parameters."""
        def conv(theirs, mine):
            theirs.weight.copy_(tensor(mine.kernel).permute(4, 3, 0, 1, 2))

        def norm(theirs, mine):
            theirs.weight.copy_(tensor(mine.scale))
            theirs.bias.copy_(tensor(mine.bias))
            if isinstance(theirs, torch.nn.BatchNorm3d):
                theirs.running_mean.copy_(tensor(mine.mean))
                theirs.running_var.copy_(tensor(mine.var))

        conv(self.stem[0], ours.stem_conv)
        norm(self.stem[1], ours.stem_norm)
        for theirs, mine in zip(self.blocks, ours.blocks, strict=True):
            for pair in zip(theirs.convs, mine.convs, strict=True):
                conv(*pair)
            for pair in zip(theirs.norms, mine.norms, strict=True):
                norm(*pair)
            if mine.shortcut is not None:
                conv(theirs.short[0], mine.shortcut)
                norm(theirs.short[1], mine.shortcut_norm)
        return self.eval()


@pytest.mark.parametrize("variant, norm, stem, shape", [
    ("resnet18", "instance", "kinetics", (9, 34, 36)), ("resnet18", "batch", "imagenet", (36, 40, 33)),
    pytest.param("resnet34", "instance", "kinetics", (18, 33, 34), marks=pytest.mark.slow),
    pytest.param("resnet50", "group", "kinetics", (10, 33, 32), marks=pytest.mark.slow),
    ("resnet50", "batch", "imagenet", (33, 35, 34))])
def test_is_the_published_network(variant, norm, stem, shape):
    options = {**resnet3d.sizes(variant, width=4), "norm": norm, "stem": stem}
    model = random_model(maker(**options))
    if norm == "batch":  # Moving moments as after training: positive variances.
        for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
            if path[-1] == "var":
                leaf[...] = jnp.abs(leaf[...]) + 0.5
    x = volumes(shape=shape)
    pooled, out = apply(model, x)
    other = TorchResNet3D(options["stage_sizes"], 4, options["bottleneck"], norm, stem).fill(model)
    with torch.no_grad():
        expected = other(torch.tensor(np.array(x)).permute(0, 4, 1, 2, 3))
    assert out["grid"] == tuple(expected.shape[2:]) and all(type(side) is int for side in out["grid"])
    assert model.width == expected.shape[1] == pooled.shape[1]
    scale = float(expected.abs().max())
    patches = expected.flatten(2).transpose(1, 2).numpy()
    np.testing.assert_allclose(np.asarray(out["patches"]) / scale, patches / scale, atol=1e-5)
    np.testing.assert_allclose(np.asarray(pooled) / scale, patches.mean(1) / scale, atol=1e-5)


def test_size_of_the_published_network():
    """torchvision's r3d_18 (33,371,472 parameters), without its classifier of 400 classes."""
    model = nnx.eval_shape(maker(**resnet3d.sizes("resnet18"), channels=3, stem="kinetics"))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) == 33_371_472 - 513 * 400


@pytest.mark.parametrize("kernel, stride, channels", [
    ((7, 7, 7), (2, 2, 2), 3), ((7, 7, 7), (2, 2, 2), 1), ((3, 7, 7), (1, 2, 2), 1), ((5, 3, 7), (3, 2, 4), 1),
    ((3, 3, 3), (1, 1, 1), 3), ((3, 3, 3), (2, 2, 2), 3), ((1, 1, 1), (2, 2, 2), 1)], ids=str)
def test_convolutions_are_those_of_torch(kernel, stride, channels):
    x = RNG.normal(size=(2, 7, 8, 9, channels)).astype(np.float32)
    for how in resnet3d.CONVS:
        conv = random_model(
            lambda how=how: resnet3d.Conv3(channels, 4, kernel, stride=stride, how=how, rngs=nnx.Rngs(0)))
        expected = torch.nn.functional.conv3d(
            torch.tensor(x).permute(0, 4, 1, 2, 3), tensor(conv.kernel).permute(4, 3, 0, 1, 2), stride=stride,
            padding=tuple(size // 2 for size in kernel)).permute(0, 2, 3, 4, 1)
        graphdef, state = nnx.split(conv)
        out = jax.jit(lambda state, graphdef=graphdef: nnx.merge(graphdef, state)(x))(state)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stem", list(resnet3d.STEMS))
def test_grids(stem):
    model, pooled, out = traced(maker(stem=stem), (2, 8, 16, 8, 1))
    assert out["grid"] == tuple(side // step for side, step in zip((8, 16, 8), model.stride))
    assert pooled.shape == (2, model.width) and out["patches"].shape == (2, np.prod(out["grid"]), model.width)


def test_patches_to_channels_keeps_a_patch_together():
    x = np.arange(4 * 4 * 6).reshape(1, 4, 4, 6, 1)
    out = np.asarray(resnet3d.patches_to_channels(jnp.asarray(x), (2, 2, 2)))
    assert out.shape == (1, 2, 2, 3, 8)
    for d, h, w in np.ndindex(2, 2, 3):
        block = x[0, 2 * d:2 * d + 2, 2 * h:2 * h + 2, 2 * w:2 * w + 2, 0]
        np.testing.assert_array_equal(out[0, d, h, w], block.ravel())
    with pytest.raises(ValueError, match="does not divide"):
        resnet3d.patches_to_channels(jnp.asarray(x[:, :3]), (2, 2, 2))


@pytest.mark.parametrize("stem", ["patch2", *(pytest.param(stem, marks=pytest.mark.slow)
                                              for stem in ("small", "plane2", "kinetics"))])
def test_cell_centres_are_where_heatmaps_put_them(stem):
    """What a patch reacts to lies, over random inputs, in the middle of its cell plus the tower's `offset`."""
    # Batch norm with its moving moments leaves positions apart; instance norm lets every voxel react a little.
    def make(key):
        return maker(stem=stem, norm="batch", width=8, zero_init=False, rngs=nnx.Rngs(key))

    model, shape = nnx.eval_shape(lambda: make(0)()), (32, 32, 40)
    graphdef, _ = nnx.split(model)
    fresh = jax.jit(lambda key: nnx.split(make(key)())[1])
    grid = tuple(side // step for side, step in zip(shape, model.stride))
    cell = tuple(side // 2 for side in grid)

    @jax.jit
    def gradient(state, x):
        def reaction(x):
            patches = nnx.merge(graphdef, state)(x)[1]["patches"]
            return (patches[0, np.ravel_multi_index(cell, grid)] ** 2).sum()

        return jax.grad(reaction)(x)

    weight = np.zeros(shape)
    for seed in range(12):  # The mean over towers: a random one's kernels are crooked.
        x = jax.random.normal(jax.random.key(seed), (1, *shape, 1))
        weight += np.abs(np.asarray(gradient(fresh(jax.random.key(seed)), x)))[0, ..., 0]
    for axis in range(3):
        along = weight.sum(tuple(a for a in range(3) if a != axis))
        centre = (np.arange(shape[axis]) * along).sum() / along.sum()
        middle = cell[axis] * model.stride[axis] + (model.stride[axis] - 1) / 2
        assert centre == pytest.approx(middle + model.offset[axis], abs=0.4)


def test_gradient_checkpointing_changes_nothing_and_bfloat16_little():
    x = volumes()

    def loss_and_gradient(**options):
        graphdef, state = nnx.split(random_model(maker(**options)))
        return jax.jit(jax.value_and_grad(
            lambda state: jnp.mean(jnp.square(nnx.merge(graphdef, state)(x)[0] - 1.0))))(state)

    value, gradient = loss_and_gradient(stage_sizes=(1,))
    again, other = loss_and_gradient(stage_sizes=(1,), remat=True)
    assert float(value) == pytest.approx(float(again), rel=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    full, half = (apply(random_model(maker(dtype=dtype)), x) for dtype in (jnp.float32, jnp.bfloat16))
    assert half[1]["patches"].dtype == jnp.bfloat16 and half[0].dtype == jnp.float32
    assert 0 < float(jnp.linalg.norm(full[0] - half[0]) / jnp.linalg.norm(full[0])) < 0.05


def test_refusals():
    for options, message in (({"norm": "layer"}, "unknown norm"), ({"stem": "patch3"}, "unknown stem"),
                             ({"pool": "cls"}, "unknown pool"), ({"conv": "im2col"}, "conv must be"),
                             ({"norm": "batch", "remat": True}, "exclude each other")):
        with pytest.raises(ValueError, match=message):
            nnx.eval_shape(maker(**options))
    with pytest.raises(ValueError, match=r"volumes must be \[B, D, H, W, 1\]"):
        random_model(maker())(jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(ValueError, match="unknown 3D ResNet variant"):
        resnet3d.sizes("resnet9")
    with pytest.raises(ValueError, match="unknown 3D ResNet sizes"):
        resnet3d.sizes("resnet18", depth=3)

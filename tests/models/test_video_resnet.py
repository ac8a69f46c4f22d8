"""The importer of torchvision's r3d_18 against torch, with its own stem and with those that replace it."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lgdea_jax.models import pretrained, resnet3d
from tests.models import published
from tests.models.build import apply
from tests.models.checkpoints import filled, saved, tower_of

WIDTH, STAGES = 4, (2, 2, 2, 2)


class Block(nn.Module):
    """torchvision's BasicBlock of videos: convolution, norm and ReLU in one Sequential."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv3d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm3d(cout), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv3d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm3d(cout))
        self.downsample = None
        if stride > 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv3d(cin, cout, 1, stride, bias=False), nn.BatchNorm3d(cout))

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class VideoResNet(nn.Module):
    """torchvision's `r3d_18` at another width, by the names of its state_dict."""

    def __init__(self, width=WIDTH, stem=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
                                  nn.BatchNorm3d(width), nn.ReLU())
        if stem is not None:
            self.stem[0] = nn.Conv3d(1, width, stem, stem, bias=False)
        cin = width
        for stage, count in enumerate(STAGES):
            blocks = []
            for index in range(count):
                blocks.append(Block(cin, width * 2**stage, 2 if stage and not index else 1))
                cin = width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(cin, 5)

    def forward(self, x):
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))


def tower(stem, channels=1, **options):
    sizes = {"stage_sizes": STAGES, "bottleneck": False, "width": WIDTH, "norm": "batch"}
    return tower_of(resnet3d.ResNet3D, sizes, stem=stem, channels=channels, **options)


def close(model, reference, volumes):
    """The patches and their mean are those of torch, to 1e-5 of the largest."""
    with torch.no_grad():
        expected = reference(torch.tensor(volumes).permute(0, 4, 1, 2, 3)).flatten(2).transpose(1, 2).numpy()
    pooled, out = apply(model, jnp.asarray(volumes[..., :model.channels]))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(out["patches"]) / scale, expected / scale, atol=1e-5)
    np.testing.assert_allclose(np.asarray(pooled) / scale, expected.mean(1) / scale, atol=1e-5)


def volumes(*shape, channels=1):
    return np.random.default_rng(0).normal(size=(2, *shape, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_kinetics_weights(channels, tmp_path):
    reference = published.randomise(VideoResNet())
    report = pretrained.load_tower(tower("kinetics", channels), saved(reference, tmp_path))
    assert report.names == "torchvision" and report.unused == ("fc.bias", "fc.weight")
    assert report.notes == (("grey stem: the sum over the three channels",) if channels == 1 else ())
    seen = np.repeat(volumes(7, 36, 34), 3, axis=-1) if channels == 1 else volumes(7, 36, 34, channels=3)
    close(filled(tower("kinetics", channels), report.params), reference, seen)


@pytest.mark.parametrize("side, shape", [(2, (20, 34, 36)), (4, (36, 68, 40))])
def test_the_stem_is_replaced_and_all_else_kept(side, shape, tmp_path):
    reference, stem = published.randomise(VideoResNet()), f"embed{side}"
    report = pretrained.load_tower(tower(stem), saved(reference, tmp_path))
    assert set(pretrained.parameters(tower(stem))) - set(report.params) == {"stem_conv/kernel"}
    assert report.notes == (f"stem_conv/kernel is fresh: stem.0.weight is [{WIDTH}, 3, 3, 7, 7], of another stem",)
    new = torch.nn.Conv3d(1, WIDTH, side, side, bias=False)
    reference.stem[0] = new  # As the public code does; the norm behind it keeps the weights of Kinetics.
    kernel = new.weight.detach().numpy().transpose(2, 3, 4, 1, 0).reshape(1, 1, 1, side**3, WIDTH)
    close(filled(tower(stem), report.params | {"stem_conv/kernel": kernel}), reference, volumes(*shape))


def test_a_replaced_stem_is_read_and_written(tmp_path):
    reference = published.randomise(VideoResNet(stem=2))
    report = pretrained.load_tower(tower("embed2"), saved(reference, tmp_path / "in"))
    assert not report.notes
    close(filled(tower("embed2"), report.params), reference, volumes(16, 32, 32))
    pretrained.save_tower(tower("embed2"), report.params, tmp_path / "out", names="torchvision")
    written, theirs = load_file(tmp_path / "out/model.safetensors"), reference.state_dict()
    assert set(written) == {name for name in theirs if not name.startswith("fc.")}
    for name, value in written.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, theirs[name])


def test_towers_that_it_does_not_fit(tmp_path):
    source = saved(published.randomise(VideoResNet()), tmp_path)
    for options, message in (({"stem": "imagenet"}, "has stem=imagenet and norm=batch"),
                             ({"stem": "embed2", "norm": "instance"}, "and norm=instance"),
                             ({"stem": "embed2", "width": 8}, "the tower needs")):
        with pytest.raises(pretrained.WeightsError, match=message):
            pretrained.load_tower(tower(**options), source)
    replaced = saved(VideoResNet(stem=4), tmp_path / "other")
    with pytest.raises(pretrained.WeightsError, match=r"stem.0.weight is \[4, 1, 4, 4, 4\], the tower needs \[4, 1, 2"):
        pretrained.load_tower(tower("embed2"), replaced)

"""The names of ResNets in Hugging Face and in torchvision (timm uses torchvision's) checkpoints, 2D and 3D."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lgdea_jax.models import resnet, resnet3d
from lgdea_jax.models.pretrained import layout
from lgdea_jax.models.pretrained.layout import Entry, Table, Tensors


def refuses(tower: resnet.ResNet) -> str:
    """Why a tower is none of the published ResNets; "" where it is one."""
    if not isinstance(tower, resnet.ResNet):
        return "it is no ResNet"
    if tower.stem != "imagenet" or tower.norm != "batch":
        return (f"published ResNets have stem=imagenet and norm=batch, the tower has stem={tower.stem} and "
                f"norm={tower.norm}")
    return ""


def blocks(tower: resnet.ResNet | resnet3d.ResNet3D) -> Iterator[tuple[str, int, int, Any]]:
    """(our path, stage, index in the stage, block) of every block."""
    index = 0
    for stage, count in enumerate(tower.stage_sizes):
        for inside in range(count):
            yield f"blocks/{index}", stage, inside, tower.blocks[index]
            index += 1


def pyramid(tower: resnet.ResNet) -> tuple[str, ...]:
    """The parameters of a feature pyramid, which published ResNets do not have."""
    return tuple(path for path in layout.parameter_shapes(tower) if path.startswith("lateral"))


def with_counters(tensors: Tensors) -> Tensors:
    """`tensors` with torch's counter beside every batch norm; it is only read where the momentum is None."""
    return tensors | {name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
                      for name in tensors if name.endswith("running_mean")}


class HuggingFaceResNet(layout.Layout):
    """`transformers.ResNetModel`."""

    names = "hf"
    anchor = "embedder.embedder.convolution.weight"
    unused = r"classifier\.|.*\.num_batches_tracked$"
    checked = ("hidden_act", "layer_type", "depths", "hidden_sizes", "downsample_in_first_stage",
               "downsample_in_bottleneck")
    tower = "resnet"

    def options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """As in `Layout`."""
        if config.get("model_type") != "resnet":
            return {}
        shape = tuple(config["depths"]), config["layer_type"] == "bottleneck"
        variant = next((name for name, sizes in resnet.VARIANTS.items()
                        if (sizes["stage_sizes"], sizes["bottleneck"]) == shape), "")
        return {"variant": variant, "sizes": {"width": config["embedding_size"]}} if variant else {}

    def refuses(self, tower: resnet.ResNet) -> str:
        """As in `Layout`."""
        return refuses(tower)

    def table(self, tower: resnet.ResNet) -> Table:
        """As in `Layout`."""
        def unit(kernel: str, norm: str, name: str, kind: str = "conv") -> Table:
            return {f"{kernel}/kernel": Entry(f"{name}.convolution.weight", kind),
                    **layout.batch_norm(norm, f"{name}.normalization")}

        table = unit("stem_conv", "stem_norm", "embedder.embedder", "stem")
        for path, stage, inside, block in blocks(tower):
            name = f"encoder.stages.{stage}.layers.{inside}"
            for index in range(len(block.convs)):
                table |= unit(f"{path}/convs/{index}", f"{path}/norms/{index}", f"{name}.layer.{index}")
            if block.shortcut is not None:
                table |= unit(f"{path}/shortcut", f"{path}/shortcut_norm", f"{name}.shortcut")
        return table

    def fresh(self, tower: resnet.ResNet, tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """As in `Layout`."""
        return pyramid(tower)

    def pack(self, tensors: Tensors, tower: resnet.ResNet) -> Tensors:
        """As in `Layout`."""
        return with_counters(tensors)

    def config(self, tower: resnet.ResNet) -> dict[str, Any]:
        """As in `Layout`."""
        stem = layout.parameter_shapes(tower)["stem_norm/scale"][0]
        factor = 4 if tower.bottleneck else 1
        return {"architectures": ["ResNetModel"], "model_type": "resnet", "num_channels": tower.channels,
                "embedding_size": stem, "depths": list(tower.stage_sizes), "hidden_act": "relu",
                "hidden_sizes": [stem * 2**stage * factor for stage in range(len(tower.stage_sizes))],
                "layer_type": "bottleneck" if tower.bottleneck else "basic", "downsample_in_first_stage": False,
                "downsample_in_bottleneck": False}


class TorchvisionResNet(layout.Layout):
    """torchvision's `resnet18` to `resnet50` (also below a prefix, as in many chest X-ray models)."""

    names = "torchvision"
    anchor = "layer1.0.conv1.weight"
    unused = r"(fc|classifier|projector)\.|.*\.num_batches_tracked$"

    def refuses(self, tower: resnet.ResNet) -> str:
        """As in `Layout`."""
        return refuses(tower)

    def table(self, tower: resnet.ResNet) -> Table:
        """As in `Layout`."""
        table = {"stem_conv/kernel": Entry("conv1.weight", "stem"), **layout.batch_norm("stem_norm", "bn1")}
        for path, stage, inside, block in blocks(tower):
            name = f"layer{stage + 1}.{inside}"
            for index in range(len(block.convs)):
                table[f"{path}/convs/{index}/kernel"] = Entry(f"{name}.conv{index + 1}.weight", "conv")
                table |= layout.batch_norm(f"{path}/norms/{index}", f"{name}.bn{index + 1}")
            if block.shortcut is not None:
                table[f"{path}/shortcut/kernel"] = Entry(f"{name}.downsample.0.weight", "conv")
                table |= layout.batch_norm(f"{path}/shortcut_norm", f"{name}.downsample.1")
        return table

    def fresh(self, tower: resnet.ResNet, tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """As in `Layout`."""
        return pyramid(tower)

    def pack(self, tensors: Tensors, tower: resnet.ResNet) -> Tensors:
        """As in `Layout`."""
        return with_counters(tensors)

    def config(self, tower: resnet.ResNet) -> dict[str, Any]:
        """A description: torchvision itself reads none."""
        return {"architecture": "resnet", "num_channels": tower.channels, "depths": list(tower.stage_sizes),
                "bottleneck": tower.bottleneck}


class TorchvisionResNet3D(layout.Layout):
    """torchvision's video ResNets: `r3d_18` with the weights of Kinetics-400 (Tran et al., 2018, arXiv 1711.11248).

    A tower with the stem "embed2" or "embed4" has a first convolution of its own, as in GreenRFM (arXiv 2603.06467): it
    stays fresh, and all else, the norm behind it included, comes from the file.
    """

    names = "torchvision"
    anchor = "layer1.0.conv1.0.weight"
    unused = r"fc\.|.*\.num_batches_tracked$"

    def refuses(self, tower: resnet3d.ResNet3D) -> str:
        """As in `Layout`."""
        if not isinstance(tower, resnet3d.ResNet3D):
            return "it is no 3D ResNet"
        if tower.stem not in ("kinetics", "embed2", "embed4") or tower.norm != "batch":
            return (f"r3d_18 has stem=kinetics (embed2 or embed4 replace it) and norm=batch, the tower has "
                    f"stem={tower.stem} and norm={tower.norm}")
        return ""

    def table(self, tower: resnet3d.ResNet3D) -> Table:
        """As in `Layout`."""
        kind = "stem3" if tower.stem == "kinetics" else "patch3"
        table = {"stem_conv/kernel": Entry("stem.0.weight", kind), **layout.batch_norm("stem_norm", "stem.1")}
        for path, stage, inside, block in blocks(tower):
            name = f"layer{stage + 1}.{inside}"
            for index in range(len(block.convs)):
                table[f"{path}/convs/{index}/kernel"] = Entry(f"{name}.conv{index + 1}.0.weight", "conv3")
                table |= layout.batch_norm(f"{path}/norms/{index}", f"{name}.conv{index + 1}.1")
            if block.shortcut is not None:
                table[f"{path}/shortcut/kernel"] = Entry(f"{name}.downsample.0.weight", "conv3")
                table |= layout.batch_norm(f"{path}/shortcut_norm", f"{name}.downsample.1")
        return table

    def fresh(self, tower: resnet3d.ResNet3D, tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """The stem, where the tower has one of its own and the file that of Kinetics."""
        replaced = tower.stem != "kinetics" and tuple(tensors.get("stem.0.weight", np.zeros(0)).shape[2:]) == (3, 7, 7)
        return ("stem_conv/kernel",) if replaced else ()

    def pack(self, tensors: Tensors, tower: resnet3d.ResNet3D) -> Tensors:
        """As in `Layout`."""
        return with_counters(tensors)

    def config(self, tower: resnet3d.ResNet3D) -> dict[str, Any]:
        """A description: torchvision itself reads none."""
        return {"architecture": "r3d", "num_channels": tower.channels, "depths": list(tower.stage_sizes),
                "bottleneck": tower.bottleneck, "stem": tower.stem}

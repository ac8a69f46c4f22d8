"""The names of ViTs in Hugging Face (ViT, DeiT, DINOv2) and timm / DINOv2's own checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgdea_jax.models import vit
from lgdea_jax.models.pretrained import layout
from lgdea_jax.models.pretrained.files import WeightsError
from lgdea_jax.models.pretrained.layout import Entry, Table, Tensors
from lgdea_jax.models.pretrained.vit_tokens import QKV, Tokens, options, pack_tokens, refuses, sizes, unpack_tokens

HF_CLASSES = {"vit": "ViTModel", "deit": "DeiTModel", "dinov2": "Dinov2Model",
              "dinov2_registers": "Dinov2WithRegistersModel"}
HF_MODEL_TYPES = {"vit": ("vit", "vit_mae", "vit_msn"), "deit": ("deit",), "dinov2": ("dinov2", "rad-dino"),
                  "dinov2_registers": ("dinov2_with_registers",)}


def dinov2_mlp_dim(width: int, ratio: int, *, swiglu: bool) -> int:
    """Hidden width of DINOv2's mlp; a swiglu has two thirds of the ratio, rounded up to a multiple of 8."""
    whole = int(width * ratio)
    return (whole * 2 // 3 + 7) // 8 * 8 if swiglu else whole


class HuggingFaceVit(layout.Layout):
    """`ViTModel`, `DeiTModel`, `Dinov2Model` and `Dinov2WithRegistersModel`, alone or inside a classifier."""

    names = "hf"
    anchor = "embeddings.patch_embeddings.projection.weight"
    unused = r"(classifier|cls_classifier|distillation_classifier|pooler|decoder)\.|embeddings\.mask_token$"
    tower = "vit"
    checked = ("num_attention_heads", "hidden_act", "layer_norm_eps", "patch_size", "use_swiglu_ffn", "qkv_bias")

    def refuses(self, tower: vit.ViT) -> str:
        """As in `Layout`."""
        pools = ("gap", "cls", "pooler") if getattr(tower, "family", "") in ("vit", "deit") else ("gap", "cls")
        return refuses(tower, tuple(HF_CLASSES), pools) or ("projection must be 0" if tower.projection_width else "")

    @staticmethod
    def _mlp_ratio(tower: vit.ViT) -> int:
        """DINOv2's `mlp_ratio`, 0 if there is none."""
        return next((ratio for ratio in range(1, 17)
                     if dinov2_mlp_dim(tower.features, ratio, swiglu=tower.mlp == "swiglu") == tower.mlp_dim), 0)

    def options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """As in `Layout`; DINOv2 is trained with its class token, the others give the mean of the patches."""
        kind = config.get("model_type")
        family = next((family for family, kinds in HF_MODEL_TYPES.items() if kind in kinds), "")
        if not family:
            return {}
        dino, swiglu = family.startswith("dinov2"), bool(config.get("use_swiglu_ffn"))
        mlp_dim = dinov2_mlp_dim(config["hidden_size"], config.get("mlp_ratio", 4), swiglu=swiglu
                                 ) if dino else config["intermediate_size"]
        return {"family": family, "pool": "cls" if dino else "gap", "mlp": "swiglu" if swiglu else "",
                **options(config, mlp_dim)}

    def check(self, tower: vit.ViT, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> str:
        """As in `Layout`; the family is that of `model_type`, or of the tensors where there is no config."""
        kind = config.get("model_type") or self._kind(tensors)
        if kind not in HF_MODEL_TYPES[tower.family]:
            family = next((family for family, kinds in HF_MODEL_TYPES.items() if kind in kinds), None)
            known = f"must be of family={family}, not {tower.family}" if family else "cannot be one"
            return f"it is a {kind}: the tower {known}"
        return super().check(tower, tensors, config)

    @staticmethod
    def _kind(tensors: Mapping[str, np.ndarray]) -> str:
        if "encoder.layer.0.layer_scale1.lambda1" in tensors:
            return "dinov2_with_registers" if "embeddings.register_tokens" in tensors else "dinov2"
        return "deit" if "embeddings.distillation_token" in tensors else "vit"

    @staticmethod
    def _tokens(tower: vit.ViT) -> Tokens:
        deit, registers = tower.family == "deit", tower.family == "dinov2_registers"
        extra = "embeddings.distillation_token" if deit else "embeddings.register_tokens" if registers else ""
        return Tokens("embeddings.cls_token", "embeddings.position_embeddings", extra, extra_rows=deit,
                      antialias=registers)

    def table(self, tower: vit.ViT) -> Table:
        """As in `Layout`."""
        tokens = self._tokens(tower)
        table = {"cls": Entry(tokens.cls), "position": Entry(tokens.position),
                 "stem/out/kernel": Entry(self.anchor, "patch"),
                 "stem/out/bias": Entry(self.anchor.replace("weight", "bias")),
                 **layout.norm("norm", "layernorm")}
        if tokens.extra:
            table["registers"] = Entry(tokens.extra)
        dino = tower.family.startswith("dinov2")
        for index in range(len(tower.blocks)):
            ours, theirs = f"blocks/{index}", f"encoder.layer.{index}"
            for name in QKV:
                table |= layout.dense(f"{ours}/attention/{name}", f"{theirs}.attention.attention.{name}")
            table |= layout.dense(f"{ours}/attention/out", f"{theirs}.attention.output.dense")
            table |= layout.norm(f"{ours}/attention_norm", f"{theirs}.{'norm1' if dino else 'layernorm_before'}")
            table |= layout.norm(f"{ours}/mlp_norm", f"{theirs}.{'norm2' if dino else 'layernorm_after'}")
            if tower.mlp == "swiglu":
                for part in ("gate", "up"):
                    table[f"{ours}/mlp/{part}/kernel"] = Entry(f"{theirs}.mlp.weights_in.weight/{part}", "dense")
                    table[f"{ours}/mlp/{part}/bias"] = Entry(f"{theirs}.mlp.weights_in.bias/{part}")
                table |= layout.dense(f"{ours}/mlp/down", f"{theirs}.mlp.weights_out")
            else:
                table |= layout.dense(f"{ours}/mlp/up", f"{theirs}.{'mlp.fc1' if dino else 'intermediate.dense'}")
                table |= layout.dense(f"{ours}/mlp/down", f"{theirs}.{'mlp.fc2' if dino else 'output.dense'}")
            if dino:
                table[f"{ours}/attention_scale"] = Entry(f"{theirs}.layer_scale1.lambda1")
                table[f"{ours}/mlp_scale"] = Entry(f"{theirs}.layer_scale2.lambda1")
        if tower.pool == "pooler":
            table |= layout.dense("pooler", "pooler.dense")
        return table

    def _gates(self, tower: vit.ViT) -> list[str]:
        return [f"encoder.layer.{index}.mlp.weights_in.{part}" for index in range(len(tower.blocks))
                for part in ("weight", "bias") if tower.mlp == "swiglu"]

    def unpack(self, tensors: Tensors, tower: vit.ViT) -> list[str]:
        """As in `Layout`."""
        for name in self._gates(tower):
            layout.split_rows(tensors, name, ("gate", "up"))
        return unpack_tokens(tensors, tower, self._tokens(tower))

    def pack(self, tensors: Tensors, tower: vit.ViT) -> Tensors:
        """As in `Layout`; DINOv2's mask token, which no tower has, is zeros."""
        pack_tokens(tensors, tower, self._tokens(tower))
        for name in self._gates(tower):
            layout.join_rows(tensors, name, ("gate", "up"))
        if tower.family.startswith("dinov2"):
            if not self._mlp_ratio(tower):
                raise WeightsError(f"DINOv2's mlp has a whole multiple of the width, the tower mlp_dim={tower.mlp_dim}")
            tensors["embeddings.mask_token"] = np.zeros((1, tower.features), np.float32)
        return tensors

    def config(self, tower: vit.ViT) -> dict[str, Any]:
        """As in `Layout`."""
        config = {**sizes(tower), "architectures": [HF_CLASSES[tower.family]],
                  "model_type": HF_MODEL_TYPES[tower.family][0], "qkv_bias": True}
        if not tower.family.startswith("dinov2"):
            return {**config, "intermediate_size": tower.mlp_dim}
        config |= {"mlp_ratio": self._mlp_ratio(tower), "use_swiglu_ffn": tower.mlp == "swiglu"}
        if tower.family == "dinov2_registers":
            config["num_register_tokens"] = tower.prefix - 1
        return config


class TimmVit(layout.Layout):
    """timm's `vision_transformer` and DINOv2's own code (also inside OpenCLIP: BiomedCLIP's `visual.trunk.`)."""

    names = "timm"
    anchor = "patch_embed.proj.weight"
    unused = r"(head|head_dist|fc_norm|text|visual)\.|mask_token$|logit_scale$|logit_bias$"

    def refuses(self, tower: vit.ViT) -> str:
        """As in `Layout`."""
        return refuses(tower, tuple(HF_CLASSES)) or ("projection must be 0" if tower.projection_width else "")

    @staticmethod
    def _tokens(tower: vit.ViT) -> Tokens:
        deit, registers = tower.family == "deit", tower.family == "dinov2_registers"
        return Tokens("cls_token", "pos_embed", "dist_token" if deit else "register_tokens" if registers else "",
                      extra_rows=deit, antialias=True)

    def rename(self, name: str) -> str:
        """Sharded DINOv2 checkpoints count blocks inside chunks of one."""
        return re.sub(r"^blocks\.0\.(\d+)\.", r"blocks.\1.", name)

    def table(self, tower: vit.ViT) -> Table:
        """As in `Layout`."""
        tokens = self._tokens(tower)
        table = {"cls": Entry(tokens.cls), "position": Entry(tokens.position),
                 "stem/out/kernel": Entry(self.anchor, "patch"), "stem/out/bias": Entry("patch_embed.proj.bias"),
                 **layout.norm("norm", "norm")}
        if tokens.extra:
            table["registers"] = Entry(tokens.extra)
        for index in range(len(tower.blocks)):
            ours, theirs = f"blocks/{index}", f"blocks.{index}"
            for part in QKV:
                table[f"{ours}/attention/{part}/kernel"] = Entry(f"{theirs}.attn.qkv.weight/{part}", "dense")
                table[f"{ours}/attention/{part}/bias"] = Entry(f"{theirs}.attn.qkv.bias/{part}")
            table |= layout.dense(f"{ours}/attention/out", f"{theirs}.attn.proj")
            table |= layout.norm(f"{ours}/attention_norm", f"{theirs}.norm1")
            table |= layout.norm(f"{ours}/mlp_norm", f"{theirs}.norm2")
            if tower.mlp == "swiglu":
                for part in ("gate", "up"):
                    table[f"{ours}/mlp/{part}/kernel"] = Entry(f"{theirs}.mlp.w12.weight/{part}", "dense")
                    table[f"{ours}/mlp/{part}/bias"] = Entry(f"{theirs}.mlp.w12.bias/{part}")
                table |= layout.dense(f"{ours}/mlp/down", f"{theirs}.mlp.w3")
            else:
                table |= layout.dense(f"{ours}/mlp/up", f"{theirs}.mlp.fc1")
                table |= layout.dense(f"{ours}/mlp/down", f"{theirs}.mlp.fc2")
            if tower.family.startswith("dinov2"):
                table[f"{ours}/attention_scale"] = Entry(f"{theirs}.ls1.gamma")
                table[f"{ours}/mlp_scale"] = Entry(f"{theirs}.ls2.gamma")
        return table

    @staticmethod
    def _fused(tower: vit.ViT) -> list[tuple[str, tuple[str, ...]]]:
        fused = [(f"blocks.{index}.attn.qkv.{part}", QKV) for index in range(len(tower.blocks))
                 for part in ("weight", "bias")]
        if tower.mlp == "swiglu":
            fused += [(f"blocks.{index}.mlp.w12.{part}", ("gate", "up")) for index in range(len(tower.blocks))
                      for part in ("weight", "bias")]
        return fused

    def unpack(self, tensors: Tensors, tower: vit.ViT) -> list[str]:
        """As in `Layout`."""
        for name, parts in self._fused(tower):
            layout.split_rows(tensors, name, parts)
        return unpack_tokens(tensors, tower, self._tokens(tower))

    def pack(self, tensors: Tensors, tower: vit.ViT) -> Tensors:
        """As in `Layout`."""
        pack_tokens(tensors, tower, self._tokens(tower))
        for name, parts in self._fused(tower):
            layout.join_rows(tensors, name, parts)
        return tensors

    def config(self, tower: vit.ViT) -> dict[str, Any]:
        """A description: timm reads its own."""
        return {**sizes(tower), "architecture": f"timm {tower.family}", "mlp_dim": tower.mlp_dim}

"""The names of the image halves of CLIP models in OpenCLIP and Hugging Face checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lgdea_jax.models import vit
from lgdea_jax.models.pretrained import layout
from lgdea_jax.models.pretrained.layout import Entry, Table, Tensors
from lgdea_jax.models.pretrained.vit_tokens import QKV, Tokens, options, pack_tokens, refuses, sizes, unpack_tokens

CLIP_FAMILIES = ("openclip", "openclip_quickgelu")


class OpenClipVit(layout.Layout):
    """The ViT inside OpenCLIP's and OpenAI's CLIP models (prefix `visual.`)."""

    names = "openclip"
    anchor = "conv1.weight"
    unused = (r"(transformer\.(?!resblocks\.\d+\.ls_)|text\.|token_embedding\.|ln_final\.|text_projection$|logit_scale$"
              r"|logit_bias$|attn_mask$|positional_embedding$|proj$|input_resolution$|context_length$|vocab_size$)")
    _tokens = Tokens("class_embedding", "positional_embedding", flat=True, antialias=True)

    def refuses(self, tower: vit.ViT) -> str:
        """As in `Layout`."""
        return refuses(tower, CLIP_FAMILIES)

    def check(self, tower: vit.ViT, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> str:
        """As in `Layout`, from open_clip_config.json."""
        model = config.get("model_cfg", {})
        head = model.get("vision_cfg", {}).get("head_width", 64)
        if model and tower.features != tower.heads * head:
            return f"its config has heads of width {head}, the tower {tower.features // tower.heads}"
        if model and bool(model.get("quick_gelu", False)) != (tower.mlp == "quick_gelu"):
            return f"its config has quick_gelu = {model.get('quick_gelu', False)}, the tower mlp={tower.mlp}"
        return super().check(tower, tensors, config)

    def table(self, tower: vit.ViT) -> Table:
        """As in `Layout`."""
        table = {"cls": Entry("class_embedding"), "position": Entry("positional_embedding"),
                 "stem/out/kernel": Entry(self.anchor, "patch"),
                 **layout.norm("input_norm", "ln_pre"), **layout.norm("norm", "ln_post")}
        for index in range(len(tower.blocks)):
            ours, theirs = f"blocks/{index}", f"transformer.resblocks.{index}"
            for part in QKV:
                table[f"{ours}/attention/{part}/kernel"] = Entry(f"{theirs}.attn.in_proj_weight/{part}", "dense")
                table[f"{ours}/attention/{part}/bias"] = Entry(f"{theirs}.attn.in_proj_bias/{part}")
            table |= layout.dense(f"{ours}/attention/out", f"{theirs}.attn.out_proj")
            table |= layout.norm(f"{ours}/attention_norm", f"{theirs}.ln_1")
            table |= layout.norm(f"{ours}/mlp_norm", f"{theirs}.ln_2")
            table |= layout.dense(f"{ours}/mlp/up", f"{theirs}.mlp.c_fc")
            table |= layout.dense(f"{ours}/mlp/down", f"{theirs}.mlp.c_proj")
        if tower.projection is not None:
            table["projection/kernel"] = Entry("proj")
        return table

    @staticmethod
    def _fused(tower: vit.ViT) -> list[str]:
        return [f"transformer.resblocks.{index}.attn.in_proj_{part}" for index in range(len(tower.blocks))
                for part in ("weight", "bias")]

    def unpack(self, tensors: Tensors, tower: vit.ViT) -> list[str]:
        """As in `Layout`."""
        for name in self._fused(tower):
            layout.split_rows(tensors, name, QKV)
        return unpack_tokens(tensors, tower, self._tokens)

    def pack(self, tensors: Tensors, tower: vit.ViT) -> Tensors:
        """As in `Layout`."""
        pack_tokens(tensors, tower, self._tokens)
        for name in self._fused(tower):
            layout.join_rows(tensors, name, QKV)
        return {f"visual.{name}": value for name, value in tensors.items()}

    def config(self, tower: vit.ViT) -> dict[str, Any]:
        """OpenCLIP's model_cfg, as far as it is about this tower."""
        height, width = tower.image_size
        vision = {"layers": len(tower.blocks), "width": tower.features, "patch_size": tower.patch_size,
                  "head_width": tower.features // tower.heads, "mlp_ratio": tower.mlp_dim / tower.features,
                  "image_size": height if height == width else [height, width]}
        return {"model_cfg": {"embed_dim": tower.projection_width, "vision_cfg": vision,
                              "quick_gelu": tower.mlp == "quick_gelu"}}


class HuggingFaceClip(layout.Layout):
    """`CLIPVisionModel` and `CLIPVisionModelWithProjection`, or the image half of `CLIPModel`."""

    names = "hf"
    anchor = "embeddings.patch_embedding.weight"
    unused = (r"(text_model|text_projection|visual_projection)\.|logit_scale$|embeddings\.position_ids$")
    tower = "vit"
    checked = ("num_attention_heads", "hidden_act", "layer_norm_eps", "patch_size")
    _tokens = Tokens("embeddings.class_embedding", "embeddings.position_embedding.weight", flat=True)

    def refuses(self, tower: vit.ViT) -> str:
        """As in `Layout`."""
        return refuses(tower, CLIP_FAMILIES)

    def options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """As in `Layout`; with CLIP's last layer where the class of the file has it."""
        if config.get("model_type") not in ("clip", "clip_vision_model"):
            return {}
        part = config.get("vision_config", config)
        projects = "vision_config" in config or "CLIPVisionModelWithProjection" in config.get("architectures", ())
        # What transformers takes where the file leaves a key out.
        part = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                "patch_size": 32, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", **part}
        width = config.get("projection_dim", part.get("projection_dim", 512))
        return {"family": "openclip_quickgelu" if part["hidden_act"] == "quick_gelu" else "openclip", "pool": "cls",
                "projection": width if projects else 0, **options(part, part["intermediate_size"])}

    def check(self, tower: vit.ViT, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> str:
        """As in `Layout`; a whole CLIP's config has the image half's inside."""
        return super().check(tower, tensors, config.get("vision_config", config))

    def table(self, tower: vit.ViT) -> Table:
        """As in `Layout`."""
        table = {"cls": Entry(self._tokens.cls), "position": Entry(self._tokens.position),
                 "stem/out/kernel": Entry(self.anchor, "patch"),
                 **layout.norm("input_norm", "pre_layrnorm"), **layout.norm("norm", "post_layernorm")}
        for index in range(len(tower.blocks)):
            ours, theirs = f"blocks/{index}", f"encoder.layers.{index}"
            for name in QKV:
                table |= layout.dense(f"{ours}/attention/{name}", f"{theirs}.self_attn.{name[0]}_proj")
            table |= layout.dense(f"{ours}/attention/out", f"{theirs}.self_attn.out_proj")
            table |= layout.norm(f"{ours}/attention_norm", f"{theirs}.layer_norm1")
            table |= layout.norm(f"{ours}/mlp_norm", f"{theirs}.layer_norm2")
            table |= layout.dense(f"{ours}/mlp/up", f"{theirs}.mlp.fc1")
            table |= layout.dense(f"{ours}/mlp/down", f"{theirs}.mlp.fc2")
        if tower.projection is not None:
            table |= layout.dense("projection", "visual_projection", bias=False)
        return table

    def unpack(self, tensors: Tensors, tower: vit.ViT) -> list[str]:
        """As in `Layout`."""
        return unpack_tokens(tensors, tower, self._tokens)

    def pack(self, tensors: Tensors, tower: vit.ViT) -> Tensors:
        """As in `Layout`."""
        pack_tokens(tensors, tower, self._tokens)
        return {name if name.startswith("visual_projection") else f"vision_model.{name}": value
                for name, value in tensors.items()}

    def config(self, tower: vit.ViT) -> dict[str, Any]:
        """As in `Layout`."""
        config = {**sizes(tower), "architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model",
                  "intermediate_size": tower.mlp_dim}
        if tower.projection_width:
            config |= {"architectures": ["CLIPVisionModelWithProjection"], "projection_dim": tower.projection_width}
        return config

"""The names of BERT, RoBERTa and CXR-BERT in Hugging Face checkpoints (Bio_ClinicalBERT, PubMedBERT, RadBERT, ...)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lgdea_jax.models import bert
from lgdea_jax.models.pretrained import layout
from lgdea_jax.models.pretrained.files import WeightsError
from lgdea_jax.models.pretrained.layout import Entry, Table, Tensors

MODEL_TYPES = {"bert": ("bert", "cxr-bert"), "roberta": ("roberta", "xlm-roberta", "camembert")}
POSITION = "embeddings.position_embeddings.weight"
WORD = "embeddings.word_embeddings.weight"
HEAD = "cls_projection_head"


class BertNames(layout.Layout):
    """`BertModel`, `RobertaModel` and what contains one of them (prefix `bert.`, `roberta.`, `text.transformer.`)."""

    names = "hf"
    anchor = WORD
    unused = (r"(cls|classifier|lm_head|pooler|qa_outputs|visual|logit_scale|logit_bias|text\.proj)(\.|$)"
              r"|cls_projection_head\.|embeddings\.(position_ids|token_type_ids)$")
    tower = "bert"
    checked = ("num_attention_heads", "hidden_act", "layer_norm_eps", "position_embedding_type", "projection_size")

    def refuses(self, tower: bert.Bert) -> str:
        """As in `Layout`."""
        return "" if isinstance(tower, bert.Bert) else "it is no text tower"

    def check(self, tower: bert.Bert, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> str:
        """As in `Layout`; the family is that of `model_type`."""
        kind = config.get("model_type")
        if kind and kind not in MODEL_TYPES[tower.family]:
            family = next((family for family, kinds in MODEL_TYPES.items() if kind in kinds), None)
            if family is None:
                return f"its config has model_type = {kind}, which is neither a BERT nor a RoBERTa"
            return f"its config has model_type = {kind}: the tower must be of family={family}, not {tower.family}"
        rows = len(tensors[WORD])
        if rows != tower.vocab_size:
            return (f"its word table has {rows} rows, the tokeniser {tower.vocab_size} ids: train with the tokeniser "
                    "of the checkpoint (config.text.tokenizer)")
        return super().check(tower, tensors, config)

    def options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """As in `Layout`."""
        kind = config.get("model_type")
        family = next((family for family, kinds in MODEL_TYPES.items() if kind in kinds), "")
        if not family:
            return {}
        head = {"pool": "projection", "projection": config["projection_size"]} if "projection_size" in config else {}
        return {"family": family, "variant": "base", "eps": config.get("layer_norm_eps", 0.0), **head,
                "sizes": {"width": config["hidden_size"], "depth": config["num_hidden_layers"],
                          "heads": config["num_attention_heads"], "mlp_dim": config["intermediate_size"]}}

    def rename(self, name: str) -> str:
        """Checkpoints of 2019 call the norms' parameters gamma and beta."""
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

    def table(self, tower: bert.Bert) -> Table:
        """As in `Layout`."""
        table = {"embeddings/word": Entry(WORD), "embeddings/position": Entry(POSITION),
                 "embeddings/token_type": Entry("embeddings.token_type_embeddings.weight"),
                 **layout.norm("embeddings/norm", "embeddings.LayerNorm")}
        for index in range(len(tower.blocks)):
            ours, theirs = f"blocks/{index}", f"encoder.layer.{index}"
            for name in ("query", "key", "value"):
                table |= layout.dense(f"{ours}/attention/{name}", f"{theirs}.attention.self.{name}")
            table |= layout.dense(f"{ours}/attention/out", f"{theirs}.attention.output.dense")
            table |= layout.norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
            table |= layout.dense(f"{ours}/mlp/up", f"{theirs}.intermediate.dense")
            table |= layout.dense(f"{ours}/mlp/down", f"{theirs}.output.dense")
            table |= layout.norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm")
        if tower.pool == "pooler":
            table |= layout.dense("pooler", "pooler.dense")
        if tower.pool == "projection":
            table |= layout.dense("projection/up", f"{HEAD}.dense_to_hidden")
            table |= layout.norm("projection/norm", f"{HEAD}.LayerNorm")
            table |= layout.dense("projection/out", f"{HEAD}.dense_to_output")
        return table

    def unpack(self, tensors: Tensors, tower: bert.Bert) -> list[str]:
        """Takes the positions that texts of the tower's length can have."""
        rows = tower.max_length + bert.FAMILIES[tower.family]["first_position"]
        have = len(tensors.get(POSITION, ()))
        if have and have < rows:
            raise WeightsError(f"{POSITION} has {have} rows: too few for texts of {tower.max_length} tokens "
                               "(config.text.length)")
        if have > rows:
            tensors[POSITION] = tensors[POSITION][:rows]
            return [f"the first {rows} of {have} positions"]
        return []

    def pack(self, tensors: Tensors, tower: bert.Bert) -> Tensors:
        """CXR-BERT's own class keeps its BERT below `bert.`."""
        if tower.pool != "projection":
            return tensors
        return {name if name.startswith(HEAD) else f"bert.{name}": value for name, value in tensors.items()}

    def config(self, tower: bert.Bert) -> dict[str, Any]:
        """As in `Layout`."""
        shapes = layout.parameter_shapes(tower)
        config = {
            "architectures": ["RobertaModel" if tower.family == "roberta" else "BertModel"],
            "model_type": tower.family, "hidden_size": tower.features, "num_hidden_layers": len(tower.blocks),
            "num_attention_heads": tower.heads, "intermediate_size": tower.mlp_dim, "hidden_act": "gelu",
            "layer_norm_eps": tower.eps, "vocab_size": tower.vocab_size, "position_embedding_type": "absolute",
            "max_position_embeddings": shapes["embeddings/position"][0],
            "type_vocab_size": shapes["embeddings/token_type"][0]}
        config |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2} if tower.family == "roberta" else {
            "pad_token_id": 0}
        if tower.pool == "projection":
            config |= {"architectures": ["CXRBertModel"], "model_type": "cxr-bert", "projection_size": tower.width}
        return config

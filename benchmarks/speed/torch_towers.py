"""Our small towers in PyTorch, written as its users would: the peer of `benchmarks.speed.steps`; modules named like
ours.

Attention is `scaled_dot_product_attention`, convolutions are channels-last. `load` copies our parameters, so that both
compute the same numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention [B, T, W] -> [B, T, W]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                             for layer in (self.query, self.key, self.value))
        return self.out(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Dense, exact GELU, dense."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.gelu(self.up(x)))


class Block(nn.Module):
    """A transformer block, the norm before (ViT) or after (BERT) its two branches."""

    def __init__(self, width: int, heads: int, mlp_dim: int, *, before: bool, eps: float) -> None:
        super().__init__()
        self.before = before
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attention, self.mlp = Attention(width, heads), Mlp(width, mlp_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.before:
            x = x + self.attention(self.attention_norm(x))
            return x + self.mlp(self.mlp_norm(x))
        x = self.attention_norm(x + self.attention(x))
        return self.mlp_norm(x + self.mlp(x))


class ViT(nn.Module):
    """[B, 1, S, S] -> [B, W], the mean of the patches."""

    def __init__(self, side: int, *, patch: int, width: int, depth: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.ModuleDict({"out": nn.Linear(patch * patch, width)})
        self.position = nn.Parameter(torch.zeros(1, (side // patch) ** 2, width))
        self.blocks = nn.ModuleList([Block(width, heads, mlp_dim, before=True, eps=1e-6) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.shape[-1] // self.patch
        x = x.reshape(-1, count, self.patch, count, self.patch).transpose(2, 3).reshape(
            -1, count * count, self.patch**2)
        x = self.stem["out"](x) + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(1)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with group norms of 16 channels."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(cin, cout, 3, stride, 1, bias=False),
                                    nn.Conv2d(cout, cout, 3, 1, 1, bias=False)])
        self.norms = nn.ModuleList([nn.GroupNorm(cout // 16, cout, eps=1e-5) for _ in range(2)])
        self.shortcut = None
        if stride > 1 or cin != cout:
            self.shortcut = nn.Conv2d(cin, cout, 1, stride, bias=False)
            self.shortcut_norm = nn.GroupNorm(cout // 16, cout, eps=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.norms[0](self.convs[0](x)))
        y = self.norms[1](self.convs[1](y))
        if self.shortcut is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return functional.relu(x + y)


class ResNet8(nn.Module):
    """[B, 1, S, S] -> [B, 4 W]: 2 x 2 patches as channels, three residual blocks, the mean of the patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem_conv, self.stem_norm = nn.Conv2d(4, width, 3, 1, 1, bias=False), nn.GroupNorm(width // 16, width)
        self.blocks = nn.ModuleList([ResidualBlock(width, width, 1), ResidualBlock(width, 2 * width, 2),
                                     ResidualBlock(2 * width, 4 * width, 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift = 3  # See `models.resnet.centre_cells`: (stride 8 - patch 2) / 2.
        x = functional.pad(x, (0, shift, 0, shift), mode="replicate")[..., shift:, shift:]
        x = functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        x = functional.relu(self.stem_norm(self.stem_conv(x)))
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


class Bert(nn.Module):
    """[B, T] -> [B, W], the mean of the tokens; nothing is masked."""

    def __init__(self, vocabulary: int, tokens: int, *, width: int, depth: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.embeddings = nn.ParameterDict({
            "word": torch.zeros(vocabulary, width), "position": torch.zeros(tokens, width),
            "token_type": torch.zeros(2, width)})
        self.embeddings_norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList([Block(width, heads, mlp_dim, before=False, eps=1e-12) for _ in range(depth)])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        tables = self.embeddings
        x = functional.embedding(ids, tables["word"]) + tables["position"] + tables["token_type"][0]
        x = self.embeddings_norm(x)
        for block in self.blocks:
            x = block(x)
        return x.mean(1)


class TwoTowers(nn.Module):
    """(image uint8 [B, S, S], tokens [B, T]) -> CLIP's loss.

    Args:
      image: sizes of the image tower with its `kind`; text: of the text tower; side, tokens, width, vocabulary: S, T,
        the shared width and the number of tokens.
    """

    def __init__(self, image: dict, text: dict, *, side: int, tokens: int, width: int, vocabulary: int) -> None:
        super().__init__()
        image = dict(image)
        convolutional = image.pop("kind") == "resnet"
        self.image_tower = ResNet8(**image) if convolutional else ViT(side, **image)
        self.text_tower = Bert(vocabulary, tokens, **text)
        self.image_projection = nn.Linear(image["width"] * (4 if convolutional else 1), width)
        self.text_projection = nn.Linear(text["width"], width)
        self.logit_scale = nn.Parameter(torch.zeros([]))
        self.convolutional = convolutional

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        x = ((image.float() / 255 - 0.5) / 0.25)[:, None]
        x = functional.normalize(self.image_projection(self.image_tower(x)), dim=-1)
        y = functional.normalize(self.text_projection(self.text_tower(tokens)), dim=-1)
        logits = self.logit_scale.exp() * x @ y.T
        labels = torch.arange(len(logits))
        return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2

    def load(self, params: dict[str, np.ndarray]) -> None:
        """Copies our parameters by name.

        Raises:
          KeyError: one of ours has no place here, or the other way round.
        """
        own = dict(self.named_parameters())
        for path, value in params.items():
            if path.startswith("patch_projection") or path == "logit_bias":
                continue  # Not part of this loss; ours computes nothing for them either.
            name = path.replace("embeddings/norm", "embeddings_norm").replace("/", ".")
            if name.endswith("kernel"):
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
                if "stem_conv" in name:  # Ours orders the pixels of a patch by row; one channel: the same order.
                    assert value.shape[1] == 4
            name = name.removesuffix(".kernel") + ".weight" if name.endswith(".kernel") else name
            name = name.removesuffix(".scale") + ".weight" if name.endswith(".scale") else name
            own.pop(name).data.copy_(torch.from_numpy(np.array(value)))
        if own:
            raise KeyError(f"not filled: {', '.join(own)}")
        if self.convolutional:
            self.to(memory_format=torch.channels_last)

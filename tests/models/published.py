"""Tiny random models of the published families, in torch: the reference of the importers' tests.

Hugging Face's come from `transformers`; OpenCLIP's ViT, torchvision's ResNet, timm's ViT and CXR-BERT's head are
written out here with the names of their checkpoints, because those packages are no dependency of the tests.
"""

from collections import OrderedDict

import torch
import transformers
from torch import nn

VOCAB, LENGTH, WIDTH, PATCH, IMAGE = 40, 20, 16, 4, 16
VIT = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": IMAGE, "patch_size": PATCH}


def randomise(module, seed=0):
    """Every parameter and moment away from what initialisers give: a forgotten zero or one could hide a mistake."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():  # Convolutions are as they should be, and more would explode.
            parameter.add_((0.2 if parameter.ndim < 4 else 0.01) * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn_like(buffer))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand_like(buffer))
    return module.eval()


def bert(cls=transformers.BertModel, **options):
    """BERT."""
    sizes = {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 24, "max_position_embeddings": LENGTH}
    return randomise(cls(transformers.BertConfig(**{**sizes, **options})))


def roberta():
    """RoBERTa (RadBERT)."""
    return randomise(transformers.RobertaModel(transformers.RobertaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=LENGTH + 2, type_vocab_size=1, layer_norm_eps=1e-5)))


class CxrBert(nn.Module):
    """BERT with CXR-BERT's projection, named as in its checkpoint."""

    def __init__(self, width=8):
        super().__init__()
        self.bert = transformers.BertModel(bert().config, add_pooling_layer=False)
        self.cls_projection_head = nn.ModuleDict({
            "dense_to_hidden": nn.Linear(WIDTH, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12),
            "dense_to_output": nn.Linear(width, width)})

    def forward(self, ids, attention_mask):
        hidden = self.bert(ids, attention_mask=attention_mask).last_hidden_state
        head = self.cls_projection_head
        return head["dense_to_output"](head["LayerNorm"](nn.functional.gelu(head["dense_to_hidden"](hidden[:, 0]))))


def vit(cls=transformers.ViTModel):
    """ViT."""
    return randomise(cls(transformers.ViTConfig(**VIT, intermediate_size=24)))


def deit():
    """DeiT."""
    return randomise(transformers.DeiTModel(transformers.DeiTConfig(**VIT, intermediate_size=24)))


def dinov2(**options):
    """DINOv2."""
    return randomise(transformers.Dinov2Model(transformers.Dinov2Config(**VIT, mlp_ratio=2, **options)))


def dinov2_registers():
    """DINOv2 with registers."""
    return randomise(transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**VIT, mlp_ratio=2)))


def clip(activation="quick_gelu"):
    """CLIP's image half."""
    return randomise(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        **VIT, intermediate_size=24, projection_dim=8, hidden_act=activation)))


def resnet(layer_type="bottleneck"):
    """ResNet."""
    sizes = [32, 64, 128] if layer_type == "bottleneck" else [8, 16, 32]
    return randomise(transformers.ResNetModel(transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=sizes, depths=[1, 2, 1], layer_type=layer_type)))


class OpenClipBlock(nn.Module):
    """OpenCLIP's ResidualAttentionBlock."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(OrderedDict(
            c_fc=nn.Linear(width, hidden), gelu=nn.GELU(), c_proj=nn.Linear(hidden, width)))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class OpenClipVisual(nn.Module):
    """OpenCLIP's VisionTransformer with a class token."""

    def __init__(self, width=WIDTH, output=8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((IMAGE // PATCH) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList([OpenClipBlock(width, 4, 24) for _ in range(2)])
        self.proj = nn.Parameter(torch.randn(width, output))

    def forward(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        return self.ln_post(x)[:, 0] @ self.proj


class OpenClip(nn.Module):
    """A CLIP: the image tower, and enough of the other half to have its names in the file."""

    def __init__(self):
        super().__init__()
        self.visual = OpenClipVisual()
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList([OpenClipBlock(WIDTH, 4, 24)])
        self.token_embedding, self.ln_final = nn.Embedding(VOCAB, WIDTH), nn.LayerNorm(WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.text_projection, self.logit_scale = nn.Parameter(torch.randn(WIDTH, 8)), nn.Parameter(torch.ones([]))


class TimmBlock(nn.Module):
    """timm's Block."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        self.heads = heads

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attn["proj"](mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class TimmVit(nn.Module):
    """timm's VisionTransformer, below `visual.trunk` as BiomedCLIP has it."""

    def __init__(self):
        super().__init__()
        trunk = nn.Module()
        trunk.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, WIDTH, PATCH, PATCH)})
        trunk.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        trunk.pos_embed = nn.Parameter(torch.randn(1, (IMAGE // PATCH) ** 2 + 1, WIDTH))
        trunk.blocks = nn.ModuleList([TimmBlock(WIDTH, 4, 24) for _ in range(2)])
        trunk.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.visual = nn.Module()
        self.visual.trunk = trunk
        self.visual.head = nn.Linear(WIDTH, 8)

    def forward(self, x):
        trunk = self.visual.trunk
        x = trunk.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([trunk.cls_token.expand(len(x), 1, -1), x], dim=1) + trunk.pos_embed
        for block in trunk.blocks:
            x = block(x)
        return trunk.norm(x)


class Bottleneck(nn.Module):
    """torchvision's Bottleneck: the stride is in the 3 x 3 convolution."""

    def __init__(self, cin, width, stride):
        super().__init__()
        cout = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, cout, 1, bias=False), nn.BatchNorm2d(cout)
        self.downsample = None
        if stride > 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class TorchvisionResNet(nn.Module):
    """torchvision's ResNet with bottlenecks, three stages."""

    def __init__(self, width=8):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        cin = width
        for stage, count in enumerate((1, 2, 1)):
            blocks = []
            for index in range(count):
                blocks.append(Bottleneck(cin, width * 2**stage, 2 if stage and not index else 1))
                cin = 4 * width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(cin, 5)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.layer3(self.layer2(self.layer1(x)))

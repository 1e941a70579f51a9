"""What is measured on: the network of the series, ResNet-152, Llama-shaped models, long loops."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz_helpers import Network


class Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int):
        super().__init__()
        outside = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


def resnet152() -> nn.Module:
    """K. He et al., "Deep Residual Learning for Image Recognition", 2015: 60,192,808 parameters."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        *(nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)),
    ]
    inside = 64
    for width, blocks in ((64, 3), (128, 8), (256, 36), (512, 3)):
        for block in range(blocks):
            layers.append(Bottleneck(inside, width, 2 if block == 0 and width > 64 else 1))
            inside = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).contiguous().view(batch, length, width))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class Llama(nn.Module):
    """Rotary positions, RMS norm, gated feed-forward; padded tokens must stand at the end."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, vocabulary: int = 32_000):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.half = width // heads // 2

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        frequencies = 1e4 ** -(torch.arange(self.half, device=ids.device) / self.half)
        angles = torch.arange(ids.shape[1], device=ids.device)[:, None] * frequencies
        angles = torch.cat([angles, angles], dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


def llama_1b() -> nn.Module:
    return Llama(layers=22, width=2048, heads=32, hidden=5632)  # 1.26 billion


def llama_7b() -> nn.Module:
    return Llama(layers=32, width=4096, heads=32, hidden=11008)  # 6.74 billion


def on_meta(make):
    with torch.device("meta"):
        return make()


def model_and_input(name: str) -> tuple[nn.Module, Tensor]:
    """Return what a forward pass needs; the language models without data."""
    torch.manual_seed(0)
    if name.startswith("the network"):
        return Network(), torch.randn(1, 1, 32, 32)
    if name.startswith("ResNet-152"):
        return resnet152(), torch.randn(32 if name.endswith("32") else 1, 3, 224, 224)
    ids = torch.randint(32_000, (1, 128), device="meta")
    return on_meta(llama_7b if "7" in name else llama_1b), ids


def model_and_loss(name: str) -> tuple[nn.Module | None, Tensor]:
    """Return a model with a graph behind a loss; a loop has no model."""
    if name.startswith("loop of"):
        steps = int(name.removeprefix("loop of ").removesuffix(" steps").replace(",", ""))
        x = w = torch.ones(3, requires_grad=True)
        for _ in range(steps):
            x = x * w
        return None, x.sum()
    model, x = model_and_input(name)
    return model, model(x).square().mean()


def model_with_gradients(name: str) -> nn.Module:
    if name.startswith("ResNet") or name.startswith("the network"):
        model, loss = model_and_loss(name)
        loss.backward()
        assert model is not None
        return model
    model = on_meta(llama_1b).to_empty(device="cpu")
    noise = torch.randn(1 << 20)
    for w in model.parameters():
        w.grad = torch.empty_like(w)
        for tensor in (w.data, w.grad):
            for piece in tensor.view(-1).split(len(noise)):
                piece.copy_(noise[: len(piece)])
    return model

"""Models of every awkward kind, small enough to run for real beside what is said of them."""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.utils.parametrize as parametrize
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class HardModel:
    """A kind of model: how to make one, and inputs that it takes."""

    name: str
    make_model: Callable[[], nn.Module]
    make_inputs: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]
    asks_for: str | None = None  # the operation that needs values, if one does

    def __str__(self):
        return self.name


HARD_MODELS: list[HardModel] = []


def hard(name, *shapes, asks_for=None, **inputs):
    """Add the decorated module, or maker of one, with inputs of these shapes or made by these."""

    def random(one):
        if callable(one):
            return one()
        return torch.randn(one, generator=torch.Generator().manual_seed(0))

    def make_inputs():
        return tuple(map(random, shapes)), {key: random(one) for key, one in inputs.items()}

    def decorate(make):
        HARD_MODELS.append(HardModel(name, make, make_inputs, asks_for))
        return make

    return decorate


def tokens(*shape, high=11):
    return lambda: torch.randint(high, shape, generator=torch.Generator().manual_seed(0))


# Convolutional networks


@hard("the network of the series", (2, 1, 32, 32))
class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(576, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


class Residual(nn.Module):
    def __init__(self, inside, outside, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


@hard("residual network, batch norm in train mode", (2, 3, 33, 33))
def residual():
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1), Residual(8, 8), Residual(8, 16, 2), nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


@hard("residual network in eval mode", (1, 3, 64, 48))
def residual_eval():
    return residual().eval()


@hard("residual network, channels last", lambda: torch.ones(2, 3, 32, 32).to(
    memory_format=torch.channels_last))  # fmt: skip
def channels_last():
    return residual().to(memory_format=torch.channels_last)


@hard("U-Net", (1, 3, 32, 32))
class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 3, padding=1)
        self.down2 = nn.Conv2d(8, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        a = F.leaky_relu(self.down1(x), 0.1)
        b = F.silu(self.down2(F.avg_pool2d(a, 2)))
        b = F.interpolate(F.max_pool2d(b, 2), scale_factor=2, mode="bilinear")
        return self.out(torch.cat([a, self.up(b)], dim=1))


@hard("grouped, dilated, transposed convolutions in one dimension", (2, 4, 40))
def convolutions_1d():
    return nn.Sequential(
        nn.Conv1d(4, 8, 5, dilation=2, groups=2), nn.ReLU6(), nn.MaxPool1d(3, 2, 1, ceil_mode=True),
        nn.ConvTranspose1d(8, 6, 4, 3, 1, output_padding=2, groups=2), nn.GroupNorm(3, 6),
        nn.Conv1d(6, 2, 4, padding="same"), nn.AdaptiveMaxPool1d(5), nn.InstanceNorm1d(2),
    )  # fmt: skip


@hard("convolutions in three dimensions", (1, 2, 9, 10, 11))
def convolutions_3d():
    return nn.Sequential(
        nn.Conv3d(2, 4, (3, 2, 1), (2, 1, 1), (1, 0, 0)), nn.BatchNorm3d(4), nn.Hardswish(),
        nn.AvgPool3d(2), nn.ConvTranspose3d(4, 2, 3), nn.Softmax(1),
    )  # fmt: skip


@hard("squeeze and excitation", (2, 8, 16, 16))
class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, groups=8)
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        x = self.conv(x)
        scale = self.fc(x.mean((2, 3))).sigmoid()
        return x * scale[:, :, None, None]


@hard("channels-last block with layer norm", (2, 3, 16, 16))
class ConvNext(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8)
        self.grow = nn.Linear(8, 32)
        self.shrink = nn.Linear(32, 8)
        self.gamma = nn.Parameter(torch.ones(8))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.shrink(F.gelu(self.grow(y)))
        return x + y.permute(0, 3, 1, 2)


@hard("pixel shuffle, padding and crops", (1, 4, 10, 10))
class Shuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3)

    def forward(self, x):
        x = self.conv(F.pad(x, (1, 2, 0, 1), mode="reflect"))
        x = F.pixel_shuffle(x, 2)[..., 1:-1, ::2]
        return F.pad(x, (1, -1)).roll(1, 2).flip(-1)


@hard("vision transformer", (2, 3, 32, 32))
class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.position = nn.Parameter(torch.zeros(1, 17, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.encoder(x)[:, 0])


# Inputs and outputs of every form


@hard("unbatched image", (1, 28, 28))
def unbatched():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(0),
                         nn.Linear(4 * 13 * 13, 10))  # fmt: skip


@hard("keyword inputs", (2, 3), scale=(1,), flag=lambda: True)
class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x, *, scale, flag=False):
        return self.fc(x) * scale if flag else x


@hard("dictionaries in and out", lambda: {"a": torch.ones(2, 3), "b": [torch.ones(2, 4)]})
class Dictionaries(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(7, 2)

    def forward(self, batch):
        y = self.fc(torch.cat([batch["a"], batch["b"][0]], -1))
        return {"logits": y, "parts": [y[:, :1], (y, None)]}


@dataclass
class Pair:
    left: torch.Tensor
    right: torch.Tensor
    note: str = ""


@hard("data classes in and out", lambda: Pair(torch.ones(2, 3), torch.ones(2, 5), "n"))
class DataClasses(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, pair):
        return dataclasses.replace(pair, left=self.fc(pair.left) + pair.right)


@hard("tuples in and out", lambda: (torch.ones(2, 3), torch.ones(2, 3)))
class Tuples(nn.Module):
    def forward(self, pair):
        return pair[0] - pair[1], (torch.stack(pair), torch.maximum(*pair).max(1))


# Weights shared, computed, made late


@hard("a module used three times", (2, 4))
class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        for _ in range(3):
            x = torch.tanh(self.fc(x))
        return x


@hard("tied weights", tokens(2, 5))
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.embed(ids))


@hard("lazy modules", (2, 3, 12, 12))
def lazy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(),
                             nn.LazyLinear(5))  # fmt: skip


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)


@hard("parametrizations", (2, 4))
def parametrized():
    fc = nn.Linear(4, 4)
    parametrize.register_parametrization(fc, "weight", Symmetric())
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    return nn.Sequential(fc, normed, nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)))


@hard("spectral norm by hooks", (1, 2, 8, 8))
def spectral():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(2, 4, 3)), nn.ReLU())


@hard("frozen layers", (2, 4))
def frozen():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


# Sequences


@hard("LSTM over packed sequences", (3, 7, 5), lambda: torch.tensor([7, 4, 2]))
class PackedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        out, (h, c) = self.lstm(packed)
        padded, sizes = pad_packed_sequence(out, batch_first=True)
        return self.fc(padded), sizes, h, c


@hard("GRU over packed sequences out of order", (4, 3, 5), lambda: torch.tensor([2, 4, 1]))
class PackedGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(5, 6)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        out, h = self.gru(packed)
        return (*pad_packed_sequence(out, total_length=6), h)


@hard("packed sequence as input", lambda: pack_padded_sequence(
    torch.ones(4, 2, 5), torch.tensor([4, 2])))  # fmt: skip
class TakesPacked(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(5, 3)

    def forward(self, packed):
        assert isinstance(packed, PackedSequence)
        return self.rnn(packed)[1]


@hard("LSTM with projections, unbatched, with its state", (7, 5),
      lambda: (torch.ones(2, 3), torch.ones(2, 6)))  # fmt: skip
def projected():
    return nn.LSTM(5, 6, num_layers=2, proj_size=3)


@hard("cells in a loop", (4, 2, 5))
class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTMCell(5, 6)
        self.gru = nn.GRUCell(6, 6)
        self.rnn = nn.RNNCell(6, 4)

    def forward(self, x):
        h, c = x.new_zeros(x.shape[1], 6), torch.zeros(x.shape[1], 6)
        out = torch.empty(len(x), x.size(1), 4, device=x.device)
        for t, step in enumerate(x):
            h, c = self.lstm(step, (h, c))
            out[t] = self.rnn(self.gru(h, c))
        return out


@hard("index loop over token positions", tokens(2, 6), lambda: torch.tensor([3, 1]))
class IndexLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)

    def forward(self, ids, positions):
        rows = [self.embed(ids)[i, int(p)] for i, p in enumerate(positions)]
        return torch.stack(rows) + self.embed(ids[:, -1])


# Attention


@hard("multi-head attention with masks", (2, 5, 8), lambda: torch.arange(5).expand(2, 5) > 3)
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(8, 4, kdim=6, vdim=7, add_bias_kv=True)

    def forward(self, x, mask):
        causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
        y, weights = self.attention(x, x, x, key_padding_mask=mask, attn_mask=causal)
        x, y = x.transpose(0, 1), y.transpose(0, 1)
        z, _ = self.cross(y, x[..., :6], x[..., 1:], need_weights=False)
        return z, weights


@hard("fused encoder in eval mode", (2, 6, 8), src_key_padding_mask=lambda: (
    torch.arange(6).expand(2, 6) > torch.tensor([[3], [4]])))  # fmt: skip
def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


@hard("transformer", (5, 2, 8), (3, 2, 8))
def transformer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Transformer(8, 2, 1, 1, 16)


@hard("decoder-only language model", tokens(2, 9))
class Llama(nn.Module):
    """Rotary positions, grouped queries, a gated feed-forward, a causal mask."""

    def __init__(self, layers=2, width=16, heads=4, groups=2, hidden=24, vocabulary=11):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, groups, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        half = width // heads // 2
        self.register_buffer("frequencies", 1e4 ** -(torch.arange(half) / half), persistent=False)

    def forward(self, ids):
        x = self.embed(ids)
        positions = torch.arange(ids.shape[1], device=ids.device)
        angles = positions[:, None].float() * self.frequencies[None, :]
        angles = torch.cat([angles, angles], -1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


def rotate(x, cos, sin):
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], -1) * sin


class LlamaBlock(nn.Module):
    def __init__(self, width, heads, groups, hidden):
        super().__init__()
        self.size = width // heads
        self.repeats = heads // groups
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, groups * self.size, bias=False)
        self.v = nn.Linear(width, groups * self.size, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(batch, length, -1, self.size).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (one.repeat_interleave(self.repeats, dim=1) for one in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).contiguous().view(batch, length, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


@hard("language model with written-out attention", tokens(2, 6))
class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(11, 12), nn.Embedding(8, 12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.norm = nn.LayerNorm(12)
        self.register_buffer("mask", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8))

    def forward(self, ids):
        b, t = ids.size()
        x = self.embed(ids) + self.position(torch.arange(0, t, dtype=torch.long, device=ids.device))
        q, k, v = self.qkv(self.norm(x)).split(12, dim=2)
        q, k, v = (one.view(b, t, 3, 4).transpose(1, 2) for one in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
        att = att.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        y = F.dropout(F.softmax(att, dim=-1), 0.1, self.training) @ v
        y = self.out(y.transpose(1, 2).contiguous().view(b, t, 12))
        logits = (x + y) @ self.embed.weight.T
        loss = F.cross_entropy(logits.view(-1, 11), ids.view(-1), ignore_index=-1)
        return logits, loss


@hard("einsum, bilinear and batched products", (2, 3, 4), (2, 4, 5))
class Products(nn.Module):
    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(4, 5, 6)

    def forward(self, a, b):
        c = torch.einsum("bij,bjk->bik", a, b)
        d = torch.baddbmm(c, a, b) + torch.bmm(a, b)
        return d, self.bilinear(a[:, 0], b[:, 0]), torch.addmm(c[0], a[0], b[0]), a[0, 0] @ b[0]


@hard("arguments by name", (2, 3, 4), (2, 4, 4))
class Named(nn.Module):
    def forward(self, a, b):
        c = a.baddbmm(batch1=a, batch2=b, beta=0.5) + torch.bmm(a, mat2=b).pow(exponent=2)
        d = torch.addmm(c[0], mat1=a[0], mat2=b[0]) + torch.mv(b[0], vec=a[0, 0])[None]
        e = torch.swapaxes(d, axis0=0, axis1=1).where(condition=d.T > 0, other=torch.tensor(1))
        return torch.cat(tensors=[e, e], axis=1), torch.full_like(input=e, fill_value=2)


if hasattr(F, "grouped_mm"):  # from torch 2.10

    @hard("mixture of experts", (6, 8))
    class Experts(nn.Module):
        """Each row goes to two of three experts: sorted by expert, multiplied group by group."""

        def __init__(self):
            super().__init__()
            self.router = nn.Linear(8, 3)
            self.up = nn.Parameter(torch.ones(3, 8, 16))
            self.down = nn.Parameter(torch.ones(3, 16, 8))

        def forward(self, x):
            weights, chosen = self.router(x).softmax(-1).topk(2)
            order = chosen.flatten().argsort()
            counts = F.one_hot(chosen.flatten(), 3).sum(0)
            ends = counts.cumsum(0).to(torch.int32)
            y = F.grouped_mm(x[order // 2], self.up, offs=ends).relu()
            y = F.grouped_mm(y, self.down, offs=ends) * weights.flatten()[order, None]
            return torch.zeros_like(x).index_add(0, order // 2, y)


# Torch's own machinery


@hard("in-place operations", (2, 6))
class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        y = self.fc(x)
        y += 1
        y.mul_(2).clamp_(min=0)
        y[:, 0] = 0.0
        y[:, 1:3] += x[:, 1:3]
        z = torch.zeros_like(y)
        z.copy_(y).relu_()
        return F.relu(z, inplace=True).t_()


@hard("checkpointing", (2, 4))
class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = checkpoint(self.a, x, use_reentrant=False)
        return checkpoint(lambda y: self.b(y).relu(), x, use_reentrant=True)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


@hard("autograd function", (2, 4))
class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return Double.apply(self.fc(x))


@hard("scripted submodule", (2, 4))
def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()))
    return nn.Sequential(nn.Linear(4, 4), inner, nn.Linear(8, 2))


@hard("compiled submodule", (2, 4))
def compiled():
    inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    return nn.Sequential(torch.compile(inner, backend="eager"), nn.Linear(8, 2))


@hard("torch.func", (3, 4))
class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        weights = {name: p * 2 for name, p in self.fc.named_parameters()}
        y = torch.func.functional_call(self.fc, weights, (x,))
        return torch.vmap(lambda row: (row * row).sum())(y), torch.vmap(self.fc)(x)


@hard("bfloat16", lambda: torch.ones(2, 1, 8, 8, dtype=torch.bfloat16))
def bfloat16():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(),
                         nn.Linear(72, 3)).bfloat16().eval()  # fmt: skip


@hard("autocast", (2, 4))
class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.fc(x)
        return y.float() + x


@hard("complex numbers", (2, 16))
class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.ones(9, dtype=torch.complex64))

    def forward(self, x):
        spectrum = torch.fft.rfft(x) * self.filter
        loudness = spectrum.abs().expand(8, -1, -1) - spectrum.real
        return torch.fft.irfft(spectrum, n=16), F.linear(loudness, torch.ones(3, 9))


@hard("module list, dictionary and parameter list", (2, 4))
class Containers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 2)})
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(4)) for _ in range(3))

    def forward(self, x):
        for layer, scale in zip(self.layers, self.scales, strict=True):
            x = x + layer(x) * scale
        return {name: head(x) for name, head in self.heads.items()}


@hard("buffers and flags that forward assigns", (2, 4))
class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("memory", torch.zeros(4))
        self.fc = nn.Linear(4, 4)
        self.last = None

    def forward(self, x):
        self.count += 1
        self.memory = self.memory * 0.9 + x.mean(0)
        self.eval()
        self.last = self.fc(x)
        if self.count > 0:
            self.register_buffer("extra", x.sum())
        return self.last + self.memory


@hard("hooks that the first forward registers", (2, 4))
class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.hooked = False

    def forward(self, x):
        if not self.hooked:
            self.hooked = True
            self.fc.register_forward_hook(lambda fc, args, y: self.seen.append(y))
        self.seen = []
        self.fc(x)
        return self.seen[0]


@hard("a table that grows with the input", (2, 300, 4))
class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.longest = 0
        self.register_buffer("positions", torch.zeros(0), persistent=False)

    def forward(self, x):
        if x.shape[1] > self.longest:
            self.longest = x.shape[1]
            self.positions = torch.linspace(0, 1, self.longest)
        return self.fc(x) + self.positions[: x.shape[1], None]


@hard("rows of an embedding that are shortened in place", tokens(2, 5))
def shortened():
    return nn.Embedding(11, 4, max_norm=0.1)


@hard("random choices", (2, 4))
class Stochastic(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if torch.rand(()) < 2:
            x = self.fc(x)
        x = x + torch.randn_like(x) * torch.rand(4, 4)[0]
        return F.dropout(x) * torch.bernoulli(torch.full_like(x, 0.5))


@hard("module on meta", lambda: torch.ones(2, 4, device="meta"))
def on_meta():
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))


@hard("exported program", (2, 3, 8, 8))
def exported():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return torch.export.export(model, (torch.ones(2, 3, 8, 8),)).module()


# Models that ask for values


@hard("a loss that looks at its variances", (2, 4), (2, 4), asks_for="gaussian_nll_loss")
class Gaussian(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 8)

    def forward(self, x, target):
        mean, logarithm = self.fc(x).chunk(2, -1)
        return F.gaussian_nll_loss(mean, target, logarithm.exp())


@hard("control flow as an operation", (2, 4), asks_for="cond")
class Conditional(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))


@hard("a branch on a value", (2, 4), asks_for="__bool__")
class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x)
        if x.sum() > 0:
            return x
        return -x


@hard(".item()", (2, 4), asks_for="item")
class Item(nn.Module):
    def forward(self, x):
        return x / x.abs().max().item()


@hard("lazy modules, and a value", (2, 4), asks_for="item")
def lazy_value():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.LazyLinear(4), Item())


@hard("boolean mask", (2, 4), asks_for="getitem")
class Mask(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        y = self.norm(x)
        return y[y > 0].sum()


@hard("through numpy", (2, 4), asks_for="numpy")
class ThroughNumpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.detach().numpy() * 2) + x


@hard("gradients inside forward", (2, 4), asks_for="grad")
class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 1)

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.fc(x).sum(), x, create_graph=True)
        return gradient

"""Good networks from a seed, each broken in one place: how to undo that is known.

``python tests/breaking.py --count 2000`` breaks two thousand and sums up what the remedies were
worth; ``--worst 10`` prints the messages that helped least; ``--seed 17`` tells of one.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from functional_model import Fn
from torch import nn

from blitz_helpers import ShapeError, trace_shapes


@dataclass
class Case:
    """A broken network, its inputs, and what is known of it while it was good."""

    family: str
    broken: str
    model: nn.Module
    inputs: tuple
    undo: str  # a pattern of the remedy that undoes it
    batch: int
    ndim: int  # of the good output
    kwargs: dict = field(default_factory=dict)


def one_of(draw, *options):
    return options[draw.randrange(len(options))]


def other(draw, size, *taken):
    """Return a number near ``size`` that is neither it nor one of those taken."""
    near = [n for n in range(max(1, size - 4), size + 9) if n != size and n not in taken]
    return draw.choice(near)


def conv_net(draw):
    """Convolutions, norms and pools, then linear layers."""
    dims = one_of(draw, 1, 2, 2, 2, 3)
    conv, pool = getattr(nn, f"Conv{dims}d"), getattr(nn, f"MaxPool{dims}d")
    norm = getattr(nn, f"BatchNorm{dims}d")
    side = draw.randint(*((24, 60), (20, 40), (12, 18))[dims - 1])
    channels = one_of(draw, 1, 3, 4)
    batch = draw.randint(2, 6)
    breaks = (
        *("size", "size", "in_features", "in_channels", "out_channels", "norm", "no_flatten"),
        *("flatten_all", "channels_last", "input_channels", "no_batch", "extra_dim", "dtype"),
        *("layer_dtype", "flat_input", "view"),
    )
    broken = draw.choice(breaks)
    widths = [draw.randint(5, 12) for _ in range(draw.randint(1, 3))]
    with_norm = broken == "norm" or draw.random() < 0.4
    layers, inside, out = [], channels, side
    convs, norms = [], []
    for width in widths:
        kernel, padding = draw.choice((2, 3, 3, 5) if out > 5 else (1,)), draw.choice((0, 1))
        convs.append(len(layers))
        layers.append((conv, [inside, width, kernel], {"padding": padding}))
        out = out + 2 * padding - kernel + 1
        if with_norm:
            norms.append(len(layers))
            layers.append((norm, [width], {}))
        layers.append((nn.ReLU, [], {}))
        if out >= 8:
            layers.append((pool, [2], {}))
            out //= 2
        inside = width
    features = inside * out**dims
    flat = len(layers)
    layers.append((nn.Flatten, [], {}))
    head = len(layers)
    layers.append((nn.Linear, [features, draw.randint(8, 30)], {}))
    layers += [(nn.ReLU, [], {}), (nn.Linear, [layers[head][1][1], 10], {})]
    shape = [batch, channels, *[side] * dims]
    undo = ""
    if broken == "size":
        new = side + draw.choice((-6, -4, 4, 7, 10))
        shape[2:] = [new] * dims
        undo = rf"an input of .*(pixels|length)|SIZE {side}"
    elif broken == "in_features":
        wrong = other(draw, features)
        layers[head][1][0] = wrong
        undo = rf"^in_features={features}$"
    elif broken == "in_channels":
        at = draw.choice(convs)
        right = layers[at][1][0]
        layers[at][1][0] = other(draw, right)
        undo = rf"^in_channels={right}$"
    elif broken == "out_channels":
        at = draw.choice(convs)
        right = layers[at][1][1]
        layers[at][1][1] = other(draw, right)
        undo = rf"^out_channels={right} in .*{at}$"
    elif broken == "norm":
        at = draw.choice(norms)
        right = layers[at][1][0]
        layers[at][1][0] = other(draw, right)
        undo = rf"^num_features={right}$"
    elif broken == "no_flatten":
        layers[flat] = (nn.Identity, [], {})
        undo = r"Flatten\(\)|flatten\(1\)"
    elif broken == "flatten_all":
        layers[flat] = (nn.Flatten, [0], {})
        undo = r"Flatten\(\)|flatten\(1\)"
    elif broken == "view":
        layers[flat] = (View, [(-1, features // 2 if features % 2 == 0 else features + 1)], {})
        undo = r"flatten\(1\)"
    elif broken == "channels_last":
        shape = [batch, *shape[2:], channels]
        undo = r"permute\(0, \d, 1|transpose\(1, 2\)"
    elif broken == "input_channels":
        shape[1] = other(draw, channels, shape[2])
        undo = rf"an input of {channels} channels?$"
    elif broken == "no_batch":
        shape = shape[1:]
        undo = r"unsqueeze\(0\) on the input"
    elif broken == "extra_dim":
        shape = [1, *shape]
        undo = r"squeeze\(0\)"
    elif broken == "flat_input":
        shape = [batch, channels * side**dims]
        undo = rf"(reshape|view)\(-1, {channels}, {side}"
        undo += r"|unsqueeze\(1\)" if (channels, dims) == (1, 1) else ""
    modules = [kind(*args, **named) for kind, args, named in layers]
    if broken == "layer_dtype":
        modules[head].double()
        undo = r"to\(torch.float64\) before|to\(torch.float32\)"
    inputs = (tuple(shape),)
    if broken == "dtype":
        kind = draw.choice((torch.float64, torch.float16, torch.int64, torch.uint8))
        inputs = (torch.ones(shape, dtype=kind),)
        undo = r"x.to\(torch.float32\) on the input"
    batch = 1 if broken == "no_batch" else batch
    return Case("CNN", broken, nn.Sequential(*modules), inputs, undo, batch, 2)


class View(nn.Module):
    """A view as a layer."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def forward(self, x):
        return x.view(self.sizes)


def mlp(draw):
    """Linear layers with norms, on features or on images."""
    sizes = [draw.randint(10, 40) for _ in range(draw.randint(2, 4))]
    broken = one_of(
        draw,
        "in_features",
        "out_features",
        "norm",
        "input_features",
        "images",
        "dtype",
        "functional",
    )
    batch, images = draw.randint(2, 7), broken == "images"
    side = draw.randint(5, 9)
    if images:
        sizes[0] = side * side
    sizes.append(5)
    layers, undo = [], ""
    at = draw.randrange(1, len(sizes) - 1)
    for i, (a, b) in enumerate(pairwise(sizes)):
        if broken == "in_features" and i == at:
            a, undo = other(draw, a), rf"^in_features={a}$"
        if broken == "out_features" and i == at - 1:
            b, undo = other(draw, b), rf"^out_features={b} in"
        layers.append(nn.Linear(a, b))
        kind = one_of(draw, nn.BatchNorm1d, nn.LayerNorm)
        if broken == "norm" and i == at - 1:
            name = "num_features" if kind is nn.BatchNorm1d else "normalized_shape"
            undo = rf"^{name}=\(?{b},?\)?$"
            layers.append(kind(other(draw, b)))
        elif draw.random() < 0.3 and broken != "out_features":
            layers.append(kind(b))
        layers.append(nn.ReLU())
    shape = (batch, sizes[0])
    if broken == "input_features":
        shape, undo = (batch, other(draw, sizes[0])), rf"an input of {sizes[0]} features"
    if images:
        shape, undo = (batch, 1, side, side), r"flatten\(1\)"
    inputs = (shape,)
    if broken == "dtype":
        inputs, undo = (
            (torch.ones(shape, dtype=torch.float64),),
            r"to\(torch.float32\) on the input",
        )
    model = nn.Sequential(*layers)
    if broken == "functional":
        wrong = other(draw, sizes[0])
        weight = nn.Parameter(torch.zeros(6, wrong))
        model = Fn(lambda s, x: F.linear(F.relu(x), s.weight), weight=weight)
        undo = rf"an input of {wrong} features"
    return Case("MLP", broken, model, inputs, undo, batch, 2)


def u_net(draw):
    """Down, up, and joined on the way."""
    w, depth, batch = draw.randint(4, 8), draw.randint(1, 2), draw.randint(1, 3)
    broken = one_of(draw, "side", "side", "decoder", "encoder", "channels", "up")
    side = 4 * draw.randint(4, 8)
    channels = one_of(draw, 1, 3)
    widths = [w * 2**i for i in range(depth + 1)]
    downs, ups, joins = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
    inside, undo = channels, ""
    for width in widths:
        downs.append(nn.Conv2d(inside, width, 3, padding=1))
        inside = width
    for width in reversed(widths[:-1]):
        ups.append(nn.ConvTranspose2d(inside, width, 2, 2))
        joins.append(nn.Conv2d(2 * width, width, 3, padding=1))
        inside = width
    if broken == "decoder":
        right = joins[0].in_channels
        joins[0] = nn.Conv2d(other(draw, right), joins[0].out_channels, 3, padding=1)
        undo = rf"^in_channels={right}$"
    if broken == "encoder":
        right = downs[0].out_channels
        downs[0] = nn.Conv2d(channels, other(draw, right), 3, padding=1)
        undo = rf"^out_channels={right} in downs.0$"
    if broken == "up":
        right = ups[0].in_channels
        ups[0] = nn.ConvTranspose2d(other(draw, right), ups[0].out_channels, 2, 2)
        undo = rf"^in_channels={right}$"
    size = side
    if broken == "side":
        size = side + draw.choice((1, 2, 3) if depth == 2 else (1, 3))
        undo = r"a multiple of|pixels a side|F.pad|F.interpolate"

    def forward(s, x):
        skips = []
        for i, down in enumerate(s.downs):
            x = F.relu(down(x))
            if i < len(s.downs) - 1:
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for up, join in zip(s.ups, s.joins, strict=True):
            x = F.relu(join(torch.cat([up(x), skips.pop()], 1)))
        return s.last(x)

    model = Fn(forward, downs=downs, ups=ups, joins=joins, last=nn.Conv2d(inside, 2, 1))
    shape = (batch, channels, size, size)
    if broken == "channels":
        shape, undo = (batch, channels + 1, size, size), rf"an input of {channels} channels?$"
    return Case("U-Net", broken, model, (shape,), undo, batch, 4)


def encoder(draw):
    """Tokens, positions, attention; or patches of an image."""
    batch, length, table = draw.randint(2, 4), draw.randint(6, 14), 20
    width = 4 * draw.randint(3, 6)
    vocabulary = 30
    broken = one_of(
        draw, "positions", "vocabulary", "width", "head", "ids", "patches", "mask", "norm"
    )
    ids = torch.randint(
        vocabulary, (batch, length), generator=torch.Generator().manual_seed(length)
    )
    token_width = width
    undo, kwargs = "", {}
    attention = nn.MultiheadAttention(width, 4, batch_first=True)
    norm, head = nn.LayerNorm(width), nn.Linear(width, 7)
    words, positions = nn.Embedding(vocabulary, token_width), nn.Embedding(table, width)
    if broken == "positions":
        length = table + draw.randint(1, 6)
        ids = torch.zeros(batch, length, dtype=torch.long)
        undo = rf"num_embeddings={length}|length"
    if broken == "vocabulary":
        ids[0, 0] = vocabulary + 3
        undo = rf"num_embeddings={vocabulary + 4}"
    if broken == "width":
        words = nn.Embedding(vocabulary, other(draw, width))
        undo = rf"embedding_dim={width} in words"
    if broken == "head":
        head = nn.Linear(other(draw, width), 7)
        undo = rf"^in_features={width}$"
    if broken == "norm":
        norm = nn.LayerNorm(other(draw, width))
        undo = rf"^normalized_shape=\({width},\)$"
    inputs = (ids,)
    if broken == "ids":
        inputs, undo = (ids.float(),), r"long\(\)"
    if broken == "mask":
        wrong = length + draw.randint(1, 3)
        kwargs = {"mask": torch.zeros(length, wrong, dtype=torch.bool)}
        undo = rf"an input mask of \({length}, {length}\)"

    def forward(s, ids, mask=None):
        x = s.words(ids) + s.positions(torch.arange(ids.shape[1]))
        x = s.norm(x)
        x = x + s.attention(x, x, x, attn_mask=mask)[0]
        return s.head(x)

    model = Fn(forward, words=words, positions=positions, attention=attention, norm=norm, head=head)
    model.forward = forward.__get__(model)
    if broken == "patches":
        side, patch = 8 * draw.randint(2, 4), 8
        count = (side // patch) ** 2
        model = Fn(
            lambda s, x: s.head(s.patch(x).flatten(2).transpose(1, 2) + s.pos),
            patch=nn.Conv2d(3, width, patch, patch),
            pos=nn.Parameter(torch.zeros(1, count, width)),
            head=nn.Linear(width, 7),
        )
        inputs = ((batch, 3, side + 8, side + 8),)
        undo = "pixels a side"
    return Case("encoder", broken, model, inputs, undo, batch, 3, kwargs)


def recurrent(draw):
    """A recurrent layer and a head."""
    batch, length, size = draw.randint(2, 5), draw.randint(6, 11), draw.randint(12, 20)
    hidden = draw.randint(21, 30)
    kind = one_of(draw, nn.LSTM, nn.GRU, nn.RNN)
    broken = one_of(
        draw, "input_size", "head", "transposed", "features", "state", "hidden", "dtype"
    )
    layer, head = kind(size, hidden, batch_first=True), nn.Linear(hidden, 5)
    shape, undo = (batch, length, size), ""
    if broken == "input_size":
        layer, undo = kind(other(draw, size), hidden, batch_first=True), rf"^input_size={size}$"
    if broken == "head":
        head, undo = nn.Linear(other(draw, hidden), 5), rf"^in_features={hidden}$"
    if broken == "transposed":
        shape, undo = (batch, size, length), r"transpose\(1, 2\)"
    if broken == "features":
        shape, undo = (batch, length, other(draw, size, length)), rf"an input of {size} features"
    if broken == "state":
        layer, undo = kind(size, hidden), "batch_first=True"
    if broken == "hidden":
        layer = kind(size, other(draw, hidden), batch_first=True)
        undo = rf"hidden_size={hidden}"
    inputs = (shape,)
    if broken == "dtype":
        inputs, undo = (torch.ones(shape, dtype=torch.float64),), r"to\(torch.float32\)"

    def forward(s, x):
        if s.stateful:
            state = torch.zeros(1, x.shape[0], s.rnn.hidden_size)
            x = s.rnn(x, (state, state) if isinstance(s.rnn, nn.LSTM) else state)[0]
        else:
            x = s.rnn(x)[0]
        return s.head(x[:, -1])

    model = Fn(forward, rnn=layer, head=head)
    model.stateful = broken == "state"
    return Case("RNN", broken, model, inputs, undo, batch, 2)


def generator(draw):
    """Noise that becomes images."""
    batch, noise, width = draw.randint(2, 5), draw.randint(20, 40), draw.randint(6, 12)
    side = draw.randint(4, 7)
    broken = one_of(draw, "flat_noise", "in_channels", "norm", "view", "noise", "linear")
    undo = ""
    if broken in ("view", "linear"):
        out = width * side * side
        wrong = side + 1
        sizes = (-1, width, wrong, wrong) if broken == "view" else (-1, width, side, side)
        first = nn.Linear(noise, out if broken == "view" else out + width)
        undo = (
            rf"\(-1, {width}, {side}, {side}\)" if broken == "view" else rf"out_features={out} in"
        )
        up = nn.ConvTranspose2d(width, 1, 4, 2, 1)
        model = Fn(lambda s, z: s.up(s.first(z).view(sizes)), first=first, up=up)
        return Case("GAN", broken, model, ((batch, noise),), undo, batch, 4)
    widths = [noise, width, other(draw, width)]
    ups = [nn.ConvTranspose2d(widths[0], widths[1], 4), nn.BatchNorm2d(widths[1]), nn.ReLU()]
    ups += [
        nn.ConvTranspose2d(widths[1], widths[2], 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(widths[2], 1, 3),
    ]
    shape = (batch, noise, 1, 1)
    if broken == "flat_noise":
        shape, undo = (batch, noise), r"\[:, :, None, None\]"
    if broken == "in_channels":
        ups[3] = nn.ConvTranspose2d(other(draw, widths[1]), widths[2], 4, 2, 1)
        undo = rf"^in_channels={widths[1]}$"
    if broken == "norm":
        ups[1], undo = nn.BatchNorm2d(other(draw, widths[1])), rf"^num_features={widths[1]}$"
    if broken == "noise":
        shape, undo = (batch, other(draw, noise), 1, 1), rf"an input of {noise} channels"
    return Case("GAN", broken, nn.Sequential(*ups), (shape,), undo, batch, 4)


def residual(draw):
    """A block whose input is added to its output."""
    batch, width, side = draw.randint(2, 4), draw.randint(4, 9), draw.randint(8, 20)
    broken = one_of(draw, "stride", "padding", "width", "projection")
    first = nn.Conv2d(3, width, 3, padding=1)
    wide = other(draw, width) if broken in ("width", "projection") else width
    stride = 2 if broken in ("stride", "projection") else 1
    second = nn.Conv2d(width, wide, 3, stride, padding=0 if broken == "padding" else 1)
    undo = {
        "stride": r"stride=1 in second|stride=2\)",
        "padding": r"padding=1 in second",
        "width": rf"out_channels={width} in second|nn.Conv2d\({width}, {wide}, 1\)",
        "projection": rf"nn.Conv2d\({width}, {wide}, 1, stride=2\)",
    }[broken]
    model = Fn(
        lambda s, x: s.head(F.relu((x := s.first(x)) + s.second(x)).mean((2, 3))),
        first=first, second=second, head=nn.Linear(wide if broken == "projection" else width, 5),
    )  # fmt: skip
    return Case("residual", broken, model, ((batch, 3, side, side),), undo, batch, 2)


FAMILIES = (conv_net, conv_net, mlp, u_net, encoder, recurrent, generator, residual)


def case(seed: int) -> Case:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    return FAMILIES[seed % len(FAMILIES)](draw)


@dataclass
class Verdict:
    """What the remedies of one failure were worth."""

    case: Case
    message: str
    remedies: list[str]
    broken: list[str]  # those that fail in a real forward pass
    hiding: list[str]  # those after which the output is not what it was
    place: int | None  # of the one that undoes the break

    @property
    def badness(self) -> tuple[int, int, int]:
        return (len(self.broken), len(self.hiding), 9 if self.place is None else self.place)


def fails(one: Case) -> bool:
    """Whether the real forward pass fails."""
    tensors = [torch.randn(x) if isinstance(x, tuple) else x for x in one.inputs]
    try:
        with torch.no_grad():
            one.model(*tensors, **one.kwargs)
    except Exception:
        return True
    return False


def judge(one: Case) -> Verdict:
    """Trace a broken network, and run each remedy for real."""
    try:
        trace_shapes(one.model, *one.inputs, **one.kwargs)
    except ShapeError as error:
        found = error
    else:
        raise AssertionError(f"{one.family}, {one.broken}: the trace passes, torch does not")
    assert not getattr(found, "__notes__", ()), found.__notes__
    broken, hiding, place = [], [], None
    for i, remedy in enumerate(found.remedies):
        try:
            with torch.no_grad():
                output = remedy.run(one.model, *one.inputs, **one.kwargs)
        except Exception as error:
            broken.append(f"{remedy}: {type(error).__name__}: {error}")
            continue
        rows = output.shape[0] if output.dim() else None
        if output.dim() != one.ndim or (rows != one.batch and "batch" not in str(remedy)):
            hiding.append(f"{remedy}: {tuple(output.shape)}")
        if place is None and re.search(one.undo, str(remedy)):
            place = i
    texts = [str(remedy) for remedy in found.remedies]
    return Verdict(one, str(found), texts, broken, hiding, place)


def verdicts(seeds) -> list[Verdict]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [judge(one) for one in map(case, seeds) if fails(one)]


def summary(found: list[Verdict]) -> str:
    count = len(found)
    among = sum(v.place is not None for v in found)
    first = sum(v.place == 0 for v in found)
    some = sum(bool(v.remedies) for v in found)
    wrong = sum(len(v.broken) for v in found)
    hides = sum(len(v.hiding) for v in found)
    return (
        f"{count} failures, {sum(len(v.remedies) for v in found)} remedies: {wrong} fail for real, "
        f"{hides} hide the break; {some / count:.1%} have a remedy; the one that undoes the break "
        f"is among them in {among / count:.1%}, first in {first / count:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--worst", type=int, default=0)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.start, options.start + options.count)
    if options.seed is not None:
        seeds = [options.seed]
    found = verdicts(seeds)
    kinds: dict[tuple[str, str], Counter] = {}
    for v in found:
        one = kinds.setdefault((v.case.family, v.case.broken), Counter())
        one["all"] += 1
        one["undone"] += v.place is not None
        one["first"] += v.place == 0
        one["wrong"] += len(v.broken)
        one["hides"] += len(v.hiding)
        one["none"] += not v.remedies
    for (family, broken), counts in sorted(kinds.items()):
        numbers = "  ".join(f"{key} {counts[key]:4}" for key in
                            ("all", "undone", "first", "none", "wrong", "hides"))  # fmt: skip
        print(f"{family:10} {broken:16} {numbers}")
    print(summary(found))
    for v in sorted(found, key=lambda v: v.badness, reverse=True)[: options.worst]:
        print(
            f"\n{v.case.family}, {v.case.broken} on {v.case.inputs!r:.80}, undone by {v.case.undo}"
        )
        print(f"  {v.message}\n  fail: {v.broken}\n  hide: {v.hiding}")
    sys.exit(any(v.broken or v.hiding for v in found))


if __name__ == "__main__":
    main()

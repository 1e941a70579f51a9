"""Blocks of well-known architectures with one number wrong: the remedies set that number right."""

import pytest
import torch
import torch.nn.functional as F
from functional_model import Fn
from torch import nn

from blitz_helpers import ShapeError, trace_shapes


def conv(*sizes, **settings):
    return nn.Conv2d(*sizes, **settings)


def shortcut(s, x):
    return x + s.dw(s.norm(x))


def dense_block(s, x):
    x = torch.cat([x, s.first(x)], 1)
    return s.last(s.second(s.norm(x)))


def branches(s, x):
    y = torch.cat([s.a(x), s.b(x)], 1)
    return s.left(y), s.right(y)


def heads(s, x):
    q, k, v = s.qkv(x).view(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
    return s.out((q @ k.transpose(-2, -1) @ v).transpose(1, 2).reshape(len(x), -1, 8))


def detections(s, x):
    x = s.head(x)
    return x.view(len(x), 3, 10, *x.shape[2:])


def gated(s, x):
    return s.last(F.glu(s.first(x), 1))


def scaled(s, x, time):
    scale, shift = s.time(time)[..., None, None].chunk(2, 1)
    return s.conv(x) * (1 + scale) + shift


def attended(s, x):
    return s.key(x).transpose(1, 2) @ s.query(x)


def mixed(s, x):
    return torch.einsum("be,bed->bd", s.gate(x), s.experts(x).unflatten(1, (4, 8)))


def tokens(s, x):
    return x + s.slide(x.transpose(1, 2)).transpose(1, 2)


def decoded(s, source, target):
    return s.decode(target, s.encode(source)[1])


def stepped(s, x):
    return s.cell(x, torch.zeros(len(x), 12))


def pyramid(s, x):
    fine = s.fine(x)
    return fine + F.interpolate(s.coarse(fine), scale_factor=2)


def windows(s, x):
    x = s.patch(x).permute(0, 2, 3, 1)
    n, height, width, channels = x.shape
    x = x.view(n, height // 7, 7, width // 7, 7, channels).transpose(2, 3)
    return s.linear(x.reshape(n, -1, 49, channels))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        n, channels, _, _ = x.size()
        return x * self.linear(x.mean((2, 3))).view(n, channels, 1, 1)


def masked(s, x, mask):
    return s.linear(x).masked_fill(~mask.unsqueeze(-1), 0.0)


def remembered(s, x):
    return s.rnn(x, torch.zeros(4, len(x), 6))[0]


def picked(s, x, at):
    return s.linear(x).gather(1, at)


def nested_unet(s, x):
    down = s.first(x)
    deep = s.second(F.max_pool2d(down, 2))
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    deep = torch.cat([deep, up(s.third(F.max_pool2d(deep, 2)))], 1)
    return torch.cat([down, up(deep)], 1)


def in_time(s, x):
    time = torch.zeros(1).expand(len(x), 1)
    return s.linear(torch.cat([x, time], 1))


def edges_summed(s, x, edges):
    return torch.zeros(len(x), 4).index_add(0, edges[1], s.linear(x)[edges[0]])


def neighbours(s, x, edges):
    source, target = edges
    return s.linear(torch.zeros(len(x), x.size(1)).index_add_(0, target, x[source]))


def pooled(s, x, mask):
    return (s.linear(x) * mask.unsqueeze(-1)).sum(1)


def compared(s, a, b):
    return s.net(a) - s.net(b)


def last_frame(s, x):
    return s.linear(x[:, :, x.size(2) - 1])


def rebuilt(s, x):
    return F.mse_loss(s.up(s.down(x)), x)


def chosen(s, x, action):
    return s.values(x).gather(1, action)


def begun(s, x):
    return s.rnn(x, torch.zeros(len(x), 8))[0]


def scored(s, x, target):
    return F.cross_entropy(s.layer(x), target)


def looked_up(s, ids):
    return sum(s.table(one) for one in ids.T)


# The model, its inputs, and what the hint has.
FAULTS = {
    "a depthwise convolution beside a shortcut": (
        Fn(shortcut, norm=nn.BatchNorm2d(16), dw=conv(32, 32, 3, padding=1, groups=32)),
        [(2, 16, 8, 8)],
        "in_channels=16, groups=16 in dw and out_channels=16 in dw",
    ),
    "the growth of a dense block": (
        Fn(dense_block, first=conv(8, 5, 3, padding=1), norm=nn.BatchNorm2d(12),
           second=conv(12, 4, 1), last=conv(4, 2, 1)), [(2, 8, 6, 6)], "out_channels=4 in first",
    ),
    "a branch whose result two layers take": (
        Fn(branches, a=conv(3, 4, 1), b=conv(3, 6, 1), left=conv(8, 2, 1), right=conv(8, 2, 1)),
        [(2, 3, 5, 5)], "out_channels=4 in b",
    ),
    "queries, keys and values of too many features": (
        Fn(heads, qkv=nn.Linear(8, 30), out=nn.Linear(8, 8)), [(2, 5, 8)],
        "out_features=24 in qkv",
    ),
    "anchors and classes of a detector": (
        Fn(detections, head=conv(8, 33, 1)), [(2, 8, 4, 4)], "out_channels=30 in head",
    ),
    "a window that shrinks what a view reads": (
        Fn(lambda s, x: s.conv(x).view(2, 3, 36), conv=conv(3, 3, 3)), [(2, 3, 6, 6)],
        "padding=1 in conv",
    ),
    "a gate that halves the channels": (
        Fn(gated, first=nn.Conv1d(4, 10, 1), last=nn.Conv1d(4, 4, 1, groups=4)), [(2, 4, 6)],
        "out_channels=8 in first",
    ),
    "a scale and a shift out of one layer": (
        Fn(scaled, conv=conv(3, 8, 1), time=nn.Linear(6, 20)), [(2, 3, 4, 4), (2, 6)],
        "out_features=16 in time",
    ),
    "keys of another size than queries": (
        Fn(attended, key=nn.Linear(6, 4), query=nn.Conv1d(5, 4, 1)), [(2, 5, 6)],
        "out_channels=5 in query",
    ),
    "more gates than experts": (
        Fn(mixed, gate=nn.Linear(8, 6), experts=nn.Linear(8, 32)), [(3, 8)],
        "out_features=4 in gate",
    ),
    "a window over time between transposes": (
        Fn(tokens, slide=nn.Conv1d(8, 8, 5, padding=1)), [(2, 9, 8)], "padding=2 in slide",
    ),
    "a decoder of another size than its encoder": (
        Fn(decoded, encode=nn.GRU(4, 12), decode=nn.GRU(4, 16)), [(7, 2, 4), (5, 2, 4)],
        "hidden_size=12, or hidden_size=16 in encode",
    ),
    "a cell of another size than its state": (
        Fn(stepped, cell=nn.GRUCell(4, 16)), [(2, 4)], "hidden_size=12",
    ),
    "a stride that is too large": (
        Fn(pyramid, fine=conv(3, 4, 3, stride=2, padding=1),
           coarse=conv(4, 4, 3, stride=4, padding=1)), [(2, 3, 32, 32)], "stride=2 in coarse",
    ),
    "a recurrent layer that takes the batch for time": (
        Fn(lambda s, x: s.linear(x + s.rnn(x)[1].transpose(0, 1)),
           rnn=nn.GRU(8, 8), linear=nn.Linear(8, 3)), [(2, 5, 8)], "batch_first=True in rnn",
    ),
    "windows that do not divide the sides": (
        Fn(windows, patch=conv(3, 6, 4, stride=4), linear=nn.Linear(6, 2)), [(2, 3, 100, 100)],
        "an input of 112 to 115 pixels a side",
    ),
    "sides that cannot be halved": (
        nn.Sequential(conv(1, 4, 3), nn.PixelUnshuffle(2)), [(1, 1, 11, 11)],
        "an input of a multiple of 2 pixels a side",
    ),
    "code that unpacks the shape of a batch": (
        nn.Sequential(nn.Identity(), Gate()), [(4, 6, 6)],
        "x.unsqueeze(0) on the input",
    ),
    "a mask of numbers": (
        Fn(masked, linear=nn.Linear(4, 4)), [(2, 3, 4), torch.ones(2, 3)], "x.bool()",
    ),
    "a state for two directions": (
        Fn(remembered, rnn=nn.GRU(4, 6, 3, batch_first=True, bidirectional=True)), [(2, 5, 4)],
        "num_layers=2",
    ),
    "a state of fewer layers than there are": (
        Fn(remembered, rnn=nn.GRU(4, 6, 5, batch_first=True)), [(2, 5, 4)], "num_layers=4",
    ),
    "an index beyond the features": (
        Fn(picked, linear=nn.Linear(8, 4)), [(2, 8), torch.tensor([[4], [1]])],
        "out_features=5 in linear",
    ),
    "a side that a nested U-Net halves twice": (
        Fn(nested_unet, first=conv(3, 4, 1), second=conv(4, 4, 1), third=conv(4, 4, 1)),
        [(2, 3, 31, 31)], "an input of a multiple of 4 pixels a side",
    ),
    "numbers of another kind behind a join": (
        Fn(in_time, linear=nn.Linear(5, 2)), [torch.zeros(3, 4, dtype=torch.float64)],
        "x.to(torch.float32) on the input",
    ),
    "edges that are no whole numbers": (
        Fn(edges_summed, linear=nn.Linear(3, 4)), [(5, 3), torch.zeros(2, 6)],
        "x.long() on the input number 1",
    ),
    "a mask of another length": (
        Fn(pooled, linear=nn.Linear(5, 4)), [(3, 7, 5), torch.ones(3, 6)],
        "input number 1 of (3, 7), or input number 0 of (3, 6, 5)",
    ),
    "a second image without a batch": (
        Fn(compared, net=nn.Sequential(conv(1, 4, 5), nn.Flatten(), nn.Linear(64, 8))),
        [(1, 1, 8, 8), (1, 8, 8)], "x.unsqueeze(0) on the input number 1",
    ),
    "a size of a dimension that is not there": (
        Fn(last_frame, linear=nn.Linear(5, 2)), [(5, 6)], "x.unsqueeze(0) on the input",
    ),
    "features that are added up along edges": (
        Fn(neighbours, linear=nn.Linear(4, 3)), [(6, 5), torch.tensor([[0, 1, 5], [3, 4, 2]])],
        "input number 0 of 4 features",
    ),
    "an autoencoder whose sides were odd": (
        Fn(rebuilt, down=nn.Sequential(conv(1, 4, 3, 2, 1), conv(4, 8, 3, 2, 1)),
           up=nn.Sequential(nn.ConvTranspose2d(8, 4, 3, 2, 1), nn.ConvTranspose2d(4, 1, 3, 2, 1))),
        [(2, 1, 28, 28)], "Use output_padding=1 in up.0 and up.1",
    ),
    "actions that are not a column": (
        Fn(chosen, values=nn.Linear(4, 2)), [(8, 4), torch.zeros(8, dtype=torch.long)],
        "Use x.unsqueeze(1) on the input number 1.",
    ),
    "a state without layers": (
        Fn(begun, rnn=nn.GRU(4, 8, batch_first=True)), [(2, 5, 4)],
        "x.unsqueeze(0) on the one of (2, 8)",
    ),
    "labels as large as the image": (
        Fn(scored, layer=conv(3, 5, 3)), [(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long)],
        "padding=1 in layer",
    ),
    "classes as rows of whole numbers": (
        Fn(scored, layer=nn.Linear(4, 3)), [(3, 4), torch.eye(3, dtype=torch.long)],
        "x.to(torch.float32) on the input number 1",
    ),
    "a weight the wrong way around": (
        Fn(lambda s, x: x @ s.weight, weight=nn.Parameter(torch.zeros(6, 8))), [(2, 8)],
        "Use x.transpose(-2, -1) on the one of (6, 8)",
    ),
    "a single sample of numbers": (
        nn.Sequential(nn.Linear(4, 16), nn.Linear(32, 2)), [(4,)], "in_features=16",
    ),
    "larger indices than the first": (
        Fn(looked_up, table=nn.Embedding(4, 3)), [torch.tensor([[1, 9], [5, 2]])],
        "Use num_embeddings=10.",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("model", "inputs", "has"), FAULTS.values(), ids=FAULTS)
def test_the_number_that_is_wrong_is_among_the_remedies(model, inputs, has):
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, *inputs)
    assert has in caught.value.hint
    assert not getattr(caught.value, "__notes__", ())
    with torch.no_grad():
        for remedy in caught.value.remedies:
            remedy.run(model, *inputs)


def test_einsum_counts_no_products_that_are_not_summed():
    def scan(s, x):
        return torch.einsum("bld,dn,bln->bldn", x, torch.zeros(4, 3), torch.zeros(2, 5, 3))

    assert trace_shapes(Fn(scan), (2, 5, 4)).num_macs == 0
    summed = Fn(lambda s, x: torch.einsum("bld,dn->bln", x, torch.zeros(4, 3)))
    assert trace_shapes(summed, (2, 5, 4)).num_macs == 2 * 5 * 4 * 3


def test_the_message_says_which_module_unpacked_which_shape():
    with pytest.raises(
        ShapeError, match=r"Gate 1 got \(2, 144\), .* unpacks into 4 sizes"
    ) as caught:
        trace_shapes(nn.Sequential(nn.Flatten(), Gate()), (2, 4, 6, 6))
    assert caught.value.step.module == "1"


def test_an_error_in_unpacking_anything_else_comes_through():
    def pair(s, x):
        first, second = x.split(2)
        return first + second

    with pytest.raises(ValueError, match="unpack"):
        trace_shapes(Fn(pair), (6, 3))


def test_a_view_is_blamed_only_for_the_dimension_into_which_it_mixed_the_batch():
    model = Fn(lambda s, x: s.linear(x.view(-1, 8)), linear=nn.Linear(6, 2))
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, (2, 5, 8))
    assert "mixed" not in str(caught.value)


def test_channels_are_not_blamed_where_other_sides_explain_the_number():
    model = nn.Sequential(
        conv(1, 6, 5), nn.MaxPool2d(2), conv(6, 16, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 10),
    )  # fmt: skip
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, (2, 1, 28, 28))
    assert caught.value.hint == "Use in_features=256, or an input of 32 to 35 pixels a side."


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda s, x: x.sum().amax(0), [(2, 3)]),
        (lambda s, x: x.sum().max(-1).values, [(2, 3)]),
        (lambda s, x: x[:, 2:].sum(1), [(5, 2)]),
        (lambda s, x, at: x.gather(1, at), [(5, 4), torch.zeros(0, dtype=torch.long)]),
        (lambda s, x: torch.stack([x, x])[torch.tensor([1, 0], dtype=torch.int32)], [(5, 4)]),
    ],
)
def test_what_torch_takes_is_not_refused(function, inputs):
    model = Fn(function)
    real = model(*[torch.randn(x) if isinstance(x, tuple) else x for x in inputs])
    assert trace_shapes(model, *inputs).output_shape == tuple(real.shape)

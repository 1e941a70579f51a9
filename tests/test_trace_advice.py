"""Advice for the slips that people make with models of many kinds: what it offers, and what not."""

import pytest
import torch
import torch.nn.functional as F
from functional_model import Fn
from torch import nn

from blitz_helpers import ShapeError, trace_shapes


def patches(s, x):
    return s.patch(x).flatten(2).transpose(1, 2)


def with_token(s, x):
    return torch.cat([s.token, patches(s, x)], 1)


def with_positions(s, x):
    return torch.cat([s.token.expand(len(x), -1, -1), patches(s, x)], 1) + s.positions


def token_model(forward):
    return Fn(
        forward,
        patch=nn.Conv2d(3, 32, 8, 8),
        token=nn.Parameter(torch.zeros(1, 1, 32)),
        positions=nn.Parameter(torch.zeros(1, 17, 32)),
    )


def upsampled(ndim):
    conv, transposed = [
        (nn.Conv2d, nn.ConvTranspose2d),
        (nn.Conv3d, nn.ConvTranspose3d),
    ][ndim - 2]
    parts = {"down": conv(2, 4, 3, 2, 1), "up": transposed(4, 2, 3, 2, 1)}
    return Fn(lambda s, x: x + s.up(s.down(x)), **parts)


def labelled(s, noise, label):
    return torch.cat([noise, s.table(label)], 1)


def real_or_not(s, x, label):
    return F.binary_cross_entropy_with_logits(s.conv(x).view(-1), label)


def autoencoder(s, x):
    return F.mse_loss(s.linear(x.flatten(1)), x)


def graph_layer(s, x, edges):
    return edges @ s.linear(x)


def heads(s, x):
    return s.linear(x).split([8, 8, 8], -1)


def cached(s, x, cache):
    return torch.cat([cache, s.keys(x)], 1)


def weight(*shape):
    return nn.Parameter(torch.zeros(shape))


def scored(s, ids, target):
    scores = s.table(ids)
    return F.cross_entropy(scores.flatten(0, 1), target.flatten())


def timed(s, x, t):
    return s.conv(x) + s.linear(t)[:, :, None, None]


PADDED = nn.Conv2d(3, 8, 3, padding=1)
TWICE = nn.Sequential(PADDED, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16 * 16, 10))
LABELS = torch.zeros(8, 1, dtype=torch.long)
# The model, its inputs, what the hint has, and what it does not.
SLIPS = {
    "a token that is not expanded": (
        token_model(with_token), [(2, 3, 32, 32)], ["x.expand(2, -1, -1)"], [],
    ),
    "positions of another image": (
        token_model(with_positions), [(2, 3, 48, 48)], ["32 to 39 pixels"], ["Conv1d"],
    ),
    "upsampling that rounds down": (upsampled(2), [(1, 2, 28, 28)], ["output_padding=1 in up"], []),
    "the same for volumes": (upsampled(3), [(1, 2, 8, 8, 8)], ["output_padding=1 in up"], []),
    "labels in a column": (
        Fn(labelled, table=nn.Embedding(10, 50)), [(8, 100), LABELS], ["x.squeeze(1)"], [],
    ),
    "a larger image than the critic takes": (
        Fn(real_or_not, conv=nn.Conv2d(3, 1, 8, 4)), [(8, 3, 16, 16), (8,)],
        ["of 8 to 11 pixels"], ["Linear"],
    ),
    "flat rows against images": (
        Fn(autoencoder, linear=nn.Linear(64, 64)), [(4, 1, 8, 8)],
        ["x.reshape(-1, 1, 8, 8)", "x.flatten(1)"], ["None"],
    ),
    "features of the nodes of a graph": (
        Fn(graph_layer, linear=nn.Linear(4, 8)), [(5, 3), (5, 5)], ["in_features=3"], [],
    ),
    "one more feature than three heads take": (
        Fn(heads, linear=nn.Linear(8, 25)), [(2, 5, 8)], ["out_features=24 in linear"], [],
    ),
    "keys that are narrower than those kept": (
        Fn(cached, keys=nn.Linear(8, 4)), [(2, 1, 8), (2, 5, 8)],
        ["out_features=8 in keys"], ["x[:"],
    ),
    "an embedding of the time without sides": (
        Fn(timed, conv=nn.Conv2d(3, 8, 3, padding=1), linear=nn.Linear(4, 16)),
        [(2, 3, 6, 6), (2, 4)], ["out_features=8"], ["stride"],
    ),
    "a shortcut beside a stride": (
        Fn(lambda s, x: x + s.conv(x), conv=nn.Conv2d(8, 8, 3, 2, 1)), [(1, 8, 8, 8)],
        ["stride=1 in conv", "nn.Conv2d(8, 8, 1, stride=2)"], ["1 to 2 pixels"],
    ),
    "an oblong image": (TWICE, [(2, 3, 32, 48)], ["32 to 33 pixels a side"], []),
    "features against a table": (
        Fn(lambda s, x: x * torch.ones(5, 4)), [(2, 5, 8)], ["4 features"], ["length"],
    ),
    "two targets": (
        Fn(lambda s, x, y: F.smooth_l1_loss(x, y)), [(3, 4), (3, 5)], ["of (3, 4)"], ["Linear"],
    ),
    "targets of another length": (
        Fn(scored, table=nn.Embedding(50, 8)),
        [torch.zeros(2, 10, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)],
        ["input number 0 of length 9", "input number 1 of length 10"], [],
    ),
    "one image for a layer of many": (
        nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), [(28, 28)], ["x.unsqueeze(0)"], [],
    ),
    "a spectrum for layers of real numbers": (
        Fn(lambda s, x: s.norm(torch.fft.fft(x)), norm=nn.LayerNorm(8)), [(2, 8)],
        ["x.abs() before norm"], ["model.to"],
    ),
    "samples of vmap": (
        Fn(lambda s, x: torch.vmap(s.linear)(x), linear=nn.Linear(4, 3)), [(2, 3, 5)],
        ["in_features=5", "an input of 4 features"], [],
    ),
    "two weights that do not meet": (
        Fn(lambda s, x: x @ s.a @ s.b, a=weight(8, 2), b=weight(4, 6)), [(2, 8)],
        ["b of (2, 6)"], [],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("model", "inputs", "has", "lacks"), SLIPS.values(), ids=SLIPS)
def test_the_advice_is_what_the_shapes_call_for(model, inputs, has, lacks):
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, *inputs)
    hint = caught.value.hint
    assert [text for text in has if text not in hint] == []
    assert [text for text in lacks if text in hint] == []
    with torch.no_grad():
        for remedy in caught.value.remedies:
            remedy.run(model, *inputs)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_remedy_leaves_a_model_as_it_was_that_cannot_be_copied():
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 6)))
    weight = model[0].weight
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, (2, 9))
    caught.value.remedies[0].run(model, (2, 9))
    assert model[0].weight is weight


def test_a_message_names_the_state_that_was_given():
    model = Fn(lambda s, x: s.cell(x, torch.zeros(1, 5, 16)), cell=nn.GRU(8, 16))
    with pytest.raises(ShapeError, match=r"hidden state of \(1, 5, 16\), wants 2 dimensions"):
        trace_shapes(model, (7, 8))
    with pytest.raises(ShapeError, match="wants 3 dimensions"):
        trace_shapes(Fn(lambda s, x, y: torch.bmm(x, y)), (3, 4), (2, 4, 3))

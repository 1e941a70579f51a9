"""What a message advises was tried, and works when it is followed."""

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from functional_model import Fn
from torch import nn

from blitz_helpers import Network, Remedy, ShapeError, trace_shapes


def error_of(model, *inputs, **kwargs) -> ShapeError:
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, *inputs, **kwargs)
    assert not getattr(caught.value, "__notes__", ())
    return caught.value


def outputs_of(error, model, *inputs, **kwargs):
    """Return what each remedy gives in a real forward pass."""
    with torch.no_grad():
        return [one.run(model, *inputs, **kwargs) for one in error.remedies]


def remedied(model, *inputs, batch=None, **kwargs) -> str:
    """Return the message of a failure whose remedies were run, and kept the batch."""
    with pytest.raises((RuntimeError, ValueError, IndexError, AssertionError)):
        model(*[torch.randn(x) if isinstance(x, tuple) else x for x in inputs], **kwargs)
    error = error_of(model, *inputs, **kwargs)
    assert error.remedies
    assert 0 < len(error.remedies) <= 3
    assert error.hint in str(error)
    for remedy, output in zip(
        error.remedies, outputs_of(error, model, *inputs, **kwargs), strict=True
    ):
        assert str(remedy) in error.hint
        assert remedy.kind in ("input", "layer", "code")
        while isinstance(output, tuple):
            output = output[0]
        if batch is not None:
            assert output.shape[0] == batch, remedy
    return str(error)


def longs(*shape):
    return torch.zeros(shape, dtype=torch.long)


def with_view(sizes, channels=16):
    conv, fc = nn.Conv2d(1, channels, 5), nn.Linear(576, 10)
    return Fn(lambda s, x: s.fc(s.conv(x).view(sizes)), conv=conv, fc=fc)


ADD = Fn(lambda s, x, y: x + y)
CONV_NET = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))


@pytest.mark.parametrize(
    ("model", "inputs", "says", "batch"),
    [
        # A batch dimension too few or too many.
        (CONV_NET, [(3, 32, 32)], "x.unsqueeze(0) on the input", 1),
        (CONV_NET, [(1, 2, 3, 32, 32)], "x.squeeze(0) on the input", 2),
        (nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)), [(3, 9, 9)], "unsqueeze(0)", 1),
        (CONV_NET, [(32, 32, 3)],
         "x.permute(2, 0, 1) on the input and x.unsqueeze(0) on the input", 1),
        # Vectors for convolutions.
        (nn.Sequential(nn.ConvTranspose2d(9, 4, 4)), [(2, 9)], "x[:, :, None, None]", 2),
        (nn.Sequential(nn.Conv2d(1, 8, 3)), [(64, 784)], "x.reshape(-1, 1, 28, 28)", 64),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), [(4, 3072)], "x.reshape(-1, 3, 32, 32)", 4),
        (nn.Sequential(nn.Conv1d(1, 4, 80, 4)), [(2, 16000)], "x.unsqueeze(1)", 2),
        (nn.Sequential(nn.Conv1d(4, 8, 3), nn.Flatten(), nn.Linear(448, 3)), [(4, 232)],
         "x.reshape(-1, 4, 58) on the input", 4),
        # Flattening left out, or of the batch as well.
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.Linear(8 * 676, 5)), [(4, 1, 28, 28)],
         "nn.Flatten() before Linear 1", 4),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(0), nn.Linear(8 * 676, 5)),
         [(4, 1, 28, 28)], "x.flatten(1) in the place of flatten", 4),
        (Fn(lambda s, x: s.fc(torch.flatten(s.c(x))), c=nn.Conv2d(3, 8, 3),
            fc=nn.Linear(7200, 10)), [(4, 3, 32, 32)], "mixed the batch of 4", 4),
        # Features and channels that stand elsewhere.
        (nn.Sequential(nn.Linear(16, 2)), [(2, 16, 10)], "x.transpose(1, 2) on the input", 2),
        (nn.Sequential(nn.Conv1d(16, 4, 3)), [(2, 20, 16)], "x.transpose(1, 2)", 2),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), [(2, 9, 9, 3)], "x.permute(0, 3, 1, 2)", 2),
        (nn.Sequential(nn.Conv3d(3, 4, 3)), [(2, 8, 8, 8, 3)], "x.permute(0, 4, 1, 2, 3)", 2),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.LayerNorm(8)), [(1, 3, 8, 8)],
         "x.permute(0, 2, 3, 1) before LayerNorm 1", 1),
        (nn.Sequential(nn.BatchNorm1d(16)), [(2, 10, 16)], "x.transpose(1, 2)", 2),
        # Sizes of the input.
        (nn.Sequential(nn.Conv1d(1, 6, 3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(90, 10)),
         [(1, 1, 28)], "an input of length 32 to 33", 1),
        (nn.Sequential(nn.Conv3d(1, 4, 3), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(1372, 10)),
         [(2, 1, 12, 12, 12)], "an input of 16 to 17 pixels a side", 2),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4)), [(2, 4)], "Linear 1 got 4 features", 2),
        # Groups, norms of one value, tables.
        (nn.Sequential(nn.Conv2d(16, 16, 3, groups=16)), [(2, 8, 9, 9)], "in_channels=8, groups=8",
         2),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8)),
         [(1, 3, 8, 8)], "model.eval(), or a batch of 2 or more", None),
        (nn.Sequential(nn.Embedding(10, 4)), [torch.tensor([[1, 12]])], "num_embeddings=13", 1),
        (Fn(lambda s, i: s.words(i) + s.places(torch.arange(i.shape[1])), words=nn.Embedding(50, 8),
            places=nn.Embedding(16, 8)), [longs(2, 20)], "an input of length 1 to 16", 2),
        # What is joined or added.
        (Fn(lambda s, x, y, z: torch.cat([x, y, z], 1)), [(2, 3, 8, 8), (2, 5, 8, 8), (2, 3, 9, 8)],
         "on the one of (2, 3, 9, 8)", 2),
        (Fn(lambda s, x: s.o(torch.cat([x, s.u(s.d(x))], 1)), d=nn.Conv2d(3, 8, 3, 2, 1),
            u=nn.ConvTranspose2d(8, 8, 2, 2), o=nn.Conv2d(11, 1, 1)), [(2, 3, 31, 31)],
         "a multiple of 2 pixels a side", 2),
        (ADD, [(4, 16, 8, 8), (4, 16)], "x[:, :, None, None] on the one of (4, 16)", 4),
        (ADD, [(2, 3), (3, 2)], "x.transpose(0, 1) on the one of (3, 2)", 2),
        (Fn(lambda s, x: x + s.c(x), c=nn.Conv2d(8, 16, 3, 2, 1)), [(1, 8, 32, 32)],
         "nn.Conv2d(8, 16, 1, stride=2) on the one of (1, 8, 32, 32)", 1),
        (Fn(lambda s, x: s.p(x).flatten(2).transpose(1, 2) + s.pos, p=nn.Conv2d(3, 8, 16, 16),
            pos=nn.Parameter(torch.zeros(1, 196, 8))), [(2, 3, 256, 256)],
         "an input of 224 to 239 pixels a side", 2),
        (Fn(lambda s, x: (x := s.a(x)) + s.b(x), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 1, 3, 2, 1)),
         [(2, 3, 16, 16)], "nn.Conv2d(4, 1, 1, stride=2) on the one of (2, 4, 16, 16)", 2),
        (Fn(lambda s, x: s.c(x).add_(x), c=nn.Conv2d(3, 3, 3)), [(1, 3, 8, 8)],
         "padding=1 in c, or F.pad(x, (1, 1, 1, 1)) on the one of (1, 3, 6, 6)", 1),
        (Fn(lambda s, x: s.q(x) @ s.k(x), q=nn.Linear(8, 8), k=nn.Linear(8, 8)), [(2, 7, 8)],
         "x.transpose(-2, -1) on the second one of (2, 7, 8)", 2),
        # Views.
        (Fn(lambda s, x: x.transpose(1, 2).view(x.shape[0], -1)), [(2, 3, 5)],
         "x.reshape(...) in the place of x.view(...)", 2),
        (Fn(lambda s, z: s.up(s.l(z).view(-1, 32, 7, 7)), l=nn.Linear(20, 32 * 36),
            up=nn.ConvTranspose2d(32, 1, 4, 2, 1)), [(8, 20)], "(-1, 32, 6, 6)", 8),
        (nn.Sequential(nn.Linear(8, 18), nn.Unflatten(1, (4, 5))), [(2, 8)],
         "out_features=20 in Linear 0", 2),
        # Channels that become pixels, or gates.
        (nn.Sequential(nn.Conv2d(1, 6, 3), nn.PixelShuffle(2)), [(2, 1, 8, 8)],
         "wants a multiple of 2*2 = 4. Use out_channels=8 in Conv2d 0", 2),
        (nn.PixelShuffle(3), [(2, 6, 8, 8)], "an input of 9 channels", 2),
        (nn.Sequential(nn.Linear(4, 5), nn.GLU()), [(2, 4)],
         "got 5 features, wants an even number. Use out_features=6 in Linear 0", 2),
        # Attention and recurrent layers.
        (Fn(lambda s, x: s.a(x, x, x)[0], a=nn.MultiheadAttention(64, 4, batch_first=True)),
         [(2, 5, 32)], "embed_dim=32, or an input of 64 features", 2),
        (Fn(lambda s, x, y: s.a(x, y, y)[0], a=nn.MultiheadAttention(64, 4, batch_first=True)),
         [(2, 5, 64), (2, 7, 32)], "kdim=32, vdim=32", 2),
        (Fn(lambda s, q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m)),
         [(2, 4, 7, 8), torch.zeros(2, 7, dtype=torch.bool)], "x[:, None, None, :]", 2),
        (Fn(lambda s, x: s.l(x, (h := torch.zeros(1, x.size(0), 20), h)), l=nn.LSTM(10, 20)),
         [(32, 7, 10)], "batch_first=True", 32),
        (Fn(lambda s, x, h: s.l(x, h)[0], l=nn.GRU(10, 20)), [(7, 2, 10), (1, 3, 20)],
         "of (1, 2, 20)", 7),
        (Fn(lambda s, x, h: s.l(x, h)[0], l=nn.GRU(10, 20, batch_first=True)),
         [(4, 7, 10), (4, 20)], "x.unsqueeze(0) on the input number 1", 4),
        # Losses.
        (Fn(lambda s, x, t: F.cross_entropy(x, t)), [(4, 7, 5), longs(4, 7)],
         "x.transpose(1, 2) on the one of (4, 7, 5)", None),
        (Fn(lambda s, x, t: F.cross_entropy(x, t)), [(4, 5), longs(4, 1)], "x.squeeze(1)", None),
        (Fn(lambda s, x, t: F.cross_entropy(x, t)), [(4, 5), torch.zeros(4)], "x.long()", None),
        # Dtypes.
        (nn.Sequential(nn.Linear(8, 4, dtype=torch.complex64)), [(2, 8)],
         "got an input of torch.float32, wants torch.complex64", 2),
        (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8).double()), [(4, 8)],
         "x.to(torch.float64) before Linear 1", 4),
    ],
)  # fmt: skip
def test_a_failure_names_a_change_that_works(model, inputs, says, batch):
    assert says in remedied(model, *inputs, batch=batch)


@pytest.mark.parametrize(
    ("model", "inputs", "never"),
    [
        # A convolution made the channels: 64 is the width of the picture.
        (nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)),
         [(2, 3, 64, 64)], "permute"),
        # 13 is the width, and no count of features.
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.Linear(8 * 13 * 13, 10)),
         [(4, 1, 28, 28)], "in_features=13"),
        (nn.Sequential(nn.Linear(16, 2)), [(2, 16, 10)], "in_features"),
        (nn.Sequential(nn.Conv2d(64, 8, 3)), [(2, 3, 64, 64)], "permute"),
        # An outer sum, and a new dimension for a number that was mistyped.
        (ADD, [(4, 1), (5, 1)], "squeeze"),
        (Fn(lambda s, x: F.softmax(x, dim=2)), [(2, 5)], "unsqueeze"),
        # The rows of a batch are not one sample.
        (nn.Sequential(nn.Linear(64, 3)), [(2, 32)], "unsqueeze"),
        (nn.Sequential(nn.Conv2d(1, 8, 3)), [(64, 784)], "None"),
        (with_view((-1, 400)), [(25, 1, 28, 28)], "in_features=400"),
    ],
)  # fmt: skip
def test_no_axis_is_taken_for_what_it_is_not(model, inputs, never):
    assert never not in error_of(model, *inputs).hint


def test_a_view_that_mixes_the_batch_is_named():
    assert "view mixed the batch of 25" in str(error_of(with_view((-1, 400)), (25, 1, 28, 28)))
    split = Fn(lambda s, x: s.f(x.view(2, 3, 20).flatten(1)), f=nn.Linear(20, 2))
    assert "flatten mixed the batch of 6" in str(error_of(split, (6, 20)))


QUERY = torch.zeros(2, 5, 8)


@pytest.mark.parametrize(
    ("layer", "inputs", "says"),
    [
        (nn.Conv2d(4, 8, 3, bias=False, padding_mode="circular"), [(2, 6, 9, 9)], "in_channels=6"),
        (nn.Conv2d(16, 32, 3, groups=16), [(2, 8, 9, 9)], "in_channels=8, groups=8"),
        (nn.ConvTranspose2d(4, 8, 3, 2, groups=2), [(2, 6, 9, 9)], "in_channels=6"),
        (nn.BatchNorm2d(3, affine=False), [(2, 4, 5, 5)], "num_features=4"),
        (nn.BatchNorm1d(3, track_running_stats=False), [(2, 4)], "num_features=4"),
        (nn.InstanceNorm2d(3, affine=True), [(2, 4, 5, 5)], "num_features=4"),
        (nn.GroupNorm(2, 4), [(2, 6, 5, 5)], "num_channels=6"),
        (nn.LayerNorm(5, bias=False), [(2, 6)], "normalized_shape=(6,)"),
        (nn.RMSNorm(5), [(2, 6)], "normalized_shape=(6,)"),
        (nn.PReLU(3), [(2, 4, 5)], "num_parameters=4"),
        (nn.Bilinear(3, 4, 5), [(2, 3), (2, 6)], "in2_features=6"),
        (nn.RNN(5, 6, nonlinearity="relu", bias=False), [(7, 2, 4)], "input_size=4"),
        (nn.GRU(5, 6, num_layers=2, bidirectional=True), [(7, 2, 4)], "input_size=4"),
        (nn.LSTM(5, 6, bias=False), [(7, 2, 4)], "input_size=4"),
        (nn.LSTMCell(5, 6), [(2, 4)], "input_size=4"),
        (nn.MultiheadAttention(8, 2, add_bias_kv=True), [torch.zeros(5, 2, 6)] * 3, "embed_dim=6"),
        (nn.MultiheadAttention(8, 2, kdim=5, vdim=7), [(5, 2, 8), (4, 2, 6), (4, 2, 7)], "kdim=6"),
        (nn.MultiheadAttention(8, 2, bias=False, batch_first=True), [QUERY, (2, 4, 6), (2, 4, 6)],
         "kdim=6, vdim=6"),
        (nn.EmbeddingBag(5, 3), [torch.tensor([[1, 7]])], "num_embeddings=8"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)  # fmt: skip
def test_a_layer_gets_the_weights_that_torch_gives_it_with_the_other_argument(layer, inputs, says):
    assert f"Use {says}" in remedied(layer, *inputs)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (nn.GRU(10, 20, num_layers=2, bidirectional=True, batch_first=True), "hidden_size=15 in l"),
        (nn.Linear(10, 7, bias=False), "out_features=30 in l"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_the_layer_that_made_the_features_can_make_as_many_as_are_wanted(made, says):
    def forward(s, x):
        made = s.l(x)
        return s.f(made[0] if isinstance(made, tuple) else made)

    assert says in remedied(Fn(forward, l=made, f=nn.Linear(30, 3)), (4, 7, 10), batch=4)


def test_tensors_in_lists_and_dicts_are_changed_like_other_inputs():
    net, image = Network(), torch.zeros(2, 1, 28, 28)
    one = Fn(lambda s, batch: s.net(batch["image"]), net=net)
    says = remedied(one, {"image": image, "name": "three"}, batch=2)
    assert "in_features=400, or an input of 30 to 33 pixels a side" in says

    both = Fn(lambda s, batch: s.net(batch[0]) + batch[1], net=net)
    says = remedied(both, [image, torch.zeros(2, 10)], batch=2)
    assert "a tensor of 30 to 33 pixels a side for the (2, 1, 28, 28) in input number 0" in says

    last = Fn(lambda s, x, y: s.c(x) + s.c(y[0]), c=nn.Conv2d(3, 4, 3))
    says = remedied(last, (2, 3, 8, 8), [torch.zeros(2, 8, 8, 3)], batch=2)
    assert "x.permute(0, 3, 1, 2) on the input number 1" in says
    pair = [torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, 3)]
    says = remedied(Fn(lambda s, xs: s.c(xs[0]) + s.c(xs[1]), c=nn.Conv2d(3, 4, 3)), pair, batch=2)
    assert "x.permute(0, 3, 1, 2) on the (2, 8, 8, 3) in input number 0" in says


def test_where_nothing_was_proven_the_message_says_where_the_numbers_come_from():
    model = Fn(lambda s, x: s.a(x) @ s.b(x), a=nn.Linear(4, 5), b=nn.Linear(4, 6))
    error = error_of(model, (3, 4))
    assert (error.remedies, error.hint) == ((), "")
    assert "(3, 5) @ (3, 6)" in str(error)
    assert "`a` made the 5" in str(error)
    assert "02_shape_arithmetic" in str(error)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda s, x: F.interpolate(x, size=(8, 8, 8)), [(1, 3, 4, 4)]),
        (lambda s, x: F.interpolate(x, scale_factor=2, mode="bilinear"), [(3, 4, 4)]),
        (lambda s, x: F.pad(x, (4, 4), mode="circular"), [(2, 3, 3)]),
        (lambda s, x, t: F.cross_entropy(x, t), [(4, 5), torch.tensor([0, 1, 2, 5])]),
        (lambda s, q, k, m: F.scaled_dot_product_attention(q, k, k, attn_mask=m),
         [(2, 4, 5, 8), (2, 4, 7, 8), torch.zeros(2, 1, 5, 5, dtype=torch.bool)]),
        (lambda s, q, k: F.scaled_dot_product_attention(q, k, k), [(2, 4, 5, 8), (2, 3, 7, 8)]),
        (lambda s, x: x.expand(4, 9), [(2, 9)]),
        (lambda s, x: x.unflatten(1, (2, 4)), [(2, 9)]),
        (lambda s, x, i: torch.zeros(3, 8).index_add(0, i, x), [(4, 8), longs(5)]),
        (lambda s, x: F.embedding(torch.tensor([5]), x), [(5, 2)]),
        (lambda s, x: F.embedding(torch.tensor([1]), x), [(5,)]),
        (lambda s, x: torch.bucketize(x, x), [(3, 4)]),
        (lambda s, x: x[:, 5:].amax(1), [(2, 5)]),
        (lambda s, x, i: torch.zeros(3, 2).index_add(0, i, x), [(2,), longs(2)]),
        (lambda s, x, y: torch.einsum("bij,bjk->bik", x, y), [(2, 3, 4), (2, 5, 6)]),
        (lambda s, x, y: F.binary_cross_entropy_with_logits(x, y), [(4, 1), (4,)]),
    ],
)  # fmt: skip
def test_what_torch_refuses_is_a_shape_error(function, inputs):
    model = Fn(function)
    with pytest.raises((RuntimeError, ValueError, IndexError, AssertionError)):
        model(*[torch.randn(x) if isinstance(x, tuple) else x for x in inputs])
    error_of(model, *inputs)


def test_a_layers_own_checks_are_shape_errors():
    error_of(nn.Conv2d(3, 4, 9, padding=4, padding_mode="circular"), (2, 3, 3, 3))
    attention = nn.MultiheadAttention(64, 4, batch_first=True)
    error_of(attention, (2, 5, 32), (2, 5, 32), (2, 5, 32))


def test_swapped_keywords_are_told_apart():
    model = Fn(lambda s, x: F.linear(weight=s.w, input=x), w=nn.Parameter(torch.zeros(16, 9)))
    assert "linear got 8 features, wants 9" in str(error_of(model, (2, 8)))


def test_a_bug_in_the_class_of_an_operation_is_raised(monkeypatch):
    from blitz_helpers.trace.ops.products import Linear

    monkeypatch.setattr(Linear, "output", lambda self: len(None))
    with pytest.raises(TypeError, match="NoneType"):
        trace_shapes(nn.Linear(300, 300), (2, 300))


def kinds_of_remedies():
    attention = Fn(lambda s, x: s.a(x, x, x)[0], a=nn.MultiheadAttention(8, 2, batch_first=True))
    return [
        (Network(), (2, 1, 28, 28)),  # layer, input
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.Linear(8 * 676, 5)), (4, 1, 28, 28)),  # code
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), (1, 1, 3, 3)),  # eval
        (attention, (2, 5, 6)),
        (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8).double()), (4, 8)),
    ]


@pytest.mark.parametrize(("model", "shape"), kinds_of_remedies())
def test_running_a_remedy_leaves_everything_as_it_is(model, shape):
    model = copy.deepcopy(model)
    x = torch.randn(shape)
    error = error_of(model, x)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = {name: id(value) for name, value in model.state_dict(keep_vars=True).items()}
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}
    before, random_state = x.clone(), torch.get_rng_state()
    assert error.remedies
    for remedy in error.remedies:
        remedy.run(model, x)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert tensors == {n: id(v) for n, v in model.state_dict(keep_vars=True).items()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name, module in model.named_modules():
        assert vars(module).keys() == attributes[name].keys()
        for key, value in vars(module).items():
            assert value is attributes[name][key], (name, key)


@pytest.mark.parametrize(("model", "shape"), kinds_of_remedies())
def test_an_error_and_its_remedies_survive_pickling(model, shape):
    error = error_of(model, shape)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.hint, again.remedies) == (str(error), error.hint, error.remedies)
    for remedy in again.remedies:
        assert isinstance(remedy, Remedy)
        remedy.run(model, shape)
    assert str(copy.copy(error)) == str(copy.deepcopy(error)) == str(error)


def test_a_remedy_for_other_code_says_so():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Linear(8 * 676, 5))
    (remedy,) = error_of(model, (4, 1, 28, 28)).remedies
    other = nn.Sequential(nn.ReLU(), nn.Tanh())
    with pytest.raises(ValueError, match="Call 1 is tanh, not linear: run the remedy on"):
        remedy.run(other, (4, 1, 28, 28))


def test_a_remedy_gives_the_same_output_every_time():
    model = Network()
    for remedy in error_of(model, (2, 1, 28, 28)).remedies:
        first, second = (remedy.run(model, (2, 1, 28, 28)) for _ in range(2))
        assert torch.equal(first, second)


def test_a_model_that_cannot_be_copied_is_changed_in_place_and_put_back():
    class Stubborn(nn.Sequential):
        def __deepcopy__(self, memo):
            raise TypeError("not to be copied")

    model = Stubborn(nn.Flatten(), nn.BatchNorm1d(9), nn.Linear(8, 2))
    weight, mean = model[2].weight, model[1].running_mean.clone()
    error = error_of(model, (2, 1, 3, 3))
    assert "in_features=9" in error.hint
    for remedy in error.remedies:
        remedy.run(model, (2, 1, 3, 3))
    assert model[2].weight is weight
    assert model[2].in_features == 8
    assert torch.equal(model[1].running_mean, mean)


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_running_a_remedy_leaves_a_lazy_model_lazy():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.Linear(9, 2))
    error = error_of(model, torch.zeros(2, 3, 5, 5, dtype=torch.float64))
    assert "x.to(torch.float32) on the input and in_features=36" in error.hint
    for remedy in error.remedies:
        x = torch.zeros(2, 3, 5, 5, dtype=torch.float64)
        assert remedy.run(model, x).shape == (2, 2)
    assert type(model[0]) is nn.LazyConv2d
    assert all(map(nn.parameter.is_lazy, (*model[0].parameters(), *model[1].parameters())))


@pytest.mark.filterwarnings("ignore:.torch.jit")  # a DeprecationWarning or a FutureWarning
def test_scripted_and_wrapped_models_get_remedies_too():
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), nn.Conv2d(6, 16, 3), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(576, 10),
    )  # fmt: skip
    scripted = error_of(torch.jit.script(net), (1, 1, 28, 28))
    assert {remedy.kind for remedy in scripted.remedies} == {"input"}
    assert "an input of 30 to 33 pixels a side" in scripted.hint
    for model in (nn.DataParallel(net), nn.Sequential(nn.Sequential(net))):
        assert (
            "in_features=400, or an input of 30 to 33 pixels"
            in error_of(model, (2, 1, 28, 28)).hint
        )


def test_the_search_is_bounded_and_always_ends_alike():
    deep = nn.Sequential(*[nn.Linear(8, 8) for _ in range(400)], nn.Linear(9, 2))
    assert str(error_of(deep, (2, 8))) == str(error_of(deep, (2, 8)))


def test_a_step_knows_its_sources_dtype_and_bytes():
    model = Fn(lambda s, x: s.a(x) + s.b(x), a=nn.Linear(4, 3), b=nn.Linear(4, 3))
    a, b, add = trace_shapes(model, (2, 4))
    assert (a.inputs, b.inputs, add.inputs) == ((-1,), (-1,), (0, 1))
    assert (add.dtype, add.nbytes) == (torch.float32, 24)
    halves = trace_shapes(nn.Linear(4, 3).half(), torch.ones(2, 4).half())
    assert (halves[0].dtype, halves[0].nbytes) == (torch.float16, 12)


def flops(model, *inputs):
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # `chain_matmul` is deprecated
        with FlopCounterMode(display=False) as counter:
            model(*[torch.randn(shape) for shape in inputs])
        return counter.get_total_flops() // 2, trace_shapes(model, *inputs).num_macs


W, KERNEL = torch.zeros(16, 3), torch.zeros(4, 3, 3, 3)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda s, x: torch.einsum("...ij,...kj->...ik", x, x), [(5, 3, 4)]),
        (lambda s, x: torch.einsum("b...i,oi->b...o", x, W.T), [(5, 2, 16)]),
        (lambda s, x: torch.tensordot(x, W, dims=1), [(2, 16)]),
        (lambda s, x: torch.tensordot(x, W, dims=([1], [0])), [(2, 16)]),
        (lambda s, x: torch.linalg.multi_dot([x, W, W.T]), [(2, 16)]),
        (lambda s, x: torch.linalg.matmul(x, W), [(2, 16)]),
        (lambda s, x: torch.chain_matmul(x, W, W.T), [(2, 16)]),
        (lambda s, x: torch.linalg.matrix_power(x, 3), [(2, 4, 4)]),
        (lambda s, x: torch.linalg.matrix_power(x, 11), [(4, 4)]),
        (lambda s, x: torch.convolution(x, KERNEL, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
         [(2, 3, 8, 8)]),
        (lambda s, x: torch.func.vmap(s.l)(x), [(2, 3, 8)]),
        (lambda s, x: torch.func.vmap(torch.func.vmap(s.l))(x), [(2, 5, 3, 8)]),
    ],
)  # fmt: skip
def test_products_are_counted_however_they_are_spelled(function, shapes):
    real, ours = flops(Fn(function, l=nn.Linear(8, 4)), *shapes)
    assert ours == real > 0


def test_an_exported_program_counts_what_its_model_does():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4))
    program = torch.export.export(net, (torch.zeros(1, 1, 8, 8),)).module()
    assert trace_shapes(program, (1, 1, 8, 8)).num_macs == trace_shapes(net, (1, 1, 8, 8)).num_macs
    error = error_of(program, (1, 1, 9, 9))
    assert {remedy.kind for remedy in error.remedies} == {"input"}

"""Each class of operations answers as torch does, and says why where it has no answer."""

from itertools import product
from queue import SimpleQueue

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blitz_helpers import ShapeError, trace_shapes
from blitz_helpers.trace._op import OPS, Op, OpenOp, bind

bind(None, "a name without a class", (), {})  # loads every family

# A call for each class, on images of 4 channels and 8 pixels a side.
CALLS = {
    "AdaptiveAveragePool": lambda x: F.adaptive_avg_pool2d(x, 4),
    "AdaptivePool": lambda x: F.adaptive_max_pool2d(x, 4),
    "AddProduct": lambda x: torch.addmm(x[0, 0], x[0, 0], x[0, 1]),
    "Along": lambda x: F.softmax(x, 1),
    "AveragePool": lambda x: F.avg_pool2d(x, 2),
    "BatchNorm": lambda x: F.batch_norm(x, None, None, training=True),
    "Bilinear": lambda x: F.bilinear(x, x, torch.ones(3, 8, 8)),
    "BinaryCrossEntropy": lambda x: F.binary_cross_entropy_with_logits(x, x),
    "Buckets": lambda x: torch.bucketize(x.contiguous(), torch.arange(3.0)),
    "Cat": lambda x: torch.cat([x, x], 1),
    "Cell": lambda x: torch.gru_cell(x[0, 0], x[0, 1], torch.ones(24, 8), torch.ones(24, 8)),
    "Chain": lambda x: torch.linalg.multi_dot([x[0, 0], x[0, 1], x[0, 2]]),
    "ChannelNorm": F.instance_norm,
    "ClassLoss": lambda x: F.cross_entropy(x, torch.zeros(2, 8, 8, dtype=torch.long)),
    "Convolution": lambda x: F.conv2d(x, torch.ones(5, 4, 3, 3)),
    "Dropout": F.dropout,
    "Einsum": lambda x: torch.einsum("nchw,dc->ndhw", x, torch.ones(3, 4)),
    "Elementwise": F.relu,
    "Embedding": lambda x: F.embedding(torch.zeros(2, 3, dtype=torch.long), x[0, 0]),
    "EmbeddingBag": lambda x: F.embedding_bag(torch.zeros(2, 3, dtype=torch.long), x[0, 0]),
    "Expand": lambda x: x[:1].expand(3, -1, -1, -1),
    "Extremum": lambda x: x.max(1)[0],
    "GetItem": lambda x: x[:, 1:3],
    "GroupNorm": lambda x: F.group_norm(x, 2),
    "GroupedMatMul": lambda x: F.grouped_mm(x[0], x[1]),
    "Indexed": lambda x: x.index_select(1, torch.zeros(2, dtype=torch.long)),
    "Interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "LayerNorm": lambda x: F.layer_norm(x, (8,)),
    "Invert": lambda x: ~(x > 0),
    "Linear": lambda x: F.linear(x.permute(0, 2, 3, 1), torch.ones(5, 4)),
    "MaskedFill": lambda x: x.masked_fill(torch.ones(8, dtype=torch.bool), 0.0),
    "MatMul": lambda x: x @ x.mT,
    "MaxPool": lambda x: F.max_pool2d(x, 2),
    "MaxPoolWithIndices": lambda x: F.max_pool2d_with_indices(x, 2)[0],
    "Move": lambda x: x.to(torch.float64),
    "Moved": lambda x: x.movedim(1, -1),
    "MultiHead": lambda x: F.multi_head_attention_forward(
        *(x[0], x[0], x[0], 8, 2, torch.ones(24, 8), None, None, None, False, 0.0),
        *(torch.ones(8, 8), None),
    )[0],
    "OneHot": lambda x: F.one_hot(x.argmax(1), 4),
    "PReLU": lambda x: F.prelu(x, torch.ones(4)),
    "Pad": lambda x: F.pad(x, (1, 1, 2, 2)),
    "Part": lambda x: x.narrow(1, 0, 2),
    "Permute": lambda x: x.permute(0, 2, 3, 1),
    "Pointwise": torch.clone,
    "Power": lambda x: torch.linalg.matrix_power(x, 3),
    "Product": lambda x: torch.inner(x[0, 0], x[0, 1]),
    "Recurrent": lambda x: torch.gru(
        *(x[0], torch.ones(1, 8, 8), [torch.ones(24, 8), torch.ones(24, 8)]),
        *(False, 1, 0.0, False, False, False),
    )[0],
    "Reduction": lambda x: x.mean(1),
    "Reshape": lambda x: x.reshape(2, 2, 2, 8, 8),
    "ScaledDotProduct": lambda x: F.scaled_dot_product_attention(x, x, x),
    "SetItem": lambda x: x.index_put((torch.tensor([0]),), x[0]),
    "Split": lambda x: x.split([2, 2], 1)[0],
    "Stack": lambda x: torch.stack([x, x], 1),
    "TensorDot": lambda x: torch.tensordot(x, torch.ones(8, 3), 1),
    "Transpose": lambda x: x.transpose(2, 3),
    "TransposedConvolution": lambda x: F.conv_transpose2d(x, torch.ones(4, 5, 2, 2), stride=2),
    "Unflatten": lambda x: x.unflatten(1, (2, 2)),
    "Unsqueeze": lambda x: x.unsqueeze(1),
    "Variance": lambda x: x.var(1),
    "VecDot": lambda x: torch.linalg.vecdot(x, x, dim=1),
    "View": lambda x: x.flatten(1),
}
# Why classes have no written-out sums, no multiply-accumulates or no receptive field.
WITHOUT_SUMS = {
    "each size of the output is one of an input, or is given": """
        AddProduct Along BatchNorm Bilinear BinaryCrossEntropy Buckets Cell Chain ChannelNorm
        ClassLoss Dropout Einsum Elementwise Embedding EmbeddingBag Expand GroupNorm GroupedMatMul
        Indexed Invert LayerNorm Linear MaskedFill MatMul Move Moved MultiHead OneHot PReLU Permute
        Pointwise Power Product Recurrent ScaledDotProduct SetItem Stack TensorDot Transpose
        Unsqueeze VecDot
    """,
    "a size is cut or left out, not computed": "Extremum GetItem Part Reduction Split Variance",
    "a size is split as it was typed; only a size of -1 is computed": "Reshape Unflatten",
}
WITHOUT_MACS = {
    "nothing is multiplied and added up": """
        AdaptivePool Along BinaryCrossEntropy Buckets Cat ClassLoss Dropout Elementwise Embedding
        Expand Extremum GetItem Indexed Invert MaskedFill MaxPool MaxPoolWithIndices Move Moved
        OneHot PReLU Pad Part Permute Pointwise Reshape SetItem Split Stack Transpose Unflatten
        Unsqueeze View
    """,
    "an average multiplies once, after the sum": """
        AdaptiveAveragePool AveragePool EmbeddingBag Interpolate Reduction Variance
    """,
    "statistics and scales are not counted, as in other tools": """
        BatchNorm ChannelNorm GroupNorm LayerNorm
    """,
}
WITHOUT_FIELD = {
    "sides are summed over or mixed": """
        AddProduct Bilinear Cell Chain Einsum GroupedMatMul MatMul MultiHead Power Product
        Recurrent ScaledDotProduct TensorDot VecDot
    """,
    "numbers are picked by values": "Embedding EmbeddingBag Indexed OneHot SetItem",
    "the output has no sides": "BinaryCrossEntropy ClassLoss",
    "sides are multiplied into one": "View",
    "sides get new places, which are not followed": "Expand Extremum Reduction Stack Variance",
}


def classes():
    return {kind.__name__: kind for kind, _ in OPS.values() if isinstance(kind, type)}


class Call(nn.Module):
    """A function as a model, after a convolution if one is given."""

    def __init__(self, function, first=nn.Identity()):  # noqa: B008  # it has no state
        super().__init__()
        self.function, self.first = function, first

    def forward(self, *inputs):
        return self.function(*map(self.first, inputs))


def step_of(name):
    """Return the step of the operation of this class, on what a convolution made."""
    step = trace_shapes(Call(CALLS[name], nn.Conv2d(1, 4, 3)), (2, 1, 10, 10))[-1]
    assert OPS[step.op.removeprefix("linalg_")][0].__name__ == name
    return step


def test_every_class_has_a_call():
    assert set(classes()) - {"NestedFromMask"} == set(CALLS)


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (lambda step: step.arithmetic, WITHOUT_SUMS),
        (lambda step: step.num_macs, WITHOUT_MACS),
        (lambda step: step.receptive_field, WITHOUT_FIELD),
    ],
    ids=["sums", "multiply-accumulates", "receptive field"],
)
def test_a_class_without_an_answer_stands_under_the_reason(answer, reasons):
    listed = [name for names in reasons.values() for name in names.split()]
    assert sorted(listed) == sorted(name for name in CALLS if not answer(step_of(name)))


def facts(output):
    return tuple(output.shape), output.dtype, output.stride()


def traced_and_real(function, *inputs):
    """Return size, dtype and strides of the output, as traced and as torch has them."""
    seen = SimpleQueue()  # which a trace does not put back, as it would a list

    def seeing(*inputs):
        output = function(*inputs)
        seen.put(facts(output))
        return output

    trace_shapes(Call(seeing), *inputs)
    return seen.get(), facts(function(*inputs))


LAYOUTS = {
    "contiguous": torch.rand(2, 4, 8, 8),
    "channels last": torch.rand(2, 8, 8, 4).permute(0, 3, 1, 2),
    "transposed": torch.rand(2, 4, 8, 8).mT,
    "batch inside": torch.rand(4, 2, 8, 8).transpose(0, 1),
    "every other": torch.rand(2, 4, 8, 16)[..., ::2],
    "every other, channels last": torch.rand(4, 8, 8, 4).permute(0, 3, 1, 2)[::2],
}
MORE_CALLS = {
    "avg_pool3d": lambda x: F.avg_pool3d(x[:, :, None], (1, 2, 2)),
    "max_pool3d": lambda x: F.max_pool3d(x[:, :, None], (1, 2, 2)),
    "avg_pool1d": lambda x: F.avg_pool1d(x[:, :, 0], 2),
    "avg_pool1d of tokens": lambda x: F.avg_pool1d(x[:, 0].mT, 2),
    "max_pool1d of tokens": lambda x: F.max_pool1d(x[:, 0].mT, 2),
    "adaptive_avg_pool1d of tokens": lambda x: F.adaptive_avg_pool1d(x[:, 0].mT, 2),
    "places of tokens": lambda x: F.max_pool1d(x[:, 0].mT, 2, return_indices=True)[0],
    "attention with dropout": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    "attention over heads": lambda x: F.scaled_dot_product_attention(
        x.transpose(1, 2), x.transpose(1, 2), x.transpose(1, 2)
    ),
    "a bias added": lambda x: x + x[0, :, :1, :1],
    "two layouts": lambda x: x * x.contiguous(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("call", [*CALLS, *MORE_CALLS])
def test_the_output_lies_in_memory_as_torch_lays_it(call, layout):
    if call == "GroupedMatMul" and layout not in ("contiguous", "transposed", "batch inside"):
        return  # which torch refuses, though not for its shape
    ours, real = traced_and_real({**CALLS, **MORE_CALLS}[call], LAYOUTS[layout])
    assert ours == real


DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
ELEMENTWISE = [name for name, (kind, _) in OPS.items() if kind is classes()["Elementwise"]]
REFUSED = (RuntimeError, TypeError, ValueError)


def function_of(name):
    places = [
        (place, spelled) for place in (torch, F, torch.Tensor) for spelled in (name, f"__{name}__")
    ]
    return next(getattr(place, spelled) for place, spelled in places if hasattr(place, spelled))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_element_wise_result_has_torchs_dtype_or_is_refused(name):
    function = function_of(name)
    numbers = [torch.ones(260, 260).to(dtype) for dtype in DTYPES]  # too large to be computed
    for given in [*product(numbers), *product(numbers, [2, 0.5]), *product(numbers, numbers)]:
        try:
            real = function(*given)
        except REFUSED:
            real = None
        if not isinstance(real, torch.Tensor | None):
            continue  # the positions that `where` finds, or an operator that is for numbers alone
        try:
            ours = trace_shapes(
                Call(lambda *x, f=function, n=given: f(*x, *n[len(x) :])), *tensors(given)
            )
        except REFUSED:
            assert real is None, given
        else:
            assert real is not None, given
            assert (ours.output_shape, ours[-1].dtype) == facts(real)[:2], given


I1, W1 = (2, 3, 9), (3, 3, 2)
ENDS = torch.tensor([1, 4, 6], dtype=torch.int32)


def test_a_default_device_without_data_changes_nothing():
    with torch.device("meta"):
        trace = trace_shapes(
            Call(lambda x: torch.atan2(x, x * 2)), torch.ones(20, 30, device="cpu")
        )
    assert trace[-1].dtype == torch.float32


MEAN = torch.zeros(3, requires_grad=True)
ATTENTION = nn.MultiheadAttention(4, 2)


def tensors(given):
    return [one for one in given if isinstance(one, torch.Tensor)]


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x: x.var(1, True), [(2, 3, 4)]),
        (lambda x: x.std(1, False, True), [(2, 3, 4)]),
        (lambda x: torch.sum(x, axis=1, keepdims=True), [(2, 3, 4)]),
        (lambda x: torch.special.softmax(x, 1), [(2, 3)]),
        (lambda x: torch.special.expm1(x), [(2, 3)]),
        (lambda x: x.movedim((0, 1), (2, 0)), [(2, 3, 4)]),
        (lambda x: torch.swapaxes(x, axis0=0, axis1=-1), [(2, 3, 4)]),
        (lambda x: x.transpose(0, -1), [()]),
        (lambda x: x.view(torch.int32), [(2, 3)]),
        (lambda x: torch.where(x > 0, x, 0.0), [(20, 30)]),
        (lambda x, y: x.where(y > 0, y), [(20, 30), (30,)]),
        (lambda x, y: torch.mm(x, mat2=y), [(2, 3), (3, 4)]),
        (lambda x, y: torch.matmul(x, y, out=torch.empty(2, 4)), [(2, 3), (3, 4)]),
        (lambda x, y: torch.inner(x, y), [(), (2, 3)]),
        (lambda x, y: torch.ops.aten.add.Tensor(self=x, other=y), [(2, 3), (3,)]),
        (lambda x: torch.ops.aten.permute.default(x, [1, 0]), [(2, 3)]),
        (lambda x: x.gather(0, torch.zeros((), dtype=torch.long)), [()]),
        (lambda x: torch.cat([x, torch.ones(0, dtype=torch.float64)]), [(3, 2)]),
        (lambda x, w: torch.convolution(x, w, None, [2], [1], [1], False, [0], 1), [I1, W1]),
        (lambda x, w: torch.convolution(x, w, None, [2], [1], [1], True, [1], 1), [I1, W1]),
        (lambda x, w: F.conv1d(x, w, padding="valid"), [I1, W1]),
        (lambda x: torch.embedding(x, torch.zeros(2, 3, dtype=torch.long)), [(5, 4)]),
        (lambda x, y: torch.einsum("ij,kj", x, y), [(2, 3), (4, 3)]),
        (lambda x, y: torch.einsum("...i,...ij", x, y), [(5, 2, 3), (2, 3, 4)]),
        (lambda x, y: torch.einsum(x, [0, 1], y, [1, 2], [2, 0]), [(2, 3), (3, 4)]),
        (lambda x, y: x.max(y), [(20, 30), (30,)]),
        (lambda x, y: torch.max(x, other=y), [(20, 30), (30,)]),
        (lambda x: x.var(False), [(20, 30)]),
        (lambda x: x.sum(), [(20, 30)]),
        (lambda x: x.double().sum(0).long().sum(), [(200, 400)]),
        (lambda x, w: F.linear(x, w), [(2, 3), (3,)]),
        (lambda x, y: F.grouped_mm(x, y, offs=ENDS), [(6, 16), (3, 16, 8)]),
        (lambda x, y: F.grouped_mm(x.mT.contiguous().mT, y, offs=ENDS), [(16, 6), (6, 8)]),
        (lambda x: x[:0].flatten(), [(2, 3)]),
        (lambda x: x.unfold(1, 2, 1).roll(1, 0), [(2, 3)]),
        (lambda x: x * x.permute(2, 0, 1), [(2, 2, 2)]),
    ],
)
def test_a_call_is_understood_in_each_of_torchs_spellings(function, shapes):
    inputs = [torch.rand(shape) for shape in shapes]
    ours, real = traced_and_real(function, *inputs)
    assert ours == real


def test_products_are_counted_whatever_they_are_written_to():
    into = Call(lambda x, y: torch.matmul(x, y, out=torch.empty(2, 4)))
    assert trace_shapes(into, (2, 3), (3, 4)).num_macs == 2 * 3 * 4


@pytest.mark.parametrize("name", ["add_", "atan2_", "eq_", "pow_", "floor_divide_"])
def test_a_tensor_does_not_grow_in_place(name):
    function = Call(getattr(torch.Tensor, name))
    with pytest.raises(RuntimeError, match="broadcast shape"):
        function(torch.ones(5, 1), torch.ones(5))
    with pytest.raises(ShapeError, match="cannot grow in place"):
        trace_shapes(function, (5, 1), (5,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.layer_norm(x, (4,), torch.ones(4), torch.ones(3)),
        lambda x: F.rms_norm(x, (4,), torch.ones(3)),
        lambda x: F.batch_norm(x, torch.ones(3), torch.ones(2)),
        lambda x: F.batch_norm(x, torch.ones(3), torch.ones(3), bias=torch.ones(3).double()),
        lambda x: F.batch_norm(x, MEAN, torch.ones(3)),
        lambda x: torch.baddbmm(x.double(), x, x.mT),
        lambda x: F.binary_cross_entropy_with_logits(x, torch.zeros(2, 3, 4, dtype=torch.long)),
        lambda x: F.gelu(torch.zeros(260, 260, dtype=torch.long)),
        lambda x: ATTENTION(x, x[:1], x),
        lambda x: ATTENTION(x, x[:, :1], x[:, :1]),
        lambda x: ATTENTION(x, x, x, attn_mask=torch.zeros(2, 3)),
        lambda x: ATTENTION(x, x, x, key_padding_mask=torch.zeros(3, 5) > 0),
        lambda x: torch.stack([x, x[0]]),
        lambda x: F.layer_norm(x, (2, 4)),
        lambda x: F.layer_norm(x[0, 0], (3, 4)),
        lambda x: F.batch_norm(x[0, 0], None, None, training=True),
        lambda x: F.scaled_dot_product_attention(x[0, 0], x[0, 0], x[0, 0]),
        lambda x: x.expand(3, 4),
        lambda x: F.pad(x[0, 0], (1, 1, 1, 1)),
        lambda x: F.adaptive_avg_pool2d(x, (2, 2, 2)),
        lambda x: F.linear(x, torch.ones(5, 4), torch.ones(4)),
        lambda x: F.grouped_mm(x, x),
        lambda x: F.max_pool1d(x, 2, stride=2, padding=2),
    ],
)
def test_what_torch_refuses_is_a_shape_error(function):
    with pytest.raises((RuntimeError, ValueError, IndexError, AssertionError)):
        function(torch.ones(2, 3, 4))
    with pytest.raises(ShapeError):
        trace_shapes(Call(function), (2, 3, 4))


def test_a_slice_is_followed_back_to_the_size_of_the_input():
    model = Call(
        lambda x: F.linear(x[..., 1:-1:2].flatten(1), torch.ones(3, 20)), nn.Conv1d(1, 4, 3)
    )
    with pytest.raises(ShapeError, match="an input of length 13 to 14"):
        trace_shapes(model, (1, 1, 20))


INDEXED = {
    "a list": (lambda x: x[:, [0, 7]], 7, 1),
    "a negative one": (lambda x: x[..., [0, -5], None], -5, 1),
    "beside a mask": (lambda x: x[torch.ones(3, dtype=torch.bool), torch.tensor([0, 4, 0])], 4, 1),
    "an array": (lambda x: x[np.array([3])], 3, 0),
    "a write": (lambda x: x.clone().index_put_((torch.tensor([3]),), x[0]), 3, 0),
    "a row that an assignment writes": (lambda x: x.clone().__setitem__([3], 1.0), 3, 0),
}


@pytest.mark.parametrize(("function", "index", "dim"), INDEXED.values(), ids=INDEXED)
def test_a_known_index_out_of_range_is_refused(function, index, dim):
    with pytest.raises(IndexError):
        function(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match=rf"index {index}, which dimension {dim} of \(3, 4\)"):
        trace_shapes(Call(function), (3, 4))


@pytest.mark.parametrize(
    "index", [[0, -4], torch.tensor([True] * 4), torch.tensor([3, -1]), (None, 0, [1])]
)
def test_a_known_index_in_range_is_as_in_torch(index):
    trace = trace_shapes(Call(lambda x: x.T[index]), (3, 4))
    assert trace.output_shape == tuple(torch.zeros(4, 3)[index].shape)


def test_torch_refuses_tensors_without_data_for_their_shapes():
    with pytest.raises(ShapeError, match="same number of columns"):
        trace_shapes(Call(torch.cdist), (3, 4), (5, 6))


def test_a_class_may_name_its_fields_as_other_functions_name_theirs(monkeypatch):
    class Distance(Op):
        x1: "torch.Tensor"
        x2: "torch.Tensor"

    monkeypatch.setitem(OPS, "cosine_similarity", (Distance, {}))
    x = torch.empty(2, 3, device="meta")
    call = bind(F.cosine_similarity, "cosine_similarity", (), {"x1": x, "x2": x})
    assert isinstance(call, Distance)


def test_the_hundredth_call_of_a_class_is_bound_as_the_first_is():
    class Window(Op):
        input: "torch.Tensor"
        size: "int"
        stride: "int" = 1

    class Open(OpenOp):
        input: "torch.Tensor"
        dim: "int" = 0

    for turn in range(100):
        call = Window(turn, size=2)
        assert (call.input, call.size, call.stride) == (turn, 2, 1)
        assert Window(turn, 2, 3).stride == 3
        for args, kwargs in [((turn,), {}), ((1, 2, 3, 4), {}), ((1,), {"size": 2, "other": 3})]:
            with pytest.raises(TypeError):
                Window(*args, **kwargs)
        call = Open(turn, 1, 2, keep=True)
        assert (call.input, call.dim, call.args, call.kwargs) == (turn, 1, (2,), {"keep": True})
        assert (Open(turn).dim, Open(turn).args, Open(turn).kwargs) == (0, (), {})


DOUBLE = torch.ones(3, 4, dtype=torch.float64)
REFUSED_WITH_DATA = {
    "a source of another dtype": (
        lambda x: x.index_add(0, torch.arange(3), DOUBLE), "source of torch.float64",
    ),
    "values of another dtype": (
        lambda x: x.clone().index_put_((torch.arange(3),), DOUBLE), "values of torch.float",
    ),
    "fewer rows than a mask picks": (
        lambda x: (x * 1).__setitem__(torch.tensor([True, False, True]), DOUBLE.float()),
        "3 rows for the 2",
    ),
    "a mask of another dtype": (
        lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], DOUBLE[:, :3]),
        "a mask of torch.float64",
    ),
    "heads that do not divide": (
        lambda x: F.scaled_dot_product_attention(
            x.expand(1, 4, 3, 4), x.expand(1, 3, 3, 4), x.expand(1, 3, 3, 4), enable_gqa=True
        ),
        "heads do not divide",
    ),
    "a target of another dtype": (
        lambda x: F.binary_cross_entropy(x.sigmoid(), DOUBLE), "torch.float64",
    ),
    "a dimension that is named twice": (lambda x: x.mean((0, -2)), "names a dimension twice"),
    "a number that is joined": (lambda x: torch.cat([x.sum(), x.sum()]), "got a number"),
    "classes of another dtype": (
        lambda x: F.one_hot(x.argmax(1).int(), 4), "classes of torch.int32, wants torch.int64",
    ),
    "whole numbers that would become fractions": (
        lambda x: x.argmax(1).clone().div_(2), "can't be cast",
    ),
    "truth values without a sign": (lambda x: (x > 0) - (x > 1), "bool tensors"),
    "a weight that is added as a matrix": (
        lambda x: torch.addmv(torch.ones(3, 1), x, torch.ones(4)), r"\(3, 1\), wants 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("function", "words"), REFUSED_WITH_DATA.values(), ids=REFUSED_WITH_DATA)
def test_what_torch_refuses_only_with_data_is_refused_without(function, words):
    with pytest.raises((RuntimeError, IndexError)):
        function(torch.rand(3, 4))
    with pytest.raises(ShapeError, match=words):
        trace_shapes(Call(function), (3, 4))

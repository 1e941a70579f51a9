"""Gradients: torch's own reductions and autograd are the oracle."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from blitz_helpers import Network, gradient_report, numerical_gradient, random_backward


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)
    )


def model_with_gradient(gradient: torch.Tensor) -> nn.Module:
    """Return a module whose one parameter, of ones, has this gradient."""
    weight = nn.Parameter(torch.ones(gradient.shape, dtype=gradient.dtype))
    weight.grad = gradient
    return nn.ParameterDict({"weight": weight})


def assert_row_agrees(gradient: torch.Tensor, rel: float) -> None:
    """Hold the report on a gradient against reductions over its dense copy in float64."""
    (row,) = gradient_report(model_with_gradient(gradient))
    wide = gradient.detach().to_dense().double()
    assert row.norm == pytest.approx(wide.norm().item(), rel=rel)
    assert row.mean == pytest.approx(wide.mean().item(), rel=rel, abs=rel * row.norm)
    assert row.std == pytest.approx(wide.std().item(), rel=rel, abs=1e-300)
    assert row.max_abs == wide.abs().max().item()
    assert row.zero_fraction == (wide == 0).double().mean().item()
    assert row.weight_ratio == pytest.approx(wide.norm().item() / wide.numel() ** 0.5, rel=rel)


# --- random_backward -------------------------------------------------------------------------


def test_random_backward_gives_the_gradient_of_the_weighted_sum(generator):
    model, images = small_network(), torch.randn(2, 1, 8, 8, generator=generator)
    v = random_backward(model(images), generator=generator)
    expected = torch.autograd.grad((v * model(images)).sum(), list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_random_backward_draws_the_same_numbers_as_randn():
    def seeded():
        return torch.Generator().manual_seed(3)

    w = torch.ones(4, 5, requires_grad=True)
    v = random_backward(w * 2, generator=seeded())
    assert torch.equal(v, torch.randn(4, 5, generator=seeded()))
    torch.manual_seed(3)
    assert torch.equal(random_backward(w * 2), v)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_random_backward_draws_in_the_dtype_of_the_output(dtype, generator):
    w = torch.ones(3, dtype=dtype, requires_grad=True)
    v = random_backward(w.clone(), generator=generator)
    assert v.dtype == dtype
    assert torch.equal(w.grad, v)


@pytest.mark.parametrize("output", [torch.ones(2), torch.ones(2, dtype=torch.int64)])
def test_random_backward_on_an_output_without_a_graph_draws_nothing(output, generator):
    before = generator.get_state()
    with pytest.raises(ValueError, match=r"torch\.\w+ of shape \(2,\), has no graph"):
        random_backward(output, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_random_backward_wants_a_tensor():
    with pytest.raises(TypeError, match="output is a tuple"):
        random_backward((torch.ones(2, requires_grad=True),))


# --- gradient_report -------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda s: math.prod(s) > 1),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-25, 1e-9, 1.0, 1e20]),
    shift=st.sampled_from([0.0, 1.0, 1e3]),
    zeros=st.sampled_from([0.0, 0.5]),
)
def test_statistics_agree_with_torch(shape, seed, scale, shift, zeros):
    source = torch.Generator().manual_seed(seed)
    gradient = (torch.randn(shape, generator=source) + shift) * scale
    gradient *= torch.rand(shape, generator=source) >= zeros
    assert_row_agrees(gradient, rel=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_statistics_agree_over_many_pieces(threads, generator):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        gradient = torch.randn(300_001, generator=generator) + torch.linspace(-3, 5, 300_001)
        assert_row_agrees(gradient.relu(), rel=1e-5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "memory",
    [
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t.transpose(0, 3),
        lambda t: t[:, ::2],
        lambda t: t[:1].expand(40, -1, -1, -1),
        lambda t: t.double(),
        lambda t: t.bfloat16(),
        lambda t: (t * 1e4).half(),
        lambda t: t.relu().to_sparse(),
        lambda t: t.requires_grad_(),
    ],
    ids=[
        "channels_last",
        "transposed",
        "strided",
        "expanded",
        "double",
        "bfloat16",
        "half",
        "sparse",
        "graph",
    ],
)
def test_statistics_agree_however_the_gradient_is_stored(memory, generator):
    gradient = memory(torch.randn(20, 10, 30, 20, generator=generator))
    assert_row_agrees(gradient, rel=1e-2 if gradient.dtype.itemsize == 2 else 1e-5)


@pytest.mark.parametrize("shift", [1e3, -1e5])
@pytest.mark.parametrize("size", [200, 300_001])
def test_statistics_agree_where_the_mean_dominates(size, shift, generator):
    gradient = torch.randn(size, generator=generator) + shift
    assert_row_agrees(gradient, rel=1e-5)
    gradient[7] = 0
    assert_row_agrees(gradient.to_sparse(), rel=1e-5)


def test_a_sparse_gradient_counts_repeated_indices_once():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 1, 3])).sum().backward()
    (row,) = gradient_report(embedding)
    assert row.zero_fraction == 0.6
    assert row.norm == pytest.approx(embedding.weight.grad.to_dense().norm().item())


def test_a_complex_gradient_is_measured_by_its_absolute_values(generator):
    gradient = torch.randn(50, dtype=torch.complex64, generator=generator)
    (row,) = gradient_report(model_with_gradient(gradient))
    assert row.norm == pytest.approx(gradient.norm().item())
    assert row.mean == pytest.approx(gradient.mean().item())
    assert row.std == pytest.approx(gradient.std().item())
    assert row.max_abs == pytest.approx(gradient.abs().max().item())


def test_a_constant_gradient_has_no_spread():
    assert gradient_report(model_with_gradient(torch.full((100_000,), 0.1)))[0].std < 1e-15


def test_none_zero_nonfinite_and_frozen_are_told_apart():
    model = nn.ParameterDict({name: torch.ones(2) for name in "abcdef"})
    model["b"].grad = torch.zeros(2)
    model["c"].grad = torch.tensor([1.0, math.nan])
    model["d"].grad = torch.tensor([math.inf, 1.0])
    model["e"].grad = torch.full((2,), 1e-30)  # so small that its square is zero
    model["f"].requires_grad_(False)
    statuses = [row.status for row in gradient_report(model)]
    assert statuses == ["none", "zero", "nonfinite", "nonfinite", "ok", "frozen"]


def test_a_nan_shows_in_whichever_piece_it_lies():
    for place in (0, -1):
        gradient = torch.ones(200_000)
        gradient[place] = math.nan
        (row,) = gradient_report(model_with_gradient(gradient))
        assert row.status == "nonfinite"
        assert math.isnan(row.max_abs)
        assert row.zero_fraction == 0


def test_numbers_are_none_without_a_gradient():
    row = gradient_report(nn.Linear(2, 1))[0]
    assert (row.shape, row.norm, row.mean, row.weight_ratio) == ((1, 2), None, None, None)


def test_zero_grad_leads_back_to_none():
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    model.zero_grad()
    assert {row.status for row in gradient_report(model)} == {"none"}


def test_a_frozen_parameter_that_still_holds_a_gradient_counts_as_torch_counts_it():
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    model.weight.requires_grad_(False)
    report = gradient_report(model)
    assert report[0].status == "frozen"
    assert report[0].norm == pytest.approx(math.sqrt(2))
    assert report.total_norm == pytest.approx(math.sqrt(3))


def test_total_norm_is_torchs(generator):
    model = small_network()
    random_backward(model(torch.randn(4, 1, 8, 8, generator=generator)), generator=generator)
    model[0].bias.grad = None
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    expected = torch.nn.utils.get_total_norm(gradients).item()
    assert gradient_report(model).total_norm == pytest.approx(expected)


def test_total_norm_is_zero_before_any_backward():
    assert gradient_report(nn.Linear(2, 1)).total_norm == 0


def test_a_tied_weight_comes_once():
    tied = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3, bias=False))
    tied[1].weight = tied[0].weight
    assert [row.name for row in gradient_report(tied)] == ["0.weight"]


def test_the_report_changes_nothing_and_keeps_nothing(generator):
    model = small_network()
    random_backward(model(torch.randn(4, 1, 8, 8, generator=generator)), generator=generator)
    before = [(p, p.grad, p.clone(), p.grad.clone(), p._version) for p in model.parameters()]
    gradient_report(model)
    for parameter, gradient, old_parameter, old_gradient, version in before:
        assert parameter.grad is gradient
        assert torch.equal(parameter, old_parameter)
        assert torch.equal(gradient, old_gradient)
        assert parameter._version == version


def test_an_empty_and_a_lazy_parameter_are_reported():
    model = nn.ModuleList([nn.LazyLinear(3), nn.ParameterDict({"none": torch.ones(0, 2)})])
    model[1]["none"].grad = torch.ones(0, 2)
    lazy, _, empty = gradient_report(model)
    assert (lazy.shape, lazy.status) == (None, "none")
    assert (empty.shape, empty.status, empty.norm) == ((0, 2), "zero", 0)
    assert "?" in str(gradient_report(model))


@pytest.mark.parametrize(
    ("weights", "gradient", "ratio"),
    [
        (torch.full((70_000,), 1000.0).half(), torch.ones(70_000).half(), 1e-3),
        (torch.full((9,), 1e25), torch.ones(9), 1e-25),
        (torch.full((9,), 1e-30), torch.full((9,), 1e-30), 1),
        (torch.eye(3).to_sparse(), torch.eye(3).to_sparse() * 2, 2),
    ],
)
def test_the_ratio_is_right_for_weights_whose_norm_overflows_or_is_sparse(weights, gradient, ratio):
    model = nn.ParameterList([weights])
    model[0].grad = gradient
    assert gradient_report(model)[0].weight_ratio == pytest.approx(ratio, rel=1e-3)


def test_zero_weights_make_the_ratio_infinite_and_no_error():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    model(torch.ones(1, 1)).sum().backward()
    assert gradient_report(model)[0].weight_ratio == math.inf


def test_the_report_reads_as_a_table():
    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[3.0, 0.0]])
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 2.0]]))
    header, _, weight, bias, total = str(gradient_report(model)).splitlines()
    assert header.split()[:4] == ["parameter", "shape", "status", "norm"]
    expected = "weight 1x2 ok 3.00e+00 1.50e+00 2.12e+00 3.00e+00 50.0% 1.50e+00"
    assert weight.split() == expected.split()
    assert bias.split() == ["bias", "1", "none", *"------"]
    assert total == "total norm: 3"
    assert "<td" in gradient_report(model)._repr_html_()


def test_a_model_on_meta_has_no_numbers_to_report():
    model = nn.Linear(2, 1, device="meta")
    model(torch.ones(1, 2, device="meta")).sum().backward()
    with pytest.raises(ValueError, match="gradient of weight is on the meta device"):
        gradient_report(model)


def test_an_empty_model_is_an_error():
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        gradient_report(nn.ReLU())


def test_something_else_than_a_model_is_an_error():
    with pytest.raises(TypeError, match="model is a list: expected an nn"):
        gradient_report(list(nn.Linear(2, 1).parameters()))


# --- numerical_gradient ----------------------------------------------------------------------


def test_numerical_gradient_agrees_with_autograd_on_every_parameter(generator):
    model = small_network().double()
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 2, 1])

    def loss_fn():
        return F.cross_entropy(model(images), labels)

    loss_fn().backward()
    for parameter in model.parameters():
        numerical = numerical_gradient(loss_fn, parameter)
        assert numerical.shape == parameter.shape
        assert not numerical.requires_grad
        torch.testing.assert_close(numerical, parameter.grad, rtol=1e-6, atol=1e-9)


def test_numerical_gradient_agrees_on_the_network_of_the_series(generator):
    torch.manual_seed(0)
    net = Network().double()
    images = torch.randn(2, 1, 32, 32, dtype=torch.float64, generator=generator)
    v = random_backward(net(images), generator=generator)
    for parameter in net.parameters():
        picked = torch.randint(parameter.numel(), (10,), generator=generator)
        numerical = numerical_gradient(lambda: (v * net(images)).sum(), parameter, indices=picked)
        expected = parameter.grad.flatten()[picked]
        torch.testing.assert_close(numerical, expected, rtol=1e-6, atol=1e-8)


@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    seed=st.integers(0, 2**32 - 1),
    transpose=st.booleans(),
)
def test_numerical_gradient_agrees_on_any_shape_and_memory_order(shape, seed, transpose):
    source = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, dtype=torch.float64, generator=source)
    w = (w.mT if transpose and len(shape) > 1 else w).requires_grad_()

    def loss_fn():
        return (w.sin() * w.exp()).sum()

    (expected,) = torch.autograd.grad(loss_fn(), w)
    torch.testing.assert_close(numerical_gradient(loss_fn, w), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "indices",
    [
        [(0, 1), (1, -1), (0, 1)],
        [1, -1, 1],
        torch.tensor([[0, 1], [1, 2], [0, 1]]),
        torch.tensor([1, 5, 1]),
        iter([(0, 1), 5, torch.tensor(1)]),
        np.array([1, 5, 1]),
        np.array([[0, 1], [1, 2], [0, 1]]),
    ],
    ids=["tuples", "integers", "rows", "flat", "mixed", "flat of numpy", "rows of numpy"],
)
def test_indices_pick_entries_in_their_order(indices):
    w = torch.arange(6, dtype=torch.float64).reshape(3, 2).T
    gradient = numerical_gradient(lambda: (w**2).sum() / 2, w, indices=indices)
    expected = w.flatten()[[1, 5, 1]]
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)


def test_no_indices_ask_for_nothing():
    w = torch.ones(3, dtype=torch.float64)
    assert numerical_gradient(lambda: w.sum(), w, indices=[]).shape == (0,)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (6, "index 6 is out of range for 6 entries"),
        (-7, "index -7 is out of range for 6 entries"),
        ((0,), r"index \(0,\) must point at one entry of shape \(2, 3\)"),
        ((2, 0), "index 2 is out of bounds"),
        ((0, 0, 0), "too many indices"),
        ((0, slice(None)), "must point at one entry"),
    ],
)
def test_an_index_outside_the_parameter_is_an_error(index, message):
    w = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(IndexError, match=message):
        numerical_gradient(lambda: w.sum(), w, indices=[index])


@pytest.mark.parametrize("index", ["a", 0.5, None, True])
def test_an_index_that_is_not_made_of_whole_numbers_is_an_error(index):
    w = torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(TypeError, match="expected an int, or a tuple of ints"):
        numerical_gradient(lambda: w.sum(), w, indices=[index])
    with pytest.raises(TypeError, match=r"indices=3: expected a list of them, such as \[3\]"):
        numerical_gradient(lambda: w.sum(), w, indices=3)


@pytest.mark.parametrize(
    ("loss_fn", "parameter"),
    [(None, torch.ones(1)), (lambda: 0.0, nn.Linear(1, 1)), (lambda: 0.0, [1.0])],
)
def test_other_kinds_of_arguments_are_refused(loss_fn, parameter):
    with pytest.raises(TypeError, match=r"expected a function without arguments and a tensor"):
        numerical_gradient(loss_fn, parameter)


def test_a_parameter_on_meta_has_no_numbers_to_nudge():
    with pytest.raises(ValueError, match="on the meta device"):
        numerical_gradient(lambda: 0.0, torch.ones(2, dtype=torch.float64, device="meta"))


def test_a_generator_of_another_library_is_refused():
    with pytest.raises(TypeError, match=r"generator is a int: use torch.Generator\(\)"):
        random_backward(torch.ones(2, requires_grad=True) * 2, generator=3)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().view(torch.int64).clone()


def test_the_parameter_is_bit_for_bit_as_it_was():
    w = torch.tensor([-0.0, math.nan, 0.1, 1e9, 5e-324], dtype=torch.float64)
    before = bits(w)
    numerical_gradient(lambda: w[2] * 3, w)
    assert torch.equal(bits(w), before)


@pytest.mark.parametrize("good_calls", [0, 1, 2, 5])
def test_the_parameter_is_restored_when_the_loss_raises(good_calls):
    w = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before, calls = bits(w), iter(range(100))

    def loss_fn():
        if next(calls) == good_calls:
            raise KeyboardInterrupt
        return (w**2).sum()

    with pytest.raises(KeyboardInterrupt):
        numerical_gradient(loss_fn, w)
    assert torch.equal(bits(w), before)


def test_a_graph_made_before_still_goes_backward_after():
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = (w**2).sum()
    numerical_gradient(lambda: (w**2).sum(), w)
    loss.backward()
    assert torch.equal(w.grad, 2 * torch.ones(3, dtype=torch.float64))


def test_the_nudge_is_measured_after_rounding():
    w = torch.tensor([1e6], dtype=torch.float64)
    assert numerical_gradient(lambda: w.sum() - 1e6, w).item() == 1


def test_loss_fn_may_return_a_float_and_use_gradients():
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)

    def slope():
        return torch.autograd.grad((w**3).sum(), w)[0].item()

    assert numerical_gradient(slope, w).item() == pytest.approx(12)


def test_float32_is_turned_away_with_the_way_out():
    layer = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"torch\.float32.*copy\.deepcopy\(model\)\.double\(\)"):
        numerical_gradient(lambda: layer(torch.ones(1, 2)).sum(), layer.weight)
    double = copy.deepcopy(layer).double()
    inputs = torch.ones(1, 2, dtype=torch.float64)
    assert numerical_gradient(lambda: double(inputs).sum(), double.weight).shape == (1, 2)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (torch.ones(2, 3), r"shape \(2, 3\): expected one number in float64. Reduce it"),
        (torch.ones(()), r"loss_fn returned torch\.float32"),
    ],
)
def test_a_loss_that_is_not_one_float64_number_is_an_error(loss, message):
    w = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        numerical_gradient(lambda: loss, w)
    assert torch.equal(w, torch.ones(2, dtype=torch.float64))


def test_a_loss_fn_that_forgets_to_return_is_an_error():
    with pytest.raises(ValueError, match="loss_fn returned None: expected one number"):
        numerical_gradient(lambda: None, torch.ones(2, dtype=torch.float64))


def test_an_expanded_parameter_cannot_be_nudged():
    w = torch.ones(1, dtype=torch.float64).expand(3)
    with pytest.raises(ValueError, match="entries share memory"):
        numerical_gradient(lambda: w.sum(), w)


@pytest.mark.parametrize("eps", [0, -1e-5, math.inf, math.nan, "1e-5", None])
def test_eps_must_be_small_and_positive(eps):
    with pytest.raises(ValueError, match="expected a small positive number"):
        numerical_gradient(lambda: 0.0, torch.ones(2, dtype=torch.float64), eps=eps)


def test_an_eps_that_is_lost_in_rounding_is_an_error():
    with pytest.raises(ValueError, match="is lost beside an entry of 1e"):
        numerical_gradient(lambda: 0.0, torch.full((1,), 1e20, dtype=torch.float64))

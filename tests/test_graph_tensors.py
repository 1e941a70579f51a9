"""Tensors that the caller names are found in the graph, with the numbers that torch has."""

import pytest
import torch
from torch import nn

from blitz_helpers import NamedTensor, autograd_graph


@pytest.fixture
def w():
    return torch.tensor(2.0, requires_grad=True)


def test_a_leaf_is_called_by_its_name_and_an_operation_keeps_its_own(w):
    product = w * 3
    graph = autograd_graph(product**2, tensors={"w": w, "product": product})
    assert [(node.op, node.parameter) for node in graph.nodes] == [
        ("pow", None),
        ("mul", None),
        ("accumulate_grad", "w"),
    ]
    assert [(named.name, graph.nodes[named.node].op) for named in graph.tensors] == [
        ("w", "accumulate_grad"),
        ("product", "mul"),
    ]


def test_values_and_gradients_are_those_that_torch_keeps(w):
    product = w * 3
    output = product**2
    named = {"output": output, "product": product, "w": w}
    product.retain_grad()
    before = autograd_graph(output, tensors=named).tensors
    output.backward(retain_graph=True)
    after = autograd_graph(output, tensors=named).tensors
    assert [(tensor.value, tensor.grad) for tensor in before] == [(36, None), (6, None), (2, None)]
    # Of `output` torch keeps none: it is not a leaf, and nobody asked for it.
    assert after[0].grad is None
    assert after[1:] == (
        NamedTensor(1, "product", 6, product.grad.item()),
        NamedTensor(2, "w", 2, w.grad.item()),
    )


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(3, requires_grad=True),
        torch.tensor(1 + 2j, requires_grad=True),
        torch.ones((), device="meta", requires_grad=True),
    ],
    ids=["several", "complex", "meta"],
)
def test_a_tensor_that_is_not_one_real_number_has_a_name_and_no_value(tensor):
    graph = autograd_graph(tensor * 2, tensors={"here": tensor})
    assert graph.tensors == (NamedTensor(1, "here", None, None),)


def test_a_models_own_names_come_first_and_the_rest_of_the_leaves_have_the_callers(w):
    model = nn.Linear(1, 1)
    output = model(w.reshape(1, 1))
    graph = autograd_graph(output, model, tensors={"mine": model.bias, "input": w})
    assert {leaf.parameter for leaf in graph.leaves} == {"weight", "bias", "input"}


@pytest.mark.parametrize(
    ("stranger", "error", "message"),
    [
        (3.0, TypeError, r"tensors\['x'\] is a float; expected a tensor"),
        (torch.ones(()), ValueError, r"tensors\['x'\] does not require grad.*Leave it out"),
        (torch.ones((), requires_grad=True), ValueError, "output was not computed from it"),
    ],
    ids=["no tensor", "no gradient", "another graph"],
)
def test_a_tensor_outside_the_graph_is_refused_by_name(stranger, error, message, w):
    with pytest.raises(error, match=message):
        autograd_graph(w * 3, tensors={"x": stranger})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([torch.ones(1)], "tensors is a list; expected a dict"),
        (torch.ones(2), "tensors is a Tensor; expected a dict"),
        ({1: torch.ones(1)}, r"The name of tensors\[1\] is a int; expected text"),
    ],
)
def test_names_that_are_not_a_dict_are_refused(tensors, message, w):
    with pytest.raises(TypeError, match=message):
        autograd_graph(w * 2, tensors=tensors)


def test_a_sparse_number_has_a_value_and_one_of_many_under_vmap_has_none():
    sparse = torch.ones(1).to_sparse().requires_grad_()
    (record,) = autograd_graph(sparse * 2, tensors={"w": sparse}).tensors
    assert record.value == 1
    records = []

    def loss(x):
        y = x.square().sum()
        records.extend(autograd_graph(y, tensors={"y": y}).tensors)
        return y

    torch.func.vmap(torch.func.grad(loss))(torch.ones(2, 1))
    assert [record.value for record in records] == [None]

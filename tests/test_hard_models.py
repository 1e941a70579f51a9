"""The hard models: each is graphed, reported on and updated. (Another file traces them.)"""

import copy
import warnings

import pytest
import torch
from hard_models import HARD_MODELS

from blitz_helpers import adam_step, autograd_graph, gradient_report, sgd_step

each_model = pytest.mark.parametrize("hard", HARD_MODELS, ids=str)


def tensors_with_graph(output):
    if isinstance(output, torch.Tensor):
        return [output] if output.grad_fn is not None and not output.is_meta else []
    if isinstance(output, dict):
        output = list(output.values())
    elif hasattr(output, "__dataclass_fields__"):
        output = list(vars(output).values())
    if isinstance(output, list | tuple):
        return [tensor for one in output for tensor in tensors_with_graph(one)]
    return []


def run(hard):
    torch.manual_seed(0)
    model = hard.make_model()
    args, kwargs = hard.make_inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fused path of the encoder announces itself
        outputs = tensors_with_graph(model(*args, **kwargs))
    return model, outputs


def backward(outputs):
    loss = sum(output.abs().double().mean() for output in outputs)
    loss.backward()


@each_model
def test_the_graph_is_read_and_changes_nothing(hard):
    model, outputs = run(hard)
    if not outputs:
        pytest.skip("nothing here has a graph")
    state, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    graph = autograd_graph(outputs)

    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert value.is_meta or torch.equal(value, state[name])
    assert {node.name for node in graph.roots} == {
        output.grad_fn.name().rpartition("::")[2] for output in outputs
    }
    if graph.can_backward is not False:  # `None` where only C++ knows: none of these fails there
        backward(outputs)
    else:  # the model in question changes in place what its backward needs
        with pytest.raises(RuntimeError, match="inplace"):
            backward(outputs)


@each_model
def test_the_report_and_the_updates_take_every_model(hard):
    model, outputs = run(hard)
    params = [w for w in model.parameters() if not w.is_meta]
    if not outputs or not params or autograd_graph(outputs).can_backward is False:
        pytest.skip("nothing here has gradients")
    backward(outputs)

    report = gradient_report(model)
    named = dict(model.named_parameters())
    assert [row.name for row in report] == list(named)
    for row in report:
        grad = named[row.name].grad
        if grad is not None:
            assert row.norm == pytest.approx(torch.linalg.vector_norm(grad).item(), rel=1e-2)

    twin = [w.detach().clone().requires_grad_() for w in params]
    for mine, other in zip(params, twin, strict=True):
        other.grad = None if mine.grad is None else mine.grad.clone()
    sgd_step(params, lr=0.1)
    torch.optim.SGD(twin, lr=0.1).step()
    adam_step(params, {}, lr=0.01)
    torch.optim.Adam(twin, lr=0.01).step()
    for mine, other in zip(params, twin, strict=True):
        assert torch.equal(mine, other)

"""Which module is running is known in every thread, whoever else traces, labels or runs a model."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch._dynamo  # adds warning filters of its own when it is first loaded
from torch import nn
from torch.nn.modules import module as module_hooks

from blitz_helpers import Network, autograd_graph, label_modules, trace_shapes
from blitz_helpers._running import running_modules

PATIENCE = 60  # seconds that a thread waits for another before the test fails


def torchs_own():
    """Return what a trace and a labelling must leave as it is in torch and in Python."""
    return (
        nn.Module._call_impl,
        nn.Module.__call__,
        dict(module_hooks._global_forward_hooks),
        dict(module_hooks._global_forward_pre_hooks),
        dict(module_hooks._global_forward_hooks_always_called),
        torch.get_default_dtype(),
        warnings.filters[:],
    )


@pytest.fixture(autouse=True)
def untouched():
    before = torchs_own()
    yield
    assert torchs_own() == before
    assert running_modules() == []


def in_threads(*functions):
    """Return what the functions give, each run in a thread of its own."""
    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(function) for function in functions]
        return [future.result(timeout=PATIENCE) for future in futures]


class Meeting(nn.Module):
    """Runs its layers, and between the two says that it has come so far and waits for others."""

    def __init__(self, arrived, awaited):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 2))
        self.meet = lambda: (arrived.set(), wait_for(awaited))

    def forward(self, x):
        x = self.first(x)
        torch.rand(2)  # moves torch's random state
        self.meet()
        return self.second(x).relu()


def wait_for(event):
    assert event.wait(PATIENCE)


ROWS = [("", 0), ("first", 1), ("second", 1), ("second.0", 2)]


def rows(trace):
    return [(call.module, call.depth) for call in trace.by_module()]


def test_traces_that_end_in_the_order_in_which_they_began_leave_torch_alone():
    first_began, second_began, first_ended = (threading.Event() for _ in range(3))
    models = Meeting(first_began, second_began), Meeting(second_began, first_ended)
    random_state = torch.get_rng_state()

    def first():
        trace = trace_shapes(models[0], (1, 4))
        first_ended.set()
        return trace

    def second():
        wait_for(first_began)
        return trace_shapes(models[1], (1, 4))

    for trace in in_threads(first, second):
        assert rows(trace) == ROWS
        assert [step.module for step in trace if step.op != "rand"] == ["first", "second.0", ""]
    assert torch.equal(torch.get_rng_state(), random_state)


def test_four_threads_that_trace_at_once_get_the_tables_of_one():
    expected = rows(trace_shapes(Network(), (1, 1, 32, 32)))
    barrier = threading.Barrier(4)

    def many():
        barrier.wait(PATIENCE)
        return [rows(trace_shapes(Network(), (1, 1, 32, 32))) for _ in range(60)]

    for tables in in_threads(*[many] * 4):
        assert tables == [expected] * 60


def test_four_threads_that_label_and_trace_one_model_get_the_labels_of_one():
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Tanh(), nn.ReLU()))
    barrier = threading.Barrier(4)

    def many():
        barrier.wait(PATIENCE)
        found = []
        for _ in range(30):
            with label_modules(model):
                output = model(torch.ones(1, 4))
            trace_shapes(model, (1, 4))
            found.append([node.module for node in autograd_graph(output, model).nodes[:3]])
        return found

    for labels in in_threads(*[many] * 4):
        assert labels == [["1.1", "1.0", "0"]] * 30


def test_labelling_and_tracing_can_begin_while_another_thread_is_in_a_forward_pass():
    inside, done = threading.Event(), threading.Event()
    model = Meeting(inside, done)

    def forward():
        model(torch.ones(1, 4))

    def watch():
        wait_for(inside)
        trace = trace_shapes(Network(), (1, 1, 32, 32))
        other = Meeting(threading.Event(), done)
        with label_modules(model), label_modules(other):
            done.set()
            thread.result(timeout=PATIENCE)
            output = other(torch.ones(1, 4))
        return trace, [node.module for node in autograd_graph(output, other).nodes[:2]]

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(forward)
        trace, labels = watch()
    assert rows(trace) == rows(trace_shapes(Network(), (1, 1, 32, 32)))
    assert labels == ["", "second.0"]


def test_a_trace_leaves_out_a_forward_pass_in_another_thread():
    inside, done = threading.Event(), threading.Event()
    model = Meeting(inside, done)

    def forward():
        wait_for(inside)
        for layer in (model.first, model.second):
            layer(torch.ones(1, layer.in_features if hasattr(layer, "in_features") else 3))
        done.set()

    trace, _ = in_threads(lambda: trace_shapes(model, (1, 4)), forward)
    assert rows(trace) == ROWS


@pytest.mark.parametrize("when", ["before", "after", "before in all", "after in all"])
def test_a_hook_that_raises_leaves_the_next_forward_pass_rightly_labelled(when):
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())

    def refuse(module, *_):
        if module is model[0]:
            raise RuntimeError("refused")

    register = {
        "before": model[0].register_forward_pre_hook,
        "after": model[0].register_forward_hook,
        "before in all": module_hooks.register_module_forward_pre_hook,
        "after in all": module_hooks.register_module_forward_hook,
    }[when]
    handle = register(refuse)
    with label_modules(model):
        with pytest.raises(RuntimeError, match="refused"):
            model(torch.ones(1, 4))
        handle.remove()
        assert running_modules() == []
        output = model(torch.ones(1, 4)).sum()
    labels = [node.module for node in autograd_graph(output, model).nodes[:3]]
    assert labels == [None, "1", "0"]


def test_ctrl_c_in_a_layer_leaves_nothing_running():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), label_modules(model):
        model(torch.ones(1, 4))
    assert running_modules() == []
    with pytest.raises(KeyboardInterrupt):
        trace_shapes(model, (1, 4))
    handle.remove()
    assert rows(trace_shapes(model, (1, 4))) == [("", 0), ("0", 1), ("1", 1)]


@pytest.mark.parametrize("watch", ["trace", "label"])
def test_a_compiled_module_inside_stays_compiled_and_makes_no_warning(watch):
    model = nn.Sequential(torch.compile(nn.Linear(4, 3), backend="eager"), nn.Tanh())
    if watch == "trace":
        assert trace_shapes(model, (1, 4)).path() == "input -> linear -> tanh"
    else:
        with label_modules(model):
            output = model(torch.ones(1, 4))
        assert autograd_graph(output, model).root.module == "1"
    assert torch._dynamo.eval_frame._stance.stance == "default"

"""The autograd graph as data, held against torch's own walk and torch's own `backward()`."""

import gc
import pickle
import re
import threading
import warnings
import weakref
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hard_models import HARD_MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import Function
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn.modules import module as module_hooks
from torch.utils.checkpoint import checkpoint

from blitz_helpers import Network, autograd_graph, label_modules


@pytest.fixture
def net():
    return Network()


@pytest.fixture
def loss(net):
    return F.mse_loss(net(torch.ones(1, 1, 32, 32)), torch.ones(1, 10))


def weight(*shape):
    return torch.ones(*(shape or (3,)), requires_grad=True)


def node_of(graph, op):
    (found,) = [node for node in graph.nodes if node.op == op]
    return found


def walk(*tensors):
    """Return torch's nodes behind the tensors, found in the plainest way."""
    found, todo = {}, [tensor.grad_fn for tensor in tensors]
    while todo:
        node = todo.pop()
        if node is not None and node not in found:
            found[node] = None
            todo += [source for source, _ in node.next_functions]
    return list(found)


# The network


def test_the_networks_loss_has_26_nodes_and_25_edges(net, loss):
    graph = autograd_graph(loss, net)
    assert Counter(node.op for node in graph.nodes) == {
        "accumulate_grad": 10,
        "relu": 4,
        "addmm": 3,
        "t": 3,
        "convolution": 2,
        "max_pool2d_with_indices": 2,
        "view": 1,
        "mse_loss": 1,
    }
    assert len(graph.edges) == 25
    assert repr(graph) == "AutogradGraph(26 nodes, 25 edges, 10 leaves)"


def test_nodes_bear_torchs_names_without_the_prefix(loss):
    theirs = Counter(node.name().removeprefix("torch::autograd::") for node in walk(loss))
    assert Counter(node.name for node in autograd_graph(loss).nodes) == theirs


def test_every_leaf_bears_its_parameters_name_and_shape(net, loss):
    leaves = {leaf.parameter: leaf.shape for leaf in autograd_graph(loss, net).leaves}
    assert leaves == {name: tuple(p.shape) for name, p in net.named_parameters()}


def test_without_a_model_nothing_is_named(loss):
    nodes = autograd_graph(loss).nodes
    assert {node.parameter for node in nodes} == {node.module for node in nodes} == {None}


def test_the_owner_of_a_parameter_is_the_module_of_what_it_feeds_also_through_t(net, loss):
    graph = autograd_graph(loss, net)
    modules = {op: [n.module for n in graph.nodes if n.op == op] for op in ("addmm", "t", "relu")}
    assert modules == {
        "addmm": ["fc3", "fc2", "fc1"],
        "t": ["fc3", "fc2", "fc1"],
        "relu": [None] * 4,
    }


def test_path_reads_forward_from_the_deepest_operation(loss):
    assert autograd_graph(loss).path() == (
        "convolution -> relu -> max_pool2d_with_indices -> convolution -> relu -> "
        "max_pool2d_with_indices -> view -> addmm -> relu -> addmm -> relu -> addmm -> mse_loss"
    )


def test_slots_find_relu_where_everybody_prints_a_bias(net, loss):
    graph = autograd_graph(loss, net)
    addmm = graph.nodes[graph.root.inputs[0]]
    assert [graph.nodes[number].op for number in addmm.inputs] == ["accumulate_grad", "relu", "t"]
    slots = {edge.slot: graph.nodes[edge.source] for edge in graph.edges if edge.target == addmm[0]}
    assert slots[0].parameter == "fc3.bias"
    assert slots[1].op == "relu"


def test_an_input_without_a_gradient_has_no_edge_but_keeps_its_slot(loss):
    graph = autograd_graph(loss)
    assert graph.root.inputs == (1, None)
    first_convolution = max(
        (n for n in graph.nodes if n.op == "convolution"), key=lambda n: n.depth
    )
    assert first_convolution.inputs[0] is None
    assert {e.slot for e in graph.edges if e.target == first_convolution.number} == {1, 2}


# Any graph, against torch's


@st.composite
def outputs(draw):
    """Draw a random graph: operations on what was made before, some of it shared or unused."""
    made = [weight(2, 2) * 1.5, weight(2, 2), torch.ones(2, 2)]
    for _ in range(draw(st.integers(1, 12))):
        one, other = (draw(st.sampled_from(made)) for _ in range(2))
        step = draw(st.sampled_from(["add", "mul", "matmul", "tanh", "t", "chunk"]))
        if step in ("tanh", "t"):
            made.append(getattr(torch, step)(one))
        elif step == "chunk":
            made.append(torch.cat(one.chunk(2)[::-1]))
        else:
            made.append(getattr(torch, step)(one, other))
    return [tensor for tensor in made if tensor.grad_fn is not None]


@given(outputs(), st.booleans())
def test_nodes_edges_and_depths_are_those_of_a_plain_walk(tensors, several):
    tensors = tensors if several else tensors[-1:]
    graph = autograd_graph(tensors)
    theirs = walk(*tensors)
    assert Counter(node.name for node in graph.nodes) == Counter(
        node.name().removeprefix("torch::autograd::") for node in theirs
    )
    edges = Counter()
    for node in theirs:
        for slot, (source, _) in enumerate(node.next_functions):
            if source is not None:
                names = (source.name(), node.name())
                edges[(*(name.removeprefix("torch::autograd::") for name in names), slot)] += 1
    assert edges == Counter(
        (graph.nodes[edge.source].name, graph.nodes[edge.target].name, edge.slot)
        for edge in graph.edges
    )
    above = {node.number: -1 for node in graph.nodes}
    for edge in graph.edges:  # by depth of the target, so that it is known by now
        target = graph.nodes[edge.target]
        above[edge.source] = max(above[edge.source], target.depth)
    assert all(node.depth == above[node.number] + 1 for node in graph.nodes)
    longest = max(node.depth for node in graph.nodes if node.op != "accumulate_grad")
    assert len(graph.path().split(" -> ")) == longest + 1


@given(outputs(), st.sampled_from(["fresh", "freed", "retained", "part", "changed"]))
def test_can_backward_foretells_what_backward_does(tensors, history):
    output = tensors[-1]
    ones = torch.ones_like(output)
    if history in ("freed", "retained"):
        output.backward(ones, retain_graph=history == "retained")
    elif history == "part":
        tensors[0].backward(torch.ones_like(tensors[0]))
    elif history == "changed":
        with torch.no_grad():
            tensors[0].add_(1)
    graph = autograd_graph(output)
    assert graph.can_backward is (graph.backward_error is None)
    assert graph.can_backward is goes_backward((output * ones).sum())


def test_operations_have_the_names_that_torch_calls_them_by():
    from blitz_helpers.graph._kinds import op_of

    ops = {
        name.removeprefix("aten::").partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::")
    }
    for python_name in dir(torch._C._functions):
        stem = re.sub(r"Backward\d*$", "", python_name)
        if stem == python_name or "Backward" in stem:
            continue
        op = op_of(python_name)
        assert {op, f"_{op}", f"{op}_forward", f"{op}_"} & ops or _is_decomposed(stem, ops), op


def _is_decomposed(stem, ops):
    """Say whether no operation is written like this at all, so that there is nothing to find."""
    return stem.lower() not in {op.replace("_", "") for op in ops}


# Saved, freed, changed


def test_saved_tensors_have_torchs_names_shapes_and_bytes():
    x, w = torch.ones(4, 3), weight(3, 2)
    graph = autograd_graph((x @ w).exp().sum())
    (saved,) = node_of(graph, "mm").saved
    assert saved == ("self", (4, 3), 48, "kept")
    (saved,) = node_of(graph, "exp").saved
    assert saved == ("result", (4, 2), 32, "kept")
    assert node_of(graph, "sum").saved == ()


def test_what_was_never_given_is_not_saved():
    graph = autograd_graph(F.batch_norm(weight(4, 3), None, None, training=True))
    names = {saved.name for saved in graph.root.saved}
    assert {"input", "result1", "result2"} <= names
    assert not names & {"running_mean", "weight"}


def test_memory_that_is_saved_twice_counts_once():
    w = weight(5)
    graph = autograd_graph((w * w).sum())
    assert [saved.nbytes for saved in node_of(graph, "mul").saved] == [20, 20]
    assert graph.saved_bytes == 20


def test_lists_of_saved_tensors_are_numbered():
    output = weight(4, 4)[torch.tensor([0, 1]), torch.tensor([1, 2])]
    names = [saved.name for saved in autograd_graph(output).root.saved]
    assert names == ["indices[0]", "indices[1]"]
    output.sum().backward()
    assert autograd_graph(output).root.freed is True


def test_backward_frees_and_the_graph_says_so(loss):
    assert {node.freed for node in autograd_graph(loss).nodes} == {False, None}
    loss.backward()
    graph = autograd_graph(loss)
    assert {node.freed for node in graph.nodes} == {True, None}
    assert {saved.state for node in graph.nodes for saved in node.saved} == {"freed"}
    assert graph.saved_bytes == 0
    assert re.search(r"^MseLossBackward0 has freed .*forward pass again", graph.backward_error)


def test_a_graph_that_saved_nothing_goes_backward_twice():
    output = (weight() + 1).sum()
    output.backward()
    graph = autograd_graph(output)
    assert graph.can_backward
    assert {node.freed for node in graph.nodes} == {None}
    output.backward()


def test_a_new_loss_on_an_old_output_cannot_go_backward(net):
    output = net(torch.ones(1, 1, 32, 32))
    output.sum().backward()
    graph = autograd_graph(output.square().sum(), net)
    assert node_of(graph, "pow").freed is False
    assert not graph.can_backward
    assert graph.backward_error.startswith("AddmmBackward0 in fc3 has freed")


def test_a_tensor_changed_in_place_is_named():
    w = weight()
    hidden = w * 1.0
    output = hidden.sin().sum()
    with torch.no_grad():
        hidden.add_(1)
    graph = autograd_graph(output)
    assert [saved.state for saved in node_of(graph, "sin").saved] == ["changed"]
    assert re.search(r"^SinBackward0 needs self as saved.*modified in place", graph.backward_error)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_a_change_before_saving_does_not_count():
    hidden = (weight() * 1.0).add_(1)
    graph = autograd_graph(F.relu(hidden, inplace=True).sin().sum())
    assert graph.can_backward


def test_hooks_on_saved_tensors_do_not_run():
    unpacked = []
    with saved_tensors_hooks(lambda tensor: tensor, unpacked.append):
        output = weight().exp().sum()
    graph = autograd_graph(output)
    assert node_of(graph, "exp").saved == (("result", None, None, "packed"),)
    assert node_of(graph, "exp").freed is False
    assert graph.can_backward
    assert unpacked == []


def test_packed_tensors_are_freed_too():
    with save_on_cpu():
        output = weight().exp().sum()
    output.backward()
    graph = autograd_graph(output)
    assert [saved.state for saved in node_of(graph, "exp").saved] == ["freed"]
    assert not graph.can_backward


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_nothing_is_recomputed_under_checkpointing(use_reentrant):
    calls = []

    def block(x):
        calls.append(1)
        return x.sin().exp()

    output = checkpoint(block, weight(), use_reentrant=use_reentrant).sum()
    assert autograd_graph(output).can_backward
    assert len(calls) == 1
    output.backward()
    assert not autograd_graph(output).can_backward


def test_a_graph_keeps_no_tensor_alive(net):
    output = net(torch.ones(1, 1, 32, 32))
    hidden = output.exp()
    alive = [weakref.ref(tensor) for tensor in (output, hidden)]
    graph = autograd_graph(hidden.sum(), net)
    del output, hidden
    gc.collect()
    assert [reference() for reference in alive] == [None, None]
    assert len(graph.nodes) == 27


def test_looking_does_not_change_the_backward(net, loss):
    expected = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    autograd_graph(loss, net)
    loss.backward()
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


# All kinds of graphs


def test_outputs_may_be_nested_and_share_their_graph():
    shared = weight().exp()
    one, other = shared.sum(), shared.mean()
    graph = autograd_graph({"loss": one, "rest": (other, [shared])})
    assert len(graph.nodes) == 4
    assert [root.op for root in graph.roots] == ["sum", "mean", "exp"]
    assert graph.root == graph.roots[0]
    assert graph.roots[2].depth == 1


def test_the_same_output_twice_is_one_root():
    output = weight().sum()
    assert len(autograd_graph([output, output]).roots) == 1


def test_several_outputs_of_one_node_are_one_root():
    assert [root.op for root in autograd_graph(weight(4).chunk(2)).roots] == ["split"]


def test_tied_weights_are_one_leaf_with_the_first_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(3, 3), nn.Linear(3, 3)
            self.decoder.weight = self.encoder.weight

        def forward(self, x):
            return self.decoder(self.encoder(x))

    model = Tied()
    graph = autograd_graph(model(torch.ones(1, 3)), model)
    names = sorted(leaf.parameter for leaf in graph.leaves)
    assert names == sorted(name for name, _ in model.named_parameters())
    assert [node.module for node in graph.nodes if node.op == "addmm"] == ["decoder", "encoder"]


def test_parameters_are_named_through_views_and_expansion():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Module()
            self.inner.position = nn.Parameter(torch.ones(1, 8))

        def forward(self, x):
            return x + self.inner.position[:, :3].expand(4, -1)

    model = Positions()
    graph = autograd_graph(model(torch.ones(4, 3)), model)
    assert [leaf.parameter for leaf in graph.leaves] == ["inner.position"]
    assert {node.module for node in graph.nodes} == {"inner"}


def test_a_leaf_that_is_not_a_parameter_has_no_name(net):
    x = torch.ones(1, 1, 32, 32, requires_grad=True)
    graph = autograd_graph(net(x), net)
    assert [leaf.shape for leaf in graph.leaves if leaf.parameter is None] == [(1, 1, 32, 32)]


def test_a_custom_function_has_its_own_name_and_saved_tensors():
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return 2 * x * gradient

    output = Square.apply(weight())
    (root, _leaf) = autograd_graph(output).nodes
    assert (root.name, root.op) == ("SquareBackward", "Square")
    assert root.saved == (("saved_tensors[0]", (3,), 12, "kept"),)
    output.sum().backward()
    graph = autograd_graph(output)
    assert graph.root.freed is True
    assert not graph.can_backward


def test_a_custom_function_that_saves_nothing_goes_backward_twice():
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    output = Double.apply(weight()).sum()
    output.backward()
    assert autograd_graph(output).can_backward
    output.backward()


def test_types_of_custom_functions_are_not_kept():
    def once():
        double = type("Double", (Function,), {
            "forward": staticmethod(lambda ctx, x: 2 * x),
            "backward": staticmethod(lambda ctx, g: 2 * g),
        })  # fmt: skip
        autograd_graph(double.apply(weight()))
        return weakref.ref(double)

    reference = once()
    gc.collect()
    assert reference() is None


def test_a_write_into_a_slice_is_a_node():
    base = torch.zeros(3) + weight()
    base[0] = weight(1).sum()
    graph = autograd_graph(base.sum())
    assert node_of(graph, "copy_slices").name == "CopySlices"
    assert len(graph.leaves) == 2


@pytest.mark.filterwarnings("ignore:.torch.jit")  # a DeprecationWarning or a FutureWarning
def test_a_node_that_only_cpp_knows_still_has_its_name():
    scripted = torch.jit.script(_product)
    for _ in range(4):  # torch fuses only after it has seen some runs
        output = scripted(weight(), weight())
    graph = autograd_graph(output)
    assert graph.root.name == "DifferentiableGraphBackward"
    assert graph.root.op == "differentiable_graph"
    assert graph.root.saved == ()


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x * y) * torch.sigmoid(x + y) * x


def test_the_graph_of_a_gradient_is_a_graph():
    w = weight()
    (gradient,) = torch.autograd.grad(w.pow(3).sum(), w, create_graph=True)
    graph = autograd_graph(gradient)
    assert len(graph.nodes) == len(walk(gradient))
    assert graph.can_backward
    gradient.sum().backward()
    assert not autograd_graph(gradient).can_backward


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_as_it_was(enabled):
    output = weight().sum()
    try:
        (gc.enable if enabled else gc.disable)()
        autograd_graph(output)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_hooks_on_tensors_and_nodes_stay_and_do_not_run():
    w, calls = weight(), []
    hidden = w.exp()
    hidden.register_hook(calls.append)
    hidden.grad_fn.register_hook(lambda *_: calls.append(1))
    output = hidden.sum()
    autograd_graph(output)
    assert calls == []
    output.backward()
    assert len(calls) == 2


def test_a_complex_output_has_a_graph():
    w = torch.ones(3, dtype=torch.complex64, requires_grad=True)
    assert autograd_graph(w * 1j).root.op == "mul"


@pytest.mark.parametrize("hard", HARD_MODELS, ids=str)
@pytest.mark.filterwarnings("ignore")  # what these models warn of is theirs
def test_hard_models_have_their_whole_graph_named_and_foretold(hard):
    torch.manual_seed(0)
    model = hard.make_model()
    inputs, keywords = hard.make_inputs()
    model(*inputs, **keywords)  # lazy layers come to be here
    before = hook_counts(model)
    with label_modules(model):
        output = model(*inputs, **keywords)
    tensors = [tensor for tensor in tensors_in(output) if tensor.grad_fn is not None]
    if not tensors:
        pytest.skip("nothing in it has a gradient")
    graph = autograd_graph(tensors, model)
    assert hook_counts(model) == before
    assert len(graph.nodes) == len(walk(*tensors))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {leaf.parameter for leaf in graph.leaves} <= names
    assert {node.module for node in graph.nodes if not node.parameter} <= {
        name for name, _ in model.named_modules()
    } | {None}
    assert str(graph)
    assert graph.to_dot()
    total = sum(tensor.abs().sum() for tensor in tensors)
    for _ in range(2):  # the second time, what was saved is freed
        graph = autograd_graph(total, model)
        works = goes_backward(total)
        assert graph.can_backward is works or "written in C++" in graph.backward_error


def goes_backward(tensor):
    try:
        tensor.backward()
    except RuntimeError:
        return False
    return True


def tensors_in(output):
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        output = output.values()
    elif hasattr(output, "__dataclass_fields__"):
        output = vars(output).values()
    elif not isinstance(output, tuple | list):
        return []
    return [tensor for value in output for tensor in tensors_in(value)]


def test_sparse_and_nested_tensors_have_graphs_whose_bytes_are_not_known():
    graph = autograd_graph(torch.sparse.mm(torch.eye(3).to_sparse(), weight(3, 2)))
    assert ("kept", None) in {(saved.state, saved.nbytes) for saved in graph.root.saved}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls nested tensors a prototype
        nested = torch.nested.as_nested_tensor([weight(3, 2), weight(4, 2)]).sin()
    graph = autograd_graph(nested)
    assert graph.root.shape is None
    assert graph.root.saved[0].shape is None
    assert len(str(graph).splitlines()) == 2 + len(graph.nodes) + 2


def test_a_graph_inside_torch_func_is_a_graph():
    def loss(x):
        ops.extend(node.op for node in autograd_graph(x.sin()).nodes)
        return x.sin().sum()

    ops = []
    torch.func.grad(loss)(torch.ones(3))
    assert ops[0] == "sin"


# label_modules


def test_labelled_nodes_know_the_module_that_ran_them(net):
    with label_modules(net):
        output = net(torch.ones(1, 1, 32, 32))
    graph = autograd_graph(F.mse_loss(output, torch.ones(1, 10)), net)
    assert graph.root.module is None  # the loss belongs to no module
    modules = Counter(node.module for node in graph.nodes[1:])
    assert None not in modules
    assert modules[""] == 7  # four relu, two pools, one view: functions in the network's forward
    assert modules["fc1"] == 4


def test_labels_are_found_without_the_model_too(net):
    with label_modules(net):
        output = net(torch.ones(1, 1, 32, 32))
    modules = [node.module for node in autograd_graph(output).nodes if node.op == "convolution"]
    assert modules == ["conv2", "conv1"]


def test_a_reused_module_labels_each_of_its_calls():
    layer = nn.Tanh()
    model = nn.Sequential(nn.Linear(2, 2), layer, nn.Linear(2, 2), layer)
    with label_modules(model):
        output = model(torch.ones(1, 2))
    graph = autograd_graph(output, model)
    assert [node.module for node in graph.nodes if node.op == "tanh"] == ["1", "1"]


def test_a_forward_outside_is_not_labelled(net):
    with label_modules(net):
        net(torch.ones(1, 1, 32, 32))
    graph = autograd_graph(net(torch.ones(1, 1, 32, 32)), net)
    assert {node.module for node in graph.nodes if node.op == "relu"} == {None}


def hook_counts(model):
    global_hooks = (module_hooks._global_forward_hooks, module_hooks._global_forward_pre_hooks)
    own = [hooks for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks)]
    return [len(hooks) for hooks in (*global_hooks, *own)]


def test_label_modules_leaves_no_hook_behind_even_after_an_error(net):
    before = hook_counts(net)
    with pytest.raises(RuntimeError, match="cannot be multiplied"), label_modules(net):
        net(torch.ones(1, 1, 28, 28))
    assert hook_counts(net) == before
    with label_modules(net):
        output = net(torch.ones(1, 1, 32, 32))
    assert "conv1" in {node.module for node in autograd_graph(output, net).nodes}


def test_labels_do_not_keep_the_model_alive():
    model = nn.Linear(2, 2)
    with label_modules(model):
        model(torch.ones(1, 2))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_a_forward_in_another_thread_is_labelled(net):
    outputs = []

    def forward():
        with label_modules(net):
            outputs.append(net(torch.ones(1, 1, 32, 32)))

    thread = threading.Thread(target=forward)
    thread.start()
    thread.join()
    graph = autograd_graph(outputs[0], net)
    assert {node.module for node in graph.nodes if node.op == "relu"} == {""}


def in_thread(function):
    """Return what a function gives when it runs in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


ACTIVATIONS = ("sigmoid", "tanh")


def layers():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Sigmoid())


def test_the_labels_of_one_thread_are_not_put_on_the_nodes_of_another():
    model = layers()
    with label_modules(model):
        model(torch.ones(1, 3))
    # Its numbers are those that other modules had in this thread.
    output = in_thread(lambda: model[3](model[0](torch.ones(1, 3))))
    assert {node.module for node in autograd_graph(output).nodes} == {None}
    assert node_of(autograd_graph(output, model), "sigmoid").module is None


def test_labels_hold_in_whichever_thread_the_graph_is_looked_at():
    model = layers()

    def forward(*places):
        h = torch.ones(1, 3)
        with label_modules(model):
            for place in places:
                h = model[place](h)
        return h

    outputs = [in_thread(lambda: forward(0, 1, 2, 3)), in_thread(lambda: forward(0, 3))]
    outputs.append(forward(0, 1))
    modules = [
        [node.module for node in autograd_graph(output, model).nodes if node.op in ACTIVATIONS]
        for output in outputs
    ]
    assert modules == [["3", "1"], ["3"], ["1"]]
    looked = in_thread(lambda: autograd_graph(outputs[0], model))
    assert node_of(looked, "sigmoid").module == "3"


def test_what_is_computed_from_a_labelled_output_in_another_thread_is_not_labelled():
    model = layers()
    with label_modules(model):
        output = model(torch.ones(1, 3))
    later = in_thread(lambda: output.exp().sin().cos().exp().sin().cos().sum())
    graph = autograd_graph(later, model)
    assert {node.module for node in graph.nodes if node.op in ("exp", "sin", "cos")} == {None}
    assert node_of(graph, "sigmoid").module == "3"


def test_inputs_from_another_thread_and_what_made_them_are_not_labelled():
    model = layers()
    # The numbers of these nodes are those that the modules have in the other thread.
    x = in_thread(lambda: weight(1, 3).exp().sin().cos().exp().sin().cos())

    def forward():
        with label_modules(model):
            return model(x)

    graph = autograd_graph(in_thread(forward), model)
    assert {node.module for node in graph.nodes if node.op in ("exp", "sin", "cos")} == {None}
    assert [node.module for node in graph.nodes if node.op in ACTIVATIONS] == ["3", "1"]


def test_modules_that_the_forward_makes_are_labelled():
    class Late(nn.Module):
        def forward(self, x):
            self.added = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
            return nn.Sigmoid()(self.added(x))

    model = Late()
    with label_modules(model):
        graph = autograd_graph(model(torch.ones(1, 3)), model)
    activations = [(node.op, node.module) for node in graph.nodes if node.op in ACTIVATIONS]
    assert activations == [("sigmoid", ""), ("tanh", "added.1")]


def test_labels_go_on_behind_an_input_that_a_labelled_module_made():
    model = layers()
    with label_modules(model):
        output = model[3](model[0](torch.ones(1, 3)).relu())
    graph = autograd_graph(output, model)
    ops = [(node.op, node.module) for node in graph.nodes if not node.is_leaf and node.op != "t"]
    assert ops == [("sigmoid", "3"), ("relu", None), ("addmm", "0")]


def test_after_a_forward_that_was_interrupted_nothing_is_labelled(net):
    def interrupt(*_):
        raise KeyboardInterrupt

    with label_modules(net):
        before = net.conv1(torch.ones(1, 1, 32, 32))
        handle = net.fc3.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt), label_modules(net):
            net(torch.ones(1, 1, 32, 32))
        handle.remove()
    graph = autograd_graph(before.relu().sum(), net)
    assert node_of(graph, "relu").module is None
    assert node_of(graph, "convolution").module == "conv1"


def test_a_module_may_return_a_view_that_has_lost_its_graph():
    class Half(nn.Module):
        def forward(self, x):
            first, _ = x.split(2)
            with torch.no_grad():
                x.mul_(2)
            return first, x.sin()

    model = nn.Sequential(Half())
    with label_modules(model):
        _, output = model(weight(4, 2) * 1)
    assert autograd_graph(output).root.module == "0"


@dataclass
class Answer:
    loss: torch.Tensor
    logits: tuple[torch.Tensor, ...]


def test_outputs_may_be_in_a_dataclass():
    one = weight().exp()
    graph = autograd_graph(Answer(one.sum(), (one,)))
    assert [root.op for root in graph.roots] == ["sum", "exp"]
    with pytest.raises(TypeError, match=r"output\.logits\[0\] is a NoneType"):
        autograd_graph(Answer(one.sum(), (None,)))


def test_labels_end_with_the_graph(net):
    with label_modules(net):
        output = net(torch.ones(1, 1, 32, 32))
    mark = weakref.ref(output.grad_fn.metadata["blitz_helpers.labels"][0])
    assert mark() is not None
    del output
    assert mark() is None


# What it looks like


def test_text_has_a_row_for_each_node(net, loss):
    text = str(autograd_graph(loss, net))
    rows = text.splitlines()
    header = ["#", "depth", "node", "inputs", "belongs to", "shape", "saved", "bytes"]
    assert re.split(r"  +", rows[0].strip()) == header
    assert len(rows) == 2 + 26 + 2
    assert "AddmmBackward0" in rows[3]
    assert rows[3].endswith(" 3,696")
    assert rows[-1].startswith("26 nodes, 25 edges, 10 leaves. Saved: ")


def test_html_escapes_names():
    model = nn.ModuleDict({"<b>": nn.Linear(2, 2)})
    html = autograd_graph(model["<b>"](torch.ones(1, 2)), model)._repr_html_()
    assert "&lt;b&gt;.weight" in html
    assert "<b>" not in html


def test_mermaid_has_every_node_and_every_slot(net, loss):
    source = autograd_graph(loss, net).to_mermaid()
    assert source.startswith("flowchart TD\n")
    assert len(re.findall(r"^    n\d+[\[(]", source, re.M)) == 26
    assert len(re.findall(r"-->", source)) == 25
    assert '    n3 -->|"1"| n1' in source.splitlines()
    assert source._repr_mimebundle_()["text/vnd.mermaid"] == source


def test_mermaid_and_dot_escape_names():
    model = nn.ModuleDict({'a"b]<': nn.Linear(2, 2)})
    graph = autograd_graph(model['a"b]<'](torch.ones(1, 2)), model)
    assert "a#34;b#93;#60;.weight" in graph.to_mermaid()
    assert r"a\"b]<.weight" in graph.to_dot()


def test_dot_has_every_node_and_every_edge(net, loss):
    source = autograd_graph(loss, net).to_dot()
    assert source.startswith("digraph {")
    assert source.endswith("}")
    assert len(re.findall(r"\[label=.*fillcolor", source)) == 26
    assert len(re.findall(r"->", source)) == 25


def deep(model=None):
    hidden = torch.ones(1, 4)
    model = model or nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(60)))
    return model, model(hidden).sum()


def test_a_large_graph_is_folded_by_module():
    model, output = deep()
    folded = autograd_graph(output, model).folded(80)
    assert [box.title for box in folded.boxes] == [f"{place}.0" for place in range(59, -1, -1)]
    assert [(arrow.source, arrow.target) for arrow in folded.arrows] == [
        (place + 1, place) for place in range(59)
    ]


@pytest.mark.parametrize("limit", [1, 10, 24, 100, 1000])
def test_folding_loses_no_node(limit):
    model, output = deep()
    for graph in (autograd_graph(output, model), autograd_graph(output)):
        folded = graph.folded(limit)
        numbers = sorted(node.number for box in folded.boxes for node in box.nodes)
        assert numbers == list(range(len(graph.nodes)))
        assert len(folded.boxes) <= limit


@settings(max_examples=50)
@given(
    choices=st.lists(st.tuples(*[st.integers(0, 99)] * 3), min_size=10, max_size=40),
    limit=st.integers(1, 30),
)
def test_no_arrows_of_a_folded_graph_run_in_a_circle(choices, limit):
    model = nn.ModuleDict({name: nn.Sequential(nn.Tanh(), nn.Linear(1, 1)) for name in "abc"})
    tensors = [torch.ones(1, 1, requires_grad=True), torch.ones(1, 1, requires_grad=True)]
    with label_modules(model):
        for one, other, name in choices:
            h = tensors[one % len(tensors)] * tensors[other % len(tensors)]
            tensors.append(model["abc"[name % 3]](h) if name < 75 else h)
    graph = autograd_graph(tensors[2:], model)
    folded = graph.folded(limit)
    place = {node.number: at for at, box in enumerate(folded.boxes) for node in box.nodes}
    assert all(arrow.source > arrow.target for arrow in folded.arrows)
    if not folded.boxes[0].title.startswith("depth"):
        across = {(place[edge.source], place[edge.target]) for edge in graph.edges}
        arrows = {(arrow.source, arrow.target) for arrow in folded.arrows}
        assert arrows == {(source, target) for source, target in across if source != target}


def test_a_large_graph_is_short_in_every_form():
    _, output = deep()
    graph = autograd_graph(output)
    assert len(graph.nodes) > 200
    for text in (str(graph), graph.to_mermaid(), graph.to_dot()):
        assert len(text.splitlines()) < 110


# Bad input


def test_a_tensor_without_a_graph_is_told_why_and_how_to_find_out(net):
    with torch.no_grad():
        output = net(torch.ones(1, 1, 32, 32))
    with pytest.raises(ValueError, match=r"(?s)no graph: .*no_grad.*requires.grad.*To find out"):
        autograd_graph(output)


def test_a_leaf_that_requires_grad_has_a_message_of_its_own():
    with pytest.raises(ValueError, match="leaf that requires grad"):
        autograd_graph(weight())


def test_an_integer_tensor_has_a_message_of_its_own():
    with pytest.raises(ValueError, match=r"torch\.int64.*floating point"):
        autograd_graph(torch.tensor([1, 2]))


@pytest.mark.parametrize("output", [None, 3.0, "loss", [weight().sum(), 2]])
def test_anything_but_tensors_is_refused(output):
    with pytest.raises(TypeError, match="expected a tensor"):
        autograd_graph(output)


def test_the_message_says_which_of_several_is_wrong():
    good = weight().sum()
    with pytest.raises(TypeError, match=r"output\['b'\]\[1\] is a int"):
        autograd_graph({"a": good, "b": [good, 2]})
    with pytest.raises(ValueError, match=r"output\[1\] has no graph"):
        autograd_graph((good, torch.ones(1)))


@pytest.mark.parametrize("output", [[], (), {}, [[], {}]])
def test_no_tensor_at_all_is_refused(output):
    with pytest.raises(ValueError, match="no tensor in it"):
        autograd_graph(output)


def test_a_model_that_owns_no_leaf_is_refused(loss):
    with pytest.raises(ValueError, match="Network that owns no leaf of this graph"):
        autograd_graph(loss, Network())


def test_an_empty_model_is_refused(loss):
    with pytest.raises(ValueError, match="Sequential without parameters"):
        autograd_graph(loss, nn.Sequential())


def test_a_model_that_is_not_a_module_is_refused(net, loss):
    with pytest.raises(TypeError, match=r"model is a dict; expected a torch\.nn\.Module"):
        autograd_graph(loss, dict(net.named_parameters()))
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"), label_modules(3):
        pass


def test_fewer_than_one_box_is_refused(loss):
    with pytest.raises(ValueError, match="limit=0; expected at least 1"):
        autograd_graph(loss).folded(0)


@pytest.mark.parametrize("limit", [1.5, "3", None])
def test_boxes_that_are_not_a_whole_number_are_refused(limit, loss):
    with pytest.raises(TypeError, match="expected a whole number of boxes"):
        autograd_graph(loss).folded(limit)


def test_outputs_that_hold_themselves_or_lie_deep_are_found():
    output = [torch.ones(1, requires_grad=True) * 2]
    output.append(output)
    for _ in range(2_000):
        output = [output]
    assert len(autograd_graph(output).roots) == 1


def test_jagged_tensors_have_graphs_without_symbols():
    parts = [torch.ones(2, 4), torch.ones(3, 4)]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged, requires_grad=True)
    graph = autograd_graph((jagged * jagged).sin().values().sum())
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert [node.shape for node in graph.leaves] == [None]
    assert str(graph)
    assert graph.can_backward

"""Whatever a model takes is traced as what it is, and is afterwards as it was."""

import copy
import pickle
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import InitVar, dataclass, field
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from blitz_helpers import DivergenceError, History, ShapeError, trace_shapes


class Call(nn.Module):
    """A linear layer behind a function that finds its input."""

    def __init__(self, find):
        super().__init__()
        self.find, self.linear = find, nn.Linear(8, 4)

    def forward(self, *args, **kwargs):
        return self.linear(self.find(*args, **kwargs))


@dataclass
class Batch:
    x: torch.Tensor
    extra: int = field(init=False, default=3)

    def __post_init__(self):
        assert self.x is not None


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor


@dataclass(slots=True)
class Slotted:
    x: torch.Tensor


@dataclass
class Scaled:
    x: torch.Tensor
    scale: InitVar[int] = 2

    def __post_init__(self, scale):
        self.x = self.x * scale


class Pair(tuple):
    __slots__ = ()

    def __new__(cls, first, second):
        return super().__new__(cls, (first, second))


class Required(dict):
    def __init__(self, x):
        super().__init__(x=x)


Named = namedtuple("Named", "x y")

by_key, by_name, by_place = (lambda d: d["x"]), (lambda d: d.x), (lambda d: d[0])


@pytest.mark.parametrize(
    ("make", "find"),
    [
        (lambda x: defaultdict(list, x=x), by_key),
        (lambda x: OrderedDict(x=x), by_key),
        (lambda x: UserDict(x=x), by_key),
        (Required, by_key),
        (lambda x: Named(x, 1), by_name),
        (Batch, by_name),
        (Frozen, by_name),
        (Slotted, by_name),
        (Scaled, by_name),
        (lambda x: SimpleNamespace(x=x), by_name),
        (lambda x: Pair(x, x), by_place),
        (lambda x: deque([x]), by_place),
        (lambda x: torch.max(x.unsqueeze(2), 2), by_place),
        (lambda x: [{"inner": Named(x, [x])}], lambda d: d[0]["inner"].y[0]),
    ],
)
def test_containers_of_tensors_keep_their_type(make, find):
    value = make(torch.ones(2, 8))
    model = Call(lambda given: find(given) if type(given) is type(value) else None)
    assert trace_shapes(model, value).output_shape == (2, 4)
    assert torch.equal(find(value), find(make(torch.ones(2, 8))))
    assert model(value).shape == (2, 4)


def test_a_tensor_that_is_passed_twice_is_one_tensor_to_the_model():
    x = torch.zeros(2, 8)
    model = Call(lambda x, pair, y: x if x is pair[0] is y else None)
    assert trace_shapes(model, x, (x, 1), y=x).output_shape == (2, 4)


def test_an_object_whose_field_the_model_replaces_has_its_own_again():
    x = torch.ones(2, 8)
    batch = SimpleNamespace(x=x, seen=[])

    def run(batch):
        batch.seen.append(batch.x)
        batch.x = batch.x * 2
        batch.new = batch.x
        return batch.x

    trace_shapes(Call(run), batch)
    assert vars(batch) == {"x": x, "seen": []}
    assert batch.x is x


def test_a_cache_that_is_passed_in_is_as_it_was():
    class Cache:
        def __init__(self):
            self.layers = {0: (torch.ones(1, 8), torch.ones(1, 8))}

    def run(x, cache):
        keys, values = cache.layers[0]
        cache.layers[0] = (torch.cat([keys, x]), torch.cat([values, x]))
        return cache.layers[0][0]

    cache = Cache()
    layers, pair = cache.layers, cache.layers[0]
    assert trace_shapes(Call(run), (2, 8), cache).output_shape == (3, 4)
    assert cache.layers is layers
    assert cache.layers == {0: pair}
    assert cache.layers[0] is pair


def ragged(layout):
    return torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(5, 8)], layout=layout)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype stage")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
@pytest.mark.parametrize("made", ["outside", "inside"])
def test_nested_tensors_run_for_real_and_have_the_shapes_of_their_parts(layout, made):
    if made == "outside":
        trace = trace_shapes(Call(lambda x: x), ragged(layout))
        assert trace[-1].input_shapes == (((3, 8), (5, 8)),)
    else:
        model = Call(lambda a, b: torch.nested.nested_tensor([a, b], layout=layout))
        trace = trace_shapes(model, (3, 8), (5, 8))
    assert trace.output_shape == ((3, 4), (5, 4))
    assert trace.num_macs == (3 + 5) * 8 * 4
    assert trace[-1].nbytes == (3 + 5) * 4 * 4
    assert "nested" in trace.ran_for_real


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("sparse", ["to_sparse", "to_sparse_csr"])
def test_sparse_tensors_run_for_real_and_multiply_their_entries_alone(sparse):
    adjacency = getattr(torch.eye(8), sparse)()
    trace = trace_shapes(Call(lambda a, x: a @ x), adjacency, torch.ones(8, 8))
    assert trace.output_shape == (8, 4)
    assert trace[0].num_macs == 8 * 8  # eight ones, eight columns
    assert sparse.removeprefix("to_") in trace.ran_for_real

    model = Call(lambda x: torch.sparse.mm(model.adjacency, x))
    model.register_buffer("adjacency", adjacency)
    assert trace_shapes(model, (8, 8)).output_shape == (8, 4)


def test_a_sparse_input_of_a_model_without_data_is_refused():
    model = Call(lambda a: a.to_dense()).to("meta")
    with pytest.raises(ValueError, match=r"sparse_coo input .* model on the meta device"):
        trace_shapes(model, torch.eye(8).to_sparse())


def error_of(function, kind):
    with pytest.raises(kind) as caught:
        function()
    return caught.value


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],
    ids=["copied", "copied deeply", "pickled"],
)
def test_errors_and_traces_can_be_copied_and_cross_a_process(again):
    history = History((2.3,), 1)
    for error in (
        error_of(lambda: trace_shapes(nn.Linear(8, 4), (2, 9)), ShapeError),
        DivergenceError("The loss is NaN.", 3, ("fc.weight",), history),
    ):
        error.add_note("in a worker")
        twin = again(error)
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert str(vars(twin)) == str(vars(error))
        assert twin.__notes__ == ["in a worker"]
    trace = trace_shapes(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), (2, 8))
    assert str(again(trace)) == str(trace)
    assert str(again(trace.by_module())) == str(trace.by_module())


def test_an_iterator_is_not_used_up():
    model = nn.Module()
    model.forward = lambda rows: next(rows) + next(rows)
    rows = iter([torch.zeros(2, 4), torch.zeros(2, 4)])
    assert trace_shapes(model, rows).output_shape == (2, 4)
    assert len(list(rows)) == 2
    made = (torch.zeros(2, 4) for _ in range(2))
    with pytest.raises(ValueError, match="generator, which the trace would use up"):
        trace_shapes(model, made)
    assert len(list(made)) == 2

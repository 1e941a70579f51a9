"""Whatever a model keeps, and wherever, a trace leaves nothing behind."""

import contextlib
import copy
import functools
import gc
import importlib.util
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import gauss, uniform
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from state_zoo import KEEPERS, SHAPE
from torch import nn

from blitz_helpers import ShapeError, trace_shapes
from blitz_helpers.trace import _answers, _guard

ZOO = Path(__file__).with_name("state_zoo.py")
each_keeper = pytest.mark.parametrize("name", [kind.__name__ for kind in KEEPERS])


@pytest.fixture(autouse=True)
def nothing_is_kept():
    yield
    assert not _guard._guards


@pytest.fixture(autouse=True, scope="module")
def nothing_is_alive():
    """Nothing that the traces of all these tests made is alive after them."""
    yield
    gc.collect()
    made = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    assert not [one for one in made if "_blitz_origin" in one.__dict__]


def fresh_zoo():
    """Return the zoo with globals and classes that no model has used yet."""
    spec = importlib.util.spec_from_file_location("fresh_zoo", ZOO)
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    return zoo


def build(name):
    torch.manual_seed(0)
    return getattr(fresh_zoo(), name)()


def outputs(model):
    """Return what the next real forward passes give."""
    x = torch.linspace(-1, 1, 16).view(SHAPE)
    return [model(x).detach() for _ in range(2)]


def assert_as_never_traced(model, name):
    for mine, theirs in zip(outputs(model), outputs(build(name)), strict=True):
        assert torch.equal(mine, theirs)


@each_keeper
@pytest.mark.parametrize("times", [1, 2])
def test_the_next_forward_passes_give_the_same_bits(name, times):
    model = build(name)
    for _ in range(times):
        trace = trace_shapes(model, SHAPE)
        assert trace.output_shape == SHAPE
        assert (trace.ran_for_real is not None) == ("AskedForValues" in name)
    assert_as_never_traced(model, name)


@each_keeper
def test_what_was_kept_before_is_kept_still(name):
    model, never_traced = build(name), build(name)
    for one in (model, never_traced):
        outputs(one)
    trace_shapes(model, SHAPE)
    for mine, theirs in zip(outputs(model), outputs(never_traced), strict=True):
        assert torch.equal(mine, theirs)


@each_keeper
@pytest.mark.parametrize("shared", [True, False], ids=["one model", "a model each"])
def test_four_threads_at_once_leave_nothing(name, shared):
    zoo = fresh_zoo()
    models = []
    for _ in range(1 if shared else 4):
        torch.manual_seed(0)
        models.append(getattr(zoo, name)())
    barrier = threading.Barrier(4)

    def trace(number):
        barrier.wait(60)
        for _ in range(3):
            # Two passes at once through one model that keeps state can disturb each other.
            with contextlib.suppress(RuntimeError) if shared else contextlib.nullcontext():
                trace_shapes(models[number % len(models)], SHAPE)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(trace, range(4)))
    assert_as_never_traced(models[0], name)


@each_keeper
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_a_trace_that_is_stopped_at_any_operation_leaves_nothing(name, kind, monkeypatch):
    model = build(name)
    answers = {kind: kind.answer for kind in (_answers.Answers, _answers.RealAnswers)}
    stop_at, seen = 0, 0

    def stopping(self, *args):
        nonlocal seen
        seen += 1
        if seen == stop_at:
            raise kind
        return answers[type(self)](self, *args)

    for one in answers:
        monkeypatch.setattr(one, "answer", stopping)
    stopped = True
    while stopped:
        stop_at, seen = stop_at + 1, 0
        try:
            trace_shapes(model, SHAPE)
            stopped = False
        except kind:
            pass
    assert stop_at > 2
    monkeypatch.undo()
    assert_as_never_traced(model, name)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: random.random(),
        lambda: random.shuffle([1, 2, 3]),
        lambda: gauss(0, 1),
        lambda: uniform(0, 1),
        lambda: np.random.rand(),
        lambda: np.random.default_rng(np.random.randint(9)).random(),
    ],
)
def test_the_generators_of_python_and_numpy_are_where_they_were(draw):
    model = nn.Linear(8, 8)
    model.register_forward_hook(lambda *_: [draw()].clear())
    before = random.getstate(), str(np.random.get_state(legacy=False))
    model(torch.zeros(SHAPE))
    moved = random.getstate(), str(np.random.get_state(legacy=False))
    assert moved != before
    trace_shapes(model, SHAPE)
    assert (random.getstate(), str(np.random.get_state(legacy=False))) == moved


@pytest.mark.parametrize("asks", [False, True], ids=["without data", "for real"])
def test_orders_flags_gradients_and_modes_are_as_they_were(asks):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model.cache = {"first": 1, "second": 2}
    weight, bias = model[0].weight, model[0].bias
    weight.grad, kept = torch.ones(8, 8), torch.ones(8, 8)
    gradient = weight.grad
    model[1].register_buffer("own", torch.ones(8), persistent=False)

    def change(module, args):
        if asks:
            args[0].sum().item()
        model.cache["first"] = model.cache.pop("first")
        weight.grad = None
        bias.grad = torch.ones(8)
        bias.requires_grad = False
        weight.data = torch.zeros(8, 8)
        for layer in model:
            layer.register_buffer("more", torch.ones(8), persistent=False)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_autocast_enabled("cpu", True)

    values = weight.detach().clone()
    model.register_forward_pre_hook(change)
    assert (trace_shapes(model, SHAPE).ran_for_real is not None) == asks
    assert list(model.cache) == ["first", "second"]
    assert [layer._non_persistent_buffers_set for layer in model] == [set(), {"own"}]
    assert (bias.requires_grad, bias.grad, weight.grad) == (True, None, gradient)
    assert torch.equal(weight, values)
    assert torch.equal(gradient, kept)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


class Cached(nn.Module):
    """Its mask is cached by `functools.lru_cache`, which cannot be put back."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)
        return y * scale_of(y)


@functools.lru_cache
def scale_of(y):
    return y.mean()


ELSEWHERE = {}
HELD = SimpleNamespace(lists=[ELSEWHERE])


def held_by_a_cache(y):
    scale_of(y)


def elsewhere(name):
    """Return a global of this module that no code names, so that the trace does not find it."""
    return vars(sys.modules[__name__])[name]


def held_by_a_global(y):
    elsewhere("ELSEWHERE")["y"] = y


def held_by_a_generator(y):
    def produce():
        yield y
        yield y

    generators = elsewhere("HELD").lists
    generators.append(produce())
    next(generators[-1])


@pytest.mark.parametrize(
    ("hold", "holder"),
    [
        (held_by_a_cache, r"the cache of scale_of\(\)"),
        (held_by_a_global, r"ELSEWHERE of test_trace_state"),
        (held_by_a_generator, r"produce\(\)"),
    ],
)
def test_a_tensor_that_is_held_elsewhere_is_reported_and_says_so_when_it_is_used(hold, holder):
    calls = []

    def hook(module, args, output):
        if not calls:
            hold(output)

    model = nn.Linear(8, 8)
    model.register_forward_hook(hook)
    try:
        with pytest.warns(UserWarning, match=f"still held by .*{holder}"):
            trace_shapes(model, SHAPE)
        left = [one for one in gc.get_objects() if type(one).__name__ == "_Survivor"]
        assert {tuple(one.shape) for one in left} <= {(2, 8), ()}
        with pytest.raises(
            RuntimeError, match=f"has no data: trace_shapes made it, and .*{holder}"
        ):
            left[0] + 1
        with pytest.raises(RuntimeError, match="has no data"):
            torch.cat([torch.zeros(2, 8), left[0]])
        assert "meta" in repr(left[0])
    finally:
        scale_of.cache_clear()
        ELSEWHERE.clear()
        del HELD.lists[1:]
        left = None


def test_a_cached_tensor_does_not_disturb_the_next_trace():
    model = Cached()
    for _ in range(2):
        with pytest.warns(UserWarning, match="scale_of"):
            assert trace_shapes(model, SHAPE).output_shape == SHAPE
    assert scale_of.cache_info().currsize == 2  # it is left alone: Python keeps two lists of it
    scale_of.cache_clear()
    assert model(torch.zeros(SHAPE)).shape == SHAPE
    scale_of.cache_clear()


def test_what_the_frames_of_an_overlapping_trace_hold_after_its_error_is_not_reported():
    broken = nn.Sequential(nn.Linear(8, 8), nn.Linear(9, 8))

    def trace_another(module, args):
        try:
            trace_shapes(broken, SHAPE)
        except ShapeError as error:
            elsewhere("HELD").lists.append(error)

    model = nn.Linear(8, 8)
    model.register_forward_pre_hook(trace_another)
    try:
        assert trace_shapes(model, SHAPE).output_shape == SHAPE
        assert len(HELD.lists) == 2
    finally:
        del HELD.lists[1:]


def test_values_that_a_forward_pass_would_cache_too_do_not_count_as_survivors():
    positions = functools.lru_cache(torch.arange)
    model = nn.Linear(8, 8)
    model.register_forward_pre_hook(lambda *_: [positions(8)].clear())
    trace_shapes(model, SHAPE)
    assert positions(8).tolist() == list(range(8))
    positions.cache_clear()


class Sealed(type):
    """A class whose attributes can be set until it is sealed."""

    sealed = False

    def __setattr__(cls, name, value):
        if cls.sealed:
            raise TypeError("sealed")
        super().__setattr__(name, value)


def test_what_refuses_to_be_put_back_keeps_nothing_else_from_it():
    class Count(metaclass=Sealed):
        calls = 0

    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    before = copy.deepcopy(model.state_dict())
    seen = []

    def count(module, args):
        seen.append(args)
        Count.calls += 1
        type.__setattr__(Count, "sealed", True)

    model[0].register_forward_pre_hook(count)
    with pytest.raises(TypeError, match="sealed"):
        trace_shapes(model, SHAPE)
    assert seen == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


class Keeper(nn.Module):
    """A running mean, written in place, and a buffer that only forward registers."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(8))

    def forward(self, x):
        self.register_buffer("last", x, persistent=False)
        return x - self.mean.mul_(0.9).add_(x.mean(0))


def test_a_trace_between_forward_and_backward_does_not_stop_the_backward():
    model, x = Keeper(), torch.ones(4, 8, requires_grad=True)
    kept = (x * model.mean).sum()
    trace_shapes(model, (4, 8))
    kept.backward()
    assert model.mean._version == 0


def test_a_buffer_registered_in_a_trace_leaves_no_name():
    model = Keeper()
    trace_shapes(model, (4, 8))
    assert not model._non_persistent_buffers_set
    assert list(model.state_dict()) == ["mean"]


@pytest.mark.parametrize("size", [8, 80])
def test_what_is_written_to_a_buffer_must_fit_it(size):
    def forward(x):
        model.bank[: len(x)] = x
        return model.bank

    model = nn.Module()
    model.bank, model.forward = nn.Buffer(torch.zeros(10, size)), forward
    assert trace_shapes(model, (4, size)).output_shape == (10, size)
    with pytest.raises(ShapeError, match=rf"\(4, {size - 2}\)"):
        trace_shapes(model, (4, size - 2))

"""Every awkward kind of model is traced as it really runs, and is afterwards as it was."""

import contextlib
import copy
import random
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hard_models import HARD_MODELS, HardModel
from torch import nn

from blitz_helpers import trace_shapes
from blitz_helpers.trace import _engine, _modules
from blitz_helpers.trace._nests import shape_of

each_model = pytest.mark.parametrize("hard", HARD_MODELS, ids=str)


def build(hard: HardModel) -> torch.nn.Module:
    torch.manual_seed(0)
    return hard.make_model()


def real_shape(hard: HardModel):
    model = build(hard)
    args, kwargs = hard.make_inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fused path of the encoder announces itself
        return shape_of(model(*args, **kwargs))


@each_model
def test_the_output_shape_is_the_one_of_a_real_forward(hard):
    args, kwargs = hard.make_inputs()
    assert trace_shapes(build(hard), *args, **kwargs).output_shape == real_shape(hard)


@each_model
def test_only_models_that_depend_on_values_run_for_real(hard):
    args, kwargs = hard.make_inputs()
    reason = trace_shapes(build(hard), *args, **kwargs).ran_for_real
    if hard.asks_for is None:
        assert reason is None
    else:
        assert hard.asks_for.strip("_") in reason
        assert "hard_models.py:" in reason


def fingerprint(model):
    """Return everything about a model that a trace must leave alone."""
    tensors = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        lazy = torch.nn.parameter.is_lazy(tensor)
        data = None if lazy or tensor.is_meta else tensor.detach().clone()
        grad = None if lazy or tensor.grad is None else tensor.grad
        tensors[name] = (id(tensor), type(tensor), tensor.requires_grad, grad, data)
    modules = {
        name: (
            type(module),
            module.training,
            sorted(module._buffers) if isinstance(module._buffers, dict) else None,
            [
                len(module.__dict__.get(key, ()))
                for key in sorted(module.__dict__)
                if "hooks" in key
            ],
        )
        for name, module in model.named_modules()
    }
    return tensors, modules


def surroundings():
    hooks = torch.nn.modules.module
    return (
        torch.get_rng_state().tolist(), random.getstate(), torch.is_grad_enabled(),
        torch.get_default_dtype(), torch.is_autocast_enabled("cpu"),
        len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks),
        torch.overrides._get_current_function_mode_stack(),
    )  # fmt: skip


def assert_untouched(before, after):
    (tensors, modules), (tensors_after, modules_after) = before, after
    assert modules == modules_after
    assert list(tensors) == list(tensors_after)
    for name, (*facts, grad, data) in tensors.items():
        *facts_after, grad_after, data_after = tensors_after[name]
        assert facts == facts_after, name
        assert grad is grad_after, name
        assert (data is None) == (data_after is None), name
        if data is not None:
            assert torch.equal(data, data_after), name


@each_model
def test_a_trace_touches_nothing(hard):
    model = build(hard)
    args, kwargs = hard.make_inputs()
    inputs = copy.deepcopy((args, kwargs))
    before, outside = fingerprint(model), surroundings()

    trace_shapes(model, *args, **kwargs)

    assert_untouched(before, fingerprint(model))
    assert surroundings() == outside
    for mine, original in zip(tensors_in((args, kwargs)), tensors_in(inputs), strict=True):
        assert mine.is_meta or torch.equal(mine, original)


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value
    if not isinstance(values, list | tuple | type({}.values())):
        values = vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for one in values for tensor in tensors_in(one)]


@each_model
def test_a_traced_model_runs_afterwards_as_if_it_had_not_been_traced(hard):
    model = build(hard)
    args, kwargs = hard.make_inputs()
    trace_shapes(model, *args, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fused path of the encoder announces itself
        assert shape_of(model(*args, **kwargs)) == real_shape(hard)


class Interrupted(Exception):  # noqa: N818 - no fault, a stop
    pass


@each_model
def test_a_trace_that_fails_midway_touches_nothing(hard):
    model = build(hard)
    args, kwargs = hard.make_inputs()
    seen = []

    def interrupt(module, *_):
        seen.append(module)
        if len(seen) == 2:
            raise Interrupted

    handles = [m.register_forward_hook(interrupt) for m in model.modules()
               if not isinstance(m, torch.jit.ScriptModule)]  # fmt: skip
    before, outside = fingerprint(model), surroundings()
    with contextlib.suppress(Interrupted):
        trace_shapes(model, *args, **kwargs)
    assert_untouched(before, fingerprint(model))
    assert surroundings() == outside
    for handle in handles:
        handle.remove()


def test_every_step_without_data_is_the_step_of_a_real_forward():
    for hard in HARD_MODELS:
        args, kwargs = hard.make_inputs()
        if hard.asks_for or any(getattr(one, "is_meta", False) for one in args):
            continue
        model = build(hard)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            modules = _modules.paths_of(model)
            real = _engine.forward(model, modules, args, kwargs, "to compare")
        for mine, theirs in zip(trace_shapes(model, *args, **kwargs), real, strict=True):
            assert mine[:-1] == theirs[:-1], hard.name


class InPlace(nn.Module):
    """One operation in place, on a tensor of the forward pass."""

    def __init__(self, write):
        super().__init__()
        self.write = write

    def forward(self, x):
        return self.write(torch.relu(x))


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.add_(torch.relu(x)),
        lambda x: x.mul_(2.0),
        lambda x: x.add_(x[:1].clone()),
        lambda x: x.t_(),
        lambda x: x.unsqueeze_(0),
        lambda x: x.t().add_(x.clone()),
    ],
)
def test_an_operation_in_place_has_the_layout_that_torch_gives(write):
    def flat_if_contiguous(x):
        y = write(x)
        return y.flatten() if y.is_contiguous() else y

    model = InPlace(flat_if_contiguous)
    trace = trace_shapes(model, (3, 3))
    assert trace.output_shape == tuple(model(torch.ones(3, 3)).shape)
    assert trace.ran_for_real is None


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x[:1].add_(x),
        lambda x: x.long().div_(2),
    ],
)
def test_an_operation_in_place_that_torch_refuses_is_refused(write):
    model = InPlace(write)
    with pytest.raises(RuntimeError):
        model(torch.ones(3, 3))
    with pytest.raises(RuntimeError):
        trace_shapes(model, (3, 3))


class Samples(nn.Module):
    """Runs a function on each sample of a batch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return torch.func.vmap(self.function)(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * 2).mul_(x),
        lambda x: torch.zeros_like(x).add_(x),
        lambda x: x.clone().copy_(x + 1),
        lambda x: (x * 1).masked_fill_(x > 0, 0.0),
        lambda x: x.view(2, 2).t_(),
        lambda x: (x * 1).unsqueeze_(0),
        lambda x: x.add_(1),
        lambda x: torch.func.vmap(lambda y: (y * 1).add_(y))(x),
    ],
)
def test_an_operation_in_place_on_samples_of_vmap_gives_what_torch_gives(function):
    trace = trace_shapes(Samples(function), (3, 4))
    assert trace.output_shape == tuple(Samples(function)(torch.ones(3, 4)).shape)
    assert trace.ran_for_real is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.zeros(4).add_(x),
        lambda x: torch.zeros(4).copy_(x),
        lambda x: (x[:1] * 1).add_(x),
        lambda x: (x[:2] * 1).copy_(x),
    ],
)
def test_an_operation_in_place_on_samples_of_vmap_that_torch_refuses_is_refused(function):
    with pytest.raises(RuntimeError):
        Samples(function)(torch.ones(3, 4))
    with pytest.raises(RuntimeError):
        trace_shapes(Samples(function), (3, 4))


def test_vmap_over_positions_that_the_model_makes():
    model = nn.Module()
    model.forward = lambda x: torch.vmap(lambda at: x * at)(torch.arange(3))
    assert trace_shapes(model, (2, 4)).output_shape == (3, 2, 4)


def test_steps_on_samples_of_vmap_come_from_the_input_of_the_model():
    layer = nn.Linear(4, 5)
    first, second = trace_shapes(Samples(lambda x: layer(x).relu()), (3, 4))
    assert (first.input_shapes, first.inputs, first.num_macs) == (((4,),), (-1,), 3 * 4 * 5)
    assert (second.input_shapes, second.inputs) == (((5,),), (0,))


class Scaled(nn.Module):
    """Takes a keyword, a tensor among them."""

    def forward(self, x: torch.Tensor, offset: torch.Tensor, scale: float = 1.0):
        return x * scale + offset


@pytest.mark.filterwarnings("ignore:.torch.jit")  # Deprecation- or FutureWarning
@pytest.mark.parametrize("asks", [False, True], ids=["without data", "for real"])
def test_a_scripted_module_takes_keywords(asks):
    script = torch.jit.script(Scaled())

    class Caller(nn.Module):
        def __init__(self):
            super().__init__()
            self.script = script

        def forward(self, x):
            if asks and x.sum() > 1e9:
                return x
            return self.script(x, offset=x[:1], scale=2.0)

    trace = trace_shapes(Caller(), (3, 4))
    assert trace[-1].input_shapes == ((3, 4), (1, 4))
    assert trace.output_shape == (3, 4)
    assert (trace.ran_for_real is not None) == asks


def test_samples_of_vmap_have_indices_whose_values_are_those_of_the_batch():
    rows, picked = nn.Embedding(10, 4), torch.tensor([[1], [2], [9]])
    assert trace_shapes(Samples(rows), picked).output_shape == (3, 1, 4)
    assert trace_shapes(Samples(lambda at: rows.weight[at]), picked).output_shape == (3, 1, 4)
    for look_up in (rows, lambda at: rows.weight[at]):
        with pytest.raises(RuntimeError, match="index 10"):
            trace_shapes(Samples(look_up), picked + 1)


def test_a_loss_for_each_sample_of_vmap():
    model = Samples(lambda x: torch.nn.functional.cross_entropy(x, torch.tensor([0, 2])))
    assert trace_shapes(model, (3, 2, 4)).output_shape == (3,)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_traces_without_being_compiled():
    from torch.nn.attention.flex_attention import flex_attention

    model = nn.Module()
    model.forward = lambda x: flex_attention(x, x, x)
    assert trace_shapes(model, (1, 2, 16, 16)).output_shape == (1, 2, 16, 16)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # Deprecation- or FutureWarning
def test_a_scripted_module_counts_its_products():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    x = torch.ones(2, 3, 6, 6)
    counts = [
        trace_shapes(model, x).num_macs
        for model in (layers, torch.jit.script(layers), torch.jit.trace(layers, x))
    ]
    assert counts == [2 * 4 * 16 * 27 + 2 * 64 * 5] * 3


def test_layers_that_run_in_another_thread_run_for_real():
    layer, model = nn.Linear(4, 4), nn.Module()

    def forward(x):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(layer, x).result()

    model.layer, model.forward = layer, forward
    trace = trace_shapes(model, (2, 4))
    assert trace.output_shape == (2, 4)
    assert "a value is needed in the model" in trace.ran_for_real

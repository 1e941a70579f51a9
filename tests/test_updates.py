"""The update rules against torch.optim, to the last bit."""

import copy
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from blitz_helpers import adam_step, adamw_step, momentum_step, sgd_step

RULES = {
    "sgd": (sgd_step, torch.optim.SGD),
    "momentum": (momentum_step, torch.optim.SGD),
    "adam": (adam_step, torch.optim.Adam),
    "adamw": (adamw_step, torch.optim.AdamW),
}
# Below and above the width of a vector register, and a matrix that does not lie row by row.
SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 3, 3), (67,), (0,)]

lrs = st.floats(1e-6, 10.0)
decays = st.sampled_from([0.0, 1e-4, 0.3])
fractions = st.sampled_from([0.0, 0.5, 0.9, 0.999])
SETTINGS = {
    "sgd": st.fixed_dictionaries({"lr": lrs}, optional={"weight_decay": decays}),
    "momentum": st.fixed_dictionaries(
        {"lr": lrs, "momentum": fractions},
        optional={"weight_decay": decays, "nesterov": st.booleans()},
    ).filter(lambda settings: settings["momentum"] > 0 or not settings.get("nesterov")),
}
SETTINGS["adam"] = SETTINGS["adamw"] = st.fixed_dictionaries(
    {},
    optional={
        "lr": lrs,
        "betas": st.tuples(fractions, fractions),
        "eps": st.sampled_from([0.0, 1e-8, 1e-3]),
        "weight_decay": decays,
    },
)


def bind(rule, settings):
    """Return ours as a function of the parameters alone, and what it remembers."""
    ours, _ = RULES[rule]
    memory = {}
    if rule == "sgd":
        return partial(ours, **settings), memory
    return (lambda params: ours(params, memory, **settings)), memory


def tensors(dtype, generator):
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]
    made.append(torch.randn(6, 9, generator=generator).to(dtype).t())
    return [nn.Parameter(tensor) for tensor in made]


def set_gradients(models, generator, missing=0.0):
    """Give every copy the same gradients, on a scale that varies, and sometimes none."""
    for copies in zip(*models, strict=True):
        scale = 10 ** torch.empty(()).uniform_(-6, 3, generator=generator)
        grad = (scale * torch.randn(copies[0].shape, generator=generator)).to(copies[0].dtype)
        absent = torch.rand((), generator=generator) < missing
        for parameter in copies:
            parameter.grad = None if absent else grad.clone()


def bits(tensor):
    """Return the tensor as integers, so that 0 differs from -0 and NaN equals NaN."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    tensor = torch.where(tensor.isnan(), 0.5, tensor).contiguous()
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def assert_same_bits(mine, theirs):
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rule", RULES)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_a_rule_moves_weights_exactly_as_torch_optim_does(rule, dtype, data, seed):
    settings = data.draw(SETTINGS[rule])
    generator = torch.Generator().manual_seed(seed)
    mine = tensors(dtype, generator)
    as_it_comes, foreach = copy.deepcopy(mine), copy.deepcopy(mine)
    step, _ = bind(rule, settings)
    optimizers = [
        RULES[rule][1](as_it_comes, **settings),
        RULES[rule][1](foreach, **settings, foreach=True),
    ]

    for _ in range(5):
        set_gradients([mine, as_it_comes, foreach], generator, missing=0.3)
        step(mine)
        for optimizer in optimizers:
            optimizer.step()

    assert_same_bits(mine, as_it_comes)
    # In bfloat16 torch's own two ways differ: `_foreach_mul_` rounds momentum or beta2 itself to
    # bfloat16, `mul_` does not. Only plain SGD multiplies by neither.
    if dtype is not torch.bfloat16 or rule == "sgd":
        assert_same_bits(mine, foreach)


TYPICAL = {
    "sgd": {"lr": 0.03, "weight_decay": 0.01},
    "momentum": {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    "adam": {"lr": 0.03, "weight_decay": 0.01},
    "adamw": {"lr": 0.03},
}


@pytest.mark.parametrize("foreach", [None, True], ids=["as_it_comes", "foreach"])
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_trains_a_network_to_the_same_bits_over_hundreds_of_steps(rule, foreach, generator):
    ours = nn.Sequential(
        nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3)
    )
    ours[2].weight.requires_grad_(False)  # frozen
    theirs = copy.deepcopy(ours)
    step, _ = bind(rule, TYPICAL[rule])
    optimizer = RULES[rule][1](theirs.parameters(), **TYPICAL[rule], foreach=foreach)

    for _ in range(300):
        x = torch.randn(4, 5, generator=generator)
        for model in (ours, theirs):
            model.zero_grad()
            model(x).square().mean().backward()
        step(ours.parameters())
        optimizer.step()

    assert_same_bits(ours.parameters(), theirs.parameters())


@pytest.mark.parametrize("rule", ["adam", "adamw"])
def test_adam_counts_a_complex_number_as_two_weights(rule, generator):
    w = torch.randn(9, dtype=torch.complex64, generator=generator)
    mine, theirs = nn.Parameter(w.clone()), nn.Parameter(w.clone())
    step, _ = bind(rule, TYPICAL[rule])
    optimizer = RULES[rule][1]([theirs], **TYPICAL[rule])
    for _ in range(20):
        mine.grad = torch.randn(9, dtype=torch.complex64, generator=generator)
        theirs.grad = mine.grad.clone()
        step([mine])
        optimizer.step()
    assert_same_bits([mine], [theirs])


@pytest.mark.parametrize("rule", ["momentum", "adam", "adamw"])
def test_a_rule_remembers_the_same_as_torch_optim(rule, generator):
    mine = tensors(torch.float32, generator)
    theirs = copy.deepcopy(mine)
    step, memory = bind(rule, TYPICAL[rule])
    optimizer = RULES[rule][1](theirs, **TYPICAL[rule])
    for _ in range(10):
        set_gradients([mine, theirs], generator, missing=0.5)
        step(mine)
        optimizer.step()

    assert all(w in memory for w in mine)
    for w, twin in zip(mine, theirs, strict=True):
        expected = optimizer.state[twin]
        if rule == "momentum":
            assert_same_bits([memory[w]], [expected["momentum_buffer"]])
        else:
            assert memory[w].keys() == expected.keys()
            assert memory[w]["step"] == expected["step"].item()
            for name in ("exp_avg", "exp_avg_sq"):
                assert_same_bits([memory[w][name]], [expected[name]])


@pytest.mark.parametrize("rule", RULES)
def test_a_parameter_without_a_gradient_is_left_alone_and_so_is_its_memory(rule):
    step, memory = bind(rule, TYPICAL[rule])
    w, never = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    w.grad = torch.ones(3)
    step([w, never])
    before = copy.deepcopy([w, list(memory.values())])

    w.grad = None
    step([w, never])

    assert torch.equal(w, before[0])
    assert torch.equal(never, torch.ones(2))
    assert never not in memory
    assert str(list(memory.values())) == str(before[1])


@pytest.mark.parametrize("rule", RULES)
def test_a_step_changes_neither_the_gradient_nor_what_autograd_records(rule):
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.full((3,), 2.0)
    pointer = w.data_ptr()
    step, _ = bind(rule, {"lr": 0.1})
    for _ in range(3):
        step([w])
    assert w.grad.tolist() == [2.0, 2.0, 2.0]
    assert w.data_ptr() == pointer
    assert w.is_leaf
    assert w.requires_grad
    assert w.grad_fn is None


@pytest.mark.parametrize("rule", ["sgd", "momentum"])
def test_sparse_gradients_move_weights_as_torch_optim_does(rule):
    ours = nn.Embedding(7, 3, sparse=True)
    theirs = copy.deepcopy(ours)
    step, _ = bind(rule, {"lr": 0.1})
    momentum = 0.9 if rule == "momentum" else 0
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum)
    for word in (1, 4, 1, 1):
        for model in (ours, theirs):
            model.zero_grad()
            model(torch.tensor([word, 0])).square().sum().backward()
        step(ours.parameters())
        optimizer.step()
    assert_same_bits(ours.parameters(), theirs.parameters())


def test_uninitialised_lazy_parameters_are_left_alone():
    sgd_step(nn.LazyLinear(3).parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("rule", "settings", "message"),
    [
        ("sgd", {"lr": 0}, "lr must be above 0 and finite, got 0"),
        ("sgd", {"lr": -0.1}, r"lr must be above 0 and finite, got -0\.1"),
        ("momentum", {"lr": float("nan")}, "lr must be above 0 and finite, got nan"),
        ("adam", {"lr": float("inf")}, "lr must be above 0 and finite, got inf"),
        ("adamw", {"lr": 0.0}, r"lr must be above 0 and finite, got 0\.0"),
        ("sgd", {"lr": 0.1, "weight_decay": -1e-4}, r"weight_decay=-0\.0001"),
        ("momentum", {"lr": 0.1, "weight_decay": float("nan")}, "weight_decay=nan"),
        ("adam", {"eps": -1e-8}, "eps=-1e-08"),
        ("adamw", {"weight_decay": float("inf")}, "weight_decay=inf"),
        ("momentum", {"lr": 0.1, "momentum": 1}, "momentum must be at least 0 and below 1, got 1"),
        ("momentum", {"lr": 0.1, "momentum": -0.5}, "momentum must be at least 0 and below 1"),
        ("momentum", {"lr": 0.1, "momentum": float("nan")}, "momentum must be .* got nan"),
        ("momentum", {"lr": 0.1, "momentum": 0, "nesterov": True}, "momentum.*must be above 0"),
        ("adam", {"betas": (1.0, 0.999)}, r"beta1 must be at least 0 and below 1, got 1\.0"),
        ("adamw", {"betas": (0.9, -0.1)}, r"beta2 must be at least 0 and below 1, got -0\.1"),
        ("adamw", {"betas": (0.9, 0.9, 0.9)}, "must be two numbers"),
    ],
)
def test_a_setting_out_of_range_is_an_error_that_changes_nothing(rule, settings, message):
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    step, memory = bind(rule, settings)
    with pytest.raises(ValueError, match=message):
        step([w])
    assert torch.equal(w, torch.ones(3))
    assert not memory


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lr", [torch.tensor([0.1]), Fraction(1, 10), "0.1", None, 0.1j, True])
def test_a_setting_that_is_not_a_number_is_an_error_that_changes_nothing(rule, lr):
    w = leaf_with_gradient()
    step, memory = bind(rule, {"lr": lr})
    with pytest.raises(TypeError, match="lr must be a number"):
        step([w])
    assert torch.equal(w, torch.ones(3))
    assert not memory


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("number", [torch.tensor, np.float32, np.float64])
def test_a_setting_may_be_a_number_of_torch_or_numpy(rule, number):
    w, other = leaf_with_gradient(), leaf_with_gradient()
    bind(rule, {"lr": number(0.5)})[0]([w])
    bind(rule, {"lr": 0.5})[0]([other])
    assert torch.equal(w, other)


def leaf_with_gradient():
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    return w


def nested_leaf():
    w = torch.nested.nested_tensor([torch.ones(2)] * 2, layout=torch.jagged, requires_grad=True)
    w.grad = w.detach().clone()
    return w


def sparse_leaf():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    return embedding.weight


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda w: [w, w], ValueError, "names a tensor twice"),
        (lambda w: [w, sparse_leaf()], ValueError, r"params\[1\]\.grad is sparse"),
        (lambda w: [w, w * 2], ValueError, r"params\[1\] must be a leaf"),
        (lambda w: [w, ("name", w)], TypeError, r"params\[1\] must be a tensor, got a tuple"),
        (lambda w: {"name": w}, TypeError, r"params\[0\] must be a tensor, got a str"),
        (lambda w: w, TypeError, r"params is a Parameter: use \[w\], or model"),
        (lambda w: nn.ParameterDict({"w": w}), TypeError, "must be a tensor, got a str"),
        (lambda w: nn.Linear(2, 2), TypeError, r"params is a Linear: use \[w\], or model"),
        (lambda w: None, TypeError, r"params is a NoneType: use \[w\], or model"),
        (lambda w: [], ValueError, "params is empty"),
        (lambda w: [w, nested_leaf()], ValueError, r"params\[1\] is a nested tensor"),
    ],
)
def test_bad_params_are_an_error_that_changes_nothing(rule, bad, error, message):
    w = leaf_with_gradient()
    step, memory = bind(rule, TYPICAL[rule])
    with pytest.raises(error, match=message):
        step(bad(w))
    assert torch.equal(w, torch.ones(3))
    assert not memory


@pytest.mark.parametrize("rule", RULES)
def test_a_generator_is_taken_whole_and_a_used_up_one_is_an_error(rule):
    parameters = [leaf_with_gradient(), leaf_with_gradient()]
    step, _ = bind(rule, TYPICAL[rule])
    params = iter(parameters)
    step(params)
    assert all(not torch.equal(w, torch.ones(3)) for w in parameters)
    with pytest.raises(ValueError, match="A generator is used up after one step"):
        step(params)


def back(model, generator):
    model.zero_grad()
    model(torch.randn(4, 5, generator=generator)).square().sum().backward()


@pytest.mark.parametrize("rule", ["momentum", "adam", "adamw"])
def test_a_rule_goes_on_from_the_state_of_torch_optim_to_the_same_bits(rule, generator):
    theirs = nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 3))
    optimizer = RULES[rule][1](theirs.parameters(), **TYPICAL[rule])
    for _ in range(30):
        back(theirs, generator)
        optimizer.step()
    ours = copy.deepcopy(theirs)
    state = dict(zip(ours.parameters(), copy.deepcopy([*optimizer.state.values()]), strict=True))
    step, memory = bind(rule, TYPICAL[rule])
    memory |= state if rule != "momentum" else {w: s["momentum_buffer"] for w, s in state.items()}
    for _ in range(30):
        draws = generator.get_state()
        back(theirs, generator)
        back(ours, generator.set_state(draws))
        optimizer.step()
        step(ours.parameters())
    assert_same_bits(ours.parameters(), theirs.parameters())


def test_torch_optim_goes_on_from_a_state_that_a_rule_has_used(generator):
    ours = nn.Linear(5, 3)
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.01)
    theirs = copy.deepcopy(ours)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01)
    for turn in range(6):
        draws = generator.get_state()
        back(theirs, generator)
        back(ours, generator.set_state(draws))
        reference.step()
        if turn % 2:
            adam_step(ours.parameters(), optimizer.state, lr=0.01)
        else:
            optimizer.step()
    assert_same_bits(ours.parameters(), theirs.parameters())


def expanded():
    w = nn.Parameter(torch.ones(1).expand(3))
    w.grad = torch.ones(3)
    return w


def made_in_inference_mode():
    with torch.inference_mode():
        w = nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    return w


def frozen_with_a_gradient():
    return leaf_with_gradient().requires_grad_(False)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (expanded, r"params\[1\] is expanded"),
        (made_in_inference_mode, r"params\[1\] was made in inference mode"),
        (frozen_with_a_gradient, r"params\[1\] is frozen .* and still has a gradient"),
    ],
)
def test_a_parameter_that_cannot_be_moved_stops_the_step_before_any_has(rule, bad, message):
    w = leaf_with_gradient()
    step, memory = bind(rule, TYPICAL[rule])
    with pytest.raises(ValueError, match=message):
        step([w, bad()])
    assert w.tolist() == [1, 1, 1]
    assert not memory


@pytest.mark.parametrize("rule", RULES)
def test_what_the_errors_advise_works(rule):
    step, _ = bind(rule, TYPICAL[rule])
    clone = nn.Parameter(made_in_inference_mode().clone())
    contiguous = nn.Parameter(expanded().detach().contiguous())
    thawed = frozen_with_a_gradient().requires_grad_()
    for w in (clone, contiguous, thawed):
        w.grad = torch.ones(3)
        step([w])
    left = frozen_with_a_gradient()
    left.grad = None
    step([left])
    assert left.tolist() == [1, 1, 1]


@pytest.mark.parametrize("rule", ["adam", "adamw"])
@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (lambda w, good: None, TypeError, "state must be a dict that you keep.* got a NoneType"),
        (lambda w, good: {0: good}, TypeError, r"keys, got 0\. .*not optimizer\.state_dict\(\)"),
        (lambda w, good: {w: None}, TypeError, "must hold a dict of step, .* got None"),
        (lambda w, good: {w: {"step": 1}}, TypeError, "got one of step"),
        (lambda w, good: {w: good | {"max_exp_avg_sq": 0}}, TypeError, "is of amsgrad=True"),
        (lambda w, good: {w: good | {"step": "1"}}, TypeError, "must be a number of steps"),
        (lambda w, good: {w: good | {"step": -1}}, ValueError, "must be 0 or more.* got -1"),
        (lambda w, good: {w: good | {"step": torch.tensor(torch.nan)}}, ValueError, "got nan"),
        (lambda w, good: {w: good | {"exp_avg": 0.0}}, TypeError, "'exp_avg'.* got a float"),
        (
            lambda w, good: {w: good | {"exp_avg": torch.zeros(2)}},
            ValueError,
            r"'exp_avg'\] is torch.float32 \(2,\) on cpu, its parameter torch.float32 \(3,\)",
        ),
        (
            lambda w, good: {w: good | {"exp_avg_sq": torch.zeros(3).double()}},
            ValueError,
            "'exp_avg_sq'.* torch.float64",
        ),
        (
            lambda w, good: {w: good | {"exp_avg_sq": torch.zeros(1).expand(3)}},
            ValueError,
            "'exp_avg_sq'.* is expanded",
        ),
    ],
)
def test_a_bad_state_stops_the_step_before_anything_has_changed(rule, state, error, message):
    first, w = leaf_with_gradient(), leaf_with_gradient()
    good = {"step": 3, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.ones(3)}
    bad = state(w, good)
    before = str(bad)
    with pytest.raises(error, match=message):
        RULES[rule][0]([first, w], bad, lr=0.1)
    assert first.tolist() == w.tolist() == [1, 1, 1]
    assert str(bad) == before


@pytest.mark.parametrize(
    ("velocity", "error", "message"),
    [
        ({"momentum_buffer": torch.zeros(3)}, TypeError, r"state\[w\]\['momentum_buffer'\]"),
        (torch.zeros(2), ValueError, r"velocities\[w\] is torch.float32 \(2,\)"),
        (torch.zeros(3).to_sparse(), ValueError, "both be sparse or both dense"),
        (torch.zeros(1).expand(3), ValueError, "is expanded"),
    ],
)
def test_a_bad_velocity_stops_the_step_before_anything_has_changed(velocity, error, message):
    first, w = leaf_with_gradient(), leaf_with_gradient()
    with pytest.raises(error, match=message):
        momentum_step([first, w], {first: torch.zeros(3), w: velocity}, lr=0.1)
    assert first.tolist() == w.tolist() == [1, 1, 1]


@pytest.mark.parametrize("rule", ["adam", "adamw"])
def test_an_empty_entry_counts_as_none_yet_as_torch_counts_it(rule):
    fresh, empty = leaf_with_gradient(), leaf_with_gradient()
    RULES[rule][0]([fresh], {}, lr=0.1)
    RULES[rule][0]([empty], {empty: {}}, lr=0.1)
    assert_same_bits([fresh], [empty])


@pytest.mark.parametrize("rule", ["adam", "adamw"])
def test_a_step_that_failed_is_not_counted(rule):
    w = leaf_with_gradient()
    state = {}
    RULES[rule][0]([w], state)
    w.data = w.data.double()
    w.grad = None
    w.grad = torch.ones(3, dtype=torch.float64)
    before, kept = w.tolist(), str(state)
    with pytest.raises(ValueError, match="begin anew, with zero_grad"):
        RULES[rule][0]([w], state)
    assert (w.tolist(), str(state)) == (before, kept)


@pytest.mark.parametrize("rule", [adam_step, adamw_step])
@pytest.mark.parametrize("betas", [0.9, None, (0.9,), (0.9, 0.9, 0.9)])
def test_betas_that_are_not_two_numbers_are_an_error_that_changes_nothing(rule, betas):
    w = leaf_with_gradient()
    with pytest.raises((TypeError, ValueError), match="must be two numbers, such as"):
        rule([w], {}, betas=betas)
    assert torch.equal(w, torch.ones(3))

"""`can_backward` against `backward()` itself, over what people do to a graph before it."""

import contextlib
import copy
import functools
import re
import warnings
import weakref
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from blitz_helpers import autograd_graph
from blitz_helpers.graph._derivatives import NO_DERIVATIVE
from blitz_helpers.graph._functions import read_backward


def leaf(*shape):
    return torch.linspace(0.1, 0.9, 12)[: torch.Size(shape or (3,)).numel()].view(
        shape or (3,)
    ).requires_grad_()  # fmt: skip


def inner(*shape):
    return leaf(*shape) * 1


def works(output):
    try:
        torch.autograd.backward(output, torch.ones_like(output))
    except Exception:  # whatever it raises: that is the question
        return False
    return True


def of_the_gradient(function, *inputs):
    """Return the gradient of a function's sum as the end of a graph of its own."""
    direction = torch.tensor(1.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        function(*inputs).sum(), inputs[0], direction, create_graph=True
    )
    return gradient.sum()


STORIES = {}


def story(works):
    def add(build):
        STORIES[build.__name__] = pytest.param(build, works, id=build.__name__)
        return build

    return add


# Changed in place


@story(works=False)
def a_saved_tensor_changed():
    h = inner()
    output = h.sin().sum()
    with torch.no_grad():
        h.add_(1)
    return output


@story(works=True)
def a_tensor_that_nothing_saved_changed():
    h = inner()
    output = (h + 1).sum()
    with torch.no_grad():
        h.add_(1)
    return output


@story(works=True)
def a_change_through_data():
    h = inner()
    output = h.sin().sum()
    h.data.add_(1)
    return output


def a_view_of_many(split):
    h = inner(4, 2)
    first, second = split(h)[:2]
    output = (first * second).sum()
    with torch.no_grad():
        h.mul_(2)
    return output


for name, split in {
    "unbind": lambda h: h.unbind(0),
    "split": lambda h: h.split(2),
    "split_with_sizes": lambda h: h.split([1, 1, 2]),
    "chunk": lambda h: h.chunk(2),
    "tensor_split": lambda h: h.tensor_split(2),
    "hsplit": lambda h: h.hsplit(2),
    "view": lambda h: (h.view(-1), h[0, 0]),
    "narrow": lambda h: (h.narrow(0, 0, 1), h.narrow(0, 1, 1)),
}.items():
    build = functools.partial(a_view_of_many, split)
    build.__name__ = f"the_base_of_{name}_changed"
    story(works=False)(build)


@story(works=False)
def another_view_changed():
    h = inner(4, 2)
    output = h[0].sin().sum()
    with torch.no_grad():
        h[1].mul_(2)
    return output


@story(works=False)
def a_saved_tensor_detached_in_place():
    h = inner()
    output = (h * h).sum()
    h.detach_()
    return output


@story(works=True)
def a_result_detached_in_place():
    h = leaf().exp()
    output = h.sum()
    h.detach_()
    return output


@story(works=False)
def a_leaf_made_part_of_a_graph():
    w = leaf()
    output = (w * 2).sum()
    w.requires_grad_(False)
    w.mul_(inner())
    return output


@story(works=True)
def a_leaf_frozen_afterwards():
    w = leaf()
    output = (w * w).sum()
    w.requires_grad_(False)
    return output


# Resized and released


@story(works=False)
def a_saved_leaf_released():
    w = leaf()
    output = (w * w).sum()
    w.data = torch.empty(0)
    return output


@story(works=False)
def a_saved_result_released():
    h = inner()
    output = h.sin().sum()
    h.data = torch.empty(0)
    return output


@story(works=False)
def an_input_of_matmul_resized():
    h = inner(2, 3)
    output = (h @ leaf(3, 2)).sum()
    h.data = torch.ones(2, 5)
    return output


@story(works=False)
def a_saved_tensor_given_other_memory():
    h = inner()
    output = (h * h).sum()
    with torch.no_grad():
        h.set_(torch.ones(5))
    return output


@story(works=False)
def an_output_of_another_shape_now():
    output = leaf() * 2
    output.data = torch.ones(5)
    return output


@story(works=True)
def an_output_of_another_shape_that_fits():
    output = leaf() * 2
    output.data = torch.ones(2, 3)
    return output


@story(works=True)
def a_leaf_of_another_dtype_now():
    w = leaf()
    output = (w * w).sum()
    w.data = w.data.double()
    return output


def converted(layer, *shape):
    """Convert a layer to another dtype between its forward pass and backward."""
    output = layer(leaf(*shape)).sum()
    layer.double()
    return output


for name, (layer, shape, ends_well) in {
    "convolution": (nn.Conv2d(1, 2, 2), (1, 1, 3, 3), False),
    "batch_norm": (nn.BatchNorm1d(3), (2, 3), False),
    "layer_norm": (nn.LayerNorm(3), (2, 3), False),
    "linear_map": (nn.Linear(3, 3), (2, 3), True),
    "group_norm": (nn.GroupNorm(1, 3), (2, 3), None),
}.items():
    build = functools.partial(
        lambda layer, shape: converted(copy.deepcopy(layer), *shape), layer, shape
    )
    build.__name__ = f"a_{name}_converted_after_the_forward"
    story(works=ends_well)(build)


@story(works=False)
def a_matrix_of_another_dtype_now():
    w = leaf(3, 2)
    output = (leaf(4, 3) @ w).sum()
    w.data = w.data.double()
    return output


@story(works=False)
def a_frozen_matrix_of_another_dtype_now():
    frozen = torch.ones(3, 2)
    output = (leaf(4, 3) @ frozen).sum()
    frozen.data = frozen.data.half()
    return output


@story(works=False)
def a_frozen_convolution_of_more_precision_now():
    layer = nn.Conv2d(1, 2, 2).requires_grad_(False)
    return converted(layer, 1, 1, 3, 3)


@story(works=None)
def a_frozen_convolution_of_less_precision_now():
    layer = nn.Conv2d(1, 2, 2).requires_grad_(False)
    output = layer(leaf(1, 1, 3, 3)).sum()
    layer.bfloat16()
    return output


@story(works=None)
def a_convolution_converted_that_no_wanted_gradient_needs():
    layer = nn.Conv2d(1, 2, 2)
    output = layer(torch.ones(1, 1, 3, 3)).sum()
    layer.double()
    return output


@story(works=None)
def biases_of_a_recurrent_layer_of_less_precision_now():
    layer = nn.LSTM(2, 3)
    output = layer(leaf(2, 1, 2))[0].sum()
    layer.bias_ih_l0.data = layer.bias_ih_l0.data.half()
    return output


@story(works=False)
def a_frozen_norm_of_another_dtype_now():
    layer = nn.LayerNorm(3).requires_grad_(False)
    return converted(layer, 2, 3)


@story(works=True)
def norms_of_half_precision_with_exact_weights():
    x = leaf(2, 3).bfloat16()
    frozen = nn.LayerNorm(3).requires_grad_(False), nn.BatchNorm1d(3).requires_grad_(False)
    return sum(norm(x).sum() for norm in frozen)


@story(works=None)
def a_result_that_has_become_complex():
    h = inner()
    output = h.sin().sum()
    h.data = h.data.to(torch.complex64)
    return output


@story(works=False)
def an_output_that_has_become_complex():
    output = leaf() * 2
    output.data = output.data.to(torch.complex64)
    return output


@story(works=True)
def an_output_of_more_precision_now():
    output = leaf() * 2
    output.data = output.data.double()
    return output


@story(works=None)
def a_leaf_of_another_shape_that_nothing_saved():
    w = leaf()
    output = (w * 2).sum()
    w.data = torch.ones(5)
    return output


@story(works=False)
def a_mask_of_another_shape_now():
    mask = torch.tensor([True, False, True])
    output = leaf().masked_fill(mask, 0).sum()
    mask.data = torch.ones(5, dtype=torch.bool)
    return output


@story(works=False)
def a_condition_of_another_shape_now():
    condition = torch.tensor([True, False, True])
    output = torch.where(condition, leaf(), 0.0).sum()
    condition.data = torch.ones(5, dtype=torch.bool)
    return output


def an_input_of_another_shape(function, input, shape):
    """Change the shape of an input that needs no gradient, after it was saved."""
    output = function(input, leaf(3, 2))
    input.data = torch.ones(shape)
    return output.sum()


for name, (function, shape, now, ends_well) in {
    "multiplied_by": (torch.mul, (3, 2), (5,), False),
    "multiplied_by_but_broadcast": (torch.mul, (3, 2), (2,), True),
    "multiplied_by_but_larger": (torch.mul, (2,), (4, 3, 2), True),
    "divided": (torch.div, (3, 2), (4, 2), False),
    "of_matmul": (torch.mm, (4, 3), (5, 3), False),
}.items():
    build = functools.partial(
        lambda function, shape, now: an_input_of_another_shape(function, torch.ones(shape), now),
        function, shape, now,
    )  # fmt: skip
    build.__name__ = f"an_input_{name}_given_another_shape"
    story(works=ends_well)(build)


@story(works=None)
def an_input_of_matmul_that_has_become_longer():
    return an_input_of_another_shape(torch.mm, torch.ones(1, 3), (5, 3))


# What lies in `.grad`


def with_grad(make):
    w = leaf()
    output = (w * 2).sum()
    w.grad = make()
    return output


def in_inference_mode():
    with torch.inference_mode():
        return torch.zeros(3)


def resized():
    grad = torch.zeros(3)
    return grad, torch.zeros(5)


for name, (make, ends_well) in {
    "an_ordinary": (lambda: torch.zeros(3), True),
    "a_sparse": (lambda: torch.zeros(3).to_sparse(), True),
    "an_expanded": (lambda: torch.zeros(1).expand(3), False),
    "an_inference": (in_inference_mode, False),
}.items():
    build = functools.partial(with_grad, make)
    build.__name__ = f"{name}_tensor_in_grad"
    story(works=ends_well)(build)


def with_grad_data(data):
    w = leaf()
    output = (w * 2).sum()
    w.grad = torch.zeros(3)
    w.grad.data = data
    return output


for name, (data, ends_well) in {
    "another_shape": (torch.zeros(5), False),
    "more_precision": (torch.zeros(3, dtype=torch.float64), True),
    "integers": (torch.zeros(3, dtype=torch.int64), False),
}.items():
    build = functools.partial(with_grad_data, data)
    build.__name__ = f"a_grad_of_{name}"
    story(works=ends_well)(build)


# Custom functions


def a_custom(*, saves, returns=lambda ctx, g: g, **attributes):
    """Return a function that triples its input, and what it saves and asks for as one likes."""

    def forward(ctx, x):
        y = 3 * x
        saves(ctx, x, y)
        return y

    if not isinstance(returns, classmethod):
        returns = staticmethod(returns)
    members = {"forward": staticmethod(forward), "backward": returns, **attributes}
    return type("Custom", (Function,), members).apply


def saves_its_input(ctx, x, _y):
    ctx.save_for_backward(x)


def saves_its_output(ctx, _x, y):
    ctx.save_for_backward(y)


def saves_nothing(_ctx, _x, _y):
    pass


def asks(ctx, g):
    (x,) = ctx.saved_tensors
    return g * x


def asks_within_a_block(ctx, g):
    with torch.no_grad():
        x = ctx.saved_tensors[0]
        return g * x


def asks_last(ctx, g):
    scale = 1.0
    for _ in range(2):
        scale *= 2
    if scale > 3:
        g = g * scale
    return ctx.saved_tensors[0] * g


def asks_in_both_branches(ctx, g):
    if g.sum() > 0:
        (x,) = ctx.saved_tensors
    else:
        x = unstash(ctx)
    return g * x


def unstash(ctx):
    return ctx.saved_tensors[0]


def asks_through_a_helper(ctx, g):
    return g * unstash(ctx)


class Helpers:
    @staticmethod
    def unstash(ctx):
        return ctx.saved_tensors[0]


def asks_through_a_class(ctx, g):
    return g * Helpers.unstash(ctx)


def asks_and_puts_back(ctx, g):
    kept, ctx.needs = None, g
    try:
        return g * unstash(ctx)
    finally:
        ctx.needs = kept


def never_asks(ctx, g):
    return g * ctx.needs_input_grad[0]


def never_asks_through_a_helper(ctx, g):
    return g * needs(ctx)


def needs(ctx):
    return ctx.needs_input_grad[0]


def catches(ctx, g):
    try:
        (x,) = ctx.saved_tensors
    except RuntimeError:
        x = 1
    return g * x


def asks_at_times(ctx, g):
    if ctx.needs_input_grad[0]:
        (x,) = ctx.saved_tensors
        return g * x
    return None


def only_raises(ctx, g):
    raise RuntimeError("not written yet")


def wrapped(function):
    def wrapper(ctx, *gradients):
        with torch.enable_grad():
            return function(ctx, *gradients)

    return wrapper


def swallows(function):
    @functools.wraps(function)
    def wrapper(ctx, *gradients):
        try:
            return function(ctx, *gradients)
        except RuntimeError:
            return gradients[0]

    return wrapper


def asks_unless_it_fails(ctx, g):
    x = 1
    with contextlib.suppress(RuntimeError):
        (x,) = ctx.saved_tensors
    return g * x


def asks_if_its_generator_runs(ctx, g):
    yields(ctx)
    return g


def yields(ctx):
    yield ctx.saved_tensors


def calls_what_it_is_given(ctx, g):
    return g * call(needs, ctx)


def call(function, ctx):
    return function(ctx)


def calls_an_item(ctx, g):
    return g * [unstash, needs][1](ctx)


class Toolbox:
    def unstash(self, ctx):
        return unstash(ctx)

    @classmethod
    def stashed(cls, ctx):
        return unstash(ctx)


toolbox = Toolbox()


def asks_through_a_method(ctx, g):
    return g * toolbox.unstash(ctx)


def asks_through_a_class_method(ctx, g):
    return g * Toolbox.stashed(ctx)


def asks_in_its_second_argument(ctx, g):
    return multiplied(g, ctx)


def multiplied(g, ctx):
    return g * ctx.saved_tensors[0]


def asks_by_position(*arguments):
    return arguments[1] * unstash(*arguments[:1])


ASKS = [
    asks, asks_within_a_block, asks_last, asks_in_both_branches, asks_through_a_helper,
    asks_through_a_class, asks_and_puts_back, once_differentiable(asks), wrapped(asks),
    asks_through_a_method, asks_through_a_class_method, asks_in_its_second_argument,
    classmethod(lambda cls, ctx, g: g * unstash(ctx)), asks_by_position,
    once_differentiable(wrapped(asks)), lambda ctx, g: 2 * ctx.saved_tensors[0] * g,
]  # fmt: skip
NEVER = [never_asks, never_asks_through_a_helper, wrapped(never_asks)]
UNREADABLE = [
    catches, asks_at_times, functools.partial(asks), swallows(asks),
    once_differentiable(swallows(asks)), asks_unless_it_fails, asks_if_its_generator_runs,
    calls_what_it_is_given, calls_an_item,
]  # fmt: skip


@pytest.mark.parametrize("returns", ASKS)
def test_a_custom_function_that_asks_for_what_was_freed_fails(returns):
    output = a_custom(saves=saves_its_input, returns=returns)(leaf()).sum()
    assert autograd_graph(output).can_backward is True
    assert works(output)
    graph = autograd_graph(output)
    assert graph.can_backward is False
    assert "has freed what it saved" in graph.backward_error
    assert not works(output)


@pytest.mark.parametrize("returns", NEVER)
def test_a_custom_function_that_never_asks_goes_backward_again(returns):
    output = a_custom(saves=saves_its_input, returns=returns)(leaf()).sum()
    for _ in range(2):
        assert autograd_graph(output).can_backward is True
        assert works(output)


@pytest.mark.parametrize("returns", UNREADABLE)
def test_of_a_custom_function_whose_code_does_not_tell_nothing_is_said(returns):
    output = a_custom(saves=saves_its_input, returns=returns)(leaf()).sum()
    assert autograd_graph(output).can_backward is True
    assert works(output)
    graph = autograd_graph(output)
    assert graph.can_backward is None
    assert "only running backward() can tell" in graph.backward_error


def test_reading_a_custom_function_does_not_run_it():
    calls = []

    class Recorded(Function):
        @staticmethod
        def backward(ctx, g):
            calls.append(g)
            return unstash(ctx)

    assert read_backward(Recorded)[:2] == ("always", False)
    assert calls == []


def with_a_scale(returns):
    class Scaled(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.scale = 3
            return 3 * x

        backward = staticmethod(returns)

    return Scaled.apply(leaf()).sum()


def deletes_its_scale(ctx, g):
    scale = ctx.scale
    del ctx.scale
    return scale * g


def deletes_a_scale_that_it_may_do_without(ctx, g):
    scale = getattr(ctx, "scale", 3)
    ctx.__dict__.pop("scale", None)
    return scale * g


@story(works=True)
def a_custom_function_that_deletes_what_it_uses():
    return with_a_scale(deletes_its_scale)


@story(works=False)
def a_custom_function_that_has_deleted_what_it_uses():
    output = with_a_scale(deletes_its_scale)
    output.backward(retain_graph=True)
    return output


@story(works=True)
def a_custom_function_that_can_do_without_what_it_deleted():
    output = with_a_scale(deletes_a_scale_that_it_may_do_without)
    output.backward(retain_graph=True)
    return output


@story(works=False)
def a_custom_function_that_uses_what_was_never_set():
    return with_a_scale(lambda ctx, g: g * ctx.factor)


@story(works=True)
def a_custom_function_that_sets_what_it_uses():
    def returns(ctx, g):
        ctx.factor = 2
        return g * ctx.factor

    return with_a_scale(returns)


@story(works=False)
def a_custom_function_that_only_raises():
    return a_custom(saves=saves_nothing, returns=only_raises)(leaf()).sum()


@story(works=False)
def a_custom_function_without_a_backward():
    class Forward(Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

    return Forward.apply(leaf()).sum()


@story(works=False)
def a_custom_function_whose_output_changed():
    y = a_custom(saves=saves_its_output, returns=asks)(leaf())
    output = y.sum()
    with torch.no_grad():
        y.add_(1)
    return output


@story(works=True)
def a_custom_function_that_saves_its_output():
    return a_custom(saves=saves_its_output, returns=asks)(leaf()).sum()


@story(works=True)
def a_custom_function_that_saves_what_it_changed():
    class Doubled(Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            ctx.save_for_backward(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    return Doubled.apply(inner()).sum()


@story(works=True)
def a_custom_function_whose_changed_input_it_never_asks_for():
    x = inner()
    output = a_custom(saves=saves_its_input, returns=never_asks)(x).sum()
    with torch.no_grad():
        x.add_(1)
    return output


def clearing():
    return a_custom(
        saves=saves_its_input, returns=asks, clear_saved_tensors_on_access=True
    )(leaf()).sum()  # fmt: skip


@story(works=True)
def a_custom_function_that_clears_when_asked():
    return clearing()


@story(works=False)
def a_custom_function_that_has_cleared():
    output = clearing()
    output.backward(retain_graph=True)
    return output


@story(works=False)
def the_gradient_of_a_once_differentiable_function():
    return of_the_gradient(
        a_custom(saves=saves_its_input, returns=once_differentiable(asks)), leaf()
    )


@story(works=True)
def the_gradient_of_a_custom_function():
    return of_the_gradient(a_custom(saves=saves_its_input, returns=asks), leaf())


# Operations of torch's library


def a_library_square(with_backward, name):
    @torch.library.custom_op(f"blitz_tests::{name}", mutates_args=())
    def square(x: torch.Tensor) -> torch.Tensor:
        return x * x

    if with_backward:
        square.register_autograd(
            lambda ctx, g: 2 * ctx.saved_tensors[0] * g,
            setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
        )
    return square(leaf()).sum()


@story(works=True)
def a_library_operation():
    return a_library_square(True, "first")


@story(works=False)
def a_library_operation_again():
    output = a_library_square(True, "again")
    output.backward()
    return output


@story(works=False)
def a_library_operation_without_a_backward():
    return a_library_square(False, "without")


# No derivative


@story(works=False)
def igamma_by_its_first_input():
    return torch.special.gammainc(leaf(), torch.ones(3)).sum()


@story(works=True)
def igamma_by_its_second_input():
    return torch.special.gammainc(torch.ones(3), leaf()).sum()


@story(works=False)
def zeta_by_its_first_input():
    return torch.special.zeta(leaf() + 2, torch.ones(3)).sum()


@story(works=False)
def zeta_of_a_number_by_its_first_input():
    return torch.special.zeta(leaf() + 2, 2.0).sum()


@story(works=True)
def zeta_by_its_second_input():
    return torch.special.zeta(2.0, leaf() + 1).sum()


@story(works=False)
def acosh_in_place():
    return (leaf() + 2).acosh_().sum()


@story(works=False)
def the_gradient_of_hardsigmoid():
    return of_the_gradient(nn.functional.hardsigmoid, leaf())


@story(works=False)
def the_gradient_of_cdist():
    return of_the_gradient(torch.cdist, leaf(3, 2), leaf(2, 2))


for name, (build, ends_well) in {
    "leaky_relu": (lambda: nn.functional.leaky_relu(leaf(), -0.2), True),
    "leaky_relu_in_place": (lambda: nn.functional.leaky_relu_(inner(), -0.2), False),
    "elu_in_place": (lambda: nn.functional.elu_(inner(), -0.2), False),
    "celu_in_place": (lambda: nn.functional.celu_(inner(), -0.2), False),
    "rrelu_in_place": (lambda: nn.functional.rrelu_(inner(), -0.3, -0.1), False),
    "rrelu_in_training": (lambda: nn.functional.rrelu_(inner(), -0.3, -0.1, True), True),
}.items():
    build.__name__ = f"a_negative_slope_of_{name}"
    story(works=ends_well)(build)


@pytest.mark.parametrize("embeds", [nn.functional.embedding, nn.functional.embedding_bag])
@pytest.mark.parametrize("by_frequency", [True, False])
def test_a_sparse_gradient_by_frequency_is_foreseen_to_fail(embeds, by_frequency):
    keywords = {"mode": "sum"} if embeds is nn.functional.embedding_bag else {}
    output = embeds(
        torch.tensor([[1, 1]]), leaf(3, 2), sparse=True, scale_grad_by_freq=by_frequency, **keywords
    ).sum()
    assert autograd_graph(output).can_backward is works(output) is not by_frequency


@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
def test_a_qr_decomposition_without_a_derivative_is_foreseen_to_fail(mode, shape):
    output = torch.linalg.qr(leaf(*shape) + torch.eye(*shape), mode=mode)[1].sum()
    assert autograd_graph(output).can_backward is works(output)


@story(works=True)
def the_gradient_of_tanh():
    return of_the_gradient(torch.tanh, leaf())


# What cannot be foretold


@story(works=None)
def a_write_into_a_slice():
    base = torch.zeros(3) + leaf()
    base[0] = leaf(1).sum()
    return base.sum()


@story(works=False)
def a_write_into_a_slice_that_was_freed():
    base = torch.zeros(3) + leaf()
    base[0] = leaf(1).sum()
    base.sum().backward()
    return base.sum()


@story(works=None)
def a_write_into_a_slice_that_was_kept():
    base = torch.zeros(3) + leaf()
    base[0] = leaf(1).sum()
    base.sum().backward(retain_graph=True)
    return base.sum()


@story(works=None)
def complex_eigenvectors():
    return torch.linalg.eig(leaf(3, 3))[1].abs().sum()


@story(works=True)
def complex_eigenvalues():
    return torch.linalg.eigvals(leaf(3, 3)).abs().sum()


@story(works=True)
def singular_values_of_a_complex_matrix():
    return torch.linalg.svdvals(torch.complex(leaf(3, 3), leaf(3, 3))).sum()


@story(works=None)
def singular_vectors_of_a_complex_matrix():
    return torch.linalg.svd(torch.complex(leaf(3, 3), leaf(3, 3)))[2].abs().sum()


@story(works=True)
def real_eigenvectors():
    matrix = leaf(3, 3)
    return torch.linalg.eigh(matrix + matrix.T)[1].sum()


@story(works=False)
def something_freed_beside_a_write_into_a_slice():
    base = torch.zeros(3) + leaf()
    base[0] = leaf(1).sum()
    output = base.exp().sum()
    output.backward()
    return output


@pytest.mark.parametrize(("build", "expected"), STORIES.values())
def test_backward_is_foretold(build, expected):
    output = build()
    graph = autograd_graph(output)
    assert graph.can_backward is expected, graph.backward_error
    assert (graph.backward_error is None) is (expected is True)
    if expected is not None:
        assert works(output) is expected


def test_released_memory_is_seen_without_touching_it():
    # Not held against `backward()`, which reads where no memory is and ends the process.
    h = inner()
    output = (h * h).sum()
    h.untyped_storage().resize_(4)
    graph = autograd_graph(output)
    assert graph.can_backward is False
    assert "memory was released" in graph.backward_error
    assert {saved[2:] for node in graph.nodes for saved in node.saved if saved.name == "self"} == {
        (4, "changed")
    }


def test_released_memory_of_a_grad_is_seen_without_touching_it():
    w = leaf()
    output = (w * 2).sum()
    w.grad = torch.zeros(3)
    w.grad.untyped_storage().resize_(0)
    assert "lost its memory" in autograd_graph(output).backward_error


def test_a_nested_leaf_is_foretold():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls nested tensors a prototype
        w = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], requires_grad=True)
        for ends_well in (True, False):  # torch cannot add to a nested .grad
            output = torch.nested.to_padded_tensor(w * 2, 0).sum()
            assert autograd_graph(output).can_backward is works(output) is ends_well


def test_an_expanded_tensor_has_all_its_memory():
    output = (inner(1).expand(4) * leaf(4)).sum()
    assert autograd_graph(output).can_backward is True
    assert works(output)


@pytest.mark.parametrize("mode", ["first", "again", "of the gradient"])
def test_compiled_regions_are_foretold(mode):
    compiled = torch.compile(lambda x: (x.sin() * x).sum(), backend="aot_eager")
    output = of_the_gradient(compiled, leaf()) if mode == "of the gradient" else compiled(leaf())
    if mode == "again":
        output.backward()
    said = autograd_graph(output).can_backward
    assert said is works(output)
    assert said is (mode == "first")


def test_a_view_that_lost_its_graph_is_refused_with_the_way_out():
    h = inner(4, 2)
    part = h.split(2)[0]
    with torch.no_grad():
        h.mul_(2)
    with pytest.raises(ValueError, match=r"view that has lost its graph.*Make the view anew"):
        autograd_graph(part)
    with pytest.raises(ValueError, match=r"tensors\['part'\] is a view that has lost its graph"):
        autograd_graph(h.sum(), tensors={"part": part})
    assert autograd_graph(h.split(2)[0]).can_backward is True


# Which derivatives are missing


def test_the_missing_derivatives_are_those_that_torch_says_are_not_implemented():
    torchgen = pytest.importorskip("torchgen")
    model = pytest.importorskip("torchgen.model")
    source = Path(next(iter(torchgen.__path__))) / "packaged" / "autograd" / "derivatives.yaml"
    missing = {}
    for entry in yaml.safe_load(source.read_text("utf-8")):
        schema = model.FunctionSchema.parse(entry["name"])
        op = schema.name.name.base.strip("_")
        formulas = {
            argument.strip(): formula
            for key, formula in [*entry.items(), *default_dispatch(entry)]
            if isinstance(formula, str) and key != "name" and formula != "non_differentiable"
            for argument in key.split(",")
        }
        slots = [argument for argument in schema.arguments.flat_all if argument.name in formulas]
        node = "".join(word[:1].upper() + word[1:] for word in op.split("_")) + "Backward"
        gone = tuple(
            slot
            for slot, argument in enumerate(slots)
            if "not_implemented" in formulas[argument.name]
        )
        if gone:
            missing.setdefault(node, []).append(() if len(gone) == len(slots) else gone)
    ours = {}
    for name, slots in NO_DERIVATIVE.items():
        if hasattr(torch._C._functions, name):  # other versions of torch have other nodes
            ours.setdefault(re.sub(r"\d+$", "", name), []).append(slots)
    assert {name: sorted(slots) for name, slots in ours.items()} == {
        name: sorted(slots) for name, slots in missing.items()
    }


def default_dispatch(entry):
    return entry.get("dispatch", {}).get("Default", {}).items()


# Nothing is touched


@pytest.mark.parametrize("build", [story.values[0] for story in STORIES.values()])
def test_looking_at_a_graph_changes_no_answer_of_backward(build):
    looked, untouched = build(), build()
    autograd_graph(looked)
    autograd_graph(looked)
    if build.__name__ != "a_library_operation_again":
        assert works(looked) is works(untouched)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_an_input_of_a_checkpoint_that_changed_is_foreseen_without_recomputing(use_reentrant):
    calls = []

    def block(x):
        calls.append(1)
        return x.sin().exp()

    h = inner()
    output = checkpoint(block, h, use_reentrant=use_reentrant).sum()
    assert autograd_graph(output).can_backward
    with torch.no_grad():
        h.mul_(2)
    graph = autograd_graph(output)
    assert graph.can_backward is False
    assert "modified in place" in graph.backward_error
    assert calls == [1]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_no_hook_runs_and_nothing_is_recomputed():
    calls = []
    with saved_tensors_hooks(lambda x: x, lambda x: calls.append("unpacked") or x):
        packed = a_custom(saves=saves_its_input, returns=asks)(leaf()).exp()
    recomputed = checkpoint(
        lambda x: calls.append("forward") or x.sin().exp(), leaf(), use_reentrant=False
    )
    output = (packed + recomputed).sum()
    output.register_hook(lambda g: calls.append("hook"))
    assert calls == ["forward"]
    assert autograd_graph(output).can_backward is True
    assert calls == ["forward"]


def test_a_graph_that_was_looked_at_keeps_nothing_alive():
    x = inner()
    output = a_custom(saves=saves_its_output, returns=asks)(x).exp().sum()
    alive = weakref.ref(x)
    graph = autograd_graph(output)
    del x, output
    assert alive() is None
    assert graph.can_backward is True


# A frozen model


def test_a_frozen_model_whose_input_wants_the_gradient_has_a_graph():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).requires_grad_(False)
    x = torch.ones(1, 3, requires_grad=True)
    graph = autograd_graph(model(x).sum(), model)
    assert [node.shape for node in graph.leaves] == [(1, 3)]
    assert {node.module for node in graph.nodes} == {None}
    assert graph.can_backward is True


def test_a_model_that_was_frozen_in_the_forward_is_told_so_among_the_causes():
    model = nn.Linear(3, 2).requires_grad_(False)
    output = model(torch.ones(1, 3, requires_grad=True)).sum()
    model.requires_grad_(True)
    with pytest.raises(ValueError, match=r"no gradient of output reaches its parameters.*frozen"):
        autograd_graph(output, model)

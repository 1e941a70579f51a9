"""How much custom functions return, read from their code and held against `backward()` itself."""

import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from blitz_helpers import autograd_graph


def leaf(*shape):
    return torch.ones(shape or (3,), requires_grad=True)


def doubled(ctx, x, *_):
    return x * 2


def custom(backward, forward=doubled, **members):
    """Return a custom function with this backward."""
    if not isinstance(backward, classmethod):
        backward = staticmethod(backward)
    members = {"forward": staticmethod(forward), "backward": backward, **members}
    return type("Custom", (Function,), members).apply


def tensors_in(output):
    outputs = output if isinstance(output, tuple) else (output,)
    return [one for one in outputs if isinstance(one, torch.Tensor)]


def foretold_and_done(output):
    """Return what is foretold of a backward from an output, and whether it then works."""
    outputs = tensors_in(output)
    graph = autograd_graph(outputs)
    try:
        torch.autograd.backward(outputs, [torch.ones_like(one) for one in outputs])
    except Exception:  # whatever it raises: that is the question
        return graph, False
    return graph, True


def twice(g):
    return g, g


def as_in_the_tutorial(ctx, g):
    gx = gw = gb = None
    if ctx.needs_input_grad[0]:
        gx = g * 2
    if ctx.needs_input_grad[1]:
        gw = g * 3
    if len(ctx.needs_input_grad) > 2 and ctx.needs_input_grad[2]:
        gb = g
    return gx, gw, gb


def falls_off_its_end(ctx, g):
    g.neg()


def within_two_blocks(ctx, g):
    with torch.no_grad(), torch.enable_grad():
        return g, g


def from_a_variable(ctx, g):
    gradients = (g, g)
    return gradients


def in_place_of_its_argument(ctx, g):
    g = (g, g)
    return g


def from_an_inner_function(ctx, g):
    def pair():
        nonlocal g
        g = g, g

    pair()
    return g


def one_or_three(ctx, g):
    if g.sum() > 0:
        return g
    return g, g, g


def two_or_one(ctx, g):
    if g.sum() > 0:
        return g, g
    return g


def gathers_in_a_loop(ctx, g):
    gradients = ()
    for _ in range(2):
        gradients = (*gradients, g)
    return gradients


def total(ctx, x):
    return x.sum()


def two_outputs(ctx, x):
    return x * 2, x * 3


def a_number_too(ctx, x):
    return x * 2, 3


NUMBERS = torch.tensor([1, 2, 3])
RIGHT = {
    "one": (custom(lambda ctx, g: g * 2), leaf()),
    "one of two": (custom(lambda ctx, g: (g, None)), leaf(), leaf()),
    "none more than it takes": (custom(lambda ctx, g: (g, None, None)), leaf()),
    "None": (custom(lambda ctx, g: None), leaf()),
    "nothing": (custom(falls_off_its_end), leaf()),
    "None for a number": (custom(lambda ctx, g: (g, None)), leaf(), 2),
    "a gradient for integers": (custom(lambda ctx, g: (g, g)), leaf(), NUMBERS),
    "a gradient that nobody needs": (custom(lambda ctx, g: (g, g)), leaf(), torch.ones(3)),
    "the tutorial's, of three": (custom(as_in_the_tutorial), leaf(), leaf(), leaf()),
    "the tutorial's, of two": (custom(as_in_the_tutorial), leaf(), leaf()),
    "the tutorial's, of a number": (custom(as_in_the_tutorial), leaf(), leaf(), None),
    "a gradient to broadcast": (custom(lambda ctx, g: g, lambda ctx, x: x.expand(3) * 1), leaf(1)),
    "an expanded gradient": (custom(lambda ctx, g: g.expand(3), total), leaf()),
    "of a choice": (custom(lambda ctx, g: (g, g * 2 if g.sum() else None)), leaf(), leaf()),
    "a copy of its own": (custom(lambda ctx, g: (g.clone(), -g.detach())), leaf(), leaf()),
    "the sum for a scalar": (
        custom(lambda ctx, g: g.sum(), lambda ctx, x: x.expand(3) * 1),
        torch.tensor(1.0, requires_grad=True),
    ),
    "once": (custom(once_differentiable(lambda ctx, g: (g, g))), leaf(), leaf()),
    "as a method": (custom(classmethod(lambda cls, ctx, g: (g, g))), leaf(), leaf()),
    "in a list, boxed": (custom(lambda ctx, gs: gs[0], boxed_grads_call=True), leaf()),
    "a default": (custom(lambda ctx, g, scale=2: g * scale), leaf()),
    "a default itself": (custom(lambda ctx, g, none=None: (g, none)), leaf(), leaf()),
    "of two outputs": (custom(lambda ctx, g, h: g + h, two_outputs), leaf()),
    "of any outputs": (custom(lambda ctx, *g: g[0] + g[1], two_outputs), leaf()),
}
WRONG = {
    "too many": (custom(lambda ctx, g: (g, g)), leaf()),
    "too few": (custom(lambda ctx, g: g), leaf(), leaf()),
    "one product of two": (custom(lambda ctx, g: 2 * g), leaf(), leaf()),
    "one long product of two": (custom(lambda ctx, g: g * 2 * g.cos()), leaf(), leaf()),
    "a difference too many": (custom(lambda ctx, g: (g, g.cos() - g)), leaf()),
    "a sum of two outputs too many": (custom(lambda ctx, g, h: (g, g + h), two_outputs), leaf()),
    "one too many before None": (custom(lambda ctx, g: (g, g, None)), leaf()),
    "None of two": (custom(lambda ctx, g: None), leaf(), leaf()),
    "nothing of two": (custom(falls_off_its_end), leaf(), leaf()),
    "nothing for a number": (custom(lambda ctx, g: g), leaf(), 2),
    "the tutorial's, of four": (custom(as_in_the_tutorial), leaf(), leaf(), leaf(), leaf()),
    "for no output": (custom(lambda ctx: None), leaf()),
    "for a second output": (custom(lambda ctx, g, h: g), leaf()),
    "for one output of two": (custom(lambda ctx, g: g, two_outputs), leaf()),
    "once, too few": (custom(once_differentiable(lambda ctx, g: g)), leaf(), leaf()),
    "as a method, too few": (custom(classmethod(lambda cls, ctx, g: g)), leaf(), leaf()),
    "one or three of two": (custom(one_or_three), leaf(), leaf()),
    "by two methods": (custom(lambda ctx, g: g, vjp=staticmethod(lambda ctx, g: g)), leaf()),
}  # fmt: skip
UNKNOWN = {
    "a tuple of its own": (custom(lambda ctx, g: tuple(iter((g, g)))), leaf(), leaf()),
    "an unpacked tuple": (custom(lambda ctx, g: (None, *(g,))), leaf(), leaf()),
    "a product of a tuple": (custom(lambda ctx, g: (g,) * 2), leaf(), leaf()),
    "a sum of tuples": (custom(lambda ctx, g: g.split(3) + g.split(3)), leaf(), leaf()),
    "a choice too many": (custom(lambda ctx, g: (g, g if g.sum() < 0 else None)), leaf()),
    "another choice too many": (custom(lambda ctx, g: (g, None if g.sum() else g)), leaf()),
    "the first that is not empty": (custom(lambda ctx, g: g.split(3) * 2 or (g,)), leaf(), leaf()),
    "from a helper": (custom(lambda ctx, g: twice(g)), leaf(), leaf()),
    "from a variable": (custom(from_a_variable), leaf(), leaf()),
    "in place of its argument": (custom(in_place_of_its_argument), leaf(), leaf()),
    "from an inner function": (custom(from_an_inner_function), leaf(), leaf()),
    "within blocks": (custom(within_two_blocks), leaf(), leaf()),
    "a copy, too few": (custom(lambda ctx, g: g.clone()), leaf(), leaf()),
    "from elsewhere": (custom(lambda ctx, g: g.split(2)), leaf(), leaf()),
    "perhaps one too many": (custom(lambda ctx, g: (g, g.get_device())), leaf()),
    "two or one": (custom(two_or_one), leaf(), leaf()),
    "from a loop": (custom(gathers_in_a_loop), leaf(), leaf()),
    "of an output that is a number": (custom(lambda ctx, g, h: (g, h), a_number_too), leaf()),
    "as many as it gets": (custom(lambda ctx, *g: g), leaf(), leaf()),
}


@pytest.mark.parametrize(
    ("backward", "works"),
    [
        (lambda ctx, g: (g * 2, None), True),
        (lambda ctx, g: g * 2, False),
        (lambda ctx, g: (g, g, g), False),
        (lambda ctx: None, False),
    ],
)
def test_the_backward_of_a_library_operation_is_read(backward, works):
    name = f"blitz_tests::scaled_{len(SCALED)}"
    SCALED.append(name)

    @torch.library.custom_op(name, mutates_args=())
    def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
        return x * factor

    scaled.register_autograd(backward)
    graph, does_work = foretold_and_done(scaled(leaf(), 2.0))
    assert graph.can_backward is does_work is works


SCALED = []  # the operations made so far


@pytest.mark.parametrize(("function", "inputs"), [(f, i) for f, *i in RIGHT.values()], ids=RIGHT)
def test_a_backward_that_returns_what_is_expected_works(function, inputs):
    graph, works = foretold_and_done(function(*inputs))
    assert works
    assert graph.can_backward is True, graph.backward_error


@pytest.mark.parametrize(("function", "inputs"), [(f, i) for f, *i in WRONG.values()], ids=WRONG)
def test_a_backward_that_returns_something_else_fails(function, inputs):
    graph, works = foretold_and_done(function(*inputs))
    assert not works
    assert graph.can_backward is False, graph.backward_error


@pytest.mark.parametrize(
    ("function", "inputs"), [(f, i) for f, *i in UNKNOWN.values()], ids=UNKNOWN
)
def test_a_backward_whose_code_does_not_tell_how_much_it_returns_is_left_open(function, inputs):
    graph = autograd_graph(tensors_in(function(*inputs)))
    assert graph.can_backward is None
    assert "only running backward() can tell" in graph.backward_error


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        (lambda ctx, g: g, "returns 1 value. It must return 2 gradients, one for each argument of"),
        (lambda ctx, g: (g, g, g), "returns 3 values. It must return 2 gradients, one for each"),
        (
            lambda ctx: None,
            "with ctx and 1 gradient, one for each output, but its arguments are (ctx)",
        ),
    ],
)
def test_the_message_says_what_is_returned_and_what_must_be(backward, message):
    assert message in autograd_graph(custom(backward)(leaf(), leaf())).backward_error


def test_code_without_positions_is_left_open():
    def backward(ctx, g):
        return g * g.cos()

    function = custom(backward)
    backward.__code__ = backward.__code__.replace(co_linetable=b"")
    assert autograd_graph(function(leaf(), leaf())).can_backward is None


def test_helpers_that_call_themselves_are_read_once():
    def backward(ctx, g):
        again(ctx)
        return g, g

    def again(ctx):
        again(ctx)
        again(ctx)

    assert autograd_graph(custom(backward)(leaf(), leaf())).can_backward is True


@pytest.mark.parametrize(
    "body",
    [
        [*(f"g{step + 1} = g{step} * 2" for step in range(3000)), "return g3000, g0"],
        ["return " + " * ".join(["g0"] * 500) + ", None"],
    ],
    ids=["many variables", "many factors"],
)
def test_long_code_is_read(body):
    names = {}
    exec("\n    ".join(["def backward(ctx, g0):", *body]), names)
    function = custom(names["backward"])
    assert autograd_graph(function(leaf(), leaf())).can_backward is True
    assert autograd_graph(function(leaf(), leaf(), leaf())).can_backward is False

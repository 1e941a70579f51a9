"""Random networks from a seed, and what must hold of each: torch itself is the judge.

``python tests/fuzz.py --count 1000`` tries a thousand; a seed that fails is printed with its
program, and ``python tests/fuzz.py --seed 17`` tries that one again.
"""

import argparse
import collections
import copy
import math
import random
import sys
import traceback
import warnings
from functools import cache, partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from blitz_helpers import (
    ShapeError,
    adam_step,
    adamw_step,
    autograd_graph,
    gradient_report,
    momentum_step,
    sgd_step,
    trace_shapes,
)

WORDS = {"torch": torch, "nn": nn, "F": F}
LARGEST = 20_000  # entries of a value
# What torch raises when a drawn call does not fit.
DOES_NOT_FIT = (
    *(RuntimeError, ValueError, IndexError, TypeError),
    *(AttributeError, AssertionError, ArithmeticError),
)


class Program:
    """A network as text: its layers, and the lines of its forward, which name every value."""

    def __init__(self, layers: dict[str, str], lines: dict[str, str], shape: tuple[int, ...]):
        self.layers, self.lines, self.shape = layers, lines, shape

    def __str__(self):
        values = ", ".join(f"{name!r}: {name}" for name in self.lines)
        return "\n".join(
            [
                f"# takes {self.shape}",
                "class Net(nn.Module):",
                "    def __init__(self):",
                "        super().__init__()",
                *(f"        self.{name} = {call}" for name, call in self.layers.items()),
                "    def forward(self, x):",
                *(f"        {name} = {call}" for name, call in self.lines.items()),
                f"        return {{{values}}}",
            ]
        )

    def network(self) -> nn.Module:
        words = dict(WORDS)
        exec(compile(str(self), "<program>", "exec"), words)
        torch.manual_seed(0)
        return words["Net"]()

    def input(self, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        return torch.randn(shape or self.shape, generator=torch.Generator().manual_seed(1))


class Draft:
    """A program in the making: a line is kept if torch runs it."""

    def __init__(self, seed: int, dims: int | None = None):
        self.draw = random.Random(seed)
        self.layers: dict[str, str] = {}
        self.lines: dict[str, str] = {}
        self.scope = SimpleNamespace()
        dims = self.draw.choice((0, 1, 1, 2, 2, 2, 2, 3)) if dims is None else dims
        most = (12, 40, 20, 9)[dims]
        sizes = [self.draw.randint(max(1, most // 3), most) for _ in range(dims or 1)]
        channels = [self.draw.randint(1, 6)] if dims else []
        self.shape = (self.draw.randint(1, 4), *channels, *sizes)
        self.values = {"x": torch.randn(self.shape)}

    def program(self, lines: int) -> Program:
        for _ in range(20 * lines):
            if len(self.lines) >= lines:
                break
            self.add(self.draw.choice(CALLS))
        return Program(self.layers, self.lines, self.shape)

    def add(self, call) -> None:
        # The newest value more often than not, so that networks grow deep.
        names = list(self.values)
        name = names[-1] if self.draw.random() < 0.7 else self.draw.choice(names)
        layers = dict(self.layers)
        try:
            text = call(self, name, self.values[name])
            value = eval(text, {**WORDS, "self": self.scope}, self.values)
        except DOES_NOT_FIT:
            value = None
        if isinstance(value, torch.Tensor) and 0 < value.numel() <= LARGEST:
            new = f"v{len(self.lines) + 1}"
            self.values[new], self.lines[new] = value, text
        else:
            self.layers = layers

    def layer(self, call: str) -> str:
        name = f"m{len(self.layers)}"
        setattr(self.scope, name, eval(call, WORDS))
        self.layers[name] = call
        return f"self.{name}"

    def axis(self, value) -> int:
        return self.draw.randint(-value.dim(), value.dim() - 1)

    def window(self, dims: int) -> tuple[str, int]:
        """Return a window's size, stride and padding as text, and its largest side."""
        sizes = [self.draw.randint(1, 4) for _ in range(dims)]
        if self.draw.random() < 0.6:
            sizes = sizes[:1] * dims
        stride, padding = self.draw.randint(1, 3), self.draw.randint(0, min(sizes) // 2)
        size = sizes[0] if len(set(sizes)) == 1 else tuple(sizes)
        return f"{size}, stride={stride}, padding={padding}", max(sizes)


CALLS = []


def call(weight: int = 1):
    def add(function):
        CALLS.extend([function] * weight)
        return function

    return add


@call(4)
def convolution(draft, x, value):
    dims = value.dim() - 2
    if dims not in (1, 2, 3):
        return None
    inside = value.shape[1]
    groups = draft.draw.choice([g for g in range(1, inside + 1) if inside % g == 0])
    outside = groups * draft.draw.randint(1, 4)
    window, _ = draft.window(dims)
    extras = f"groups={groups}, bias={draft.draw.random() < 0.7}"
    dilation = draft.draw.choice((1, 1, 2))
    if draft.draw.random() < 0.2:
        outputs = f"{window}, output_padding={draft.draw.choice((0, 0, 1))}, dilation={dilation}"
        layer = f"nn.ConvTranspose{dims}d({inside}, {outside}, {outputs}, {extras})"
    elif draft.draw.random() < 0.2:
        window = f"{draft.draw.randint(1, 4)}, padding='same', dilation={dilation}"
        layer = f"nn.Conv{dims}d({inside}, {outside}, {window}, {extras})"
    else:
        layer = f"nn.Conv{dims}d({inside}, {outside}, {window}, dilation={dilation}, {extras})"
    return f"{draft.layer(layer)}({x})"


@call(2)
def pooling(draft, x, value):
    dims = value.dim() - 2
    if dims not in (1, 2, 3):
        return None
    window, _ = draft.window(dims)
    kind, extras = draft.draw.choice((("max", ", dilation=1"), ("max", ""), ("avg", "")))
    extras += f", ceil_mode={draft.draw.random() < 0.4}"
    if draft.draw.random() < 0.5:
        return f"F.{kind}_pool{dims}d({x}, {window}{extras})"
    return f"{draft.layer(f'nn.{kind.title()}Pool{dims}d({window}{extras})')}({x})"


@call(2)
def linear(draft, x, value):
    layer = f"nn.Linear({value.shape[-1]}, {draft.draw.randint(1, 9)})"
    return f"{draft.layer(layer)}({x})"


@call(2)
def a_layer_again(draft, x, value):
    return f"self.{draft.draw.choice(list(draft.layers))}({x})" if draft.layers else None


@call(2)
def other_layer(draft, x, value):
    channels, last = value.shape[min(1, value.dim() - 1)], value.shape[-1]
    dims = value.dim() - 2
    layer = draft.draw.choice(
        (
            f"nn.BatchNorm{max(1, dims)}d({channels})",
            f"nn.InstanceNorm{max(1, dims)}d({channels}, affine=True)",
            f"nn.GroupNorm(1, {channels})",
            f"nn.LayerNorm({last})",
            f"nn.RMSNorm({last})",
            f"nn.PReLU({channels})",
            f"nn.AdaptiveAvgPool{max(1, dims)}d({draft.draw.randint(1, 5)})",
            f"nn.AdaptiveMaxPool{max(1, dims)}d({draft.draw.randint(1, 5)})",
            f"nn.Upsample(scale_factor={draft.draw.randint(1, 2)})",
            f"nn.ZeroPad2d({draft.draw.randint(0, 2)})",
            "nn.Flatten()",
            "nn.Dropout(0.3)",
            "nn.Softmax(-1)",
            "nn.GELU()",
            "nn.ReLU(inplace=True)",
            "nn.Identity()",
            f"nn.Sequential(nn.Linear({last}, 3), nn.Tanh(), nn.Linear(3, {last}))",
        )
    )
    return f"{draft.layer(layer)}({x})"


@call()
def recurrent(draft, x, value):
    if value.dim() not in (2, 3):
        return None
    kind, hidden = draft.draw.choice(("RNN", "GRU", "LSTM")), draft.draw.randint(1, 5)
    flags = f"batch_first={draft.draw.random() < 0.5}, bidirectional={draft.draw.random() < 0.5}"
    layers = draft.draw.randint(1, 2)
    layer = f"nn.{kind}({value.shape[-1]}, {hidden}, num_layers={layers}, {flags})"
    place = draft.draw.choice(("[0]", "[1][0]" if kind == "LSTM" else "[1]"))
    return f"{draft.layer(layer)}({x}){place}"


@call()
def attention(draft, x, value):
    if value.dim() != 3:
        return None
    width = value.shape[-1]
    heads = draft.draw.choice([h for h in range(1, width + 1) if width % h == 0])
    layer = f"nn.MultiheadAttention({width}, {heads}, batch_first={draft.draw.random() < 0.5})"
    return f"{draft.layer(layer)}({x}, {x}, {x}){draft.draw.choice(('[0]', '[1]'))}"


@call(2)
def pointwise(draft, x, value):
    return draft.draw.choice(
        (
            *("F.relu({0})", "{0}.sigmoid()", "torch.tanh({0})", "F.gelu({0})", "F.silu({0})"),
            *("{0} * 2", "1 - {0}", "{0} ** 2", "{0}.abs().sqrt()", "-{0}", "{0}.clamp(-1, 1)"),
            *("F.leaky_relu({0}, 0.1)", "{0} / 3", "F.dropout({0}, 0.5)", "{0}.exp() + 1"),
            *("F.relu_({0} + 1)", "({0} + 0).mul_(2)", "{0}.clone().add_({0})", "{0}.add_(1)"),
            *("{0}.contiguous()", "{0}.float()", "torch.where({0} > 0, {0}, 0 * {0})"),
        )
    ).format(x)


@call(2)
def with_another(draft, x, value):
    other = draft.draw.choice(list(draft.values))
    axis = draft.draw.randrange(value.dim())
    return draft.draw.choice(
        (
            *("{0} + {1}", "{0} * {1}", "{0} - {1}", "torch.maximum({0}, {1})", "{0} @ {1}"),
            *("torch.cat([{0}, {1}], {2})", "torch.stack([{0}, {1}], {2})", "{1} @ {0}"),
            *("torch.cat([{0}, {0}, {1}], dim={2})", "{0} @ {1}.transpose(-1, -2)"),
            *("torch.matmul({0}, {1}.mT)", "F.linear({0}, {1})", "torch.bmm({0}, {1})"),
        )
    ).format(x, other, axis)


@call(3)
def reshaping(draft, x, value):
    shape, axis, other = list(value.shape), draft.axis(value), draft.axis(value)
    order = list(range(value.dim()))
    draft.draw.shuffle(order)
    first, second = sorted((axis % value.dim(), other % value.dim()))
    sizes = [*shape[:first], math.prod(shape[first : second + 1]), *shape[second + 1 :]]
    sizes[draft.draw.randrange(len(sizes))] = -1
    start, step = draft.draw.randint(0, 1), draft.draw.randint(1, 2)
    index = ", ".join([":"] * (axis % value.dim()) + [f"{start}::{step}"])
    return draft.draw.choice(
        (
            f"torch.flatten({x}, {first}, {second})",
            f"{x}.flatten({first})",
            f"{x}.view({x}.size(0), -1)",
            f"{x}.reshape({sizes})",
            f"{x}.view({sizes})",
            f"{x}.transpose({axis}, {other})",
            f"{x}.permute({order})",
            f"{x}.unsqueeze({axis})",
            f"{x}.squeeze({axis})",
            f"{x}.squeeze()",
            f"{x}[{index}]",
            f"{x}[..., -1]",
            f"{x}[:, None]",
            f"{x}.mean({axis}, keepdim={draft.draw.random() < 0.5})",
            f"{x}.sum(({first}, {second}))",
            f"{x}.amax({axis})",
            f"{x}.max({axis})[0]",
            f"{x}.chunk(2, {axis})[-1]",
            f"{x}.split(2, {axis})[0]",
            f"{x}.narrow({axis}, 0, 1)",
            f"{x}.flip({axis}).roll(1, {axis})",
            f"{x}.softmax({axis})",
            f"{x}.cumsum({axis})",
            f"F.pad({x}, ({draft.draw.randint(-1, 2)}, {draft.draw.randint(0, 2)}))",
            f"{x}.expand(2, {', '.join(['-1'] * value.dim())})",
            f"{x}.repeat_interleave(2, dim={axis})",
            f"F.interpolate({x}, scale_factor=2)",
            f"{x}.unflatten({axis}, (1, -1))",
            f"torch.einsum('...i,...i->...', {x}, {x})",
            f"{x}.norm(dim={axis})",
            f"{x}.unfold({axis}, 1, 2)",
        )
    )


@cache
def program(seed: int) -> Program:
    draft = Draft(seed)
    return draft.program(lines=draft.draw.randint(3, 14))


def shapes(values: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in values.items()}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether both have the same bits."""
    return a.shape == b.shape and a.detach().numpy().tobytes() == b.detach().numpy().tobytes()


# What must hold. Each takes a seed and raises AssertionError where it does not.


def trace_agrees_with_the_real_forward(seed: int) -> None:
    ours, real = program(seed).network(), program(seed).network()
    before, random_state = copy.deepcopy(ours.state_dict()), torch.get_rng_state()

    trace = trace_shapes(ours, program(seed).shape)

    assert torch.equal(torch.get_rng_state(), random_state), "the random state moved"
    for name, value in ours.state_dict().items():
        assert same(value, before[name]), f"{name} changed"
    assert all(w.grad is None for w in ours.parameters())
    assert trace.ran_for_real is None, trace.ran_for_real
    assert trace.output_shape == shapes(real(program(seed).input()))
    assert trace.num_params == sum(w.numel() for w in real.parameters())
    for step in trace:
        for line in step.arithmetic:
            left, _, right = line.rpartition("=")
            value = eval(left, {"floor": math.floor, "ceil": math.ceil})
            assert value == int(right), line


def trace_fails_where_the_real_forward_fails(seed: int) -> None:
    draw = random.Random(seed)
    shape = list(program(seed).shape)
    axis = draw.randrange(len(shape))
    shape[axis] = max(1, shape[axis] + draw.choice((-3, -1, 1, 2)))
    if draw.random() < 0.2:
        shape = shape[1:] or shape
    try:
        real = shapes(program(seed).network()(program(seed).input(tuple(shape))))
    except DOES_NOT_FIT as error:
        real = error
    else:
        if any(0 in sizes for sizes in real.values()):
            return  # which torch refuses or makes, as the kernel that it chose will have it
    try:
        ours = trace_shapes(program(seed).network(), tuple(shape)).output_shape
    except DOES_NOT_FIT as error:
        ours = error
    if isinstance(ours, ShapeError):
        assert bool(ours.hint) == bool(ours.remedies)
        assert not getattr(ours, "__notes__", ()), ours.__notes__
        assert ours.step.output_shape is None
    if isinstance(real, Exception) or isinstance(ours, Exception):
        both = f"on {tuple(shape)}\nreal: {real!r:.300}\nours: {ours!r:.300}"
        assert isinstance(real, Exception) == isinstance(ours, Exception), both
        # Where torch speaks of shapes, so do we, in our own words.
        assert isinstance(ours, ShapeError) or type(real) is not RuntimeError, both
    else:
        assert ours == real, f"on {tuple(shape)}"


def receptive_field_is_the_footprint_of_the_gradient(seed: int) -> None:
    draw = random.Random(seed)
    dims = draw.choice((1, 2))
    side = 96
    layers, lines, x = {}, {}, "x"

    def add(text: str) -> str:
        lines[f"v{len(lines) + 1}"] = text
        return f"v{len(lines)}"

    def convolve(x: str, stride: int, same: bool) -> str:
        size, dilation = draw.choice((1, 3, 5) if same else (1, 2, 3, 4, 5)), draw.choice((1, 1, 2))
        padding = "'same'" if same else draw.randint(0, 2)
        name = f"m{len(layers)}"
        layers[name] = (
            f"nn.Conv{dims}d(2, 2, {size}, stride={stride}, padding={padding}, dilation={dilation})"
        )
        return add(f"self.{name}({x})")

    layers["m0"] = f"nn.Conv{dims}d(1, 2, {draw.randint(1, 4)})"
    x = add("self.m0(x)")
    for _ in range(draw.randint(1, 5)):
        kind = draw.randrange(4)
        if kind == 0:
            size = draw.randint(1, 3)
            stride = draw.randint(1, 2)
            x = add(f"F.avg_pool{dims}d({x}, {size}, {stride}, ceil_mode={draw.random() < 0.3})")
        elif kind == 1:
            joined = draw.choice(("{0} + {1}", "torch.cat([{0}, {1}], 1)[:, 1:3]"))
            x = add(joined.format(convolve(x, 1, same=True), convolve(x, 1, same=True)))
        elif kind == 2:
            x = add(draw.choice(("torch.sigmoid({0})", "{0} * 2", "F.softplus({0})")).format(x))
        else:
            x = convolve(x, draw.randint(1, 2), same=False)
    shape = (1, 1, *[side] * dims)
    text = Program(layers, lines, shape)
    model = text.network().double()
    for w in model.parameters():
        w.data.fill_(0.01)
    image = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    output = model(image)[x]
    middle = tuple(size // 2 for size in output.shape[2:])
    output[(0, slice(None), *middle)].sum().backward()
    touched = image.grad[0, 0].nonzero()
    low, high = touched.min(0).values, touched.max(0).values
    footprint = tuple((high - low + 1).tolist())
    # A window that `ceil_mode` adds hangs over the border of what it slides over, wherever that is.
    hangs_over = any("ceil_mode=True" in line for line in lines.values())
    at_border = hangs_over or (low == 0).any() or (high == side - 1).any()
    # With max pooling in its place: the same windows, of which the gradient sees one entry.
    for name, line in lines.items():
        if "avg_pool" in line and draw.random() < 0.5:
            lines[name] = line.replace("avg_pool", "max_pool")
    field = trace_shapes(text.network(), shape)[-1].receptive_field
    if at_border:
        assert all(f >= one for f, one in zip(field, footprint, strict=True)), (field, footprint)
    else:
        assert field == footprint, f"field {field}, footprint {footprint}\n{text}"


def graph_agrees_with_next_functions(seed: int) -> None:
    model, loss = _loss(seed)
    if loss is None:
        return
    graph = autograd_graph(loss, model)

    nodes, edges = [loss.grad_fn], collections.Counter()
    known = {loss.grad_fn: 0}
    for node in nodes:
        for slot, (source, _) in enumerate(node.next_functions):
            if source is not None:
                if source not in known:
                    known[source] = len(nodes)
                    nodes.append(source)
                edges[_name(node), slot, _name(source)] += 1
    assert collections.Counter(node.name for node in graph.nodes) == collections.Counter(
        map(_name, nodes)
    )
    found = graph.nodes
    assert edges == collections.Counter(
        (found[e.target].name, e.slot, found[e.source].name) for e in graph.edges
    )
    named = {id(w): name for name, w in model.named_parameters()}
    leaves = [named.get(id(node.variable)) for node in nodes if _name(node) == "AccumulateGrad"]
    assert sorted(map(str, leaves)) == sorted(str(leaf.parameter) for leaf in graph.leaves)
    assert graph.root.name == _name(loss.grad_fn)
    for node in found:
        consumers = [found[edge.target].depth for edge in graph.edges if edge.source == node.number]
        assert node.depth == max(consumers, default=-1) + 1
        assert [n for n in node.inputs if n is not None] == [
            edge.source for edge in graph.edges if edge.target == node.number
        ]
    assert graph.path().split(" -> ")[-1] == graph.root.op
    for _ in range(2):  # the second time, what was saved has been freed
        graph = autograd_graph(loss, model)
        failure = None
        try:
            loss.backward()
        except RuntimeError as error:
            failure = error
        # torch shows nobody what a write into a view has saved.
        expected = None if any(node.name == "CopySlices" for node in found) else failure is None
        if expected is None and graph.can_backward is False:
            expected = failure is None  # something else stops it for certain
        assert graph.can_backward is expected, (failure, graph.backward_error)


def _name(node) -> str:
    return node.name().rpartition("::")[2]


def _loss(seed: int):
    """Return a network and the loss over some of its values, or ``None`` without a graph."""
    model = program(seed).network()
    torch.manual_seed(seed)
    values = model(program(seed).input())
    picked = random.Random(seed).sample(list(values), k=min(3, len(values)))
    terms = [values[name].pow(2).mean() for name in picked if values[name].requires_grad]
    return model, sum(terms[1:], terms[0]) if terms else None


def report_agrees_with_the_gradients(seed: int) -> None:
    model, loss = _loss(seed)
    if not list(model.parameters()):
        return
    if loss is not None:
        try:
            loss.backward()
        except RuntimeError:  # something saved has changed: the graph's business
            return
    draw = random.Random(seed)
    for w in model.parameters():
        if draw.random() < 0.1:
            w.requires_grad_(False)
        if w.grad is not None and draw.random() < 0.2:
            w.grad *= draw.choice((0.0, 1e-12, 1e12))
    report = gradient_report(model)
    named = dict(model.named_parameters())
    assert [row.name for row in report] == list(named)
    for row, w in zip(report, named.values(), strict=True):
        assert row.shape == tuple(w.shape)
        if w.grad is None:
            assert row.status == ("none" if w.requires_grad else "frozen")
            assert row.norm is None
            continue
        g = w.grad.double()
        expected = (
            "frozen" if not w.requires_grad
            else "nonfinite" if not g.isfinite().all()
            else "ok" if g.any() else "zero"
        )  # fmt: skip
        assert row.status == expected, row
        if not g.isfinite().all():
            continue
        close = partial(math.isclose, rel_tol=1e-4, abs_tol=1e-6 * float(g.abs().max()))
        assert close(row.norm, g.norm().item()), row
        assert close(row.mean, g.mean().item()), row
        assert row.std is None or g.numel() == 1 or close(row.std, g.std().item()), row
        assert row.max_abs == w.grad.abs().max().item(), row
        assert row.zero_fraction == (g == 0).double().mean().item(), row
        weight = w.detach().double().norm().item()
        assert weight == 0 or close(row.weight_ratio, g.norm().item() / weight), row
    grads = [w.grad for w in model.parameters() if w.grad is not None]
    total = torch.nn.utils.get_total_norm([g.double() for g in grads]).item()
    if math.isfinite(total):
        assert math.isclose(report.total_norm, total, rel_tol=1e-5, abs_tol=1e-30)


def updates_agree_with_torch_optim(seed: int) -> None:
    ours = program(seed).network()
    params = list(ours.parameters())
    if not params:
        return
    theirs = copy.deepcopy(ours)
    draw = random.Random(seed)
    lr, decay = 10 ** draw.uniform(-4, 0), draw.choice((0.0, 0.0, 0.01, 0.3))
    betas, eps = (draw.uniform(0, 0.99), draw.uniform(0.5, 0.9999)), 10 ** draw.uniform(-12, -3)
    heavy = {"momentum": draw.uniform(0.1, 0.99), "nesterov": draw.random() < 0.5}
    adam = {"betas": betas, "eps": eps}
    rule, optimizer = draw.choice(
        (
            (sgd_step, torch.optim.SGD),
            (partial(momentum_step, velocities={}, **heavy), partial(torch.optim.SGD, **heavy)),
            (partial(adam_step, state={}, **adam), partial(torch.optim.Adam, **adam)),
            (partial(adamw_step, state={}, **adam), partial(torch.optim.AdamW, **adam)),
        )
    )
    foreach = draw.choice((None, True))
    optimizer = optimizer(theirs.parameters(), lr=lr, weight_decay=decay, foreach=foreach)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draw.randint(1, 12)):
        for mine, other in zip(params, theirs.parameters(), strict=True):
            mine.grad = other.grad = None
            if draw.random() < 0.8:
                mine.grad = torch.randn(mine.shape, generator=generator) * 10 ** draw.uniform(-8, 3)
                other.grad = mine.grad.clone()
        rule(params, lr=lr, weight_decay=decay)
        optimizer.step()
    for mine, other in zip(params, theirs.parameters(), strict=True):
        assert same(mine, other), f"{rule} lr={lr} weight_decay={decay} foreach={foreach}"


CHECKS = (
    trace_agrees_with_the_real_forward,
    trace_fails_where_the_real_forward_fails,
    receptive_field_is_the_footprint_of_the_gradient,
    graph_agrees_with_next_functions,
    report_agrees_with_the_gradients,
    updates_agree_with_torch_optim,
)


def run(check, seed: int) -> None:
    """Run a check; where it fails, say for which seed and program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice on odd settings
        try:
            check(seed)
        except BaseException as error:
            error.add_note(f"{check.__name__}: seed {seed}\n{program(seed)}")
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only", default="", help="checks whose names contain this")
    options = parser.parse_args()
    seeds = range(options.start, options.start + options.count)
    if options.seed is not None:
        seeds = [options.seed]
    torch.set_num_threads(1)
    failed = 0
    for seed in seeds:
        for check in CHECKS:
            if options.only in check.__name__:
                try:
                    run(check, seed)
                except Exception:
                    failed += 1
                    traceback.print_exc(limit=-4)
        program.cache_clear()
    print(f"{len(seeds)} seeds, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

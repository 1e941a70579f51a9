"""Who does what: for each comparison the ways of doing the same work, ours first.

A contender takes the name of a work, imports and prepares what it needs, and returns the call
that is measured.
"""

import io
import tempfile
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.models import model_and_input, model_and_loss, model_with_gradients

Call = Callable[[], object]
Contender = Callable[..., Call]


# Shape trace: (model, x)


def blitz_trace(model, x):
    from blitz_helpers import trace_shapes

    return lambda: trace_shapes(model, tuple(x.shape) if x.is_floating_point() else x)


def torchinfo(model, x):
    import torchinfo

    return lambda: torchinfo.summary(model, input_data=x, verbose=0, device=x.device)


def torchview(model, x):
    from torchview import draw_graph

    return lambda: draw_graph(model, input_data=x, device=x.device.type)


def torchlens(model, x):
    import torchlens

    return lambda: torchlens.trace(model, x)


def meta_forward(model, x):
    model = model.to("meta")
    return lambda: model(torch.empty_like(x, device="meta"))


def fake_forward(model, x):
    from torch._subclasses.fake_tensor import FakeTensorMode

    def forward():
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            return model(mode.from_tensor(x))

    return forward


def real_forward(model, x):
    return lambda: model(x)


# Graph walk: (model, loss)


def blitz_graph(model, loss):
    from blitz_helpers import autograd_graph

    return lambda: autograd_graph(loss, model)


def bare_walk(model, loss):
    def walk():
        seen, todo = set(), [loss.grad_fn]
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += [source for source, _ in node.next_functions if source is not None]
        return len(seen)

    return walk


def walks_of_a_tenth(model, loss):
    tenths = [blitz_graph(*model_and_loss("loop of 100,000 steps")) for _ in range(10)]
    return lambda: [walk() for walk in tenths]


def torchviz(model, loss):
    from torchviz import make_dot

    return lambda: make_dot(loss, dict(model.named_parameters()) if model else None)


def torchviz_saved(model, loss):
    from torchviz import make_dot

    params = dict(model.named_parameters()) if model else None
    return lambda: make_dot(loss, params, show_attrs=True, show_saved=True)


# Drawing: (model, loss). From the loss to the bytes that a page shows, SVG beside SVG and PNG
# beside PNG; ours are folded where large, torchviz's never.


def blitz_svg(model, loss):
    from blitz_helpers import autograd_graph, graph_svg

    return lambda: graph_svg(autograd_graph(loss, model)).encode()


def blitz_figure(model, loss):
    import matplotlib as mpl
    from matplotlib import pyplot

    from blitz_helpers import autograd_graph, plot_graph

    mpl.use("agg")

    def draw():
        figure = plot_graph(autograd_graph(loss, model)).figure
        figure.savefig(io.BytesIO(), format="png")
        pyplot.close(figure)

    return draw


def torchviz_picture(form, model, loss):
    from torchviz import make_dot

    params = dict(model.named_parameters()) if model else None
    return lambda: make_dot(loss, params).pipe(format=form)


# Gradient report and update rules: a model with gradients


def blitz_report(model):
    from blitz_helpers import gradient_report

    return lambda: gradient_report(model)


def norm_of_gradients(model):
    return lambda: [torch.linalg.vector_norm(w.grad) for w in model.parameters()]


def quarter_of_a_step(model, *_):
    """A training step of 8 images; one of 32 takes four times as long, and too much memory."""
    x = torch.randn(8, 3, 224, 224)
    params = list(model.parameters())

    def step():
        model.zero_grad()
        model(x).square().mean().backward()
        with torch.no_grad():
            for w in params:
                w.add_(w.grad, alpha=-1e-9)

    return step


def blitz_sgd(model):
    from blitz_helpers import sgd_step

    params = list(model.parameters())
    return lambda: sgd_step(params, lr=1e-9)


def blitz_adam(model):
    from blitz_helpers import adam_step

    return partial(adam_step, list(model.parameters()), {}, lr=1e-9)


def torch_optim(kind, model, **options):
    return kind(model.parameters(), lr=1e-9, **options).step


sgd, adam = torch.optim.SGD, torch.optim.Adam


# Training: 250 steps of notebook 06's loop


def _batches():
    x, y = torch.rand(4000, 1, 32, 32), torch.randint(10, (4000,))
    return list(zip(x.split(16), y.split(16), strict=True))


def bare_loop(_):
    from blitz_helpers import Network

    batches = _batches()

    def train():
        model = Network()
        params = list(model.parameters())
        for x, y in batches:
            model.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            with torch.no_grad():
                for w in params:
                    w.add_(w.grad, alpha=-0.2)
            loss.item()

    return train


def blitz_fit(_, run=None):
    from blitz_helpers import Network, fit, sgd_step

    batches = _batches()
    return lambda: fit(Network(), batches, partial(sgd_step, lr=0.2), epochs=1, run=run)


def blitz_fit_tracked(_):
    from blitz_helpers import start_run

    manager = start_run(mode="offline", dir=tempfile.mkdtemp())
    run = manager.__enter__()
    call = blitz_fit(None, run=run)
    call.manager = manager  # type: ignore[attr-defined]  # the run is open as long as its call
    return call


def _made(prepare, *contenders):
    return prepare, dict(contenders)


COMPARISONS: dict[str, tuple[Callable[[str], tuple], dict[str, Contender]]] = {
    "trace": _made(
        model_and_input,
        ("blitz_helpers", blitz_trace),
        ("torchinfo", torchinfo),
        ("torchview", torchview),
        ("torchlens", torchlens),
        ("a bare forward on meta", meta_forward),
        ("a forward under FakeTensorMode", fake_forward),
        ("a bare real forward", real_forward),
    ),
    "graph": _made(
        model_and_loss,
        ("blitz_helpers", blitz_graph),
        ("a bare loop over next_functions", bare_walk),
        ("torchviz", torchviz),
        ("torchviz with saved tensors", torchviz_saved),
        ("ten loops of 100,000 steps", walks_of_a_tenth),
        ("a quarter of a training step of 32", quarter_of_a_step),
    ),
    "drawing": _made(
        model_and_loss,
        ("blitz_helpers", blitz_svg),
        ("torchviz with dot", partial(torchviz_picture, "svg")),
    ),
    "figure": _made(
        model_and_loss,
        ("blitz_helpers", blitz_figure),
        ("torchviz with dot, as PNG", partial(torchviz_picture, "png")),
    ),
    "gradients": _made(
        lambda name: (model_with_gradients(name),),
        ("blitz_helpers", blitz_report),
        ("one vector_norm pass over the gradients", norm_of_gradients),
        ("a quarter of a training step of 32", quarter_of_a_step),
    ),
    "sgd": _made(
        lambda name: (model_with_gradients(name),),
        ("blitz_helpers", blitz_sgd),
        ("torch.optim", partial(torch_optim, sgd)),
        ("torch.optim, foreach", partial(torch_optim, sgd, foreach=True)),
        ("torch.optim, fused", partial(torch_optim, sgd, fused=True)),
        ("one vector_norm pass over the gradients", norm_of_gradients),
    ),
    "adam": _made(
        lambda name: (model_with_gradients(name),),
        ("blitz_helpers", blitz_adam),
        ("torch.optim", partial(torch_optim, adam)),
        ("torch.optim, foreach", partial(torch_optim, adam, foreach=True)),
        ("torch.optim, fused", partial(torch_optim, adam, fused=True)),
    ),
    "training": _made(
        lambda name: (name,),
        ("fit", blitz_fit),
        ("fit, tracked", blitz_fit_tracked),
        ("the bare loop", bare_loop),
    ),
}  # fmt: skip

"""The tables of a trace, as text and as HTML, are those in ``tests/golden``.

``pytest tests/test_trace_tables.py --update-golden`` writes them anew; look at what it changes.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blitz_helpers import Network, ShapeError, trace_shapes


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.shrink(F.gelu(self.grow(self.norm(x))))


class Residual(nn.Module):
    """Blocks whose outputs their parent adds up, as transformers do."""

    def __init__(self, blocks, after_each=lambda x: x):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(blocks)
        )
        self.after_each = after_each

    def forward(self, x):
        for i, block in enumerate(self.blocks):
            x = x + block(x)
            if i % 8 == 7:
                x = self.after_each(x)
        return x


class Layers(nn.Module):
    """Layers between which their parent computes something."""

    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(count))

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class Several(nn.Module):
    """Gives a dictionary of lists, and asks for a value."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(3, 4, 3, stride) for stride in (1, 2))

    def forward(self, x):
        if x.sum() > -1e9:
            return {"features": [branch(x) for branch in self.branches], "extra": None}


def nested():
    shared = nn.Linear(4, 4)
    return nn.Sequential(
        shared, nn.Sequential(Block(4), nn.ReLU(), shared), Block(4), Block(4), Block(4)
    )


def deep():
    model = nn.Sequential(nn.Linear(4, 4))
    for _ in range(20):
        model = nn.Sequential(model, nn.ReLU())
    return model


MODELS = {
    "network": (Network, (1, 1, 32, 32)),
    "equal_blocks": (
        lambda: nn.Sequential(nn.Linear(3, 8), *[Block(8) for _ in range(32)], nn.Linear(8, 2)),
        (2, 5, 3),
    ),
    "added_by_the_parent": (lambda: Residual(32), (2, 8)),
    "now_and_then_something_else": (lambda: Residual(32, torch.sin), (2, 8)),
    "two_layers": (lambda: Layers(2), (2, 8)),
    "three_layers": (lambda: Layers(3), (2, 8)),
    "blocks_that_differ": (lambda: nn.Sequential(Block(4), nn.Linear(4, 6), Block(6)), (2, 4)),
    "nested_and_shared": (nested, (2, 4)),
    "deep": (deep, (2, 4)),
    "for_real": (Several, (2, 3, 16, 16)),
    "wide": (
        lambda: nn.Sequential(*[nn.Linear(60_000, 60_000, bias=False) for _ in range(9)]),
        (512, 60_000),
    ),
}


def as_lines(html):
    """Return HTML with each tag of its structure on a line of its own, and no styles."""
    html = re.sub(r' style="[^"]*"', "", html)
    return re.sub(r"(?=<(?:details|summary|tr|/details|/table|div))", "\n", html).strip()


@pytest.mark.parametrize("name", MODELS)
def test_the_tables_are_the_golden_ones(name, assert_golden):
    make, shape = MODELS[name]
    with torch.device("meta" if name == "wide" else "cpu"):
        trace = trace_shapes(make(), shape)
    tables = {"steps": trace, "modules": trace.by_module()}
    for kind, table in tables.items():
        assert str(table) == repr(table)
        assert max(map(len, str(table).splitlines())) <= 100
        assert_golden(f"{name}_{kind}.txt", str(table))
        assert_golden(f"{name}_{kind}.html", as_lines(table._repr_html_()))


def test_a_trace_without_steps_has_a_table_with_a_header_alone():
    with pytest.raises(ShapeError) as caught:
        trace_shapes(nn.Linear(8, 4), (2, 9))
    trace = caught.value.trace
    assert len(trace) == len(trace.by_module()) == 0
    assert str(trace).splitlines()[0].split() == ["module", "op", "output", "shape"]
    assert "<div>36 parameters" in trace._repr_html_()
    assert str(trace_shapes(nn.Identity(), (2, 9)).by_module()).splitlines()[2].split() == [
        "(model)", "Identity", "(2,", "9)"
    ]  # fmt: skip


def test_a_step_shows_itself_in_one_line():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return torch.split(torch.cat([self.conv(x), torch.zeros(1, 2, 6, 6)]), 1)

    assert [str(step) for step in trace_shapes(Padded(), (1, 1, 8, 8))] == [
        "conv: conv2d (1, 1, 8, 8) -> (1, 2, 6, 6), (8 - 3 + 2*0)/1 + 1 = 6",
        "zeros -> (1, 2, 6, 6)",
        "cat (1, 2, 6, 6), (1, 2, 6, 6) -> (2, 2, 6, 6), 1 + 1 = 2",
        "split (2, 2, 6, 6) -> ((1, 2, 6, 6), (1, 2, 6, 6))",
    ]


def test_calls_inside_a_module_that_failed_are_not_shown_inside_the_one_before_it():
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(5, 5))
    )
    with pytest.raises(ShapeError) as caught:
        trace_shapes(model, (2, 4))
    trace = caught.value.trace
    calls = [(call.module, call.depth, call.steps) for call in trace.by_module()]
    assert calls == [("0", 1, slice(0, 1)), ("1.0", 2, slice(1, 2)), ("1.1", 2, slice(2, 3))]
    assert "<details" not in trace._repr_html_() + trace.by_module()._repr_html_()


def test_blocks_fold_across_modules_that_run_nothing():
    layers = [layer for _ in range(3) for layer in (Block(4), nn.Identity())]
    lines = str(trace_shapes(nn.Sequential(*layers), (2, 4))).splitlines()
    assert lines[-2].split()[:6] == ["2", "to", "4", "2", "x", "0"]

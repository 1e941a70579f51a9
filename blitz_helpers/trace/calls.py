"""Calls of modules, and the tables that show them and the steps inside them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from blitz_helpers._tables import scroll_box
from blitz_helpers.trace._folding import CODE_FONT, WIDTH, Branch, Column, Layout, rows_in
from blitz_helpers.trace._nests import shape_text

if TYPE_CHECKING:
    from blitz_helpers.trace._records import ShapeStep


class ModuleCall(NamedTuple):
    """One call of a module: its place in the tree, and the totals of the steps inside it.

    ``steps`` is the slice of the trace's steps that ran inside it.

    >>> from torch import nn
    >>> from blitz_helpers import trace_shapes
    >>> row = trace_shapes(nn.Sequential(nn.Linear(4, 3)), (2, 4)).by_module()[1]
    >>> row.module, row.output_shape, row.num_macs
    ('0', (2, 3), 24)
    """

    module: str
    call: int
    type: str
    depth: int
    output_shape: Any
    num_params: int
    num_macs: int
    steps: slice

    @property
    def name(self) -> str:
        """The path of the module, with the number of the call from the second one on."""
        return (self.module or "(model)") + _again(self)

    @property
    def title(self) -> str:
        """The call in one line."""
        sums = f"{self.num_params:,} params, {self.num_macs:,} MACs"
        return f"{self.name} ({self.type}) {shape_text(self.output_shape)}: {sums}"


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _again(record: ShapeStep | ModuleCall) -> str:
    return f" (call {record.call})" if record.call else ""


def _folded_calls(first: ModuleCall, calls: list[ModuleCall], _rows: object) -> ModuleCall:
    names = dict.fromkeys((calls[0].name, calls[-1].name))
    return calls[-1]._replace(
        module=" to ".join(names),
        call=0,
        type=f"{len(calls)} x {first.module or first.type}",
        num_params=sum(call.num_params for call in calls),
        num_macs=sum(call.num_macs for call in calls),
    )


def _folded_steps(first: ModuleCall, calls: list[ModuleCall], steps: list[ShapeStep]) -> ShapeStep:
    folded = _folded_calls(first, calls, steps)
    return steps[-1]._replace(
        module=folded.module,
        call=0,
        op=folded.type,
        output_shape=folded.output_shape,
        arithmetic=(f"{len(steps)} equal steps",),
        num_params=sum(step.num_params for step in steps),
        num_macs=sum(step.num_macs for step in steps),
    )


_SHAPE = Column("output shape", "<", lambda record: shape_text(record.output_shape), turn=2)
_PARAMS = Column("params", ">", lambda record: _count(record.num_params), optional=True)
_MACS = Column("MACs", ">", lambda record: _count(record.num_macs), optional=True)
_STEPS = Layout(
    (
        Column("module", "<", lambda step: step.module + _again(step), turn=3),
        Column("op", "<", lambda step: step.op, turn=4),
        _SHAPE,
        Column("arithmetic", "<", lambda step: ", ".join(step.sums), optional=True, turn=1),
        _PARAMS,
        _MACS,
        Column(
            "field", ">", lambda step: "x".join(map(str, step.receptive_field or ())), optional=True
        ),
    ),
    alike=lambda step, skip: (
        step.module[skip:], step.op, step.input_shapes, step.output_shape, step.arithmetic,
        step.num_params, step.num_macs,
    ),
    fold=_folded_steps,
)  # fmt: skip
_MODULES = Layout(
    (
        Column("module", "<", lambda call: "  " * call.depth + call.name, turn=3),
        Column("type", "<", lambda call: call.type, turn=4),
        _SHAPE,
        _PARAMS,
        _MACS,
    ),
    alike=lambda call, skip: (
        call.module[skip:], call.type, call.output_shape, call.num_params, call.num_macs
    ),
    fold=_folded_calls,
)  # fmt: skip


def _tree(records: Sequence[Any]) -> tuple[ShapeStep | Branch, ...]:
    """Return what the tracer recorded: steps, and calls with their totals."""
    return _branch(("", 0, "", -1, None, records), 0).items


def _branch(record: Sequence[Any], start: int) -> Branch:
    """Return a call that the tracer recorded, with its totals; ``start`` is its first step."""
    module, number, kind, depth, shape, inside = record
    items: list[ShapeStep | Branch] = []
    params, macs, stop = 0, 0, start
    for one in inside:
        if type(one) is tuple:  # another call
            branch = _branch(one, stop)
            items.append(branch)
            one = branch.call
            stop = one.steps.stop
        else:
            items.append(one)
            stop += 1
        params += one.num_params
        macs += one.num_macs
    steps = slice(start, stop)
    call = ModuleCall(module, number, kind, depth, shape, params, macs, steps)
    return Branch(call, tuple(items))


def _inside_model(records: Sequence[Any]) -> tuple[ShapeStep | Branch, ...]:
    """Return what is inside the model's own call, which is missing after a failure."""
    match tree := _tree(records):
        case (Branch(call=call, items=items),) if not call.depth:
            return items
    return tree


def text_of_steps(records: Sequence[Any], totals: Sequence[str]) -> str:
    """Return the steps as an aligned table, with the totals below."""
    table = _STEPS.text(_inside_model(records))
    return "\n".join([table, *(fill(line, WIDTH) for line in totals)])


def html_of_steps(records: Sequence[Any], totals: Sequence[str]) -> str:
    """Return the same as HTML."""
    from html import escape  # as in `html_table`

    below = "".join(f"<div>{escape(line)}</div>" for line in totals)
    html = f"<div {CODE_FONT}>{_STEPS.html(_inside_model(records))}{below}</div>"
    return scroll_box(html, "Steps of a forward pass")


def by_module(records: Sequence[Any]) -> ModuleTable:
    """Return one row a module call, nested as the modules are."""
    return ModuleTable(_calls_alone(_tree(records)))


def _calls_alone(items: Sequence[Any]) -> tuple[Branch, ...]:
    """Return the branches, with a row for each call in place of its steps."""
    return tuple(
        Branch(call, (call, *_calls_alone(inside)))
        for call, inside in (item for item in items if isinstance(item, Branch))
    )


class ModuleTable(tuple[ModuleCall, ...]):
    """The calls of modules, outer before inner, in the order they began.

    >>> from torch import nn
    >>> from blitz_helpers import trace_shapes
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> [(row.module, row.num_params) for row in trace_shapes(model, (2, 4)).by_module()]
    [('', 15), ('0', 15), ('1', 0)]
    """

    _tree: tuple[Branch, ...]

    def __new__(cls, tree: tuple[Branch, ...]) -> ModuleTable:
        """Return the table of all calls in a tree."""
        table = super().__new__(cls, rows_in(tree))
        table._tree = tree
        return table

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self._tree,)

    def __str__(self) -> str:
        return _MODULES.text(self._tree)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        html = f"<div {CODE_FONT}>{_MODULES.html(self._tree)}</div>"
        return scroll_box(html, "Calls of modules")

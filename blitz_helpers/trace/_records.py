"""The records of a trace: steps, calls of modules, errors, and the tables that show them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch

from blitz_helpers._tables import scroll_box
from blitz_helpers.trace._folding import CODE_FONT, WIDTH, Branch, Column, Layout, rows_in

if TYPE_CHECKING:
    from blitz_helpers.trace._remedies import Remedy


class ShapeStep(NamedTuple):
    """One tensor operation of a forward pass.

    Attributes:
        module: dotted path of the module that was running, ``""`` for the root.
        call: which call of that module it was, from 0.
        op: the operation, under the name that its caller typed.
        input_shapes: shapes of the input tensors, without parameters and buffers.
        output_shape: shape of the output, nested in tuples, lists and dicts as the output is.
        arithmetic: the written-out sums, one for each dimension that the operation computes.
        num_params: the parameters that are used here for the first time.
        num_macs: multiply-accumulates, bias additions not counted.
        receptive_field: input elements that one output position sees, one number for each spatial
            dimension; borders, and the statistics of normalisation layers, aside.
        inputs: numbers of the steps that made its inputs, one for each of ``input_shapes``; -1 for
            an input of the model.
        dtype: dtype of the first tensor in the output; ``None`` for a step that failed.
        nbytes: bytes of the output, for a view as if it were a copy.
        source: file and line of the call.

    >>> from torch import nn
    >>> from blitz_helpers import trace_shapes
    >>> step = trace_shapes(nn.Sequential(nn.Conv2d(1, 6, 3)), (1, 1, 32, 32))[0]
    >>> step.module, step.op, step.output_shape, step.num_params
    ('0', 'conv2d', (1, 6, 30, 30), 60)
    """

    module: str
    call: int
    op: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: Any
    arithmetic: tuple[str, ...]
    num_params: int
    num_macs: int
    receptive_field: tuple[int, ...] | None
    inputs: tuple[int, ...]
    dtype: torch.dtype | None
    nbytes: int
    source: str

    def __str__(self) -> str:
        where = f"{self.module}:" if self.module else ""
        given = ", ".join(map(shape_text, self.input_shapes))
        made = ", ".join([shape_text(self.output_shape), *self.sums])
        return " ".join(filter(None, [where, self.op, given, "->", made]))

    @property
    def sums(self) -> tuple[str, ...]:
        """The written-out sums, each once."""
        return tuple(dict.fromkeys(self.arithmetic))


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


def shape_text(shape: Any) -> str:
    """Return a shape, or a nest of them, as short text."""
    if shape is None:
        return "-"
    if isinstance(shape, dict):
        return "{" + ", ".join(f"{key}: {shape_text(one)}" for key, one in shape.items()) + "}"
    if isinstance(shape, list):
        return "[" + ", ".join(map(shape_text, shape)) + "]"
    if all(isinstance(size, int) for size in shape):
        return str(tuple(shape))
    return "(" + ", ".join(map(shape_text, shape)) + ")"


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


def _branch(record: Sequence[Any], start: int) -> Branch:
    """Return a call that the tracer recorded, with its totals; ``start`` is its first step."""
    module, number, kind, depth, shape, inside = record
    items: list[ShapeStep | Branch] = []
    params, macs, stop = 0, 0, start
    for one in inside:
        if isinstance(one, ShapeStep):
            items.append(one)
            stop += 1
        else:
            branch = _branch(one, stop)
            items.append(branch)
            one = branch.call
            stop = one.steps.stop
        params += one.num_params
        macs += one.num_macs
    steps = slice(start, stop)
    call = ModuleCall(module, number, kind, depth, shape, params, macs, steps)
    return Branch(call, tuple(items))


def _calls_alone(items: Sequence[Any]) -> tuple[Branch, ...]:
    """Return the branches, with a row for each call in place of its steps."""
    return tuple(
        Branch(call, (call, *_calls_alone(inside)))
        for call, inside in (item for item in items if isinstance(item, Branch))
    )


class ShapeTrace(Sequence[ShapeStep]):
    """What a forward pass did to shapes: a sequence of `ShapeStep`, in the order they ran.

    Attributes:
        output_shape: shape of the model's output, nested as the output is; ``None`` if it failed.
        num_params: numbers in all parameters of the model, each counted once.
        num_trainable_params: those of them that require a gradient.
        activation_bytes: bytes of the tensors that the operations made; views and operations in
            place make none.
        ran_for_real: ``None``, or the operation that asked for a value, with its module, file and
            line; the table leaves the file out.

    >>> from torch import nn
    >>> from blitz_helpers import trace_shapes
    >>> trace = trace_shapes(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (2, 4))
    >>> len(trace), trace.path(), trace.num_params, trace.num_macs
    (2, 'input -> linear -> relu', 15, 24)
    """

    def __init__(
        self,
        steps: Sequence[ShapeStep],
        records: Sequence[Any],
        output_shape: Any,
        num_params: int,
        num_trainable_params: int,
        activation_bytes: int,
        ran_for_real: str | None,
    ) -> None:
        self._steps = tuple(steps)
        self._records = tuple(records)
        self.output_shape = output_shape
        self.num_params = num_params
        self.num_trainable_params = num_trainable_params
        self.activation_bytes = activation_bytes
        self.ran_for_real = ran_for_real

    @overload
    def __getitem__(self, index: int) -> ShapeStep: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ShapeStep, ...]: ...
    def __getitem__(self, index: int | slice) -> ShapeStep | tuple[ShapeStep, ...]:
        return self._steps[index]

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def num_macs(self) -> int:
        """Multiply-accumulates of the forward pass, bias additions not counted."""
        return sum(step.num_macs for step in self._steps)

    @cached_property
    def _tree(self) -> tuple[ShapeStep | Branch, ...]:
        """The steps and calls; the totals are computed when first needed."""
        return _branch(("", 0, "", -1, None, self._records), 0).items

    @property
    def _inside_model(self) -> tuple[ShapeStep | Branch, ...]:
        """The steps and calls inside the model's own call, which is missing after a failure."""
        match self._tree:
            case (Branch(call=call, items=items),) if not call.depth:
                return items
        return self._tree

    def path(self) -> str:
        """Return the operations in order: ``"input -> conv2d -> relu -> ..."``."""
        return " -> ".join(["input", *(step.op for step in self._steps)])

    def by_module(self) -> ModuleTable:
        """Return one row a module call, nested as the modules are."""
        return ModuleTable(_calls_alone(self._tree))

    def _totals(self) -> list[str]:
        lines = [
            f"{self.num_params:,} parameters, {self.num_trainable_params:,} trainable; "
            f"{self.num_macs:,} multiply-accumulates; {self.activation_bytes:,} bytes of "
            "activations"
        ]
        if self.ran_for_real:
            # Without the file, which differs from run to run in a notebook.
            lines.append(f"Ran for real: {self.ran_for_real.partition(' at ')[0]}")
        return lines

    def __str__(self) -> str:
        table = _STEPS.text(self._inside_model)
        return "\n".join([table, *(fill(line, WIDTH) for line in self._totals())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape  # as in `html_table`

        totals = "".join(f"<div>{escape(line)}</div>" for line in self._totals())
        html = f"<div {CODE_FONT}>{_STEPS.html(self._inside_model)}{totals}</div>"
        return scroll_box(html, "Steps of a forward pass")


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


class ShapeError(RuntimeError):
    """A forward pass failed on shapes.

    Attributes:
        trace: every step up to the failure.
        step: the step that failed; its ``output_shape`` is ``None``.
        remedies: at most three changes that were tried and work, best first.
        hint: the remedies in words; empty if there are none.

    >>> from blitz_helpers import Network, trace_shapes
    >>> try:
    ...     trace_shapes(Network(), (1, 1, 28, 28))
    ... except ShapeError as error:
    ...     print(error.step.module, len(error.trace), *error.remedies, sep="; ")
    fc1; 7; in_features=400; an input of 30 to 33 pixels a side
    """

    def __init__(
        self,
        message: str,
        trace: ShapeTrace,
        step: ShapeStep,
        remedies: tuple[Remedy, ...],
        hint: str,
    ) -> None:
        super().__init__(message)
        self.trace = trace
        self.step = step
        self.remedies = remedies
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        given = (str(self), self.trace, self.step, self.remedies, self.hint)
        return type(self), given, vars(self)

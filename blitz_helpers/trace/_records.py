"""What a trace found out, and how it shows itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import eq
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch

from blitz_helpers._tables import html_table, text_table

if TYPE_CHECKING:
    from blitz_helpers.trace._remedies import Remedy

Row = tuple[str, ...]
_WIDTH = 100
_UNFOLDED = 40  # rows up to which every block stands open
# JupyterLab's own, where there is one.
_CODE_FONT = 'style="font-family: var(--jp-code-font-family, monospace)"'


class ShapeStep(NamedTuple):
    """One tensor operation of a forward pass.

    Attributes:
        module: dotted path of the module that was running, ``""`` for the root.
        call: which call of that module it was, from 0.
        op: the operation, by the name that its caller typed.
        input_shapes: shapes of the tensors that went in, parameters and buffers left out.
        output_shape: shape of the output, nested in tuples, lists and dicts as the output is.
        arithmetic: the written-out sums, one for each dimension that the operation computes.
        num_params: parameters that are used here first.
        num_macs: multiply-accumulates, bias additions not counted.
        receptive_field: input elements that one output position sees, one number for each spatial
            dimension; borders, and the statistics of normalisation layers, aside.
        inputs: numbers of the steps that made its inputs, one for each of ``input_shapes``; -1 for
            the model's own.
        dtype: dtype of the output, of the first tensor in it; ``None`` for a step that failed.
        nbytes: bytes that the output takes, a view as if it were none.
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
        ins = ", ".join(map(shape_text, self.input_shapes))
        where = f"{self.module}: " if self.module else ""
        sums = "".join(f", {one}" for one in self.sums)
        return f"{where}{self.op} {ins} -> {shape_text(self.output_shape)}{sums}".replace("  ", " ")

    @property
    def sums(self) -> tuple[str, ...]:
        """The written-out sums, each once."""
        return tuple(dict.fromkeys(self.arithmetic))


class ModuleCall(NamedTuple):
    """One call of a module: its place in the tree, and what happened inside it.

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
        """The module's path, and which call of it this is from the second on."""
        again = f" (call {self.call})" if self.call else ""
        return (self.module or "(model)") + again


class _Repeats(NamedTuple):
    """Blocks that only repeat the one before them, and the index of the call that follows."""

    first: ModuleCall
    again: list[ModuleCall]
    stop: int

    @property
    def names(self) -> str:
        """The names of the blocks."""
        begin, end = self.again[0].name, self.again[-1].name
        return begin if begin == end else f"{begin} to {end}"

    @property
    def times(self) -> str:
        """How often they repeat what."""
        return f"{len(self.again)} x {self.first.module or self.first.type}"

    @property
    def steps(self) -> slice:
        """The steps inside them, and those of their parent that follow each."""
        start = self.again[0].steps.start
        return slice(start, self.again[-1].steps.stop + start - self.first.steps.stop)


def _stops(calls: Sequence[ModuleCall]) -> list[int]:
    """Return for each call the index of the first one after it that is not inside it."""
    stops = [0] * len(calls)
    for at in range(len(calls) - 1, -1, -1):
        stop = at + 1
        while stop < len(calls) and calls[stop].depth > calls[at].depth:
            stop = stops[stop]
        stops[at] = stop
    return stops


def _repeats(
    calls: Sequence[ModuleCall], stops: list[int], equal: Callable[[int, int, int], bool]
) -> dict[int, _Repeats]:
    """Return the equal blocks that follow each other, by the index of the first to repeat.

    ``equal`` is asked about the first block, the last one that repeats it, and the one after that.
    """
    found: dict[int, _Repeats] = {}
    at = 0
    while at < len(calls):
        if at in found:
            at = found[at].stop
            continue
        last, following = at, stops[at]
        again = []
        while (
            following < len(calls)
            and calls[following].depth == calls[at].depth
            and equal(at, last, following)
        ):
            again.append(calls[following])
            last, following = following, stops[following]
        if again:
            found[stops[at]] = _Repeats(calls[at], again, following)
        at += 1
    return found


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


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


class _Block(NamedTuple):
    """What happened inside one call of a module."""

    call: ModuleCall
    items: Iterator[Row | _Block]


def _folding_html(
    header: Sequence[str], align: str, items: Iterable[Row | _Block], *, unfolded: bool
) -> str:
    """Return the rows as tables, those of a block inside one that folds away."""
    from html import escape  # as in `html_table`

    parts: list[str] = []
    rows: list[Row] = []

    def flush() -> None:
        if rows:
            parts.append(html_table(header, rows, align))
            rows.clear()

    for item in items:
        if isinstance(item, _Block):
            flush()
            call = item.call
            sums = f"{call.num_params:,} params, {call.num_macs:,} MACs"
            title = f"{call.name} ({call.type}) {shape_text(call.output_shape)}: {sums}"
            body = _folding_html(header, align, item.items, unfolded=unfolded)
            parts.append(
                f'<details style="margin-left: 1em"{" open" * (unfolded or not call.depth)}>'
                f"<summary>{escape(title)}</summary>{body}</details>"
            )
        else:
            rows.append(item)
    flush()
    return "".join(parts)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


_HEADER = ("module", "op", "output shape", "arithmetic", "params", "MACs", "field")
_ALIGN = "<<<<>>>"


def _step_cells(step: ShapeStep) -> Row:
    field = "" if step.receptive_field is None else "x".join(map(str, step.receptive_field))
    return (
        step.module if step.call == 0 else f"{step.module} (call {step.call})",
        step.op,
        shape_text(step.output_shape),
        ", ".join(step.sums),
        _count(step.num_params),
        _count(step.num_macs),
        field,
    )


class ShapeTrace(Sequence[ShapeStep]):
    """What a forward pass did to shapes: a sequence of `ShapeStep`, in the order they ran.

    Attributes:
        output_shape: shape of the model's output, nested as the output is; ``None`` if it failed.
        num_params: numbers in all parameters of the model, each counted once.
        num_trainable_params: those of them that require a gradient.
        activation_bytes: bytes of the tensors that the operations made; views and operations in
            place make none.
        ran_for_real: ``None``, or which operation asked for a value, in which module, in which file
            and on which line; the table leaves the file out.

    >>> from torch import nn
    >>> from blitz_helpers import trace_shapes
    >>> trace = trace_shapes(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (2, 4))
    >>> len(trace), trace.path(), trace.num_params, trace.num_macs
    (2, 'input -> linear -> relu', 15, 24)
    """

    def __init__(
        self,
        steps: Sequence[ShapeStep],
        calls: Sequence[tuple[Any, ...]],
        output_shape: Any,
        num_params: int,
        num_trainable_params: int,
        activation_bytes: int,
        ran_for_real: str | None,
    ) -> None:
        self._steps = tuple(steps)
        self._unsummed_calls = tuple(calls)
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
    def _calls(self) -> tuple[ModuleCall, ...]:
        """The calls of modules, outer before inner, summed up when first looked at."""
        calls = []
        for path, call, kind, depth, shape, steps in self._unsummed_calls:
            inside = self._steps[steps]
            params = sum([step.num_params for step in inside])
            macs = sum([step.num_macs for step in inside])
            calls.append(ModuleCall(path, call, kind, depth, shape, params, macs, steps))
        return tuple(calls)

    def path(self) -> str:
        """Return the operations in order: ``"input -> conv2d -> relu -> ..."``."""
        return " -> ".join(["input", *(step.op for step in self._steps)])

    def by_module(self) -> ModuleTable:
        """Return one row a module call, nested as the modules are."""
        return ModuleTable(self._calls)

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

    def _repeats(self) -> dict[int, _Repeats]:
        """Return the blocks that repeat the one before, step by step."""
        calls = self._calls
        stops = _stops(calls)

        def equal(first: int, last: int, following: int) -> bool:
            one, before, other = calls[first], calls[last], calls[following]
            after = calls[stops[first]].steps.start - one.steps.stop  # steps of their parent
            return (
                other.steps.start - before.steps.stop == after
                and one.num_macs == other.num_macs
                and self._signature(one, after) == self._signature(other, after)
            )

        found = _repeats(calls, stops, equal)
        return {
            at: one
            for at, one in found.items()
            if len(one.again) * (one.first.steps.stop - one.first.steps.start) > 1
        }

    def _signature(self, call: ModuleCall, after: int) -> list[object]:
        """Return what equal blocks have in common, with so many steps after them."""
        skip, end = len(call.module), call.steps.stop
        inside, parents = self._steps[call.steps], self._steps[end : end + after]
        return [
            *[(step.module[skip:], *step[2:8]) for step in inside],
            *[(step.module, *step[2:8]) for step in parents],
        ]

    def _repeats_row(self, repeats: _Repeats) -> Row:
        inside = self._steps[repeats.steps]
        return (
            repeats.names,
            repeats.times,
            shape_text(repeats.again[-1].output_shape),
            f"{len(inside)} equal steps",
            _count(sum(step.num_params for step in inside)),
            _count(sum(step.num_macs for step in inside)),
            _step_cells(inside[-1])[-1],
        )

    def __str__(self) -> str:
        folded = {one.steps.start: one for one in self._repeats().values()}
        rows, at = [], 0
        while at < len(self._steps):
            if at in folded:
                rows.append(self._repeats_row(folded[at]))
                at = folded[at].steps.stop
            else:
                rows.append(_step_cells(self._steps[at]))
                at += 1
        table = _fitted_table(_HEADER, rows, _ALIGN, shrinkable=(3, 2, 0, 1))
        return "\n".join([table, *(fill(line, _WIDTH) for line in self._totals())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape  # as in `html_table`

        stops, repeats = _stops(self._calls), self._repeats()

        def items(calls: slice, steps: slice) -> Iterator[Row | _Block]:
            """Yield the steps, those of a block in a block of their own."""
            index, at = calls.start, steps.start
            while index < calls.stop:
                call = self._calls[index]
                if index in repeats:
                    yield from map(_step_cells, self._steps[at : repeats[index].steps.start])
                    yield self._repeats_row(repeats[index])
                    index, at = repeats[index].stop, repeats[index].steps.stop
                    continue
                yield from map(_step_cells, self._steps[at : call.steps.start])
                inside = items(slice(index + 1, stops[index]), call.steps)
                if call.depth and call.steps.stop - call.steps.start > 1:
                    yield _Block(call, inside)
                else:
                    yield from inside
                index, at = stops[index], call.steps.stop
            yield from map(_step_cells, self._steps[at : steps.stop])

        everything = items(slice(0, len(self._calls)), slice(0, len(self)))
        hidden = sum(one.steps.stop - one.steps.start for one in repeats.values())
        unfolded = len(self) - hidden <= _UNFOLDED
        body = _folding_html(_HEADER, _ALIGN, everything, unfolded=unfolded)
        totals = "".join(f"<div>{escape(line)}</div>" for line in self._totals())
        return f"<div {_CODE_FONT}>{body}{totals}</div>"


def _fitted_table(
    header: Sequence[str], rows: list[Row], align: str, shrinkable: Sequence[int]
) -> str:
    """Return the rows as a table of at most 100 columns, the shrinkable cells cut where needed."""
    filled = [i for i in range(len(header)) if any(row[i] for row in rows) or i < 3]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    excess = sum(widths[i] + 2 for i in filled) - 2 - _WIDTH
    for least in (16, 6):
        for column in shrinkable:
            give = min(max(0, excess), max(0, widths[column] - least))
            widths[column] -= give if column in filled else 0
            excess -= give if column in filled else 0
    cut = [[_clip(row[i], widths[i]) for i in filled] for row in rows]
    return text_table([header[i] for i in filled], cut, "".join(align[i] for i in filled))


@dataclass(frozen=True, repr=False)
class ModuleTable(Sequence[ModuleCall]):
    """The calls of modules, outer before inner, in the order they began.

    >>> from torch import nn
    >>> from blitz_helpers import trace_shapes
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> [(row.module, row.num_params) for row in trace_shapes(model, (2, 4)).by_module()]
    [('', 15), ('0', 15), ('1', 0)]
    """

    calls: tuple[ModuleCall, ...]

    @overload
    def __getitem__(self, index: int) -> ModuleCall: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ModuleCall, ...]: ...
    def __getitem__(self, index: int | slice) -> ModuleCall | tuple[ModuleCall, ...]:
        return self.calls[index]

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[ModuleCall]:
        return iter(self.calls)

    def _repeats(self) -> dict[int, _Repeats]:
        """Return the blocks that repeat the one before, module by module."""
        stops = _stops(self.calls)

        def equal(first: int, last: int, following: int) -> bool:
            lengths = stops[last] - last, stops[following] - following
            one, other = (self._signature(at, stops[at]) for at in (last, following))
            return lengths[0] == lengths[1] and all(map(eq, one, other))

        found = _repeats(self.calls, stops, equal)
        return {at: one for at, one in found.items() if one.stop - at > 1}

    def _signature(self, at: int, stop: int) -> Iterator[object]:
        """Yield what equal blocks have in common."""
        skip = len(self.calls[at].module)
        for call in self.calls[at:stop]:
            yield (call.module[skip:], call.type, *call[4:7])

    def __str__(self) -> str:
        repeats = self._repeats()
        rows: list[Row] = []
        at = 0
        while at < len(self.calls):
            indent = "  " * self.calls[at].depth
            if at in repeats:
                cells, at = _module_repeats_row(repeats[at]), repeats[at].stop
            else:
                cells, at = _module_cells(self.calls[at]), at + 1
            rows.append((indent + cells[0], *cells[1:]))
        return _fitted_table(_MODULE_HEADER, rows, _MODULE_ALIGN, shrinkable=(2, 0, 1))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        stops, repeats = _stops(self.calls), self._repeats()

        def items(at: int, stop: int) -> Iterator[Row | _Block]:
            """Yield the modules, those inside another in its block."""
            while at < stop:
                if at in repeats:
                    yield _module_repeats_row(repeats[at])
                    at = repeats[at].stop
                    continue
                if stops[at] - at > 1:
                    yield _Block(self.calls[at], items(at + 1, stops[at]))
                else:
                    yield _module_cells(self.calls[at])
                at = stops[at]

        everything = items(0, len(self))
        hidden = sum(one.stop - at for at, one in repeats.items())
        unfolded = len(self) - hidden <= _UNFOLDED
        body = _folding_html(_MODULE_HEADER, _MODULE_ALIGN, everything, unfolded=unfolded)
        return f"<div {_CODE_FONT}>{body}</div>"


_MODULE_HEADER = ("module", "type", "output shape", "params", "MACs")
_MODULE_ALIGN = "<<<>>"


def _module_cells(call: ModuleCall) -> Row:
    return (
        call.name,
        call.type,
        shape_text(call.output_shape),
        _count(call.num_params),
        _count(call.num_macs),
    )


def _module_repeats_row(repeats: _Repeats) -> Row:
    return (
        repeats.names,
        repeats.times,
        shape_text(repeats.again[-1].output_shape),
        _count(sum(call.num_params for call in repeats.again)),
        _count(sum(call.num_macs for call in repeats.again)),
    )


class ShapeError(RuntimeError):
    """A forward pass failed on shapes.

    Attributes:
        trace: every step up to the failure.
        step: the one that failed; its ``output_shape`` is ``None``.
        remedies: the changes that were tried and work, best first, at most three.
        hint: the same in words; empty where none was found.

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

"""What a trace found out, and how it shows itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import Any, NamedTuple, overload

from blitz_helpers._tables import html_table, text_table

_WIDTH = 100
_UNFOLDED = 40  # steps up to which every block stands open


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
        source: file and line of the call.
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
    """

    module: str
    call: int
    type: str
    depth: int
    output_shape: Any
    num_params: int
    num_macs: int
    steps: slice


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


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


_HEADER = ("module", "op", "output shape", "arithmetic", "params", "MACs", "field")
_ALIGN = "<<<<>>>"


def _step_cells(step: ShapeStep) -> tuple[str, ...]:
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
    """

    def __init__(
        self,
        steps: Sequence[ShapeStep],
        calls: Sequence[ModuleCall],
        output_shape: Any,
        num_params: int,
        num_trainable_params: int,
        activation_bytes: int,
        ran_for_real: str | None,
    ) -> None:
        self._steps = tuple(steps)
        self._calls = tuple(calls)
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

    def _repeats(self) -> dict[int, tuple[int, tuple[str, ...]]]:
        """Return where blocks begin that only repeat the one before: their end, and one row."""
        starts = {
            (call.depth, call.steps.start): call
            for call in self._calls
            if call.steps.stop - call.steps.start > 1
        }
        repeats: dict[int, tuple[int, tuple[str, ...]]] = {}
        done = -1
        for (depth, start), first in starts.items():
            if start < done:
                continue
            last, count = first, 0
            while following := starts.get((depth, last.steps.stop)):
                if self._signature(following) != self._signature(first):
                    break
                last, count = following, count + 1
            if count:
                begin, done = first.steps.stop, last.steps.stop
                inside = self._steps[begin:done]
                more = starts[depth, begin].module
                cells = (
                    more if count == 1 else f"{more} to {last.module}",
                    f"{count} x {first.module or first.type}",
                    shape_text(last.output_shape),
                    f"{done - begin} equal steps",
                    _count(sum(step.num_params for step in inside)),
                    _count(sum(step.num_macs for step in inside)),
                    "",
                )
                repeats[begin] = done, cells
        return repeats

    def _signature(self, call: ModuleCall) -> list[object]:
        """Return what equal blocks have in common."""
        skip, steps = len(call.module), self._steps[call.steps]
        return [(step.module[skip:], *step[2:8]) for step in steps]

    def __str__(self) -> str:
        repeats = self._repeats()
        rows, at = [], 0
        while at < len(self._steps):
            if at in repeats:
                at, cells = repeats[at]
                rows.append(cells)
            else:
                rows.append(_step_cells(self._steps[at]))
                at += 1
        table = _fitted_table(_HEADER, rows, _ALIGN, shrinkable=(3, 2, 0, 1))
        return "\n".join([table, *(fill(line, _WIDTH) for line in self._totals())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        blocks: dict[int, list[ModuleCall]] = {}
        for call in self._calls:
            if call.depth and call.steps.stop - call.steps.start > 1:
                blocks.setdefault(call.steps.start, []).append(call)
        body = self._html(0, len(self._steps), blocks, self._repeats())
        return body + "".join(f"<div>{escape(line)}</div>" for line in self._totals())

    def _html(
        self,
        at: int,
        stop: int,
        blocks: dict[int, list[ModuleCall]],
        repeats: dict[int, tuple[int, tuple[str, ...]]],
    ) -> str:
        """Return the steps as tables, those of a block inside one that folds away."""
        parts: list[str] = []
        rows: list[tuple[str, ...]] = []

        def flush() -> None:
            if rows:
                parts.append(html_table(_HEADER, rows, _ALIGN))
                rows.clear()

        while at < stop:
            if at in repeats:
                at, cells = repeats[at]
                rows.append(cells)
            elif blocks.get(at):
                call = blocks[at].pop(0)
                flush()
                sums = f"{call.num_params:,} parameters, {call.num_macs:,} multiply-accumulates"
                title = f"{call.module} ({call.type}) {shape_text(call.output_shape)}: {sums}"
                inside = self._html(at, call.steps.stop, blocks, repeats)
                parts.append(
                    f'<details style="margin-left: 1em"{" open" * (len(self) <= _UNFOLDED)}>'
                    f"<summary>{escape(title)}</summary>{inside}</details>"
                )
                at = call.steps.stop
            else:
                rows.append(_step_cells(self._steps[at]))
                at += 1
        flush()
        return "".join(parts)


def _fitted_table(
    header: Sequence[str], rows: list[tuple[str, ...]], align: str, shrinkable: Sequence[int]
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
    """The calls of modules, outer before inner, in the order they began."""

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

    def _rows(self, indent: str) -> list[tuple[str, ...]]:
        return [
            (
                indent * call.depth
                + (call.module or "(model)")
                + (f" (call {call.call})" if call.call else ""),
                call.type,
                shape_text(call.output_shape),
                _count(call.num_params),
                _count(call.num_macs),
            )
            for call in self.calls
        ]

    def __str__(self) -> str:
        return _fitted_table(_MODULE_HEADER, self._rows("  "), "<<<>>", shrinkable=(2, 0, 1))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(_MODULE_HEADER, self._rows("\u2003"), "<<<>>")


_MODULE_HEADER = ("module", "type", "output shape", "params", "MACs")


class ShapeError(RuntimeError):
    """A forward pass failed on shapes.

    Attributes:
        trace: every step up to the failure.
        step: the one that failed; its ``output_shape`` is ``None``.
        hint: what to change.
    """

    def __init__(self, message: str, trace: ShapeTrace, step: ShapeStep, hint: str) -> None:
        super().__init__(message)
        self.trace = trace
        self.step = step
        self.hint = hint

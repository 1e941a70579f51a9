"""The records of a trace: its steps, the trace as a whole, and the error of one that failed."""

# Without `from __future__ import annotations`: a named tuple would compile each text of a type.

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch

from blitz_helpers.trace._nests import shape_text

if TYPE_CHECKING:
    from blitz_helpers.trace.calls import ModuleTable
    from blitz_helpers.trace.remedies import Remedy


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

    def path(self) -> str:
        """Return the operations in order: ``"input -> conv2d -> relu -> ..."``."""
        return " -> ".join(["input", *(step.op for step in self._steps)])

    def by_module(self) -> "ModuleTable":
        """Return one row a module call, nested as the modules are."""
        from blitz_helpers.trace.calls import by_module  # only who looks at a trace needs it

        return by_module(self._records)

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
        from blitz_helpers.trace.calls import text_of_steps

        return text_of_steps(self._records, self._totals())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from blitz_helpers.trace.calls import html_of_steps

        return html_of_steps(self._records, self._totals())


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
        remedies: "tuple[Remedy, ...]",
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

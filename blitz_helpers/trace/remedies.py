"""A remedy, as users see it. The code that makes its changes is loaded when it runs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from blitz_helpers.trace._guard import StateGuard

if TYPE_CHECKING:
    from blitz_helpers.trace._changes import Change

_SEED = 0


@dataclass(frozen=True, repr=False)
class Remedy:
    """One or two changes that were tried and make the forward pass work.

    >>> import torch
    >>> from blitz_helpers import ShapeError, trace_shapes
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2))
    >>> try:
    ...     trace_shapes(model, (1, 1, 4, 4))
    ... except ShapeError as error:
    ...     print(error.remedies[0], tuple(error.remedies[0].run(model, (1, 1, 4, 4)).shape))
    in_features=16 (1, 2)
    """

    changes: tuple[Change, ...]
    text: str

    @property
    def kind(self) -> Literal["input", "layer", "code"]:
        """The kind of the first change: to an input, a layer, or the code of a forward."""
        return self.changes[0].kind  # type: ignore[return-value]  # one of the three

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Remedy({self.text!r})"

    def run(self, model: nn.Module, /, *inputs: Any, **kwargs: Any) -> Any:
        """Return the output of the real forward pass with the changes made.

        It takes the arguments of `trace_shapes`, and changes none of them: the changes are made on
        a copy of the model. New weights and inputs come from a fixed seed.

        Raises:
            ValueError: the model runs another operation where its code should be changed.
        """
        from blitz_helpers.trace._changes import Editing, changed_inputs, changed_model
        from blitz_helpers.trace._inputs import is_shape

        args, named = changed_inputs(self.changes, (inputs, kwargs))
        tensor = next((t for t in (*model.parameters(), *model.buffers())), None)
        device = torch.device("cpu") if tensor is None else tensor.device
        generator = torch.Generator().manual_seed(_SEED)
        real = [
            torch.randn(value, generator=generator).to(device) if is_shape(value) else _own(value)
            for value in args
        ]
        named = {name: _own(value) for name, value in named.items()}
        editing: Any = Editing(self.changes)
        with StateGuard(), changed_model(model, self.changes, data=True) as copied, editing:
            return copied(*real, **named)


def _own(value: Any) -> Any:
    """Return a copy of an input, so that the model cannot write to the original."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    try:
        return copy.deepcopy(value)
    except Exception:  # it cannot be copied
        return value

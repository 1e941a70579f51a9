"""A remedy, as whoever caught a failure meets it. What makes its changes is loaded when it runs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from blitz_helpers.trace._guard import global_state_kept

if TYPE_CHECKING:
    from blitz_helpers.trace._changes import Change

_SEED = 0


@dataclass(frozen=True, repr=False)
class Remedy:
    """One or two changes that were tried and make the forward pass go through.

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
        """What is changed first: an input, a layer, or the code of a forward."""
        return self.changes[0].kind  # type: ignore[return-value]  # one of the three

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Remedy({self.text!r})"

    def run(self, model: nn.Module, /, *inputs: Any, **kwargs: Any) -> Any:
        """Return the output of the real forward pass with the changes made.

        It takes what `trace_shapes` took, and leaves everything that it was given as it is: the
        changes are made on a copy. New weights and inputs come from a fixed seed.

        Raises:
            ValueError: another operation stands where the code is to be changed.
        """
        from blitz_helpers.trace._changes import Editing, changed_inputs, changed_model, is_shape

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
        with global_state_kept(), changed_model(model, self.changes, data=True) as copied, editing:
            return copied(*real, **named)


def _own(value: Any) -> Any:
    """Return a copy of an input, so that nobody writes into what was given."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    try:
        return copy.deepcopy(value)
    except Exception:  # what cannot be copied is handed on
        return value

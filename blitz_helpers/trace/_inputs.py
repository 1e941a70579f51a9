"""The stand-ins that a model gets for its inputs, their names, and the samples of `vmap`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from blitz_helpers._torch import functorch
from blitz_helpers.trace._answers import Answers
from blitz_helpers.trace._field import input_origin, known_origin, set_origin
from blitz_helpers.trace._layout import without_data
from blitz_helpers.trace._nests import mapped, shape_of
from blitz_helpers.trace._op import Misfit
from blitz_helpers.trace._survivors import note_made

Argument = int | str  # a position or a keyword


class Inputs:
    """Makes stand-ins for the inputs of a model."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.tensors: list[tuple[Argument, tuple[int, ...], torch.dtype]] = []
        self._stand_ins: dict[int, Tensor] = {}

    def taken(self, argument: int | str, value: Any) -> Any:
        """Return the stand-in for one argument of the model."""
        if isinstance(argument, int) and is_shape(value):
            tensor = self.answers.of_shape(tuple(map(int, value)))
            return self._arrived(argument, tensor, self.answers.device)
        if isinstance(value, Tensor):
            return self._stand_in(argument, value)
        if type(value) in (type(iter([])), type(iter(()))):
            return iter([self.taken(str(argument), one) for one in copy.copy(value)])
        if isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
            raise ValueError(
                f"Input {argument} is a {type(value).__name__}, which the trace would use up. "
                "Pass a list, or iter() of a list."
            )
        return mapped(lambda tensor: self._stand_in(argument, tensor), value)

    def _stand_in(self, argument: Argument, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._stand_ins:  # it may be passed twice
            made = self.answers.instead_of(tensor)
            self._stand_ins[id(tensor)] = self._arrived(argument, made, tensor.device)
        return self._stand_ins[id(tensor)]

    def _arrived(self, argument: Argument, tensor: Tensor, device: torch.device) -> Tensor:
        """Record that a tensor is an input."""
        set_origin(tensor, input_origin(device, tensor.dim(), len(self.tensors)))
        tensor._blitz_step = -1  # type: ignore[attr-defined]  # as an origin, beside it
        note_made(tensor)
        self.tensors.append((argument, shape_of(tensor), tensor.dtype))
        return tensor

    def names(self, model: nn.Module) -> dict[Argument, str]:
        """Return the names that the model gives its arguments."""
        names: dict[Argument, str] = {}
        for argument, _, _ in self.tensors:
            names[argument] = argument if isinstance(argument, str) else f"number {argument}"
        if not isinstance(model, torch.jit.ScriptModule):
            for place, parameter in enumerate(inspect.signature(model.forward).parameters.values()):
                if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
                    break
                names[place] = parameter.name
        return names


def is_shape(value: Any) -> bool:
    """Return whether a value is a tuple of whole numbers, which stands for a tensor."""
    # `int` first: an abstract class takes long to ask.
    return isinstance(value, tuple) and all(isinstance(size, (int, Integral)) for size in value)


def give_past(tensor: Tensor) -> None:
    """Give a sample of `vmap` the origin of its batch."""
    if known_origin(tensor) is None and functorch.is_batchedtensor(tensor):
        batch = functorch.get_unwrapped(tensor)
        give_past(batch)
        origin = known_origin(batch)
        if origin is not None:
            dim = functorch.maybe_get_bdim(tensor)
            set_origin(tensor, origin._replace(dims=origin.dims[:dim] + origin.dims[dim + 1 :]))
            tensor._blitz_step = getattr(batch, "_blitz_step", None)  # type: ignore[attr-defined]  # beside its origin


def outliving(misfit: Misfit, arguments: Any) -> Any:
    """Return arguments that can be used after `vmap` has ended, and mend the misfit's tensors."""
    twins: dict[int, Tensor] = {}

    def twin(tensor: Tensor) -> Tensor:
        if not functorch.is_functorch_wrapped_tensor(tensor):
            return tensor
        if id(tensor) not in twins:
            twins[id(tensor)] = made = without_data(tensor)
            made.__dict__.update(tensor.__dict__)
        return twins[id(tensor)]

    misfit.tensor = None if misfit.tensor is None else twin(misfit.tensor)
    misfit.others = tuple(map(twin, misfit.others))
    return mapped(twin, arguments)

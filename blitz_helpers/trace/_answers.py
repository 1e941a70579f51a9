"""What an operation gives, on tensors without data where there are no values."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blitz_helpers._torch import parse_to
from blitz_helpers.trace._callers import calling_line
from blitz_helpers.trace._field import (
    Origin,
    input_origin,
    known_origin,
    set_origin,
)
from blitz_helpers.trace._guard import StateGuard
from blitz_helpers.trace._layout import META, without_data
from blitz_helpers.trace._nests import mapped, shape_of
from blitz_helpers.trace._op import Op, vmapped
from blitz_helpers.trace._operations import (
    name_of,
)
from blitz_helpers.trace._standins import (
    has_values,
    is_strided,
    stripped,
)
from blitz_helpers.trace._survivors import note_made

if TYPE_CHECKING:
    pass


from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from torch.overrides import TorchFunctionMode

from blitz_helpers.trace import ops as _registered  # noqa: F401  # fills the registry
from blitz_helpers.trace._layout import new
from blitz_helpers.trace._operations import (
    FACTORIES,
    LIKE,
    MOVES,
    SET_DATA,
    SIZED_FACTORIES,
    VALUE_QUESTIONS,
)
from blitz_helpers.trace._standins import (
    SMALL_INTEGERS,
    SMALL_NUMBERS,
    is_stale,
)

if TYPE_CHECKING:
    pass


class NeedsValues(BaseException):
    """The forward pass asked for a value. Not an `Exception`, so that no model catches it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WrongDeviceError(ValueError):
    """Tensors on several devices meet."""


# Operations between tensors on several devices that torch allows.
_ACROSS_DEVICES = {"getitem", "setitem", "to", "copy_", "type_as", "index_put_", "where"}


class Answers(TorchFunctionMode):
    """Stands in for inputs, and answers operations; what runs where, its subclass knows."""

    ran_for_real: str | None
    state: StateGuard
    device: torch.device
    muted: bool
    running: list[tuple[str, int, nn.Module | None]]
    given: list[tuple[int | str | None, tuple[int, ...], torch.dtype]]
    argument: int | str | None
    generator: torch.Generator | None
    stand_ins: dict[int, Tensor]

    # Inputs

    def taken(self, argument: int | str, value: Any) -> Any:
        """Return what stands for one argument of the model."""
        self.argument = argument
        if isinstance(argument, int) and _is_shape(value):
            return self.stand_in(value)
        if not isinstance(value, Tensor):
            self.argument = None  # the tensors inside cannot be told apart by it
            return mapped(self.input, value)
        return self.input(value)

    def arrived(self, tensor: Tensor, device: torch.device) -> None:
        """Write down that a tensor is an input."""
        set_origin(tensor, input_origin(device, tensor.dim(), len(self.given)))
        tensor._blitz_step = -1  # type: ignore[attr-defined]  # as an origin, beside it
        note_made((tensor,))
        self.given.append((self.argument, shape_of(tensor), tensor.dtype))

    def stand_in(self, shape: tuple[int, ...]) -> Tensor:
        """Return the float32 tensor that a shape stands for."""
        shape = tuple(map(int, shape))
        if self.ran_for_real:
            tensor = torch.randn(shape, generator=self.generator).to(self.device)
        else:
            tensor = torch.empty(shape, dtype=torch.float32, device=META)
        self.arrived(tensor, self.device)
        return tensor

    def input(self, tensor: Tensor) -> Tensor:
        """Return what stands for an input tensor, so that the input itself is never written to."""
        if id(tensor) in self.stand_ins:  # it was passed twice
            return self.stand_ins[id(tensor)]
        if self.ran_for_real:
            if tensor.is_meta:
                raise ValueError(
                    f"{self.ran_for_real}, and an input on the meta device has no values."
                )
            copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        elif not is_strided(tensor):
            kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
            raise NeedsValues(f"a {kind} input has part of its shape among its values")
        elif tensor.dtype.is_floating_point or tensor.dtype.is_complex or not has_values(tensor):
            copy = without_data(tensor)
        else:
            copy = tensor.clone()
        self.arrived(copy, tensor.device)
        self.stand_ins[id(tensor)] = copy
        return copy

    # Operations

    def device_of(self, tensor: Tensor) -> torch.device:
        """Return the device that the tensor, or what it stands for, is on."""
        origin = known_origin(tensor)
        if origin is not None:
            return origin.device
        return self.device if tensor.is_meta else tensor.device

    def answer(
        self,
        func: Any,
        name: str,
        call: Op | None,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
    ) -> Any:
        """Return what the operation gives, without data where there is none."""
        target = _written_to(name, args, kwargs, tensors)
        theirs = None if target is None else _not_ours(target)
        if self.ran_for_real:
            if theirs is not None:
                self.state.protect(theirs)
            return func(*args, **kwargs)
        if func in VALUE_QUESTIONS:
            if all(map(has_values, tensors)) or not any(t.is_meta or is_stale(t) for t in tensors):
                return func(*args, **kwargs)
            raise self.needs_values(name)
        if target is not None and theirs is not None:
            if func == SET_DATA:
                self.state.protect(target)
                return func(*args, **kwargs)
            if not has_values(target):
                return target  # a parameter, a buffer: its values play no part
            self.state.protect(theirs)
        if func in MOVES:
            return self.move(func, args, kwargs)
        if call is not None:
            call.check()
        in_place = kwargs.get("max_norm") is not None  # an embedding shortens its own rows
        if tensors and not tensors[0].is_meta and not in_place and all(map(has_values, tensors)):
            return self.compute(func, args, kwargs)
        if not tensors and func in FACTORIES:
            return self.make(func, args, kwargs)
        if target is not None and not target.is_meta:
            target._blitz_stale = True  # type: ignore[attr-defined]  # its values are lost now
            self.on_meta(func, args, kwargs)
            return target
        in_place = name.partition(".")[0].endswith("_")
        if call is not None and "out" not in kwargs:
            if not in_place and len(tensors) > 1 and name not in _ACROSS_DEVICES:
                self.check_devices(name, tensors)
            output = call.output()
            if in_place:
                if target is not None and not vmapped() and _alike(target, output):
                    return target
            elif output is not NotImplemented:
                return output
        if func in LIKE:
            return (
                without_data(tensors[0])
                if not kwargs.get("dtype")
                else new(tensors[0].shape, kwargs["dtype"])
            )
        return self.on_meta(func, args, kwargs)

    def compute(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute what small values give."""
        if kwargs.get("generator") is not None:
            kwargs = {**kwargs, "generator": None}
        if torch.is_grad_enabled():
            with torch.no_grad():
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def make(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return a new tensor: with values if it is small."""
        if self.muted:
            return func(*args, **kwargs)  # a lazy module's parameters
        device = kwargs.get("device")
        device = None if device is None else torch.device(device)
        if func in SIZED_FACTORIES:
            size = kwargs.get("size", args)
            if len(size) == 1 and isinstance(size[0], Sequence):
                size = size[0]
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            shape = [int(side) for side in size]
            if prod(shape) > (SMALL_NUMBERS if dtype.is_floating_point else SMALL_INTEGERS):
                output = new(shape, dtype)
                set_origin(output, Origin(device or torch.device("cpu")))
                return output
        if device is not None and device.type == "meta":
            kwargs = {**kwargs, "device": "cpu"}
        output = self.compute(func, args, kwargs)
        if isinstance(output, Tensor):
            actual = device or output.device
            if not has_values(output):
                output = without_data(output)
            set_origin(output, Origin(actual))
        return output

    def move(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """Return a tensor on the device and of the dtype asked for, with small values kept."""
        tensor = args[0]
        source = tensor if has_values(tensor) else stripped(tensor)
        device = self.device_of(tensor)
        dtype, layout = source.dtype, torch.preserve_format
        if func is not torch.Tensor.to:
            wanted = torch.device(func.__name__)
        elif len(args) > 1 and isinstance(args[1], Tensor):
            wanted, dtype = self.device_of(args[1]), args[1].dtype
        else:
            named = {name: value for name, value in kwargs.items() if name != "copy"}
            to = parse_to(*args[1:3], **named)
            wanted, dtype, layout = to[0] or device, to[1] or dtype, to[3] or layout
        with torch.no_grad():
            output = source.to(dtype, memory_format=layout)
            if output is source:
                if wanted == device and not kwargs.get("copy", len(args) > 3):
                    return tensor  # type: ignore[no-any-return]  # it is a tensor
                output = source.clone()
        set_origin(output, (known_origin(tensor) or Origin(device))._replace(device=wanted))
        return output

    def check_devices(self, name: str, tensors: list[Tensor]) -> None:
        """Refuse tensors on several devices, as torch does."""
        device = self.device_of(tensors[0])
        for tensor in tensors:
            if tensor.dim() and self.device_of(tensor) != device:
                module = self.running[-1][0] or "the model"
                raise WrongDeviceError(
                    f"{name} in {module}: an input is on {device}, but the other, or the weight, "
                    f"is on {self.device_of(tensor)}. Move it with .to({str(self.device)!r})."
                )

    def on_meta(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Ask torch's own kernel for tensors without data."""

        def strip_unless_values(tensor: Tensor) -> Tensor:
            keeps_values = has_values(tensor) and not tensor.dtype.is_floating_point
            return tensor if keeps_values else stripped(tensor)

        try:
            with torch.no_grad():
                return func(
                    *mapped(strip_unless_values, args),
                    **mapped(strip_unless_values, _on_meta_device(kwargs)),
                )
        except (NotImplementedError, RuntimeError) as first:
            try:
                with torch.no_grad():
                    return func(
                        *mapped(stripped, args), **mapped(stripped, _on_meta_device(kwargs))
                    )
            except NotImplementedError:
                raise self.needs_values(name_of(func)) from first

    def needs_values(self, name: str) -> NeedsValues:
        """Return what says which operation asked for a value, in which module, on which line."""
        path = self.running[-1][0]
        where = f"module {path!r}" if path else "the model"
        return NeedsValues(f"{name} asks for a value in {where} at {calling_line()}")


def _not_ours(tensor: Tensor) -> Tensor | None:
    """Return the tensor whose memory this one shows, unless the trace made it."""
    owner = tensor if tensor._base is None else tensor._base
    return owner if known_origin(owner) is None else None


def _written_to(
    name: str, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]
) -> Tensor | None:
    """Return the tensor that the operation writes to, if it does."""
    if isinstance(kwargs.get("out"), Tensor):
        return kwargs["out"]  # type: ignore[no-any-return]  # it is a tensor
    name = name.partition(".")[0]  # of "add_.Tensor", as exported programs spell it
    if name[-1] == "_" or name in ("setitem", "set") or kwargs.get("inplace"):
        return tensors[0] if tensors else None
    return None


def _alike(tensor: Tensor, output: Any) -> bool:
    """Whether an operation that gives ``output`` changes only the values of ``tensor`` in place."""
    return (
        isinstance(output, Tensor)
        and output.dtype == tensor.dtype
        and output.shape == tensor.shape
        and output.stride() == tensor.stride()
    )


def _on_meta_device(kwargs: dict[str, Any]) -> dict[str, Any]:
    if "device" in kwargs:
        return {**kwargs, "device": META}
    return kwargs


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, Integral) for size in value)

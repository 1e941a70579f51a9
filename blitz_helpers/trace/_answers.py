"""The results of operations: tensors without data, or real ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from blitz_helpers._torch import parse_to
from blitz_helpers.trace import ops as _registered  # noqa: F401  # fills the registry
from blitz_helpers.trace._field import Origin, known_origin, origin_of, set_origin
from blitz_helpers.trace._guard import StateGuard
from blitz_helpers.trace._layout import META, new, without_data
from blitz_helpers.trace._modules import script_without_data
from blitz_helpers.trace._nests import mapped
from blitz_helpers.trace._op import Op, vmapped
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
    NoValuesError,
    has_values,
    is_stale,
    is_strided,
    stripped,
)

_SEED = 0
# Operations between tensors on several devices that torch allows.
_ACROSS_DEVICES = {"getitem", "setitem", "to", "copy_", "type_as", "index_put_", "where"}
# The operations that need an answer of their own.
_SPECIAL = {
    **dict.fromkeys(FACTORIES, "factory"),
    **dict.fromkeys(LIKE, "like"),
    **dict.fromkeys(MOVES, "move"),
    **dict.fromkeys(VALUE_QUESTIONS, "values"),
    SET_DATA: "set data",
}


class WrongDeviceError(ValueError):
    """An operation got tensors on several devices."""


class Answers:
    """Answers operations with tensors without data, but computes and keeps small values."""

    def __init__(self, device: torch.device, state: StateGuard) -> None:
        self.device = device
        self.state = state
        self.for_real = False
        self.initializes = False  # a lazy module: its new parameters have data

    def of_shape(self, shape: tuple[int, ...]) -> Tensor:
        """Return the float32 tensor that a shape stands for."""
        return new(shape, torch.float32)

    def instead_of(self, tensor: Tensor) -> Tensor:
        """Return the tensor that the model gets for an input, which itself is never written to."""
        if not is_strided(tensor):
            kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
            raise NoValuesError(f"a {kind} input has part of its shape among its values")
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex or not has_values(tensor):
            return without_data(tensor)
        return tensor.clone()

    def run_script(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the output of a scripted module."""
        with torch.no_grad():
            twin = script_without_data(module._c)
            forward = twin._get_method("forward")
            return forward(*mapped(stripped, args), **mapped(stripped, kwargs))

    def answer(
        self,
        func: Any,
        name: str,
        call: Op | None,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
    ) -> Any:
        """Return the output of an operation, with values only if they are small and known.

        Raises:
            NoValuesError: the operation asks for a value that is not known.
        """
        special = _SPECIAL.get(func)
        if special == "values":
            if all(map(has_values, tensors)) or not any(t.is_meta or is_stale(t) for t in tensors):
                return func(*args, **kwargs)
            raise NoValuesError
        target = written_to(name, kwargs, tensors)
        if target is not None and (theirs := not_ours(target)) is not None:
            if special == "set data":
                return self.set_data(target, args[1])
            if not has_values(target):  # a parameter or buffer whose values are not computed
                if not vmapped():
                    with suppress(NoValuesError):
                        _on_meta(func, args, kwargs)
                return target
            self.state.protect(theirs)
        if special == "move":
            return self.move(func, args, kwargs)
        if call is not None:
            call.check()
        known = tensors and not tensors[0].is_meta and all(map(has_values, tensors))
        if known and kwargs.get("max_norm") is None:  # with it, an embedding writes to its weight
            return _computed(func, args, kwargs)
        if special == "factory" and not tensors:
            return self.make(func, args, kwargs)
        if target is not None and not target.is_meta:
            target._blitz_stale = True  # type: ignore[attr-defined]  # its values are lost now
            _on_meta(func, args, kwargs)
            return target
        if call is not None and "out" not in kwargs:
            in_place = target is not None and ends_in_place(name)
            if len(tensors) > 1 and not in_place and name not in _ACROSS_DEVICES:
                self.check_devices(name, tensors)
            output = call.output()
            if in_place:
                if target is not None and _alike(target, output) and not _is_one_for_all(target):
                    return target
            elif output is not NotImplemented:
                return output
        if special == "like":
            dtype = kwargs.get("dtype")
            return new(tensors[0].shape, dtype) if dtype else without_data(tensors[0])
        if target is not None and vmapped() and not _is_one_for_all(target):
            # Stand-ins have the sizes of one sample, so batched tensors of `vmap` must too.
            args = mapped(lambda one: one if one is target else without_data(one), args)
        plain = [tensor.is_meta and not tensor.requires_grad for tensor in tensors]
        if plain and all(plain) and "device" not in kwargs:
            with suppress(NotImplementedError):
                return func(*args, **kwargs)
        return _on_meta(func, args, kwargs)

    def set_data(self, target: Tensor, data: Tensor) -> None:
        """Give a tensor of the model other data, whose values may not be known."""
        known = not data.is_meta or target.is_meta
        if not known and not has_values(target) and _alike(target, data):
            return
        self.state.protect(target)
        if not known:  # memory that is never touched
            target._blitz_stale = True  # type: ignore[attr-defined]  # its values are lost now
            data = torch.empty_strided(
                data.size(), data.stride(), dtype=data.dtype, device=target.device
            )
        target.data = data

    def device_of(self, tensor: Tensor) -> torch.device:
        """Return the device of the tensor, or of the tensor that it stands for."""
        origin = known_origin(tensor)
        if origin is not None:
            return origin.device
        return self.device if tensor.is_meta else tensor.device

    def check_devices(self, name: str, tensors: list[Tensor]) -> None:
        """Refuse tensors on different devices, as torch does."""
        device = self.device_of(tensors[0])
        for tensor in tensors[1:]:
            if self.device_of(tensor) != device and tensor.dim():
                raise WrongDeviceError(
                    f"an input is on {device}, but the other, or the weight, "
                    f"is on {self.device_of(tensor)}. Move it with .to({str(device)!r})."
                )

    def make(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return a new tensor, with values if it is small."""
        if self.initializes:
            return func(*args, **kwargs)
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
        output = _computed(func, args, kwargs)
        if isinstance(output, Tensor):
            actual = device or output.device
            if not has_values(output):
                output = without_data(output)
            set_origin(output, Origin(actual))
        return output

    def move(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """Return a tensor with the device and dtype asked for, keeping small values."""
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


class RealAnswers(Answers):
    """Lets the operations compute, and saves the tensors that they write to."""

    def __init__(self, device: torch.device, state: StateGuard, reason: str) -> None:
        super().__init__(device, state)
        self.for_real = True
        self.reason = reason
        self.generator = torch.Generator().manual_seed(_SEED)

    def of_shape(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device)

    def instead_of(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            raise ValueError(f"{self.reason}, and an input on the meta device has no values.")
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)

    def run_script(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return module._c._get_method("forward")(*args, **kwargs)

    def answer(
        self,
        func: Any,
        name: str,
        call: Op | None,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
    ) -> Any:
        target = written_to(name, kwargs, tensors)
        if target is not None and (theirs := not_ours(target)) is not None:
            self.state.protect(theirs)
        return func(*args, **kwargs)


def not_ours(tensor: Tensor) -> Tensor | None:
    """Return the tensor that owns this one's memory, or ``None`` if the trace made it."""
    owner = tensor if tensor._base is None else tensor._base
    return owner if known_origin(owner) is None else None


def written_to(name: str, kwargs: dict[str, Any], tensors: list[Tensor]) -> Tensor | None:
    """Return the tensor that the operation writes to, or ``None``."""
    if kwargs:
        if isinstance(kwargs.get("out"), Tensor):
            return kwargs["out"]  # type: ignore[no-any-return]  # it is a tensor
        if kwargs.get("inplace"):
            return tensors[0] if tensors else None
    if tensors and (name in ("setitem", "set") or ends_in_place(name)):
        return tensors[0]
    return None


@lru_cache(maxsize=1024)
def ends_in_place(name: str) -> bool:
    """Return whether a name is that of an operation in place, as `add_` and `add_.Tensor` are."""
    return name.partition(".")[0].endswith("_")


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on small values."""
    if kwargs.get("generator") is not None:
        kwargs = {**kwargs, "generator": None}
    with torch.no_grad():
        return func(*args, **kwargs)


def _on_meta(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run torch's kernel for tensors without data.

    Small integers keep their values, unless torch then refuses the call.
    """
    if "device" in kwargs:
        kwargs = {**kwargs, "device": META}
    try:
        with torch.no_grad():
            return func(*mapped(_without_floats, args), **mapped(_without_floats, kwargs))
    except (NotImplementedError, RuntimeError) as first:
        try:
            with torch.no_grad():
                return func(*mapped(stripped, args), **mapped(stripped, kwargs))
        except NotImplementedError:
            raise NoValuesError from first


def _without_floats(tensor: Tensor) -> Tensor:
    keeps_values = has_values(tensor) and not tensor.dtype.is_floating_point
    return tensor if keeps_values else stripped(tensor)


def _is_one_for_all(tensor: Tensor) -> bool:
    """Return whether all samples of `vmap` share a tensor, so that none may write to it."""
    return bool(vmapped()) and not origin_of(tensor).depends


def _alike(tensor: Tensor, output: Any) -> bool:
    """Return whether ``tensor`` can stand for the output: whether only their values may differ."""
    return (
        isinstance(output, Tensor)
        and output.dtype == tensor.dtype
        and output.shape == tensor.shape
        and output.stride() == tensor.stride()
    )

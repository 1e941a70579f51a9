"""The forward pass on tensors without data, each operation seen as its caller typed it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import repeat
from math import prod
from numbers import Integral, Real
from operator import is_
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blitz_helpers._running import follow_modules
from blitz_helpers._threads import WarningIgnored
from blitz_helpers.trace import ops as _registered  # noqa: F401  # fills the registry
from blitz_helpers.trace._callers import TORCH, called_by_torch, calling_line, line_of
from blitz_helpers.trace._field import (
    Origin,
    guessed,
    input_origin,
    known_origin,
    origin_of,
    set_origin,
)
from blitz_helpers.trace._guard import StateGuard, global_state_kept, numpy_state_kept
from blitz_helpers.trace._layout import META, new, without_data
from blitz_helpers.trace._modules import (
    device_of,
    paths_of,
    prepare,
    script_without_data,
    tensors_of,
    tracing,
)
from blitz_helpers.trace._nests import mapped, shape_of, tensors_in
from blitz_helpers.trace._op import Misfit, Op, bind
from blitz_helpers.trace._operations import (
    DEVICE,
    FACTORIES,
    IS_META,
    LIKE,
    MOVES,
    PLAIN_QUESTIONS,
    SET_DATA,
    SIZED_FACTORIES,
    VALUE_QUESTIONS,
    name_of,
)
from blitz_helpers.trace._records import ShapeError, ShapeStep, ShapeTrace
from blitz_helpers.trace._standins import (
    SMALL_INTEGERS,
    SMALL_NUMBERS,
    NoStridesError,
    has_values,
    is_stale,
    is_strided,
    stripped,
)
from blitz_helpers.trace._survivors import SurvivorsDisarmed, note_made
from blitz_helpers.trace._unstrided import macs_of, made_by_torch_nested, nbytes_of

if TYPE_CHECKING:
    from blitz_helpers.trace._failures import Failure
    from blitz_helpers.trace._remedies import Change, Editing

_SEED = 0
_TRIED = WarningIgnored("")  # all that is said while something is only tried


def trace_shapes(model: nn.Module, /, *inputs: Any, **kwargs: Any) -> ShapeTrace:
    """Return what one forward pass of ``model`` does to shapes, step by step.

    Nothing is computed: the pass runs on tensors without data, and the model, the random state and
    torch's global state are afterwards as they were. Only where the model asks for a value (as in
    ``if x.sum() > 0``) does the pass run for real; ``ran_for_real`` then says what asked.

    Args:
        model: any module, on any device, ``meta`` included.
        *inputs: the model's inputs. A tuple of integers stands for a float32 tensor of that shape.
        **kwargs: its keyword inputs, as they are.

    Raises:
        ShapeError: the forward pass fails on shapes. It says where, why, and what to change.
        TypeError: ``model`` is no module.
        ValueError: there is no input, a shape is not of whole numbers from 1, an input is on
            another device than the model, or a model on ``meta`` needs a value.

    An error of the model's own comes through unchanged, with the trace so far as its ``.trace``.

    >>> trace = trace_shapes(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU()), (1, 1, 32, 32))
    >>> trace.path(), trace.output_shape
    ('input -> conv2d -> relu', (1, 6, 30, 30))
    >>> trace[0].arithmetic[0]
    '(32 - 3 + 2*0)/1 + 1 = 30'
    """
    _check_model(model, inputs, kwargs)
    with global_state_kept(), SurvivorsDisarmed() as survivors:
        trace = _traced(model, inputs, kwargs)
    if survivors.holders:
        holders = "; ".join(survivors.holders)
        warnings.warn(
            f"After the trace, tensors without data are still held by {holders}. "
            "They raise an error where they are used: remove them before the model runs.",
            stacklevel=2,
        )
    return trace


def _traced(model: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> ShapeTrace:
    """Return the trace of a forward pass that runs for real only if it has to."""
    modules = paths_of(model)
    try:
        return _forward(model, modules, inputs, kwargs, None)
    except _FailedError as failed:
        raise _explained(failed, model, inputs, kwargs, None) from failed.__cause__
    except _NeedsValues as need:
        reason = need.reason
        device = device_of(modules)
        if device.type == "meta":
            raise ValueError(
                f"{reason}, and a model on the meta device has no values. "
                "Use model.to_empty(device='cpu'), with weights, to run it for real."
            ) from None
    with numpy_state_kept:
        try:
            return _forward(model, modules, inputs, kwargs, reason)
        except _FailedError as failed:
            raise _explained(failed, model, inputs, kwargs, reason) from failed.__cause__


def _explained(
    failed: _FailedError,
    model: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    reason: str | None,
) -> ShapeError:
    """Return the error in words, with the remedies that were tried and work."""
    from blitz_helpers.trace import _failures, _proof, _remedies  # only a failure needs them

    def attempt(
        changes: tuple[Change, ...], given: tuple[tuple[Any, ...], dict[str, Any]]
    ) -> ShapeTrace | Failure | None:
        args, named = given
        try:
            for change in changes:
                if isinstance(change, _remedies.InputChange | _remedies.Resize):
                    args, named = change.apply_to(args, named)
            with _remedies.changed(model, changes, data=False) as copied:
                modules = paths_of(copied)
                try:
                    return _forward(copied, modules, args, named, reason, changes)
                except _NeedsValues as need:
                    if reason or device_of(modules).type == "meta":
                        return None
                    with numpy_state_kept:
                        return _forward(copied, modules, args, named, need.reason, changes)
        except _FailedError as following:
            return following.failure
        except Exception:  # whatever the model raises, the change is no remedy
            return None

    failure = failed.failure
    with _TRIED:
        remedies = _proof.remedies_for(failure, model, (inputs, kwargs), attempt)
    hint = _failures.hint_of(remedies)
    message = _failures.message(failure, hint)
    return ShapeError(message, failed.trace, failed.step, tuple(remedies), hint)


class _FailedError(ShapeError):
    """A forward pass failed on shapes: not yet explained."""

    failure: Failure


class _NeedsValues(BaseException):
    """The forward pass asked for a value. Not an `Exception`, so that no model catches it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _check_model(model: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not isinstance(model, nn.Module):
        advice = "an instance, as in Network()" if isinstance(model, type) else "an nn.Module"
        raise TypeError(f"model must be an nn.Module, but is {model!r:.60}. Pass {advice}.")
    for value in inputs:
        if isinstance(value, tuple) and value and all(isinstance(size, Real) for size in value):
            for size in value:
                if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
                    raise ValueError(
                        f"{value} is no shape: {size!r} is not a whole number from 1. "
                        "Use a tuple such as (1, 1, 32, 32)."
                    )
    if not inputs and not kwargs and not isinstance(model, torch.jit.ScriptModule):
        wanted = [
            name
            for name, parameter in inspect.signature(model.forward).parameters.items()
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        ]
        if wanted:
            raise ValueError(
                f"There is no input, but forward takes {', '.join(wanted)}. "
                "Pass a shape such as (1, 1, 32, 32), or the tensors themselves."
            )


def _forward(
    model: nn.Module,
    modules: dict[nn.Module, str],
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    ran_for_real: str | None,
    changes: tuple[Change, ...] = (),
) -> ShapeTrace:
    """Run the forward pass once, for real if there is a reason to, with changes to its code."""
    state = StateGuard(modules, (*inputs, *kwargs.values()))
    outer = tracing.tracer
    try:
        tracer = tracing.tracer = _Tracer(modules, state, ran_for_real)
        tracer.edit(changes)
        own_inputs = tuple(tracer.taken(place, value) for place, value in enumerate(inputs))
        own_kwargs = {name: tracer.taken(name, value) for name, value in kwargs.items()}
        if ran_for_real:
            state.protect_values()
        for module in modules:
            prepare(module)
        with follow_modules(tracer), tracer, tracer.editing or nullcontext():
            output = model(*own_inputs, **own_kwargs)
        return tracer.trace(shape_of(output))
    except ShapeError:
        raise
    except Exception as error:
        if not ran_for_real and made_by_torch_nested(error):
            where = line_of(error)
            raise _NeedsValues(
                f"a nested tensor asks for values in the model at {where}"
            ) from error
        failed = _torch_layer_error(error)
        if failed:
            layer, args, tensors = failed
            call = (modules.get(layer, ""), max(tracer.calls_of.get(layer, 1) - 1, 0), layer)
            tracer.running.append(call)  # it was left on the error
            name = type(layer).__name__
            raise tracer.shape_error(name, args, {}, tensors, error, False) from error
        error.trace = tracer.trace(None)  # type: ignore[attr-defined]  # for whoever catches it
        raise
    finally:
        tracing.tracer = outer
        try:
            state.restore()
        except BaseException:  # Ctrl-C in the middle of it
            state.restore()
            raise


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, Integral) for size in value)


# Operations between tensors on several devices that torch allows.
_ACROSS_DEVICES = {"getitem", "setitem", "to", "copy_", "type_as", "index_put_", "where"}


class _Tracer(TorchFunctionMode):
    """Answers the operations of one forward pass, and writes each down."""

    def __init__(
        self, modules: dict[nn.Module, str], state: StateGuard, ran_for_real: str | None
    ) -> None:
        super().__init__()
        self.modules = modules
        self.state = state
        self.ran_for_real = ran_for_real
        self.parameters, buffers = tensors_of(modules)
        own = [*self.parameters, *buffers]
        self.device = own[0].device if own else torch.device("cpu")
        self.own = set(map(id, own))
        self.unused = set(map(id, self.parameters))
        self.lazy = any(map(nn.parameter.is_lazy, own))
        self.generator = torch.Generator().manual_seed(_SEED) if ran_for_real else None
        self.steps: list[ShapeStep] = []
        self.calls: list[tuple[Any, ...] | None] = []
        self.running: list[tuple[str, int, nn.Module | None]] = [("", 0, None)]
        self.begun: list[tuple[int, int]] = []  # for each that is running: its call, its first step
        self.calls_of: dict[nn.Module, int] = {}
        self.thread = get_ident()
        self.activation_bytes = 0
        self.muted = False
        self.stand_ins: dict[int, Tensor] = {}
        self.given: list[tuple[int | str | None, tuple[int, ...], torch.dtype]] = []
        self.argument: int | str | None = None
        self.number = -1
        self.numbers: list[int] = []
        self.editing: Editing | None = None

    def edit(self, changes: tuple[Change, ...]) -> None:
        """Let the code changes among these be made."""
        if changes:
            from blitz_helpers.trace._remedies import Editing

            self.editing = Editing(changes)

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
            raise _NeedsValues(f"a {kind} input has part of its shape among its values")
        elif tensor.dtype.is_floating_point or tensor.dtype.is_complex or not has_values(tensor):
            copy = without_data(tensor)
        else:
            copy = tensor.clone()
        self.arrived(copy, tensor.device)
        self.stand_ins[id(tensor)] = copy
        return copy

    # Modules

    def materialise(self, initialize: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Give a lazy module its parameters; nobody typed the operations that this takes."""
        self.muted = True
        try:
            initialize(*args, **kwargs)
        finally:
            self.muted = False

    def run_script(self, module: Any, *args: Any) -> Any:
        """Run a scripted module as one step: through a copy without data, unless for real."""
        inputs = tensors_in(args)
        with torch._C.DisableTorchFunction():
            if self.ran_for_real:
                output = module._c._get_method("forward")(*args)
            else:
                try:
                    with torch.no_grad():
                        twin = script_without_data(module._c)
                        output = twin._get_method("forward")(*mapped(stripped, args))
                except RuntimeError as error:
                    from blitz_helpers.trace._failures import NEEDS_DATA

                    if NEEDS_DATA.search(str(error)):
                        raise self.needs_values(type(module).__name__) from error
                    name = type(module).__name__
                    raise self.shape_error(name, args, {}, inputs, error, False) from error
        self.record(type(module).__name__, output, None, [*inputs, *module.parameters()])
        return output

    def entered(self, module: nn.Module) -> None:
        """Begin the record of a module's call."""
        path = self.modules.get(module)
        if path is None or get_ident() != self.thread:
            return
        call = self.calls_of.get(module, 0)
        self.calls_of[module] = call + 1
        self.running.append((path, call, module))
        self.begun.append((len(self.calls), len(self.steps)))
        self.calls.append(None)  # until it has ended

    def left(self, module: nn.Module, output: Any) -> None:
        """Complete the record of a module's call."""
        if module not in self.modules or get_ident() != self.thread:
            return
        path, call, _ = self.running.pop()
        place, start = self.begun.pop()
        kind, depth = type(module).__name__, len(self.running) - 1
        steps = slice(start, len(self.steps))
        with torch._C.DisableTorchFunction():  # a question that is not the model's
            shape = shape_of(output)
        self.calls[place] = (path, call, kind, depth, shape, steps)

    # Operations

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer one operation."""
        kwargs = kwargs or {}
        if func in PLAIN_QUESTIONS:
            return func(*args, **kwargs)
        if func == DEVICE:  # a new wrapper each time, so not `is`
            return self.device_of(args[0])
        if func == IS_META:
            return self.device_of(args[0]).type == "meta"
        tensors = tensors_in((*args, *kwargs.values()) if kwargs else args)
        if self.lazy and tensors and nn.parameter.is_lazy(tensors[0]):
            return func(*args, **kwargs)
        self.number = self.number + 1 if self.editing is None else self.editing.number
        name = name_of(func)
        call = bind(func, name, args, kwargs)
        try:
            output = self.answer(func, name, call, args, kwargs, tensors)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            self.refused(name, call, args, kwargs, tensors, error)
            raise
        if name != "set_data":
            self.record(name, tensors[0] if name == "setitem" else output, call, tensors)
        return output

    def refused(
        self,
        name: str,
        call: Op | None,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        error: Exception,
    ) -> None:
        """Raise what an error of an operation stands for, unless it stands for itself."""
        from blitz_helpers.trace._failures import NEEDS_DATA, about_shapes

        if isinstance(error, ShapeError | _WrongDeviceError):
            return
        if not self.ran_for_real and (
            isinstance(error, NoStridesError) or NEEDS_DATA.search(str(error))
        ):
            raise self.needs_values(name) from error
        if not about_shapes(error):
            return
        if call is not None and not isinstance(error, Misfit):
            try:  # torch's words say less than our own
                call.check()
                call.output()
            except Misfit as misfit:
                error = misfit
        raise self.shape_error(name, args, kwargs, tensors, error) from error

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
        if call is not None and not in_place and "out" not in kwargs:
            if len(tensors) > 1 and name not in _ACROSS_DEVICES:
                self.check_devices(name, tensors)
            output = call.output()
            if output is not NotImplemented:
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
            to = torch._C._nn._parse_to(*args[1:3], **named)
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
                raise _WrongDeviceError(
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

    def needs_values(self, name: str) -> _NeedsValues:
        """Return what says which operation asked for a value, in which module, on which line."""
        path = self.running[-1][0]
        where = f"module {path!r}" if path else "the model"
        return _NeedsValues(f"{name} asks for a value in {where} at {calling_line()}")

    # Records

    def record(self, name: str, output: Any, call: Op | None, tensors: list[Tensor]) -> None:
        """Write the step down, and on each tensor that it made where that came from."""
        made = [output] if isinstance(output, Tensor) else tensors_in((output,))
        if not made:
            return
        # Only a pass that runs for real meets sparse and nested tensors.
        strided = not self.ran_for_real or all(map(is_strided, (*made, *tensors)))
        number = len(self.steps)
        # What went in without an origin and comes out again is the model's own, or the user's.
        fresh = [tensor for tensor in made if not any(map(is_, tensors, repeat(tensor)))]
        if len(fresh) == len(made):
            ours = made
        else:
            ours = [*fresh, *[tensor for tensor in made if known_origin(tensor) is not None]]
        note_made(ours)
        for tensor in ours:
            origin = None if call is None or not strided else call.origin(tensor, number)
            if not strided:
                origin = Origin(tensor.device, depends=True)
            elif origin is None:
                known = origin_of(tensor)
                origin = guessed(tensors, tensor, number) if tensors else known
            set_origin(tensor, origin)
        if self.muted or id(made[0]) in self.own or (not tensors and called_by_torch()):
            return
        params = 0
        shapes, sources = [], []
        for tensor in tensors:
            key = id(tensor)
            if key not in self.own:
                if known_origin(tensor) is not None:
                    shapes.append(tuple(tensor.shape) if strided else shape_of(tensor))
                    sources.append(getattr(tensor, "_blitz_step", -1))
            elif key in self.unused:
                self.unused.remove(key)
                params += tensor.numel()
        nbytes = 0
        for tensor in made:
            nbytes += tensor.numel() * tensor.itemsize if strided else nbytes_of(tensor)
        for tensor in fresh:
            if tensor._base is None:
                self.activation_bytes += tensor.nbytes if strided else nbytes_of(tensor)
        for tensor in ours:
            tensor._blitz_step = number  # type: ignore[attr-defined]  # as an origin, beside it
        first = made[0]
        if strided:
            arithmetic, macs = ((), 0) if call is None else (call.sums(first), call.macs(first))
        else:
            arithmetic, macs = (), macs_of(call, first)
        if macs and _vmapped():
            macs *= _vmapped()
        path, turn, _ = self.running[-1]
        field = origin_of(first).receptive_field
        shape = tuple(output.shape) if first is output and strided else shape_of(output)
        self.numbers.append(self.number)
        self.steps.append(
            ShapeStep(
                path, turn, name, tuple(shapes), shape, arithmetic, params, macs, field,
                tuple(sources), first.dtype, nbytes, calling_line(),
            )
        )  # fmt: skip

    def trace(self, output_shape: Any) -> ShapeTrace:
        """Return what was written down so far."""
        parameters = [
            tensor
            for tensor in (tensors_of(self.modules)[0] if self.lazy else self.parameters)
            if not (self.lazy and nn.parameter.is_lazy(tensor))
        ]
        return ShapeTrace(
            self.steps,
            [call for call in self.calls if call is not None],
            output_shape,
            sum([parameter.numel() for parameter in parameters]),
            sum([parameter.numel() for parameter in parameters if parameter.requires_grad]),
            self.activation_bytes,
            self.ran_for_real,
        )

    def shape_error(
        self,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        error: Exception,
        called: bool = True,
    ) -> _FailedError:
        """Return the error that says which step failed, and what of it did not fit."""
        from blitz_helpers.trace._failures import Failure, Given, misfit_of

        path, call, module = self.running[-1]
        ours = [t for t in tensors if known_origin(t) is not None and id(t) not in self.own]
        shapes = tuple([tuple(tensor.shape) for tensor in ours])
        sources = tuple([getattr(tensor, "_blitz_step", -1) for tensor in ours])
        step = ShapeStep(
            path, call, name, shapes, None, (), 0, 0, None, sources, None, 0, calling_line()
        )
        misfit = misfit_of(error, step, module, tensors)
        names = self.argument_names()
        given = [
            Given(argument, names.get(argument, f"number {at}"), shape, dtype)
            for at, (argument, shape, dtype) in enumerate(self.given)
        ]
        sealed = isinstance(module, torch.jit.ScriptModule) or "." in name
        found = _FailedError(str(misfit), self.trace(None), step, (), "")
        found.failure = Failure(
            misfit, step, self.number, called, module, tuple(args), kwargs, given,
            self.steps, self.numbers, sealed,
        )  # fmt: skip
        return found

    def argument_names(self) -> dict[int | str | None, str]:
        """Return what the model calls its arguments."""
        root = next(iter(self.modules))
        names: dict[int | str | None, str] = {a: str(a) for a, _, _ in self.given if a is not None}
        if isinstance(root, torch.jit.ScriptModule):
            return {place: f"number {place}" for place in names}
        parameters = inspect.signature(root.forward).parameters.values()
        for place, parameter in enumerate(parameters):
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                names[place] = parameter.name
            else:
                break
        return {a: f"number {a}" if n.isdigit() else n for a, n in names.items()}


class _WrongDeviceError(ValueError):
    """Tensors on several devices meet."""


def _torch_layer_error(error: Exception) -> tuple[nn.Module, Any, list[Tensor]] | None:
    """Return the layer, its arguments and its input if a check inside one of torch's failed."""
    from blitz_helpers.trace import _failures

    if not isinstance(error, RuntimeError | ValueError | AssertionError | IndexError):
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_code.co_filename.startswith(f"{TORCH}/nn/modules"):
        return None
    frame = trace.tb_frame
    while frame is not None and frame.f_code.co_name != "forward":
        frame = frame.f_back  # type: ignore[assignment]  # ends with None
    if frame is None or not _failures.about_shapes(error):
        return None
    values = frame.f_locals
    args = tuple(value for name, value in values.items() if name != "self")
    return values["self"], args, tensors_in(args)


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


def _vmapped() -> int:
    """Return over how many samples `vmap` runs this operation; 0 outside of it."""
    functorch: Any = torch._C._functorch
    if functorch.maybe_current_level() is None:
        return 0
    count = 1
    for interpreter in functorch.get_interpreter_stack() or ():
        if interpreter.key() == functorch.TransformType.Vmap:
            count *= functorch.CVmapInterpreterPtr(interpreter).batchSize()
    return count


def _on_meta_device(kwargs: dict[str, Any]) -> dict[str, Any]:
    if "device" in kwargs:
        return {**kwargs, "device": META}
    return kwargs

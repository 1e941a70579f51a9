"""The forward pass on tensors without data, each operation seen as its caller typed it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blitz_helpers._running import follow_modules
from blitz_helpers._torch import no_torch_function
from blitz_helpers.trace import ops as _registered  # noqa: F401  # fills the registry
from blitz_helpers.trace._callers import called_by_torch, calling_line, line_of
from blitz_helpers.trace._field import (
    Origin,
    guessed,
    known_origin,
    origin_of,
    set_origin,
)
from blitz_helpers.trace._guard import StateGuard
from blitz_helpers.trace._modules import (
    prepare,
    script_without_data,
    tensors_of,
    tracing,
)
from blitz_helpers.trace._nests import mapped, shape_of, tensors_in
from blitz_helpers.trace._op import Misfit, Op, bind, vmapped
from blitz_helpers.trace._operations import (
    DEVICE,
    IS_META,
    PLAIN_QUESTIONS,
    name_of,
)
from blitz_helpers.trace._records import ShapeError, ShapeStep, ShapeTrace
from blitz_helpers.trace._standins import (
    NoStridesError,
    is_strided,
    stripped,
)
from blitz_helpers.trace._survivors import note_made
from blitz_helpers.trace._unstrided import macs_of, made_by_torch_nested, nbytes_of

if TYPE_CHECKING:
    from blitz_helpers.trace._changes import Change, Editing
    from blitz_helpers.trace._failures import Failure

from blitz_helpers.trace._answers import Answers, NeedsValues, WrongDeviceError

_SEED = 0


class FailedError(ShapeError):
    """A forward pass failed on shapes: not yet explained."""

    failure: Failure


def forward(
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
            tracer.lay_values_aside()
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
            raise NeedsValues(f"a nested tensor asks for values in the model at {where}") from error
        failed = _layer_error(error)
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


class _Tracer(Answers):
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
        # For each module that is running, the steps and the ended calls in it so far, in order.
        self.records: list[list[Any]] = [[]]
        self.running: list[tuple[str, int, nn.Module | None]] = [("", 0, None)]
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
            from blitz_helpers.trace._changes import Editing

            self.editing = Editing(changes)

    def lay_values_aside(self) -> None:
        """Keep the values and gradients of the model's own tensors."""
        parameters, buffers = tensors_of(self.modules)
        for tensor in (*parameters, *buffers):
            if not nn.parameter.is_lazy(tensor):  # that has no values yet
                self.state.protect(tensor)
                if tensor.is_leaf:
                    tensor.grad = None

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
        with no_torch_function():
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
        self.records.append([])

    def left(self, module: nn.Module, output: Any) -> None:
        """Complete the record of a module's call."""
        if module not in self.modules or get_ident() != self.thread:
            return
        path, call, _ = self.running.pop()
        inside = self.records.pop()
        with no_torch_function():  # a question that is not the model's
            shape = shape_of(output)
        depth = len(self.running) - 1
        self.records[-1].append((path, call, type(module).__name__, depth, shape, inside))

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

        if isinstance(error, ShapeError | WrongDeviceError):
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
            except RuntimeError:  # torch's own words, once more
                pass
        raise self.shape_error(name, args, kwargs, tensors, error) from error

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
        went_in = set(map(id, tensors))
        fresh = [tensor for tensor in made if id(tensor) not in went_in]
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
            size = tensor.nbytes if strided else nbytes_of(tensor)
            nbytes += size
            if tensor._base is None and id(tensor) not in went_in:
                self.activation_bytes += size
        for tensor in ours:
            tensor._blitz_step = number  # type: ignore[attr-defined]  # as an origin, beside it
        first = made[0]
        if strided:
            arithmetic, macs = ((), 0) if call is None else (call.sums(first), call.macs(first))
        else:
            arithmetic, macs = (), macs_of(call, first)
        if macs and vmapped():
            macs *= vmapped()
        path, turn, _ = self.running[-1]
        field = origin_of(first).receptive_field
        shape = tuple(output.shape) if first is output and strided else shape_of(output)
        self.numbers.append(self.number)
        step = ShapeStep(
            path, turn, name, tuple(shapes), shape, arithmetic, params, macs, field,
            tuple(sources), first.dtype, nbytes, calling_line(),
        )  # fmt: skip
        self.steps.append(step)
        self.records[-1].append(step)

    def trace(self, output_shape: Any) -> ShapeTrace:
        """Return what was written down so far."""
        parameters = [
            tensor
            for tensor in (tensors_of(self.modules)[0] if self.lazy else self.parameters)
            if not (self.lazy and nn.parameter.is_lazy(tensor))
        ]
        return ShapeTrace(
            self.steps,
            [record for inside in self.records for record in inside],
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
    ) -> FailedError:
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
        found = FailedError(str(misfit), self.trace(None), step, (), "")
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


def _layer_error(error: Exception) -> tuple[nn.Module, Any, list[Tensor]] | None:
    from blitz_helpers.trace._failures import layer_error  # only a failure needs it

    return layer_error(error)

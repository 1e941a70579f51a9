"""Reads from a model, for one picture, its scores, the maps of each layer, and a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blitz_helpers._random_states import global_generators
from blitz_helpers._running import follow_modules, running_modules
from blitz_helpers.trace import ShapeError, trace_shapes
from blitz_helpers.trace._guard import StateGuard


@dataclass(frozen=True)
class Maps:
    """The output of one operation: ``values`` of shape (channels, height, width)."""

    name: str  # of the module and the operation
    values: Tensor


@dataclass(frozen=True)
class Reading:
    """The scores ``(K,)``, the gradient ``(H, W)`` of one of them, and the maps on the way."""

    scores: Tensor
    answer: int  # the class whose score the gradient is of
    gradient: Tensor | None  # `None` if the score has no graph back to the picture
    maps: tuple[Maps, ...]


def read(model: nn.Module, picture: Tensor, answer: int | None = None) -> Reading:
    """Run the model in eval mode on a picture ``(H, W)``, and leave it as it was.

    The gradient is that of the score of ``answer``, by default of the highest score.

    Raises:
        ValueError: the model does not take the picture, or gives no scores ``(1, K)`` for it.
    """
    shape = (1, 1, *picture.shape)
    like = next((w for w in model.parameters() if w.is_floating_point()), torch.zeros(()))
    if like.is_meta:
        raise ValueError("The model has no weights yet: it is on the meta device.")
    image = picture.to(device=like.device, dtype=like.dtype).expand(shape).clone()
    noting = _NoteMaps({module: name for name, module in model.named_modules()}, image)
    with _untouched(model), torch.inference_mode(False), torch.enable_grad():
        image = image.clone().requires_grad_()
        scores = _scores(_output(model, image, noting), shape)
        chosen = int(scores.argmax()) if answer is None else answer
        if not 0 <= chosen < len(scores):
            raise ValueError(
                f"answer={answer} is not one of the model's: use 0 to {len(scores) - 1}."
            )
        gradient = _gradient(scores[chosen], image)
    return Reading(scores.detach().double().cpu(), chosen, gradient, tuple(noting.maps))


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Run the ``with`` block in eval mode, then restore the model and the random states."""
    with StateGuard(model.modules(), global_generators()) as guard:
        for buffer in model.buffers():
            guard.protect(buffer)
        for module in model.modules():
            module.training = False
        yield


def _output(model: nn.Module, image: Tensor, noting: _NoteMaps) -> Any:
    try:
        with follow_modules(_Nobody()), noting:
            return model(image)
    except Exception as error:
        shape = tuple(image.shape)
        raise ValueError(
            f"The model does not take a picture of shape {shape}. Use size= for another size.\n"
            f"{_reason(model, shape, error)}"
        ) from error


def _reason(model: nn.Module, shape: tuple[int, ...], error: Exception) -> Exception:
    """Return the trace's account of a failure, which says what would fit, or the failure."""
    try:
        trace_shapes(model, shape)
    except ShapeError as explained:
        return explained
    except Exception:
        return error  # the trace failed too, so report the model's own error
    return error


def _scores(output: Any, shape: tuple[int, ...]) -> Tensor:
    got = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1 or not output.numel():
        raise ValueError(
            f"For a picture of shape {shape} the model gives {got}, but scores of shape (1, K) are "
            "expected. Wrap it in a module that returns its scores."
        )
    if not output.is_floating_point() or not output.isfinite().all():
        raise ValueError(
            f"The model's scores are not all finite numbers: {output.flatten()[:10].tolist()}. "
            "Use one that has not diverged."
        )
    return output[0]


def _gradient(score: Tensor, image: Tensor) -> Tensor | None:
    if not score.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(score, image, allow_unused=True)
    return None if gradient is None else gradient[0, 0].double().cpu()


class _Nobody:
    """A follower that does nothing: `running_modules` works only while something follows."""

    def entered(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        pass

    def left(self, module: nn.Module, output: Any) -> None:
        pass


class _NoteMaps(TorchFunctionMode):
    """Notes each map ``(1, channels, height, width)`` that differs from the one before it."""

    def __init__(self, names: dict[nn.Module, str], image: Tensor) -> None:
        super().__init__()
        self.maps: list[Maps] = []
        self._names = names
        self._last = image[0]

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == 1:
            self._note(getattr(func, "__name__", ""), output.detach()[0])
        return output

    def _note(self, op: str, values: Tensor) -> None:
        same = values.shape == self._last.shape and torch.equal(values, self._last)
        if same or not values.is_floating_point() or not values.numel():
            return
        self._last = values.clone()  # an operation in place may change `values`
        module = next((m for m in reversed(running_modules()) if m in self._names), None)
        name = self._names.get(module, "") if module is not None else ""
        self.maps.append(Maps(f"{name}: {op}" if name else op, self._last))

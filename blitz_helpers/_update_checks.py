"""Checks the parameters and the memory of an update rule before it changes anything."""

import math
from collections.abc import Iterable, Mapping, MutableMapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

_ADAM_MEMORY = ("step", "exp_avg", "exp_avg_sq")
_ZERO = torch.zeros(())


def check_settings(lr: float, weight_decay: float, eps: float = 0, **fractions: float) -> None:
    settings = {"lr": lr, "weight_decay": weight_decay, "eps": eps, **fractions}
    for name, value in settings.items():
        if type(value) is float:
            continue
        try:
            _ZERO.add(_ZERO, alpha=value)
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"{name} must be a number, got {value!r}. Use a float.") from error
    # The comparisons are written so that NaN fails.
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be above 0 and finite, got {lr}. Use, say, lr=0.01.")
    if not (0 <= weight_decay < math.inf and 0 <= eps < math.inf):
        raise ValueError(f"weight_decay={weight_decay} and eps={eps} must be finite, 0 or more.")
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, got {value}.")


def two_betas(betas: tuple[float, float]) -> tuple[float, float]:
    """Return both numbers of ``betas``."""
    try:
        beta1, beta2 = betas
    except (TypeError, ValueError) as error:
        raise type(error)(f"betas={betas!r} must be two numbers, such as (0.9, 0.999).") from error
    return beta1, beta2


def with_gradients(params: Iterable[Tensor], dense: bool) -> list[tuple[Tensor, Tensor]]:
    """Return each parameter that has a gradient, and that gradient, after checking them all."""
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise TypeError(f"params is a {type(params).__name__}: use [w], or model.parameters().")
    params = list(params)
    if not params:
        raise ValueError("params is empty. A generator is used up after one step: use a list.")
    moving = []
    for index, w in enumerate(params):
        if not isinstance(w, Tensor):
            raise TypeError(f"params[{index}] must be a tensor, got a {type(w).__name__}.")
        if not (w.is_leaf or w.retains_grad):
            raise ValueError(f"params[{index}] must be a leaf: use the tensors that it came from.")
        g = w.grad
        if g is None:
            continue
        if not w.requires_grad:
            raise ValueError(
                f"params[{index}] is frozen (requires_grad is off) and still has a gradient. Set "
                "its .grad to None to leave it where it is, or requires_grad to True to move it."
            )
        if w.is_nested or g.is_nested:
            raise ValueError(f"params[{index}] is a nested tensor. Move the tensors inside it.")
        if dense and g.layout is not torch.strided:
            raise ValueError(f"params[{index}].grad is sparse. Use sgd_step without weight_decay.")
        if not _is_writable(w):
            raise _not_writable(f"params[{index}]", w)
        if not _fits(g, w, exactly=dense):
            raise _misfit(f"params[{index}].grad", g, w)
        moving.append((w, g))
    if len({id(w) for w in params}) < len(params):
        raise ValueError("params names a tensor twice, so it would move twice. Name each once.")
    return moving


def check_velocities(
    moving: list[tuple[Tensor, Tensor]], velocities: MutableMapping[Tensor, Tensor], nesterov: bool
) -> None:
    _check_memory("velocities", velocities)
    for w, g in moving:
        if w not in velocities:
            continue
        v = velocities[w]
        if not isinstance(v, Tensor):
            raise TypeError(
                f"velocities must hold a tensor for each parameter, got a {type(v).__name__}. From "
                "a torch optimizer, take optimizer.state[w]['momentum_buffer'] for each w."
            )
        _check_average("velocities[w]", v, w, exactly=False)
        # torch adds a sparse tensor to a dense one, but not a dense one to a sparse one.
        sparse_v, sparse_g = (x.layout is not torch.strided for x in (v, g))
        if (sparse_v and not sparse_g) or (nesterov and sparse_g and not sparse_v):
            raise ValueError(
                "A gradient and its velocity must both be sparse or both dense here, but one of "
                "them is no longer sparse. Start again with empty velocities."
            )


def check_adam_state(
    moving: list[tuple[Tensor, Tensor]], state: MutableMapping[Tensor, dict[str, Any]]
) -> None:
    _check_memory("state", state)
    for w, _ in moving:
        kept = state.get(w, {})
        if kept == {}:  # like torch, treat it as a parameter that has not moved yet
            continue
        if not isinstance(kept, MutableMapping) or kept.keys() != set(_ADAM_MEMORY):
            given = f"one of {', '.join(map(str, kept))}" if isinstance(kept, Mapping) else kept
            raise TypeError(
                f"state must hold a dict of {', '.join(_ADAM_MEMORY)} for each parameter, got "
                f"{given}. Start with an empty state. (max_exp_avg_sq is of amsgrad=True, which "
                "is not computed here.)"
            )
        _check_step_count(kept["step"])
        for key in ("exp_avg", "exp_avg_sq"):
            name, average = f"state[w][{key!r}]", kept[key]
            if not isinstance(average, Tensor):
                raise TypeError(f"{name} must be a tensor, got a {type(average).__name__}.")
            _check_average(name, average, w, exactly=True)


def _check_memory(name: str, memory: object) -> None:
    if not isinstance(memory, MutableMapping):
        raise TypeError(
            f"{name} must be a dict that you keep, empty at first, got a {type(memory).__name__}. "
            f"Write {name} = {{}} before the first step."
        )
    for key in memory:
        if not isinstance(key, Tensor):
            raise TypeError(
                f"{name} must have the parameters themselves as keys, got {key!r}. From a torch "
                "optimizer, take dict(optimizer.state), not optimizer.state_dict()."
            )


def _check_step_count(step: object) -> None:
    if isinstance(step, Tensor) and step.numel() == 1 and not step.is_complex():
        step = step.item()
    if not isinstance(step, Real):
        raise TypeError(f"state[w]['step'] must be a number of steps, got {step!r}.")
    if not 0 <= float(step) < math.inf:
        raise ValueError(f"state[w]['step'] must be 0 or more and finite, got {step}.")


def _check_average(name: str, average: Tensor, w: Tensor, exactly: bool) -> None:
    if not _is_writable(average):
        raise _not_writable(name, average)
    if not _fits(average, w, exactly):
        raise _misfit(name, average, w)


def _is_writable(tensor: Tensor) -> bool:
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return False
    if tensor.layout is not torch.strided or tensor.is_contiguous():
        return True
    return all(by or n <= 1 for n, by in zip(tensor.shape, tensor.stride(), strict=True))


def _not_writable(name: str, tensor: Tensor) -> ValueError:
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        return ValueError(
            f"{name} was made in inference mode and cannot be changed outside it. Use a clone() "
            "made outside."
        )
    return ValueError(
        f"{name} is expanded: several entries share one number in memory, and cannot move "
        "separately. Use its contiguous()."
    )


def _fits(tensor: Tensor, w: Tensor, exactly: bool) -> bool:
    """Return whether both have the same shape, device and, at least nearly, dtype."""
    same = tensor.dtype == w.dtype or (not exactly and torch.can_cast(tensor.dtype, w.dtype))
    return same and tensor.shape == w.shape and tensor.device == w.device


def _misfit(name: str, tensor: Tensor, w: Tensor) -> ValueError:
    return ValueError(
        f"{name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}, its parameter "
        f"{w.dtype} {tuple(w.shape)} on {w.device}: they must match. If the parameter has "
        "changed, begin anew, with zero_grad() and an empty memory."
    )

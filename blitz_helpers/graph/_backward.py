"""Foretells whether ``backward()`` will work, and names what would stop it.

Every case of ``can_backward=None`` is in this file: functions written in C++, custom functions
whose code does not tell, derivatives that depend on values, and leaves whose shape has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from blitz_helpers.graph._functions import BackwardCode
from blitz_helpers.graph._saved import FREED, Lost


class Obstacle(NamedTuple):
    """A reason why ``backward()`` fails, or may fail."""

    is_certain: bool
    reason: str


Check: TypeAlias = Callable[[Any, str, list[Lost]], Obstacle | None]
"""Checks a node of one kind, given a name for it and the saved tensors that it lost."""


def decisive(obstacles: list[Obstacle]) -> Obstacle | None:
    """Return the first certain obstacle; if none is certain, the first, or ``None``."""
    return next((found for found in obstacles if found.is_certain), next(iter(obstacles), None))


def check_saved(_node: Any, where: str, lost: list[Lost]) -> Obstacle | None:
    """Check a node that needs all of its saved tensors, as torch's own nodes do."""
    if not lost:
        return None
    why = lost[0].why
    names = ", ".join(each.name for each in lost if each.why == why)
    if why == FREED:
        return Obstacle(
            True,
            f"{where} has freed what it saved ({names}): an earlier backward went through it. "
            "Run the forward pass again.",
        )
    return Obstacle(
        True,
        f"{where} needs {names} as saved, and {why}. Change it after backward(), or change a copy.",
    )


def check_custom(code: BackwardCode) -> Check:
    """Return the check for a custom function whose backward has this code."""

    def check(node: Any, where: str, lost: list[Lost]) -> Obstacle | None:
        if code.only_raises:
            return Obstacle(
                True, f"{where} is a custom Function whose backward always raises an error."
            )
        if not lost or code.asks == "never":
            return None
        found = check_saved(node, where, lost)
        if found is None or code.asks == "always":
            return found
        return Obstacle(
            False,
            f"{found.reason} The code of this custom Function does not tell whether it asks for "
            "what it saved: only running backward() can tell.",
        )

    return check


# Nodes that torch inserts where there is no derivative.
_REFUSES = {
    "NotImplemented": "stands for an operation that has no derivative in torch",
    "Error": "stands for a derivative that cannot be taken: as a rule the function behind it is "
    "marked with once_differentiable, and this is the gradient of its gradient",
}
# The slots for which torch's nodes have no derivative; `()` stands for all slots.
# Source: torch's derivatives.yaml. A test compares the two.
NOT_IMPLEMENTED: dict[str, tuple[int, ...]] = {
    "AcoshBackward1": (),
    "AsinhBackward1": (),
    "AtanhBackward1": (),
    "BatchNormBackwardBackward0": (3, 4, 5),
    "CdistBackwardBackward0": (),
    "ChunkBackward0": (),
    "CudnnBatchNormBackwardBackward0": (3, 4, 5),
    "CudnnRnnBackwardBackward0": (),
    "EmbeddingBagBackwardBackward0": (),
    "EmbeddingBagDenseBackwardBackward0": (),
    "EmbeddingRenormBackward0": (),
    "GeqrfBackward0": (),
    "IgammaBackward0": (0,),
    "IgammacBackward0": (0,),
    "MiopenBatchNormBackwardBackward0": (3, 4),
    "NativeBatchNormBackwardBackward0": (3, 4),
    "NativeDropoutBackwardBackward0": (1,),
    "NativeLayerNormBackwardBackward0": (2, 3),
    "PdistBackwardBackward0": (),
    "SpecialZetaBackward0": (0,),
    "SpecialZetaBackward2": (),
    "StandardGammaGradBackward0": (),
    "Unique2Backward0": (),
    "UniqueBackward0": (),
    "UniqueConsecutiveBackward0": (),
    "UniqueDimBackward0": (),
    "UniqueDimConsecutiveBackward0": (),
}


def check_of(name: str, has_own_type: bool) -> Check | None:
    """Return the check for one kind of torch's nodes; ``None`` if ``check_saved`` is enough.

    Nodes without a Python type of their own are defined in C++.
    """
    if name in _REFUSES:
        return lambda _node, where, _lost: Obstacle(True, f"{where} {_REFUSES[name]}.")
    if name == "CopySlices" or not has_own_type:
        return lambda _node, where, _lost: Obstacle(
            False,
            f"{where} is written in C++ and shows nobody what it saved: only running backward() "
            "can tell whether that is still there.",
        )
    missing = NOT_IMPLEMENTED.get(name)
    fails = _FAILS_AT_TIMES.get(name)
    if missing is None and fails is None:
        return None

    def check(node: Any, where: str, lost: list[Lost]) -> Obstacle | None:
        found = check_saved(node, where, lost)
        if found is None and missing is not None:
            found = _missing(node, where, missing)
        if found is None and fails is not None:
            found = fails(node, where)
        return found

    return check


def _missing(node: Any, where: str, slots: tuple[int, ...]) -> Obstacle | None:
    for slot, (source, _) in enumerate(node.next_functions):
        if source is not None and (not slots or slot in slots):
            return Obstacle(
                True,
                f"{where} has no derivative in torch for its input {slot}. Detach that input.",
            )
    return None


def _phase(node: Any, where: str) -> Obstacle | None:
    if not any(made.dtype.is_complex for made in node._input_metadata):
        return None
    return Obstacle(
        False,
        f"{where} made complex vectors, whose phase is arbitrary. It raises an error if the "
        "gradient depends on that phase: only running backward() can tell.",
    )


def _bias_without_weight(node: Any, where: str) -> Obstacle | None:
    weight, bias = (node.next_functions[slot][0] for slot in (4, 5))
    if weight is not None or bias is None:
        return None
    return Obstacle(
        False,
        f"{where} has a bias and no weight. There it raises an error if a gradient reaches the "
        "gradient of the bias: only running backward() can tell.",
    )


def _mask_of_rows(node: Any, where: str) -> Obstacle | None:
    mask = node._raw_saved_mask.data
    if mask is None or mask.layout is torch.sparse_coo:
        return None
    return Obstacle(True, f"{where} has no derivative in torch for a mask of {mask.layout}.")


# Other nodes of torch whose backward raises for some inputs.
_FAILS_AT_TIMES: dict[str, Callable[[Any, str], Obstacle | None]] = {
    "LinalgEigBackward0": _phase,
    "LinalgEighBackward0": _phase,
    "LinalgSvdBackward0": _phase,
    "NativeLayerNormBackwardBackward0": _bias_without_weight,
    "SparseMaskBackward0": _mask_of_rows,
}


def check_leaf(where: str, leaf: Tensor, shape: tuple[int, ...] | None) -> Obstacle | None:
    """Check whether a gradient of this shape can be added to a leaf's ``.grad``."""
    if not leaf.requires_grad:
        return None  # torch discards the gradient
    if not leaf.is_leaf:
        return Obstacle(
            True,
            f"{where} is not a leaf any more: it was changed in place by an operation that is part "
            "of a graph. Run the forward pass again.",
        )
    grad = leaf.grad
    if grad is None:
        if shape is None or shape == tuple(leaf.shape):
            return None
        return Obstacle(
            False,
            f"{where} had the shape {shape} in the forward pass and has {tuple(leaf.shape)} now: "
            "only running backward() can tell whether its gradient fits.",
        )
    if grad.layout is not torch.strided or shape is None:
        return None
    why = None
    if not _expands_to(shape, tuple(grad.shape)):
        why = f"has the shape {tuple(grad.shape)}, and the gradient has {shape}"
    elif grad.is_inference() and not torch.is_inference_mode_enabled():
        why = "was made in inference_mode"
    elif not torch.can_cast(leaf.dtype, grad.dtype):
        why = f"is of {grad.dtype}, and the gradient of {leaf.dtype}"
    elif any(size > 1 and not step for size, step in zip(grad.shape, grad.stride(), strict=True)):
        why = "is an expanded tensor"
    if why is None:
        return None
    return Obstacle(
        True,
        f"the .grad of {where} {why}: the new gradient cannot be added to it. Set it to None.",
    )


def _expands_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    if len(shape) > len(target):
        return False
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return all(size in (1, wanted) for size, wanted in pairs)

"""Nodes that torch cannot go back through, for certain or perhaps, told by their names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.autograd.graph import Node

from blitz_helpers._torch import DispatchMode


class Obstacle(NamedTuple):
    """A reason why ``backward()`` fails, or may fail."""

    is_certain: bool
    reason: str


def fails(reason: str) -> Obstacle:
    return Obstacle(True, reason)


def may_fail(reason: str) -> Obstacle:
    return Obstacle(False, f"{reason}: only running backward() can tell.")


IsUsed: TypeAlias = Callable[[Node, int], bool]
"""Tells whether the graph uses an output of a node, given by its number."""
Check: TypeAlias = Callable[[Any, str, IsUsed], Obstacle | None]
"""Returns the obstacle at a node, given what to call it in messages."""


def check_of(name: str) -> Check | None:
    """Return the check of nodes of this name; ``None`` if torch always goes back through them."""
    if name in _REFUSES:
        return partial(_refusal, _REFUSES[name])
    if name in NO_DERIVATIVE:
        return partial(_missing_derivative, NO_DERIVATIVE[name], _CHECKS.get(name))
    return _CHECKS.get(name)


def freed(where: str, names: str) -> Obstacle:
    return fails(
        f"{where} has freed what it saved ({names}): an earlier backward went through it. "
        "Run the forward pass again."
    )


# The slots for which nodes have no derivative, or none if that is all of them. Source: torch's
# derivatives.yaml; a test compares.
NO_DERIVATIVE: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        (
            *("AcoshBackward1", "AsinhBackward1", "AtanhBackward1", "CdistBackwardBackward0"),
            *("ChunkBackward0", "CudnnRnnBackwardBackward0", "EmbeddingBagBackwardBackward0"),
            *("EmbeddingBagDenseBackwardBackward0", "EmbeddingRenormBackward0", "GeqrfBackward0"),
            *("PdistBackwardBackward0", "SpecialZetaBackward2", "StandardGammaGradBackward0"),
            *("Unique2Backward0", "UniqueBackward0", "UniqueConsecutiveBackward0"),
            *("UniqueDimBackward0", "UniqueDimConsecutiveBackward0"),
        ),
        (),
    ),
    "BatchNormBackwardBackward0": (3, 4, 5),
    "CudnnBatchNormBackwardBackward0": (3, 4, 5),
    "IgammaBackward0": (0,),
    "IgammacBackward0": (0,),
    "MiopenBatchNormBackwardBackward0": (3, 4),
    "NativeBatchNormBackwardBackward0": (3, 4),
    "NativeDropoutBackwardBackward0": (1,),
    "NativeLayerNormBackwardBackward0": (2, 3),
    "SpecialZetaBackward0": (0,),
}
# Nodes that torch inserts where there is no derivative.
_REFUSES = {
    "NotImplemented": "stands for an operation that has no derivative in torch",
    "Error": "stands for a derivative that cannot be taken: usually the function behind it is "
    "marked with once_differentiable, and this is the gradient of its gradient",
}


def _refusal(why: str, _node: Any, where: str, _is_used: IsUsed) -> Obstacle:
    return fails(f"{where} {why}.")


def _missing_derivative(
    slots: tuple[int, ...], other: Check | None, node: Any, where: str, is_used: IsUsed
) -> Obstacle | None:
    for slot, (source, _) in enumerate(node.next_functions):
        if source is not None and (not slots or slot in slots):
            return _without_derivative(where, f"its input {slot}. Detach that input")
    return None if other is None else other(node, where, is_used)


def hidden(_node: Any, where: str, _is_used: IsUsed) -> Obstacle:
    """Check a node that hides what it saved."""
    return may_fail(
        f"{where} is written in C++ and shows nobody what it saved, nor whether that is still "
        "as it was"
    )


class _StoppedError(Exception):
    """Raised instead of the first operation of a backward."""


class _StopsEverything(DispatchMode):  # type: ignore[misc]  # a private class of torch, so `Any`
    def __torch_dispatch__(self, *_: object) -> None:
        raise _StoppedError


def _write_into_a_view(node: Any, where: str, is_used: IsUsed) -> Obstacle:
    """Check a ``CopySlices``, which reports that it was freed before its first operation."""
    gradient = torch.empty(0)
    try:
        with suppress(_StoppedError), _StopsEverything():
            node(gradient)
    except RuntimeError:
        return freed(where, "the operation")
    return hidden(node, where, is_used)


def _phase(node: Any, where: str, is_used: IsUsed) -> Obstacle | None:
    made = node._input_metadata
    vectors = (0, 2) if len(made) == 3 else (1,)  # U and Vh of svd; the second output of eig, eigh
    if not any(made[number].dtype.is_complex and is_used(node, number) for number in vectors):
        return None
    return may_fail(
        f"{where} made complex vectors, whose phase is arbitrary. It raises an error if the "
        "gradient depends on that phase"
    )


def _bias_without_weight(node: Any, where: str, is_used: IsUsed) -> Obstacle | None:
    weight, bias = (node.next_functions[slot][0] for slot in (4, 5))
    if weight is not None or bias is None or not is_used(node, 2):
        return None
    return may_fail(
        f"{where} has a bias and no weight. There it raises an error if a gradient reaches the "
        "gradient of the bias"
    )


def _mask_of_rows(node: Any, where: str, _is_used: IsUsed) -> Obstacle | None:
    mask = node._raw_saved_mask.data
    if mask is None or mask.layout is torch.sparse_coo:
        return None
    return _without_derivative(where, f"a mask of {mask.layout}. Use one of torch.sparse_coo")


def _negative_slope(node: Any, where: str, _is_used: IsUsed) -> Obstacle | None:
    slope = getattr(node, "_saved_alpha", getattr(node, "_saved_negative_slope", 1))
    if hasattr(node, "_saved_lower") and not node._saved_training:
        slope = node._saved_lower + node._saved_upper
    if slope >= 0:
        return None
    return _without_derivative(where, "a negative slope in place. Leave out inplace=True")


def _sparse_by_frequency(node: Any, where: str, _is_used: IsUsed) -> Obstacle | None:
    if not (node._saved_sparse and node._saved_scale_grad_by_freq):
        return None
    return _without_derivative(where, "sparse=True with scale_grad_by_freq=True. Leave out one")


def _incomplete_qr(node: Any, where: str, _is_used: IsUsed) -> Obstacle | None:
    rows, columns = node._input_metadata[1].shape[-2:]  # of R
    mode = node._saved_mode
    if mode == "reduced" or (mode == "complete" and rows <= columns):
        return None
    return _without_derivative(where, f"mode={mode!r}. Use mode='reduced'")


def _without_derivative(where: str, arguments: str) -> Obstacle:
    return fails(f"{where} has no derivative in torch for {arguments}.")


_CHECKS: dict[str, Check] = {
    "CeluBackward1": _negative_slope,
    "CopySlices": _write_into_a_view,
    "EluBackward1": _negative_slope,
    "EmbeddingBackward0": _sparse_by_frequency,
    "EmbeddingBagBackward0": _sparse_by_frequency,
    "LeakyReluBackward1": _negative_slope,
    "LinalgEigBackward0": _phase,
    "LinalgEighBackward0": _phase,
    "LinalgQrBackward0": _incomplete_qr,
    "LinalgSvdBackward0": _phase,
    "NativeLayerNormBackwardBackward0": _bias_without_weight,
    "RreluWithNoiseBackward1": _negative_slope,
    "SparseMaskBackward0": _mask_of_rows,
}

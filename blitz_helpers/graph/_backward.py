"""Foretells whether ``backward()`` will work, and names what would stop it.

Every case of ``can_backward=None`` is in this file, as ``may_fail``, or comes with a tensor whose
shape has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node

from blitz_helpers._torch import DispatchMode
from blitz_helpers.graph._kinds import Kind
from blitz_helpers.graph._saved import FREED, Lost, is_released
from blitz_helpers.graph._tensors import Form, Root, Shape, form_of


class Obstacle(NamedTuple):
    """A reason why ``backward()`` fails, or may fail."""

    is_certain: bool
    reason: str


def fails(reason: str) -> Obstacle:
    return Obstacle(True, reason)


def may_fail(reason: str) -> Obstacle:
    return Obstacle(False, f"{reason}: only running backward() can tell.")


def decisive(obstacles: list[Obstacle | None]) -> Obstacle | None:
    """Return the first certain obstacle; if none is certain, the first, or ``None``."""
    found = [obstacle for obstacle in obstacles if obstacle is not None]
    return next((obstacle for obstacle in found if obstacle.is_certain), next(iter(found), None))


IsUsed: TypeAlias = Callable[[Node, int], bool]
"""Tells whether the graph uses an output of a node, given by its number."""


def obstacle_at(
    node: Any, kind: Kind, module: str | None, lost: list[Lost], is_used: IsUsed
) -> Obstacle | None:
    """Return the obstacle at a node, which may have lost saved tensors, or ``None``."""
    if not lost and kind.code is None and not kind.is_opaque and kind.name not in _WATCHED:
        return None
    where = f"{kind.name} in {module}" if module else kind.name
    if kind.name in _REFUSES:
        return fails(f"{where} {_REFUSES[kind.name]}.")
    if kind.code is not None and kind.code.only_raises:
        return fails(f"{where} is a custom Function whose backward always raises an error.")
    if kind.code is not None:
        gone = [name for name in sorted(kind.code.attributes) if not _has(node, name)]
        if gone:
            return fails(
                f"{where} takes {', '.join(f'ctx.{name}' for name in gone)} in its backward, and "
                "no longer has it: an earlier backward deleted it, or the forward pass never set "
                "it. Run the forward pass again."
            )
    if lost and (kind.code is None or kind.code.asks != "never"):
        loss = _of_lost(where, lost)
        if kind.code is None or kind.code.asks == "always" or not loss.is_certain:
            return loss
        return may_fail(
            f"{loss.reason} The code of this custom Function does not tell whether it asks for "
            "what it saved"
        )
    for slot, (source, _) in enumerate(node.next_functions):
        has_none = kind.name in NO_DERIVATIVE or slot in NO_DERIVATIVE_FOR.get(kind.name, ())
        if has_none and source is not None:
            return _without_derivative(where, f"its input {slot}. Detach that input")
    found = _CHECKS[kind.name](node, where, is_used) if kind.name in _CHECKS else None
    if found is None and kind.is_opaque:
        return may_fail(
            f"{where} is written in C++ and shows nobody what it saved, nor whether that is still "
            "as it was"
        )
    return found


def _has(node: Any, attribute: str) -> bool:
    """Return whether a node has an attribute, without running the code of a property."""
    return attribute in vars(node) or hasattr(type(node), attribute)


def _of_lost(where: str, lost: list[Lost]) -> Obstacle:
    worst = next((each for each in lost if each.is_certain), lost[0])
    names = ", ".join(each.name for each in lost if each.why == worst.why)
    if worst.why == FREED:
        return fails(
            f"{where} has freed what it saved ({names}): an earlier backward went through it. "
            "Run the forward pass again."
        )
    needs = f"{where} needs {names} as saved, and {worst.why}"
    if worst.is_certain:
        return fails(f"{needs}. Change it after backward(), or change a copy.")
    return may_fail(needs)


# Nodes without any derivative. Source of both tables: torch's derivatives.yaml; a test compares.
NO_DERIVATIVE = (
    *("AcoshBackward1", "AsinhBackward1", "AtanhBackward1", "CdistBackwardBackward0"),
    *("ChunkBackward0", "CudnnRnnBackwardBackward0", "EmbeddingBagBackwardBackward0"),
    *("EmbeddingBagDenseBackwardBackward0", "EmbeddingRenormBackward0", "GeqrfBackward0"),
    *("PdistBackwardBackward0", "SpecialZetaBackward2", "StandardGammaGradBackward0"),
    *("Unique2Backward0", "UniqueBackward0", "UniqueConsecutiveBackward0"),
    *("UniqueDimBackward0", "UniqueDimConsecutiveBackward0"),
)
# Nodes that have no derivative for these of their slots.
NO_DERIVATIVE_FOR = {
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


class _StoppedError(Exception):
    """Raised instead of the first operation of a backward."""


class _StopsEverything(DispatchMode):  # type: ignore[misc]  # a private class of torch, so `Any`
    def __torch_dispatch__(self, *_: object) -> None:
        raise _StoppedError


def _freed_write_into_a_view(node: Any, where: str, _is_used: IsUsed) -> Obstacle | None:
    """Check a ``CopySlices``, which reports that it was freed before its first operation."""
    gradient = torch.empty(0)
    try:
        with suppress(_StoppedError), _StopsEverything():
            node(gradient)
    except RuntimeError:
        return _of_lost(where, [Lost("the operation", FREED)])
    return None


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


_CHECKS: dict[str, Callable[[Any, str, IsUsed], Obstacle | None]] = {
    "CeluBackward1": _negative_slope,
    "CopySlices": _freed_write_into_a_view,
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
_WATCHED = {*_REFUSES, *NO_DERIVATIVE, *NO_DERIVATIVE_FOR, *_CHECKS}


def check_root(root: Root) -> Obstacle | None:
    """Return the obstacle to a gradient of an output's form, or ``None``."""
    now, then = root.form, form_of(root.node._input_metadata[root.output_nr])
    if now.dtype.is_complex and not then.dtype.is_complex:
        change = f"was {then.dtype} in the forward pass and is {now.dtype} now"
    elif now.shape is None or then.shape is None or _expands_to(then.shape, now.shape):
        return None
    else:
        change = f"had the shape {then.shape} in the forward pass and has {now.shape} now"
    return fails(f"{root.where} {change}. Run the forward pass again.")


def check_leaf(where: str, leaf: Tensor, then: Form, now: Form) -> Obstacle | None:
    """Return the obstacle to a gradient in a leaf's ``.grad``, or ``None``.

    The gradient has the form that the leaf had ``then``, in the forward pass.
    """
    if not leaf.requires_grad:
        return None  # torch discards the gradient
    if not leaf.is_leaf:
        return fails(
            f"{where} is not a leaf any more: it was changed in place by an operation that is part "
            "of a graph. Run the forward pass again."
        )
    grad, shape = leaf.grad, then.shape
    if grad is None and shape not in (None, now.shape):
        return may_fail(
            f"{where} had the shape {shape} in the forward pass and has {now.shape} now, which "
            "its gradient may not fit"
        )
    if grad is None or grad.layout is not torch.strided:
        return None
    if grad.is_nested:
        why = "is a nested tensor"
    elif shape is not None and not _expands_to(shape, tuple(grad.shape)):
        why = f"has the shape {tuple(grad.shape)}, and the gradient has {shape}"
    elif grad.is_inference() and not torch.is_inference_mode_enabled():
        why = "was made in inference_mode"
    elif not torch.can_cast(then.dtype, grad.dtype):
        why = f"is of {grad.dtype}, and the gradient of {then.dtype}"
    elif any(size > 1 and not step for size, step in zip(grad.shape, grad.stride(), strict=True)):
        why = "is an expanded tensor"
    elif is_released(grad):
        why = "has lost its memory"
    else:
        return None
    return fails(
        f"the .grad of {where} {why}: the new gradient cannot be added to it. Set it to None."
    )


def _expands_to(shape: Shape, target: Shape) -> bool:
    if len(shape) > len(target):
        return False
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return all(size in (1, wanted) for size, wanted in pairs)

"""What a node keeps for its backward, read so that no hook runs and nothing is recomputed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node

from blitz_helpers.graph._records import SavedTensor


class Findings:
    """What the nodes of one graph share: memory, and records that say the same."""

    def __init__(self) -> None:
        self._storages: dict[int, int] = {}
        self._kept: dict[tuple[str, torch.Size, torch.dtype], SavedTensor] = {}

    @property
    def saved_bytes(self) -> int:
        """Bytes of all the storages that were met, each counted once."""
        return sum(self._storages.values())

    def kept(self, name: str, tensor: Tensor) -> SavedTensor:
        """Return the record of a tensor that is there, and count its memory."""
        try:
            storage, shape = tensor.untyped_storage(), tensor.shape
        except RuntimeError:  # sparse, nested, or a wrapper of torch.func
            return SavedTensor(name, _shape(tensor), None, "kept")
        self._storages[storage._cdata] = storage.nbytes()
        key = (name, shape, tensor.dtype)
        record = self._kept.get(key)
        if record is None:
            record = SavedTensor(name, tuple(shape), tensor.nbytes, "kept")
            self._kept[key] = record
        return record


def _shape(tensor: Tensor) -> tuple[int, ...] | None:
    try:
        return tuple(tensor.shape)
    except RuntimeError:  # a nested tensor is not of one shape
        return None


SavedReader: TypeAlias = Callable[[Any, Findings], tuple[SavedTensor, ...]]


def saved_reader(python_type: type[Node]) -> SavedReader | None:
    """Return what reads nodes of this type, which torch defines; ``None`` if they save nothing."""
    raw = "_raw_saved_"
    names = [name.removeprefix(raw) for name in vars(python_type) if name.startswith(raw)]
    attributes = [(name, raw + name, "_saved_" + name) for name in names]

    def read(node: Any, findings: Findings) -> tuple[SavedTensor, ...]:
        found: list[SavedTensor] = []
        for name, raw_attribute, attribute in attributes:
            try:
                raw = getattr(node, raw_attribute)
            except RuntimeError:  # a list of tensors, freed
                found.append(SavedTensor(name, None, 0, "freed"))
                continue
            if type(raw) is tuple:
                found += _read_list(name, raw, findings)
            elif raw.unpack_hook is not None:
                found.append(SavedTensor(name, None, None, "packed"))
            else:
                # No hook is on it, so that nothing but torch's own checks run here.
                try:
                    tensor = getattr(node, attribute)
                except RuntimeError as error:
                    found.append(_lost(name, raw, error, findings))
                else:
                    if tensor is not None:  # as is the bias of a layer that has none
                        found.append(findings.kept(name, tensor))
        return tuple(found)

    return read if attributes else None


def read_custom(node: Any, findings: Findings) -> tuple[SavedTensor, ...]:
    """Return what a custom function gave to ``save_for_backward``."""
    try:
        raws = node._raw_saved_tensors
    except RuntimeError:
        # All that is left is the fact that it was freed, even if it never saved anything.
        saves = _uses_saved_tensors(node._forward_cls)
        return (SavedTensor("saved_tensors", None, 0, "freed"),) if saves else ()
    return tuple(_read_list("saved_tensors", raws, findings))


def _read_list(name: str, raws: tuple[Any, ...], findings: Findings) -> list[SavedTensor]:
    found = []
    for place, raw in enumerate(raws):
        item = f"{name}[{place}]"
        if raw.unpack_hook is not None:
            found.append(SavedTensor(item, None, None, "packed"))
            continue
        try:
            tensor = raw.unpack()
        except RuntimeError as error:
            found.append(_lost(item, raw, error, findings))
        else:
            if tensor is not None:
                found.append(findings.kept(item, tensor))
    return found


def _lost(name: str, raw: Any, error: RuntimeError, findings: Findings) -> SavedTensor:
    """Say what has become of a tensor that torch does not hand out."""
    data = raw.data
    if data is None:
        return SavedTensor(name, None, 0, "freed")
    record = findings.kept(name, data)
    changed = "modified by an inplace operation" in str(error)
    return record._replace(state="changed") if changed else record


def _uses_saved_tensors(function: type) -> bool:
    for method in ("forward", "setup_context", "backward", "vjp"):
        code = getattr(inspect.unwrap(getattr(function, method)), "__code__", None)
        if code is not None and _names(code) & {"save_for_backward", "saved_tensors"}:
            return True
    return False


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))

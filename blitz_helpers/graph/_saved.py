"""What a node keeps for its backward, read so that no hook runs and nothing is recomputed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from types import CodeType
from typing import Any, TypeAlias

from torch import Tensor, UntypedStorage
from torch.autograd.graph import Node

from blitz_helpers.graph._records import SavedTensor


def _shape(tensor: Tensor) -> tuple[int, ...] | None:
    try:
        return tuple(tensor.shape)
    except RuntimeError:  # a nested tensor is not of one shape
        return None


SavedReader: TypeAlias = Callable[[Any, set[UntypedStorage]], tuple[SavedTensor, ...]]
"""Reads what a node saved, and adds the memory that it met to the set."""


def saved_reader(python_type: type[Node]) -> SavedReader | None:
    """Return what reads nodes of this type, which torch defines; ``None`` if they save nothing."""
    raw = "_raw_saved_"
    names = [name.removeprefix(raw) for name in vars(python_type) if name.startswith(raw)]
    if not names:
        return None
    hooks = attrgetter(*[f"{raw}{name}.unpack_hook" for name in names])
    without = (None,) * len(names) if len(names) > 1 else None
    attributes = [(name, raw + name, "_saved_" + name) for name in names]

    def read(node: Any, storages: set[UntypedStorage]) -> tuple[SavedTensor, ...]:
        try:
            unhooked = hooks(node) == without
        except (AttributeError, RuntimeError):  # there is a list of tensors among them
            unhooked = False
        found: list[SavedTensor] = []
        for name, raw_attribute, attribute in attributes:
            if not unhooked:
                try:
                    raw = getattr(node, raw_attribute)
                except RuntimeError:  # a list of tensors, freed
                    found.append(SavedTensor(name, None, 0, "freed"))
                    continue
                if type(raw) is tuple:
                    found += _read_list(name, raw, storages)
                    continue
                if raw.unpack_hook is not None:
                    found.append(SavedTensor(name, None, None, "packed"))
                    continue
            # No hook is on it, so that nothing but torch's own checks run here.
            try:
                tensor = getattr(node, attribute)
            except RuntimeError as error:
                found.append(_lost(name, getattr(node, raw_attribute), error, storages))
            else:
                if tensor is not None:  # as is the bias of a layer that has none
                    found.append(_present(name, tensor, storages))
        return tuple(found)

    return read


def _present(name: str, tensor: Tensor, storages: set[UntypedStorage]) -> SavedTensor:
    """Return the record of a tensor that is there, of whatever layout."""
    try:
        record = _kept(name, tensor.shape, tensor.nbytes)
        storages.add(tensor.untyped_storage())
    except RuntimeError:  # sparse, nested, or a wrapper of torch.func
        return SavedTensor(name, _shape(tensor), None, "kept")
    return record


@lru_cache(maxsize=4096)
def _kept(name: str, shape: tuple[int, ...], nbytes: int) -> SavedTensor:
    """Return one record for all that say the same: a loop saves the same in every step."""
    return SavedTensor(name, tuple(shape), nbytes, "kept")


def read_custom(node: Any, storages: set[UntypedStorage]) -> tuple[SavedTensor, ...]:
    """Return what a custom function gave to ``save_for_backward``."""
    try:
        raws = node._raw_saved_tensors
    except RuntimeError:
        # All that is left is the fact that it was freed, even if it never saved anything.
        saves = _uses_saved_tensors(node._forward_cls)
        return (SavedTensor("saved_tensors", None, 0, "freed"),) if saves else ()
    return tuple(_read_list("saved_tensors", raws, storages))


def _read_list(
    name: str, raws: tuple[Any, ...], storages: set[UntypedStorage]
) -> list[SavedTensor]:
    found = []
    for place, raw in enumerate(raws):
        item = f"{name}[{place}]"
        if raw.unpack_hook is not None:
            found.append(SavedTensor(item, None, None, "packed"))
            continue
        try:
            tensor = raw.unpack()
        except RuntimeError as error:
            found.append(_lost(item, raw, error, storages))
        else:
            if tensor is not None:
                found.append(_present(item, tensor, storages))
    return found


def _lost(name: str, raw: Any, error: RuntimeError, storages: set[UntypedStorage]) -> SavedTensor:
    """Say what has become of a tensor that torch does not hand out."""
    data = raw.data
    if data is None:
        return SavedTensor(name, None, 0, "freed")
    record = _present(name, data, storages)
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

"""Sorts torch's functions into questions, factories and moves, and gives them their usual names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blitz_helpers._torch import TensorBase


def _methods(names: str) -> set[Any]:
    return {getattr(Tensor, name) for name in names.split() if hasattr(Tensor, name)}


def _getters(names: str) -> set[Any]:
    return {getattr(Tensor, name).__get__ for name in names.split() if hasattr(Tensor, name)}


def _functions(names: str) -> set[Any]:
    return {getattr(torch, name) for name in names.split()}


# Answered by the stand-in of a tensor as well as by the tensor itself.
PLAIN_QUESTIONS = (
    _getters("shape dtype ndim requires_grad layout is_sparse is_quantized is_nested is_leaf")
    | _getters("grad_fn names itemsize nbytes grad is_mkldnn is_mps is_xla is_vulkan")
    | _methods("size dim numel nelement stride is_contiguous __len__ is_floating_point is_complex")
    | _methods("element_size storage_offset requires_grad_ is_signed __repr__ __format__ __hash__")
    | _methods("ndimension register_hook")
    | _functions("is_floating_point is_complex numel result_type")
    | {vars(TensorBase)["requires_grad"].__set__}
)
# Answered by values alone.
VALUE_QUESTIONS = (
    _methods("item tolist numpy __array__ __bool__ __int__ __float__ __index__ __complex__")
    | _methods("__contains__ equal allclose data_ptr is_nonzero backward")
    | _functions("equal allclose is_nonzero")
    | {torch.autograd.grad, torch.autograd.backward}
)
SIZED_FACTORIES = _functions("zeros ones empty rand randn")
FACTORIES = SIZED_FACTORIES | _functions(
    "full randint randperm eye arange linspace tensor as_tensor scalar_tensor from_numpy"
)
LIKE = {
    getattr(torch, f"{name}_like") for name in ["zeros", "ones", "empty", "full", "rand", "randn"]
}
MOVES = _methods("to cpu cuda")
(DEVICE,) = _getters("device")
(IS_META,) = _getters("is_meta")
QUESTIONS = PLAIN_QUESTIONS | {DEVICE, IS_META}
SET_DATA = vars(TensorBase)["data"].__set__

_PART_GETTERS = {
    getattr(Tensor, name).__get__: name for name in ["T", "mT", "H", "mH", "real", "imag"]
}
_TYPED = {
    **{"truediv": "div", "truediv_": "div_", "log_sigmoid": "logsigmoid"},
    **{"_threshold": "threshold", "_grouped_mm": "grouped_mm"},
}
_NAMES: dict[Any, str] = {}


def name_of(function: Any) -> str:
    """Return the operation's name as its caller typed it: ``add`` also for ``+``."""
    name = _NAMES.get(function)
    if name is None:
        name = _PART_GETTERS.get(function) or str(getattr(function, "__name__", function))
        if name.startswith("__") and name.endswith("__"):
            name = name[2:-2]
            if name[0] in "ri" and hasattr(Tensor, f"__{name[1:]}__"):  # `rsub`, `isub`
                name = name[1:] + ("_" if name[0] == "i" else "")
        name = _NAMES[function] = _TYPED.get(name, name)
    return name

"""Every private name of torch that the package uses, and the reason for each.

Private names may change with any release. Functions and classes get a public name here; attributes
of torch's objects are used under their own names and listed at the end.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._python_dispatch import TorchDispatchMode

# Contexts that hide operations from modes and subclasses. The trace's own operations are not steps
# of the model, and a mode set by the user must not stop them.
no_torch_function: Any = torch._C.DisableTorchFunction
# The same, but modes still see operations: a tensor that outlived its trace can report its shape.
no_subclasses: Any = torch._C.DisableTorchFunctionSubclass

# The base class of `Tensor`, which has the setters of `requires_grad` and `data`.
TensorBase: Any = torch._C.TensorBase

# Sets how often a tensor was written to, once its values are back.
set_version: Any = torch._C._autograd._unsafe_set_version_counter

# Parses the many forms of the arguments of `Tensor.to`.
parse_to: Any = torch._C._nn._parse_to

# The batch size of `vmap` around an operation, and the batch that a sample is of.
functorch: Any = torch._C._functorch

# Access to the modules, parameters and buffers of a scripted module, to copy it without data.
script_modules: Any = torch._C.ModuleDict
script_tensors: tuple[Any, ...] = (torch._C.ParameterDict, torch._C.BufferDict)

# The number of operations that autograd has recorded in a thread, to match nodes with modules.
sequence_number: Any = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]  # no stub

# Sees every operation before it runs, to stop a backward before its first one.
DispatchMode: Any = TorchDispatchMode

# The common bases of the layers: convolutions, and batch and instance norms.
ConvNd: TypeAlias = _ConvNd
ConvTransposeNd: TypeAlias = _ConvTransposeNd
NormBase: TypeAlias = _NormBase

# The compiler's package, and what loads it when it is called. It may compile our hooks.
COMPILERS = ("torch._dynamo", "torch.nn.attention.flex_attention")


# A tensor that autograd saved: also the class of what `torch.utils.checkpoint` keeps.
_SavedTensor: Any = torch._C._autograd.SavedTensor


def checkpoint_inputs(unpack_hook: Any) -> list[Any]:
    """Return the inputs that ``torch.utils.checkpoint`` saved to recompute a tensor from.

    For any other hook the list is empty.
    """
    if getattr(unpack_hook, "__module__", None) != "torch.utils.checkpoint":
        return []
    cells = dict(zip(unpack_hook.__code__.co_freevars, unpack_hook.__closure__, strict=True))
    saved = getattr(cells["frame"].cell_contents, "saved_args", ()) if "frame" in cells else ()
    return [one for one in saved if isinstance(one, _SavedTensor)]


# Attributes of torch's objects, under their own names.
ATTRIBUTES = {
    "_base": "the tensor behind a view, which owns the memory that is written to",
    "_buffers": "see `_parameters`",
    "_c": "the C++ object inside a scripted module",
    "_compiled_call_impl": "the compiled call of a module that was compiled in place",
    "_flat_weights": "the weights of a recurrent layer, where a new weight must be put too",
    "_flat_weights_names": "the names of the weights in `_flat_weights`",
    "_flat_weight_refs": "weak references to those weights, or `None` for those not watched",
    "_forward_cls": "the custom `Function` of a node",
    "_get_method": "a method of a scripted module, to run it on a copy",
    "_input_metadata": "shape and dtype of the tensor made at a node in the forward pass",
    "_modules": "see `_parameters`",
    "_nnz": "the number of stored entries of a sparse tensor, which is the number of products",
    "_orig_mod": "the module inside a compiled one",
    "_parameters": "a module's own parameters, without those of the modules inside it",
    "_qkv_same_embed_dim": "whether attention stores its three weights as one tensor",
    "_raw_saved_": "begins the name of each saved tensor of a node, read without running hooks",
    "_raw_saved_mask": "see `_raw_saved_`",
    "_raw_saved_tensors": "see `_raw_saved_`: the saved tensors of a custom `Function`",
    "_saved_": "begins the name of each saved tensor of a node, as torch would unpack it",
    "_sequence_nr": "the number of a node, on the scale of `sequence_number`",
    "_version": "counts writes to a tensor, to see whether it changed since it was saved",
}

# Private operations that have a class in `trace/ops`, since public ones call them.
OPERATIONS = {
    "_convolution": "a convolution in traced code, with flags after its arguments",
    "_grouped_mm": "`F.grouped_mm` calls it, and it was the only name in earlier releases",
    "_nested_tensor_from_mask_left_aligned": "asks `nn.TransformerEncoder` about the padding mask",
    "_threshold": "what torch itself calls `F.threshold`",
}

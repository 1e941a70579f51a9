"""Every private name of torch that the package uses, and why it does.

What torch calls by such a name may move with any release. Functions and classes have a public name
here; attributes of torch's objects are used under their own, and listed at the end.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

# Contexts in which no mode and no subclass hears of an operation: what the trace asks for itself is
# no step of the model, and may not be stopped by a mode of the user's.
no_torch_function: Any = torch._C.DisableTorchFunction
# The same, except that modes still hear: a tensor that outlived its trace answers for its shape.
no_subclasses: Any = torch._C.DisableTorchFunctionSubclass

# The base of `Tensor`, where the setters of `requires_grad` and `data` stand.
TensorBase: Any = torch._C.TensorBase

# What `Tensor.to` understands by its many spellings of device and dtype.
parse_to: Any = torch._C._nn._parse_to

# Over how many samples `vmap` runs an operation, to count its multiply-accumulates.
functorch: Any = torch._C._functorch

# The modules, parameters and buffers inside a scripted module, to make a copy without data.
script_modules: Any = torch._C.ModuleDict
script_tensors: tuple[Any, ...] = (torch._C.ParameterDict, torch._C.BufferDict)

# Counts the operations that autograd records in a thread: it tells which module made which node.
sequence_number: Any = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]  # no stub

# The common bases of the layers: convolutions, and batch and instance norms.
ConvNd: TypeAlias = _ConvNd
ConvTransposeNd: TypeAlias = _ConvTransposeNd
NormBase: TypeAlias = _NormBase

# The compiler's package. It is loaded only where something uses it; then it would compile hooks.
COMPILER = "torch._dynamo"

# Attributes of torch's objects, under their own names.
ATTRIBUTES = {
    "_base": "the tensor that a view shows: who owns the memory that is written to",
    "_buffers": "of a module: see `_parameters`",
    "_c": "what a scripted module runs",
    "_compiled_call_impl": "how a module that was compiled in place is called",
    "_flat_weights": "the tensors of a recurrent layer, which a new weight has to join",
    "_flat_weights_names": "their names",
    "_forward_cls": "the custom function that made a node",
    "_get_method": "one method of a scripted module, to run it on a copy",
    "_input_metadata": "shape and dtype of what the forward pass made at a node",
    "_modules": "of a module: see `_parameters`",
    "_nnz": "the entries of a sparse tensor: so many products are computed",
    "_orig_mod": "the module inside a compiled one",
    "_parameters": "of a module itself, without those of the modules inside it",
    "_qkv_same_embed_dim": "whether attention keeps its three weights in one",
    "_raw_saved_mask": "see `_raw_saved_tensors`",
    "_raw_saved_tensors": "what a node has saved, read without running the user's hooks",
    "_sequence_nr": "the number of a node, as `sequence_number` counts",
    "_version": "how often a tensor was written to, to see what changed since it was saved",
}

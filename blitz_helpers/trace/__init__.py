"""Traces a forward pass on tensors without data, to show what it does to shapes step by step."""

from blitz_helpers.trace._records import (
    ModuleCall,
    ModuleTable,
    ShapeError,
    ShapeStep,
    ShapeTrace,
)
from blitz_helpers.trace._remedies import Remedy
from blitz_helpers.trace._tracing import trace_shapes

__all__ = [
    "ModuleCall",
    "ModuleTable",
    "Remedy",
    "ShapeError",
    "ShapeStep",
    "ShapeTrace",
    "trace_shapes",
]

for _record in (ModuleCall, ModuleTable, Remedy, ShapeError, ShapeStep, ShapeTrace):
    _record.__module__ = __name__  # the public path, for tracebacks and pickles

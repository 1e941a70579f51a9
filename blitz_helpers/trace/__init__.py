"""Traces a forward pass on tensors without data, to show what it does to shapes step by step."""

from blitz_helpers.trace._records import ShapeError, ShapeStep, ShapeTrace
from blitz_helpers.trace._tracing import trace_shapes

__all__ = ["ShapeError", "ShapeStep", "ShapeTrace", "trace_shapes"]

for _record in (ShapeError, ShapeStep, ShapeTrace):
    _record.__module__ = __name__  # the public path, for tracebacks and pickles

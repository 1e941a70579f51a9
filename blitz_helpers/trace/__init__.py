"""What a forward pass does to shapes, step by step, on tensors without data."""

from blitz_helpers.trace._engine import trace_shapes
from blitz_helpers.trace._records import ShapeError, ShapeStep, ShapeTrace

__all__ = ["ShapeError", "ShapeStep", "ShapeTrace", "trace_shapes"]

"""The autograd graph as data: its nodes and edges, and the tensors that it saves or has freed."""

from blitz_helpers.graph._fold import FoldedGraph
from blitz_helpers.graph._graph import AutogradGraph
from blitz_helpers.graph._labels import label_modules
from blitz_helpers.graph._nodes import GraphEdge, GraphNode, NamedTensor, SavedTensor
from blitz_helpers.graph._walk import autograd_graph

__all__ = [
    "AutogradGraph",
    "FoldedGraph",
    "GraphEdge",
    "GraphNode",
    "NamedTensor",
    "SavedTensor",
    "autograd_graph",
    "label_modules",
]
for _record in (AutogradGraph, FoldedGraph, GraphEdge, GraphNode, NamedTensor, SavedTensor):
    _record.__module__ = __name__  # the public path, for tracebacks and pickles

"""The graph that autograd built, as data: its nodes and edges, what is saved and what is freed."""

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
    _record.__module__ = __name__  # what tracebacks and pickles call them: where users find them

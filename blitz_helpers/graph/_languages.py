"""Writes a folded graph as Mermaid and as Graphviz's DOT."""

from __future__ import annotations

import re

from blitz_helpers.graph._fold import Box, FoldedGraph

# Distinct with every common kind of colour blindness, and readable under dark text.
_FILLS = {"operation": "#F0E442", "leaf": "#56B4E9", "freed": "#C8C8C8"}
_TEXT = "#222222"


class Mermaid(str):
    """Mermaid source that JupyterLab draws."""

    __slots__ = ()

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/vnd.mermaid": str(self), "text/plain": str(self)}


def mermaid(graph: FoldedGraph) -> Mermaid:
    """Return ``graph`` as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    for place, box in enumerate(graph.boxes):
        text = "<br>".join(_escaped(part) for part in _lines(box))
        shape = f'(["{text}"])' if box.kind == "leaf" else f'["{text}"]'
        lines.append(f"    n{place}{shape}:::{box.kind}")
    for source, target, slot in graph.arrows:
        label = "" if slot is None else f'|"{slot}"|'
        lines.append(f"    n{source} -->{label} n{target}")
    lines += [
        f"    classDef {kind} fill:{fill},stroke:{_TEXT},color:{_TEXT}"
        for kind, fill in _FILLS.items()
    ]
    return Mermaid("\n".join(lines))


def dot(graph: FoldedGraph) -> str:
    """Return ``graph`` in Graphviz's language."""
    lines = [
        "digraph {",
        f'    node [shape=box, style=filled, fontname="sans-serif", fontcolor="{_TEXT}"]',
    ]
    for place, box in enumerate(graph.boxes):
        text = r"\n".join(part.replace("\\", r"\\").replace('"', r"\"") for part in _lines(box))
        shape = ", shape=ellipse" if box.kind == "leaf" else ""
        lines.append(f'    n{place} [label="{text}", fillcolor="{_FILLS[box.kind]}"{shape}]')
    for source, target, slot in graph.arrows:
        label = "" if slot is None else f' [label="{slot}"]'
        lines.append(f"    n{source} -> n{target}{label}")
    return "\n".join([*lines, "}"])


def _lines(box: Box) -> list[str]:
    return [part for part in (box.title, box.detail) if part]


def _escaped(text: str) -> str:
    return re.sub(r"[^\w .,()-]", lambda found: f"#{ord(found[0])};", text)

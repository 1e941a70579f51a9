"""Graphs so deep that freeing them node inside node would end the process: each in its own."""

import subprocess
import sys

import pytest
import torch

from blitz_helpers.graph._release import free_apart

PROGRAM = """
import sys, threading, torch
from blitz_helpers import autograd_graph

steps, place, *cases = int(sys.argv[1]), *sys.argv[2:]

def build():
    w = torch.ones(2, requires_grad=True)
    h = middle = torch.zeros(2)
    for step in range(steps):
        h = (h + w).sin()
        if step == steps // 2:
            middle = h
    return h.sum(), middle

def look(first, backward):
    output, middle = build()
    if backward == "before":
        output.backward()
    graph = autograd_graph(output)
    assert len(graph.nodes) == 2 * steps + 2
    assert graph.can_backward == (backward != "before")
    assert len(str(graph).splitlines()) < 120
    assert len(graph.to_mermaid().splitlines()) < 120
    assert graph.path().count("sin") == steps
    if backward == "after":
        output.backward()
    if first == "exit":
        return output, graph
    if first == "graph":
        del graph
        del output
    else:
        del output
        del graph
    assert len(autograd_graph(middle).nodes) == 2 * (steps // 2 + 1) + 1
    del middle

if place == "thread":
    threading.stack_size(512 * 1024)
for case in cases:
    case = case.split("-")
    if place == "thread":
        thread = threading.Thread(target=look, args=case)
        thread.start()
        thread.join()
    else:
        kept = look(*case)
    print(*case)
print("alive")
"""


class Finish:
    def __init__(self, being_freed):
        self._being_freed = being_freed

    def __del__(self):
        self._being_freed.pop()


class FakeNode:
    """Lets go of what feeds it, then of its metadata, as torch's nodes do, and then is gone."""

    def __init__(self, source, being_freed, most):
        self.next_functions = () if source is None else ((source, 0),)
        self.metadata = {}
        self._being_freed, self._most = being_freed, most
        self._finish = Finish(being_freed)

    def __del__(self):
        self._being_freed.append(None)
        self._most[0] = max(self._most[0], len(self._being_freed))


def test_no_node_is_freed_inside_another():
    # Of fakes, because Python may end such a chain by itself, at a depth of its own.
    being_freed, most, node = [], [0], None
    for _ in range(1000):
        node = FakeNode(node, being_freed, most)
        free_apart(node)
    del node
    assert being_freed == []
    assert most[0] <= 2  # the first, and one after another of those that fed it


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300
    )


def assert_survived(done):
    assert done.stderr == ""  # an error in a thread is found here alone
    assert done.returncode == 0, done.stdout  # which ends at the case that crashed
    assert done.stdout.endswith("alive\n")


WHEN = ("never", "before", "after")  # it goes backward, seen from the walk
CASES = [f"{first}-{when}" for first in ("graph", "tensor") for when in WHEN]


@pytest.mark.parametrize("place", ["main", "thread"])
def test_a_deep_graph_is_walked_shown_and_let_go_of(place):
    # Two levels a step: without care 512 KiB of stack end at 3,000 levels, 8 MB at some 40,000.
    steps = {"thread": "5000", "main": "30000"}[place]
    if place == "thread" and torch.__version__ < (2, 13):
        pytest.skip(
            "torch 2.12 at times ends badly after a backward in a thread, with us or without"
        )
    assert_survived(run(PROGRAM, steps, place, *CASES))


def test_a_hundred_thousand_steps_that_live_until_the_interpreter_ends():
    assert_survived(run(PROGRAM, "100000", "main", "exit-never"))


LABELLED = """
import threading, torch
from torch import nn
from blitz_helpers import autograd_graph, label_modules

def look(walks):
    cell, h = nn.Linear(2, 2), torch.ones(1, 2)
    with label_modules(cell):
        for step in range(10_000):
            h = cell(h).sin()
    if walks:
        nodes = autograd_graph(h, cell).nodes
        assert {node.module for node in nodes if node.op == "addmm"} == {""}
        del nodes
    del h

threading.stack_size(512 * 1024)
for walks in (False, True):
    thread = threading.Thread(target=look, args=(walks,))
    thread.start()
    thread.join()
print("alive")
"""


def test_a_deep_graph_that_was_labelled_is_let_go_of_looked_at_or_not():
    assert_survived(run(LABELLED))


INTERRUPTED = """
import threading, torch
from blitz_helpers.graph import _walk

free_apart = _walk.free_apart

def interrupt(node):
    _walk.free_apart = free_apart
    raise KeyboardInterrupt

def look():
    w = torch.ones(2, requires_grad=True)
    h = w
    for step in range(10_000):
        h = h.sin()
    _walk.free_apart = interrupt
    try:
        _walk.autograd_graph(h)
    except KeyboardInterrupt:
        print("interrupted")

threading.stack_size(512 * 1024)
thread = threading.Thread(target=look)
thread.start()
thread.join()
print("alive")
"""


def test_an_interrupted_walk_leaves_no_trap():
    done = run(INTERRUPTED)
    assert_survived(done)
    assert done.stdout == "interrupted\nalive\n"


BARE = """
import torch
w = torch.ones(2, requires_grad=True)
h = w
for step in range(150_000):
    h = h.sin()
node, seen = h.grad_fn, []
while node is not None:
    seen.append(node)
    node = node.next_functions[0][0] if node.next_functions else None
del seen, node
del h
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a crash ends otherwise there")
@pytest.mark.skipif(torch.__version__ < (2, 13), reason="torch 2.12 frees these graphs itself")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 ends such a chain in time")
def test_a_bare_loop_crashes_so_that_these_tests_can_fail():
    assert run(BARE).returncode < 0

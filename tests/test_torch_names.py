"""The private names of torch that the package uses exist, and stand in one place."""

import ast
import functools
from itertools import filterfalse
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import blitz_helpers
from blitz_helpers import _torch

PACKAGE = Path(blitz_helpers.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "_torch.py")
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit")  # Deprecation- or FutureWarning
# Python's own, and those of named tuples.
PYTHONS = {"_fields", "_getframe", "_lru_cache_wrapper", "_make", "_replace"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def is_listed(name: str) -> bool:
    """Return whether a name is in `_torch.py`, or begins like one there that ends with "_"."""
    prefixes = tuple(one for one in _torch.ATTRIBUTES if one.endswith("_"))
    return name in {*_torch.ATTRIBUTES, *_torch.OPERATIONS} or name.startswith(prefixes)


def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text("utf-8")) for path in FILES}


def defined_in(tree: ast.Module) -> set[str]:
    """Return the private names that a file itself gives to functions, classes and attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


def foreign_attributes(tree: ast.Module) -> set[str]:
    """Return the private attributes that a file reads from objects of others."""
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and ast.unparse(node.value) not in ("self", "cls")
        and private(node.attr)
    }
    return {name for name in read - defined_in(tree) - PYTHONS if not name.startswith("_blitz_")}


def words(tree: ast.Module) -> set[str]:
    """Return the private names among the words of a file's strings."""
    return {
        word
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in node.value.split()
        if private(word)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torchs_private_functions_and_classes_stand_in_one_file(path):
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text.startswith("torch."):
                assert not any(map(private, text.split("."))), f"line {node.lineno}: {text}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            parts = [*node.module.split("."), *[alias.name for alias in node.names]]
            assert not any(map(private, parts)), f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_private_attribute_of_torchs_objects_is_listed(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert not set(filterfalse(is_listed, foreign_attributes(tree)))
    torchs = {
        word
        for word in words(tree) - defined_in(tree)
        if any(hasattr(holder, word) for holder in objects())
        or any(name.startswith(word) for node in nodes() for name in dir(node))
    }
    assert not set(filterfalse(is_listed, torchs))


def test_each_listed_attribute_and_operation_is_used():
    used = set().union(*[foreign_attributes(tree) | words(tree) for tree in trees().values()])
    assert {*_torch.ATTRIBUTES, *_torch.OPERATIONS} <= used


@functools.cache
def nodes() -> list[object]:
    x = torch.ones(3, 3, requires_grad=True)

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    masked = torch.where(x.detach() > 0, x, 0).masked_scatter(x.detach() > 0, x)
    return [masked.grad_fn, Doubled.apply(x).grad_fn]


@functools.cache
def objects() -> list[object]:
    """Return torch's namespaces and one object of each kind that the package reads."""
    script = torch.jit.script(nn.ReLU())
    return [
        torch,
        F,
        nn.Linear(2, 2),
        nn.LSTM(2, 2),
        nn.MultiheadAttention(4, 2),
        script,
        script._c,
        torch.compile(nn.ReLU(), backend="eager"),
        torch.ones(2),
        torch.eye(2).to_sparse(),
        *nodes(),
    ]


def test_each_private_attribute_and_operation_exists():
    known = {name for holder in objects() for name in dir(holder)}
    for listed in (*_torch.ATTRIBUTES, *_torch.OPERATIONS):
        begins = listed.endswith("_")
        assert any(name.startswith(listed) if begins else name == listed for name in known)


def test_each_public_stand_in_for_a_private_name_works():
    with _torch.no_torch_function(), _torch.no_subclasses():
        assert torch.ones(2).sum() == 2
    assert {"data", "requires_grad"} <= set(vars(_torch.TensorBase))
    assert _torch.parse_to("cpu", torch.float64)[:2] == (torch.device("cpu"), torch.float64)
    assert _torch.functorch.maybe_current_level() is None
    script = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    assert [name for name, _ in _torch.script_modules(script._c).items()] == ["0"]
    inner = script._c.getattr("0")
    assert {name for kind in _torch.script_tensors for name, _ in kind(inner).items()} == {
        "weight",
        "bias",
    }
    before = _torch.sequence_number()
    torch.ones(2, requires_grad=True).sum()
    assert _torch.sequence_number() > before
    for layer, kind in ((nn.Conv1d, "ConvNd"), (nn.ConvTranspose2d, "ConvTransposeNd")):
        assert issubclass(layer, getattr(_torch, kind))
    assert issubclass(nn.BatchNorm2d, _torch.NormBase)

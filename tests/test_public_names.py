"""The package's public names can be found, typed, read about and misspelt."""

import ast
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import blitz_helpers

PACKAGE = Path(blitz_helpers.__file__).parent
public_name = pytest.mark.parametrize("name", blitz_helpers.__all__)

CONSUMER = """
import torch
from torch import nn

import blitz_helpers
from blitz_helpers import ShapeError, ShapeTrace, autograd_graph, gradient_report, trace_shapes


def output_shape(model: nn.Module) -> tuple[int, ...]:
    trace: ShapeTrace = trace_shapes(model, (1, 1, 32, 32))
    return tuple(trace.output_shape)


def hint(model: nn.Module) -> str:
    try:
        output_shape(model)
    except ShapeError as error:
        return error.hint
    return ""


graph = autograd_graph(blitz_helpers.Network()(torch.zeros(1, 1, 32, 32)))
names: list[str] = [node.name for node in graph.nodes]
norms: list[float | None] = [row.norm for row in gradient_report(blitz_helpers.Network())]
"""


def test_editors_see_the_names_that_are_loaded_when_used():
    (block,) = (
        node
        for node in ast.parse((PACKAGE / "__init__.py").read_text("utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname: statement.module.removeprefix("blitz_helpers.")
        for statement in block.body
        for alias in statement.names
    }
    assert seen == blitz_helpers._MODULE_OF


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_a_consumers_file_passes_a_strict_checker(checker, tmp_path):
    file = tmp_path / "consumer.py"
    file.write_text(CONSUMER)
    command = {
        "mypy": [sys.executable, "-m", "mypy", "--strict"],  # with what it cached of torch
        "basedpyright": [
            *(sys.executable, "-m", "basedpyright", "--level", "error"),
            *("--pythonpath", sys.executable),
        ],
    }[checker]
    run = subprocess.run(
        [*command, str(file)], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr

    # In a file of its own: what mypy has cached goes by size and second.
    file = tmp_path / "misspelt.py"
    file.write_text(CONSUMER.replace("blitz_helpers.Network", "blitz_helpers.Netwerk"))
    run = subprocess.run(
        [*command, str(file)], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "Netwerk" in run.stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("trace_shape", "trace_shapes"),
        ("AutoGradGraph", "AutogradGraph"),
        ("sgd_steps", "sgd_step"),
    ],
)
def test_a_misspelt_name_is_told_the_one_that_was_meant(typed, meant):
    with pytest.raises(AttributeError, match=f"no attribute '{typed}'. Did you mean '{meant}'"):
        getattr(blitz_helpers, typed)


def test_a_name_that_is_like_no_other_gets_no_advice():
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        blitz_helpers.zzz  # noqa: B018, looking the name up is what fails


def own_classes(annotation):
    """Return the package's classes in an annotation, also inside unions and containers."""
    if inspect.isclass(annotation) and annotation.__module__.startswith("blitz_helpers"):
        return {annotation}
    return set().union(*map(own_classes, typing.get_args(annotation)))


def returned(function):
    """Return the package's classes that a function or a property gives."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError:  # an annotation of something loaded by type checkers alone
        return set()
    return own_classes(hints.get("return"))


@public_name
def test_what_a_public_name_gives_is_public_and_says_where_it_lives(name):
    value = getattr(blitz_helpers, name)
    given = returned(value) if inspect.isfunction(value) else {value}
    if inspect.isclass(value):
        for member in vars(value).values():
            function = member.fget if isinstance(member, property) else member
            if inspect.isfunction(function) and not function.__name__.startswith("_"):
                given |= returned(function)
    for kind in given:
        assert kind.__name__ in blitz_helpers.__all__
        assert not any(part.startswith("_") for part in kind.__module__.split("."))


@public_name
def test_a_public_name_has_an_example_that_runs(name):
    assert ">>> " in (getattr(blitz_helpers, name).__doc__ or "")

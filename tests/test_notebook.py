"""An error in a notebook shows the reader's own lines and the message, and loses nothing."""

import traceback

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from torch import nn

from blitz_helpers import ShapeError
from blitz_helpers.notebook import _shortened, short_errors

CELL = """
def answer(layer, x):
    return layer(x)

answer(layer, torch.ones(1, 4))
"""


@pytest.fixture
def shell(capsys):
    shell = InteractiveShell.instance()
    shell.run_line_magic("colors", "nocolor")
    shell.push({"torch": torch, "layer": nn.Linear(3, 2)})
    short_errors()
    yield shell
    InteractiveShell.clear_instance()


def shown(shell, capsys, code):
    result = shell.run_cell(code)
    printed = capsys.readouterr()
    return result, printed.out + printed.err


def test_lines_inside_torch_are_left_out_and_the_readers_own_stay(shell, capsys):
    result, text = shown(shell, capsys, CELL)
    assert "return layer(x)" in text
    assert "answer(layer, torch.ones(1, 4))" in text
    assert "mat1 and mat2 shapes cannot be multiplied (1x4 and 3x2)" in text
    assert "linear.py" not in text
    assert "_call_impl" not in text
    assert isinstance(result.error_in_exec, RuntimeError)
    assert "_call_impl" in "".join(traceback.format_exception(result.error_in_exec))


def test_an_error_with_a_cause_shows_the_readers_lines_of_both(shell, capsys):
    code = "from blitz_helpers import trace_shapes\ntrace_shapes(layer, (1, 4))"
    result, text = shown(shell, capsys, code)
    assert isinstance(result.error_in_exec, ShapeError)
    assert "trace_shapes(layer, (1, 4))" in text
    assert "_engine.py" not in text
    assert "_tracing.py" not in text


def test_the_line_of_the_series_network_stays(shell, capsys):
    code = "from blitz_helpers import Network\nNetwork()(torch.ones(1, 1, 28, 28))"
    _, text = shown(shell, capsys, code)
    assert "self.fc1(" in text
    assert "in Network.forward" in text


@pytest.mark.parametrize("code", ["1 +", "undefined", "{}['key']"])
def test_the_readers_own_mistakes_keep_their_line(shell, capsys, code):
    result, text = shown(shell, capsys, f"first = 1\n{code}")
    assert not result.success
    assert code in text
    assert "line 2" in text


def test_an_error_wholly_inside_a_package_is_shown_whole():
    try:
        torch.zeros(2).reshape(3)
    except RuntimeError as error:
        found = error
    with _shortened(found):
        assert found.__traceback__ is not None


def test_outside_ipython_nothing_happens():
    short_errors()

"""What is missing is named together with a command that brings it, wherever the reader stands."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from blitz_helpers import _extras

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXTRAS = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]


def names(extra):
    return " ".join(sorted(Requirement(text).name for text in EXTRAS[extra]))


@pytest.mark.parametrize("extra", ["plotting", "data", "training", "tracking"])
def test_the_command_names_all_that_the_extra_brings_and_this_interpreter(extra):
    with pytest.raises(ImportError, match="needs not_there, which is not installed") as caught:
        _extras.require("not_there.part", extra=extra)
    assert str(caught.value).endswith(f"Use: {sys.executable} -m pip install {names(extra)}")


def test_in_a_notebook_it_is_a_cell_that_one_can_run(monkeypatch):
    class IPython:
        @staticmethod
        def get_ipython():
            return object()

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    with pytest.raises(ImportError, match=f"Use: %pip install {names('tracking')}$"):
        _extras.require("not_there", extra="tracking")


def test_without_an_installation_the_package_itself_is_named(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    with pytest.raises(ImportError, match=r"pip install not_there$"):
        _extras.require("not_there", extra="data")


def test_a_package_that_lacks_something_itself_says_so_itself(monkeypatch, tmp_path):
    (tmp_path / "half_there.py").write_text("import not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'not_there'"):
        _extras.require("half_there", extra="data")


@pytest.mark.parametrize("extra", ["", "plotting", "data", "training", "tracking", "explorers"])
def test_with_one_extra_alone_the_others_are_named_where_they_are_needed(extra):
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("one_extra.py")), *extra.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    failed = json.loads(run.stdout)
    brought = {Requirement(text).name for text in EXTRAS.get(extra, [])}
    for name, told in failed:
        needed = re.fullmatch(
            r"ImportError: This needs (\w+), which is not installed. Use: .* -m pip install .+",
            told,
        )
        assert needed, f"{name}: {told}"
        assert needed[1] not in brought, f"{name}: {told}"
    assert "plot_graph" in dict(failed) or extra == "plotting"

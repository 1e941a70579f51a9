"""What is needed is said once: `constraints.txt` and `environment.yml` follow `pyproject.toml`."""

import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import blitz_helpers

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), flags=re.MULTILINE
    )
}


def requirements():
    texts = [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    return [needed for needed in map(Requirement, texts) if needed.name != PROJECT["name"]]


@pytest.mark.parametrize("needed", requirements(), ids=str)
def test_what_pyproject_asks_for_is_pinned_within_its_range(needed):
    assert PINS[canonicalize_name(needed.name)] in needed.specifier


def test_every_line_of_the_constraints_is_an_exact_pin():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert len(PINS) == sum(not line.startswith("#") for line in lines)


@pytest.fixture
def constraints(monkeypatch, tmp_path):
    """Return the program that writes the constraints, for a file of its own."""
    monkeypatch.syspath_prepend(ROOT / ".ci")
    program = importlib.import_module("constraints")
    monkeypatch.setattr(program, "FILE", tmp_path / "constraints.txt")
    program.FILE.write_text("# Why.\nold==1\ntorch==2.13.0\n", "utf-8")
    return program


def test_constraints_are_written_anew_with_their_comments_beside_their_torch(
    constraints, monkeypatch
):
    found = {"torch": "2.13.0+cpu", "Jinja2": "3.1", "blitz-helpers": "0.1", "anyio": "4"}
    packages = [{"metadata": {"name": name, "version": found[name]}} for name in found]
    asked = []

    def pip(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, json.dumps({"install": packages}))

    monkeypatch.setattr(subprocess, "run", pip)
    constraints.main()
    written = constraints.FILE.read_text("utf-8")
    assert written == "# Why.\nanyio==4\nJinja2==3.1\ntorch==2.13.0\n"
    assert {"torch==2.13.0", ".[dev]", "--dry-run"} <= set(asked[-1])


def test_constraints_stay_as_they_were_where_pip_finds_no_set(constraints, monkeypatch):
    def pip(command, **_):
        return subprocess.CompletedProcess(command, 1, "")

    before = constraints.FILE.read_text("utf-8")
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(SystemExit, match="as it was"):
        constraints.main()
    assert constraints.FILE.read_text("utf-8") == before


def test_the_stored_outputs_come_from_torch_2_13():
    assert PINS["torch"] == "2.13.0"


def test_environment_yml_installs_the_notebooks_extra_with_the_pins():
    lines = (ROOT / "environment.yml").read_text("utf-8").splitlines()
    pip = [line.strip().removeprefix("- ") for line in lines[lines.index("  - pip:") + 1 :]]
    assert "-c constraints.txt" in pip
    assert "-e .[notebooks]" in pip


def test_environment_yml_names_the_python_with_which_the_pages_are_stored():
    python = re.search(r"- python=(\S+)", (ROOT / "environment.yml").read_text("utf-8"))[1]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f'"version": "{python}"' in path.read_text("utf-8"), path.name


def test_make_installs_with_the_pins():
    assert '"--constraint", "constraints.txt"' in (ROOT / ".ci" / "setup.py").read_text("utf-8")


def test_torch_alone_is_needed_for_the_import():
    assert [Requirement(text).name for text in PROJECT["dependencies"]] == ["torch"]


def test_an_extra_that_the_code_names_exists():
    sources = (ROOT / "blitz_helpers").rglob("*.py")
    named = {
        extra for path in sources for extra in re.findall(r'extra="(\w+)"', path.read_text("utf-8"))
    }
    assert named <= EXTRAS.keys()
    assert {"plotting", "data", "tracking", "notebooks", "dev"} <= EXTRAS.keys()


def test_the_version_is_written_once():
    assert "version" in PROJECT["dynamic"]
    assert f"## {blitz_helpers.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_package_says_that_it_is_typed():
    assert (Path(blitz_helpers.__file__).parent / "py.typed").exists()


def test_the_citation_names_the_version():
    assert f"version: {blitz_helpers.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "workflows").iterdir()), ids=lambda path: path.name
)
def test_a_workflow_runs_nothing_that_is_not_there(path):
    targets = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for line in re.findall(r"run: (.+)", path.read_text("utf-8")):
        if line.startswith("make "):
            assert line.removeprefix("make ") in targets
        if line.startswith("bash "):
            assert (ROOT / line.removeprefix("bash ")).exists()

"""Imports run one way, and `import blitz_helpers` stays light."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from itertools import repeat
from pathlib import Path

import pytest

import blitz_helpers
from blitz_helpers.trace._op import FAMILIES

PACKAGE = Path(blitz_helpers.__file__).parent
ROOM_IN_THE_MAP = re.compile(r"^### `(.*?)`, about ([\d,]+) lines\n(.*?)(?=^### |\Z)", re.M | re.S)
MAY_IMPORT = {
    "__init__": set(),
    "_extras": set(),
    "_insides": set(),
    "_random_states": set(),
    "_run_file": {"_extras"},
    "_statistics": set(),
    "_tables": set(),
    "_threads": set(),
    "_torch": set(),
    "_running": {"_threads", "_torch"},
    "_update_checks": set(),
    "shapes": set(),
    "network": {"shapes"},
    "notebook": set(),
    "trace": {
        *("_insides", "_random_states", "_running", "_tables", "_threads", "_torch", "shapes")
    },
    "gradients": {"_statistics", "_tables"},
    "graph": {"_running", "_tables", "_torch"},
    "updates": {"_update_checks"},
    "data": {"_extras"},
    "training": {"_extras", "_insides", "_random_states", "_tables"},
    "tracking": {"_extras", "_run_file"},
    # What the others return, by its type alone: see `runtime_imports`.
    "plotting": {"_extras"},
    "exercises": {
        *("_random_states", "data", "network", "notebook", "shapes", "trace", "training", "updates")
    },
    "explorers": {
        *("_extras", "_random_states", "_running", "data", "plotting", "shapes", "trace")
    },
    "train": {"data", "network", "tracking", "training", "updates"},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(tree: ast.AST) -> list[str]:
    """Return the dotted names that run as imports, those under TYPE_CHECKING left out."""
    found = []
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        todo += ast.iter_child_nodes(node)
    return found


def imported_rooms(path: Path) -> set[str]:
    """Return the other rooms of the package that a file imports from."""
    names = imported_modules(ast.parse(path.read_text("utf-8")))
    rooms = {name.split(".")[1] for name in names if name.startswith("blitz_helpers.")}
    return rooms - {room(path)}


def test_each_room_imports_those_below_it_that_are_allowed_and_no_other():
    made: dict[str, set[str]] = {}
    for path in sources():
        made.setdefault(room(path), set()).update(imported_rooms(path))
    assert made == MAY_IMPORT


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_modules_import_each_other_in_no_circle():
    files = {module_of(path): path for path in sources()}
    imports = {
        module: {
            imported if imported in files else imported.rpartition(".")[0]
            for imported in imported_modules(ast.parse(path.read_text("utf-8")))
            if imported.startswith("blitz_helpers.")
        }
        for module, path in files.items()
    }
    TopologicalSorter(imports).prepare()  # raises a CycleError


def test_shapes_stands_on_the_standard_library_alone():
    tree = ast.parse((PACKAGE / "shapes.py").read_text("utf-8"))
    packages = {name.partition(".")[0] for name in imported_modules(tree)}
    assert packages <= sys.stdlib_module_names


def test_the_map_names_each_file_and_tells_the_size_of_each_room():
    page = (PACKAGE.parent / "docs" / "ARCHITECTURE.md").read_text("utf-8")
    told = {}
    for folder, lines, body in ROOM_IN_THE_MAP.findall(page):
        files = set(re.findall(r"^\| `(\w+\.py)` \|", body, re.MULTILINE)) | {"__init__.py"}
        told[PACKAGE / folder.removeprefix("blitz_helpers/")] = files, int(lines.replace(",", ""))
    rooms = {path.parent for path in sources()}
    assert told.keys() == rooms
    for folder, (files, about) in told.items():
        texts = {path.name: path.read_text("utf-8") for path in folder.glob("*.py")}
        assert files == texts.keys()
        assert about == pytest.approx(sum(map(str.count, texts.values(), repeat("\n"))), rel=0.15)


def test_import_loads_torch_and_nothing_else_heavy():
    program = "import sys, blitz_helpers; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = set(run.stdout.split())
    assert "torch" in loaded
    heavy = {"matplotlib", "wandb", "sklearn", "mlxtend", "ipywidgets", "anywidget", "igraph"}
    assert loaded & heavy == set()


def test_a_trace_that_passes_loads_neither_remedies_nor_tables_nor_families_it_does_not_use():
    program = (
        "import sys; from blitz_helpers import Network, trace_shapes; "
        "trace_shapes(Network(), (1, 1, 32, 32)); print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    trace = {name.removeprefix("blitz_helpers.trace.") for name in run.stdout.split()}
    assert {"_engine", "ops.windows"} <= trace
    seldom = {"_failures", "_holders", "_scripts", "_unstrided", "calls", "remedies"}
    others = set(FAMILIES) - {"windows", "pools", "pointwise", "views", "products"}
    assert trace & {*seldom, *[f"ops.{family}" for family in others]} == set()


def test_every_file_of_operations_is_among_the_families():
    files = (PACKAGE / "trace" / "ops").glob("[!_]*.py")
    assert sorted(FAMILIES) == sorted(path.stem for path in files)


def test_public_names_resolve_after_a_bare_import():
    for name in blitz_helpers.__all__:
        assert getattr(blitz_helpers, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'plot_grpah'"):
        _ = blitz_helpers.plot_grpah

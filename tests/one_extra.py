"""Run the examples of all public names as if torch, and the packages of at most one extra, were
all that is installed; print those that failed as JSON.

usage: python one_extra.py [EXTRA]
"""

import doctest
import json
import sys
import tomllib
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]


def add_needed(text, found):
    """Add the names of the distributions that a requirement brings to ``found``."""
    requirement = Requirement(text)
    name = canonicalize_name(requirement.name)
    if name not in found and (requirement.marker is None or requirement.marker.evaluate()):
        found.add(name)
        for line in metadata.requires(name) or []:
            if "extra" not in line.partition(";")[2]:
                add_needed(line, found)


class Finder(PathFinder):
    """Finds the modules that are needed, as if the others were not installed."""

    def __init__(self, extra):
        self.needed = {"blitz-helpers"}
        for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, [])]:
            add_needed(text, self.needed)
        self.distributions = metadata.packages_distributions()

    def find_spec(self, name, path=None, target=None):
        brought_by = self.distributions.get(name)
        if brought_by and self.needed.isdisjoint(map(canonicalize_name, brought_by)):
            return None
        return super().find_spec(name, path, target)


class Examples(doctest.DocTestRunner):
    """Notes how examples failed, and leaves out what follows in the same docstring."""

    def __init__(self):
        super().__init__(verbose=False, optionflags=doctest.ELLIPSIS | doctest.FAIL_FAST)
        self.failed = []

    def report_unexpected_exception(self, out, test, example, caught):
        if not example.source.startswith("import "):  # an example that itself needs a package
            self.failed.append([test.name, f"{caught[0].__name__}: {caught[1]}"])

    def report_failure(self, out, test, example, got):
        self.failed.append([test.name, got.strip().splitlines()[-1]])


if __name__ == "__main__":
    sys.meta_path[sys.meta_path.index(PathFinder)] = Finder(" ".join(sys.argv[1:]))
    import blitz_helpers

    examples = Examples()
    for name in blitz_helpers.__all__:
        for test in doctest.DocTestFinder().find(getattr(blitz_helpers, name), name):
            examples.run(test)
    json.dump(examples.failed, sys.stdout)

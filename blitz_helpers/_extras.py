"""Imports optional packages when a function first needs them."""

from __future__ import annotations

import re
import sys
from importlib import import_module, metadata
from typing import Any


def require(module: str, extra: str) -> Any:
    """Import and return ``module``, or raise an error that names the packages of the extra.

    Raises:
        ImportError: the module's package is not installed.

    >>> require("json", extra="data").dumps([1, 2])
    '[1, 2]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is installed, but one of its own dependencies is not
        raise ImportError(
            f"This needs {package}, which is not installed. "
            f"Use: {_pip()} install {' '.join(_packages(extra)) or package}"
        ) from error


def _packages(extra: str) -> list[str]:
    """Return the packages of an extra, from the metadata of this package."""
    try:
        lines = metadata.requires("blitz-helpers") or []
    except metadata.PackageNotFoundError:  # imported from a folder without being installed
        return []
    wanted = re.compile(rf"""([\w.-]+)[^;]*;\s*extra\s*==\s*['"]{extra}['"]""")
    return sorted(match[1] for match in map(wanted.match, lines) if match)


def _pip() -> str:
    """Return the pip of this very interpreter, as one types it where the error is seen."""
    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and ipython.get_ipython() is not None
    return "%pip" if in_notebook else f"{sys.executable} -m pip"

"""Modules that not everybody has installed, imported when a function needs them."""

from importlib import import_module
from typing import Any


def require(module: str, extra: str) -> Any:
    """Return ``module``, or say which extra of this package brings it.

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
            raise  # the package is there, and something that it needs itself is not
        raise ImportError(
            f"This needs {package}, which is not installed. "
            f"Use: pip install 'blitz-helpers[{extra}]'"
        ) from error

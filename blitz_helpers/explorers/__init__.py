"""Interactive pictures for a notebook: Python computes the numbers, a small script draws them."""

from blitz_helpers.explorers._explorer import Explorer

__all__ = ["Explorer"]
Explorer.__module__ = __name__  # the public path, for tracebacks and pickles

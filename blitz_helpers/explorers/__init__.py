"""Something to move in a notebook. Python computes what is seen, a small script draws it."""

from blitz_helpers.explorers._explorer import Explorer

__all__ = ["Explorer"]
Explorer.__module__ = __name__  # where users find it

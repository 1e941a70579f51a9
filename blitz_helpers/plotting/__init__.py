"""Everything drawn with matplotlib: records and numbers in, ``Axes`` out.

Each ``plot_*`` function takes an optional ``ax`` and returns the ``Axes`` it drew on;
:func:`show` puts such a picture on a notebook's page, together with its alt text.
"""

from blitz_helpers.plotting._canvas import Picture, show

__all__ = ["Picture", "show"]
Picture.__module__ = __name__  # where users find it

"""Everything drawn with matplotlib: records and numbers in, ``Axes`` out.

Each ``plot_*`` function draws on ``ax``, or on a new figure, and returns the ``Axes``; :func:`show`
puts such a picture on a notebook's page, together with its alt text. Where matplotlib is not
installed, they raise an ImportError that names what to install.
"""

from blitz_helpers.plotting._canvas import Picture, show

__all__ = ["Picture", "show"]
Picture.__module__ = __name__  # the public path, for tracebacks and pickles

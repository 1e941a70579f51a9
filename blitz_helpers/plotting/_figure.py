"""The figure that plots make. Imported by :mod:`._settings` alone, for it needs matplotlib."""

from matplotlib.figure import Figure

from blitz_helpers.plotting._settings import same_for_all


class SameForAll(Figure):
    """A figure that looks alike whatever the user has set, until it is on the page."""

    # Some settings, such as the fonts to choose from, are read only when a figure is drawn.
    draw = same_for_all(Figure.draw)

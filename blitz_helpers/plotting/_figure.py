"""The figure class of all plots. Only :mod:`._canvas` imports it, since it needs matplotlib."""

from matplotlib.figure import Figure

from blitz_helpers.plotting._settings import default_style


class DefaultStyleFigure(Figure):
    """A figure that is drawn under matplotlib's default settings, whatever the user has set."""

    # Matplotlib reads some settings, such as the font families, only when it draws a figure.
    draw = default_style()(Figure.draw)

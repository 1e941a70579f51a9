"""What the tests of several plots ask of a picture."""

from itertools import combinations


def boxes(ax, gid):
    """Return left, top, width and height of the boxes drawn as ``gid``."""
    patches = [patch for patch in ax.patches if patch.get_gid() == gid]
    return [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in patches]


def assert_apart(texts):
    """Check that none of the texts covers another once the picture is drawn."""
    texts = [text for text in texts if text.get_text()]
    texts[0].figure.draw_without_rendering()
    extents = [text.get_window_extent() for text in texts]
    assert not any(one.overlaps(other) for one, other in combinations(extents, 2))

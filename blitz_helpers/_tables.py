"""Formats rows of text as aligned tables, for a terminal and for JupyterLab."""

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return an aligned plain-text table.

    ``align`` has one character per column, as in format strings: ``"<"`` or ``">"``.

    >>> print(text_table(["name", "size"], [["conv1.weight", "54"]], align="<>"))
    name          size
    ------------  ----
    conv1.weight    54
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    line = ["-" * width for width in widths]
    lines = (
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)
        )
        for row in (header, line, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return the same table as HTML, in the colours of the page around it.

    >>> html_table(["n"], [["<b>"]], align=">")
    '<table><thead>...<td style="text-align: right">&lt;b&gt;</td></tr></tbody></table>'
    """
    from html import escape  # loads two thousand HTML entities, so only when needed

    sides = ["right" if side == ">" else "left" for side in align]

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def scroll_box(html: str, name: str) -> str:
    """Return HTML in a box that scrolls sideways on a narrow page, also by keyboard.

    A screen reader says ``name`` when the box has the focus.
    """
    # JupyterLab takes keys for its shortcuts unless the focused element suppresses them, as this
    # one does for the keys that scroll it. Notebook 7 looks before the element hears of the key,
    # so there the key before it decides: before Ctrl+S that is Ctrl.
    shortcuts = "data-lm-suppress-shortcuts"
    keys = (
        f"{shortcuts} onmousedown=\"this.removeAttribute('{shortcuts}')\" "
        f"onkeydown=\"this.toggleAttribute('{shortcuts}', /Left|Right/.test(event.key))\""
    )
    return (
        f'<div role="group" aria-label="{name}" tabindex="0" style="overflow-x: auto" {keys}>'
        f"{html}</div>"
    )

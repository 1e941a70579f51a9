"""Shows calls of modules and the steps inside them as one table, with equal parts folded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from blitz_helpers._tables import html_table, text_table

WIDTH = 100
_MOST_OPEN_ROWS = 40  # a longer table starts with its blocks closed
# JupyterLab's own font, if the page has one.
CODE_FONT = 'style="font-family: var(--jp-code-font-family, monospace)"'


class Branch(NamedTuple):
    """A call of a module, with the rows and the branches inside it, in order.

    A call with a row of its own is its first item.
    """

    call: Any
    items: tuple[Any, ...]


class Column(NamedTuple):
    """One column of a table.

    The text leaves out an ``optional`` column that is empty. If it is too wide, it shortens columns
    in the order of ``turn``; those with a ``turn`` of 0 keep their width.
    """

    title: str
    align: str
    cell: Callable[[Any], str]
    optional: bool = False
    turn: int = 0


class Layout(NamedTuple):
    """Shows rows of one kind as a table, and tells how to compare and fold them.

    Two rows count as equal if ``alike(row, skip)`` gives the same for both; it leaves out the first
    ``skip`` characters of the module's path. ``fold(first, calls, rows)`` returns the one row that
    stands for ``calls``, all of them equal to the call ``first``, and for the ``rows`` in them.
    """

    columns: tuple[Column, ...]
    alike: Callable[[Any, int], object]
    fold: Callable[[Any, list[Any], list[Any]], Any]

    def text(self, items: Sequence[Any]) -> str:
        """Return the items as aligned text of at most 100 columns."""
        rows = rows_in(self._folded(items))
        cells = {column: [column.cell(row) for row in rows] for column in self.columns}
        shown = [column for column in self.columns if not column.optional or any(cells[column])]
        widths = {column: max(map(len, [column.title, *cells[column]])) for column in shown}
        excess = sum(widths.values()) + 2 * (len(shown) - 1) - WIDTH
        for least in (16, 6):
            for column in sorted(filter(lambda c: c.turn, shown), key=lambda c: c.turn):
                cut = min(max(0, excess), max(0, widths[column] - least))
                widths[column] -= cut
                excess -= cut
        lines = zip(*[[_clip(cell, widths[c]) for cell in cells[c]] for c in shown], strict=True)
        align = "".join(column.align for column in shown)
        return text_table([column.title for column in shown], list(lines), align)

    def html(self, items: Sequence[Any]) -> str:
        """Return the items as tables, with a block that can be closed for each branch."""
        folded = self._folded(items)
        is_short = len(rows_in(folded)) <= _MOST_OPEN_ROWS
        return "".join(self._html(folded, is_short))

    def _folded(self, items: Sequence[Any]) -> list[Any]:
        """Return the items, at every depth with one row for the parts that repeat the one before.

        A part is a branch and the rows between it and the next.
        """
        items = [item for item in items if rows_in([item])]
        starts = [place for place, item in enumerate(items) if isinstance(item, Branch)]
        parts = [items[start:end] for start, end in pairwise([*starts, len(items)])]
        shown = items[: starts[0]] if starts else items
        place = 0
        while place < len(parts):
            (call, inside), *after = parts[place]
            shown += [Branch(call, tuple(self._folded(inside))), *after]
            again = self._repeats(parts[place:])
            if len(again) * len(rows_in(inside)) > 1:  # otherwise the table gets no shorter
                calls = [branch.call for branch, *_ in again]
                rows = [row for part in again for row in rows_in(part)]
                shown.append(self.fold(call, calls, rows))
                place += len(again)
                shown += parts[place][1 + len(after) :]
            place += 1
        return shown

    def _repeats(self, parts: Sequence[list[Any]]) -> list[list[Any]]:
        """Return the parts that repeat the first one; further rows of the last one are cut off."""
        length = len(parts[0])
        wanted = self._common(parts[0])
        again: list[list[Any]] = []
        for part in parts[1:]:
            if self._common(part[:length]) != wanted:
                break
            again.append(part[:length])
            if len(part) > length:
                break
        return again

    def _common(self, part: list[Any]) -> list[object]:
        branch, *after = part
        skip = len(branch.call.module)
        inside = [self.alike(row, skip) for row in rows_in(branch.items)]
        return [*inside, *[self.alike(row, 0) for row in after]]

    def _html(self, items: Iterable[Any], is_short: bool) -> Iterator[str]:
        from html import escape  # as in `html_table`

        header = [column.title for column in self.columns]
        align = "".join(column.align for column in self.columns)
        for is_block, group in groupby(_blocks(items), lambda item: isinstance(item, Branch)):
            if not is_block:
                # Blocks show the depth that text shows by indentation.
                cells = [[column.cell(row).lstrip() for column in self.columns] for row in group]
                yield html_table(header, cells, align)
                continue
            for call, inside in group:
                is_open = " open" if is_short or not call.depth else ""
                yield f'<details style="margin-left: 1em"{is_open}>'
                yield f"<summary>{escape(call.title)}</summary>"
                yield from self._html([item for item in inside if item is not call], is_short)
                yield "</details>"


def rows_in(items: Iterable[Any]) -> list[Any]:
    """Return the rows among the items, and in the branches among them."""
    rows: list[Any] = []
    for item in items:
        if isinstance(item, Branch):
            rows += rows_in(item.items)
        else:
            rows.append(item)
    return rows


def _blocks(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items, with its row in place of a branch that has only one."""
    for item in items:
        rows = rows_in([item])
        yield rows[0] if len(rows) == 1 else item


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."

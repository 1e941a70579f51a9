"""A tree of calls and rows, equal parts of which are folded, shown as one table: text or HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from blitz_helpers._tables import html_table, text_table

WIDTH = 100
_UNFOLDED = 40  # rows up to which every block stands open
# JupyterLab's own, where there is one.
CODE_FONT = 'style="font-family: var(--jp-code-font-family, monospace)"'


class Branch(NamedTuple):
    """A call of a module, and in order the branches and the rows inside it.

    A row is whatever the columns understand. A call that has a row of its own is its first item.
    """

    call: Any
    items: tuple[Any, ...]


class Part(NamedTuple):
    """A branch, and the rows that its parent adds before the next one."""

    branch: Branch
    after: tuple[Any, ...]


class Fold(NamedTuple):
    """Parts that only repeat the one before them."""

    first: Branch
    again: tuple[Part, ...]

    @property
    def names(self) -> str:
        """The names of the parts."""
        begin, end = self.again[0].branch.call.name, self.again[-1].branch.call.name
        return begin if begin == end else f"{begin} to {end}"

    @property
    def times(self) -> str:
        """How often they repeat what."""
        return f"{len(self.again)} x {self.first.call.module or self.first.call.type}"

    @property
    def calls(self) -> list[Any]:
        """The calls that they are, without those inside them."""
        return [part.branch.call for part in self.again]

    @property
    def rows(self) -> list[Any]:
        """The rows in them, those that their parent adds included."""
        return [row for part in self.again for row in (*rows_in(part.branch.items), *part.after)]

    def sum(self, attribute: str) -> int:
        """Return the sum of what the parts count under this name."""
        counted = [one for part in self.again for one in (part.branch.call, *part.after)]
        return sum(getattr(one, attribute) for one in counted)


class Column(NamedTuple):
    """A column: its cell in a row, its cell in a fold, and when it is cut.

    ``cut`` is its turn to give way where the table is too wide; 0: never.
    """

    title: str
    align: str
    cell: Callable[[Any], str]
    folded: Callable[[Fold], str]
    cut: int = 0


class Layout(NamedTuple):
    """How a tree is shown.

    ``alike`` returns what rows of equal parts have in common. It takes a row, and how many
    characters of its module's path are to be left out.
    """

    columns: tuple[Column, ...]
    alike: Callable[[Any, int], object]

    def text(self, root: Branch) -> str:
        """Return the tree as aligned text of at most 100 columns."""
        return self._fitted(list(map(self._cells, rows_in(self.folded(root).items))))

    def html(self, root: Branch) -> str:
        """Return the tree as tables, those of a block inside one that folds away."""
        tree = self.folded(root)
        shown = sum(not isinstance(row, Fold) for row in rows_in(tree.items))
        return "".join(self._html(tree, shown <= _UNFOLDED))

    def folded(self, branch: Branch) -> Branch:
        """Return the branch with the parts that repeat the one before folded, at every depth."""
        rows, parts = _parts(branch.items)
        items: list[Any] = rows
        while parts:
            first, *rest = parts
            again = self._repeats(first, rest)
            items += [self.folded(first.branch), *first.after]
            if again:
                items.append(Fold(first.branch, tuple(again)))
                # After the last of them the parent may have done more.
                items += rest[len(again) - 1].after[len(first.after) :]
            parts = rest[len(again) :]
        return Branch(branch.call, tuple(items))

    def _repeats(self, first: Part, rest: Sequence[Part]) -> list[Part]:
        """Return the parts at the beginning of ``rest`` that equal ``first``, if it pays."""
        length = len(first.after)
        wanted = self._common(first)
        again: list[Part] = []
        for part in rest:
            same = Part(part.branch, part.after[:length])
            if self._common(same) != wanted:
                break
            again.append(same)
            if len(part.after) > length:
                break
        hides_rows = len(again) * len(list(rows_in(first.branch.items))) > 1
        return again if hides_rows else []

    def _common(self, part: Part) -> list[object]:
        skip = len(part.branch.call.module)
        inside = [self.alike(row, skip) for row in rows_in(part.branch.items)]
        return [*inside, *[self.alike(row, 0) for row in part.after]]

    def _cells(self, row: Any) -> list[str]:
        if isinstance(row, Fold):
            return [column.folded(row) for column in self.columns]
        return [column.cell(row) for column in self.columns]

    def _fitted(self, rows: list[list[str]]) -> str:
        """Return the rows as a table, without empty columns and with the others cut where needed.

        The first three columns are shown even where they are empty.
        """
        cells = list(zip(*rows, strict=True)) or [()] * len(self.columns)
        shown = [i for i in range(len(self.columns)) if i < 3 or any(cells[i])]
        widths = {i: max(map(len, (self.columns[i].title, *cells[i]))) for i in shown}
        excess = sum(widths.values()) + 2 * (len(shown) - 1) - WIDTH
        turns = sorted((i for i in shown if self.columns[i].cut), key=lambda i: self.columns[i].cut)
        for least in (16, 6):
            for i in turns:
                give = min(max(0, excess), max(0, widths[i] - least))
                widths[i] -= give
                excess -= give
        header = [self.columns[i].title for i in shown]
        align = "".join(self.columns[i].align for i in shown)
        return text_table(
            header, [[_clip(row[i], widths[i]) for i in shown] for row in rows], align
        )

    def _html(self, branch: Branch, unfolded: bool) -> Iterator[str]:
        """Yield the tables and the blocks that fold away, in order."""
        from html import escape  # as in `html_table`

        rows: list[Any] = []
        for item in (*_pieces(branch), None):
            if item is not None and not isinstance(item, Branch):
                rows.append(item)
                continue
            if rows:
                header = [column.title for column in self.columns]
                align = "".join(column.align for column in self.columns)
                # Blocks show the depth that text shows by indentation.
                cells = [[cell.lstrip() for cell in self._cells(row)] for row in rows]
                yield html_table(header, cells, align)
                rows.clear()
            if item is not None:
                call = item.call
                stands_open = " open" if unfolded or not call.depth else ""
                yield f'<details style="margin-left: 1em"{stands_open}>'
                yield f"<summary>{escape(call.title)}</summary>"
                yield from self._html(item, unfolded)
                yield "</details>"


def rows_in(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the rows among the items, and in the branches among them."""
    for item in items:
        if isinstance(item, Branch):
            yield from rows_in(item.items)
        else:
            yield item


def _parts(items: Sequence[Any]) -> tuple[list[Any], list[Part]]:
    """Return the rows before the first branch, and each branch with the rows after it."""
    starts = [place for place, item in enumerate(items) if isinstance(item, Branch)]
    parts = [
        Part(items[start], tuple(items[start + 1 : end]))
        for start, end in pairwise([*starts, len(items)])
    ]
    return list(items[: starts[0]] if starts else items), parts


def _pieces(branch: Branch) -> Iterator[Any]:
    """Yield the rows and the blocks in a branch; its own row stands in the block's summary."""
    for item in branch.items:
        if isinstance(item, Branch) and not _is_block(item):
            # Nothing to fold: what is in it stands where it stands.
            yield from _pieces(Branch(None, item.items))
        elif item is not branch.call:
            yield item


def _is_block(branch: Branch) -> bool:
    """Whether the branch folds away: more than one row, and more than the steps of the root."""
    has_its_own_row = branch.items[:1] == (branch.call,)
    return len(list(rows_in(branch.items))) > 1 and bool(branch.call.depth or has_its_own_row)


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."

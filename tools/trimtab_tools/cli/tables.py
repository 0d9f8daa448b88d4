"""Text tables, and numbers with their noun."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()
) -> str:
    """Lines of equal columns, each ended by a line feed. Numbers are aligned to the right.

    Args:
        header: a name for each column.
        rows: the cells below it.
        left: names of columns to align to the left, since they hold words, beside the first.
    """
    lines = [header, *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = [not index or name in left for index, name in enumerate(header)]
    return "".join(_line(line, widths, words) for line in lines)


def one_line(text: str) -> str:
    r"""The text with escapes such as \n for what is not printable: others may have chosen it."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def table_of(
    items: Iterable[_T], columns: Mapping[str, Callable[[_T], str]], *, left: Collection[str] = ()
) -> str:
    """A table with a line for each item, and for each column what shows an item in it."""
    rows = [[cell(item) for cell in columns.values()] for item in items]
    return table(list(columns), rows, left=left)


def counted(number: int, what: str) -> str:
    """Such as "no events", "1 event" or "2 events"."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _line(cells: Sequence[str], widths: Sequence[int], words: Sequence[bool]) -> str:
    columns = zip(cells, widths, words, strict=True)
    shown = (cell.ljust(width) if word else cell.rjust(width) for cell, width, word in columns)
    return "  ".join(shown).rstrip() + "\n"

"""Tables that are printed as Markdown row by row, and also stored as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench import tables


class LeftOutError(Exception):
    """A section cannot run here; the message says what is missing."""


class Report:
    """Writes each row to a file at once, so that rows survive if the section is stopped.

    Args:
        file: for the rows; None to store nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table under a heading, each row as soon as it is available."""
        tables.print_table(title, columns, self._kept(title, columns, rows))

    def _kept(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> Iterator[Sequence[str]]:
        for row in rows:
            if self._file is not None:
                with self._file.open("a") as file:
                    named = dict(zip(columns, row, strict=True))
                    file.write(json.dumps({"title": title, "row": named}) + "\n")
            yield [_shown(value) for value in row]


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read_tables(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows that a report has stored, by title of their table."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in file.read_text().splitlines():
        entry = json.loads(line)
        found.setdefault(entry["title"], []).append(entry["row"])
    return found

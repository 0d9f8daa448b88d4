"""Reads a history while it is being written."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab_tools.history import Report, check_history, read_history

Line = Mapping[str, Any]


class HistoryTail:
    """The lines so far of a history, which need not exist yet. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._offset = 0
        self._by_kind: defaultdict[str, list[Line]] = defaultdict(list)

    def count(self, kind: str) -> int:
        """The number of lines of a kind so far."""
        with self._lock:
            self._read_on()
            return len(self._by_kind[kind])

    def lines(self, kind: str, **values: Any) -> list[Line]:
        """All lines of a kind that have these values, in order; versions are like [4, 7]."""
        with self._lock:
            self._read_on()
            found = list(self._by_kind[kind])
        return [line for line in found if all(line.get(k) == v for k, v in values.items())]

    def verdict(self, *, complete: bool) -> Report | None:
        """What the history checker finds; None if nothing was ever written.

        The run has come to rest if it is `complete`, so that every switch must have ended.
        """
        if not self._path.exists():
            return None
        with self._path.open("rb") as lines:
            return check_history(read_history(lines), complete=complete)

    def open_switches(self) -> list[Any]:
        """The versions, as [4, 7], that were offered in the newest epoch and have not ended."""
        newest = max((line["epoch"] for line in self.lines("epoch")), default=0)
        ended = [line["version"] for kind in ("applied", "aborted") for line in self.lines(kind)]
        offered = [line["version"] for line in self.lines("offered")]
        return [version for version in offered if version[0] == newest and version not in ended]

    def _read_on(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            # The last line is still being written, or empty.
            *whole, _ = file.read().split(b"\n")
        self._offset += sum(len(line) + 1 for line in whole)
        for line in map(json.loads, filter(None, whole)):
            self._by_kind[line["kind"]].append(line)

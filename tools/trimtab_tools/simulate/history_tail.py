"""Reads a history while it is being written."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab_client.exceptions import InvalidArgumentError
from trimtab_tools.history import Report, check_history, read_history
from trimtab_tools.simulate.errors import FleetError

Line = Mapping[str, Any]


class HistoryTail:
    """The lines so far of a history, which need not exist yet. Any thread may use it.

    Lines that cannot be read are passed over: `verdict` names the first of them.

    Args:
        path: of the history.
        only_new: leave out what it has already, such as an earlier run on the same server.
            `verdict` reads that, too.

    Raises:
        FleetError: by all methods, if the file cannot be read.
    """

    def __init__(self, path: Path, *, only_new: bool = False) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._offset = path.stat().st_size if only_new and path.exists() else 0
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

    def verdict(self, *, complete: bool) -> Report:
        """What the history checker finds.

        The run has come to rest if it is `complete`, so that every switch must have ended.

        Raises:
            FleetError: the file cannot be read, or a line of it. The message names both.
        """
        try:
            with self._path.open("rb") as lines:
                return check_history(read_history(lines), complete=complete)
        except InvalidArgumentError as error:
            raise FleetError(f"{self._path}: {error}") from error
        except OSError as error:
            raise FleetError(str(error)) from error

    def open_switches(self) -> list[Any]:
        """The versions, as [4, 7], that were offered in the newest epoch and have not ended."""
        epochs = [line.get("epoch") for line in self.lines("epoch")]
        newest = max((epoch for epoch in epochs if isinstance(epoch, int)), default=0)
        ended = [*self._versions("applied"), *self._versions("aborted")]
        offered = self._versions("offered")
        return [version for version in offered if version[0] == newest and version not in ended]

    def _versions(self, kind: str) -> list[list[Any]]:
        versions = [line.get("version") for line in self.lines(kind)]
        return [each for each in versions if isinstance(each, list) and each]

    def _read_on(self) -> None:
        try:
            if not self._path.exists():
                return
            with self._path.open("rb") as file:
                file.seek(self._offset)
                # The last line is still being written, or empty.
                *whole, _ = file.read().split(b"\n")
        except OSError as error:
            raise FleetError(str(error)) from error
        self._offset += sum(len(line) + 1 for line in whole)
        for line in map(_object, whole):
            kind = line.get("kind")
            if isinstance(kind, str):
                self._by_kind[kind].append(line)


def _object(text: bytes) -> Line:
    """The JSON object of a line; an empty one if it has none."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}

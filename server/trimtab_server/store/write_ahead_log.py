"""SQLite's write-ahead log: makes commits durable, and keeps the log's file small."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from trimtab_server.store.errors import StoreError

_CHECKPOINT_PAGES = 256
"""Pages of 4 KiB in the log at which SQLite copies them to the file. In 300 switches of 58 layers
of 256 experts, the log takes 1.1 MiB instead of 4.0 with SQLite's 1000 pages, and a save takes
as long: `python -m tests.bench store`."""

_KEPT_BYTES = 1 << 20
"""Size to which SQLite cuts the log's file when it begins it anew."""

_MAX_BYTES = 4 << 20
"""Size above which the log is emptied here, since readers have kept SQLite from doing so."""

_READERS_S = 1.0
"""How long such an attempt waits for readers to end. One whose size is not new does not wait."""


class WriteAheadLog:
    """The log of one file.

    Args:
        path: of the database; the log lies beside it.
        timeout: how long other calls wait for programs that have locked the file, in seconds.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path.with_name(path.name + "-wal")
        self._timeout = timeout
        self._wait_above = _MAX_BYTES

    def turn_on(self, connection: sqlite3.Connection) -> None:
        """Make each commit durable before it returns, and all earlier ones now.

        With a write-ahead log, each commit costs one sync.

        Raises:
            StoreError: the file system does not support it, or another program uses the file.
        """
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(
                f"its file system allows journal mode {mode} only; put it on a local disk"
            )
        connection.execute("PRAGMA synchronous = FULL")
        # On macOS a plain fsync stops at the drive's cache.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_KEPT_BYTES}")
        if not empty_log(connection):
            raise StoreError("another program reads or writes it; stop that program")

    def keep_small(self, connection: sqlite3.Connection) -> None:
        """Empty the log if its file has grown too large. Call this after a commit.

        SQLite itself only can while nobody reads what was there before the last commit. Programs
        whose reads overlap would let the log grow for ever. A failure is no failure of the commit,
        and the next call tries again.
        """
        size = self._size()
        if size <= _MAX_BYTES:
            self._wait_above = _MAX_BYTES
            return
        wait = _READERS_S if size > self._wait_above else 0.0
        with suppress(sqlite3.Error):
            _wait_for_locks(connection, wait)
            if not empty_log(connection) and wait:
                self._wait_above = size + _MAX_BYTES
        with suppress(sqlite3.Error):
            _wait_for_locks(connection, self._timeout)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def empty_log(connection: sqlite3.Connection) -> bool:
    """Copy all of the log to the file, and empty it; returns False if other programs read it."""
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _wait_for_locks(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

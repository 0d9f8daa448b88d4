"""Writes the history's lines on a thread of its own, so that a slow disk delays no worker."""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from trimtab_protocol.history import Event
from trimtab_protocol.lines import encode_line, kind_of
from trimtab_server.domain.errors import invalid, require
from trimtab_server.history.config import HistoryConfig

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_MAX_WAITING = 100_000
"""Events that may wait for the disk. Each is a few hundred bytes beside what is shared."""

_MAX_WAIT_S = 1.0
"""How long a write to the store, or a message to a worker, waits for the lines before it. The
history is for diagnosis: a disk that hangs must not stop switches."""

_MAX_CLOSE_S = 5.0
"""How long the end of the server waits for the lines that are left."""


class HistoryWriter:
    """Appends events to a file, and renames the file when it has become too large.

    Any thread may call its methods.

    Args:
        config: which file, and how large it may become.
        on_lost: called for each event that could not be written, on any thread.

    Raises:
        InvalidArgumentError: the file cannot be opened.
    """

    def __init__(self, config: HistoryConfig, on_lost: Callable[[], None]) -> None:
        self._config = config
        self._on_lost = on_lost
        folder = Path(config.history).resolve().parent
        require(folder.is_dir(), "history", f"there is no folder {folder} for {config.history}")
        try:
            self._file = _open(config.history)
            status = os.fstat(self._file)
        except OSError as error:
            raise invalid("history", f"cannot write {config.history}: {error}") from error
        # Bytes since the last attempt to rename the file. Pipes and devices are never renamed.
        self._size = status.st_size
        self._max_size = config.history_bytes if stat.S_ISREG(status.st_mode) else 0
        # The file itself: renaming a link to it would leave the file where it is.
        self._path = os.path.realpath(config.history)
        self._prefix = b""
        self._waiting: queue.Queue[Event | None] = queue.Queue(_MAX_WAITING)
        self._progress = threading.Condition()
        self._put = self._done = 0
        self._stalled_at = -1
        self._thread = threading.Thread(target=self._run, name="trimtab-history", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Have an event written. Returns at once; the event is lost if too many are waiting."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._lose(event, f"{_MAX_WAITING} events are waiting for the disk")
        else:
            self._put += 1

    def barrier(self) -> Callable[[], None] | None:
        """A function that returns once all events put so far are written, or after a second.

        None if they are. If the disk hangs, only the first call waits, until it writes again.
        """
        put = self._put
        if self._done >= put:
            return None

        def wait() -> None:
            with self._progress:
                if self._stalled_at == self._done:
                    return
                if not self._progress.wait_for(lambda: self._done >= put, _MAX_WAIT_S):
                    self._stalled_at = self._done

        return wait

    def close(self) -> None:
        """Write what is waiting, if the disk does not hang, and end."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=_MAX_CLOSE_S)
        self._thread.join(_MAX_CLOSE_S)
        if self._thread.is_alive():
            log.error("history_not_finished", lines=self._put - self._done)
        else:
            os.close(self._file)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                self._write(encode_line(event).encode() + b"\n")
            except OSError as error:
                self._lose(event, str(error))
            except BaseException as error:
                log.exception("history_failed")
                self._lose(event, repr(error))
            with self._progress:
                self._done += 1
                self._progress.notify_all()

    def _write(self, line: bytes) -> None:
        """Append a line. Not buffered here: a line that was written survives the process."""
        if self._max_size and self._size and self._size + len(line) > self._max_size:
            self._rotate()
        line = self._prefix + line
        written = os.write(self._file, line)
        self._size += written
        whole = written == len(line)
        # What follows half a line begins on a line of its own.
        self._prefix = b"" if whole or not written else b"\n"
        if not whole:
            raise OSError("there was no room for all of the line")

    def _rotate(self) -> None:
        """Rename the file and begin a new one. If that fails, go on with this one for a while."""
        try:
            opened = self._rename()
        except OSError as error:
            log.warning("history_not_renamed", path=self._path, reason=str(error))
        else:
            os.close(self._file)
            self._file, self._prefix = opened, b""
        self._size = 0

    def _rename(self) -> int:
        """Returns the new file, which is opened first: so no rename has to be taken back."""
        path, new = Path(self._path), Path(f"{self._path}.new")
        opened = _open(str(new))
        try:
            for number in range(self._config.history_files - 1, 0, -1):
                older = Path(f"{path}.{number}")
                if older.exists():
                    older.replace(f"{path}.{number + 1}")
            path.replace(f"{path}.1")
            new.replace(path)
        except OSError:
            os.close(opened)
            new.unlink(missing_ok=True)
            raise
        return opened

    def _lose(self, event: Event, reason: str) -> None:
        log.error("history_lost", kind=kind_of(event), deployment=event.deployment, reason=reason)
        self._on_lost()


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

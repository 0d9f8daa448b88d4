"""The server's history: written in order, renamed when large, and what cannot be written."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from trimtab_protocol.history import Aborted
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.history.config import HistoryConfig
from trimtab_server.history.history import History

LINE = len('{"kind": "started", "term": 1}\n')


class Written(History):
    """A history that is written to a file, and how many lines it has lost."""

    def __init__(self, path: Path | str, **limits: int) -> None:
        super().__init__(HistoryConfig(str(path), **limits), self._on_lost)
        self.lost = 0
        self.path = Path(path)

    def _on_lost(self) -> None:
        self.lost += 1

    def write(self, *terms: int) -> None:
        """Write these, and wait until they are in the file, or for as long as the server would."""
        for term in terms:
            self.term_started(term)
        wait = self.barrier()
        if wait is not None:
            wait()

    def terms(self, suffix: str = "") -> list[int]:
        lines = Path(f"{self.path}{suffix}").read_text().splitlines()
        return [json.loads(line)["term"] for line in lines]


@contextmanager
def at_most(path: Path, further: int) -> Iterator[None]:
    """No file may grow beyond the size of this one and so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What is logged would go into a file that may not grow either.
    with capture_logs():
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + further, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_costs_the_line_and_nothing_else() -> None:
    """What follows from a switch must not fail half-way because a note of it cannot be kept."""
    written = Written("/dev/full")
    with capture_logs() as logs:
        written.history_note(Aborted(Version(1, 2), deployment="d"))
        written.close()

    lost = next(each for each in logs if each["event"] == "history_lost")
    assert (lost["kind"], lost["deployment"]) == ("aborted", "d")
    assert "No space left on device" in lost["reason"]
    assert written.lost == 1


def test_what_follows_half_a_line_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    """A disk that fills up in the middle of a line costs that line, and not the next as well."""
    written = Written(tmp_path / "history.jsonl")
    written.write(1)
    with at_most(written.path, 5):
        written.write(2)
    written.write(3)
    written.close()

    first, half, last = written.path.read_text().splitlines()
    assert (json.loads(first)["term"], json.loads(last)["term"]) == (1, 3)
    assert half == '{"kin'
    assert written.lost == 1


def test_a_barrier_waits_for_what_was_written_before_it(tmp_path: Path) -> None:
    written = Written(tmp_path / "history.jsonl")
    written.write(*range(1000))

    assert written.terms() == list(range(1000))
    written.close()


def test_a_large_file_is_renamed_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    written = Written(tmp_path / "h", history_bytes=2 * LINE, history_files=2)
    written.write(*range(1, 9))
    written.close()

    assert [written.terms(suffix) for suffix in (".2", ".1", "")] == [[3, 4], [5, 6], [7, 8]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h", "h.1", "h.2"]
    assert written.lost == 0


def test_a_line_that_is_larger_than_a_file_may_be_is_written_all_the_same(tmp_path: Path) -> None:
    written = Written(tmp_path / "h", history_bytes=1)
    written.write(1, 2)
    written.close()

    assert (written.terms(".1"), written.terms()) == ([1], [2])


def test_a_file_that_cannot_be_renamed_is_written_on(tmp_path: Path) -> None:
    """As one that is mounted into a container on its own."""
    (tmp_path / "h.1").mkdir()
    (tmp_path / "h.1" / "file").touch()
    written = Written(tmp_path / "h", history_bytes=2 * LINE, history_files=1)
    with capture_logs() as logs:
        written.write(*range(1, 7))
        written.close()

    assert (written.terms(), written.lost) == ([1, 2, 3, 4, 5, 6], 0)
    # It is tried again each time that as much has been written.
    assert [each["event"] for each in logs] == ["history_not_renamed"] * 2


def test_too_many_open_files_cost_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(tmp_path / "h", history_bytes=LINE)
    written.write(1)
    with monkeypatch.context() as patched, capture_logs():
        patched.setattr(os, "open", Mock(side_effect=OSError(24, "Too many open files")))
        written.write(2)
    written.write(3)
    written.close()

    assert (written.terms(".1"), written.terms(), written.lost) == ([1, 2], [3], 0)


def test_what_is_no_file_is_not_renamed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    written = Written(pipe, history_bytes=1)
    written.write(1, 2)
    written.close()

    lines = os.read(reader, 1000).splitlines()
    os.close(reader)
    assert [json.loads(line)["term"] for line in lines] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "h").symlink_to(tmp_path / "disk" / "h")
    written = Written(tmp_path / "h", history_bytes=1)
    written.write(1, 2)
    written.close()

    assert written.terms() == [2]
    assert (tmp_path / "h").is_symlink()
    assert (tmp_path / "disk" / "h.1").exists()


def test_a_disk_that_hangs_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each message to each worker."""
    monkeypatch.setattr("trimtab_server.history.writer._MAX_WAIT_S", 0.1)
    hangs, write = threading.Event(), os.write
    monkeypatch.setattr(os, "write", lambda *arguments: hangs.wait() and write(*arguments))
    written = Written(tmp_path / "h")
    began = time.monotonic()
    for term in range(1, 31):
        written.write(term)
    waited = time.monotonic() - began
    hangs.set()
    written.close()

    assert 0.1 <= waited < 1.0
    assert written.terms() == list(range(1, 31))


def test_a_disk_that_hangs_does_not_keep_the_server_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab_server.history.writer._MAX_CLOSE_S", 0.1)
    hangs = threading.Event()
    monkeypatch.setattr(os, "write", lambda _, data: hangs.wait() and len(data))
    written = Written(tmp_path / "h")
    written.term_started(1)
    with capture_logs() as logs:
        written.close()
    hangs.set()

    assert [each["event"] for each in logs] == ["history_not_finished"]


def test_a_file_goes_on_where_a_server_left_it(tmp_path: Path) -> None:
    for term in (1, 2):
        written = Written(tmp_path / "h")
        written.write(term)
        written.close()

    assert written.terms() == [1, 2]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=f"history: cannot write {tmp_path}: "):
        Written(tmp_path)

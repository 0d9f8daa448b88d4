"""Keeps the history of all switches: a file for `trimtab check-history`, and logs."""

from __future__ import annotations

import os

import structlog

from trimtab_server.domain.errors import invalid
from trimtab_server.engine.observer import HandledReport, Observer
from trimtab_server.policy.decide import MOVES
from trimtab_server.rollout.effects import Note
from trimtab_server.rollout.lines import line_of

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

NONE = "none"
_QUIET = {"prepared", "commit_sent", "ignored", "report"}


class History(Observer):
    """Implements the part of `Observer` that belongs into a history."""

    def __init__(self, path: str) -> None:
        self._file: int | None = None
        self._begin = b""
        if path != NONE:
            try:
                # Not buffered here: a line that has been written survives the process.
                self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            except OSError as error:
                raise invalid("history", f"cannot write {path}: {error}") from error

    def term_started(self, term: int) -> None:
        """See `Observer`."""
        self._write(Note("started", {"term": term}), None)

    def history_note(self, deployment: str, note: Note) -> None:
        """See `Observer`."""
        self._write(note, deployment)
        stays = note.kind == "decided" and note.values["reason"] not in _MOVES
        emit = log.debug if stays or note.kind in _QUIET else log.info
        shown = {name: _shown(note.values[name]) for name in _SHOWN if name in note.values}
        emit(note.kind, deployment=deployment, **shown)

    def report_handled(self, deployment: str, report: HandledReport) -> None:
        """See `Observer`."""
        if self._file is not None and report.counted is not None:
            who = {"worker": report.worker, "incarnation": report.incarnation, "seq": report.seq}
            self._write(Note("report", {**who, **report.counted._asdict()}), deployment)

    def alarm(self, deployment: str, reason: str, *, mismatch: bool) -> None:
        """See `Observer`."""
        log.error("alarm", deployment=deployment, reason=reason)

    def close(self) -> None:
        """Write nothing any more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, note: Note, deployment: str | None) -> None:
        if self._file is None:
            return
        line = self._begin + line_of(note, deployment).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            kept = written == len(line)
            # What follows half a line begins on one of its own.
            self._begin = b"" if kept or not written else b"\n"
            reason = "" if kept else "there was no room for all of it"
        except OSError as error:
            kept, reason = False, str(error)
        if not kept:
            log.error("history_lost", kind=note.kind, deployment=deployment, reason=reason)


_MOVES = {reason.value for reason in MOVES}
_SHOWN = (
    *("version", "base", "epoch", "group", "worker", "reason", "answer"),
    *("mode", "step", "before", "after", "moves"),
)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""The history of all switches: to the writer of its file, and to the logs."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from trimtab_protocol.history import Event, Reported, Started
from trimtab_protocol.lines import kind_of, values_of
from trimtab_server.engine.departure import Departure
from trimtab_server.engine.observer import Observer, ReportResult
from trimtab_server.history.config import NONE, HistoryConfig
from trimtab_server.history.writer import HistoryWriter
from trimtab_server.policy.decide import MOVES

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_QUIET = {"prepared", "commit_sent", "ignored", "shadow"}
_MOVES = {reason.value for reason in MOVES}
_SHOWN = (
    *("version", "base", "epoch", "group", "worker", "cause", "reason", "answer"),
    *("operation", "peer"),
    *("mode", "step", "before", "after", "moves"),
)


class History(Observer):
    """Implements the part of `Observer` that belongs in a history.

    Args:
        config: which file.
        on_lost: called for each event that could not be written, on any thread.

    Raises:
        InvalidArgumentError: the file cannot be opened.
    """

    def __init__(self, config: HistoryConfig, on_lost: Callable[[], None] = lambda: None) -> None:
        self._writer = None if config.history == NONE else HistoryWriter(config, on_lost)

    def term_started(self, term: int) -> None:
        """See `Observer`."""
        self._write(Started(term))

    def history_note(self, event: Event) -> None:
        """See `Observer`."""
        self._write(event)
        kind, values = kind_of(event), values_of(event)
        stays = kind == "decided" and values["reason"] not in _MOVES
        emit = log.debug if stays or kind in _QUIET else log.info
        shown = {name: _shown(values[name]) for name in _SHOWN if name in values}
        emit(kind, deployment=event.deployment, **shown)

    def report_handled(
        self, deployment: str, result: ReportResult, reported: Reported | None
    ) -> None:
        """See `Observer`."""
        if reported is not None:
            self._write(reported)

    def worker_joined(self, deployment: str, worker: str, absent: int | None) -> None:
        """See `Observer`."""
        log.info("worker joined", deployment=deployment, worker=worker, absent=_known(absent))

    def worker_left(
        self, deployment: str, worker: str, departure: Departure, absent: int | None
    ) -> None:
        """See `Observer`."""
        emit, event = log.info, "worker left"
        if departure.is_lost:
            emit, event = log.warning, "worker lost"
        reason, absent_now = departure.reason, _known(absent)
        emit(event, deployment=deployment, worker=worker, reason=reason, absent=absent_now)

    def session_refused(self, deployment: str, worker: str, reason: str, times: int) -> None:
        """See `Observer`. Of each worker, the refusals 1, 10, 100 and so on are logged."""
        if str(times).rstrip("0") == "1":
            named = {"deployment": deployment, "worker": worker}
            log.warning("worker refused", **named, reason=reason, times=times)

    def alarm(self, deployment: str, reason: str, *, mismatch: bool) -> None:
        """See `Observer`."""
        log.error("alarm", deployment=deployment, reason=reason)

    def store_health_changed(self, failure: str | None) -> None:
        """See `Observer`."""
        if failure is None:
            log.info("store_works_again")
        else:
            log.error("store_fails", reason=failure)

    def barrier(self) -> Callable[[], None] | None:
        """A function that returns once the file has all events so far. None if it has them.

        Call it before anything that follows from these events is stored, or told to a worker: a
        server that is killed would else leave a history that seems to break the rules.
        """
        return None if self._writer is None else self._writer.barrier()

    def close(self) -> None:
        """Write nothing any more. Repeated calls do nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, event: Event) -> None:
        if self._writer is not None:
            self._writer.put(event)


def _known(absent: int | None) -> int | str:
    return "unknown" if absent is None else absent


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""When a worker reports. Pure: the time is an argument, in seconds on any one clock."""

from __future__ import annotations

import math

from trimtab_protocol.messages import Directive

_REPORTS_PER_LEASE = 3  # One late report does not end a session.
_MIN_PERIOD = 0.01


class ReportSchedule:
    """When the next report of a stream is due: never, until the server says how to report.

    Reports also keep the session alive: the server's lease asks for messages, and gRPC's own
    pings are not messages. So a report is sent even if nothing was counted, and often enough for
    the lease. While a report is not acknowledged, the next one waits, but not beyond the lease.
    """

    def __init__(self) -> None:
        self._period = math.inf
        self._patience = math.inf
        self._since: float | None = None  # of the last report, or else of the first Directive
        self._queued = False
        self._hurried = False
        self._unacknowledged: int | None = None

    def hurry(self) -> None:
        """Make the next report due at once, or as soon as the last one is acknowledged."""
        self._hurried = True

    def directed(self, directive: Directive, now: float) -> None:
        """Follow the server's directive."""
        self._patience = directive.lease / _REPORTS_PER_LEASE if directive.lease else math.inf
        self._period = max(_MIN_PERIOD, min(directive.report_interval, self._patience))
        self._since = now if self._since is None else self._since

    def due_at(self) -> float:
        """When the next report is due; infinity if an event has to come first."""
        if self._queued or self._since is None:
            return math.inf
        if self._unacknowledged is not None:
            return self._since + max(self._period, self._patience)
        return self._since if self._hurried else self._since + self._period

    def queued(self) -> None:
        """Note that a report waits to be sent. It gets its counts when it is sent."""
        self._queued = True

    def sent(self, seq: int, now: float) -> None:
        """Note that the report with this number was sent."""
        self._queued, self._hurried, self._unacknowledged = False, False, seq
        self._since = now

    def acknowledged(self, seq: int) -> None:
        """Note that the server has counted this report, and so all before it."""
        if self._unacknowledged is not None and seq >= self._unacknowledged:
            self._unacknowledged = None

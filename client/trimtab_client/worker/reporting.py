"""When a worker reports. Pure: the time is an argument, in seconds on any one clock."""

from __future__ import annotations

import math

from trimtab_protocol.messages import Directive

_LEASE_PARTS = 3  # so that one late report does not end a session
_LEAST_PERIOD = 0.01


class ReportSchedule:
    """When the next report of one stream is due: none before the server says how to report.

    A report is also what keeps the session: the lease asks for messages, which gRPC's own
    pings are not. So it is sent whether or not anything was counted, and often enough for
    the lease. While one is not acknowledged the next one waits, but not beyond the lease.
    """

    def __init__(self) -> None:
        self._period = math.inf
        self._patience = math.inf
        self._since: float | None = None  # the last report, or else the first Directive
        self._queued = False
        self._hurried = False
        self._unacknowledged: int | None = None

    def hurry(self) -> None:
        """There is something to say: the next report goes out as soon as it may."""
        self._hurried = True

    def directed(self, directive: Directive, now: float) -> None:
        """The server has said how to report."""
        self._patience = directive.lease / _LEASE_PARTS if directive.lease else math.inf
        self._period = max(_LEAST_PERIOD, min(directive.report_interval, self._patience))
        self._since = now if self._since is None else self._since

    def due_at(self) -> float:
        """When the next report has to go out; infinity: not before something happens."""
        if self._queued or self._since is None:
            return math.inf
        if self._unacknowledged is not None:
            return self._since + max(self._period, self._patience)
        return self._since if self._hurried else self._since + self._period

    def queued(self) -> None:
        """A report waits to be sent; which counts it has is decided as it leaves."""
        self._queued = True

    def sent(self, seq: int, now: float) -> None:
        """The report has left."""
        self._queued, self._hurried, self._unacknowledged = False, False, seq
        self._since = now

    def acknowledged(self, seq: int) -> None:
        """The server has counted this report, and so all before it."""
        if self._unacknowledged is not None and seq >= self._unacknowledged:
            self._unacknowledged = None

"""One stream to the server, as both kinds of session see it."""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import Protocol

from trimtab_client.worker.reporting import ReportSchedule
from trimtab_protocol.wire.requests import Request


class Mark(Enum):
    """What waits in an outbox beside messages."""

    REPORT = auto()
    """Send the counts as they are when this leaves the outbox."""
    END = auto()
    """There is nothing more to send."""


class Outbox(Protocol):
    """A queue without bound. Only the session's loop puts; the stream's writer takes."""

    def put_nowait(self, item: Request | Mark) -> None:
        """Add an item."""


class Link:
    """A stream: what waits to be sent, and how far it has come.

    Attributes:
        stream: its number.
        group_id: the group that it was opened for.
        outbox: what waits to be sent.
        reports: when it reports.
        opened_at: when, by the session's clock.
        waits: whether it waits for a connection, where there is none.
        is_open: whether the session is to go on with it.
        ready: whether all has been carried out that its Hello speaks of.
        leave_at: when the session leaves it, whatever the server does; infinity: never.
        greeted: whether the server has answered on it.
        drained: whether the server has said that it ends.
    """

    def __init__(
        self, stream: int, group_id: str, outbox: Outbox, opened_at: float, *, waits: bool
    ) -> None:
        self.stream = stream
        self.group_id = group_id
        self.outbox = outbox
        self.reports = ReportSchedule()
        self.opened_at = opened_at
        self.waits = waits
        self.is_open = True
        self.ready = False
        self.leave_at = math.inf
        self.greeted = False
        self.drained = False

    def be_ready(self) -> None:
        """What was posted before the Hello was made has been carried out."""
        self.ready = True

    def greet(self) -> None:
        """The server has answered: the session stays."""
        self.greeted, self.leave_at = True, math.inf

    def end(self) -> None:
        """Wake the writer: the stream is over."""
        self.outbox.put_nowait(Mark.END)

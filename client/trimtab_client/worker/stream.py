"""One stream to the server, as both kinds of session see it."""

from __future__ import annotations

import asyncio
import math
import queue
from dataclasses import dataclass, field
from enum import Enum, auto

from trimtab_client.worker.reporting import ReportSchedule
from trimtab_protocol.wire.requests import Request


class OutboxSignal(Enum):
    """Entries of an outbox that are not messages."""

    REPORT = auto()
    """Send the counts as they are when this entry leaves the outbox."""
    END = auto()
    """There is nothing more to send."""


Item = Request | OutboxSignal
Outbox = queue.SimpleQueue[Item] | asyncio.Queue[Item]
"""A queue without bound. Only the session's loop puts; the stream's writer takes."""


@dataclass(eq=False)
class Stream:
    """A stream: its queue of messages to send, and its progress.

    Attributes:
        number: counts the streams of the session, from 1.
        group_id: the group that it was opened for.
        outbox: messages waiting to be sent.
        reports: when the next report is due.
        opened_at: when it was opened, by the session's clock.
        wait_for_ready: whether it waits for a connection if there is none.
        is_open: whether the session still uses it.
        ready: whether it may start: all effects that its Hello reflects have been run.
        leave_at: when the session leaves it, whatever the server does; infinity for never.
        greeted: whether the server has answered on it.
        drained: whether the server has announced that it stops.
    """

    number: int
    group_id: str
    outbox: Outbox
    opened_at: float
    wait_for_ready: bool
    reports: ReportSchedule = field(default_factory=ReportSchedule)
    is_open: bool = True
    ready: bool = False
    leave_at: float = math.inf
    greeted: bool = False
    drained: bool = False

    def set_ready(self) -> None:
        """Let the stream start. Posted after the jobs that have to run before it."""
        self.ready = True

    def end(self) -> None:
        """Wake the writer, because the stream is over."""
        self.outbox.put_nowait(OutboxSignal.END)

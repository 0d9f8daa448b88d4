"""The streams of a session, one after another: when each begins, reports and ends."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from grpc import StatusCode

from trimtab_client.exceptions import TrimtabError
from trimtab_client.worker.backoff import Backoff
from trimtab_client.worker.carrying import Carrier
from trimtab_client.worker.counters import Counters
from trimtab_client.worker.link import Link, Mark, Outbox
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.shared import Post, Shared
from trimtab_protocol.wire.requests import Request, encode_goodbye, encode_hello, encode_report

logger = logging.getLogger(__package__)

_PATIENCE_S = 10.0
"""How long a stream waits for a connection before another one asks why there is none."""

_SAYS_WHY = {StatusCode.ABORTED, StatusCode.FAILED_PRECONDITION, StatusCode.INVALID_ARGUMENT}


class Streams:
    """Used by the loop; only `report` is called by the stream's writer.

    Args:
        options: who the worker is.
        shared: the state machine, which knows what a Hello says.
        counters: what is reported.
        carrier: tells whoever watches.
        post: has the loop run a task.
        backoff: how long to wait before connecting again.
        clock: seconds, rising.

    Attributes:
        closing: whether the session is about to end.
    """

    def __init__(
        self,
        options: WorkerOptions,
        shared: Shared,
        counters: Counters,
        carrier: Carrier,
        post: Post,
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        self.closing = False
        self._options = options
        self._shared = shared
        self._counters = counters
        self._carrier = carrier
        self._post = post
        self._backoff = backoff
        self._clock = clock
        self._begun = 0
        self._connect_at = -math.inf
        self._told = ""
        self._out_of_reach = False

    def connect(self, outbox: Outbox) -> Link:
        """Make a stream; its outbox has the Hello. It may begin as soon as it is ready."""
        self._begun += 1
        now = self._clock()
        with self._shared.lock:
            hello = self._shared.switch.connected(self._begun)
            link = Link(self._begun, hello.group_id, outbox, now, waits=self._out_of_reach)
            self._shared.link = link
        if link.waits:
            link.leave_at = now + _PATIENCE_S
        outbox.put_nowait(encode_hello(hello, self._options.setup()))
        self._post(link.be_ready)
        return link

    def report(self, link: Link) -> Request:
        """The counts as they are now: the stream's writer asks for them as it sends."""
        snapshot = self._counters.snapshot()
        self._post(lambda: link.reports.sent(snapshot.seq, self._clock()))
        return encode_report(snapshot)

    def is_open(self, link: Link) -> bool:
        """Whether this is the newest stream, and the session is to go on with it."""
        return link is self._shared.link and link.is_open

    def ended(self, link: Link, error: TrimtabError | None) -> None:
        """A stream has ended."""
        if not self.is_open(link):
            return
        self._leave(link)
        now = self._clock()
        delay = self._delay(link, error, now - link.opened_at)
        self._connect_at = now + delay
        if not self.closing:
            self._tell_end(link, error, delay)

    def pause(self) -> float:
        """Seconds until the next stream may begin, 0 or less where it may now."""
        return -math.inf if self.closing else self._connect_at - self._clock()

    def timeout(self, link: Link) -> float | None:
        """Seconds until `tick` has something to do; None: not before a task comes."""
        due = min(link.leave_at, link.reports.due_at())
        return None if math.isinf(due) else max(0.0, due - self._clock())

    def tick(self) -> None:
        """Do what is due."""
        link, now = self._shared.link, self._clock()
        if link is None or not link.is_open:
            return
        if now >= link.leave_at and link.waits and not link.greeted:
            # In vain: the next one does not wait, and so hears what there is to say about it.
            self._out_of_reach = False
            self._leave(link)
        elif now >= link.leave_at:
            self.ended(link, None)
        elif now >= link.reports.due_at():
            link.reports.queued()
            link.outbox.put_nowait(Mark.REPORT)

    def report_soon(self) -> None:
        """There is something that a report has to say."""
        link = self._shared.link
        if link is not None:
            link.reports.hurry()

    def leave_old_group(self) -> None:
        """A new group has formed: begin its stream at once."""
        self._backoff.reset()
        self._connect_at, self._told = -math.inf, ""
        link = self._shared.link
        if link is not None and link.group_id != self._shared.switch.group_id:
            link.is_open = False

    def close(self, reason: str, patience: float) -> None:
        """End: say so, where there is a server to say it to, and wait for it so long."""
        self.closing = True
        link = self._shared.link
        if link is None or not link.is_open:
            return
        if not link.greeted:
            link.is_open = False
            return
        link.leave_at = self._clock() + patience
        link.outbox.put_nowait(encode_goodbye(reason))
        link.outbox.put_nowait(Mark.END)

    def abandon(self) -> None:
        """The loop has ended, by whatever."""
        if self._shared.link is not None:
            self._shared.link.is_open = False

    def _leave(self, link: Link) -> None:
        link.is_open = False
        with self._shared.lock:
            self._shared.switch.disconnected(link.stream)

    def _delay(self, link: Link, error: TrimtabError | None, lasted: float) -> float:
        """Seconds until the next stream may begin.

        Where there is no connection, a stream ends at once, and says why there is none. The
        next one waits until there is one again, which is soon after the server is.
        """
        unreachable = error is not None and error.code is StatusCode.UNAVAILABLE
        turned_away = getattr(error, "retry_after", None) is not None
        self._out_of_reach = not (link.waits or link.greeted or turned_away) and unreachable
        if self._out_of_reach:
            return self._backoff.out_of_reach()
        return self._backoff.ended(error, lasted, drained=link.drained)

    def _tell_end(self, link: Link, error: TrimtabError | None, delay: float) -> None:
        reason = "the server ended the stream" if error is None else _reason(error)
        # What goes on is said once; gRPC words the absence of one server in several ways.
        trouble = reason if error is None or error.code in _SAYS_WHY else error.code.name
        known = trouble == self._told and not link.greeted
        self._told = trouble
        level = logging.DEBUG if known else logging.WARNING
        logger.log(level, "no session: %s; connecting again in %.1f s", reason, delay)
        self._carrier.tell("disconnected", stream=link.stream, reason=reason, retry_in=delay)


def _reason(error: TrimtabError) -> str:
    return f"{error.code.name}: {error.details}"

"""Opens a session's streams, one after another: when each begins, reports and ends."""

from __future__ import annotations

import logging
import math

from grpc import StatusCode

from trimtab_client.exceptions import TrimtabError
from trimtab_client.worker.backoff import Backoff
from trimtab_client.worker.context import SessionContext
from trimtab_client.worker.effect_runner import EffectRunner
from trimtab_client.worker.options import worker_setup
from trimtab_client.worker.stream import Outbox, OutboxSignal, Stream
from trimtab_protocol.wire.requests import Request, encode_goodbye, encode_hello, encode_report

logger = logging.getLogger(__package__)

_MAX_WAIT_FOR_READY_SECONDS = 10.0
"""How long a stream waits for a connection before another one asks why there is none."""

_SAYS_WHY = {StatusCode.ABORTED, StatusCode.FAILED_PRECONDITION, StatusCode.INVALID_ARGUMENT}
"""Codes with which the text of the error, too, tells one trouble from another."""


class Connector:
    """Used by the loop; only `report` is called by the stream's writer.

    Attributes:
        closing: whether the session is about to end.
    """

    def __init__(self, context: SessionContext, effects: EffectRunner, backoff: Backoff) -> None:
        self.closing = False
        self._context = context
        self._effects = effects
        self._backoff = backoff
        self._opened = 0
        self._connect_at = -math.inf
        self._last_trouble = ""
        self._unreachable = False

    def open(self, outbox: Outbox) -> Stream:
        """Make a stream, whose outbox has the Hello. It may start as soon as it is ready."""
        self._opened += 1
        context, now = self._context, self._context.clock()
        with context.lock:
            hello = context.switch.connected(self._opened)
            stream = Stream(self._opened, hello.group_id, outbox, now, self._unreachable)
            context.stream = stream
        if stream.wait_for_ready:
            stream.leave_at = now + _MAX_WAIT_FOR_READY_SECONDS
        outbox.put_nowait(encode_hello(hello, worker_setup(context.options)))
        context.run_soon(stream.set_ready)
        return stream

    def report(self, stream: Stream) -> Request:
        """A report of the current counts; the stream's writer calls this as it sends."""
        snapshot = self._context.counters.snapshot()
        now = self._context.clock
        self._context.run_soon(lambda: stream.reports.sent(snapshot.seq, now()))
        return encode_report(snapshot)

    def ended(self, stream: Stream, error: TrimtabError | None) -> None:
        """Note that a stream has ended, with `error` or, if that is None, without one."""
        if stream is not self._context.open_stream:
            return
        self._leave(stream)
        now = self._context.clock()
        delay = self._delay(stream, error, now - stream.opened_at)
        self._connect_at = now + delay
        if not self.closing:
            self._tell_end(stream, error, delay)

    def pause(self) -> float:
        """Seconds until the next stream may begin; 0 or less if it may begin now."""
        return -math.inf if self.closing else self._connect_at - self._context.clock()

    def timeout(self, stream: Stream) -> float | None:
        """Seconds until `tick` has something to do; None if only a job can give it something."""
        due = min(stream.leave_at, stream.reports.due_at())
        return None if math.isinf(due) else max(0.0, due - self._context.clock())

    def tick(self) -> None:
        """Do what is due: leave the stream, or report."""
        stream, now = self._context.open_stream, self._context.clock()
        if stream is None:
            return
        if now >= stream.leave_at and stream.wait_for_ready and not stream.greeted:
            # The next stream does not wait for a connection, and so learns why there is none.
            self._unreachable = False
            self._leave(stream)
        elif now >= stream.leave_at:
            self.ended(stream, None)
        elif now >= stream.reports.due_at():
            stream.reports.queued()
            stream.outbox.put_nowait(OutboxSignal.REPORT)

    def report_soon(self) -> None:
        """Send the next report as soon as possible."""
        if self._context.stream is not None:
            self._context.stream.reports.hurry()

    def leave_old_group(self) -> None:
        """Begin the stream of a new group at once."""
        self._backoff.reset()
        self._connect_at, self._last_trouble = -math.inf, ""
        stream = self._context.stream
        if stream is not None and stream.group_id != self._context.switch.group_id:
            stream.is_open = False

    def close(self, reason: str, patience: float) -> None:
        """End the session; tell a connected server, and wait at most `patience` seconds for it."""
        self.closing = True
        stream = self._context.open_stream
        if stream is None or not stream.greeted:
            self.abandon()
            return
        stream.leave_at = self._context.clock() + patience
        stream.outbox.put_nowait(encode_goodbye(reason))
        stream.outbox.put_nowait(OutboxSignal.END)

    def abandon(self) -> None:
        """Use the newest stream no more."""
        if self._context.stream is not None:
            self._context.stream.is_open = False

    def _leave(self, stream: Stream) -> None:
        stream.is_open = False
        with self._context.lock:
            self._context.switch.disconnected(stream.number)

    def _delay(self, stream: Stream, error: TrimtabError | None, lasted: float) -> float:
        """Seconds until the next stream may begin.

        If there is no connection, a stream ends at once and says why there is none. The next
        stream waits for a connection, which comes soon after the server is back.
        """
        unreachable = error is not None and error.code is StatusCode.UNAVAILABLE
        turned_away = getattr(error, "retry_after", None) is not None
        known = stream.wait_for_ready or stream.greeted or turned_away
        self._unreachable = unreachable and not known
        if self._unreachable:
            return self._backoff.unreachable()
        return self._backoff.ended(error, lasted, drained=stream.drained)

    def _tell_end(self, stream: Stream, error: TrimtabError | None, delay: float) -> None:
        if error is None:
            reason = trouble = "the server ended the stream"
        else:
            reason = f"{error.code.name}: {error.details}"
            # gRPC words the absence of the same server in several ways.
            trouble = reason if error.code in _SAYS_WHY else error.code.name
        # A trouble that lasts is a warning only once.
        repeated = trouble == self._last_trouble and not stream.greeted
        self._last_trouble = trouble
        level = logging.DEBUG if repeated else logging.WARNING
        logger.log(level, "no session: %s; connecting again in %.1f s", reason, delay)
        self._effects.tell("disconnected", stream=stream.number, reason=reason, retry_in=delay)

"""A session without its I/O: what both kinds share, and where threads meet.

Two parties use it. The *engine's thread* takes steps: it contributes to the barrier, hears
what to flip to, and waits for nothing but a lock around the state machine. The *loop* (the
thread or task that owns the stream) does the rest, one thing after another: the engine, the
stream's reader and ended transfers hand it what is to be done (`post`), so that answers leave
in order and callbacks never overlap. Only the start of a collective transfer is called on the
engine's thread, since that is where all ranks are at the same step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from trimtab_client.placement import Placement
from trimtab_client.worker.backoff import Backoff
from trimtab_client.worker.carrying import Callbacks, Carrier
from trimtab_client.worker.counters import Counters
from trimtab_client.worker.engine_side import EngineSide
from trimtab_client.worker.hearing import Hearing
from trimtab_client.worker.link import Link
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.shared import Post, Shared, Task
from trimtab_client.worker.streams import Streams
from trimtab_protocol.version import Version
from trimtab_protocol.wire.responses import Response

logger = logging.getLogger(__package__)


class SessionCore:
    """The state of a session.

    Args:
        options: who the worker is.
        callbacks: what the engine does.
        post: has the loop run a task, soon; callable from any thread.
        backoff: how long to wait before connecting again.
        clock: seconds, rising.

    Attributes:
        counters: any thread's.
        engine: the engine's thread's.
        streams: the loop's.
    """

    def __init__(
        self,
        options: WorkerOptions,
        callbacks: Callbacks,
        post: Post,
        backoff: Backoff,
        clock: Callable[[], float],
    ) -> None:
        self._exits = callbacks.exits
        self._post = post
        self._shared = shared = Shared(options)
        self.counters = counters = Counters(options.placement, options.gpus)
        carrier = Carrier(shared, callbacks, post)
        self._hearing = Hearing(options, shared, counters, carrier, clock)
        self.streams = Streams(options, shared, counters, carrier, post, backoff, clock)
        self.engine = EngineSide(
            options.topology, shared, counters, carrier, post, self.streams.leave_old_group
        )

    @property
    def in_force(self) -> Version | None:
        """The version that the worker serves by."""
        return self._shared.switch.in_force

    @property
    def placement(self) -> Placement:
        """What the worker serves by."""
        return self._shared.switch.placement

    @property
    def connected(self) -> bool:
        """Whether the server has answered on the present stream."""
        link = self._shared.link
        return link is not None and link.is_open and link.greeted

    def forget_load(self) -> None:
        """What was counted so far is no traffic; the server hears of it at once."""
        self.counters.forget()
        self._post(self.streams.report_soon)

    def run(self, task: Task) -> None:
        """Run a task on the loop. What goes wrong stays here: the engine serves on."""
        try:
            task()
        except self._exits:
            raise
        except BaseException:
            logger.exception("the session failed at %r, and goes on", task)

    def received(self, link: Link, response: Response) -> None:
        """The server has said something; the loop's task."""
        if self.streams.is_open(link):
            self._hearing.heard(link, response)

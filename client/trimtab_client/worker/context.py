"""The state that the parts of a session share, and the place where its threads meet.

Two parties use a session. The *engine's thread* takes steps: it contributes to the barrier, learns
what to flip to, and waits for nothing but the lock around the state machine. The *loop* (the
thread or task that owns the streams) does everything else, one job after another: the engine,
the stream's reader and finished transfers give it jobs with `run_soon`. So answers leave in
order, and callbacks never overlap. Only a collective transfer starts on the engine's thread,
because only there all ranks are at the same step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from trimtab_client.worker.counters import Counters
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.stream import Stream
from trimtab_client.worker.switch import WorkerSwitch
from trimtab_protocol.messages import Transfer

Job = Callable[[], object]


class SessionContext:
    """The options, clock, counters, state machine and newest stream of a session.

    Attributes:
        run_soon: has the loop run a job soon; any thread may call it.
        clock: seconds, never falling.
        counters: token counts; any thread may use them.
        lock: guards `switch`, and with it `stream`. The engine's thread posts the effects of
            what it does under the lock, and a Hello is made under it: so all effects that a
            Hello reflects are posted before it.
        stream: the newest stream; None before the first. Answers of the state machine are for
            the stream that is newest when they are made: a later one starts with a Hello, which
            says enough. Only the loop replaces it.
    """

    def __init__(
        self, options: WorkerOptions, run_soon: Callable[[Job], object], clock: Callable[[], float]
    ) -> None:
        self.options = options
        self.run_soon = run_soon
        self.clock = clock
        self.counters = Counters(options.placement, options.gpus)
        self.lock = threading.Lock()
        self.switch = WorkerSwitch(
            group_id=options.group_id,
            worker=options.worker,
            incarnation=options.incarnation,
            gpus=options.gpus,
            placement=options.placement,
            collective=options.transfer is Transfer.COLLECTIVE,
        )
        self.stream: Stream | None = None

    @property
    def open_stream(self) -> Stream | None:
        """The newest stream if the session still uses it, else None."""
        stream = self.stream
        return stream if stream is not None and stream.is_open else None

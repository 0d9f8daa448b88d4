"""What the engine's thread and the loop of a session share."""

from __future__ import annotations

import threading
from collections.abc import Callable

from trimtab_client.worker.link import Link
from trimtab_client.worker.options import Transfer, WorkerOptions
from trimtab_client.worker.switch import WorkerSwitch

Task = Callable[[], object]
Post = Callable[[Task], object]
"""Has the loop run a task, soon; callable from any thread."""


class Shared:
    """The state machine, and the streams that its answers go to.

    Attributes:
        lock: guards `switch` and `stream`. What the engine's thread brings about is posted
            to the loop under it: so no Hello that says that nothing is held gets ahead of
            the call that frees it.
        switch: the state machine.
        stream: the number of the stream that the machine's answers are for; None: there is
            none, and the next Hello says enough.
        link: the newest stream. The loop's: others only look at it.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self.lock = threading.Lock()
        self.switch = WorkerSwitch(
            group_id=options.group_id,
            worker=options.worker,
            incarnation=options.incarnation,
            gpus=options.gpus,
            placement=options.placement,
            collective=options.transfer is Transfer.COLLECTIVE,
        )
        self.stream: int | None = None
        self.link: Link | None = None

"""What the engine's thread and the loop of a session share."""

from __future__ import annotations

import threading
from collections.abc import Callable

from trimtab_client.worker.link import Link
from trimtab_client.worker.options import WorkerOptions
from trimtab_client.worker.switch import WorkerSwitch
from trimtab_protocol.messages import Transfer

Task = Callable[[], object]
Post = Callable[[Task], object]
"""Has the loop run a task, soon; callable from any thread."""


class Shared:
    """The state machine, and the streams that its answers go to.

    Attributes:
        lock: guards `switch`, and with it `link`. What the engine's thread brings about is
            posted to the loop under it, and what a Hello says is taken under it: so all that
            led to that is posted before.
        switch: the state machine.
        link: the newest stream. The machine's answers are for the one that this is when they
            are made: a later one begins with a Hello, which says enough. Only the loop
            replaces it.
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
        self.link: Link | None = None

"""A rank's end of the pipe to its fleet."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from trimtab_tools.simulate import messages


class GroupBrokenError(Exception):
    """A collective has no result for any member. Wait for the next group."""


class RankPipe:
    """The pipe, read by a thread of its own. If the fleet's end closes, the process exits.

    One thread, the engine's, calls `exchange` and `next_group`; any thread may report and send.

    Args:
        pipe: to the fleet.
        add_fault: called with each fault to come, on the reading thread.

    Attributes:
        step: the engine's step, which has to be the same on all ranks in a collective.
    """

    def __init__(
        self, pipe: Connection[Any, Any], add_fault: Callable[[messages.InjectFault], object]
    ) -> None:
        self.step = 0
        self._pipe = pipe
        self._add_fault = add_fault
        self._lock = threading.Lock()
        self._orders: queue.SimpleQueue[messages.ToRank] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="fleet pipe", daemon=True).start()

    def exchange(self, collective: str, parts: Sequence[bytes]) -> Sequence[bytes]:
        """A collective: give each rank a part, and get a part from each.

        Args:
            collective: its name, the same on all ranks.
            parts: one for each rank, in order.

        Raises:
            GroupBrokenError: no rank gets a result.
        """
        self.send(messages.Contribution(self.step, collective, parts))
        order = self._orders.get()
        if isinstance(order, messages.Result):
            return order.parts
        if isinstance(order, messages.GroupBroken):
            raise GroupBrokenError(order.reason)
        raise RuntimeError(f"{order} does not answer a collective")

    def next_group(self) -> messages.Join | None:
        """Wait for the next group; None if the simulation ends."""
        order = self._orders.get()
        match order:
            case messages.Join():
                return order
            case messages.Leave():
                return None
        raise RuntimeError(f"{order} came without a collective")

    def report(self, kind: str, **values: Any) -> None:
        """Tell the fleet that something has happened."""
        self.send(messages.RankEvent(time.monotonic(), kind, values))

    def send(self, message: messages.FromRank) -> None:
        """Send a message to the fleet."""
        with self._lock:
            self._pipe.send(message)

    def _read(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                # The fleet is gone, and with it the barrier: there is nobody to tell.
                os._exit(1)
            if isinstance(message, messages.InjectFault):
                self._add_fault(message)
            else:
                self._orders.put(message)

"""A rank's end of the pipe to its fleet."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from trimtab_tools.simulate.messages import (
    InjectFault,
    GroupBroken,
    Contribution,
    FromRank,
    Join,
    Leave,
    Result,
    RankEvent,
)


class GroupBrokenError(Exception):
    """A collective has no result, for any member: wait for another group."""


class RankPipe:
    """The pipe, read by a thread of its own. When the fleet's end closes, the process ends.

    One thread, the engine's, calls `exchange` and `next_group`; any thread may `tell`.

    Args:
        pipe: to the fleet.
        arm: called with each fault to come, on the reading thread.

    Attributes:
        step: the engine's; a collective has to be at the same one on all ranks.
    """

    def __init__(self, pipe: Connection[Any, Any], arm: Callable[[InjectFault], object]) -> None:
        self.step = 0
        self._pipe = pipe
        self._arm = arm
        self._lock = threading.Lock()
        self._orders: queue.SimpleQueue[Join | Leave | Result | GroupBroken] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def exchange(self, what: str, parts: Sequence[bytes]) -> Sequence[bytes]:
        """A collective: give each rank its part, and get what each has for this one.

        Args:
            what: names the collective, the same on all ranks.
            parts: one for each rank, in order.

        Raises:
            GroupBrokenError: there is no result on any rank.
        """
        self.send(Contribution(self.step, what, parts))
        order = self._orders.get()
        if isinstance(order, Result):
            return order.parts
        if isinstance(order, GroupBroken):
            raise GroupBrokenError(order.reason)
        raise RuntimeError(f"{order} is no answer to a collective")

    def next_group(self) -> Join | None:
        """Wait for the next group; None: there is none, the fleet ends."""
        order = self._orders.get()
        match order:
            case Join():
                return order
            case Leave():
                return None
        raise RuntimeError(f"{order} came without a collective")

    def tell(self, kind: str, **values: Any) -> None:
        """Say that something has happened."""
        self.send(RankEvent(time.monotonic(), kind, values))

    def send(self, message: FromRank) -> None:
        """Say something."""
        with self._lock:
            self._pipe.send(message)

    def _read(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                # The fleet is gone, with its barrier. Nobody is there to be told anything.
                os._exit(1)
            if isinstance(message, InjectFault):
                self._arm(message)
            else:
                self._orders.put(message)

"""The faults that a rank does to itself, at points that nobody else can hit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from trimtab_tools.simulate.messages import InjectFault, FaultKind, SwitchPoint

_SIGNALS = {FaultKind.KILL: signal.SIGKILL, FaultKind.STOP: signal.SIGSTOP}


class FaultPoints:
    """Faults to come, each for the next time at its point.

    Args:
        tell: told what strikes, before it does.
    """

    def __init__(self, tell: Callable[[InjectFault], object]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._armed: list[InjectFault] = []

    def arm(self, fault: InjectFault) -> None:
        """Any thread may call this."""
        with self._lock:
            self._armed.append(fault)

    def reached(self, point: SwitchPoint) -> list[InjectFault]:
        """The process is at a point: what strikes there, beside what ends or stops it."""
        if not self._armed:
            return []
        with self._lock:
            struck = [fault for fault in self._armed if fault.point is point]
            self._armed = [fault for fault in self._armed if fault.point is not point]
        for fault in struck:
            self._tell(fault)
            if fault.deed in _SIGNALS:
                os.kill(os.getpid(), _SIGNALS[fault.deed])
        return [fault for fault in struck if fault.deed not in _SIGNALS]

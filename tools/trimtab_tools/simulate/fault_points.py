"""The faults that a rank causes in itself, at points of a switch that only it can hit exactly."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from trimtab_tools.simulate.messages import Action, InjectFault, SwitchPoint

_SIGNALS = {Action.KILL_RANK: signal.SIGKILL, Action.STOP_RANK: signal.SIGSTOP}


class FaultPoints:
    """The faults to come, each at the next time that the rank reaches its point.

    Args:
        report: called with each fault just before it happens.
    """

    def __init__(self, report: Callable[[InjectFault], object]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._pending: list[InjectFault] = []

    def add(self, fault: InjectFault) -> None:
        """Add a fault to come. Any thread may call this."""
        with self._lock:
            self._pending.append(fault)

    def reached(self, point: SwitchPoint) -> list[InjectFault]:
        """Cause the faults of this point.

        Returns:
            The faults that do not end or stop the process: the caller has to cause these.
        """
        if not self._pending:
            return []
        with self._lock:
            due = [fault for fault in self._pending if fault.point is point]
            self._pending = [fault for fault in self._pending if fault.point is not point]
        for fault in due:
            self._report(fault)
            if fault.action in _SIGNALS:
                os.kill(os.getpid(), _SIGNALS[fault.action])
        return [fault for fault in due if fault.action not in _SIGNALS]

"""Measures how many cores other processes leave free."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_UPTIME = Path("/proc/uptime")

_SPAN_S = 0.1
"""The shortest time that is measured, since Linux counts idle time in hundredths of a second."""

_PAUSE_S = 1.0
"""After a pause this long, the average over it says little about the present."""

_LOADAVG = Path("/proc/loadavg")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class _Reading(NamedTuple):
    """Clocks and counters read at one time, in seconds."""

    clock: float
    idle: float
    used: float


class FreeCores:
    """How many cores were idle or used by this process, on average since the previous call.

    On the other cores, other processes computed: a thread that runs there is interrupted in
    the middle of its part for milliseconds, and the call waits for it.

    Args:
        idle: returns the seconds that all cores together have been idle; infinity if unknown.
        used: returns the CPU seconds of this process.
        clock: returns seconds.
        left: returns how many cores are unused at this moment; called after a pause, over
            which the average says little about the present.
    """

    def __init__(
        self,
        idle: Callable[[], float] | None = None,
        used: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
        left: Callable[[], float] | None = None,
    ) -> None:
        self._left = left or _cores_left
        self._idle, self._used, self._clock = idle or _idle_seconds, used, clock
        self._last = self._read()
        self._cores = math.inf

    def __call__(self) -> float:
        """The number of free cores, a fraction; infinity while it is unknown."""
        last = self._last
        if self._clock() - last.clock >= _SPAN_S:
            # Two threads may do this at once, and both results are right.
            now = self._last = self._read()
            ours_or_idle = now.idle - last.idle + now.used - last.used
            span = now.clock - last.clock
            self._cores = ours_or_idle / span
            if span > _PAUSE_S:
                self._cores = min(self._cores, self._left())
        return self._cores if math.isfinite(self._cores) else math.inf

    def _read(self) -> _Reading:
        return _Reading(self._clock(), self._idle(), self._used())


def _idle_seconds() -> float:
    """Idle seconds of all cores, from Linux; of the whole machine even in a container."""
    try:
        idle = float(_UPTIME.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):  # another system
        return math.inf
    return idle or math.inf  # gVisor reports 0


def _cores_left() -> float:
    """Cores minus other threads that are ready to run now; infinity if unknown."""
    try:
        running = int(_LOADAVG.read_bytes().split()[3].split(b"/")[0])
    except (OSError, IndexError, ValueError):  # another system
        return math.inf
    return float((os.cpu_count() or 1) - max(0, running - 1))


def quota_cores() -> float:
    """How many cores the container of this process may use; infinity without a limit.

    Read from cgroup v2, which shows a container its own quota, when the process starts.
    """
    try:
        quota, period = _QUOTA.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no quota ("max"), or no cgroups
        return math.inf

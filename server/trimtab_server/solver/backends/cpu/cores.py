"""How many cores are free: what others compute beside the solver, measured and not guessed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_UPTIME = Path("/proc/uptime")

_SPAN_S = 0.1
"""Shortest time that is judged: Linux tells how long cores idle in hundredths of a second."""

_PAUSE_S = 1.0
"""From here on what cores have done on average may be long ago."""

_LOADAVG = Path("/proc/loadavg")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class _Look(NamedTuple):
    """Readings taken at one time, in seconds."""

    clock: float
    idle: float
    used: float


class FreeCores:
    """How many cores were idle or used by this process, on average since it was asked before.

    What is left are the cores that other processes computed on: a thread that runs on one of
    these is stopped in the middle of its part for milliseconds, and a call waits for it.

    Args:
        idle: seconds that cores of this machine have been idle, added up; infinite: not known.
        used: CPU seconds of this process.
        clock: seconds.
        left: how many cores nobody computes on at this moment. Asked after a pause, over which
            an average says nothing of now.
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
        self._last = self._look()
        self._cores = math.inf

    def __call__(self) -> float:
        """The number, which is no integer; infinite while it is not known."""
        last = self._last
        if self._clock() - last.clock >= _SPAN_S:
            # Two threads may do this at once: both are right.
            now = self._last = self._look()
            ours_or_idle = now.idle - last.idle + now.used - last.used
            span = now.clock - last.clock
            self._cores = ours_or_idle / span
            if span > _PAUSE_S:
                self._cores = min(self._cores, self._left())
        return self._cores if math.isfinite(self._cores) else math.inf

    def _look(self) -> _Look:
        return _Look(self._clock(), self._idle(), self._used())


def _idle_seconds() -> float:
    """As Linux counts them; of the whole machine, also in a container."""
    try:
        idle = float(_UPTIME.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):  # another system
        return math.inf
    return idle or math.inf  # gVisor says 0


def _cores_left() -> float:
    """Cores less the threads that want one now, this one aside; infinite where nobody says."""
    try:
        running = int(_LOADAVG.read_bytes().split()[3].split(b"/")[0])
    except (OSError, IndexError, ValueError):  # another system
        return math.inf
    return float((os.cpu_count() or 1) - max(0, running - 1))


def quota_cores() -> float:
    """How many cores this process's container may use; infinite where nothing says so.

    As cgroup v2 shows a container its own quota, when the process begins.
    """
    try:
        quota, period = _QUOTA.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no quota ("max"), or no cgroups
        return math.inf

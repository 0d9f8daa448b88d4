"""How often something may happen. Pure: the time is an argument, in seconds on any one clock."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import NamedTuple


class Pace(NamedTuple):
    """So many times a second on average, and so many at once after a rest."""

    per_second: float
    burst: int


class Meter:
    """Holds one thing to a pace."""

    def __init__(self, pace: Pace) -> None:
        self._period = 1 / pace.per_second
        self._slack = (pace.burst - 1) * self._period
        # When all that has happened would have, one period after the other.
        self._due = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until it may happen again; 0: now."""
        return max(0.0, self._due - self._slack - now)

    def count(self, now: float) -> None:
        """It happens."""
        self._due = max(self._due, now) + self._period

    def rested(self, now: float) -> bool:
        """Whether nothing is left of what has happened."""
        return self._due <= now


class Meters:
    """A meter for each of any number of keys, kept until it has rested."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._meters: dict[Hashable, Meter] = {}

    def __len__(self) -> int:
        return len(self._meters)

    def admit(self, key: Hashable, now: float) -> float:
        """Count one more of `key`, if it may be; else the seconds until it may."""
        self._drop_rested(now)
        # The one used last goes last.
        meter = self._meters.pop(key) if key in self._meters else Meter(self._pace)
        self._meters[key] = meter
        wait = meter.wait(now)
        if not wait:
            meter.count(now)
        return wait

    def _drop_rested(self, now: float) -> None:
        while self._meters:
            oldest = next(iter(self._meters))
            if not self._meters[oldest].rested(now):
                return
            del self._meters[oldest]

"""Rate limits. Pure: the time is an argument, in seconds on any one clock."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import NamedTuple


class RateLimit(NamedTuple):
    """At most `per_second` events a second on average, and at most `burst` at once after a rest."""

    per_second: float
    burst: int


class RateLimiter:
    """Applies a rate limit to one series of events."""

    def __init__(self, limit: RateLimit) -> None:
        self._period = 1 / limit.per_second
        self._slack = (limit.burst - 1) * self._period
        # When the last event would have ended, had all of them been one period apart.
        self._due = -math.inf

    def delay(self, now: float) -> float:
        """Seconds until the next event is allowed; 0 if it is allowed now."""
        return max(0.0, self._due - self._slack - now)

    def record(self, now: float) -> None:
        """Count an event that happens now."""
        self._due = max(self._due, now) + self._period

    def is_idle(self, now: float) -> bool:
        """Whether earlier events no longer have any effect."""
        return self._due <= now


class KeyedRateLimiter:
    """Applies a rate limit to each of any number of keys, which it drops once they are idle."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._limiters: dict[Hashable, RateLimiter] = {}

    def __len__(self) -> int:
        return len(self._limiters)

    def acquire(self, key: Hashable, now: float) -> float:
        """Count an event of `key` if it is allowed and return 0; else return seconds to wait."""
        self._drop_idle(now)
        # The key used last is moved to the end.
        limiter = self._limiters.pop(key) if key in self._limiters else RateLimiter(self._limit)
        self._limiters[key] = limiter
        delay = limiter.delay(now)
        if not delay:
            limiter.record(now)
        return delay

    def _drop_idle(self, now: float) -> None:
        while self._limiters:
            oldest = next(iter(self._limiters))
            if not self._limiters[oldest].is_idle(now):
                return
            del self._limiters[oldest]

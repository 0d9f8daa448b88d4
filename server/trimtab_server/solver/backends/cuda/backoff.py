"""Decides when a kind of request that failed may be tried again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

_FIRST_SECONDS = 10.0
"""An attempt compiles for seconds, so frequent ones would keep a core busy for nothing."""

_MAX_SECONDS = 600.0
"""How long a kind can stay on the host after the cause of its failures is gone."""

_MAX_KINDS = 256
"""Kinds that are remembered: a client that keeps sending new shapes must not fill the memory."""


class _Failure(NamedTuple):
    reason: str
    times: int
    retry_at: float


class Backoff:
    """Remembers failures, which may pass: memory may become free, or a disk come back.

    A kind waits 10 seconds after its first failure, and twice as long after each further one,
    up to 10 minutes. Only one thread may use this at a time.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[Hashable, _Failure] = OrderedDict()

    def __len__(self) -> int:
        """How many kinds failed at their last attempt."""
        return len(self._failures)

    def failed(self, kind: Hashable, reason: str) -> None:
        """Record that an attempt at this kind failed."""
        last = self._failures.pop(kind, None)
        times = 1 if last is None else last.times + 1
        # The power is bounded as well, since 2.0**1024 is out of range.
        wait = min(_MAX_SECONDS, _FIRST_SECONDS * 2.0 ** min(times - 1, 16))
        self._failures[kind] = _Failure(reason, times, self._clock() + wait)
        while len(self._failures) > _MAX_KINDS:
            self._failures.popitem(last=False)

    def succeeded(self, kind: Hashable) -> None:
        """Record that an attempt at this kind succeeded."""
        self._failures.pop(kind, None)

    def blocked_reason(self, kind: Hashable) -> str | None:
        """Why this kind may not be tried yet; None if it may."""
        failure = self._failures.get(kind)
        if failure is None:
            return None
        left = failure.retry_at - self._clock()
        if left <= 0:
            return None
        return f"failed {failure.times} times, next attempt in {left:.0f} s: {failure.reason}"

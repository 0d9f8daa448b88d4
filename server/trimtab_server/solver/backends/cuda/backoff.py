"""When a kind of request that failed may be tried again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

_FIRST_SECONDS = 10.0
_MOST_SECONDS = 600.0

_MOST_KINDS = 256
"""Kinds remembered: whoever sends new shapes without end must not fill the memory."""


class _Failure(NamedTuple):
    why: str
    times: int
    retry_at: float


class Backoff:
    """Remembers failures. What fails once may work later: memory is free again, a disk is back.

    After its first failure a kind waits 10 seconds, after each further one twice as long, at
    most 10 minutes. Not for two threads at once.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[Hashable, _Failure] = OrderedDict()

    def __len__(self) -> int:
        """Kinds whose last attempt failed."""
        return len(self._failures)

    def failed(self, kind: Hashable, why: str) -> None:
        """An attempt at this kind has failed."""
        last = self._failures.pop(kind, None)
        times = 1 if last is None else last.times + 1
        # The power is bounded as well: 2.0**1024 is no float.
        wait = min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(times - 1, 16))
        self._failures[kind] = _Failure(why, times, self._clock() + wait)
        while len(self._failures) > _MOST_KINDS:
            self._failures.popitem(last=False)

    def succeeded(self, kind: Hashable) -> None:
        """An attempt at this kind has succeeded."""
        self._failures.pop(kind, None)

    def waiting(self, kind: Hashable) -> str | None:
        """Why this kind failed, while it is too early for another attempt; else None."""
        failure = self._failures.get(kind)
        if failure is None:
            return None
        left = failure.retry_at - self._clock()
        if left <= 0:
            return None
        return f"failed {failure.times} times, is tried again in {left:.0f} s: {failure.why}"

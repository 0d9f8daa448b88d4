"""Since when a deployment is unused: by the event loop's clock here, by the wall's in the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

_MAX_PERIOD_S = 3600.0
_MIN_PERIOD_S = 0.05
_MAX_TICK_S = 60.0


@dataclass(frozen=True)
class Unused:
    """What says whether a deployment has expired.

    Attributes:
        seconds: for how long it has had no session, and no call of its engine.
        is_new: whether a worker or an engine created it, and it never had a complete group.
        is_wanted: whether it is pinned or paused.
    """

    seconds: float
    is_new: bool
    is_wanted: bool


class UsagePeriods(NamedTuple):
    """How often it is looked whether deployments are in use, and how often that is stored.

    Attributes:
        tick: seconds from one look to the next.
        period: seconds after which the store says again that a deployment is in use.
    """

    tick: float
    period: float

    @classmethod
    def of(cls, *limits: float) -> UsagePeriods:
        """For deployments that may be unused for these times, in seconds; 0 for any time.

        A tenth of the shortest: so much later than it should a deployment may expire after a
        restart.
        """
        shortest = min((limit for limit in limits if limit), default=_MAX_PERIOD_S * 10)
        period = min(max(shortest / 10, _MIN_PERIOD_S), _MAX_PERIOD_S)
        return cls(min(period / 4, _MAX_TICK_S), period)

    def to_store(self, stored: float | None, unused: float, wall: float) -> float | None:
        """The time to store instead of `stored`, until which the deployment counts as used.

        While it is in use, the stored time lies ahead, so that it has to be written seldom, and a
        server that is killed never takes a deployment for unused too early.

        Args:
            stored: what the store has; None if it does not say.
            unused: seconds since the deployment was used; 0 if it is in use.
            wall: now. All times but `unused` are in seconds on the wall clock, which may jump.

        Returns:
            The time; None if `stored` will do.
        """
        used_until, is_recent = wall - unused, unused < 2 * self.tick
        lowest = used_until + (self.tick if is_recent else -self.tick)
        highest = used_until + self.period + self.tick
        if stored is not None and lowest <= stored <= highest:
            return None
        return used_until + (self.period if is_recent else 0.0)


class Usage:
    """When a deployment was used last, beside its open sessions. Lives on the event loop.

    Args:
        used_until: when it was used last, in seconds on the wall clock; None if that is unknown,
            which counts as now.
    """

    def __init__(self, used_until: float | None) -> None:
        unused = 0.0 if used_until is None else max(0.0, time.time() - used_until)
        self._last = _now() - unused
        self._calls = 0

    @property
    def unused_seconds(self) -> float:
        """Seconds since it was used; 0 while a call runs."""
        return 0.0 if self._calls else _now() - self._last

    def touch(self) -> None:
        """It was used until now."""
        self._last = _now()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A context in which a call of its engine runs. One that is refused does not use it."""
        self._calls += 1
        try:
            yield
            self.touch()
        finally:
            self._calls -= 1


def _now() -> float:
    return asyncio.get_running_loop().time()

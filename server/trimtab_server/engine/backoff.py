"""Offers that a deployment makes by itself and that come to nothing are made ever more seldom."""

from __future__ import annotations

from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Record

_FIRST_S, _MOST_S = 1.0, 60.0


class Backoff:
    """Twice as long after each offer in a row that was aborted, up to a minute."""

    def __init__(self) -> None:
        self._offered: Version | None = None
        self._aborted = 0
        self._until = 0.0

    def offered(self, record: Record) -> None:
        """An offer has been made."""
        self._offered = record.switch.version if record.switch else None

    def look(self, record: Record, now: float) -> None:
        """See what has become of it. `now` is in seconds of a clock that rises."""
        offered = self._offered
        if offered is None or record.switch is not None or record.in_force is None:
            return
        self._offered = None
        # Where it went on from there, it came into force.
        came = record.in_force >= offered
        self._aborted = 0 if came else self._aborted + 1
        if not came:
            self._until = now + min(_MOST_S, _FIRST_S * 2 ** (self._aborted - 1))

    def why_not(self, now: float) -> str | None:
        """Why nothing is to be offered yet; None: it may be."""
        left = self._until - now
        return f"the last offer was aborted: the next one is in {left:.0f} s" if left > 0 else None

"""Delays the next offer of a deployment after its own offers were aborted."""

from __future__ import annotations

from trimtab_protocol.version import Version
from trimtab_server.rollout.record import Record

_FIRST_S, _MAX_S = 1.0, 60.0


class Backoff:
    """Doubles the delay with each offer in a row that was aborted, up to a minute."""

    def __init__(self) -> None:
        self._offered: Version | None = None
        self._aborted = 0
        self._until = 0.0

    def record_offer(self, record: Record) -> None:
        """Remember the offer that was just made."""
        self._offered = record.switch.version if record.switch else None

    def update(self, record: Record, now: float) -> None:
        """See whether the offer was applied or aborted. `now` is on a clock that only rises."""
        offered = self._offered
        if offered is None or record.switch is not None or record.in_force is None:
            return
        self._offered = None
        # Later versions can only follow if this one was applied.
        applied = record.in_force >= offered
        self._aborted = 0 if applied else self._aborted + 1
        if not applied:
            self._until = now + min(_MAX_S, _FIRST_S * 2 ** (self._aborted - 1))

    def blocked_reason(self, now: float) -> str | None:
        """Why nothing may be offered yet; None if it may."""
        left = self._until - now
        return f"the last offer was aborted: the next one is in {left:.0f} s" if left > 0 else None

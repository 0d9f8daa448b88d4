"""What the engine tells about its work, to whoever measures it."""

from __future__ import annotations

from typing import Literal, Protocol

Rejection = Literal["full", "deadline", "cancelled"]
When = Literal["before", "after"]


class Observer(Protocol):
    """Receives what happens in the engine.

    Calls come from the event loop and from the solver's thread, so an observer
    must be safe for use by several threads. A call must return at once and must
    not raise: the work reported on waits for it. All durations are in seconds.
    """

    def queue_depth(self, waiting: int) -> None:
        """`waiting` jobs now wait for the solver."""

    def queue_waited(self, seconds: float) -> None:
        """A job is about to start after waiting this long."""

    def queue_rejected(self, reason: Rejection) -> None:
        """A job was never started: no room, or its caller's time or interest ended."""

    def stage(self, stage: str, backend: str, effort: str, seconds: float) -> None:
        """One stage of a solver job took this long on the device."""

    def fallback(self, backend: str, reason: str) -> None:
        """Work meant for `backend` went to the next best: missing, shape, cold or error."""

    def solved(self, iterations: int, swaps: int) -> None:
        """A job took this many refinement steps and swaps, over all its rows."""

    def imbalance(self, when: When, worst: float, median: float) -> None:
        """Worst and median over the layers of a load, with the old or new placement."""

    def imbalance_bound(self, worst: float, median: float) -> None:
        """Worst and median over the layers of what no placement could be under."""

    def moved(self, moves: int) -> None:
        """A placement was answered that needs this many moves."""

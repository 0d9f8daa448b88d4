"""An observer that remembers what it was told, and lets a test wait for it."""

from __future__ import annotations

import asyncio
from typing import Any

from trimtab_server.engine.observer import Observer


class Recording(Observer):
    """Remembers the events of the solver and of calls.

    An event is the name of the method and its arguments, without durations. Create it on the
    event loop of the test.
    """

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    async def until(self, *event: Any) -> None:
        """Return once `event` has been reported."""
        async with asyncio.timeout(20):
            while event not in self.events:
                await self._changed.wait()

    async def until_any(self, name: str) -> None:
        """Return once any event with this name has been reported."""
        async with asyncio.timeout(20):
            while not self.named(name):
                await self._changed.wait()

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """Arguments of all events with this name."""
        return [event[1:] for event in self.events if event[0] == name]

    def queue_depth(self, waiting: int) -> None:
        self._note("queue_depth", waiting)

    def queue_waited(self, seconds: float) -> None:
        assert seconds >= 0
        self._note("queue_waited")

    def queue_rejected(self, reason: str) -> None:
        self._note("queue_rejected", reason)

    def stage(self, stage: str, backend: str, effort: str, seconds: float) -> None:
        assert seconds > 0
        self._note("stage", stage, backend, effort)

    def solved(self, iterations: int, swaps: int) -> None:
        self._note("solved", iterations, swaps)

    def imbalance(self, when: str, worst: float, median: float) -> None:
        self._note("imbalance", when, worst, median)

    def imbalance_bound(self, worst: float, median: float) -> None:
        self._note("imbalance_bound", worst, median)

    def fallback(self, backend: str, reason: str) -> None:
        self._note("fallback", backend, reason)

    def moves_planned(self, moves: int) -> None:
        self._note("moves_planned", moves)

    def call_started(self, method: str) -> None:
        self._note("call_started", method)

    def load_answered(self, code: str) -> None:
        self._note("load_answered", code)

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        assert seconds > 0
        self._note("call_ended", method, code)

    def _note(self, *event: Any) -> None:
        self._loop.call_soon_threadsafe(self._deliver, event)

    def _deliver(self, event: tuple[Any, ...]) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()

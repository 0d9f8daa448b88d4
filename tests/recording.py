"""An observer that remembers what it was told, and lets a test wait for it."""

from __future__ import annotations

import asyncio
from functools import partial
from inspect import Signature, isfunction, signature
from typing import Any

from trimtab_server.engine.observer import Observer


class Recording(Observer):
    """Remembers what it is told.

    An event is the name of the method and its arguments, without durations. Create it on the
    event loop of the test.
    """

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        for name, method in vars(Observer).items():
            if isfunction(method):
                setattr(self, name, partial(self._note, name, signature(method)))

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

    def _note(self, name: str, parameters: Signature, *values: Any, **named: Any) -> None:
        arguments = parameters.bind(self, *values, **named).arguments
        seconds = arguments.pop("seconds", 0.0)
        assert seconds >= 0
        event = (name, *[*arguments.values()][1:])
        self._loop.call_soon_threadsafe(self._deliver, event)

    def _deliver(self, event: tuple[Any, ...]) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()

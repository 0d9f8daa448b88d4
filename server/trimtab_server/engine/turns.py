"""One thing at a time, and each to its end, also where the call that asked for it is cancelled.

Lives on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

_T = TypeVar("_T")


class Turns:
    """Who is at work, who waits for that, and who only wants to know."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Nobody else has one meanwhile; all who wait for a change hear of its end."""
        async with self._turn:
            try:
                yield
            finally:
                # A new one for those who wait from now on.
                self._changed.set()
                self._changed = asyncio.Event()

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Do it by itself: whoever waits for it may stop waiting."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do it, and wait for it. Where the wait is cancelled, the work goes on."""
        return await asyncio.shield(self.begin(work))

    def changed(self) -> Coroutine[Any, Any, object]:
        """To be awaited: until the next turn ends from now, and not from when that begins."""
        return self._changed.wait()

    async def settle(self) -> None:
        """Return once nothing that has begun is still under way."""
        while self._running:
            await asyncio.wait(self._running)

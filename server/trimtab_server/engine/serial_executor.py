"""Runs pieces of work one at a time, each to its end even if its caller is cancelled.

Lives on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

_T = TypeVar("_T")


class SerialExecutor:
    """A lock, the tasks that take it, and a signal each time that it is released."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the lock. Its release wakes all who wait for `changed`."""
        async with self._lock:
            try:
                yield
            finally:
                # Those who begin to wait from now on wait for the next release.
                self._changed.set()
                self._changed = asyncio.Event()

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run the work in a task of its own, which need not be awaited."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run the work and wait for it. If the wait is cancelled, the work goes on."""
        return await asyncio.shield(self.start(work))

    def changed(self) -> Coroutine[Any, Any, object]:
        """Returns a wait for the next release of the lock, counted from this call."""
        return self._changed.wait()

    async def wait_idle(self) -> None:
        """Return once all work that was started has ended."""
        while self._running:
            await asyncio.wait(self._running)

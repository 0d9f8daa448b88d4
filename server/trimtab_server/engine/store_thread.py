"""Calls a blocking store on a thread of its own, one call at a time, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from trimtab_server.store.store import Store

HistoryBarrier = Callable[[], Callable[[], None] | None]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoreThread:
    """Opens a store on its thread, and calls it there.

    Args:
        make: opens the store.
        history_barrier: see `HistoryWriter.barrier`.

    Attributes:
        store: set by `open`.
    """

    store: Store

    def __init__(
        self, make: Callable[[], Store], history_barrier: HistoryBarrier = lambda: None
    ) -> None:
        self._make = make
        self._history_barrier = history_barrier
        self._closed = False
        self._thread = ThreadPoolExecutor(1, "trimtab-store")

    async def open(self) -> None:
        """Open the store.

        Raises:
            StoreError: the store cannot be opened.
        """
        self.store = await self._run(self._make)

    async def call(self, method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a method of the store, once the history has all events so far.

        Raises:
            StoreError: see the method.
        """
        wait = self._history_barrier()

        def work() -> _T:
            if wait is not None:
                wait()
            return method(*args, **kwargs)

        result: _T = await self._run(work)
        return result

    async def wait_for_history(self) -> None:
        """Return once the history has all events so far."""
        wait = self._history_barrier()
        if wait is not None:
            await self._run(wait)

    async def close(self) -> None:
        """Close the store. Repeated calls do nothing."""
        if not self._closed and hasattr(self, "store"):
            await self._run(self.store.close)
        self._closed = True
        self._thread.shutdown()

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

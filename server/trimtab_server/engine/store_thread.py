"""Calls a blocking store on a thread of its own, one call at a time, off the event loop.

Once a call has failed, the store is probed until a probe succeeds, or a record is saved. Other
writes do not count: on a disk that is almost full, small ones succeed while larger ones fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from trimtab_server.engine.store_health import StoreHealth
from trimtab_server.store.errors import StoreError
from trimtab_server.store.store import Store

HistoryBarrier = Callable[[], Callable[[], None] | None]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoreThread:
    """Opens a store on its thread, and calls it there.

    Args:
        make: opens the store.
        history_barrier: see `HistoryWriter.barrier`.
        probe_seconds: time between two probes while the store fails.

    Attributes:
        store: set by `open`.
        health: whether the store fails.
    """

    store: Store

    def __init__(
        self,
        make: Callable[[], Store],
        history_barrier: HistoryBarrier = lambda: None,
        probe_seconds: float = 5.0,
    ) -> None:
        self.health = StoreHealth()
        self._make = make
        self._history_barrier = history_barrier
        self._probe_seconds = probe_seconds
        self._probing: asyncio.Task[None] | None = None
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

        try:
            result: _T = await self._run(work)
        except StoreError as error:
            self._fails(error)
            raise
        return result

    async def wait_for_history(self) -> None:
        """Return once the history has all events so far."""
        wait = self._history_barrier()
        if wait is not None:
            await self._run(wait)

    async def close(self) -> None:
        """Close the store. Repeated calls do nothing."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        if not self._closed and hasattr(self, "store"):
            await self._run(self.store.close)
        self._closed = True
        self._thread.shutdown()

    def _fails(self, error: StoreError) -> None:
        self.health.failed(str(error))
        if not self._closed and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(self._probe_until_it_works())

    async def _probe_until_it_works(self) -> None:
        while self.health.failure is not None:
            await asyncio.sleep(self._probe_seconds)
            with suppress(StoreError):
                await self.call(self.store.probe)
                self.health.works()

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

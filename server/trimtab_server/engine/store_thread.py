"""Keeps a blocking store away from the event loop: one thread, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from trimtab_server.store.store import Store

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoreThread:
    """Opens a store on a thread of its own, and calls it there.

    Args:
        make: opens the store.
        barrier: called before each call; what it returns runs on the thread before the call. See
            `History.barrier`.
    """

    store: Store

    def __init__(
        self, make: Callable[[], Store], barrier: Callable[[], Callable[[], None]] | None = None
    ) -> None:
        self._make = make
        self._barrier = barrier
        self._closed = False
        self._thread = ThreadPoolExecutor(1, "trimtab-store")

    async def open(self) -> None:
        """Open the store.

        Raises:
            StoreError: it cannot be had.
        """
        self.store = await self._run(self._make)

    async def call(self, method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a method of the store.

        Raises:
            StoreError: see the method.
        """
        work = partial(method, *args, **kwargs)
        if self._barrier is not None:
            work = partial(_after, self._barrier(), work)
        result: _T = await self._run(work)
        return result

    async def close(self) -> None:
        """Let the store go. Harmless when repeated."""
        if not self._closed and hasattr(self, "store"):
            await self._run(self.store.close)
        self._closed = True
        self._thread.shutdown()

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _after(wait: Callable[[], None], work: Callable[[], Any]) -> Any:
    wait()
    return work()

"""Both clients behind one plain surface, so that each test is written once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trimtab_client import AsyncClient, Client


class SyncHarness:
    """`Client`, as it is."""

    threaded = True

    def __init__(self, *args: Any, **options: Any) -> None:
        self.client = Client(*args, **options)

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        return getattr(self.client, method)(*args, **options)

    def stream(self, *args: Any, **options: Any) -> Iterator[Any]:
        return self.client.place_stream(*args, **options)

    def watch(self, *args: Any, **options: Any) -> Iterator[Any]:
        return self.client.watch_placement(*args, **options)

    def call_then_close(self, *args: Any, once: threading.Semaphore) -> Any:
        """Close the client while a call is under way, `once` it has arrived."""
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.call, *args)
            once.acquire()
            self.client.close()
            return call.result()

    def close(self) -> None:
        self.client.close()


class AsyncHarness:
    """`AsyncClient`, on an event loop that runs while a call does."""

    threaded = False

    def __init__(self, *args: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        try:
            self.client = self._runner.run(self._make(*args, **options))
        except BaseException:
            self._runner.close()
            raise

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        return self._runner.run(getattr(self.client, method)(*args, **options))

    def stream(self, *args: Any, **options: Any) -> Iterator[Any]:
        return self._step(self.client.place_stream(*args, **options))

    def watch(self, *args: Any, **options: Any) -> Iterator[Any]:
        return self._step(self.client.watch_placement(*args, **options))

    def call_then_close(self, method: str, *args: Any, once: threading.Semaphore) -> Any:
        """Close the client while a call is under way, `once` it has arrived."""

        async def both() -> Any:
            call = asyncio.ensure_future(getattr(self.client, method)(*args))
            await asyncio.to_thread(once.acquire)
            await self.client.close()
            return await call

        return self._runner.run(both())

    def close(self) -> None:
        self._runner.run(self.client.close())
        self._runner.close()

    def _step(self, items: Any) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(items)

        try:
            while True:
                try:
                    yield self._runner.run(following())
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(items.aclose())

    @staticmethod
    async def _make(*args: Any, **options: Any) -> AsyncClient:
        return AsyncClient(*args, **options)


HARNESSES = {"sync": SyncHarness, "async": AsyncHarness}

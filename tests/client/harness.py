"""The asynchronous client behind the surface of the other, so that each test is written once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from inspect import isasyncgen
from typing import Any

from trimtab_client import AsyncClient

Wait = Callable[[Awaitable[Any]], Any]


@contextmanager
def event_loop() -> Iterator[Wait]:
    """An event loop in a thread of its own. Yields what waits for something that happens there."""

    async def awaited(answer: Awaitable[Any]) -> Any:
        return await answer

    with (
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
        ThreadPoolExecutor(1) as thread,
    ):
        loop = runner.get_loop()
        thread.submit(loop.run_forever)
        try:
            yield lambda answer: asyncio.run_coroutine_threadsafe(awaited(answer), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)


class BlockingClient:
    """An `AsyncClient` whose methods block and whose iterators are plain, in any thread."""

    def __init__(self, wait: Wait, *args: Any, **options: Any) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(*args, **options)

        self._wait = wait
        self._client = wait(make())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            answer = getattr(self._client, name)(*args, **options)
            return self._iterated(answer) if isasyncgen(answer) else self._wait(answer)

        return call

    def _iterated(self, items: AsyncGenerator[Any]) -> Iterator[Any]:
        try:
            while (item := self._wait(anext(items, None))) is not None:
                yield item
        finally:
            self._wait(items.aclose())

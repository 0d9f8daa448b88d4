"""The asynchronous client behind the surface of the other, so that each test is written once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from inspect import isasyncgen
from typing import Any

from trimtab_client import AsyncClient, AsyncEngineSession, EngineOptions, EngineSession

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

    def engine_session(self, options: EngineOptions) -> Any:
        """An `AsyncEngineSession` of this client, whose calls block."""
        return _BlockingSession(self._wait, AsyncEngineSession(self._client, options))


class _BlockingSession:
    def __init__(self, wait: Wait, session: AsyncEngineSession) -> None:
        self._wait = wait
        self._session = session
        self.forget_load = session.forget_load

    def rebalance(self, *args: Any, **options: Any) -> Any:
        return self._wait(self._session.rebalance(*args, **options))

    def report_layers(self, *args: Any, **options: Any) -> Any:
        return self._wait(self._session.report_layers(*args, **options))


def engine_session(client: Any, options: EngineOptions) -> Any:
    """A session of the kind that belongs to this client."""
    if isinstance(client, BlockingClient):
        return client.engine_session(options)
    return EngineSession(client, options)

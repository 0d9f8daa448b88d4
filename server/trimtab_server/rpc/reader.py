"""Reads a stream one message ahead, until its end, until it is idle, or until a drain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Self

import grpc

from trimtab_server.domain.errors import SessionClosedError


class Reader:
    """An async context manager that ends its tasks on exit.

    One message is read while the one before it is processed. After that, gRPC's flow control
    holds the sender back.

    Args:
        context: of the call.
        draining: waits for the server to drain, then raises UnavailableError.
        idle_seconds: longest wait for a message.
    """

    def __init__(
        self, context: Any, draining: Callable[[], Awaitable[NoReturn]], idle_seconds: float
    ) -> None:
        self._context = context
        self._wait_for_drain = draining
        self._idle_seconds = idle_seconds

    async def __aenter__(self) -> Self:
        self._next = asyncio.ensure_future(self._context.read())
        self._draining = asyncio.ensure_future(self._wait_for_drain())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = (self._next, self._draining)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def read(self) -> Any:
        """The next message; None after the last.

        A peer that cancels between two messages may look like one that has finished, because
        the end of its messages arrives before its cancellation.

        Raises:
            UnavailableError: the server drains, and accepts no more messages.
            SessionClosedError: no message came for too long.
        """
        done, _ = await asyncio.wait(
            (self._next, self._draining),
            timeout=self._idle_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not done:
            raise SessionClosedError(
                f"no message came for {self._idle_seconds:g} s (setting idle_stream_seconds): "
                "open another stream with the next load"
            )
        if self._draining.done():
            self._draining.result()
        message = self._next.result()
        if message is grpc.aio.EOF:
            return None
        self._next = asyncio.ensure_future(self._context.read())
        return message

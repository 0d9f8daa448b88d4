"""Reads a stream one message ahead, until its end or until the server drains."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import grpc

from trimtab_server.rpc.gate import Gate


class Reader:
    """An async context manager that ends its tasks on exit.

    One message is read while the one before it is processed. After that, gRPC's flow control
    holds the sender back.
    """

    def __init__(self, context: Any, gate: Gate) -> None:
        self._context = context
        self._gate = gate

    async def __aenter__(self) -> Self:
        self._next = asyncio.ensure_future(self._context.read())
        self._draining = asyncio.ensure_future(self._gate.draining())
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
        """
        await asyncio.wait((self._next, self._draining), return_when=asyncio.FIRST_COMPLETED)
        if self._draining.done():
            self._draining.result()
        message = self._next.result()
        if message is grpc.aio.EOF:
            return None
        self._next = asyncio.ensure_future(self._context.read())
        return message

"""A worker's stream, with time limits for reads and writes, and a rate limit for reads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from trimtab_server.domain.errors import SessionClosedError
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.rate_limit import RateLimit, RateLimiter

_T = TypeVar("_T")

_BURST_SECONDS = 5
_MIN_BURST = 10
"""Enough for the answers of two switches."""


class SessionStream:
    """The context of one call, with the limits of a session.

    Attributes:
        delays: number of messages that were delayed by the rate limit.
    """

    def __init__(self, context: Any, config: SessionConfig) -> None:
        self._context = context
        self._lease = config.lease_seconds
        rate = config.messages_per_second
        self._limiter = RateLimiter(
            RateLimit(rate, max(_MIN_BURST, math.ceil(rate * _BURST_SECONDS)))
        )
        self.delays = 0

    async def open(self) -> None:
        """Send the headers of the call. Await this before anything that may be cancelled writes.

        The first message or the end of a call sends them otherwise. gRPC notes that they are sent
        once that write is complete: after a write that was cancelled, the end would send them
        again, which fails, and the call would never end.

        Raises:
            SessionClosedError: the peer took nothing for the duration of a lease.
        """
        await self._send(self._context.send_initial_metadata(()))

    async def read(self) -> Any:
        """The next message; None at the end of the stream.

        Raises:
            SessionClosedError: no message came for the duration of a lease.
        """
        message = await self._in_time(self._context.read(), "no message came from the worker")
        return None if message is grpc.aio.EOF else message

    async def wait_for_rate(self, delayed: Callable[[], None]) -> None:
        """Return when the rate limit allows the next read. Calls `delayed` if that takes time.

        Meanwhile gRPC's flow control holds the peer back. Ending the session instead would cost
        more: the worker would connect again, and its group's switch would be aborted.
        """
        loop = asyncio.get_running_loop()
        wait = self._limiter.delay(loop.time())
        if wait:
            self.delays += 1
            delayed()
            await asyncio.sleep(wait)
        self._limiter.record(loop.time())

    async def write(self, message: Any) -> None:
        """Send one message. Returns when flow control has accepted it.

        Raises:
            SessionClosedError: the peer read nothing for the duration of a lease.
        """
        await self._send(self._context.write(message))

    async def _send(self, operation: Awaitable[None]) -> None:
        await self._in_time(operation, "the worker read nothing")

    async def _in_time(self, operation: Awaitable[_T], failure: str) -> _T:
        try:
            async with asyncio.timeout(self._lease):
                return await operation
        except TimeoutError:
            raise SessionClosedError(
                f"{failure} for {self._lease:g} s (setting lease_seconds)"
            ) from None

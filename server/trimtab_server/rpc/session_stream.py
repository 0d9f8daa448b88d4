"""A worker's stream: read in time and not too often, and written to no longer than it is read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from trimtab_server.domain.errors import SessionClosedError, TrimtabError
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.rate_limit import RateLimit, RateLimiter
from trimtab_server.rpc.status import status_of

_T = TypeVar("_T")

_BURST_SECONDS = 5
_LEAST_BURST = 10
"""Enough for all that a switch or two ask for."""

_LAST_WORD_S = 0.5
"""For the status of a stream that may not be read any more."""


class SessionStream:
    """One call's context, seen through the limits of a session.

    Attributes:
        delays: how many messages have been left unread for a while.
    """

    def __init__(self, context: Any, config: SessionConfig) -> None:
        self._context = context
        self._lease = config.lease_seconds
        rate = config.messages_per_second
        self._limiter = RateLimiter(
            RateLimit(rate, max(_LEAST_BURST, math.ceil(rate * _BURST_SECONDS)))
        )
        self._writing = False
        self.delays = 0

    async def read(self) -> Any:
        """The next message; None at the end of the stream.

        Raises:
            SessionClosedError: none came for as long as a lease lasts.
        """
        message = await self._in_time(self._context.read(), "no message came")
        return None if message is grpc.aio.EOF else message

    async def turn(self, delayed: Callable[[], None]) -> None:
        """Return when the peer may be read again; calls `delayed` where that is not now.

        Until then gRPC's flow control holds the peer back. A session that were ended instead
        would begin anew, which costs more than its messages, and abort its group's switch.
        """
        loop = asyncio.get_running_loop()
        wait = self._limiter.delay(loop.time())
        if wait:
            self.delays += 1
            delayed()
            await asyncio.sleep(wait)
        self._limiter.record(loop.time())

    async def write(self, message: Any) -> None:
        """Send one message; returns when flow control has let it go.

        Raises:
            SessionClosedError: the peer read nothing for as long as a lease lasts.
        """
        self._writing = True
        await self._in_time(self._context.write(message), "nothing was read")
        self._writing = False

    async def abort(self, error: TrimtabError) -> None:
        """End the call with this, without waiting for a peer that does not read.

        gRPC keeps the status for when it reads on; here the call is as good as cancelled.
        """
        if not self._writing:
            raise error
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await self._context.abort(*status_of(error))
        raise asyncio.CancelledError

    async def _in_time(self, doing: Awaitable[_T], failed: str) -> _T:
        try:
            async with asyncio.timeout(self._lease):
                return await doing
        except TimeoutError:
            raise SessionClosedError(f"{failed} for {self._lease:g} s") from None

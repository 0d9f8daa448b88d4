"""Admits calls, up to a limit, and none while the server warms up or drains."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from trimtab_server.domain.errors import ResourceExhaustedError, UnavailableError

_RETRY_AFTER_S = 1.0


class Gate:
    """Counts the calls that run, and lets callers wait for the drain and for the last call.

    All methods run on the event loop. The limit is not left to gRPC, which would also count
    health checks and would not tell clients when to try again.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._running = 0
        self._refusal: str | None = "the server is warming up"
        self._draining = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A context in which one call runs.

        Raises:
            UnavailableError: the gate is not open.
            ResourceExhaustedError: the maximum number of calls run already.
        """
        if self._refusal is not None:
            raise UnavailableError(self._refusal, _RETRY_AFTER_S)
        if self._running >= self._capacity:
            raise ResourceExhaustedError(
                f"{self._capacity} such calls are running, which is the limit of this server",
                _RETRY_AFTER_S,
            )
        self._running += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                self._empty.set()

    def open(self) -> None:
        """Admit calls, unless `drain` was called before."""
        if not self._draining.is_set():
            self._refusal = None

    def drain(self) -> None:
        """Admit no more calls, for good."""
        self._refusal = "the server is shutting down"
        self._draining.set()

    async def draining(self) -> None:
        """Wait until the gate drains, then raise UnavailableError to end the caller's call."""
        await self._draining.wait()
        raise UnavailableError("the server is shutting down", _RETRY_AFTER_S)

    async def empty(self) -> None:
        """Return once no call runs."""
        await self._empty.wait()

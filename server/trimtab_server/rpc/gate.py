"""Decides which calls are let in: none while warming up or draining, and only so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from trimtab_server.domain.errors import ResourceExhaustedError, UnavailableError

_RETRY_AFTER_S = 1.0


class Gate:
    """Counts the calls inside, and lets callers wait for drain and for the last one to leave.

    Lives on the event loop. The limit is kept here rather than by gRPC, which
    would count health checks too and would not say when to try again.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._inside = 0
        self._refusal: str | None = "the server is warming up"
        self._draining = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One call is inside.

        Raises:
            UnavailableError: the gate is not open.
            ResourceExhaustedError: too many calls are inside.
        """
        if self._refusal is not None:
            raise UnavailableError(self._refusal, _RETRY_AFTER_S)
        if self._inside >= self._capacity:
            raise ResourceExhaustedError(
                f"{self._capacity} calls are being carried out, which is this server's limit",
                _RETRY_AFTER_S,
            )
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if self._inside == 0:
                self._empty.set()

    def open(self) -> None:
        """Let calls in, unless the gate was told to drain meanwhile."""
        if not self._draining.is_set():
            self._refusal = None

    def drain(self) -> None:
        """Let no more calls in, for good."""
        self._refusal = "the server is shutting down"
        self._draining.set()

    async def draining(self) -> None:
        """Return once the gate drains; raises UnavailableError to end the caller's call."""
        await self._draining.wait()
        raise UnavailableError("the server is shutting down", _RETRY_AFTER_S)

    async def empty(self) -> None:
        """Return once no call is inside."""
        await self._empty.wait()

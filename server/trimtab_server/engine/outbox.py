"""Messages waiting to be sent on a session. A newer message of a kind replaces the older one.

So a worker that reads slowly, or not at all, delays nobody else and fills no memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

KINDS = ("directive", "welcome", "switch", "ack", "drain")
"""Kinds of messages, in the order in which they are sent if several wait."""


class Outbox:
    """The messages of one session. Lives on the event loop; many tasks put, one task takes."""

    def __init__(self) -> None:
        self._waiting: dict[str, Any] = {}
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()

    def put(self, kind: str, message: Any) -> None:
        """Queue a message. It replaces a waiting one of its kind."""
        self._waiting[kind] = message
        self._changed.set()

    def close(self, error: BaseException) -> None:
        """End the session with this error. Waiting messages are dropped. The first error stays."""
        self._error = self._error or error
        self._changed.set()
        self._closed.set()

    def raise_if_closed(self) -> None:
        """Raise the error that the outbox was closed with, if it was."""
        if self._error is not None:
            raise self._error

    async def wait_closed(self) -> None:
        """Wait until the outbox is closed, then raise its error, even while a send hangs."""
        await self._closed.wait()
        self.raise_if_closed()

    async def take(self) -> tuple[str, Any]:
        """Wait for the next message; returns its kind and the message. Raises once closed."""
        while True:
            self.raise_if_closed()
            for kind in KINDS:
                if kind in self._waiting:
                    return kind, self._waiting.pop(kind)
            self._changed.clear()
            await self._changed.wait()

"""What is to be sent on one session: of each kind only the latest, and without a limit to wait for.

So a worker that reads slowly, or not at all, holds up nobody and fills no memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

KINDS = ("directive", "welcome", "switch", "ack", "drain")
"""In the order in which they are sent where several wait."""


class Mailbox:
    """Lives on the event loop. Anyone may put; one task takes."""

    def __init__(self) -> None:
        self._waiting: dict[str, Any] = {}
        self._end: BaseException | None = None
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()

    def put(self, kind: str, message: Any) -> None:
        """Send this, in the place of one of its kind that has not been sent yet."""
        self._waiting[kind] = message
        self._changed.set()

    def close(self, error: BaseException) -> None:
        """End the session with this; what waits is not sent any more."""
        self._end = self._end or error
        self._changed.set()
        self._closed.set()

    def check(self) -> None:
        """Raise what the mailbox was closed with."""
        if self._end is not None:
            raise self._end

    async def closed(self) -> None:
        """Wait until it is closed, and raise what with. A send under way may last for ever."""
        await self._closed.wait()
        self.check()

    async def take(self) -> tuple[str, Any]:
        """The next message to send, with its kind; raises what the mailbox was closed with."""
        while True:
            self.check()
            for kind in KINDS:
                if kind in self._waiting:
                    return kind, self._waiting.pop(kind)
            self._changed.clear()
            await self._changed.wait()

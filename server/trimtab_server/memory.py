"""Gives memory that was freed back to the system.

glibc keeps what is freed inside its heaps, so after a flood of sessions or of large messages the
process would stay as large as it ever was, and each flood would leave other holes.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

_INTERVAL_S = 10.0
"""A call takes up to 12 ms after a flood of 5,000 sessions, on a thread of its own."""


def trimmer() -> Callable[[], None] | None:
    """The function that gives freed memory back; None if the C library has none."""
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)


@asynccontextmanager
async def giving_back() -> AsyncIterator[None]:
    """A context in which freed memory is given back again and again, if that is possible."""
    task = asyncio.create_task(_give_back_forever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _give_back_forever() -> None:
    trim = trimmer()
    while trim is not None:
        await asyncio.sleep(_INTERVAL_S)
        await asyncio.to_thread(trim)

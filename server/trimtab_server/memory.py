"""Gives memory that was freed back to the system.

glibc keeps what is freed inside its heaps, so after a flood of sessions or of large messages the
process would stay as large as it ever was, and each flood would leave other holes.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

_INTERVAL_S = 10.0
"""A call takes up to 12 ms after a flood of 5,000 sessions, on a thread of its own."""


def trimmer() -> Callable[[], None] | None:
    """The function that gives freed memory back; None if the C library has none."""
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)


async def give_back_forever() -> None:
    """Give freed memory back again and again. Returns at once if that is not possible."""
    trim = trimmer()
    while trim is not None:
        await asyncio.sleep(_INTERVAL_S)
        await asyncio.to_thread(trim)

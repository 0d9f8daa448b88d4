"""Work runs one piece at a time, and waits see its end."""

from __future__ import annotations

import asyncio

from trimtab_server.engine.serial_executor import SerialExecutor


async def test_a_wait_for_a_change_counts_from_the_call():
    executor = SerialExecutor()
    waiting = executor.changed()
    async with executor.exclusive():
        pass
    await asyncio.wait_for(waiting, 10)

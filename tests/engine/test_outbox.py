"""The outbox of a session: the latest message of each kind, in a fixed order."""

from __future__ import annotations

import asyncio

import pytest

from trimtab_server.engine.outbox import KINDS, Outbox


async def test_only_the_latest_of_each_kind_is_sent():
    outbox = Outbox()
    for seq in range(100_000):
        outbox.put("ack", seq)
    outbox.put("switch", "offer")
    outbox.put("switch", "abort")
    assert await outbox.take() == ("switch", "abort")
    assert await outbox.take() == ("ack", 99_999)


async def test_waiting_messages_are_sent_in_the_order_of_kinds():
    outbox = Outbox()
    for kind in reversed(KINDS):
        outbox.put(kind, kind)
    assert [(await outbox.take())[0] for _ in KINDS] == list(KINDS)


async def test_taking_waits_for_a_message():
    outbox = Outbox()
    taking = asyncio.ensure_future(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    outbox.put("welcome", 1)
    assert await taking == ("welcome", 1)


async def test_closing_ends_all_waits_with_the_first_reason():
    outbox = Outbox()
    outbox.raise_if_closed()
    closed = asyncio.ensure_future(outbox.wait_closed())
    outbox.put("ack", 1)
    await asyncio.sleep(0)
    assert not closed.done(), "whatever is being sent"
    outbox.close(ValueError("first"))
    outbox.close(ValueError("second"))
    for wait in (outbox.take(), closed):
        with pytest.raises(ValueError, match="first"):
            await wait
    with pytest.raises(ValueError, match="first"):
        outbox.raise_if_closed()

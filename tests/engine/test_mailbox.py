"""The mailbox of a session: the latest of each kind, in a fixed order."""

from __future__ import annotations

import asyncio

import pytest

from trimtab_server.engine.mailbox import KINDS, Mailbox


async def test_only_the_latest_of_each_kind_is_sent():
    mailbox = Mailbox()
    for seq in range(100_000):
        mailbox.put("ack", seq)
    mailbox.put("switch", "offer")
    mailbox.put("switch", "abort")
    assert await mailbox.take() == ("switch", "abort")
    assert await mailbox.take() == ("ack", 99_999)


async def test_what_waits_is_sent_in_the_order_of_kinds():
    mailbox = Mailbox()
    for kind in reversed(KINDS):
        mailbox.put(kind, kind)
    assert [(await mailbox.take())[0] for _ in KINDS] == list(KINDS)


async def test_taking_waits_for_a_message():
    mailbox = Mailbox()
    taking = asyncio.ensure_future(mailbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    mailbox.put("welcome", 1)
    assert await taking == ("welcome", 1)


async def test_closing_ends_it_with_the_first_reason():
    mailbox = Mailbox()
    mailbox.put("ack", 1)
    mailbox.close(ValueError("first"))
    mailbox.close(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        await mailbox.take()


async def test_who_waits_for_the_end_hears_of_it_whatever_is_being_sent():
    mailbox = Mailbox()
    mailbox.check()
    closed = asyncio.ensure_future(mailbox.closed())
    mailbox.put("ack", 1)
    await asyncio.sleep(0)
    assert not closed.done()
    mailbox.close(ValueError("enough"))
    with pytest.raises(ValueError, match="enough"):
        await closed
    with pytest.raises(ValueError, match="enough"):
        mailbox.check()

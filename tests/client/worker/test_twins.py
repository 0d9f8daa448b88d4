"""Both kinds of session have one surface, and what only asyncio can do works."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

import pytest

from tests.client.worker.engine import COMMIT, ONE, QUICK, offer, options
from tests.client.worker.server import WAIT, RunningSessions
from trimtab_client import AsyncWorkerSession, Flip, SwitchOffer, WorkerSession

METHODS = sorted(
    name for name, _ in inspect.getmembers(WorkerSession, callable) if not name.startswith("_")
)


def shape(function: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


def test_both_have_the_same_methods() -> None:
    members = inspect.getmembers(AsyncWorkerSession, callable)
    assert sorted(name for name, _ in members if not name.startswith("_")) == METHODS
    called = {"applied", "at_step_boundary", "close", "forget_load", "record", "regroup"}
    assert set(METHODS) == called


@pytest.mark.parametrize("name", ["__init__", *METHODS])
def test_both_take_the_same_arguments(name: str) -> None:
    assert shape(getattr(WorkerSession, name)) == shape(getattr(AsyncWorkerSession, name))


@pytest.mark.parametrize("kind", [WorkerSession, AsyncWorkerSession])
def test_every_member_is_documented(kind: type) -> None:
    assert kind.__doc__
    for name in ("in_force", "placement", "connected", *METHODS):
        assert getattr(kind, name).__doc__, name


async def test_transfer_and_barrier_may_be_coroutines(server: RunningSessions) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    brought: list[Sequence[int]] = []

    async def on_offer(_: SwitchOffer) -> None:
        begun.set()
        await release.wait()

    async def barrier(values: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        brought.append(values)
        return values

    async with AsyncWorkerSession(
        server.target,
        options(),
        on_offer=on_offer,
        on_abort=lambda offer: None,
        barrier=barrier,
        retry=QUICK,
    ) as session:
        stream = await asyncio.to_thread(server.joined)
        offer(stream)
        await asyncio.wait_for(begun.wait(), WAIT)
        await asyncio.to_thread(stream.expect, "accepted")
        release.set()
        await asyncio.to_thread(stream.expect, "prepared")
        stream.tell(COMMIT)
        flip: Flip | None = None
        step = 0
        async with asyncio.timeout(WAIT):
            while flip is None:
                step += 1
                flip = await session.at_step_boundary(step)
        session.applied()
        await asyncio.to_thread(stream.expect, "applied")
        assert session.in_force == ONE
        assert len(brought) == step, "agreed on at every step"
        stream.end()


async def test_a_coroutine_that_fails_refuses(server: RunningSessions) -> None:
    async def on_offer(_: SwitchOffer) -> None:
        raise OSError("link down")

    aborted = asyncio.Event()
    async with AsyncWorkerSession(
        server.target,
        options(),
        on_offer=on_offer,
        on_abort=lambda offer: aborted.set(),
        retry=QUICK,
    ):
        stream = await asyncio.to_thread(server.joined)
        offer(stream)
        await asyncio.to_thread(stream.expect, "accepted")
        refused = await asyncio.to_thread(stream.expect, "refused")
        assert "link down" in refused.reason
        await asyncio.wait_for(aborted.wait(), WAIT)
        stream.end()


async def test_a_session_needs_an_event_loop() -> None:
    def make() -> None:
        AsyncWorkerSession(
            "localhost:1", options(), on_offer=lambda offer: None, on_abort=lambda offer: None
        )

    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(make)

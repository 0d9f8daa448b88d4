"""Sessions leave nothing behind, however they end: no task, no stream, no memory.

Rounds of the same sessions are played, and what there is after the last is compared with what
there was after an earlier one. That this finds leaks is shown by planting some.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.rpc.endpoint import Endpoint, endpoint_of
from tests.rpc.rounds import Rounds
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.rate_limit import KeyedRateLimiter
from trimtab_server.engine.worker_side import WorkerSide
from trimtab_server.rpc.session_servicer import SessionServicer
from trimtab_server.rpc.session_stream import SessionStream

pytestmark = pytest.mark.slow

_MOST_GROWTH = 80_000
"""Bytes, over three rounds of fifty sessions each. Caches of Python's own take a third of it."""


@pytest.fixture(autouse=True)
def only_what_is_new() -> Iterator[None]:
    """Let the collector leave alone what there was before, so that it is quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def left_by_hundreds() -> tuple[dict[Any, int], int]:
    """What there is more of after three rounds of sessions, and bytes more that are in use."""
    # Statuses are refreshed in every round, not only in a later one.
    async with endpoint_of(report_seconds=0.05) as endpoint:
        rounds = Rounds(endpoint, times=5)
        with traced_memory() as memory:
            await rounds.play()
            earlier, before = await rounds.play(), memory()
            for _ in range(3):
                await rounds.play()
            return await rounds.more_than(earlier), memory() - before


@contextmanager
def traced_memory() -> Iterator[Callable[[], int]]:
    """Bytes that Python has allocated since, as a function."""

    def allocated() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        yield allocated
    finally:
        tracemalloc.stop()


async def test_hundreds_of_sessions_leave_nothing_behind():
    more, growth = await left_by_hundreds()
    assert more == {}
    assert growth < _MOST_GROWTH


# What is planted.

_kept: list[Any] = []


def keep_connections(monkeypatch: pytest.MonkeyPatch, _: Endpoint) -> None:
    leave = WorkerSide.leave

    def keep(self, session, *why):
        _kept.append(session)
        leave(self, session, *why)

    monkeypatch.setattr(WorkerSide, "leave", keep)


def never_end_the_sessions_of_some(monkeypatch: pytest.MonkeyPatch, _: Endpoint) -> None:
    leave = WorkerSide.leave

    def stay(self, session, *why):
        if not self._core.store.name.startswith("cancel"):
            leave(self, session, *why)

    monkeypatch.setattr(WorkerSide, "leave", stay)


def never_cancel_the_writer(monkeypatch: pytest.MonkeyPatch, _: Endpoint) -> None:
    write = SessionServicer._write

    async def shielded(*arguments):
        _kept.append(task := asyncio.ensure_future(write(*arguments)))
        await asyncio.shield(task)

    monkeypatch.setattr(SessionServicer, "_write", shielded)


def never_leave_the_gate(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    admission = endpoint.server.admission
    admitted = admission.admitted

    @contextmanager
    def stay(*call):
        _kept.append(inside := admitted(*call))
        inside.__enter__()
        yield

    monkeypatch.setattr(admission, "admitted", stay)


def never_forget_deployments(monkeypatch: pytest.MonkeyPatch, _: Endpoint) -> None:
    monkeypatch.setattr(Deployments, "_drop_if_unused", lambda *_: None)


def keep_the_counts_of_strangers(monkeypatch: pytest.MonkeyPatch, _: Endpoint) -> None:
    monkeypatch.setattr(WorkerSide, "_drop_strangers", lambda _: None)


def remember_every_hello(monkeypatch: pytest.MonkeyPatch, _: Endpoint) -> None:
    monkeypatch.setattr(KeyedRateLimiter, "_drop_idle", lambda *_: None)


LEAKS = {
    keep_connections: ("object", "WorkerSession"),
    never_end_the_sessions_of_some: ("object", "Outbox"),
    never_cancel_the_writer: ("task", "SessionServicer._write"),
    never_leave_the_gate: ("stream", "admitted"),
    never_forget_deployments: ("object", "Deployment"),
    keep_the_counts_of_strangers: ("object", "Counters"),
    remember_every_hello: ("object", "RateLimiter"),
}


@pytest.mark.parametrize("plant", LEAKS, ids=lambda plant: plant.__name__)
async def test_a_leak_would_be_found(monkeypatch, plant):
    async with endpoint_of() as endpoint:
        plant(monkeypatch, endpoint)
        rounds = Rounds(endpoint, times=2)
        earlier = await rounds.play()
        await rounds.play()
        more = await rounds.more_than(earlier, moments=1)
        monkeypatch.undo()
    tasks = [each for each in _kept if isinstance(each, asyncio.Task)]
    _kept.clear()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert LEAKS[plant] in more


async def test_retained_bytes_would_be_found(monkeypatch):
    begin = SessionStream.__init__

    def keep(self, *arguments):
        begin(self, *arguments)
        _kept.append(bytes(1000))

    monkeypatch.setattr(SessionStream, "__init__", keep)
    more, growth = await left_by_hundreds()
    _kept.clear()
    assert more == {}
    assert growth > _MOST_GROWTH

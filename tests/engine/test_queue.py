from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from typing import NoReturn

import pytest

from tests.recording import Recording
from tests.servers import busy
from trimtab_server.domain.errors import (
    DeadlineExceededError,
    ResourceExhaustedError,
    UnavailableError,
)
from trimtab_server.engine.queue import SolverQueue


@pytest.fixture
async def observer() -> Recording:
    return Recording()


@pytest.fixture
async def queue(observer: Recording) -> AsyncIterator[SolverQueue]:
    queue = SolverQueue(2, observer)
    yield queue
    await queue.close()


async def test_a_job_runs_on_the_solver_thread_and_its_result_comes_back(
    queue: SolverQueue,
) -> None:
    thread = await queue.run(threading.current_thread)
    assert thread is not threading.current_thread()
    assert await queue.run(threading.current_thread) is thread


async def test_a_jobs_exception_is_raised_to_its_caller_and_the_queue_goes_on(
    queue: SolverQueue,
) -> None:
    def fail() -> NoReturn:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await queue.run(fail)
    assert await queue.run(lambda: 7) == 7


async def test_jobs_run_one_at_a_time_in_the_order_they_came(queue: SolverQueue) -> None:
    done: list[int] = []
    async with busy(queue) as release:
        jobs = [asyncio.create_task(queue.run(lambda n=n: done.append(n))) for n in range(2)]
        await asyncio.sleep(0)
        assert done == []
        release.set()
        await asyncio.gather(*jobs)
    assert done == [0, 1]


async def test_a_full_queue_refuses_and_says_when_to_try_again(
    queue: SolverQueue, observer: Recording
) -> None:
    async with busy(queue) as release:
        waiting = [asyncio.create_task(queue.run(lambda: None)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhaustedError, match="full") as refused:
            await queue.run(lambda: None)
        release.set()
        await asyncio.gather(*waiting)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 30
    await observer.until("queue_rejected", "full")
    assert max(observer.named("queue_depth")) == (2,)


async def test_the_time_to_wait_grows_with_the_queue(queue: SolverQueue) -> None:
    async with busy(queue) as release:
        alone = queue.retry_after()
        waiting = asyncio.create_task(queue.run(lambda: None))
        await asyncio.sleep(0)
        assert queue.retry_after() > alone
        release.set()
        await waiting


async def test_a_job_whose_caller_was_cancelled_is_never_started(
    queue: SolverQueue, observer: Recording
) -> None:
    started = threading.Event()
    async with busy(queue) as release:
        waiting = asyncio.create_task(queue.run(started.set))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
    await queue.run(lambda: None)
    assert not started.is_set()
    await observer.until("queue_rejected", "cancelled")


async def test_a_job_whose_deadline_passes_while_it_waits_is_never_started(
    queue: SolverQueue, observer: Recording
) -> None:
    started = threading.Event()
    soon = asyncio.get_running_loop().time() + 0.01
    async with busy(queue):
        with pytest.raises(DeadlineExceededError):
            await queue.run(started.set, deadline=soon)
    await queue.run(lambda: None)
    assert not started.is_set()
    await observer.until("queue_rejected", "deadline")


async def test_a_job_that_comes_after_its_deadline_is_not_started_on_a_free_solver(
    queue: SolverQueue,
) -> None:
    started = threading.Event()
    with pytest.raises(DeadlineExceededError):
        await queue.run(started.set, deadline=asyncio.get_running_loop().time())
    assert not started.is_set()


async def test_a_running_job_keeps_its_turn_when_its_caller_gives_up(queue: SolverQueue) -> None:
    started, release = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        release.wait()

    caller = asyncio.create_task(queue.run(job))
    await asyncio.to_thread(started.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    after = asyncio.create_task(queue.run(release.is_set))
    await asyncio.sleep(0)
    release.set()
    assert await after is True


async def test_close_finishes_waiting_jobs_and_refuses_new_ones(observer: Recording) -> None:
    queue = SolverQueue(2, observer)
    async with busy(queue) as release:
        waiting = asyncio.create_task(queue.run(lambda: 7))
        await asyncio.sleep(0)
        closing = asyncio.create_task(queue.close())
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError):
            await queue.run(lambda: None)
        release.set()
        await closing
        assert await waiting == 7


async def test_the_thread_start_hook_runs_on_the_solver_thread(observer: Recording) -> None:
    seen: list[threading.Thread] = []
    queue = SolverQueue(1, observer, lambda: seen.append(threading.current_thread()))
    assert [await queue.run(threading.current_thread)] == seen
    await queue.close()


def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is ten seconds after the one before."""
    ticks = itertools.count(0, 10.0)
    monkeypatch.setattr("trimtab_server.engine.queue.time.perf_counter", lambda: next(ticks))


async def test_the_time_to_wait_learns_from_jobs_whose_caller_gave_up(
    queue: SolverQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = queue.retry_after()
    slow_clock(monkeypatch)
    started, release = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        release.wait()

    caller = asyncio.create_task(queue.run(job))
    await asyncio.to_thread(started.wait)
    caller.cancel()
    release.set()
    await queue.close()
    assert queue.retry_after() > before


async def test_the_time_to_wait_learns_from_jobs_that_fail(
    queue: SolverQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = queue.retry_after()
    slow_clock(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        await queue.run(lambda: 1 / 0)
    assert queue.retry_after() > before


async def test_a_job_that_cannot_be_started_gives_its_turn_back(
    queue: SolverQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(queue._thread, "submit", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            await queue.run(lambda: None)
    async with asyncio.timeout(20):
        assert await queue.run(lambda: 7) == 7


async def test_a_job_that_waits_when_the_queue_is_abandoned_is_unavailable(
    queue: SolverQueue,
) -> None:
    async with busy(queue) as release:
        waiting = asyncio.create_task(queue.run(lambda: None))
        await asyncio.sleep(0)
        queue.abandon()
        release.set()
        with pytest.raises(UnavailableError):
            await waiting

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

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


async def waiting(
    queue: SolverQueue, observer: Recording, *jobs: Callable[[], Any]
) -> list[asyncio.Task[Any]]:
    """Jobs that wait for their turn, in this order."""
    observer.events.clear()
    tasks = [asyncio.create_task(queue.run(job)) for job in jobs]
    await observer.until("queue_depth", len(jobs))
    return tasks


@asynccontextmanager
async def abandoned(queue: SolverQueue) -> AsyncIterator[None]:
    """The solver works until the block ends, on a job whose caller has given up."""
    started, release = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        release.wait()

    caller = asyncio.create_task(queue.run(job))
    await asyncio.to_thread(started.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    try:
        yield
    finally:
        release.set()


async def test_a_job_runs_on_the_solver_thread_and_its_result_comes_back() -> None:
    started: list[threading.Thread] = []
    queue = SolverQueue(1, Recording(), lambda: started.append(threading.current_thread()))
    thread = await queue.run(threading.current_thread)
    assert thread is not threading.current_thread()
    assert await queue.run(threading.current_thread) is thread
    assert started == [thread], "the hook runs there, and once"
    await queue.close()


async def test_a_jobs_exception_is_raised_to_its_caller_and_the_queue_goes_on(
    queue: SolverQueue,
) -> None:
    def fail() -> NoReturn:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await queue.run(fail)
    assert await queue.run(lambda: 7) == 7


async def test_jobs_run_one_at_a_time_in_the_order_they_came(
    queue: SolverQueue, observer: Recording
) -> None:
    done: list[int] = []
    async with busy(queue):
        jobs = await waiting(queue, observer, lambda: done.append(0), lambda: done.append(1))
        assert done == []
    await asyncio.gather(*jobs)
    assert done == [0, 1]


async def test_a_full_queue_refuses_and_says_when_to_try_again(
    queue: SolverQueue, observer: Recording
) -> None:
    async with busy(queue):
        alone = queue.retry_after()
        jobs = await waiting(queue, observer, lambda: None, lambda: None)
        with pytest.raises(ResourceExhaustedError, match="full") as refused:
            await queue.run(lambda: None)
    await asyncio.gather(*jobs)
    assert refused.value.retry_after is not None
    assert 0 < alone < refused.value.retry_after <= 30
    await observer.until("queue_rejected", "full")
    assert max(observer.named("queue_depth")) == (2,)


async def test_a_job_is_never_started_once_its_caller_has_gone_or_its_deadline_has_passed(
    queue: SolverQueue, observer: Recording
) -> None:
    started, now = threading.Event(), asyncio.get_running_loop().time
    async with busy(queue):
        [job] = await waiting(queue, observer, started.set)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        with pytest.raises(DeadlineExceededError):
            await queue.run(started.set, deadline=now() + 0.01)
    await queue.run(lambda: None)
    with pytest.raises(DeadlineExceededError):
        await queue.run(started.set, deadline=now())  # though the solver is free
    await queue.run(lambda: None)
    assert not started.is_set()
    assert observer.named("queue_rejected") == [("cancelled",), ("deadline",), ("deadline",)]


async def test_a_running_job_keeps_its_turn_when_its_caller_gives_up(
    queue: SolverQueue, observer: Recording
) -> None:
    async with abandoned(queue):
        jobs = await waiting(queue, observer, lambda: 1, lambda: 2)
        with pytest.raises(ResourceExhaustedError, match="full"):
            await queue.run(lambda: 3)
    assert await asyncio.gather(*jobs) == [1, 2]


async def test_close_finishes_waiting_jobs_and_refuses_new_ones(
    queue: SolverQueue, observer: Recording
) -> None:
    async with busy(queue):
        [job] = await waiting(queue, observer, lambda: 7)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):  # it begins to close, and waits for the jobs
                await queue.close()
        with pytest.raises(UnavailableError):
            await queue.run(lambda: None)
    assert await job == 7


async def test_the_time_to_wait_learns_from_jobs_that_fail_and_that_nobody_waits_for(
    queue: SolverQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each look at the clock is ten seconds after the one before.
    ticks = itertools.count(0, 10.0)
    monkeypatch.setattr("trimtab_server.engine.queue.time.perf_counter", lambda: next(ticks))
    before = queue.retry_after()
    with pytest.raises(ZeroDivisionError):
        await queue.run(lambda: 1 / 0)
    failed = queue.retry_after()
    async with abandoned(queue):
        pass
    await queue.close()
    assert before < failed < queue.retry_after()


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
    queue: SolverQueue, observer: Recording
) -> None:
    async with busy(queue):
        [job] = await waiting(queue, observer, lambda: None)
        queue.abandon()
    with pytest.raises(UnavailableError):
        await job

"""A bounded queue in front of one solver thread."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from trimtab_server.domain.errors import (
    DeadlineExceededError,
    ResourceExhaustedError,
    UnavailableError,
)
from trimtab_server.engine.observer import Observer

Result = TypeVar("Result")

_SMOOTHING = 0.2
_FIRST_GUESS_S = 0.05
_RETRY_BOUNDS_S = (0.05, 30.0)


class SolverQueue:
    """Runs jobs one after another, first come first served, off the event loop.

    One thread is enough: a single operation of the solver uses all cores, or the whole device. A
    job is never started if its caller has gone or its deadline has passed before its turn. A job
    that has started runs to its end.

    Args:
        size: number of jobs that may wait.
        observer: told of the queue's length and waits.
        thread_start: called on the solver's thread when it starts.
    """

    def __init__(
        self, size: int, observer: Observer, thread_start: Callable[[], None] = lambda: None
    ) -> None:
        self._size = size
        self._observer = observer
        self._thread = ThreadPoolExecutor(1, "solver", initializer=thread_start)
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._closed = False
        self._mean_service_s = _FIRST_GUESS_S

    async def run(self, job: Callable[[], Result], *, deadline: float = math.inf) -> Result:
        """Call `job` on the solver's thread when its turn comes; returns its result.

        Args:
            job: pure work; its exceptions are raised here.
            deadline: latest start, in seconds on the event loop's clock.

        Raises:
            ResourceExhaustedError: the queue is full; says when to try again.
            DeadlineExceededError: the deadline passed before the turn came.
            UnavailableError: the queue is closed.
        """
        await self._take_turn(deadline)
        return await asyncio.wrap_future(self._start(job))

    async def close(self) -> None:
        """Refuse new jobs, finish those that wait, and end the thread."""
        self._closed = True
        async with self._turn:
            self._thread.shutdown()

    def abandon(self) -> None:
        """Refuse new jobs, and do not wait for the one that runs."""
        self._closed = True
        self._thread.shutdown(wait=False)

    def retry_after(self) -> float:
        """Seconds in which the jobs now in the queue should be done."""
        shortest, longest = _RETRY_BOUNDS_S
        return min(max(self._mean_service_s * (self._waiting + 1), shortest), longest)

    def _start(self, job: Callable[[], Result]) -> Future[Result]:
        loop, started = asyncio.get_running_loop(), time.perf_counter()
        try:
            future = self._thread.submit(job)
        except RuntimeError:
            self._turn.release()
            if self._closed:  # `abandon` was called while this job waited
                raise UnavailableError("the server is stopping") from None
            raise

        # The turn ends with the job, even if its caller gives up before.
        def ended(future: Future[Result]) -> None:
            service_s = None if future.cancelled() else time.perf_counter() - started
            loop.call_soon_threadsafe(self._end_turn, service_s)

        future.add_done_callback(ended)
        return future

    def _end_turn(self, service_s: float | None) -> None:
        """`service_s`: how long the job took; None if it never started."""
        if service_s is not None:
            self._mean_service_s += _SMOOTHING * (service_s - self._mean_service_s)
        self._turn.release()

    async def _take_turn(self, deadline: float) -> None:
        self._admit()
        started = time.perf_counter()
        self._count_waiting(+1)
        try:
            await self._acquire(deadline)
        except TimeoutError:
            self._observer.queue_rejected("deadline")
            raise DeadlineExceededError(
                "the deadline passed while waiting for the solver"
            ) from None
        except asyncio.CancelledError:
            self._observer.queue_rejected("cancelled")
            raise
        finally:
            self._count_waiting(-1)
        self._observer.queue_waited(time.perf_counter() - started)

    async def _acquire(self, deadline: float) -> None:
        # A free turn is taken without an await that a timeout could cancel.
        if asyncio.get_running_loop().time() >= deadline:
            raise TimeoutError
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            await self._turn.acquire()

    def _admit(self) -> None:
        if self._closed:
            raise UnavailableError("the server is stopping")
        # If the solver is free, the job does not have to wait and needs no room.
        if self._turn.locked() and self._waiting >= self._size:
            self._observer.queue_rejected("full")
            raise ResourceExhaustedError(
                f"the solver's queue is full: {self._size} jobs wait (setting queue_size)",
                self.retry_after(),
            )

    def _count_waiting(self, change: int) -> None:
        self._waiting += change
        self._observer.queue_depth(self._waiting)

"""Runs a compiled loop over the parts of a batch on several threads, if that saves time.

Numba's own thread pool aborts the process if two Python threads enter it, or needs a library
that may not be installed. Python's threads are as good here, since the loops hold no GIL.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import count

import torch

from trimtab_server.domain.errors import require, require_integers
from trimtab_server.solver.backends.cpu.cores import FreeCores, quota_cores

_PARTS_PER_THREAD = 4
"""More parts than threads, so that a thread that starts late, or is delayed, does less."""

_WORTH_NS = 200_000
"""If a thread has less work than this, waking it takes longer than it saves. Two threads instead of
one took 1.15 times as long for plans of 0.29 ms, and 0.93 times as long for plans of 0.61 ms."""

_ROUNDED_UP = 0.25
"""A core counts as free if other processes use it for at most a quarter of the time."""

_limit: ContextVar[float] = ContextVar("limit", default=math.inf)
"""Threads that a call may use; see `at_most_threads`."""

_free_cores: Callable[[], float] = FreeCores()
_quota_cores = quota_cores()


@contextmanager
def at_most_threads(threads: int | None) -> Iterator[None]:
    """Within it, `for_parts` uses at most so many threads, the calling one included.

    It holds for the calling thread, or asyncio task, alone, unlike `torch.set_num_threads`.

    Args:
        threads: None for no limit but that of `for_parts`.

    Raises:
        InvalidArgumentError: `threads` is no integer, or below 1.
    """
    if threads is not None:
        require_integers(threads=threads)
        require(threads >= 1, "threads", f"{threads} is below 1")
    token = _limit.set(math.inf if threads is None else threads)
    try:
        yield
    finally:
        _limit.reset(token)


def for_parts(
    batch: int, work: Callable[[int, int], None], *, nanoseconds: float = math.inf
) -> None:
    """Call `work(first, end)` for parts that together are `range(batch)`.

    The calling thread works too, so the call ends even if no other thread gets a core. There
    are at most as many threads as torch would use (`torch.set_num_threads`), as cores are free,
    and as have enough to do. Parts must not depend on each other. The first exception is raised
    here after all parts have ended.

    Args:
        batch: number of rows.
        work: computes one part.
        nanoseconds: about how long a row takes; infinity if every thread is worth waking.
    """
    threads = _useful_threads(batch, nanoseconds)
    if threads == 1:
        work(0, batch)
        return
    parts = min(batch, threads * _PARTS_PER_THREAD)
    bounds = [batch * part // parts for part in range(parts + 1)]
    tickets = count()

    def take_parts() -> None:
        # next() is atomic under the GIL, so no two threads take the same part.
        while (part := next(tickets)) < parts:
            work(bounds[part], bounds[part + 1])

    pool = _pool(torch.get_num_threads() - 1)
    helpers = [pool.submit(take_parts) for _ in range(threads - 1)]
    try:
        take_parts()
    finally:
        # Helpers that have not started would find no parts left.
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()


def _useful_threads(batch: int, nanoseconds: float) -> int:
    useful = min(batch, batch * nanoseconds / _WORTH_NS)
    allowed = min(torch.get_num_threads(), _limit.get(), _quota_cores + _ROUNDED_UP, useful)
    if allowed < 2:
        return 1
    return max(1, int(min(allowed, _free_cores() + _ROUNDED_UP)))


def _reset_after_fork() -> None:
    """Forget the parent's threads, which a forked child does not have, and its use of cores."""
    global _free_cores
    _pool.cache_clear()
    _free_cores = FreeCores()


@cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    # Not larger than calls need: a pool does not notice that a helper was cancelled before it
    # started, and would start one more thread for each.
    return ThreadPoolExecutor(helpers, "trimtab-cpu")


os.register_at_fork(after_in_child=_reset_after_fork)

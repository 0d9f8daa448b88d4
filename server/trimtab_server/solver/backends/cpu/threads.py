"""Runs a compiled loop over parts of a batch on several threads, where that saves time.

Numba's own thread pool aborts the process where two Python threads enter it, or needs a
library that may not be there. Threads of Python do as well here: the loops hold no GIL.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import count

import torch

from trimtab_server.solver.backends.cpu.cores import FreeCores, quota_cores

_PARTS_PER_THREAD = 4
"""More parts than threads, so that a thread that starts late, or is held up, does less."""

_WORTH_NS = 200_000
"""Work of a thread below which waking it takes longer than it saves. Two threads instead of one
took 1.15 times as long for plans of 0.29 ms, and 0.93 times for plans of 0.61 ms."""

_ROUNDED_UP = 0.25
"""A core that others use for a quarter of the time is taken for a free one."""

_free_cores: Callable[[], float] = FreeCores()
_quota_cores = quota_cores()


def for_parts(
    batch: int, work: Callable[[int, int], None], *, nanoseconds: float = math.inf
) -> None:
    """Call `work(first, end)` for parts that together are `range(batch)`.

    The calling thread takes part, so it goes on even if no other thread gets a core. At
    most as many threads work as torch would use (`torch.set_num_threads`), as cores are
    free, and as have something to do. Parts must not depend on each other; the first
    exception is raised here when all have ended.

    Args:
        batch: number of rows.
        work: carries out a part.
        nanoseconds: about how long a row takes; infinite: long enough for any thread.
    """
    threads = _useful_threads(batch, nanoseconds)
    if threads == 1:
        work(0, batch)
        return
    parts = min(batch, threads * _PARTS_PER_THREAD)
    bounds = [batch * part // parts for part in range(parts + 1)]
    tickets = count()

    def take_parts() -> None:
        # next() is one step under the GIL: no two threads draw the same part.
        while (part := next(tickets)) < parts:
            work(bounds[part], bounds[part + 1])

    pool = _pool(torch.get_num_threads() - 1)
    helpers = [pool.submit(take_parts) for _ in range(threads - 1)]
    try:
        take_parts()
    finally:
        # Those that have not begun would find nothing left.
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()


def _useful_threads(batch: int, nanoseconds: float) -> int:
    useful = min(batch, batch * nanoseconds / _WORTH_NS)
    allowed = min(torch.get_num_threads(), _quota_cores + _ROUNDED_UP, useful)
    if allowed < 2:
        return 1
    return max(1, int(min(allowed, _free_cores() + _ROUNDED_UP)))


def _begin_anew() -> None:
    """A child has none of its parent's threads, and has used no core yet."""
    global _free_cores
    _pool.cache_clear()
    _free_cores = FreeCores()


@cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    # No larger than calls need: a pool does not see that a helper it has not begun was
    # cancelled, and would start one thread more for each.
    return ThreadPoolExecutor(helpers, "trimtab-cpu")


os.register_at_fork(after_in_child=_begin_anew)

"""Runs a compiled loop over parts of a batch on several threads.

Numba's own thread pool aborts the process where two Python threads enter it, or needs a
library that may not be there. Threads of Python do as well here: the loops hold no GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import count

import torch

_PARTS_PER_THREAD = 4
"""More parts than threads, so that a thread that starts late, or is held up, does less."""


def for_parts(batch: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, end)` for parts that together are `range(batch)`.

    The calling thread takes part, so it goes on even if no other thread gets a core.
    As many threads work as torch would use (`torch.set_num_threads`). Parts must not
    depend on each other; the first exception is raised here when all have ended.
    """
    threads = min(torch.get_num_threads(), batch)
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

    helpers = [_pool(threads - 1).submit(take_parts) for _ in range(threads - 1)]
    try:
        take_parts()
    finally:
        # Those that have not begun would find nothing left.
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()


@cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    # No larger than one call needs: a pool does not see that a helper it has not begun was
    # cancelled, and would start one thread more for each.
    return ThreadPoolExecutor(helpers, "trimtab-cpu")

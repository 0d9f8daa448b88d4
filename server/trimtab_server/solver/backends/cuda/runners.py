"""Keeps the most recently used runners, as many as the device has memory for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

from trimtab_server.solver.backends.cuda.runner import Runner

_SHARE = 2
"""All runners together use at most 1 / _SHARE of the memory that would be free without them."""


class Runners:
    """Runners by kind of request, bounded by the bytes of their buffers.

    Only one thread may use this at a time.

    Args:
        free: returns the bytes that are free on the device now.
    """

    def __init__(self, free: Callable[[], int]) -> None:
        self._free = free
        # The least recently used runner comes first.
        self._runners: OrderedDict[Hashable, Runner] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runners)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers of all runners."""
        return sum(runner.job.nbytes for runner in self._runners.values())

    def get(self, kind: Hashable) -> Runner | None:
        """The runner for this kind, which becomes the most recently used; None if there is none."""
        runner = self._runners.get(kind)
        if runner is not None:
            self._runners.move_to_end(kind)
        return runner

    def make_room(self, nbytes: int) -> None:
        """Drop the least recently used runners until a new one of so many bytes fits.

        Raises:
            MemoryError: it would not fit even alone; nothing is dropped.
        """
        bound = (self._free() + self.nbytes) // _SHARE
        if nbytes > bound:
            raise MemoryError(
                f"its buffers take {nbytes} bytes; at most {bound} may be used, 1/{_SHARE} of the "
                "device's free memory"
            )
        while self.nbytes + nbytes > bound:
            self._runners.popitem(last=False)

    def keep(self, kind: Hashable, runner: Runner) -> None:
        """Keep a runner that `make_room` has made room for."""
        self._runners[kind] = runner

    def drop(self, kind: Hashable) -> None:
        """Drop the runner for this kind, if there is one."""
        self._runners.pop(kind, None)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a CUDA device, including those that torch reserved."""
    free, _ = torch.cuda.mem_get_info(device)
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + reserve

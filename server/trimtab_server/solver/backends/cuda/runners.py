"""The runners of the kinds of request used last, as many as the device has memory for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch

from trimtab_server.solver.backends.cuda.runner import Runner

_SHARE = 2
"""All runners together take at most 1 / _SHARE of what the device would have free without them."""


class Runners:
    """Runners by kind of request, bounded by the bytes of their buffers.

    Not for two threads at once.

    Args:
        free: bytes that the device has free now, beside these runners.
    """

    def __init__(self, free: Callable[[], int]) -> None:
        self._free = free
        # The one used longest ago first.
        self._runners: OrderedDict[Hashable, Runner] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runners)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers kept here."""
        return sum(runner.job.nbytes for runner in self._runners.values())

    def get(self, kind: Hashable) -> Runner | None:
        """The runner for this kind, if it is here: then it is the one used last."""
        runner = self._runners.get(kind)
        if runner is not None:
            self._runners.move_to_end(kind)
        return runner

    def make_room(self, nbytes: int) -> None:
        """Drop those used longest ago until a new one of so many bytes is within the bound.

        Raises:
            MemoryError: it would not be even if it were alone; nothing is dropped.
        """
        bound = (self._free() + self.nbytes) // _SHARE
        if nbytes > bound:
            raise MemoryError(
                f"its buffers take {nbytes} bytes; {bound} may be used, one part in {_SHARE} of "
                "what the device has free"
            )
        while self.nbytes + nbytes > bound:
            self._runners.popitem(last=False)

    def keep(self, kind: Hashable, runner: Runner) -> None:
        """Keep a runner that `make_room` has made room for."""
        self._runners[kind] = runner

    def drop(self, kind: Hashable) -> None:
        """Forget the runner for this kind, if it is here."""
        self._runners.pop(kind, None)


def free_bytes(device: torch.device) -> int:
    """What can still be allocated on a CUDA device, memory that torch holds in reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + reserve

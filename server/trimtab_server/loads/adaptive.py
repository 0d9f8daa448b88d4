"""The load of a deployment as its memory has it: workers' reports, cut, added up, remembered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from trimtab_server.loads.cells import CELL_STEPS, Cells
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Known
from trimtab_server.loads.memory import Memory


class Adaptive:
    """Fed with each report, at the cost of an addition; what is costly comes now and then.

    Args:
        num_layers: L.
        num_experts: E.
    """

    def __init__(self, num_layers: int, num_experts: int) -> None:
        self._shape = num_layers, num_experts
        self._cells = Cells()
        self._memory: Memory | None = None
        self._known: Known | None = None

    def add(self, worker: str, tokens_LE: Loads, steps: int) -> None:
        """Take what a worker has counted in its next so many steps, at least 1."""
        self._cells.add(worker, tokens_LE, steps)

    def forget(self, worker: str) -> None:
        """Its counts are of no more use, or begin anew."""
        self._cells.forget(worker)

    def discard(self, worker: str) -> None:
        """What it has counted is no traffic, and nothing of which it is a part."""
        self._cells.forget(worker)
        self._memory = self._known = None

    def start(
        self, rates: Mapping[str, Loads], steps: float, halves: Mapping[str, int] | None
    ) -> None:
        """Begin with workers' tokens a step, as sure as those of so many steps."""
        self._add(self._halved(rates, halves) * steps, steps / CELL_STEPS, ends=True, longest=0.0)

    def remember(
        self,
        awaited: Collection[str],
        last: Callable[[], Mapping[str, Loads]],
        halves: Mapping[str, int] | None,
    ) -> None:
        """Take in what is complete.

        Args:
            awaited: see `Cells.completed`, as the next.
            last: "
            halves: 0 or 1 for each worker, where no two count the same requests; else None.
        """
        for piece in self._cells.completed(awaited, last):
            tokens_HLE = self._halved(piece.tokens, halves)
            self._add(tokens_HLE, piece.cells, ends=piece.ends, longest=piece.longest)

    def known(self) -> Known | None:
        """What is remembered; None: nothing yet."""
        if self._known is None and self._memory is not None:
            load_LE = self._memory.rate().sum(0) / CELL_STEPS
            self._known = Known(load_LE, self._memory.evidence())
        return self._known

    def _halved(self, tokens: Mapping[str, Loads], halves: Mapping[str, int] | None) -> Loads:
        two = halves is not None and len({halves[worker] for worker in tokens}) == 2
        tokens_HLE = np.zeros((2 if two else 1, *self._shape))
        for worker, tokens_LE in tokens.items():
            tokens_HLE[halves[worker] if two and halves is not None else 0] += tokens_LE
        return tokens_HLE

    def _add(self, tokens_HLE: Loads, cells: float, *, ends: bool, longest: float) -> None:
        # Where the number of halves becomes another, it begins anew.
        if self._memory is None or self._memory.halves != len(tokens_HLE):
            self._memory = Memory(len(tokens_HLE), *self._shape)
        self._memory.add(tokens_HLE, cells, ends=ends, longest=longest)
        self._known = None

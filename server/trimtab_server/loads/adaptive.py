"""The load of a deployment, averaged over as many steps as have predicted it best."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from trimtab_server.loads.cells import CELL_STEPS, Cells
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Known
from trimtab_server.loads.mixture import LoadMixture


class AdaptiveLoad:
    """The load estimate of a deployment: reports are cut into cells, added up, and averaged.

    Adding a report costs an addition; `update` does the costly work and is called less often.

    Args:
        num_layers: L.
        num_experts: E.
    """

    def __init__(self, num_layers: int, num_experts: int) -> None:
        self._shape = num_layers, num_experts
        self._cells = Cells()
        self._mixture: LoadMixture | None = None
        self._known: Known | None = None

    def add(self, worker: str, tokens_LE: Loads, steps: int) -> None:
        """Add the tokens that a worker has counted in its next `steps` steps, at least 1."""
        self._cells.add(worker, tokens_LE, steps)

    def forget(self, worker: str) -> None:
        """Forget the counts of a worker that has left, or whose counters start again."""
        self._cells.forget(worker)

    def discard(self, worker: str) -> None:
        """Discard the counts of a worker, which are not traffic, and the estimate with them."""
        self._cells.forget(worker)
        self._mixture = self._known = None

    def start(
        self, rates: Mapping[str, Loads], steps: float, halves: Mapping[str, int] | None
    ) -> None:
        """Start from workers' tokens per step, as certain as an average over `steps` steps."""
        self._add(self._halved(rates, halves) * steps, steps / CELL_STEPS, ends=True, longest=0.0)

    def update(
        self,
        awaited: Collection[str],
        last: Callable[[], Mapping[str, Loads]],
        halves: Mapping[str, int] | None,
    ) -> None:
        """Add the cells that are complete to the estimate.

        Args:
            awaited: see `Cells.completed`.
            last: see `Cells.completed`.
            halves: 0 or 1 for each worker; None if two workers may count the same requests.
        """
        for piece in self._cells.completed(awaited, last):
            tokens_HLE = self._halved(piece.tokens, halves)
            self._add(tokens_HLE, piece.cells, ends=piece.ends, longest=piece.longest)

    def known(self) -> Known | None:
        """The estimate and its evidence; None before any cell is complete."""
        if self._known is None and self._mixture is not None:
            load_LE = self._mixture.rate().sum(0) / CELL_STEPS
            self._known = Known(load_LE, self._mixture.evidence())
        return self._known

    def _halved(self, tokens: Mapping[str, Loads], halves: Mapping[str, int] | None) -> Loads:
        two = halves is not None and len({halves[worker] for worker in tokens}) == 2
        tokens_HLE = np.zeros((2 if two else 1, *self._shape))
        for worker, tokens_LE in tokens.items():
            tokens_HLE[halves[worker] if two and halves is not None else 0] += tokens_LE
        return tokens_HLE

    def _add(self, tokens_HLE: Loads, cells: float, *, ends: bool, longest: float) -> None:
        # The estimate starts again when the number of halves changes.
        if self._mixture is None or self._mixture.halves != len(tokens_HLE):
            self._mixture = LoadMixture(len(tokens_HLE), *self._shape)
        self._mixture.add(tokens_HLE, cells, ends=ends, longest=longest)
        self._known = None

"""Cuts what workers report into cells of equal length, and adds the workers of a group up. Pure.

Reports come each step or once in many, and each worker cuts its own. So a report is spread evenly
over the steps that it covers, and what comes of it over cells of `CELL_STEPS` steps: how reports
are cut changes little. Workers of a group step together, so that the n-th cell of one belongs to
the n-th of another; the cell of the deployment is complete once all have it who are waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from trimtab_server.loads.estimates import Loads

CELL_STEPS = 16
"""Steps of a cell: what no decision looks into."""

_MOST_AHEAD = 8
"""Spans that wait for others: who is further behind counts as it did last, until it is back."""


class Span(NamedTuple):
    """Cells of one load.

    Attributes:
        cell_LE: float64 [L, E], tokens of each cell.
        cells: how many.
    """

    cell_LE: Loads
    cells: int


class _Cutter:
    """One worker."""

    def __init__(self) -> None:
        self.spans: deque[Span] = deque()
        self._open_LE: Loads | None = None
        self._filled = 0.0
        self._owed = 0
        """Cells that others did not wait for: its own come too late."""

    def add(self, tokens_LE: Loads, steps: int) -> None:
        step_LE = tokens_LE / steps
        first = min(float(steps), CELL_STEPS - self._filled)
        part_LE = step_LE * first
        self._open_LE = part_LE if self._open_LE is None else self._open_LE + part_LE
        self._filled += first
        if self._filled < CELL_STEPS:
            return
        self._put(Span(self._open_LE, 1))
        whole, self._filled = divmod(steps - first, CELL_STEPS)
        if whole:
            self._put(Span(step_LE * CELL_STEPS, int(whole)))
        self._open_LE = step_LE * self._filled if self._filled else None

    def _put(self, span: Span) -> None:
        late = min(self._owed, span.cells)
        self._owed -= late
        if span.cells > late:
            self.spans.append(Span(span.cell_LE, span.cells - late))

    def take(self, cells: int) -> Loads | None:
        """Tokens of its next so many cells, of which each is the same; None: it has none."""
        if not self.spans:
            self._owed += cells
            return None
        span = self.spans.popleft()
        if span.cells > cells:
            self.spans.appendleft(Span(span.cell_LE, span.cells - cells))
        return span.cell_LE * cells


class Cells:
    """The cells of a deployment's workers."""

    def __init__(self) -> None:
        self._cutters: dict[str, _Cutter] = {}

    def add(self, worker: str, tokens_LE: Loads, steps: int) -> None:
        """Take what a worker has counted in its next so many steps, at least 1."""
        self._cutters.setdefault(worker, _Cutter()).add(tokens_LE, steps)

    def forget(self, worker: str) -> None:
        """What it has counted, and what it owes: it is gone, or begins anew."""
        self._cutters.pop(worker, None)

    def completed(
        self, awaited: Collection[str], last: Callable[[], Mapping[str, Loads]]
    ) -> Iterator[tuple[dict[str, Loads], int]]:
        """What each worker has had in the cells that are complete, a span at a time.

        Args:
            awaited: without whom no cell is complete, unless they are far behind.
            last: gives tokens a step, float64 [L, E], of all who count: those who are not
                awaited, or far behind, count by these.

        Yields:
            tokens of each worker, float64 [L, E], in so many cells together.
        """
        while awaited:
            heads = {who: cutter.spans for who, cutter in self._cutters.items() if cutter.spans}
            ahead = any(len(spans) > _MOST_AHEAD for spans in heads.values())
            if not heads or not (ahead or heads.keys() >= set(awaited)):
                return
            cells = min(spans[0].cells for spans in heads.values())
            yield dict(self._taken(cells, last())), cells

    def _taken(self, cells: int, last: Mapping[str, Loads]) -> Iterator[tuple[str, Loads]]:
        for worker in sorted(last.keys() | self._cutters.keys()):
            cutter = self._cutters.setdefault(worker, _Cutter())
            tokens_LE = cutter.take(cells)
            if tokens_LE is not None:
                yield worker, tokens_LE
            elif worker in last:
                yield worker, last[worker] * (CELL_STEPS * cells)

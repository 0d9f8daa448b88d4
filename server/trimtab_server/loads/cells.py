"""Cuts what workers report into cells of equal length, and adds the workers of a group up. Pure.

Reports come each step or once in many, and each worker cuts its own. So a report is spread evenly
over the steps that it covers, and what comes of it over cells of `CELL_STEPS` steps. Workers of a
group step together, so that the n-th cell of one belongs to the n-th of another; the cell of the
deployment is complete once all have it who are waited for.

What is spread evenly is alike from cell to cell. Whoever learns from how cells differ has to know
which of them share a report, and how long reports are: see `Piece`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trimtab_server.loads.estimates import Loads

CELL_STEPS = 16
"""Steps of a cell: what no decision looks into."""

_MOST_SPANS = 8
"""That wait for other workers: of more, the oldest become one."""

_MOST_AHEAD = 8
"""Cells, or twice as many as a report has: who is further behind counts as it did last, until it is
back."""


class Piece(NamedTuple):
    """Cells of a deployment that are complete.

    Attributes:
        tokens: of each worker, float64 [L, E], in all of these cells together.
        cells: how many, each alike.
        ends: whether no report goes on beyond them.
        longest: cells of the longest report that is in them.
    """

    tokens: dict[str, Loads]
    cells: int
    ends: bool
    longest: float


class _Span(NamedTuple):
    """Cells of one worker, as in `Piece`; tokens of each cell."""

    cell_LE: Loads
    cells: int
    ends: bool
    longest: float


@dataclass
class _Cutter:
    """One worker.

    Attributes:
        spans: its complete cells, those that have not been taken.
        waiting: how many cells these are.
        owed: cells that others did not wait for: its own come too late.
        excused: cells that others need not wait for, and that it never had.
        report: cells of its last report.
    """

    spans: deque[_Span]
    waiting: int = 0
    owed: int = 0
    excused: int = 0
    report: float = 0.0
    _open_LE: Loads | None = None
    _filled: float = 0.0
    _longest: float = 0.0

    def add(self, tokens_LE: Loads, steps: int) -> None:
        step_LE = tokens_LE / steps
        self.report = report = steps / CELL_STEPS
        first = min(float(steps), CELL_STEPS - self._filled)
        part_LE = step_LE * first
        self._open_LE = part_LE if self._open_LE is None else self._open_LE + part_LE
        self._filled += first
        self._longest = max(self._longest, report)
        if self._filled < CELL_STEPS:
            return
        whole, rest = divmod(steps - first, CELL_STEPS)
        self._put(_Span(self._open_LE, 1, not (whole or rest), self._longest))
        if whole:
            self._put(_Span(step_LE * CELL_STEPS, int(whole), not rest, report))
        self._open_LE, self._filled = (step_LE * rest, rest) if rest else (None, 0.0)
        self._longest = report if rest else 0.0

    def _put(self, span: _Span) -> None:
        late = min(self.owed, span.cells)
        self.owed -= late
        if span.cells == late:
            return
        self.spans.append(span._replace(cells=span.cells - late))
        self.waiting += span.cells - late
        if len(self.spans) > _MOST_SPANS:
            self.spans.appendleft(_one_of(self.spans.popleft(), self.spans.popleft()))

    def take(self, cells: int) -> _Span | None:
        """Its next so many cells, of which each is the same; None: it has none."""
        if not self.spans:
            excused = min(self.excused, cells)
            self.excused -= excused
            self.owed += cells - excused
            return None
        span = self.spans.popleft()
        self.waiting -= cells
        if span.cells > cells:
            self.spans.appendleft(span._replace(cells=span.cells - cells))
            span = span._replace(cells=cells, ends=False)
        return span


def _one_of(first: _Span, second: _Span) -> _Span:
    """Both, evened out."""
    cells = first.cells + second.cells
    tokens_LE = first.cell_LE * first.cells + second.cell_LE * second.cells
    return _Span(tokens_LE / cells, cells, second.ends, max(first.longest, second.longest, cells))


class Cells:
    """The cells of a deployment's workers."""

    def __init__(self) -> None:
        self._cutters: dict[str, _Cutter] = {}

    def add(self, worker: str, tokens_LE: Loads, steps: int) -> None:
        """Take what a worker has counted in its next so many steps, at least 1."""
        self._of(worker).add(tokens_LE, steps)

    def forget(self, worker: str) -> None:
        """It is gone, or begins anew: what others have counted so far was without it."""
        self._cutters.pop(worker, None)
        waiting = max((each.waiting for each in self._cutters.values()), default=0)
        if waiting:
            self._of(worker).excused = waiting

    def completed(
        self, awaited: Collection[str], last: Callable[[], Mapping[str, Loads]]
    ) -> Iterator[Piece]:
        """Take the cells that are complete.

        Args:
            awaited: without whom no cell is complete, unless they are far behind.
            last: gives tokens a step, float64 [L, E], of all who count: those who are not
                awaited, or far behind, count by these.
        """
        rates: Mapping[str, Loads] | None = None
        while awaited:
            heads = {who: each.spans[0] for who, each in self._cutters.items() if each.spans}
            if not heads or not (self._is_far_ahead() or self._all_have(awaited, heads)):
                return
            rates = last() if rates is None else rates
            yield self._taken(min(span.cells for span in heads.values()), rates)

    def _is_far_ahead(self) -> bool:
        cutters = self._cutters.values()
        return any(each.waiting > max(_MOST_AHEAD, 2 * each.report) for each in cutters)

    def _all_have(self, awaited: Collection[str], heads: Mapping[str, _Span]) -> bool:
        excused = (who for who, each in self._cutters.items() if each.excused)
        return set(awaited) <= {*heads, *excused}

    def _taken(self, cells: int, last: Mapping[str, Loads]) -> Piece:
        tokens, ends, longest = {}, True, 0.0
        for worker in sorted(last.keys() | self._cutters.keys()):
            span = self._of(worker).take(cells)
            if span is not None:
                tokens[worker] = span.cell_LE * cells
                ends, longest = ends and span.ends, max(longest, span.longest)
            elif worker in last:
                tokens[worker] = last[worker] * (CELL_STEPS * cells)
        return Piece(tokens, cells, ends, longest)

    def _of(self, worker: str) -> _Cutter:
        return self._cutters.setdefault(worker, _Cutter(deque()))

"""Cuts workers' reports into cells of equal length, and adds up the workers of a group. Pure.

Reports cover one step or many, and each worker reports at its own steps. So the tokens of a report
are spread evenly over its steps, and the steps are divided into cells of `CELL_STEPS`. Workers of a
group step together, so the n-th cells of all workers cover the same steps. A cell of the
deployment is complete once all awaited workers have it.

Cells that share a report are alike, since its tokens are spread evenly. Code that learns from the
differences between cells must know which cells share a report, and how long reports are: `Piece`
says both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trimtab_server.loads.estimates import Loads

CELL_STEPS = 16
"""Steps in a cell, the finest resolution of load estimates; the default of `every_steps`."""

_MAX_SPANS = 8
"""Spans of a worker that wait for other workers. If there are more, the oldest two are merged."""

_MAX_AHEAD = 8
"""Cells, or twice the length of a report: a worker further behind the others than this is not
awaited; its last rate is used until it reports again."""


class Piece(NamedTuple):
    """Complete cells of a deployment that are all alike.

    Attributes:
        tokens: of each worker, float64 [L, E], in all of these cells together.
        cells: how many cells.
        ends: whether all reports in them end with the last cell.
        longest: length in cells of the longest report in them.
    """

    tokens: dict[str, Loads]
    cells: int
    ends: bool
    longest: float


class _Span(NamedTuple):
    """Cells of one worker that are all alike; see `Piece`. `cell_LE` has the tokens of each."""

    cell_LE: Loads
    cells: int
    ends: bool
    longest: float


@dataclass
class _Cutter:
    """Cuts the reports of one worker into cells.

    Attributes:
        spans: its complete cells that have not been taken.
        waiting: how many cells `spans` has.
        owed: cells that were completed without this worker; its own come too late and are dropped.
        excused: cells that this worker will never have, so that nobody waits for them.
        report: length in cells of its last report.
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
        if len(self.spans) > _MAX_SPANS:
            self.spans.appendleft(_merged(self.spans.popleft(), self.spans.popleft()))

    def take(self, cells: int) -> _Span | None:
        """Take the next cells of this worker, which must be in one span; None if it has none."""
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


def _merged(first: _Span, second: _Span) -> _Span:
    """One span of the cells of both, with their tokens spread evenly."""
    cells = first.cells + second.cells
    tokens_LE = first.cell_LE * first.cells + second.cell_LE * second.cells
    return _Span(tokens_LE / cells, cells, second.ends, max(first.longest, second.longest, cells))


class Cells:
    """The cells of a deployment's workers."""

    def __init__(self) -> None:
        self._cutters: dict[str, _Cutter] = {}

    def add(self, worker: str, tokens_LE: Loads, steps: int) -> None:
        """Add the tokens that a worker has counted in its next `steps` steps, at least 1."""
        self._cutter(worker).add(tokens_LE, steps)

    def forget(self, worker: str) -> None:
        """Forget a worker that has left or starts again; cells so far are completed without it."""
        self._cutters.pop(worker, None)
        waiting = max((each.waiting for each in self._cutters.values()), default=0)
        if waiting:
            self._cutter(worker).excused = waiting

    def completed(
        self, awaited: Collection[str], last: Callable[[], Mapping[str, Loads]]
    ) -> Iterator[Piece]:
        """Take the cells that are complete.

        Args:
            awaited: workers that every complete cell needs, unless they are far behind.
            last: returns the last rates of all workers, in tokens per step, float64 [L, E].
                They are used for workers that are not awaited, or far behind.
        """
        rates: Mapping[str, Loads] | None = None
        while awaited:
            heads = {worker: each.spans[0] for worker, each in self._cutters.items() if each.spans}
            if not heads or not (self._is_far_ahead() or self._all_have(awaited, heads)):
                return
            rates = last() if rates is None else rates
            yield self._taken(min(span.cells for span in heads.values()), rates)

    def _is_far_ahead(self) -> bool:
        cutters = self._cutters.values()
        return any(each.waiting > max(_MAX_AHEAD, 2 * each.report) for each in cutters)

    def _all_have(self, awaited: Collection[str], heads: Mapping[str, _Span]) -> bool:
        excused = (worker for worker, each in self._cutters.items() if each.excused)
        return set(awaited) <= {*heads, *excused}

    def _taken(self, cells: int, last: Mapping[str, Loads]) -> Piece:
        tokens, ends, longest = {}, True, 0.0
        for worker in sorted(last.keys() | self._cutters.keys()):
            span = self._cutter(worker).take(cells)
            if span is not None:
                tokens[worker] = span.cell_LE * cells
                ends, longest = ends and span.ends, max(longest, span.longest)
            elif worker in last:
                tokens[worker] = last[worker] * (CELL_STEPS * cells)
        return Piece(tokens, cells, ends, longest)

    def _cutter(self, worker: str) -> _Cutter:
        return self._cutters.setdefault(worker, _Cutter(deque()))

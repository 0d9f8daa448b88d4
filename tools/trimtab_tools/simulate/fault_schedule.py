"""Has faults strike at their time, while something else goes on."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from trimtab_tools.simulate.faults import Action, Fault
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.messages import SwitchPoint

_POLL_S = 0.005


class FaultSchedule:
    """Plays faults on a fleet, from `with` on, by a thread of its own.

    Args:
        fleet: in force.
        faults: in any order.
    """

    def __init__(self, fleet: Fleet, faults: Sequence[Fault]) -> None:
        self._fleet = fleet
        self._faults = faults
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        # Of the server's points: how many such lines the history had at first.
        self._awaited: list[tuple[Fault, int]] = []
        # The first step of the window of each.
        self._ahead: list[tuple[int, Fault]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trimtab-faults", daemon=True)

    def __enter__(self) -> Self:
        now = time.monotonic()
        for fault in self._faults:
            if fault.at is not None:
                self._at(now + fault.at, partial(self._strike, fault))
            elif fault.window is not None:
                step = fault.window * self._fleet.options.steps_per_window
                self._ahead.append((step, fault))
            elif fault.rank is None:
                self._awaited.append((fault, self._fleet.history.count(fault.point)))
            else:
                self._strike(fault)
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether all faults have struck, and are over."""
        struck = len(self._fleet.ledger.faults)
        left = self._due or self._awaited or self._ahead
        return not left and struck >= len(self._faults)

    def _run(self) -> None:
        while not self._ended.wait(_POLL_S):
            while self._due and self._due[0][0] <= time.monotonic():
                # What it does comes first: nothing is over before it.
                self._due[0][2]()
                heapq.heappop(self._due)
            for each in list(self._awaited):
                fault, before = each
                if self._fleet.history.count(fault.point) > before:
                    self._strike(fault)
                    self._awaited.remove(each)
            if self._ahead:
                self._strike_ahead(self._fleet.ledger.total().step + 1)

    def _strike_ahead(self, step: int) -> None:
        """Of the windows that have begun."""
        for each in [each for each in self._ahead if each[0] <= step]:
            self._strike(each[1])
            self._ahead.remove(each)

    def _at(self, when: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._due, (when, next(self._order), what))

    def _strike(self, fault: Fault) -> None:
        fleet, rank = self._fleet, fault.rank or 0
        at = SwitchPoint(fault.point) if fault.rank is not None and fault.point else None
        over = time.monotonic() + fault.lasts
        match fault.action:
            case Action.KILL_SERVER:
                fleet.kill_server()
                self._at(over, partial(fleet.start_server, wait=False))
            case Action.STOP_SERVER:
                fleet.stop_server()
                self._at(over, fleet.go_on_server)
            case Action.KILL_RANK:
                fleet.kill_rank(rank, at)
            case Action.STOP_RANK:
                fleet.stop_rank(rank, at, fault.lasts)
            case Action.REFUSE:
                fleet.refuse(rank)
            case Action.SLOW:
                fleet.slow(rank, fault.lasts)

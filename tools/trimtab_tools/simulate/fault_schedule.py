"""Causes planned faults in a fleet at their time, while the fleet works."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from trimtab_tools.simulate.faults import Fault
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.messages import Action, SwitchPoint

_POLL_S = 0.005


class FaultSchedule:
    """Causes faults on a thread of its own, from `with` to the end of the block.

    Args:
        fleet: in which all ranks serve.
        faults: in any order.
    """

    def __init__(self, fleet: Fleet, faults: Sequence[Fault]) -> None:
        self._fleet = fleet
        self._faults = faults
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        # Faults at points of the server, with the number of such lines in the history before.
        self._at_lines: list[tuple[Fault, int]] = []
        # Faults at windows, with the first step of the window.
        self._at_steps: list[tuple[int, Fault]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trimtab-faults", daemon=True)

    def __enter__(self) -> Self:
        now = time.monotonic()
        for fault in self._faults:
            if fault.at is not None:
                self._at(now + fault.at, partial(self._cause, fault))
            elif fault.window is not None:
                step = fault.window * self._fleet.options.steps_per_window
                self._at_steps.append((step, fault))
            elif fault.rank is None:
                self._at_lines.append((fault, self._fleet.history.count(fault.point)))
            else:
                self._cause(fault)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether all faults have happened, and are over."""
        caused = len(self._fleet.state.faults)
        left = self._due or self._at_lines or self._at_steps
        return not left and caused >= len(self._faults)

    def _run(self) -> None:
        while not self._ended.wait(_POLL_S):
            while self._due and self._due[0][0] <= time.monotonic():
                # Acts before it forgets the task, so that `is_done` is never true too early.
                self._due[0][2]()
                heapq.heappop(self._due)
            for waiting in list(self._at_lines):
                fault, before = waiting
                if self._fleet.history.count(fault.point) > before:
                    self._cause(fault)
                    self._at_lines.remove(waiting)
            if self._at_steps:
                self._cause_at_step(self._fleet.state.total().step + 1)

    def _cause_at_step(self, step: int) -> None:
        """Cause the faults of the windows that have begun."""
        for begun in [each for each in self._at_steps if each[0] <= step]:
            self._cause(begun[1])
            self._at_steps.remove(begun)

    def _at(self, when: float, task: Callable[[], object]) -> None:
        heapq.heappush(self._due, (when, next(self._order), task))

    def _cause(self, fault: Fault) -> None:
        inject, rank = self._fleet.faults, fault.rank or 0
        at = SwitchPoint(fault.point) if fault.rank is not None and fault.point else None
        over = time.monotonic() + fault.lasts
        match fault.action:
            case Action.KILL_SERVER:
                inject.kill_server()
                self._at(over, partial(self._fleet.start_server, wait=False))
            case Action.STOP_SERVER:
                inject.stop_server()
                self._at(over, inject.resume_server)
            case Action.KILL_RANK:
                inject.kill_rank(rank, at)
            case Action.STOP_RANK:
                inject.stop_rank(rank, at, fault.lasts)
            case Action.REFUSE:
                inject.refuse(rank)
            case Action.SLOW:
                inject.slow(rank, fault.lasts)

"""Causes planned faults in a fleet at their time, while the fleet works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from trimtab_client.exceptions import TrimtabError
from trimtab_tools.simulate.faults import Fault
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.messages import Action, SwitchPoint

_POLL_S = 0.005


class FaultSchedule:
    """Causes faults of a fleet that serves, on a thread of its own, until the end of the block."""

    def __init__(self, fleet: Fleet, faults: Sequence[Fault]) -> None:
        self._fleet = fleet
        self._faults = faults
        self._waiting: list[tuple[Callable[[], bool], Callable[[], object]]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trimtab-faults", daemon=True)

    def __enter__(self) -> Self:
        now = time.monotonic()
        for fault in self._faults:
            cause = partial(self._cause, fault)
            if fault.at is not None:
                self._at(now + fault.at, cause)
            elif fault.window is not None:
                step = fault.window * self._fleet.options.steps_per_window
                self._waiting.append((partial(self._has_begun, step), cause))
            elif fault.rank is None:
                before = self._fleet.history.count(fault.point)
                self._waiting.append((partial(self._has_more, fault.point, before), cause))
            else:
                cause()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether all faults have happened, and are over."""
        return not self._waiting and len(self._fleet.state.faults) >= len(self._faults)

    def _run(self) -> None:
        try:
            self._cause_when_due()
        except TrimtabError as error:
            self._fleet.state.fail(f"no further fault can be caused: {error}")

    def _cause_when_due(self) -> None:
        while not self._ended.wait(_POLL_S):
            for waiting in list(self._waiting):
                is_due, task = waiting
                if is_due():
                    # Acts before it forgets the task, so that `is_done` is never true too early.
                    task()
                    self._waiting.remove(waiting)

    def _at(self, when: float, task: Callable[[], object]) -> None:
        self._waiting.append((lambda: time.monotonic() >= when, task))

    def _has_begun(self, step: int) -> bool:
        return self._fleet.state.total().step + 1 >= step

    def _has_more(self, point: str, before: int) -> bool:
        """Whether the history has more lines of a point of the server than before."""
        return self._fleet.history.count(point) > before

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

"""The load of a group: awaited workers, halves, and evidence."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_protocol.messages import Hello, Report
from trimtab_server.domain.placement import placement_of
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.load_aggregator import LoadAggregator, ReportingGroup
from trimtab_server.history.config import HistoryConfig
from trimtab_server.history.history import History
from trimtab_server.loads.estimates import Smoothing

TOKENS = np.array([[40, 20, 10, 10], [5, 5, 5, 65]])
"""The tokens of 16 steps."""


class Workers:
    """Workers that report the same tokens each time."""

    def __init__(self, *names: str, apart: bool = True, **smoothing: float) -> None:
        self.group = ReportingGroup(set(names), apart)
        events = DeploymentEvents("", History(HistoryConfig()))
        self.loads = LoadAggregator(2, 4, Smoothing(**smoothing), events, lambda: self.group)
        self.reports: dict[tuple[str, int], int] = {}

    def report(self, *names: str, incarnation: int = 1, times: int = 1) -> None:
        for name in names * times:
            seq = self.reports[name, incarnation] = self.reports.get((name, incarnation), 0) + 1
            hello = Hello("g", name, incarnation, 1, (), placement_of([[0]], 1, 1))
            self.loads.add_report(hello, Report(seq, 16 * seq - 16, 16 * seq - 1, TOKENS * seq))

    def leave(self, *names: str) -> None:
        self.group = ReportingGroup(set(self.group.awaited) - set(names), self.group.apart)
        self.loads.remove(set(names))

    def halves(self) -> list[float] | None:
        """Share of the tokens in each."""
        halves_HLE = self.loads.known_load().evidence.halves_HLE
        return None if halves_HLE is None else (halves_HLE.sum((1, 2)) / halves_HLE.sum()).tolist()


async def test_workers_with_requests_of_their_own_are_dealt_into_two_halves_by_name():
    workers = Workers("a", "b", "c", "d")
    workers.report("d", "b")
    assert workers.halves() is None, "a load of half a group is none"
    workers.report("a", "c")
    assert workers.halves() == pytest.approx([0.5, 0.5])
    assert workers.loads._halves == {"a": 0, "b": 1, "c": 0, "d": 1}


@pytest.mark.parametrize("smoothing", [{}, {"half_life_steps": 16.0}, {"window_steps": 64.0}])
async def test_workers_that_count_the_same_requests_have_no_halves(smoothing):
    for apart in (True, False):
        workers = Workers("a", "b", apart=apart, **smoothing)
        workers.report("a", "b", times=3)
        assert (workers.halves() is not None) is apart


async def test_a_silent_worker_does_not_dissolve_the_halves():
    workers = Workers("a", "b")
    workers.report("a", "b", times=5)
    assert workers.halves() is not None
    workers.group = ReportingGroup({"a", "b", "silent"}, apart=True)
    workers.report("a", "b", times=20)
    assert workers.halves() == pytest.approx([0.5, 0.5])


async def test_halves_are_dealt_anew_after_one_half_has_left():
    workers = Workers("a", "b", "c", "d")
    workers.report("a", "b", "c", "d", times=5)
    assert workers.halves() is not None
    workers.leave("b", "d")
    workers.report("a", "c")
    assert workers.halves() == pytest.approx([0.5, 0.5])
    np.testing.assert_allclose(workers.loads.load(), 2 * TOKENS / 16)


async def test_a_new_incarnation_does_not_delay_the_load():
    workers = Workers("a", "b", apart=False)
    workers.report("a", "b")
    workers.report("a", times=5)
    assert workers.loads.known_load().evidence.tokens == pytest.approx(2 * 80, rel=0.01)
    workers.report("b", incarnation=2)
    # What `a` had reported meanwhile was without `b`, which counts as it did last.
    assert workers.loads.known_load().evidence.tokens > 5 * 2 * 80
    np.testing.assert_allclose(workers.loads.load(), 2 * TOKENS / 16)


async def test_after_a_restart_the_evidence_is_that_of_the_saved_estimates():
    before = Workers("a", "b", apart=False)
    before.report("a", "b", times=40)
    unsaved = before.loads.unsaved()
    assert unsaved is not None
    after = Workers("a", "b", apart=False)
    after.loads.restore(unsaved)
    load_LE, evidence = after.loads.known_load()
    np.testing.assert_allclose(load_LE, 2 * TOKENS / 16)
    # Of a half-life of 16 steps, reported by 16 steps.
    assert evidence.tokens / (2 * 80 / 16) == pytest.approx(16 * 3, rel=0.01)
    assert before.loads.known_load().evidence.tokens > 4 * evidence.tokens

"""Counters tolerate repeated, lost and reordered reports (P10)."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_client import Placement
from trimtab_client.worker.counters import Counters as WorkerCounters
from trimtab_protocol.messages import Report
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.engine.baselines import baseline_of, restore
from trimtab_server.loads.counters import Counted, Counters
from trimtab_server.loads.estimates import Smoothing


def report(seq: int, *counts: int, last_step: int | None = None) -> Report:
    return Report(seq, 0, 10 * seq if last_step is None else last_step, np.array([counts]))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_tokens_are_counted_once_however_reports_arrive(steps, data):
    sent = [report(i + 1, int(total)) for i, total in enumerate(np.cumsum(steps))]
    arriving = [sent[0], *data.draw(st.lists(st.sampled_from(sent), max_size=40))]
    counters = Counters(1, 1, 1)
    added = 0
    for each in arriving:
        taken = counters.take(each)
        added += taken.tokens_LE.sum() if taken else 0
        assert counters.take(each) is None, "it is not newer than itself"
    newest = max(arriving, key=lambda each: each.seq)
    assert counters.counts_LE.tolist() == newest.counts_LE.tolist()
    assert added == newest.counts_LE.sum()


def test_a_first_report_with_a_number_above_1_is_a_gap():
    # Another server has counted some of it, so it must not pass for fresh load.
    counters = Counters(1, 1, 2)
    first, second = counters.take(report(7, 100, 200)), counters.take(report(8, 101, 200))
    assert (first.counted, first.tokens_LE.sum()) == (Counted(0, 300, 300), 0)
    assert (second.counted, second.tokens_LE.tolist()) == (Counted(1, 0, 301), [[1, 0]])


def test_a_report_of_number_1_is_all_load():
    counters = Counters(1, 1, 2)
    taken = counters.take(report(1, 100, 200, last_step=5000))
    assert (taken.counted, taken.tokens_LE.tolist()) == (Counted(300, 0, 300), [[100, 200]])


def test_steps_are_counted_from_the_last_report_even_if_reports_were_lost():
    counters = Counters(1, 1, 1)
    first = Report(1, 5, 9, np.array([[1]]))
    later = Report(4, 30, 39, np.array([[2]]))
    again = Report(5, 40, 39, np.array([[3]]))
    assert [counters.take(each).steps for each in (first, later, again)] == [5, 30, 0]


def saved(counters: Counters) -> Counters:
    """The counters with which a server continues after a restart."""
    smoothing = Smoothing(half_life_steps=16)
    return restore(baseline_of(counters, smoothing.estimate(1, 1)), smoothing.estimate(1, 1))


class Between:
    """A worker and a server, with a network that loses messages and a store that loses data.

    Attributes:
        forgotten: whether the server has lost a report that it had acknowledged.
    """

    def __init__(self):
        self.worker = WorkerCounters(Placement.untouched(1, 1, 1, 1), (0,))
        self.server = Counters(1, 1, 1)
        self.total = self.step = self.gaps = 0
        self.under_way: list[Report] = []
        self.saved: Counters | None = None
        self.heard = self.forgotten = False

    def record(self, rng):
        amount = rng.randrange(10)
        self.worker.record([[amount]], self.step, self.step)
        self.step, self.total = self.step + 1, self.total + amount

    def send(self, rng):
        self.under_way.append(Report(*self.worker.snapshot()))

    def arrive(self, rng):
        """Deliver a report that was sent, maybe again or late; its acknowledgement may be lost."""
        if self.under_way:
            before = self.server.counts_LE.sum()
            taken = self.server.take(rng.choice(self.under_way))
            if taken is not None:
                counted = taken.counted
                self.gaps += counted.gap
                assert before + counted.difference + counted.gap == counted.counts
            if rng.random() < 0.7:
                self.worker.acknowledged(self.server.seq)
                self.heard = True

    def save(self, rng):
        self.saved = saved(self.server)

    def crash(self, rng):
        self.server = saved(self.saved) if self.saved else Counters(1, 1, 1)
        self.forgotten |= self.heard and self.server.seq == 0

    def lose_the_store(self, rng):
        self.saved = None
        self.crash(rng)


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32 - 1))
def test_only_acknowledged_reports_that_the_server_lost_become_gaps(seed):
    rng, between = random.Random(seed), Between()
    happenings = [between.record, between.send, between.arrive, between.save, between.crash]
    for _ in range(60):
        rng.choice(happenings)(rng)
        if rng.random() < 0.01:
            between.lose_the_store(rng)
    assert between.forgotten or between.gaps == 0
    if not between.forgotten:
        # Once a newer report has arrived, all tokens are counted exactly once.
        between.send(rng)
        between.server.take(between.under_way[-1])
        between.worker.acknowledged(between.server.seq)
        between.send(rng)
        between.server.take(between.under_way[-1])
        assert between.server.counts_LE.sum() == between.total


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        (report(2, 5, 2), "report.counts[0, 1]", "2 is below 3, of report 1"),
        (report(2, 5), "report.counts", "shape [1, 1] is not [1, 2]"),
        (report(2, 5, 3, last_step=9), "report.last_step", "9 is before 10, of report 1"),
    ],
)
def test_an_impossible_report_is_named_and_changes_nothing(wrong, field, said):
    counters = Counters(1, 1, 2)
    counters.take(report(1, 5, 3))
    with pytest.raises(InvalidArgumentError) as error:
        counters.take(wrong)
    (violation,) = error.value.violations
    assert (violation.field, violation.description) == (field, said)
    assert counters.take(report(2, 6, 3)).counted == Counted(1, 0, 9)

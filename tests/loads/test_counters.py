"""Counters: repeated, lost and reordered reports do no harm (P10)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.loads.counters import Counted, Counters, Report


def report(seq: int, *counts: int, last_step: int | None = None) -> Report:
    return Report(seq, 0, 10 * seq if last_step is None else last_step, np.array([counts]))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_whatever_arrives_in_whichever_order_is_counted_once(steps, data):
    sent = [report(i + 1, int(total)) for i, total in enumerate(np.cumsum(steps))]
    arriving = [sent[0], *data.draw(st.lists(st.sampled_from(sent), max_size=40))]
    counters = Counters(1, 1, 1)
    added = 0
    for each in arriving:
        counted = counters.take(each)
        added += counted.difference if counted else 0
    newest = max(arriving, key=lambda each: each.seq)
    assert counters.counts_LE.tolist() == newest.counts_LE.tolist()
    assert added == counters.load_LE.sum() == newest.counts_LE.sum()


def test_a_first_report_that_is_not_the_first_is_a_gap():
    # Counted over nobody knows how long: it must not pass for fresh load.
    counters = Counters(1, 1, 2)
    assert counters.take(report(7, 100, 200)) == Counted(0, 300, 300)
    assert counters.load_LE.sum() == 0
    assert counters.take(report(8, 101, 200)) == Counted(1, 0, 301)
    assert counters.load_LE.tolist() == [[1, 0]]


def test_a_repeated_report_is_nothing_new():
    counters = Counters(1, 1, 1)
    assert counters.take(report(1, 5)) == Counted(5, 0, 5)
    assert counters.take(report(1, 5)) is None
    assert counters.seq == 1


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        (report(2, 5, 2), "report.counts[0, 1]", "2 is below 3, of report 1"),
        (report(2, 5), "report.counts", "shape [1, 1] is not [1, 2]"),
        (report(2, 5, 3, last_step=9), "report.last_step", "9 is before 10, of report 1"),
    ],
)
def test_a_report_that_cannot_be_is_named_and_changes_nothing(wrong, field, said):
    counters = Counters(1, 1, 2)
    counters.take(report(1, 5, 3))
    with pytest.raises(InvalidArgumentError) as error:
        counters.take(wrong)
    (violation,) = error.value.violations
    assert (violation.field, violation.description) == (field, said)
    assert counters.take(report(2, 6, 3)) == Counted(1, 0, 9)

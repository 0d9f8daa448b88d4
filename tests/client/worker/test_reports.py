"""What a session reports, and when, against a scripted server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.client.worker.engine import COMMIT, FIRST, SECOND, Engine, Start, options, prepared
from tests.client.worker.server import RunningSessions, Stream

OFTEN = 0.01
ONES = np.ones((3, 4), np.int64)


@pytest.fixture
def reporting(server: RunningSessions, engine: Engine) -> Stream:
    """The engine's stream, on which it reports often."""
    stream = server.next_stream()
    stream.direct(OFTEN)
    return stream


def report_with(stream: Stream, total: int) -> Any:
    """The first report whose counts come to `total`; those before it are acknowledged."""
    while True:
        report = stream.expect("report")
        if report.counts_LE.sum() == total:
            return report
        stream.acknowledge(report.seq)


def test_there_is_no_report_before_the_first_directive(
    server: RunningSessions, engine: Engine
) -> None:
    stream = server.next_stream()
    engine.record(ONES, 1, 1)
    stream.fence()
    assert stream.reports == 0

    stream.direct(OFTEN)
    assert stream.expect("report").counts_LE.tolist() == ONES.tolist()


def test_counts_are_cumulative_and_numbered(reporting: Stream, engine: Engine) -> None:
    seen = []
    for turn in range(1, 4):
        engine.record(ONES, 10 * turn, 10 * turn + 9)
        report = report_with(reporting, 12 * turn)
        assert (report.first_step, report.last_step) == (10 * turn, 10 * turn + 9)
        reporting.acknowledge(report.seq)
        seen.append(report.seq)
    assert seen == sorted(set(seen))


def test_the_largest_step_is_in_the_snapshot(server: RunningSessions, engine: Engine) -> None:
    stream = server.next_stream()
    engine.record(ONES, 0, 2**63 - 2)
    stream.direct(OFTEN)
    assert stream.expect("report").last_step == 2**63 - 2
    stream.acknowledge(1)
    assert stream.expect("report").first_step == 2**63 - 1


def test_a_report_without_new_steps_covers_none(reporting: Stream) -> None:
    first = reporting.expect("report")
    assert (first.seq, first.first_step, first.last_step) == (1, 0, -1)
    assert first.counts_LE.tolist() == np.zeros((3, 4)).tolist()
    reporting.acknowledge(1)
    assert reporting.expect("report").seq == 2


def test_one_report_is_unacknowledged_at_a_time_and_the_next_has_the_latest_counts(
    reporting: Stream, engine: Engine
) -> None:
    first = reporting.expect("report")
    for step in range(100):
        engine.record(ONES, step, step)
    reporting.fence()
    reporting.fence()
    assert reporting.reports == 1

    reporting.acknowledge(first.seq)
    second = reporting.expect("report")
    assert (second.seq, second.first_step, second.last_step) == (2, 0, 99)
    assert second.counts_LE.tolist() == (100 * ONES).tolist()


def test_reports_keep_the_lease_without_acknowledgements(
    server: RunningSessions, engine: Engine
) -> None:
    stream = server.next_stream()
    stream.direct(interval=1000.0, lease=0.06)

    assert [stream.expect("report").seq for _ in range(3)] == [1, 1, 1]
    stream.acknowledge(1)
    stream.fence()
    first, *others = [stream.expect("report").seq for _ in range(3)]
    assert first > 1
    assert others == [first + 1, first + 2]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_after_a_loss_the_next_report_covers_all(
    server: RunningSessions, engine: Engine, known: bool
) -> None:
    """And it has number 1 again, where nothing has been acknowledged yet."""
    stream = server.next_stream()
    stream.direct(OFTEN)
    if known:
        stream.expect("report")
    engine.record(ONES, 1, 1)
    if known:
        # One report is unacknowledged at a time: the next one comes after this.
        stream.acknowledge(1)
    before = stream.expect("report")
    stream.end()
    engine.record(ONES, 2, 2)
    stream = server.next_stream()
    stream.fence()
    assert stream.reports == 0

    stream.direct(OFTEN)
    report = stream.expect("report")
    assert (report.seq > before.seq) if known else (report.seq == 1)
    assert report.counts_LE.tolist() == (2 * ONES).tolist()
    assert report.last_step == 2


def test_a_flip_neither_loses_nor_moves_counts(stream: Stream, engine: Engine) -> None:
    prepared(stream, engine)
    stream.tell(COMMIT)

    per_slot = np.arange(18).reshape(3, 6)
    expected = np.zeros((3, 4), np.int64)
    flip = None
    while flip is None or engine.step < flip.step + 10:
        if flip is None and (flip := engine.boundary()):
            engine.apply()
        elif flip is not None:
            assert engine.boundary() is None
        engine.record(per_slot, engine.step, engine.step, per_slot=True)
        add_slots(expected, per_slot, (SECOND if flip else FIRST).phy2log)

    stream.expect("applied")
    stream.direct(OFTEN)
    assert report_with(stream, int(expected.sum())).counts_LE.tolist() == expected.tolist()


def test_a_worker_counts_its_own_slots(server: RunningSessions, start: Start) -> None:
    engine = start(options(gpus=(1,)), barrier=lambda values: values)
    stream = server.next_stream()
    stream.direct(OFTEN)
    engine.record(np.ones((3, 3), int), 0, 0, per_slot=True)

    # Slots 3, 4 and 5 hold the experts 3, 0 and 1.
    assert report_with(stream, 9).counts_LE.tolist() == [[1, 1, 0, 1]] * 3


def add_slots(counts: np.ndarray, per_slot: np.ndarray, phy2log: np.ndarray) -> None:
    for layer, row in enumerate(phy2log):
        for slot, expert in enumerate(row):
            counts[layer, expert] += per_slot[layer, slot]


def test_forgotten_load_is_reported_at_once(server: RunningSessions, engine: Engine) -> None:
    stream = server.next_stream()
    stream.direct(3600)
    engine.record(ONES, 0, 29)
    engine.session.forget_load()
    report = stream.expect("report")
    assert report.discard
    assert report.counts_LE.tolist() == ONES.tolist()
    stream.acknowledge(report.seq)
    engine.session.forget_load()
    assert stream.expect("report").seq == report.seq + 1

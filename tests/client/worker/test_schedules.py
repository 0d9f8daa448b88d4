"""When a session reports and when it comes back: times are arguments here."""

from __future__ import annotations

import math

import pytest
from grpc import StatusCode

from trimtab_client import RetryPolicy, TrimtabError, UnavailableError
from trimtab_client.worker.backoff import Backoff
from trimtab_client.worker.reporting import ReportSchedule
from trimtab_protocol.messages import Directive

POLICY = RetryPolicy(initial_backoff=1.0, max_backoff=10.0, multiplier=2.0)
AWAY = UnavailableError("no server")


def backoff(jitter: float = 1.0) -> Backoff:
    return Backoff(POLICY, lambda: jitter)


def test_reports_come_at_the_interval() -> None:
    schedule = ReportSchedule()
    assert schedule.due_at() == math.inf
    schedule.directed(Directive(5.0, 0.0), now=100.0)
    assert schedule.due_at() == 105.0
    schedule.queued()
    assert schedule.due_at() == math.inf
    schedule.sent(1, now=106.0)
    assert schedule.due_at() == math.inf
    schedule.acknowledged(1)
    assert schedule.due_at() == 111.0


def test_an_old_acknowledgement_frees_nothing() -> None:
    schedule = ReportSchedule()
    schedule.directed(Directive(5.0, 0.0), now=0.0)
    schedule.sent(2, now=5.0)
    schedule.acknowledged(1)
    assert schedule.due_at() == math.inf


def test_a_lease_bounds_the_interval_and_the_wait_for_an_acknowledgement() -> None:
    schedule = ReportSchedule()
    schedule.directed(Directive(100.0, 30.0), now=0.0)
    assert schedule.due_at() == 10.0
    schedule.sent(1, now=10.0)
    assert schedule.due_at() == 20.0


def test_a_repeated_directive_does_not_delay_the_next_report() -> None:
    schedule = ReportSchedule()
    schedule.directed(Directive(5.0, 0.0), now=0.0)
    schedule.directed(Directive(5.0, 0.0), now=4.0)
    assert schedule.due_at() == 5.0


def test_backoff_grows_to_its_bound_and_stays() -> None:
    waits = backoff()
    assert [waits.ended(AWAY, 0.0, drained=False) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert all(waits.ended(None, 0.0, drained=False) == 10 for _ in range(10_000))


def test_jitter_is_full() -> None:
    assert backoff(0.0).ended(AWAY, 0.0, drained=False) == 0.0
    assert backoff(0.25).ended(AWAY, 0.0, drained=False) == 0.25


def test_a_stream_that_lasted_resets_the_backoff() -> None:
    waits = backoff()
    assert [waits.ended(AWAY, 0.9, drained=False) for _ in range(3)] == [1, 2, 4]
    assert waits.ended(AWAY, 4.1, drained=False) == 1.0
    waits.reset()
    assert waits.ended(AWAY, 0.0, drained=False) == 1.0


def test_without_a_connection_only_the_channel_backs_off() -> None:
    waits = backoff(0.5)
    assert [waits.unreachable() for _ in range(5)] == [0.5] * 5
    assert waits.ended(AWAY, 0.0, drained=False) == 0.5


def test_a_wait_that_the_server_asks_for_comes_on_top() -> None:
    error = UnavailableError("draining", retry_after=7.0)
    assert backoff(0.5).ended(error, 0.0, drained=False) == 7.5


@pytest.mark.parametrize("jitter", [0.0, 0.5])
@pytest.mark.parametrize("code", ["FAILED_PRECONDITION", "INVALID_ARGUMENT", "PERMISSION_DENIED"])
def test_a_lasting_error_waits_long(code: str, jitter: float) -> None:
    error = TrimtabError("two workers own GPU 1", code=StatusCode[code])
    assert backoff(jitter).ended(error, 0.0, drained=False) == 5.0 + 5.0 * jitter


def test_workers_of_a_drained_server_spread() -> None:
    assert backoff(0.5).ended(None, 0.0, drained=True) == 5.0

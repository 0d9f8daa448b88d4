"""How a session's streams follow each other, against a scripted server."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.worker.engine import (
    ABORT,
    AT_ONCE,
    FIRST,
    ONE,
    SECOND,
    SLOW,
    TWO,
    ZERO,
    Engine,
    Start,
    accepted,
    armed,
    flipped,
    offer,
    prepared,
)
from tests.client.worker.server import WAIT, RunningSessions, Stream
from trimtab_client import RetryPolicy
from trimtab_client.worker import connector
from trimtab_protocol.messages import Abort, Drain, Held, HeldState

LAST_STEP = 2**63 - 2


class Clock:
    """The time, and what the test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


# What the next Hello says.


STATES = {
    "stable": (lambda stream, engine: None, None),
    "accepted": (accepted, HeldState.ACCEPTED),
    "prepared": (prepared, HeldState.PREPARED),
    "armed": (armed, HeldState.ARMED),
}


@pytest.mark.parametrize("ending", ["drops", "fails", "restarts"])
@pytest.mark.parametrize("state", STATES)
def test_the_hello_after_a_loss_resumes_the_session(
    server: RunningSessions, stream: Stream, engine: Engine, state: str, ending: str
) -> None:
    stream.fence()
    reach, held = STATES[state]
    transfer = reach(stream, engine)
    if ending == "drops":
        stream.end()
    elif ending == "fails":
        stream.fail(grpc.StatusCode.ABORTED)
    else:
        server.stop()
        server.start()
    assert engine.boundary() is None or state == "armed"

    stream = server.next_stream()
    assert stream.hello.stream >= 2
    assert stream.hello.in_force == ZERO
    assert stream.hello.held == (held and Held(ONE, held))

    stream.direct()
    if state == "accepted":
        # Its transfer went on, and goes on to be reported.
        transfer.set_result(None)
        stream.expect("prepared")
    if state in ("accepted", "prepared"):
        stream.tell(ABORT)
        stream.expect("discarded")
        assert engine.next_aborted().version == ONE
    offer(stream, TWO)
    assert stream.expect("refused" if state == "armed" else "accepted")


def test_a_transfer_may_end_without_a_stream(
    server: RunningSessions, stream: Stream, engine: Engine
) -> None:
    transfer = accepted(stream, engine)
    server.stop()
    engine.event("disconnected")
    transfer.set_result(None)
    server.start()

    stream = server.next_stream()
    if stream.hello.held != (ONE, HeldState.PREPARED):
        # It connected before it heard that.
        stream.expect("prepared")


def test_steps_and_an_armed_flip_continue_without_a_server(
    server: RunningSessions, stream: Stream, engine: Engine
) -> None:
    armed(stream, engine)
    server.stop()
    engine.event("disconnected")
    assert not engine.session.connected

    flip = engine.boundary()
    assert flip is not None
    engine.apply()
    for _ in range(1000):
        assert engine.boundary() is None
    assert engine.session.in_force == ONE

    server.start()
    hello = server.next_stream().hello
    assert (hello.in_force, hello.placement, hello.held) == (ONE, SECOND, None)
    assert hello.flipped_at == flip.step


def test_a_flip_that_the_next_hello_does_not_report_is_answered_on_its_stream(
    server: RunningSessions, stream: Stream, engine: Engine
) -> None:
    armed(stream, engine)
    assert engine.boundary() is not None
    stream.end()
    stream = server.next_stream()
    assert stream.hello.held == Held(ONE, HeldState.ARMED)
    engine.apply()

    stream.direct()
    assert stream.expect("applied").version == ONE


# A server that is away.


def test_an_engine_serves_on_if_there_never_was_a_server(start: Start) -> None:
    engine = start(target="localhost:1", retry=SLOW)
    for _ in range(1000):
        assert engine.boundary() is None
    engine.record(np.ones((3, 4), int), 1, 1000)
    engine.close()


def test_a_waiting_stream_finds_a_server_that_is_back(
    server: RunningSessions, start: Start
) -> None:
    # No wait after the stream is lost, nor after the next finds no connection; then for long.
    waits = iter([0.0, 0.0, *[1.0] * 100])
    engine = start(retry=SLOW, random=lambda: next(waits))
    server.joined()
    engine.event("in_force")
    server.stop()
    for _ in range(2):
        engine.event("disconnected")

    server.start()
    assert server.next_stream().hello.stream == 3


def test_a_stream_that_waits_in_vain_is_followed_by_one_that_does_not_wait(
    server: RunningSessions,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connector, "_MAX_WAIT_FOR_READY_SECONDS", 0.02)
    engine = start(retry=AT_ONCE)
    server.joined()
    engine.event("in_force")
    server.stop()
    reasons = {engine.event("disconnected")["reason"] for _ in range(5)}
    assert all(reason.startswith("UNAVAILABLE: ") for reason in reasons)
    said = [each for each in caplog.records if "no session" in each.message]
    assert sum(each.levelname == "WARNING" for each in said) <= 2, "the loss, and that it lasts"

    server.start()
    assert server.next_stream().hello.stream > 5


def test_a_stream_that_waited_for_its_server_stays_once_it_has_answered(
    server: RunningSessions, start: Start
) -> None:
    clock = Clock()
    engine = start(retry=AT_ONCE, clock=clock)
    server.joined()
    engine.event("in_force")
    server.stop()
    for _ in range(2):
        engine.event("disconnected")
    server.start()
    stream = server.next_stream()
    assert stream.hello.stream == 3, "the one that waits"
    stream.direct()
    assert engine.event("connected") == {"stream": 3}

    clock.ahead = 1000.0
    for _ in range(3):
        stream.fence()
    assert engine.session.connected


def test_a_server_that_asks_for_a_wait_is_not_unreachable(
    server: RunningSessions, start: Start
) -> None:
    policy = RetryPolicy(initial_backoff=1.0, max_backoff=1000.0)
    engine = start(retry=policy, random=lambda: 0.5)
    server.next_stream().fail(grpc.StatusCode.UNAVAILABLE, "draining", retry_after=7.0)

    assert engine.event("disconnected")["retry_in"] == 7.5


def test_a_new_group_begins_with_the_shortest_backoff(
    server: RunningSessions, start: Start
) -> None:
    policy = RetryPolicy(initial_backoff=100.0, max_backoff=1e5, multiplier=10.0)
    engine = start(retry=policy, random=lambda: 1.0)
    waits = []
    for group in ("group 2", "group 3", "group 4"):
        server.next_stream().fail(grpc.StatusCode.ABORTED)
        waits.append(engine.event("disconnected")["retry_in"])
        engine.regroup(group, FIRST)

    assert waits == [100.0] * 3


def test_an_error_that_a_person_has_to_repair_is_retried_slowly(
    server: RunningSessions, start: Start
) -> None:
    policy = RetryPolicy(initial_backoff=0.001, max_backoff=1000.0)
    engine = start(retry=policy, random=lambda: 0.5)
    server.next_stream().fail(grpc.StatusCode.FAILED_PRECONDITION, "two workers own GPU 1")

    event = engine.event("disconnected")
    assert event["retry_in"] == 750.0
    assert event["reason"] == "FAILED_PRECONDITION: two workers own GPU 1"
    assert engine.boundary() is None


def test_a_drained_worker_comes_back_after_a_pause(server: RunningSessions, start: Start) -> None:
    waits = iter([0.00001, *[0.0] * 100])
    policy = RetryPolicy(initial_backoff=1.0, max_backoff=1000.0)
    engine = start(retry=policy, random=lambda: next(waits))
    stream = server.joined()
    stream.tell(Drain(0.0))

    assert engine.event("disconnected")["retry_in"] == pytest.approx(0.01)
    assert stream.over.wait(WAIT)
    assert server.next_stream().hello.stream == 2


def test_a_drain_leaves_time_for_open_work(
    server: RunningSessions, stream: Stream, engine: Engine
) -> None:
    stream.tell(Drain(1000.0))
    assert flipped(stream, engine).step == engine.step

    stream.fail(grpc.StatusCode.UNAVAILABLE)
    assert server.next_stream().hello.flipped_at == engine.step


# What is due on a stream that is left.


def flips_as_its_stream_is_left(
    server: RunningSessions,
    start: Start,
    *,
    group: str | None = None,
    on_flipped: Callable[[], object] = lambda: None,
) -> Engine:
    """The flip's Applied is due on a stream that is left before the session gets to send it."""
    clock = Clock()

    def on_state(event: Any) -> None:
        if event.kind == "complaint":
            # The stream is left, and the next made, before what is posted from here on is done.
            clock.ahead = 20.0
            engine.session.applied()
            if group is not None:
                engine.session.regroup(group, SECOND)
        elif event.kind == "flipped":
            on_flipped()

    engine = start(on_state=on_state, retry=AT_ONCE, clock=clock)
    stream = server.joined()
    armed(stream, engine)
    assert engine.steps_until_flip().version == ONE
    stream.tell(Drain(10.0))
    stream.tell(Abort(ZERO))
    return engine


@pytest.mark.parametrize("group", [None, "group 2"])
def test_an_answer_that_misses_its_stream_is_not_sent_on_the_next(
    server: RunningSessions, start: Start, group: str | None
) -> None:
    engine = flips_as_its_stream_is_left(server, start, group=group)

    stream = server.next_stream()
    assert stream.hello.group_id == (group or "group 1")
    assert stream.hello.in_force == ONE
    assert stream.hello.flipped_at == engine.step
    stream.fence()


def test_on_state_gets_a_flip_before_the_next_hello_reports_it(
    server: RunningSessions, start: Start
) -> None:
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def on_flipped() -> None:
        # Time enough for a Hello that would not wait for this.
        try:
            server.next_stream(timeout=0.3)
        except queue.Empty:
            told.put(True)
        else:
            told.put(False)

    flips_as_its_stream_is_left(server, start, on_flipped=on_flipped)
    assert told.get(timeout=WAIT)
    assert server.next_stream().hello.in_force == ONE


def test_a_refusal_without_a_stream_is_not_logged(
    server: RunningSessions, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start(retry=SLOW, random=lambda: 1)
    stream = server.joined()
    transfer = accepted(stream, engine)
    stream.end()
    engine.event("disconnected")
    transfer.set_exception(OSError("link down"))

    assert engine.next_aborted().version == ONE
    engine.close()
    assert "refused" not in caplog.text


def test_the_largest_step_is_reported(
    server: RunningSessions, stream: Stream, engine: Engine
) -> None:
    armed(stream, engine)
    engine.step = LAST_STEP - 1
    assert engine.boundary() is not None
    engine.apply()

    assert stream.expect("applied").step == LAST_STEP
    stream.end()
    assert server.next_stream().hello.flipped_at == LAST_STEP

"""How a session's streams follow each other, against a scripted server."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.client.worker.engine import FIRST, SECOND, Engine
from tests.client.worker.server import (
    WAIT,
    RunningSessions,
    Stream,
    offer_message,
    version_of,
)
from trimtab.v1alpha1 import session_service_pb2
from trimtab_client import InvalidArgumentError, RetryPolicy, Version

ZERO, ONE = Version(1, 0), Version(1, 1)
AT_ONCE = RetryPolicy(initial_backoff=0.0, max_backoff=0.0)
LAST_STEP = 2**63 - 2
Start = Callable[..., Engine]


class Clock:
    """The time, and what the test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def accepted(stream: Stream, engine: Engine) -> Any:
    """An offer is accepted; its transfer runs, and is returned."""
    stream.send(offer=offer_message(ONE, ZERO, FIRST, SECOND, (0, 1)))
    stream.expect("accepted")
    return engine.next_offer()[1]


def armed(stream: Stream, engine: Engine) -> None:
    accepted(stream, engine).set_result(None)
    stream.expect("prepared")
    stream.commit(ONE, SECOND)
    stream.fence()


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
    stream.send(drain=session_service_pb2.Drain(seconds=10.0))
    stream.abort(ZERO)
    return engine


@pytest.mark.parametrize("group", [None, "group 2"])
def test_an_answer_that_misses_its_stream_is_not_sent_on_the_next(
    server: RunningSessions, start: Start, group: str | None
) -> None:
    engine = flips_as_its_stream_is_left(server, start, group=group)

    stream = server.next_stream()
    assert stream.hello.group_id == (group or "group 1")
    assert version_of(stream.hello.in_force) == ONE
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
    assert version_of(server.next_stream().hello.in_force) == ONE


def test_a_refusal_without_a_stream_is_not_logged(
    server: RunningSessions, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start(retry=RetryPolicy(initial_backoff=1000.0, max_backoff=1000.0), random=lambda: 1)
    stream = server.joined()
    transfer = accepted(stream, engine)
    stream.end()
    engine.event("disconnected")
    transfer.set_exception(OSError("link down"))

    assert engine.next_aborted().version == ONE
    engine.close()
    assert "refused" not in caplog.text


def test_the_largest_step_is_reported(server: RunningSessions, start: Start) -> None:
    engine = start()
    stream = server.joined()
    armed(stream, engine)
    engine.step = LAST_STEP - 1
    assert engine.boundary() is not None
    engine.apply()

    assert stream.expect("applied").step == LAST_STEP
    stream.end()
    assert server.next_stream().hello.flipped_at == LAST_STEP


def test_a_step_beyond_int64_is_refused_and_a_smaller_one_accepted(
    server: RunningSessions, start: Start
) -> None:
    engine = start()
    stream = server.joined()
    stream.fence()
    for step in (2**63, LAST_STEP + 1):
        with pytest.raises(
            InvalidArgumentError, match=rf"step: {step} is not in \[0, {LAST_STEP}\]"
        ):
            engine.harness.at_step_boundary(step)
    assert engine.boundary() is None

"""What a session makes of callbacks that exit, and of failures of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.worker.engine import ONE, QUICK, Engine, Start, offer, options
from tests.client.worker.server import WAIT, RunningSessions
from trimtab_client import AsyncWorkerSession


def raising(kind: type[BaseException]) -> Callable[[object], Any]:
    def callback(_: object) -> None:
        raise kind(3)

    return callback


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("sync", SystemExit),
        ("sync", KeyboardInterrupt),
        ("sync", asyncio.CancelledError),
        ("async", asyncio.CancelledError),
        ("sync", RuntimeError),
        ("async", RuntimeError),
    ],
)
def test_a_callback_that_raises_or_exits_counts_as_failed_and_the_session_continues(
    server: RunningSessions,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    error: type[BaseException],
) -> None:
    failing = raising(error)
    engine = Engine(kind, server.target, on_state=failing, on_offer=failing, on_abort=failing)
    stream = server.joined()
    offer(stream)
    stream.expect("accepted")
    assert f"on_offer failed: {error.__name__}(3)" in stream.expect("refused").reason

    stream.fence()
    assert engine.session.connected
    assert engine.boundary() is None
    for name in ("on_state failed for 'connected'", "on_offer failed for 1.1", "on_abort failed"):
        assert name in caplog.text
    engine.close(timeout=0.1)


def test_an_exit_on_the_engines_own_thread_is_raised(server: RunningSessions) -> None:
    engine = Engine(
        "sync", server.target, options(transfer="collective"), on_offer=raising(SystemExit)
    )
    stream = server.joined()
    offer(stream)
    stream.expect("accepted")
    with pytest.raises(SystemExit):
        engine.boundary()

    assert "on_offer failed: SystemExit(3)" in stream.expect("refused").reason
    assert engine.next_aborted().version == ONE
    engine.close(timeout=0.1)


def task_of_the_session() -> asyncio.Task[Any]:
    [task] = [each for each in asyncio.all_tasks() if each.get_name() == "trimtab-worker 0"]
    return task


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_on_the_event_loop_ends_the_loop(
    server: RunningSessions, kind: type[BaseException]
) -> None:
    begun = []

    async def main() -> None:
        session = AsyncWorkerSession(
            server.target,
            options(),
            on_offer=lambda offer: None,
            on_abort=lambda offer: None,
            on_state=raising(kind),
            retry=QUICK,
        )
        begun.append((session, task_of_the_session()))
        await asyncio.Event().wait()

    answering = threading.Thread(target=lambda: server.next_stream().direct())
    answering.start()
    with pytest.raises(kind):
        asyncio.run(main())
    answering.join()
    [(session, task)] = begun
    assert not session.connected
    assert isinstance(task.exception(), kind)


async def test_a_cancelled_session_is_not_connected(server: RunningSessions) -> None:
    session = AsyncWorkerSession(
        server.target, options(), on_offer=lambda offer: None, on_abort=lambda offer: None
    )
    stream = await asyncio.to_thread(server.joined)
    await asyncio.to_thread(stream.fence)
    assert session.connected
    task = task_of_the_session()
    task.cancel()
    await asyncio.wait([task], timeout=WAIT)

    assert task.cancelled()
    assert not session.connected
    assert await session.at_step_boundary(0) is None
    await session.close()


class Failing:
    """A clock that fails while the test says so."""

    def __init__(self) -> None:
        self.fails = False

    def __call__(self) -> float:
        if self.fails:
            raise OSError("no clock")
        return time.monotonic()


class Awaiting(logging.Handler):
    """Sets an event when a message is logged that has these words in it."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words
        self.logged = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            self.logged.set()


def test_a_failure_between_streams_is_logged_and_the_session_continues(
    server: RunningSessions, start: Start
) -> None:
    clock, awaiting = Failing(), Awaiting("failed between streams, and continues")
    logger = logging.getLogger("trimtab_client.worker")
    logger.addHandler(awaiting)
    try:
        engine = start(clock=clock)
        stream = server.joined()
        stream.fence()
        clock.fails = True
        stream.end()
        assert awaiting.logged.wait(WAIT)
        assert not engine.session.connected
        assert engine.boundary() is None
    finally:
        logger.removeHandler(awaiting)

    clock.fails = False
    stream = server.next_stream()
    stream.direct()
    stream.fence()
    assert engine.session.connected

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.client.worker.engine import KINDS, Engine, Start
from tests.client.worker.server import RunningSessions, Stream, serving_sessions


@pytest.fixture
def server() -> Iterator[RunningSessions]:
    with serving_sessions() as running:
        yield running


@pytest.fixture(params=KINDS)
def start(request: pytest.FixtureRequest, server: RunningSessions) -> Iterator[Start]:
    """Starts an engine with a session of either kind; closed when the test ends."""
    started: list[Engine] = []

    def begin(*args: Any, **others: Any) -> Engine:
        target = others.pop("target", server.target)
        engine = Engine(request.param, target, *args, **others)
        started.append(engine)
        return engine

    yield begin
    for engine in started:
        engine.close(timeout=0.1)


@pytest.fixture
def engine(start: Start) -> Engine:
    """The only worker of its group."""
    return start()


@pytest.fixture
def stream(server: RunningSessions, engine: Engine) -> Stream:
    """The engine's stream, with a directive and an epoch."""
    return server.joined()

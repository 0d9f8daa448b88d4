from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.client.deployed import Worker
from tests.client.harness import HARNESSES
from tests.client.service import RunningService, serving
from tests.servers import ServerProcess, server_process
from trimtab_client import RetryPolicy

QUICK_RETRY = RetryPolicy(initial_backoff=0.001, max_backoff=0.001)


@pytest.fixture
def service() -> Iterator[RunningService]:
    with serving() as running:
        yield running


@pytest.fixture(params=HARNESSES)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a harness around either client; closed when the test ends."""
    made = []

    def make(*args: Any, **options: Any) -> Any:
        harness = HARNESSES[request.param](*args, **{"retry": QUICK_RETRY, **options})
        made.append(harness)
        return harness

    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def client(connect: Callable[..., Any], service: RunningService) -> Any:
    return connect(service.target)


@pytest.fixture(scope="module")
def often(starts_processes: None) -> Iterator[ServerProcess]:
    """A real server that has its workers report often."""
    with server_process("--report-seconds", "0.01") as running:
        yield running


@pytest.fixture
def worker(often: ServerProcess, request: pytest.FixtureRequest) -> Iterator[Worker]:
    started = Worker(often, request.node.name)
    yield started
    started.session.close(timeout=0.1)

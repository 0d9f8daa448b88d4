from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.client.deployed import Worker
from tests.client.harness import BlockingClient, event_loop
from tests.client.service import RunningService, serving
from tests.servers import ServerProcess, server_process
from trimtab_client import Client, RetryPolicy

QUICK_RETRY = RetryPolicy(initial_backoff=0.001, max_backoff=0.001)


@pytest.fixture
def service() -> Iterator[RunningService]:
    with serving() as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a client of either kind; closed when the test ends."""
    with ExitStack() as stack:
        kind: Callable[..., Any] = Client
        if request.param == "async":
            kind = partial(BlockingClient, stack.enter_context(event_loop()))

        def make(*args: Any, **options: Any) -> Any:
            client = kind(*args, **{"retry": QUICK_RETRY, **options})
            stack.callback(client.close)
            return client

        yield make


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

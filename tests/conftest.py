"""Fixtures that any test may use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.servers import ServerProcess, make_config, server_process
from trimtab_server.app import App


@pytest.fixture
async def app() -> AsyncIterator[App]:
    """A ready server in the test's event loop; `app.address` is where it listens."""
    async with App(make_config()) as running:
        yield running


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A ready server in a process of its own, shared by all tests: leave it running."""
    with server_process() as running:
        yield running

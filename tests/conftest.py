"""Fixtures that any test may use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from tests.servers import ServerProcess, make_config, server_process
from trimtab_server.app import App

# No deadline: machines are shared and noisy. CI looks harder.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, max_examples=400, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


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

"""Fixtures that any test may use, and the markers that every test has."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from hypothesis import settings

# Before torch is imported. Its idle threads would spin, and on a busy machine keep those from
# working that they wait for: comparing plans of real sizes took 50 s instead of 5.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests import side_by_side
from tests.servers import ServerProcess, make_config, preloading, server_process
from trimtab_server.app import App

# No deadline: machines are shared and noisy. CI looks harder.
settings.register_profile("here", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=400, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


_OF_PROCESSES = ("tools/simulate/test_fleet.py", "tools/cli/test_simulate.py")
"""Files in which every test starts a fleet of processes."""

_started: list[str] = []
"""The processes that were started since the test began."""


def _note_process(event: str, args: tuple[object, ...]) -> None:
    starts = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")
    # Python's `platform` asks `uname` for the processor.
    if event in starts and args[:1] != ("uname",):
        _started.append(f"{event} {args[:2]}")


sys.addaudithook(_note_process)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(side_by_side)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by `-m`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test that is neither `process` nor `slow` the marker `unit`."""
    for item in items:
        asks = "starts_processes" in getattr(item, "fixturenames", ())
        if asks or side_by_side.is_concurrent(item) or item.path.as_posix().endswith(_OF_PROCESSES):
            item.add_marker("process")
        if not any(map(item.get_closest_marker, ("process", "slow"))):
            item.add_marker("unit")
        elif item.get_closest_marker("unit") is not None:
            raise pytest.UsageError(f"{item.nodeid} is marked as unit, and as process or slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _started.clear()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that starts a process and is not marked so."""
    yield
    if _started and item.get_closest_marker("process") is None:
        pytest.fail(f"mark this test as `process`: it calls {_started[0]}", pytrace=False)


@pytest.fixture(scope="session")
def starts_processes() -> None:
    """Fixtures that start a process ask for this one, so that their tests are marked `process`."""


@pytest.fixture(scope="session", autouse=True)
def _servers_are_preloaded() -> Iterator[None]:
    with preloading():
        yield


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Undo what a test has configured of the logs, such as by a command in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if root.handlers != handlers or root.level != level:
        structlog.reset_defaults()
        root.handlers[:], root.level = handlers, level


@pytest.fixture
async def app() -> AsyncIterator[App]:
    """A ready server in the test's event loop; `app.address` is where it listens."""
    async with App(make_config()) as running:
        yield running


@pytest.fixture(scope="session")
def server(starts_processes: None) -> Iterator[ServerProcess]:
    """A ready server in a process of its own, shared by all tests: leave it running."""
    with server_process() as running:
        yield running

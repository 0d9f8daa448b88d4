"""Runs tests that wait for processes side by side: those that are marked as `concurrent`.

They run after all others. Each takes no fixture but `tmp_path`, since pytest sets up the fixtures
of one test at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import takewhile
from typing import Any

import pytest

AT_ONCE = 2

_RUNNING = pytest.StashKey[Future[None]]()
_START = pytest.StashKey[Callable[[pytest.Item], None]]()


def is_concurrent(item: pytest.Item) -> bool:
    """Whether a test has the marker; raises UsageError if it asks for what it would not get."""
    if item.get_closest_marker("concurrent") is None:
        return False
    if others := [name for name in _wanted(item) if name not in {"tmp_path", *_parameters(item)}]:
        raise pytest.UsageError(f"{item.nodeid} is concurrent, and asks for {others}")
    return True


def _wanted(item: Any) -> list[str]:
    return list(inspect.signature(item.function).parameters)


def _parameters(item: Any) -> dict[str, object]:
    return item.callspec.params if hasattr(item, "callspec") else {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move these tests to the end."""
    items.sort(key=is_concurrent)


@pytest.fixture(scope="session", autouse=True)
def _threads(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    def start(item: pytest.Item) -> None:
        test = partial(item.function, **_parameters(item))  # type: ignore[attr-defined]
        if "tmp_path" in _wanted(item):
            test.keywords["tmp_path"] = tmp_path_factory.mktemp("concurrent")
        item.stash[_RUNNING] = pool.submit(test)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        request.session.stash[_START] = start
        yield
        pool.shutdown(cancel_futures=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Await a test; the first starts all of them, but for those that are skipped."""
    if not is_concurrent(pyfuncitem):
        return None
    session = pyfuncitem.session
    if _RUNNING not in pyfuncitem.stash:
        for item in takewhile(is_concurrent, session.items[session.items.index(pyfuncitem) :]):
            if not any(mark.args[0] for mark in item.iter_markers("skipif")):
                session.stash[_START](item)
    pyfuncitem.stash[_RUNNING].result()
    return True

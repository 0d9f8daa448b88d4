"""Fixtures of the engines' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.groups import Hosts, require_engines


@pytest.fixture(scope="module")
def hosts(starts_processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The processes that have imported the engines, each from its first group on."""
    require_engines()
    hosts = Hosts(tmp_path_factory)
    yield hosts
    hosts.close()

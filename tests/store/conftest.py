from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.benches import BENCHES, Bench
from trimtab_server.store.failpoints import configure


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """One of each store."""
    bench = BENCHES[request.param](tmp_path)
    yield bench
    bench.tidy()


@pytest.fixture(autouse=True)
def _failpoints_are_off() -> Iterator[None]:
    yield
    configure("")

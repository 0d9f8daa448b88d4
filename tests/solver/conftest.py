"""Fixtures of the solver's tests."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from trimtab_server.solver import BackendName


# Of the session, since tests under @given cannot have a narrower one.
@pytest.fixture(scope="session", params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> BackendName:
    """Every backend that runs anywhere; they owe the same answers."""
    name: BackendName = request.param
    return name


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back the number of threads that a test sets, for all of which cores are free."""
    monkeypatch.setattr("trimtab_server.solver.backends.cpu.threads._free_cores", lambda: 64.0)
    monkeypatch.setattr("trimtab_server.solver.backends.cpu.threads._quota_cores", math.inf)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

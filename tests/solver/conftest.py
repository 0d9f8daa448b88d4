"""Fixtures of the solver's tests."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from trimtab_server.solver import BackendName


# Session scope, since tests under @given cannot use a narrower one.
@pytest.fixture(scope="session", params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> BackendName:
    """Each backend that runs on any machine; all must give the same answers."""
    name: BackendName = request.param
    return name


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the number of threads that a test sets; enough cores count as free for all."""
    monkeypatch.setattr("trimtab_server.solver.backends.cpu.threads._free_cores", lambda: 64.0)
    monkeypatch.setattr("trimtab_server.solver.backends.cpu.threads._quota_cores", math.inf)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.rpc.endpoint import Endpoint, endpoint_of
from tests.rpc.operating import client_of
from trimtab_client import AsyncClient


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with endpoint_of() as running:
        yield running


@pytest.fixture
async def client(endpoint: Endpoint) -> AsyncIterator[AsyncClient]:
    async with client_of(endpoint.address) as connected:
        yield connected

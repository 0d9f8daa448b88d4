from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.rpc.endpoint import Endpoint, endpoint_of


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with endpoint_of() as running:
        yield running

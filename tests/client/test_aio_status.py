from __future__ import annotations

from typing import Any

import grpc

from trimtab_client.aio_status import reveal

NOTHING = grpc.aio.Metadata()
HIDDEN = "Internal error from Core"


class LateStatus:
    """A call that, as grpc.aio's do, learns the server's status after a write has failed.

    When that happens is up to the event loop, so a real one cannot be made to on demand.
    """

    def __init__(self, *codes: grpc.StatusCode) -> None:
        self._codes = iter(codes)

    async def code(self) -> grpc.StatusCode:
        self._code = next(self._codes)
        return self._code

    async def details(self) -> str:
        return HIDDEN if self._code is grpc.StatusCode.INTERNAL else "too much"

    async def initial_metadata(self) -> Any:
        return NOTHING

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata(("key", "value"))


async def test_a_status_that_a_failed_write_hides_is_waited_for() -> None:
    hidden = grpc.StatusCode.INTERNAL
    call = LateStatus(hidden, hidden, hidden, grpc.StatusCode.RESOURCE_EXHAUSTED)
    failure = grpc.aio.AioRpcError(hidden, NOTHING, NOTHING, HIDDEN)

    revealed = await reveal(call, failure)

    assert revealed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert revealed.details() == "too much"
    assert list(revealed.trailing_metadata()) == [("key", "value")]


async def test_any_other_failure_stays_as_it_is() -> None:
    failure = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, NOTHING, NOTHING, "the server's own")

    assert await reveal(LateStatus(), failure) is failure
